"""A static page in headless Chromium: the captions of Python and of the trained model, and nothing asked of others."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe import require_packages
from browser import Tab, opened

import onnx
from capprune.data.scenes import draw_scenes
from capprune.ready import READY
from capprune_runtime.bundle.capz import MAGIC, MEMBER, PREAMBLE, VERSION, ZLIB
from capprune_runtime.bundle.manifest import MANIFEST
from capprune_runtime.bundle.verify import Bundle, verify_bundle
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.caption.proof import read_golden
from capprune_runtime.onnx.operators import OPERATORS
from capprune_runtime.photo import read_photo
from capprune_runtime.tflite.file import read_tflite
from cli.conftest import capprune
from serving.static_site import StaticSite, captions, file_server, static_site

ROOT = Path(__file__).parents[2]
BLOCKS = ROOT / "ready_model" / "flickr8k-coco-blocks.capz"
SCENES = 20


@pytest.fixture(scope="module")
def site(when_absent: Callable[[str, str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[StaticSite]:
    """The two bundles of different sparse forms: CSR and blocks of 16."""
    require_packages(when_absent)
    with static_site([READY, BLOCKS], tmp_path_factory.mktemp("site") / "page") as site:
        yield site


@pytest.fixture(scope="module")
def tab(chromium: str, site: StaticSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with opened(chromium, site.address, tmp_path_factory.mktemp("browser")) as tab:
        tab.listen(0.5)
        yield tab


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    draw_scenes(folder, count={"train": 1, "val": 1, "test": SCENES}, seed=3, size=224)
    return sorted((folder / "photos").iterdir())[-SCENES:]


def check_equal(tab: Tab, model: str, bundle: Bundle, photos: list[Path], beam: int) -> None:
    """The page's tokens, words and pixels are those of Python, photo by photo."""
    captioner, size = Captioner(bundle), bundle.manifest.photo_size
    found = captions(tab, model, [photo.name for photo in photos], beam)
    for photo, said in zip(photos, found, strict=True):
        square = read_photo(photo, size)
        assert said["square"] == hashlib.sha256(square.tobytes()).hexdigest(), photo.name
        expected = captioner.caption(square, beam=beam)
        assert (tuple(said["tokens"]), said["caption"]) == (expected.tokens, expected.text), photo.name
        assert tuple(said["words"]) == expected.shown and said["finished"] == expected.finished
        assert abs(said["log_probability"] - expected.log_probability) < 0.01
        assert said["texts"] and said["looked"] == len(expected.tokens)


@pytest.mark.parametrize("place", [READY, BLOCKS], ids=["csr", "blocks"])
def test_the_golden_captions_are_those_of_the_trained_model(
    tab: Tab, site: StaticSite, place: Path, tmp_path: Path
) -> None:
    bundle = verify_bundle(place)
    for golden in read_golden(bundle):
        photo = tmp_path / Path(golden.name).name
        photo.write_bytes(bundle.files[golden.name])
        (said,) = captions(tab, place.stem, site.add_photos([photo]), golden.beam)
        assert (tuple(said["tokens"]), said["caption"]) == (golden.tokens, golden.caption)


@pytest.mark.parametrize(("place", "beam"), [(READY, 3), (BLOCKS, 1)], ids=["csr, beam", "blocks, greedy"])
def test_scenes_get_the_captions_of_python(
    tab: Tab, site: StaticSite, scenes: list[Path], place: Path, beam: int
) -> None:
    site.add_photos(scenes)
    check_equal(tab, place.stem, verify_bundle(place), scenes, beam)


def test_photos_of_every_kind_get_the_pixels_of_python(tab: Tab, site: StaticSite) -> None:
    photos = [ROOT / "docs" / "gallery" / f"{name}.jpg" for name in ("coffee", "camera", "rocket")]  # camera is grey
    site.add_photos(photos)
    check_equal(tab, READY.stem, verify_bundle(READY), photos, 1)


