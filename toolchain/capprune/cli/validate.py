"""`capprune validate`: a bundle over a split; quality, parity with the trained model, size, speed, gates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.cli.console import Place, bar, echo, emit, json_option, say, table, threads_option
from capprune.devices.schemes import LOCAL, forms, python_forms
from capprune_runtime.formats import RUNTIMES

if TYPE_CHECKING:
    from capprune.data.inputs import Store
    from capprune.devices import Device
    from capprune.metrics.scores import Scores
    from capprune.validation.parity import ScoreGap
    from capprune.validation.results import Results
    from capprune.validation.validate import Reference, Validation
    from capprune_runtime.bundle.verify import Bundle
    from capprune_runtime.errors import GateFailed

CHOSEN_ON = "val"  # choices are made on val and reported on test


@click.command()
@click.argument("bundle", type=Place(), required=False)
@click.option("--data", "folder", type=Place(file_okay=False), required=True, help="Photos, captions.")
@click.option("--split", default="test", show_default=True, help="Which photos.")
@click.option("--limit", type=click.IntRange(1), help="Only the first photos of the split.")
@click.option("--reference", type=Place(file_okay=False), help="The run that the bundle came from.")
@click.option("--max-drop", help="Largest relative loss of CIDEr-D against --reference, which it needs.  [default: 2%]")
@click.option("--max-bytes", help="Largest size of the whole bundle, such as 4MB.")
@click.option("--beam", type=click.IntRange(1, 100), help="Hypotheses kept.  [default: the bundle's]")
@click.option(
    "--runtime",
    default="auto",
    show_default=True,
    help=f"auto, {', '.join(RUNTIMES)}.",
)
@click.option("--also", multiple=True, metavar="RUNTIME", help="Check parity with --reference in this interpreter too.")
@click.option("--device", "spec", default=LOCAL, show_default=True, help=f"{forms()}.")
@click.option("--python", help=f"The Python on {python_forms()}.  [default: ~/capprune's, or python3]")
@click.option("--record", is_flag=True, help="Write the results into the bundle, as quality.json.")
@threads_option
@json_option
def command(
    bundle: Path | None,
    folder: Path,
    split: str,
    limit: int | None,
    reference: Path | None,
    max_drop: str | None,
    max_bytes: str | None,
    beam: int | None,
    runtime: str,
    also: tuple[str, ...],
    spec: str,
    python: str | None,
    record: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Caption a split with a bundle, here or on a device; quality, parity, size and speed.

    Without a BUNDLE: the package's own.

    With --reference the trained model captions the same photos in torch: every caption must be the same, token by token,
    and CIDEr-D must not drop by more than --max-drop. Over a limit, the exit code is 3.

    \b
    Example:
      capprune validate bundles/sparse --data flickr8k --reference runs/sparse --max-drop 2% --max-bytes 30MB
      capprune validate bundles/sparse --data flickr8k --limit 100 --device ssh:pi@raspberrypi.local
    """
    from capprune.devices import open_device
    from capprune.ready import ready_bundle
    from capprune.validation.gate import DEFAULT_MAX_DROP, parse_max_bytes, parse_max_drop
    from capprune_exporters.bundle import record_quality
    from capprune_runtime.bundle.verify import verify_bundle

    if reference is None:
        _refuse_without_reference(max_drop, also)
    drop = DEFAULT_MAX_DROP if max_drop is None else parse_max_drop(max_drop)
    size = None if max_bytes is None else parse_max_bytes(max_bytes)
    device = open_device(spec, python=python)
    place = bundle or ready_bundle()
    verified = verify_bundle(place)
    check_runtimes((*also, *(() if runtime == "auto" or spec != LOCAL else (runtime,))), verified.encoder)
    if record and not place.is_dir():
        record_quality(verified, {})  # refused now rather than at the end
    results, validation = validate(
        verified,
        folder,
        split,
        limit=limit,
        reference=reference,
        beam=beam,
        runtime=runtime,
        also=also,
        threads=threads,
        device=device,
    )
    failure = _failed_gate(verified, results, validation, None if reference is None else drop, size)
    limits = {"max_drop": reference is not None, "max_bytes": size is not None, "parity": bool(results.parity)}
    checked = [name for name, given in limits.items() if given]
    gate = {"passed": failure is None, "checked": checked, **({} if failure is None else failure.as_json())}
    document = results.as_json() | {"gate": gate}
    if record:
        _record(verified, document, validation, split)
    emit(document, as_json, lambda: show(results))
    if failure is not None:
        if as_json:
            raise SystemExit(failure.exit_code)  # the document holds the message
        raise failure


