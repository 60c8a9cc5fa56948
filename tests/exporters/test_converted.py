"""A graph that was converted before is not converted again; anything that differs is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from capprune_exporters.tflite import converted
from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.converted import FOLDER, convert_cached, graph_name
from capprune_runtime.errors import ExportError


class Scaled(nn.Module):
    """A layer with a weight, a buffer, a tensor that is neither, and a number."""

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.factor = nn.Linear(3, 4), factor
        self.register_buffer("shift", torch.rand(4), persistent=False)
        self.other = torch.rand(4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": self.layer(x) * self.factor + self.shift + self.other}


def inputs(rows: int = 1) -> dict[str, Tensor]:
    return {"x": torch.ones(rows, 3)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAPPRUNE_CACHE", str(tmp_path))
    return tmp_path / FOLDER


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The signatures that were converted."""
    called: list[str] = []

    def counted(module: nn.Module, signature: str, given: dict[str, Tensor]) -> bytes:
        called.append(signature)
        return f"{signature} {len(called)}".encode()

    with monkeypatch.context() as patch:
        patch.setattr(converted, "convert", counted)
        yield called


def test_second_conversion_reads_the_file_of_the_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = convert_cached(Scaled().eval(), "run", inputs())
    assert data == convert(Scaled().eval(), "run", inputs())
    monkeypatch.setattr(converted, "convert", lambda *_: pytest.fail("converted again"))
    assert convert_cached(Scaled().eval(), "run", inputs()) == data
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    "part", ["weight", "bias", "buffer", "tensor", "number", "signature", "rows", "type", "versions"]
)
def test_what_the_converter_reads_is_in_the_name(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = graph_name(Scaled().eval(), "run", inputs())
    changed = Scaled(2.0000000000000004 if part == "number" else 2.0).eval()
    with torch.no_grad():
        if part in ("weight", "bias"):
            changed.layer.get_parameter(part).view(-1)[1] += 1e-6
        if part in ("buffer", "tensor"):
            (changed.shift if part == "buffer" else changed.other)[1] += 1e-6
    if part == "versions":
        monkeypatch.setattr(converted.importlib.metadata, "version", lambda name: "0.0")
    given = inputs(2 if part == "rows" else 1)
    if part == "type":
        changed, given = changed.double(), {"x": given["x"].double()}
        changed.other = changed.other.double()
    assert graph_name(changed, "other" if part == "signature" else "run", given) != first is not None
    monkeypatch.undo()
    assert graph_name(Scaled().eval(), "run", inputs()) == first


@pytest.mark.parametrize("damage", ["changed", "cut off", "empty"])
def test_damaged_file_is_converted_again(cache: Path, count: list[str], damage: str) -> None:
    convert_cached(Scaled().eval(), "run", inputs())
    (place,) = cache.iterdir()
    content = place.read_bytes()
    place.write_bytes({"changed": b"x" + content[1:], "cut off": content[:-1], "empty": b""}[damage])
    assert convert_cached(Scaled().eval(), "run", inputs()) == b"run 2"
    assert convert_cached(Scaled().eval(), "run", inputs()) == b"run 2" and count == ["run", "run"]


def test_cache_that_cannot_be_written_only_costs_time(
    tmp_path: Path, count: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAPPRUNE_CACHE", str(tmp_path / "file"))
    assert [convert_cached(Scaled().eval(), "run", inputs()) for _ in range(2)] == [b"run 1", b"run 2"]


def test_oldest_files_go_beyond_the_limit(cache: Path, count: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converted, "MOST_CACHED_BYTES", 100)  # two of these files, each with a checksum of 32 bytes
    for factor in (1.0, 2.0, 3.0, 4.0):
        convert_cached(Scaled(factor).eval(), "run", inputs())
    assert len(list(cache.iterdir())) == 2
    assert convert_cached(Scaled(4.0).eval(), "run", inputs()) == b"run 4"


def test_graph_that_cannot_be_traced_is_the_converters_error() -> None:
    class Untraceable(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"y": x * float(x.sum().item() > 0)} if x.sum().item() > 0 else {"y": x}

    assert graph_name(Untraceable().eval(), "run", inputs()) is None
    with pytest.raises(ExportError, match="cannot lower"):
        convert_cached(Untraceable().eval(), "run", inputs())
