"""Where results go is checked before the work, and what was done is on the disk when something fails."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from capprune_runtime.atomic import atomic_folder, check_file_place, check_folder_place
from capprune_runtime.caption.captioner import Caption
from capprune_runtime.errors import CapPruneError
from capprune_runtime.measure.caption_journal import CaptionJournal, journal_path
from cases import run

NOBODY = 65534


@pytest.fixture
def mount_point(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "mounted"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "capprune", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_an_empty_mount_point_is_filled(mount_point: Path, ready: Path) -> None:
    (mount_point / "lost+found").mkdir()  # as a new ext4 has it
    done = run("unpack", ready, "--out", mount_point)
    assert done.code == 0, done.err
    assert (mount_point / "manifest.json").is_file()
    assert run("verify", mount_point, "--no-golden").code == 0
    assert not [path for path in mount_point.iterdir() if path.name.startswith(".")]


def as_nobody(work: Callable[[], None]) -> int:
    """Do something as a user who may write nowhere; the exit code of a message, or 0."""
    os.seteuid(NOBODY)
    try:
        work()
    except CapPruneError as error:
        return error.exit_code
    finally:
        os.seteuid(0)
    return 0


def test_an_empty_folder_whose_parent_is_read_only_is_filled(ready: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    out = tmp_path / "closed" / "out"
    out.mkdir(parents=True)
    os.chown(out, NOBODY, NOBODY)
    for folder in (out.parent, tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)

    def fill() -> None:
        with atomic_folder(out) as folder:
            (folder / "file").write_text("whole")

    assert as_nobody(fill) == 0 and (out / "file").read_text() == "whole"


def test_a_folder_that_is_filled_from_within_is_empty_again_after_an_error(tmp_path: Path, mount_point: Path) -> None:
    with pytest.raises(OSError, match="broken"), atomic_folder(mount_point) as folder:
        (folder / "file").touch()
        raise OSError(errno.EIO, "broken")
    assert not list(mount_point.iterdir())


def refused_at_once(*arguments: object, out: str = "--out") -> str:
    started = time.monotonic()
    done = run(*arguments)
    assert done.code == 2 and done.out == "", done.err
    assert time.monotonic() - started < 5
    return done.err


@pytest.mark.parametrize("option", ["--out", "--explain"])
def test_a_place_that_cannot_be_written_to_is_refused_before_any_caption(
    photo: Path, ready: Path, tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written to" in refused_at_once("caption", photo, option, tmp_path / "file" / "t.csv")
    assert "/proc" in refused_at_once("caption", photo, option, "/proc/capprune/t.csv")


def test_every_command_checks_its_output_first(ready: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "c.yaml").touch()
    bad = tmp_path / "file" / "out"
    for arguments in (("train", tmp_path / "c.yaml"), ("export", tmp_path), ("unpack", ready), ("pack", ready),
                      ("data", "scenes"), ("finetune", tmp_path), ("prune", tmp_path, "--method", "hard"),
                      ("sweep", tmp_path / "c.yaml", "--grid", "a=1"), ("report", ready),
                      ("ensemble", tmp_path, "--photos", tmp_path),
                      ("length", tmp_path, "--data", tmp_path)):  # fmt: skip
        assert "cannot be written to" in refused_at_once(*arguments, "--out", bad), arguments
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "file"]


def test_a_folder_that_is_read_only_is_refused_and_left_alone(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    assert as_nobody(lambda: check_folder_place(closed / "e", new=False)) == 2
    assert as_nobody(lambda: check_file_place(closed / "t.csv")) == 2
    closed.chmod(0o777)
    assert as_nobody(lambda: check_file_place(closed / "t.csv")) == 0
    assert not list(closed.iterdir())


def test_a_full_disk_is_found_before_the_work(ready: Path, photo: Path, mount_point: Path) -> None:
    (mount_point / "filler").write_bytes(bytes(40 << 20)[: os.statvfs(mount_point).f_bavail * 4096])
    done = run("caption", photo, "--out", mount_point / "t.csv")
    assert done.code == 1 and "the disk is full" in done.err and done.out == ""


def test_a_file_over_the_limit_is_named(photo: Path, ready: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "capprune", "unpack", str(ready), "--out", str(tmp_path / "b")]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "ulimit -f" in done.stderr and "defect" not in done.stderr


def test_a_link_is_followed_and_stays(photo: Path, ready: Path, tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "l.csv"
    link.symlink_to(real)
    for before in ("photo,caption,low_confidence,error\n", "another table\n"):
        real.write_text(before)
        assert run("caption", photo, "--out", link).code == 0
        assert link.is_symlink() and real.read_text().startswith("photo,caption")
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    assert run("caption", photo, "--out", loop).code == 2


OUTPUTS: dict[str, Callable[[Path, Path, Path], list[object]]] = {
    "captions.csv": lambda photo, bundle, out: ["caption", photo, "--out", out],
    "captions.json": lambda photo, bundle, out: ["caption", photo, "--out", out],
    "photo.capz": lambda photo, bundle, out: ["pack", bundle, "--out", out],
    "page.html": lambda photo, bundle, out: ["report", bundle, "--out", out],
}


@pytest.mark.parametrize(
    ("name", "linked"),
    [
        *((name, False) for name in OUTPUTS),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in ("photo.capz", "page.html")),
    ],
)
def test_a_file_that_capprune_did_not_write_is_not_replaced(
    name: str, linked: bool, photo: Path, ready: Path, tmp_path: Path
) -> None:
    mine = tmp_path / ("mine" if linked else name)
    mine.write_text('<!doctype html>\n{"photo": "caption"}\n')
    out = tmp_path / name
    if linked:
        out.symlink_to(mine)
    done = run(*OUTPUTS[name](photo, ready, out))
    assert done.code == 2 and "another file here already" in done.err
    assert mine.read_text() == '<!doctype html>\n{"photo": "caption"}\n'
    mine.write_bytes(b"")  # what mktemp makes
    if name != "page.html":
        assert run(*OUTPUTS[name](photo, ready, out)).code == 0
        assert run(*OUTPUTS[name](photo, ready, out)).code == 0  # its own file is replaced
        assert out.is_symlink() is linked


@pytest.mark.parametrize("command", ["run", "bench"])
def test_results_replace_only_results(command: str, photo: Path, ready: Path, tmp_path: Path) -> None:
    out = tmp_path / "data.json"
    out.write_text('{"mine": 1}')
    given = [ready, photo.parent] if command == "run" else [ready]
    words = [sys.executable, "-m", "capprune_runtime", command, *map(str, given), "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2 and "another file here already" in done.stderr
    assert out.read_text() == '{"mine": 1}'
    out.unlink()
    if command == "run":
        assert [subprocess.run(words, capture_output=True, check=False).returncode for _ in range(2)] == [0, 0]


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
@pytest.mark.slow_but_for("9--9")
def test_what_was_captioned_is_kept_and_the_same_command_goes_on(
    photo: Path, ready: Path, tmp_path: Path, number: int, code: int
) -> None:
    for other in range(120):
        (photo.parent / f"{other:03}.jpg").hardlink_to(photo)
    out = tmp_path / "t.csv"
    command = [sys.executable, "-m", "capprune", "caption", str(photo.parent), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(number)
        process.stdout.read()
        err = process.stderr.read()
    assert process.returncode == code and "Traceback" not in err
    kept = len(journal_path(out).read_text().splitlines()) - 1
    assert 5 <= kept < 121
    if number != signal.SIGKILL:
        assert len(rows(out)) >= 5 and "; resume with: capprune caption " in err
    done = run("caption", photo.parent, "--out", out)
    assert done.code == 0 and f"resuming with {kept} captions" in done.err
    assert len(rows(out)) == 121 and len({row["caption"] for row in rows(out)}) == 1
    assert not journal_path(out).exists()


def kept(photo: Path, table: Path, beam: int) -> Caption | None:
    journal = CaptionJournal(table, {"beam": beam})
    caption = journal.caption(photo)
    journal.close(finished=False)
    return caption


def test_a_photo_that_was_changed_is_captioned_again(photo: Path, tmp_path: Path) -> None:
    caption = Caption("a dog", (4, 5), -1.0, np.zeros((2, 4), np.float32), True, 1.0, (1.0,))
    journal = CaptionJournal(tmp_path / "t.csv", {"beam": 1})
    journal.keep(photo, caption)
    journal.close(finished=False)
    again = kept(photo, tmp_path / "t.csv", beam=1)
    assert again is not None and (again.text, again.tokens, again.finished) == ("a dog", (4, 5), True)
    before = photo.stat()
    os.utime(photo, (1, 1))
    assert kept(photo, tmp_path / "t.csv", beam=1) is None
    os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert kept(photo, tmp_path / "t.csv", beam=1) is not None
    assert kept(photo, tmp_path / "t.csv", beam=2) is None


def test_explanations_of_photos_with_one_name_are_both_drawn(photo: Path, ready: Path, tmp_path: Path) -> None:
    (photo.parent / "sub").mkdir()
    (photo.parent / "sub" / "PHOTO.jpg").write_bytes(photo.read_bytes())
    assert run("caption", photo.parent, "--explain", tmp_path / "e").code == 0
    assert len(list((tmp_path / "e").iterdir())) == 2


def test_a_home_folder_that_the_shell_leaves_is_taken(photo: Path, ready: Path, tmp_path: Path) -> None:
    done = run("caption", photo, "--out=~/t.csv", HOME=str(tmp_path))
    assert done.code == 0 and (tmp_path / "t.csv").is_file()


def test_ctrl_c_at_the_start_is_no_traceback(photo: Path, ready: Path) -> None:
    interrupted = 0
    for delay in (0.06, 0.1, 0.15, 0.25, 0.4):
        command = [sys.executable, "-m", "capprune", "caption", *[str(photo)] * 500]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            err = process.stderr.read()
        if "interrupted" in err:  # else Python itself had not started yet
            interrupted += 1
            # -SIGINT is how Python 3.11 leaves where exec() was interrupted once; shells report both as 130
            assert process.returncode in (130, -signal.SIGINT), err
            assert "Traceback" not in err, err
    assert interrupted > 0
