from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from capprune.data.captions import load_caption_set
from capprune.data.photos import open_photos
from capprune_runtime.errors import DataError, UsageError


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_photos_are_found_at_any_depth_and_by_their_ending(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("1.jpg", "a/2.JPEG", "a/b/3.png", "a/b/4.webp", "a/notes.txt", "dataset_x.json"):
        (tmp_path / name).write_text(name)
    with open_photos(tmp_path) as photos:
        assert photos.names() == ("1.jpg", "a/2.JPEG", "a/b/3.png", "a/b/4.webp")
        assert photos.read("a/b/3.png") == b"a/b/3.png"
        assert photos.read("3.png") == b"a/b/3.png"
        assert photos.read("elsewhere/3.png") == b"a/b/3.png"


def test_photos_in_a_linked_folder_are_found_and_a_link_in_a_circle_ends(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "1.jpg").write_bytes(b"one")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photos").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "above").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with open_photos(tmp_path / "data") as photos:
        assert photos.names() == ("photos/1.jpg",)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_members_are_read_in_place(tmp_path: Path, form: int) -> None:
    long_name = "folder/" * 30 + "ünï.png"
    with tarfile.open(tmp_path / "part.tar", "w", format=form) as tar:
        for name, content in {"./1.jpg": b"one", "sub/2.jpg": b"two" * 1000, long_name: b"three"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with open_photos(tmp_path) as photos:
        assert photos.names() == ("1.jpg", long_name, "sub/2.jpg")
        assert photos.read("1.jpg") == b"one"
        assert photos.read("sub/2.jpg") == b"two" * 1000
        assert photos.read(long_name) == b"three"
    assert [path.name for path in tmp_path.iterdir()] == ["part.tar"]


def test_real_shards_hold_every_captioned_photo(data_folder: Path) -> None:
    captions = load_caption_set(data_folder / "flickr8k")
    with open_photos(data_folder / "flickr8k") as photos:
        assert len(photos.names()) == 8000
        names = [photo.name for photo in captions.photos]
        assert photos.missing(names) == ()
        photos.require(names)
        with tarfile.open(data_folder / "flickr8k" / "images_test.tar") as tar:
            for photo in captions.split("test")[:20]:
                member = tar.extractfile(photo.name)
                assert member is not None
                assert photos.read(photo.name) == member.read()


def test_threads_read_one_tar_at_once(tmp_path: Path) -> None:
    members = {f"{number}.jpg": bytes([number]) * (5000 + number) for number in range(100)}
    write_tar(tmp_path / "part.tar", members)
    with open_photos(tmp_path) as photos, ThreadPoolExecutor(8) as pool:
        names = [name for _ in range(20) for name in members]
        assert list(pool.map(photos.read, names)) == [members[name] for name in names]


def test_links_devices_and_members_that_lead_outside_are_no_photos(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "part.tar", "w") as tar:
        for name in ("/absolute.jpg", "../above.jpg", "in/../../out.jpg", "good.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
        for name, kind in (("soft.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        for name, kind in (("pipe.jpg", tarfile.FIFOTYPE), ("device.jpg", tarfile.CHRTYPE), ("d.jpg", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type = kind
            tar.addfile(member)
    with open_photos(tmp_path / "data") as photos:
        assert photos.names() == ("good.jpg",)


def test_photos_that_are_not_there_are_counted_and_the_first_named(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    names = ["1.jpg", *(f"{number}.jpg" for number in range(2, 9))]
    with open_photos(tmp_path) as photos:
        assert photos.missing(names) == tuple(names[1:])
        with pytest.raises(DataError, match=r"(?s)captions for photos that do not exist.*7 missing: 2\.jpg, 3\.jpg"):
            photos.require(names)
        with pytest.raises(DataError, match=r"(?s)captions for photos that do not exist.*1 missing: 2\.jpg\n"):
            photos.read("2.jpg")


def test_base_name_that_two_photos_share_answers_to_neither(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_text(folder)
    with open_photos(tmp_path) as photos:
        assert photos.read("a/1.jpg") == b"a"
        assert photos.missing(["1.jpg", "b/1.jpg"]) == ("1.jpg",)


def test_two_names_never_mean_one_photo(tmp_path: Path) -> None:
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs" / "1.jpg").touch()
    with open_photos(tmp_path) as photos:
        assert photos.missing(["cats/1.jpg"]) == ()
        assert photos.missing(["cats/1.jpg", "dogs/1.jpg"]) == ("cats/1.jpg",)
        assert photos.missing(["cats/1.jpg", "cows/1.jpg"]) == ("cats/1.jpg", "cows/1.jpg")


def test_photos_of_one_name_in_several_tars_go_by_their_tars_and_are_counted(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar", "c.tar"):
        write_tar(tmp_path / name, {"1.jpg": name.encode(), f"own-{name[0]}.jpg": b"x"})
    with open_photos(tmp_path) as photos:
        assert photos.names() == ("a.tar/1.jpg", "b.tar/1.jpg", "c.tar/1.jpg", "own-a.jpg", "own-b.jpg", "own-c.jpg")
        assert [photos.read(f"{tar}.tar/1.jpg") for tar in "abc"] == [b"a.tar", b"b.tar", b"c.tar"]
        assert photos.read("a.tar/own-a.jpg") == b"x"
        assert photos.missing(["1.jpg"]) == ("1.jpg",)
        (note,) = photos.left_out
        assert note.names == ("a.tar/1.jpg", "b.tar/1.jpg", "c.tar/1.jpg")


def test_one_name_twice_in_one_tar_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"1.jpg": b"x"})
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        member = tarfile.TarInfo("1.jpg")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"y"))
    with pytest.raises(DataError, match=r"(?s)two photos have one name: 1\.jpg.*a\.tar and .*a\.tar"):
        open_photos(tmp_path)


def test_photo_beside_a_tar_that_holds_its_name_too_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"x")
    write_tar(tmp_path / "a.tar", {"1.jpg": b"y"})
    with pytest.raises(DataError, match=r"(?s)two photos have one name: 1\.jpg.*1\.jpg and .*a\.tar"):
        open_photos(tmp_path)


def test_hidden_files_and_folders_are_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("1.jpg", "._1.jpg", ".thumbnails/2.jpg", "__MACOSX/3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with open_photos(tmp_path) as photos:
        assert photos.names() == ("1.jpg",)
        assert {note.what: note.names for note in photos.left_out} == {
            "hidden folders": (".thumbnails", "__MACOSX"),
            "hidden files": ("._1.jpg",),
            "links that lead nowhere, or special files": ("gone.jpg",),
        }


def test_fingerprint_changes_with_the_time_of_change_alone(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"x")
    os.utime(tmp_path / "1.jpg", ns=(1, 1))
    with open_photos(tmp_path) as photos:
        before = photos.fingerprint(["1.jpg"])
    (tmp_path / "1.jpg").write_bytes(b"y")
    with open_photos(tmp_path) as photos:
        assert photos.fingerprint(["1.jpg"]) != before


def test_tar_cut_off_inside_a_photo_is_a_data_error(tmp_path: Path) -> None:
    write_tar(tmp_path / "part.tar", {"1.jpg": b"1" * 2000, "2.jpg": b"2" * 2000})
    whole = (tmp_path / "part.tar").read_bytes()
    for length in (0, 100, 512 + 1999, 512 + 2048 + 512 + 1999):
        (tmp_path / "part.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"tar file is broken: .*part\.tar"):
            open_photos(tmp_path)


def test_compressed_tar_is_a_data_error(tmp_path: Path) -> None:
    write_tar(tmp_path / "part.tar", {"1.jpg": b"1"}, "w:gz")
    with pytest.raises(DataError, match="uncompressed"):
        open_photos(tmp_path)


def test_tar_that_shrinks_while_it_is_open_is_a_data_error(tmp_path: Path) -> None:
    write_tar(tmp_path / "part.tar", {"1.jpg": b"1" * 2000})
    with open_photos(tmp_path) as photos:
        with (tmp_path / "part.tar").open("r+b") as file:
            file.truncate(1000)
        with pytest.raises(DataError, match=r"has changed.*part\.tar, photo 1\.jpg"):
            photos.read("1.jpg")


def test_photo_removed_after_opening_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    with open_photos(tmp_path) as photos:
        (tmp_path / "1.jpg").unlink()
        with pytest.raises(DataError, match=r"cannot be read.*1\.jpg"):
            photos.read("1.jpg")


def test_folder_that_is_missing_or_holds_no_photo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this data folder does not exist"):
        open_photos(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no photos"):
        open_photos(tmp_path)
    (tmp_path / "photos.zip").touch()
    with pytest.raises(DataError, match=r"(?s)no photos.*unzip .*photos\.zip"):
        open_photos(tmp_path)


def test_fingerprint_changes_with_names_order_and_sizes(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(b"x" * number)
    with open_photos(tmp_path) as photos:
        both = photos.fingerprint(["1.jpg", "2.jpg"])
        assert both == photos.fingerprint(["1.jpg", "2.jpg"])
        assert both != photos.fingerprint(["2.jpg", "1.jpg"])
    (tmp_path / "2.jpg").write_bytes(b"other")
    with open_photos(tmp_path) as photos:
        assert both != photos.fingerprint(["1.jpg", "2.jpg"])