def _refuse_without_reference(max_drop: str | None, also: tuple[str, ...]) -> None:
    """A limit or a comparison that cannot be checked is refused before any work, so that nothing passes unchecked."""
    from capprune_runtime.errors import UsageError

    for option, given in (("--max-drop", max_drop is not None), ("--also", bool(also))):
        if given:
            raise UsageError(
                "this option compares a bundle with the model it was made from, and none is given",
                where=option,
                hint="give the run with --reference RUN",
            )


def check_runtimes(names: tuple[str, ...], encoder: bytes) -> None:
    """Check that interpreters are known, run this kind of model and are installed here, before any work.

    Raises:
        UsageError: There is no such interpreter, or it runs another kind of model.
        MissingExtra: It is not installed.
    """
    from importlib.util import find_spec

    from capprune_runtime.errors import MissingExtra, UsageError
    from capprune_runtime.formats import model_kind, runtimes_for

    able = runtimes_for(model_kind(encoder))
    for name in names:
        if name not in able:
            what = "this runtime does not run such models" if name in RUNTIMES else "there is no such runtime"
            raise UsageError(what, where="--also or --runtime", expected=", ".join(able), found=name)
        if find_spec(RUNTIMES[name].package) is None:
            raise MissingExtra(f"the runtime {name} is not installed", hint=RUNTIMES[name].install)


def _failed_gate(
    bundle: Bundle, results: Results, validation: Validation, max_drop: float | None, max_bytes: int | None
) -> GateFailed | None:
    """What the bundle did not hold; a float32 one must say what the trained model said, word by word."""
    from capprune.validation.gate import check_gates
    from capprune_runtime.errors import GateFailed

    quantisation = bundle.manifest.quantisation
    exact = quantisation.encoder == quantisation.decoder == "float32"
    try:
        check_gates(
            change=validation.change,
            max_drop=max_drop,
            sizes=results.bundle.files,
            max_bytes=max_bytes,
            parity=results.parity if exact else {},
        )
    except GateFailed as error:
        return error
    return None


def _record(bundle: Bundle, document: Mapping[str, Any], validation: Validation, split: str) -> None:
    """Write quality.json and the model card; the limit of unsure captions is chosen on val and kept by other splits."""
    from capprune.validation.card import model_card
    from capprune.validation.confidence import calibrate
    from capprune_exporters.bundle import record_quality
    from capprune_runtime import strict_json
    from capprune_runtime.bundle.manifest import QUALITY
    from capprune_runtime.caption.confidence import mean_log_probability

    quality = {key: document[key] for key in document if key not in ("captions", "failures")}
    if split == CHOSEN_ON:
        said = {one.photo: one for one in validation.measurement.captions}
        mean = {name: mean_log_probability(one) for name, one in said.items()}
        scores = dict(zip(sorted(said), validation.scores.per_photo_cider, strict=True))
        quality["confidence"] = calibrate(mean, scores, split=split).as_json()
    elif QUALITY in bundle.files:
        quality["confidence"] = strict_json.parse(bundle.files[QUALITY]).get("confidence")
    if quality.get("confidence") is None:
        say(f"captions of this bundle will not be marked as unsure: record a validation of {CHOSEN_ON} first")
    record_quality(bundle, quality, model_card(bundle, quality))


