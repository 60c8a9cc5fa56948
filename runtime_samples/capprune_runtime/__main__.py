"""`python -m capprune_runtime`: caption photos with a bundle, measure it or verify it, on any device that has Python.

Results go to stdout (with `--json` as one JSON document), messages to stderr. Exit codes: 1 a defect or a full disk, 2 usage,
4 a photo, 5 a bundle, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capprune_runtime import stopping
from capprune_runtime.archive import ARCHIVE, archive_bytes
from capprune_runtime.atomic import write_bytes
from capprune_runtime.errors import CapPruneError, MissingExtra, UsageError
from capprune_runtime.formats import RUNTIMES

SCHEMA_VERSION = 1  # of the JSON documents but results, which have their own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are those of the process when not given."""
    options = _parser().parse_args(arguments)
    try:
        document, exit_code = _COMMANDS[options.command](options)
    except CapPruneError as error:
        return _failed(error, options)
    except ModuleNotFoundError as error:
        return _failed(_missing(error), options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return stopping.INTERRUPTED
    if _streams(options):
        print(json.dumps({"document": document}, ensure_ascii=False), flush=True)
    elif options.json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2))
    return exit_code


def _failed(error: CapPruneError, options: argparse.Namespace) -> int:
    _complain(error)
    if _streams(options):
        print(json.dumps({"failure": error.as_json()}), flush=True)
    elif options.json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, **error.as_json()}, indent=2))
    return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="capprune_runtime", description="Caption photos with a capprune bundle.")
    commands = parser.add_subparsers(dest="command", required=True)
    caption = commands.add_parser("caption", help="say what is on photos")
    caption.add_argument("bundle", type=Path, help="the bundle, a folder or packed")
    caption.add_argument("photos", type=Path, nargs="+", metavar="photo")
    run = commands.add_parser("run", help="caption a folder of photos and measure it")
    run.add_argument("bundle", type=Path, help="the bundle, a folder or packed")
    run.add_argument("photos", type=Path, help="the folder of photos")
    run.add_argument("--limit", type=int, metavar="N", help="only the first photos")
    bench = commands.add_parser("bench", help="time bundles on their golden photos")
    bench.add_argument("bundles", type=Path, nargs="+", metavar="bundle", help="a folder or a packed bundle")
    bench.add_argument("--rounds", type=int, default=30, metavar="N", help="captions of each bundle  [30]")
    bench.add_argument("--warm-up", type=int, default=3, metavar="N", help="rounds before them  [3]")
    verify = commands.add_parser("verify", help="check every file of a bundle")
    verify.add_argument("bundle", type=Path, help="the bundle, a folder or packed")
    doctor = commands.add_parser("doctor", help="what this device has and lacks")
    doctor.add_argument("--kind", choices=("tflite", "onnx"), default="tflite", help="of model file  [tflite]")
    archive = commands.add_parser("archive", help="write this program as one file that runs elsewhere")
    archive.add_argument("--out", type=Path, default=Path(ARCHIVE), metavar="FILE", help=f"[{ARCHIVE}]")
    for command in (caption, run, bench):
        command.add_argument("--beam", type=int, metavar="K", help="width of the beam; without it, the bundle's own")
        command.add_argument("--runtime", choices=("auto", *RUNTIMES), default="auto")
        command.add_argument("--threads", type=int, default=1, metavar="N")
    for command in (run, bench):
        command.add_argument("--out", type=Path, metavar="FILE", help="write the results document")
        command.add_argument("--stream", action="store_true", help="a line of JSON for everything as it is done")
    for command in (caption, run, bench, verify, doctor, archive):
        command.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _caption(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Caption every photo that can be read; the exit code is that of the first that cannot."""
    from capprune_runtime.bundle.verify import verify_bundle
    from capprune_runtime.caption.captioner import Captioner
    from capprune_runtime.photo import read_photo

    for photo in options.photos:
        if not photo.is_file():
            raise UsageError("there is no such photo", where=photo)
    bundle = verify_bundle(options.bundle)
    captioner = Captioner(bundle, options.runtime, options.threads)
    size = bundle.manifest.photo_size
    rows: list[dict[str, Any]] = []
    exit_code = 0
    for photo in options.photos:
        stopping.raise_if_requested()
        try:
            row = captioner.caption(read_photo(photo, size), options.beam).as_json()
        except CapPruneError as error:
            _complain(error)
            row, exit_code = error.as_json(), exit_code or error.exit_code
        rows.append({"photo": _printable(photo), **row})
        if not options.json and "caption" in row:
            print(row["caption"] if len(options.photos) == 1 else f"{rows[-1]['photo']}\t{row['caption']}")
    return {"bundle": str(options.bundle), "runtime": captioner.runtime, "captions": rows}, exit_code


def _run(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Caption a folder; captions go to stdout as they are made."""
    from capprune_runtime.measure.journal import Line
    from capprune_runtime.measure.results import SaidPhoto
    from capprune_runtime.measure.run import run_photos

    def tell(line: Line) -> None:
        if options.stream:
            print(line.text(), end="", flush=True)
        elif isinstance(line.photo, SaidPhoto) and not options.json:
            print(f"{_printable(line.photo.photo)}\t{line.photo.caption}", flush=True)
        elif line.photo is not None and not isinstance(line.photo, SaidPhoto):
            print(_printable(line.photo.message), file=sys.stderr)

    measurement = run_photos(
        options.bundle,
        options.photos,
        out=options.out,
        beam=options.beam,
        runtime=options.runtime,
        threads=options.threads,
        limit=options.limit,
        tell=tell,
    )
    if not _streams(options) and not options.json:
        _show([measurement], options.out)
    document = measurement.as_json()
    if _streams(options):
        document |= {"captions": [], "failures": []}  # the stream has them already
    return document, 4 if measurement.failures else 0


def _bench(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Time bundles."""
    from capprune_runtime.measure.bench import bench_bundles, bench_document
    from capprune_runtime.measure.results import write_document

    def progress(done: int, rounds: int) -> None:
        if options.stream:
            print(json.dumps({"round": done, "rounds": rounds}), flush=True)

    measurements = bench_bundles(
        options.bundles,
        rounds=options.rounds,
        warm_up=options.warm_up,
        beam=options.beam,
        runtime=options.runtime,
        threads=options.threads,
        progress=progress,
    )
    document = bench_document(measurements)
    if options.out is not None:
        write_document(document, options.out)
    if not _streams(options) and not options.json:
        _show(measurements, options.out)
    return document, 0


def _streams(options: argparse.Namespace) -> bool:
    return bool(getattr(options, "stream", False))


def _show(measurements: Sequence[Any], out: Path | None) -> None:
    """Times and verdict for a person, on stderr beside the captions of a run."""
    for one in measurements:
        where, latency, memory = one.environment, one.latency, one.memory.peak_rss_bytes
        print(
            f"{one.bundle.name}: {len(one.captions)} captions in {where.runtime} {where.runtime_version}, "
            f"{where.threads} thread(s); ms p50/p90/p99: "
            + ", ".join(
                f"{name} {part.p50_us / 1000:.2f}/{part.p90_us / 1000:.2f}/{part.p99_us / 1000:.2f}"
                for name, part in (("encode", latency.encode), ("step", latency.step), ("caption", latency.caption))
            )
            + ("" if memory is None else f"; memory {memory / 1e6:.0f} MB")
            + ("" if one.golden is None else f"; golden photos {one.golden.identical}/{one.golden.photos}"),
            file=sys.stderr,
        )
        for reason in one.verdict.reasons:
            print(f"  do not trust these times: {reason.text}", file=sys.stderr)
    if out is not None:
        print(f"results: {out}", file=sys.stderr)


def _verify(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from capprune_runtime.bundle.verify import verify_bundle

    bundle = verify_bundle(options.bundle)
    manifest = bundle.manifest
    size_bytes = sum(entry.size_bytes for entry in manifest.files.values())
    document = {
        "bundle": str(options.bundle),
        "verified": True,
        "files": len(manifest.files),
        "size_bytes": size_bytes,
        "manifest": manifest.as_json(),
    }
    if not options.json:
        print(
            f"{options.bundle} is as it was written: {len(manifest.files)} files, {size_bytes:,} bytes; "
            f"{manifest.model.description}, {bundle.vocabulary.described()}, {manifest.pruning.sparsity:.2%} sparse"
        )
    return document, 0


def _doctor(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from capprune_runtime.measure.doctor import equipment

    found = equipment(options.kind)
    if not options.json:
        runtimes = ", ".join(f"{name} {version}" for name, version in found.runtimes.items()) or "no interpreter"
        print(f"{found.machine}, Python {found.python}, numpy {found.numpy}, Pillow {found.pillow}, {runtimes}")
        if found.missing:
            print(f"missing: {', '.join(found.missing)}\n  try       {found.install or 'another device'}")
    return dataclasses.asdict(found), 2 if found.missing else 0


def _archive(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    content = archive_bytes()
    write_bytes(options.out, content)
    if not options.json:
        print(f"{options.out}: {len(content):,} bytes; run it with python3")
    return {"archive": str(options.out), "size_bytes": len(content)}, 0


_COMMANDS = {
    "caption": _caption,
    "run": _run,
    "bench": _bench,
    "verify": _verify,
    "doctor": _doctor,
    "archive": _archive,
}


def _missing(error: ModuleNotFoundError) -> CapPruneError:
    """The message for a device without NumPy or Pillow."""
    from capprune_runtime.measure.doctor import equipment

    found = equipment()
    return MissingExtra(f"{error.name} is not installed", expected=", ".join(found.missing), hint=found.install)


def _complain(error: CapPruneError) -> None:
    print(_printable(error), file=sys.stderr)


def _printable(value: object) -> str:
    """Text for a terminal: what a hostile file name or key brings in control characters is spelled out."""
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in str(value)
    )


def process() -> int:
    """Run the command as a process: with its signals, and quiet when nobody reads."""
    stopping.listen()
    try:
        exit_code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone; Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return exit_code


if __name__ == "__main__":
    sys.exit(process())
