"""What a device writes: complete, read back to the same, and gone on with after an interruption."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_bundle
from PIL import Image

from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.errors import BundleError, CapPruneError, DataError, DeviceError, UsageError
from capprune_runtime.measure import run as run_module
from capprune_runtime.measure.bench import bench_bundles, bench_document
from capprune_runtime.measure.cooldown import Gate
from capprune_runtime.measure.journal import Journal, Line, parse_line
from capprune_runtime.measure.results import SCHEMA_VERSION, SaidPhoto, parse_measurements, percentiles
from capprune_runtime.measure.run import journal_path, run_photos
from capprune_runtime.measure.session import Session, judged
from capprune_runtime.photo import read_photo

SCHEMA = Path(__file__).parents[2] / "docs" / "results_schema.md"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for number in range(6):
        place = tmp_path / "photos" / ("more/" if number % 2 else "") / f"{number}.png"
        Image.fromarray(tiny_bundle.photo_pixels(number)).save(place)
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    return tmp_path / "photos"


def test_a_run_captions_every_photo_as_the_captioner_does(bundle_folder: Path, photos: Path) -> None:
    found = run_photos(bundle_folder, photos, beam=2)
    captioner = Captioner(verify_bundle(bundle_folder))
    names = ["0.png", "2.png", "4.png", "more/1.png", "more/3.png", "more/5.png"]
    assert [one.photo for one in found.captions] == names
    for one in found.captions:
        alone = captioner.caption(read_photo(photos / one.photo, tiny_bundle.SIZE), 2)
        assert (one.caption, one.tokens, one.finished) == (alone.text, alone.tokens, alone.finished)
        assert one.read_us and one.caption_us > one.encode_us + sum(one.step_us) * 0.9 > 0
    assert found.latency.caption.count == 6 and found.latency.load_us and found.latency.read
    assert found.memory.peak_rss_bytes and found.memory.peak_rss_bytes >= (found.memory.before_bytes or 0) > 1_000_000
    assert found.settings.beam == 2 and found.settings.sessions == 1
    assert [reason.code for reason in found.verdict.reasons][-1] == "few"


def test_a_document_reads_back_to_the_same(bundle_folder: Path, photos: Path, tmp_path: Path) -> None:
    found = run_photos(bundle_folder, photos, out=tmp_path / "out" / "results.json")
    text = (tmp_path / "out" / "results.json").read_bytes()
    assert parse_measurements(text, "here") == (found,)
    assert json.loads(text)["schema_version"] == SCHEMA_VERSION
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]
    assert judged(found).verdict == found.verdict and judged(found).latency == found.latency


def test_every_key_of_a_document_is_described(bundle_folder: Path, photos: Path) -> None:
    def keys(tree: Any) -> set[str]:
        if isinstance(tree, list):
            return {key for part in tree for key in keys(part)}
        return set() if not isinstance(tree, dict) else {*tree} | {key for part in tree.values() for key in keys(part)}

    bundle = verify_bundle(bundle_folder)
    document = json.loads(json.dumps(run_photos(bundle_folder, photos, limit=1).as_json()))
    described = set(re.findall(r"`([a-z0-9_]+)`", SCHEMA.read_text(encoding="utf-8")))
    found = keys(document) - {*bundle.files} | keys(
        bench_document(bench_bundles([bundle_folder], rounds=1, cold_loads=1, gate=Gate(timeout_s=0)))
    )
    assert {"waited_s", "retained_rss_bytes", "peak_rss_bytes", "throttled_flags", "reasons", "step_us"} <= found
    assert found - {*bundle.files} - described == set()


def test_an_interrupted_run_goes_on_where_it_stopped(
    bundle_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results.json"
    visited: list[str] = []

    def stop_after_three(line: Line) -> None:
        if isinstance(line.photo, SaidPhoto):
            visited.append(line.photo.photo)
            if len(visited) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_photos(bundle_folder, photos, out=out, tell=stop_after_three)
    assert not out.exists() and len(journal_path(out).read_text().splitlines()) == 4
    with journal_path(out).open("a") as journal:
        journal.write('{"said": {"photo": "more/1.p')  # the process was killed while it wrote
    found = run_photos(bundle_folder, photos, out=out, tell=stop_after_three)
    assert len(visited) == 6 == len({*visited}) == len(found.captions)
    assert found.settings.sessions == 2 and not journal_path(out).exists()
    assert [one.tokens for one in found.captions] == [one.tokens for one in run_photos(bundle_folder, photos).captions]


def test_captions_of_other_settings_do_not_count(bundle_folder: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"

    def stop(line: Line) -> None:
        if line.photo is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_photos(bundle_folder, photos, out=out, beam=1, tell=stop)
    found = run_photos(bundle_folder, photos, out=out, beam=3)
    assert found.settings.sessions == 1 and found.settings.beam == 3


def test_a_photo_that_cannot_be_read_is_listed_and_the_others_are_captioned(bundle_folder: Path, photos: Path) -> None:
    (photos / "1-bad.png").write_bytes(b"no photo")
    found = run_photos(bundle_folder, photos)
    assert len(found.captions) == 6
    (failed,) = found.failures
    assert (failed.photo, failed.error) == ("1-bad.png", "PhotoError") and "1-bad.png" in failed.message


def test_a_folder_without_photos_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photos"):
        run_photos(bundle_folder, tmp_path / "empty")
    with pytest.raises(UsageError, match="no such folder"):
        run_photos(bundle_folder, tmp_path / "absent")
    (tmp_path / "empty" / "bad.png").write_bytes(b"no photo")
    with pytest.raises(DataError, match="none of the photos"):
        run_photos(bundle_folder, tmp_path / "empty")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_said(bundle_folder: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "results.jsonl", {"a": 1})
    journal.close()
    journal._file = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115  # the journal holds it
    with pytest.raises(CapPruneError, match="disk is full"):
        journal.begin(Session(bundle_folder).began)
    with pytest.raises(OSError):
        journal._file.close()


def test_a_bench_times_all_bundles_in_every_round(bundle_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(bundle_folder, tmp_path / "other")
    told: list[tuple[int, int]] = []
    runs = bench_bundles([bundle_folder, other], rounds=4, warm_up=1, beam=1, progress=lambda *done: told.append(done))
    assert [run.bundle.name for run in runs] == ["bundle", "other"] and told == [(n, 4) for n in (1, 2, 3, 4)]
    for run in runs:
        assert run.kind == "bench" and len(run.captions) == 4 and run.latency.encode.count == 4
        assert len({one.tokens for one in run.captions}) == 1  # one photo, again and again
    text = json.dumps(bench_document(runs))
    assert parse_measurements(text, "here") == runs
    with pytest.raises(UsageError, match="nothing to time"):
        bench_bundles([bundle_folder], rounds=0)


def test_a_bench_counts_golden_photos_that_come_out_the_same(
    bundle_folder: Path, lstm_models: tiny_bundle.TinyModels
) -> None:
    bundle = verify_bundle(bundle_folder)
    said = Captioner(bundle).caption(read_photo(bundle.files["golden/scene-0.png"], tiny_bundle.SIZE), 2)
    right = {"photo": "golden/scene-0.png", "beam": 2, "tokens": [*said.tokens], "caption": said.text}
    wrong = {**right, "tokens": [5, 5, 5], "caption": "word5 word5 word5"}
    (bundle_folder / "golden" / "golden.json").write_text(json.dumps([right, wrong, right]))
    tiny_bundle.seal(bundle_folder, tiny_bundle.manifest_json("lstm"))
    (run,) = bench_bundles([bundle_folder], rounds=1)
    assert run.golden is not None and (run.golden.photos, run.golden.identical) == (3, 2)
    assert run.captions[0].photo == "golden/scene-0.png"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda tree: tree.update(schema_version=3), "another version"),
        (lambda tree: tree.update(kind="dance"), "kind"),
        (lambda tree: tree["latency"].pop("step"), "latency.step"),
        (lambda tree: tree["captions"][0].update(tokens=["4"]), r"captions\[0\].tokens\[0\]"),
        (lambda tree: tree["environment"]["before"].update(temperature_c="warm"), "environment.before.temperature_c"),
        (lambda tree: tree["verdict"].update(trusted=1), "verdict.trusted"),
        (lambda tree: tree["bundle"]["files"].update(a=None), "bundle.files"),
        (lambda tree: tree.update(captions={}), "captions"),
    ],
)
def test_results_that_break_the_schema_are_refused(edit: Any, says: str, bundle_folder: Path, photos: Path) -> None:
    document = json.loads(json.dumps(run_photos(bundle_folder, photos, limit=1).as_json()))
    edit(document)
    with pytest.raises(DeviceError, match=says) as caught:
        parse_measurements(json.dumps(document), "a phone")
    assert "a phone" in str(caught.value) and caught.value.exit_code == 7


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b'{"schema_version": NaN}', b"\xff"])
def test_what_is_no_document_is_refused(text: bytes) -> None:
    with pytest.raises(DeviceError):
        parse_measurements(text, "a phone")


def test_keys_of_later_versions_are_passed_over(bundle_folder: Path, photos: Path) -> None:
    found = run_photos(bundle_folder, photos, limit=1)
    document = json.loads(json.dumps(found.as_json()))
    document["environment"]["moon"] = "full"
    assert parse_measurements(json.dumps(document), "here") == (found,)


@pytest.mark.parametrize("text", [b"", b"Error in cpuinfo\n", b'{"round": 1}\n', b'{"said": {"photo": 1}}', b'{"said"'])
def test_lines_that_are_not_of_a_journal_are_passed_over(text: bytes) -> None:
    assert parse_line(text) is None


def test_a_line_reads_back_to_the_same(bundle_folder: Path, photos: Path) -> None:
    lines: list[Line] = []
    (photos / "1-bad.png").write_bytes(b"no photo")
    run_photos(bundle_folder, photos, tell=lines.append)
    assert len(lines) == 8 and lines[0].session
    assert [parse_line(line.text()) for line in lines] == lines


def test_percentiles_of_a_hundred_and_one_times() -> None:
    summary = percentiles([float(us) for us in range(101)])
    assert dataclasses.astuple(summary) == (50, 90, 99, 0, 100, 1, 101)


def test_an_interrupt_that_native_code_swallows_stops_the_run_at_the_next_photo(
    bundle_folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits = 0

    def requested() -> None:
        nonlocal visits
        visits += 1
        if visits == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_module.stopping, "raise_if_requested", requested)
    with pytest.raises(KeyboardInterrupt):
        run_photos(bundle_folder, photos)
    assert visits == 2


def test_a_bundle_that_is_not_sound_is_refused_before_any_photo(bundle_folder: Path, photos: Path) -> None:
    (bundle_folder / "decoder.tflite").write_bytes(b"damaged")
    with pytest.raises(BundleError):
        run_photos(bundle_folder, photos, tell=lambda line: pytest.fail("a photo was captioned"))