def validate(
    bundle: Bundle,
    folder: Path,
    split: str,
    *,
    limit: int | None = None,
    reference: Path | None = None,
    beam: int | None = None,
    runtime: str = "auto",
    also: tuple[str, ...] = (),
    threads: int = 1,
    device: Device | None = None,
) -> tuple[Results, Validation]:
    """Run a validation, showing progress on stderr; on this machine when no device is given.

    Returns:
        The results document and what it was made from.

    Raises:
        DataError: If the split is empty or a photo cannot be read.
        BundleError: If the bundle or the reference cannot be run.
        DeviceError: If the device cannot be reached or used.
    """
    from capprune.data.captions import load_caption_set
    from capprune.data.inputs import open_store
    from capprune.devices import RunJob, open_device
    from capprune.validation.results import DataFacts
    from capprune.validation.validate import first_photos, parity_in_runtime, results_of, score_measurement

    captions = load_caption_set(folder)
    for note in captions.notes():
        say(note)
    photos = first_photos(captions.split(split), limit)
    width = beam or bundle.manifest.decoding.beam
    with open_store(folder, bundle.manifest.preprocessing) as store:
        store.require([photo.name for photo in photos])
        trained: dict[str, Reference] | None = None
        gap: ScoreGap | None = None
        if reference is not None:
            trained, gap = _trained(reference, [photo.name for photo in photos], store, width)
        place = device or open_device(LOCAL)
        job = RunJob(bundle, [photo.name for photo in photos], store.read, width, runtime, threads)
        with bar("captions") as tell:
            measurement = place.run(job, tell)
        validation = score_measurement(measurement, photos, reference=trained, score_gap=gap)
        others = {}
        if trained is not None and gap is not None:
            for other in also:
                with bar(f"captions in {other}") as tell:
                    others[other] = parity_in_runtime(
                        bundle, photos, store, trained, gap, runtime=other, beam=width, threads=threads, progress=tell
                    )
    facts = DataFacts(captions.name, split, len(photos))
    name = None if reference is None else reference.name
    return results_of(validation, facts, reference_name=name, other_parity=others), validation


def show(results: Results) -> None:
    """The results as tables."""
    scores, bundle = results.quality.scores, results.bundle
    interval = results.quality.cider_d
    rows = [_quality_row("this bundle", scores, f"{interval.low:.3f} to {interval.high:.3f}")]
    if results.reference is not None:
        rows.insert(0, _quality_row(f"trained ({results.reference.name})", results.reference.scores))
    table(
        f"{results.data.name} {results.data.split}, {results.data.photos} photos, beam {results.quality.beam}, "
        f"{scores.tokenizer} tokens",
        ["model", "BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr-D", "95 % interval"],
        rows,
    )
    _show_health(results)
    _show_times(results)
    echo(f"{bundle.total_bytes:,} bytes; it keeps {bundle.kept_weights:,} of {bundle.prunable_weights:,} weights")
    for runtime, parity in results.parity.items():
        verdict = "holds" if parity.holds else "DOES NOT HOLD"
        echo(f"parity with torch in {runtime}: {parity.identical} of {parity.photos} captions identical, {verdict}")


def _show_times(results: Results) -> None:
    latency, where, verdict = results.latency, results.environment, results.measurement.verdict
    memory = results.measurement.memory.peak_rss_bytes
    table(
        f"{where.model or where.cpu_model}: {where.runtime} {where.runtime_version}, {where.threads} thread"
        + (f", {memory / 1e6:.0f} MB of memory" if memory is not None else ""),
        ["part", "p50 µs", "p90 µs", "p99 µs", "calls"],
        [
            [name, f"{part.p50_us:,.0f}", f"{part.p90_us:,.0f}", f"{part.p99_us:,.0f}", f"{part.count:,}"]
            for name, part in (("encode", latency.encode), ("step", latency.step), ("caption", latency.caption))
        ],
    )
    for reason in verdict.reasons:
        echo(f"do not trust these times: {reason.text}")


def _show_health(results: Results) -> None:
    """What a score does not see."""
    from capprune.metrics.health import COLUMNS

    reference = results.reference
    found = [] if reference is None else [(f"trained ({reference.name})", reference.health)]
    rows = [[name, *health.cells()] for name, health in (*found, ("this bundle", results.quality.health))]
    table("captions", ["model", *COLUMNS], rows)


def _quality_row(name: str, scores: Scores, interval: str = "") -> list[str]:
    return [
        name,
        f"{scores.bleu[0]:.4f}",
        f"{scores.bleu[3]:.4f}",
        "-" if scores.meteor is None else f"{scores.meteor:.4f}",
        f"{scores.rouge_l:.4f}",
        f"{scores.cider_d:.4f}",
        interval,
    ]


def _trained(run: Path, names: list[str], store: Store, beam: int) -> tuple[dict[str, Reference], ScoreGap]:
    """What the trained model says of the photos, and how close its own choices were."""
    from capprune.trained import TrainedCaptioner
    from capprune.training.run import load_run

    captioner = TrainedCaptioner(load_run(run))
    say(f"captioning {len(names)} photos with the trained model")
    found = captioner.captions(names, store, beam)

    def gap(name: str, reference: tuple[int, ...], other: tuple[int, ...]) -> float:
        return captioner.score_gap(store, name, reference, other, beam)

    return found, gap
