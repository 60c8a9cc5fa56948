"""The journal on the workstation: nothing is lost, nothing is done twice, nothing foreign is believed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from device_parts import Tiny

from capprune.devices import BenchJob, open_device
from capprune.devices.job import RunJournal, bench_measurements, device_error, photo_number
from capprune_runtime.errors import BundleError, CapPruneError, DeviceError, NewerFormat, PhotoError
from capprune_runtime.measure.journal import Line
from capprune_runtime.measure.results import FailedPhoto, Measurement


@pytest.fixture(scope="module")
def measured(tiny: Tiny) -> Measurement:
    return open_device("local").run(tiny.job(), lambda done, total: None)


opened: list[RunJournal] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while opened:
        opened.pop().close()


def journal(tiny: Tiny, cache: Path, device: str = "ssh:pi@host", **job: Any) -> RunJournal:
    opened.append(RunJournal(tiny.job(**job), device, cache, lambda done, total: None))
    return opened[-1]


def sent(measured: Measurement, index: int) -> Line:
    """The line that a device sends of a photo."""
    return Line(photo=dataclasses.replace(measured.captions[index], photo=photo_number(index, ".PNG")))


def begun(measured: Measurement) -> Line:
    return Line({}, measured.environment.before)


def test_photos_get_their_names_back_and_only_the_others_remain(
    tiny: Tiny, measured: Measurement, tmp_path: Path
) -> None:
    first = journal(tiny, tmp_path)
    assert first.remaining() == list(range(7))
    first.take(begun(measured))
    for index in (0, 3):
        first.take(sent(measured, index))
    first.close()
    second = journal(tiny, tmp_path)
    assert second.done == 2 and second.remaining() == [1, 2, 4, 5, 6]
    second.take(begun(measured))
    for index in second.remaining():
        second.take(sent(measured, index))
    whole = second.finish(json.loads(json.dumps(measured.as_json())))
    assert [one.photo for one in whole.captions] == list(tiny.photos) and whole.settings.sessions == 2
    assert whole.captions == measured.captions and whole.latency == measured.latency
    assert list(tmp_path.glob("devices/*")) == []


@pytest.mark.parametrize("change", [{"device": "ssh:pi@other"}, {"beam": 3}, {"threads": 2}, {"photos": ("x.png",)}])
def test_captions_of_another_job_do_not_count(
    change: dict[str, Any], tiny: Tiny, measured: Measurement, tmp_path: Path
) -> None:
    first = journal(tiny, tmp_path)
    first.take(sent(measured, 0))
    first.close()
    other = journal(tiny, tmp_path, **change)
    assert other.done == 0
    other.close()
    assert len(list(tmp_path.glob("devices/*"))) == 1  # the other, empty, is gone


def test_a_run_that_lost_only_its_end_asks_for_one_photo_again(
    tiny: Tiny, measured: Measurement, tmp_path: Path
) -> None:
    lost = journal(tiny, tmp_path)
    for index in range(7):
        lost.take(sent(measured, index))
    assert lost.remaining() == [6]


def test_a_device_that_ends_early_is_found_out(tiny: Tiny, measured: Measurement, tmp_path: Path) -> None:
    early = journal(tiny, tmp_path)
    early.take(sent(measured, 0))
    with pytest.raises(DeviceError, match="before all photos"):
        early.finish(json.loads(json.dumps(measured.as_json())))


def test_a_document_of_another_bundle_is_refused(tiny: Tiny, measured: Measurement, tmp_path: Path) -> None:
    other = dataclasses.replace(measured, bundle=dataclasses.replace(measured.bundle, manifest_sha256="0" * 64))
    with pytest.raises(DeviceError, match="another bundle"):
        journal(tiny, tmp_path).finish(json.loads(json.dumps(other.as_json())))
    with pytest.raises(DeviceError, match="another bundle"):
        bench_measurements({"runs": [json.loads(json.dumps(other.as_json()))]}, BenchJob([tiny.bundle]), "a device")


@pytest.mark.parametrize("photo", ["00007.png", "-1.png", "../00001.png\n", "x.png", "", "٣.png"])
def test_a_photo_that_was_not_sent_is_refused(photo: str, tiny: Tiny, measured: Measurement, tmp_path: Path) -> None:
    line = Line(photo=dataclasses.replace(measured.captions[0], photo=photo))
    with pytest.raises(DeviceError, match="was not sent"):
        journal(tiny, tmp_path).take(line)


def test_a_photo_that_failed_there_is_named_as_the_user_knows_it(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(PhotoError) as caught:
        journal(tiny, tmp_path).take(Line(photo=FailedPhoto("00002.png", "PhotoError", "truncated")))
    assert list(tiny.photos)[2] in str(caught.value) and "truncated" in str(caught.value)


@pytest.mark.parametrize("document", [None, [], {}, {"runs": []}, {"runs": [1]}, {"runs": [{}]}])
def test_a_bench_that_is_not_one_is_refused(document: Any, tiny: Tiny) -> None:
    with pytest.raises(DeviceError):
        bench_measurements(document, BenchJob([tiny.bundle]), "a device")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (NewerFormat("later", where="m", expected=1, found=2, hint="upgrade").as_json(), NewerFormat),
        (BundleError("bad").as_json(), BundleError),
        ({"error": "SystemExit", "what": "x"}, DeviceError),
        ({"error": "annotations", "what": "x"}, DeviceError),
        ({"what": 5}, DeviceError),
        ([], DeviceError),
    ],
)
def test_an_error_of_the_far_side_is_the_same_error_here(failure: Any, kind: type[CapPruneError]) -> None:
    error = device_error(failure, "ssh:pi@host")
    assert type(error) is kind and "ssh:pi@host" in str(error)
    if kind is NewerFormat:
        assert "upgrade" in str(error) and error.exit_code == 5 and "ssh:pi@host, m" in str(error)
