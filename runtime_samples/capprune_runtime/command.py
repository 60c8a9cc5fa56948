"""Commands of `python -m capprune_runtime`: caption photos with a bundle, measure it or verify it.

Works on any device that has Python. Results go to stdout (with `--json` as one JSON document), messages to stderr. Exit
codes: 1 defect or full disk, 2 usage, 4 photo, 5 bundle, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from capprune_runtime import stopping, streams
from capprune_runtime.archive import archive_bytes
from capprune_runtime.arguments import command_parser
from capprune_runtime.atomic import check_file_place, write_bytes
from capprune_runtime.errors import CapPruneError, MissingExtra, NotEnoughMemory, PhotoWarning, UsageError
from capprune_runtime.memory import check_address_space, is_short, names_memory
from capprune_runtime.streams import one_line, printable

if TYPE_CHECKING:
    from capprune_runtime.caption.said import Said
    from capprune_runtime.measure.journal import Line
    from capprune_runtime.measure.results import ColdLoads, Cooldown
    from capprune_runtime.measure.session import Session

SCHEMA_VERSION = 1  # of all JSON documents except results, which have their own version
_RESULTS = (b'{\n "schema_version": ',)  # how a results document starts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` default to those of the process."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = command_parser("--json" in given).parse_args(given)
    except UsageError as error:
        return _failed(error, argparse.Namespace(json=True))
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            document, exit_code = _COMMANDS[options.command](options)
    except CapPruneError as error:
        return _failed(error, options)
    except (MemoryError, ImportError, OSError, RuntimeError) as error:
        return _failed(_known(error), options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return stopping.INTERRUPTED
    if _streams(options):
        print(json.dumps({"document": document}, ensure_ascii=False), flush=True)
    elif options.json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2))
    return exit_code


def _known(error: MemoryError | ImportError | OSError | RuntimeError) -> CapPruneError:
    """Return the message for a failure with a known cause; re-raise any other error."""
    if names_memory(error) or (isinstance(error, ImportError) and is_short()):
        return NotEnoughMemory("not enough memory on this machine", found=error, hint="close other programs")
    if isinstance(error, ModuleNotFoundError):
        return _missing(error)
    raise error


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, PhotoWarning):
        print(f"warning: {printable(message)}", file=sys.stderr)


def _failed(error: CapPruneError, options: argparse.Namespace) -> int:
    _complain(error)
    if _streams(options):
        print(json.dumps({"failure": error.as_json()}), flush=True)
    elif options.json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, **error.as_json()}, indent=2))
    return error.exit_code


def _caption(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Caption every readable photo; the exit code is that of the first photo that failed."""
    from capprune_runtime.photo_argument import argument_problem

    check_address_space()
    problems = {photo: _no_folder(photo) or argument_problem(photo) for photo in options.photos}
    if len(options.photos) == 1 and (problem := problems[options.photos[0]]) is not None:
        raise problem  # raised before the bundle is loaded
    from capprune_runtime.bundle.verify import verify_bundle
    from capprune_runtime.caption.captioner import Captioner
    from capprune_runtime.caption.confidence import confidence_of
    from capprune_runtime.caption.look import say_of
    from capprune_runtime.caption.said import Said

    bundle = verify_bundle(options.bundle)
    captioner = Captioner(bundle, options.runtime, options.threads)
    low_below = confidence_of(bundle)
    captions: list[Said] = []
    for photo in options.photos:
        stopping.raise_if_requested()
        if (problem := problems[photo]) is not None:
            said = Said(photo, None, None, problem)
        else:
            said = say_of(captioner, photo, low_below, options.beam)
        captions.append(said)
        _tell(said, alone=len(options.photos) == 1, as_json=options.json)
    failed = [said.error.exit_code for said in captions if said.error is not None]
    facts = {"bundle": str(options.bundle), "runtime": captioner.runtime, "low_confidence_below": low_below}
    return {**facts, "captions": [said.as_json() for said in captions]}, failed[0] if failed else 0


def _tell(said: Said, *, alone: bool, as_json: bool) -> None:
    if said.warning is not None:
        print(f"warning: {printable(said.warning)}", file=sys.stderr)
    if said.error is not None:
        _complain(said.error)
    elif not as_json:
        print(said.marked if alone else f"{one_line(said.name)}\t{said.marked}", flush=True)


def _no_folder(photo: Path) -> UsageError | None:
    if not photo.is_dir():
        return None
    return UsageError("this is a folder, not a photo", where=photo, hint=f"capprune_runtime run BUNDLE {photo}")