def test_nothing_is_asked_of_others_and_nothing_is_complained_of(tab: Tab, site: StaticSite) -> None:
    captions(tab, READY.stem, site.add_photos([ROOT / "docs" / "gallery" / "chelsea.jpg"]), 1)
    assert tab.complaints == ()
    assert all(address.startswith((site.address, "data:", "blob:")) for address in tab.requests)
    # a request of the worker: the browser does not always report the one for the worker's own script
    assert f"{site.address}litert/litert_wasm_internal.wasm" in tab.requests


def test_what_is_no_photo_is_refused(tab: Tab, site: StaticSite, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("this is no photo")
    (name,) = site.add_photos([tmp_path / "text.jpg"])
    assert "not a photo" in refusal(tab, READY.stem, name)
    assert "a photo is empty" in tab.evaluate(f"capprune.caption('{READY.stem}', new Blob([]), 1).catch(e => e.text)")


def refusal(tab: Tab, model: str, photo: str) -> str:
    asked = f"capprune.caption({json.dumps(model)}, await (await fetch('photos/{photo}')).blob(), 1)"
    found = tab.evaluate(f"(async () => {asked}.then(() => 'a caption', error => error.text))()")
    assert isinstance(found, str)
    return found


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def sealed(content: bytes) -> bytes:
    """A packed bundle with the right SHA-256 at its end."""
    return content[:-32] + hashlib.sha256(content[:-32]).digest()


def repacked(changed: Callable[[bytes], bytes], place: Path = READY, decoder: str = "decoder.tflite") -> bytes:
    """A bundle, the package's own if not said otherwise, with another decoder and all hashes right."""
    files = dict(verify_bundle(place).files)
    files[decoder] = changed(files[decoder])
    manifest = json.loads(files[MANIFEST])
    for name, entry in manifest["files"].items():
        entry.update(sha256=hashlib.sha256(files[name]).hexdigest(), size_bytes=len(files[name]))
    files[MANIFEST] = json.dumps(manifest).encode()
    header, sections = b"", b""
    for name, content in sorted(files.items()):
        section = zlib.compress(content)
        digest = hashlib.sha256(content).digest()
        header += bytes([len(name)]) + name.encode() + MEMBER.pack(ZLIB, len(content), len(section), digest)
        sections += section
    size = PREAMBLE.size + len(header) + len(sections) + 32
    return sealed(PREAMBLE.pack(MAGIC, VERSION, size, len(header)) + header + sections + bytes(32))


def with_a_column_out_of_range(decoder: bytes) -> bytes:
    model = read_tflite(decoder, "decoder.tflite")
    sparse = next(tensor.sparsity for tensor in model.tensors if tensor.sparsity is not None)
    indices = next(one.indices for one in sparse.dimensions if one.compressed)
    stored = indices.tobytes()
    assert decoder.count(stored) == 1
    return decoder.replace(stored, stored[: -indices.itemsize] + b"\xff" * indices.itemsize)


# What is done to a bundle, whether the page lists the SHA-256 of what came of it, and what the page says.
CHANGES: list[tuple[Callable[[bytes], bytes], bool, str]] = [
    (lambda data: flip(data, 5000), False, "not the one that this page was written with"),
    (lambda data: flip(data, 5000), True, "not the one that was written"),
    (lambda data: data[:-100], True, "cut off"),
    (lambda data: sealed(flip(data, len(data) // 2)), True, "zlib stream|coded symbols|low bits|expand to what was"),
    (lambda data: sealed(data[:4] + b"\x09" + data[5:]), True, "written by a later capprune"),
    (lambda data: b"", True, "no packed bundle"),
    (lambda data: repacked(lambda decoder: decoder[:4] + b"TFL4" + decoder[8:]), True, "this is no .tflite"),
    (lambda data: repacked(lambda decoder: decoder[:4000]), True, "behind the end|model file is broken"),
    (lambda data: repacked(with_a_column_out_of_range), True, "column index of a sparse tensor is out of range"),
]


def test_a_bundle_that_was_changed_is_refused(chromium: str, site: StaticSite, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    shutil.copytree(site.folder, folder)
    offer = json.loads((folder / "models.json").read_text())
    facts, models = offer["models"][0], []
    for number, (change, listed, _) in enumerate(CHANGES):
        place = folder / "bundles" / f"{number}.capz"
        place.write_bytes(change(READY.read_bytes()))
        digest = hashlib.sha256(place.read_bytes()).hexdigest() if listed else facts["sha256"]
        models.append({**facts, "name": str(number), "file": f"bundles/{number}.capz", "sha256": digest})
    (folder / "models.json").write_text(json.dumps({**offer, "models": models}))
    (folder / "photos").mkdir(exist_ok=True)
    shutil.copyfile(ROOT / "docs" / "gallery" / "coffee.jpg", folder / "photos" / "coffee.jpg")
    with file_server(folder) as address, opened(chromium, address, tmp_path) as tab:
        tab.listen(0.3)
        for number, (_, _, message) in enumerate(CHANGES):
            said = refusal(tab, str(number), "coffee.jpg")
            assert re.search(message, said), f"{message}: {said}"


def onnx_with(changed: Callable[[onnx.ModelProto], object]) -> Callable[[bytes], bytes]:
    def change(decoder: bytes) -> bytes:
        model = onnx.load_from_string(decoder)
        changed(model)
        return model.SerializeToString()

    return change


def outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def random(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "RandomUniformLike"


def short(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    tensor.raw_data = tensor.raw_data[:-4]


# What is done to the decoder, all hashes right, and what the page says.
ONNX_CHANGES: list[tuple[Callable[[bytes], bytes], str]] = [
    (onnx_with(outside), "a field is not known"),
    (onnx_with(random), "an operator that is not of the format"),
    (onnx_with(short), "the stored bytes do not fill the shape"),
    (onnx_with(lambda model: model.opset_import.add(domain="com.microsoft", version=1)), "standard operators only"),
    (lambda decoder: decoder[: len(decoder) // 2], "behind the end|cut off|is broken"),
]


@pytest.fixture(scope="module")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's own model as ONNX, int8."""
    place = tmp_path_factory.mktemp("onnx") / "own-onnx"
    run = ROOT / "ready_model" / "runs" / "rounded"
    done = capprune("export", run, "--target", "onnx", "--weights", "int8", "--out", place)
    assert done.code == 0, done.err
    return place


@pytest.mark.slow
def test_onnx_bundles_run_beside_tflite_and_changed_ones_are_refused(
    chromium: str,
    when_absent: Callable[[str, str], None],
    onnx_bundle: Path,
    scenes: list[Path],
    tmp_path: Path,
) -> None:
    require_packages(when_absent)
    with static_site([onnx_bundle, READY], tmp_path / "page") as site:
        offer = json.loads((site.folder / "models.json").read_text())
        assert {one["name"] for one in offer["models"]} == {"own-onnx", READY.stem}
        for number, (change, _) in enumerate(ONNX_CHANGES):
            place = site.folder / "bundles" / f"{number}.capz"
            place.write_bytes(repacked(change, onnx_bundle, "decoder.onnx"))
            digest = hashlib.sha256(place.read_bytes()).hexdigest()
            offer["models"].append(
                {**offer["models"][0], "name": str(number), "file": f"bundles/{number}.capz", "sha256": digest}
            )
        (site.folder / "models.json").write_text(json.dumps(offer))
        with opened(chromium, site.address, tmp_path) as tab:
            tab.listen(0.5)
            names = site.add_photos(scenes[:6])
            assert len(names) == 6
            check_equal(tab, "own-onnx", verify_bundle(onnx_bundle), scenes[:6], 3)
            assert tab.complaints == () and all(
                one.startswith((site.address, "data:", "blob:")) for one in tab.requests
            )
            assert f"{site.address}onnxruntime/ort-wasm-simd-threaded.wasm" in tab.requests
            assert not any("litert/" in one for one in tab.requests)  # only the engine that is needed
            check_equal(tab, READY.stem, verify_bundle(READY), scenes[:2], 1)
            for number, (_, message) in enumerate(ONNX_CHANGES):
                said = refusal(tab, str(number), names[0])
                assert re.search(message, said), f"{message}: {said}"


def test_the_page_knows_the_operators_of_the_format() -> None:
    source = (ROOT / "browser" / "src" / "onnx.ts").read_text()
    listed = source.split("new Set([")[1].split("]);")[0]
    assert re.findall(r"'(\w+)'", listed) == sorted(OPERATORS)
