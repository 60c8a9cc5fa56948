"""Compare all exports of a trained run: every target and weight format, on the same photos, in one table.

    python benchmarks/exports.py --data flickr8k --run runs/flickr8k-sparse --run runs/flickr8k-block

Exports each run in every format, captions the test split with each bundle, and compares the captions with the trained model's
in torch: token by token for float32, in every installed interpreter, and by CIDEr-D with a paired interval otherwise.
Writes benchmarks/results/exports.json, and keeps its rows of other runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from capprune.data.captions import CaptionedPhoto, load_caption_set
from capprune.data.photos import PhotoStore, open_photos
from capprune.exporting import Wanted, export
from capprune.trained import TrainedCaptioner
from capprune.training.run import LoadedRun, load_run
from capprune.validation.parity import Parity
from capprune.validation.validate import Reference, first_photos, parity_in_runtime, validate_bundle
from capprune_exporters.pack.capz import pack
from capprune_runtime.atomic import write_text
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.interpreter import available_runtimes
from capprune_runtime.errors import CapPruneError
from capprune_runtime.measure.environment import environment

SCHEMA_VERSION = 1
SPLIT, BEAM = "test", 3
RESULTS = Path(__file__).parent / "results"

# Every row of the table: the options of `capprune export`.
VARIANTS: dict[str, dict[str, str]] = {
    "tflite float32": {},
    "tflite int8": {"weights": "int8"},
    "tflite int8, encoder float32": {"weights": "int8", "encoder_weights": "float32"},
    "tflite int8, fastest plan": {"weights": "int8", "plan": "auto"},
    "tflite int8, encoder static int8": {"weights": "int8", "encoder_weights": "static_int8"},
    "tflite codebook4": {"weights": "codebook4"},
    "tflite codebook4, encoder float32": {"weights": "codebook4", "encoder_weights": "float32"},
    "onnx float32": {"target": "onnx"},
    "onnx int8": {"target": "onnx", "weights": "int8"},
    "onnx codebook4": {"target": "onnx", "weights": "codebook4"},
}


@dataclass(frozen=True)
class Test:
    """The photos on which all exports of a run are tested, and the trained model's captions of them."""

    photos: tuple[CaptionedPhoto, ...]
    store: PhotoStore
    captioner: TrainedCaptioner
    said: dict[str, Reference]

    def gap(self, name: str, reference: tuple[int, ...], other: tuple[int, ...]) -> float:
        """Return how close the trained model was to generating the other caption."""
        return self.captioner.score_gap(self.store, name, reference, other, BEAM)


def measure(
    runs: list[Path], data: Path, *, limit: int | None, photos: int, variants: tuple[str, ...] = ("",)
) -> dict[str, Any]:
    """Export and validate every variant of every run.

    Args:
        runs: Trained runs.
        data: Flickr8k.
        limit: Only the first `limit` photos of the test split.
        photos: Photos of val, used to choose what stays in float32.
        variants: Prefixes of the requested names of `VARIANTS`.

    Returns:
        The document.
    """
    chosen = tuple(first_photos(load_caption_set(data).split(SPLIT), limit))
    rows: list[dict[str, Any]] = []
    with open_photos(data) as store, tempfile.TemporaryDirectory() as folder:
        for place in runs:
            run = load_run(place)
            _say(f"{place.name}: captioning {len(chosen)} photos in torch")
            captioner = TrainedCaptioner(run)
            said = captioner.captions([photo.name for photo in chosen], store, BEAM)
            test = Test(chosen, store, captioner, said)
            for name, asked in VARIANTS.items():
                if not name.startswith(variants):
                    continue
                _say(f"{place.name}: {name}")
                out = Path(folder) / f"{place.name}-{name.replace(' ', '-').replace(',', '')}"
                wanted = Wanted(**asked, data=data, photos=photos)  # type: ignore[arg-type]
                rows.append({"run": run.config.name, "variant": name, **_row(run, wanted, out, test)})
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "exports",
        "split": SPLIT,
        "photos": len(chosen),
        "beam": BEAM,
        "commands": [_command(run, photos, variants) for run in runs],
        "environment": asdict(environment(available_runtimes()[0], 1)),
        "rows": rows,
    }