def _run(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Caption a folder; print captions as they are generated."""
    check_address_space()
    if options.out is not None:
        check_file_place(options.out, ours=_RESULTS)
    from capprune_runtime.measure.run import run_photos

    shown = _Shown(options)
    measurement = run_photos(
        options.bundle,
        options.photos,
        out=options.out,
        beam=options.beam,
        runtime=options.runtime,
        threads=options.threads,
        limit=options.limit,
        tell=shown.tell,
        note=lambda text: print(printable(text), file=sys.stderr),
        begun=shown.begin,
    )
    if not _streams(options) and not options.json:
        _show([measurement], options.out)
    document = measurement.as_json()
    if _streams(options):
        document |= {"captions": [], "failures": []}  # already printed by the stream
    return document, _code_of_failures([failure.error for failure in measurement.failures])


class _Shown:
    """Prints the result of each photo of a folder as it is finished."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._low_below: float | None = None

    def begin(self, session: Session) -> None:
        """Take the threshold for unsure captions from the bundle."""
        from capprune_runtime.caption.confidence import confidence_of

        self._low_below = confidence_of(session.bundle)

    def tell(self, line: Line) -> None:
        """Print a line. If a document is written too, a closed pipe does not end the run."""
        if self._options.out is None:
            self._print(line)
            return
        with streams.output_may_end():
            self._print(line)

    def _print(self, line: Line) -> None:
        from capprune_runtime.caption.confidence import is_unsure, marked
        from capprune_runtime.measure.results import SaidPhoto

        if self._options.stream:
            print(line.text(), end="", flush=True)
        elif isinstance(line.photo, SaidPhoto):
            if not self._options.json:
                said, unsure = line.photo, is_unsure(line.photo, self._low_below)
                text = marked(one_line(said.caption), unsure=unsure, confidence=said.confidence)
                print(f"{one_line(said.photo)}\t{text}", flush=True)
        elif line.photo is not None:
            print(printable(line.photo.message), file=sys.stderr)


def _code_of_failures(errors: Sequence[str]) -> int:
    """Return the exit code of the first failed photo, from the name of its error."""
    if not errors:
        return 0
    return NotEnoughMemory.exit_code if errors[0] == NotEnoughMemory.__name__ else 4


def _bench(options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Benchmark bundles."""
    check_address_space()
    if options.out is not None:
        check_file_place(options.out, ours=_RESULTS)
    from capprune_runtime.measure.bench import bench_bundles, bench_document
    from capprune_runtime.measure.cooldown import Gate
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
        cold_loads=options.cold_loads,
        gate=Gate(options.max_temperature, options.cooldown_timeout),
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
    """Print times and verdict for people; a run prints them to stderr, beside its captions."""
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
        for text in filter(None, (_cold_text(one.cold), _gate_text(one.cooldown))):
            print(f"  {text}", file=sys.stderr)
        for reason in one.verdict.reasons:
            print(f"  do not trust these times: {reason.text}", file=sys.stderr)
    if out is not None:
        print(f"results: {out}", file=sys.stderr)


def _cold_text(cold: ColdLoads | None) -> str:
    if cold is None:
        return ""
    known = {
        "process": cold.process_us and f"{cold.process_us / 1000:.0f} ms",
        "load": cold.load_us and f"{cold.load_us / 1000:.0f} ms",
        "first caption": cold.first_caption_us and f"{cold.first_caption_us / 1000:.0f} ms",
        "peak": cold.peak_rss_bytes and f"{cold.peak_rss_bytes / 1e6:.0f} MB",
        "retained": cold.retained_rss_bytes and f"{cold.retained_rss_bytes / 1e6:.0f} MB",
    }
    cells = (f"{name} {value or 'not measured'}" for name, value in known.items())
    return f"cold loads, median of {cold.loads}: {', '.join(cells)}"


def _gate_text(cooldown: Cooldown | None) -> str:
    if cooldown is None:
        return ""
    if cooldown.after_c is None:
        return "temperature gate: this device reports no temperature"
    began = f"began at {cooldown.after_c:.0f} °C after {cooldown.waited_s:.0f} s"
    return f"temperature gate ({cooldown.max_temperature_c:g} °C): {began}, {cooldown.outcome}"


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
            f"{options.bundle} is unchanged: {len(manifest.files)} files, {size_bytes:,} bytes; "
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
    """Return the error for a device without NumPy or Pillow."""
    from capprune_runtime.measure.doctor import equipment

    found = equipment()
    return MissingExtra(f"{error.name} is not installed", expected=", ".join(found.missing), hint=found.install)


def _complain(error: CapPruneError) -> None:
    print(printable(error), file=sys.stderr)


def process() -> NoReturn:
    """Run the command as a process: handle signals, and exit quietly when the output pipe is closed."""
    stopping.listen()
    streams.prepare()
    try:
        exit_code = streams.finish(main())
    except BrokenPipeError as error:
        exit_code = streams.failed_output(error)
    except OSError as error:
        if error.filename is not None:
            raise
        exit_code = streams.failed_output(error, 1)
    streams.leave(exit_code)