def joined(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """Return a new document with the rows of other runs from an earlier one with the same photos."""
    same = ("schema_version", "split", "photos", "beam")
    if before is None or any(before[key] != now[key] for key in same):
        return now
    measured = {row["run"] for row in now["rows"]}
    others = [row for row in before["rows"] if row["run"] not in measured]
    commands = [one for one in before["commands"] if one not in now["commands"]] if others else []
    return now | {"rows": [*others, *now["rows"]], "commands": [*commands, *now["commands"]]}


def _command(run: Path, photos: int, variants: tuple[str, ...]) -> str:
    wanted = "".join(f' --variant "{name}"' for name in variants if name)
    return f"python benchmarks/exports.py --data flickr8k --run runs/{run.name} --photos {photos}{wanted}"


def _row(run: LoadedRun, wanted: Wanted, out: Path, test: Test) -> dict[str, Any]:
    made = export(run, out, wanted, _say)
    bundle = made.bundle
    exact = bundle.manifest.quantisation.encoder == bundle.manifest.quantisation.decoder == "float32"
    first, *others = available_runtimes(Path(bundle.manifest.decoder.file).suffix[1:])
    found = validate_bundle(
        bundle, test.photos, test.store, beam=BEAM, runtime=first, reference=test.said, score_gap=test.gap, meteor=False
    )
    assert found.change is not None and found.parity is not None
    relative = found.change.relative
    parity = {first: found.parity}
    if exact:
        for runtime in others:
            parity[runtime] = parity_in_runtime(
                bundle, test.photos, test.store, test.said, test.gap, runtime=runtime, beam=BEAM
            )
    packed = pack(out, out.with_name(out.name + ".capz"))
    return {
        "tokenizer": found.scores.tokenizer,
        "encoder": bundle.manifest.quantisation.encoder,
        "decoder": bundle.manifest.quantisation.decoder,
        "kept_float": [line.tensor for line in made.plan.lines if line.weights != made.plan.weights],
        "forms": made.plan.forms,
        "decoder_bytes": len(bundle.decoder),
        "bundle_bytes": packed.bundle_bytes,
        "packed_bytes": packed.packed_bytes,
        "packed_decoder_bytes": _packed(bundle, packed.files),
        "cider_d": found.scores.cider_d,
        "cider_d_interval": asdict(found.cider_d),
        "relative_change": None if relative is None else asdict(relative),
        "parity": {runtime: counted(one) for runtime, one in parity.items()},
        "exact": exact,
    }


def counted(parity: Parity) -> dict[str, Any]:
    """Return how many captions are equal, and whether that is enough; the others are not listed."""
    return {key: value for key, value in parity.as_json().items() if key != "differences"}


def _packed(bundle: Bundle, files: tuple[Any, ...]) -> int:
    return next(int(one.packed_bytes) for one in files if one.name == bundle.manifest.decoder.file)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure the given runs; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Flickr8k")
    parser.add_argument("--run", type=Path, action="append", required=True, help="a trained run; may be repeated")
    parser.add_argument("--limit", type=int, help="use only the first N photos of the test split")
    parser.add_argument(
        "--photos", type=int, default=1000, help="number of val photos for choosing tensors to keep in float32"
    )
    parser.add_argument(
        "--variant", action="append", help="prefix of the rows to measure; may be repeated (default: all)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "exports.json", help="the JSON")
    asked = parser.parse_args(arguments)
    try:
        document = measure(
            asked.run, asked.data, limit=asked.limit, photos=asked.photos, variants=tuple(asked.variant or [""])
        )
        before = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.is_file() else None
        document = joined(before, document)
        write_text(asked.out, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except CapPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
