"""Validation: caption a split with a bundle, here or on a device, and compare the captions with the trained model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Place, given_path, given_paths, needs, optional_path
from capprune.api.html import html_table
from capprune.devices.schemes import LOCAL
from capprune.training.progress import SILENT, Progress
from capprune_runtime.errors import GateFailed, MissingExtra, UsageError
from capprune_runtime.formats import RUNTIMES

if TYPE_CHECKING:
    from capprune.data.inputs import Store
    from capprune.devices import Device
    from capprune.metrics.scores import Scores
    from capprune.validation.parity import Parity, ScoreGap
    from capprune.validation.results import Results
    from capprune.validation.validate import Reference, Validation
    from capprune_runtime.bundle.verify import Bundle
    from capprune_runtime.measure.results import Latency

CHOSEN_ON = "val"  # choices are made on val and reported on test


@dataclass(frozen=True)
class ValidationResult:
    """Results of a validation.

    Attributes:
        results: The document of docs/results_schema.md, typed.
        validation: The data behind the document: every caption, and the scores of each photo.
        checked: The gates that were checked: `max_drop`, `max_bytes`, `parity`.
        failure: The gate that failed, as an error; None if all passed.
    """

    results: Results
    validation: Validation
    checked: tuple[str, ...]
    failure: GateFailed | None

    @property
    def cider_d(self) -> float:
        """CIDEr-D of the bundle's captions."""
        return self.results.quality.scores.cider_d

    @property
    def parity(self) -> Mapping[str, Parity]:
        """Parity with the trained model, token by token, for each interpreter; empty without a reference."""
        return self.results.parity

    @property
    def latency(self) -> Latency:
        """Times of the encoder, of a decoder step and of a caption."""
        return self.results.latency

    @property
    def passed(self) -> bool:
        """Whether all checked gates passed."""
        return self.failure is None

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune validate --json` prints."""
        failed = {} if self.failure is None else self.failure.as_json()
        gate = {"passed": self.passed, "checked": list(self.checked), **failed}
        return self.results.as_json() | {"gate": gate}

    def raise_if_failed(self) -> None:
        """Raise the error of the gate that failed.

        Raises:
            GateFailed: A gate failed.
        """
        if self.failure is not None:
            raise self.failure

    def _repr_html_(self) -> str:
        return html_table(*quality_table(self.results))


@needs("validate")
def validate(
    bundle: Place | None = None,
    *,
    data: Place,
    split: str = "test",
    limit: int | None = None,
    reference: Place | None = None,
    max_drop: float | str | None = None,
    max_bytes: int | str | None = None,
    beam: int | None = None,
    runtime: str = "auto",
    also: Sequence[str] = (),
    device: str = LOCAL,
    python: str | None = None,
    record: bool = False,
    known: Place | Sequence[Place] = (),
    threads: int = 1,
    progress: Progress = SILENT,
) -> ValidationResult:
    """Caption a split with a bundle; measure quality, parity with the trained model, size and speed.

    A gate that fails is part of the result and raises nothing; see `ValidationResult.raise_if_failed`.

    Args:
        bundle: A folder or a `.capz`; the package's own by default.
        data: Photos and captions.
        split: Split of the photos.
        limit: Use only the first `limit` photos of the split.
        reference: The run that the bundle was exported from; its captions are compared token by token.
        max_drop: Largest relative loss of CIDEr-D compared with `reference`, 0 to 1 or "2%"; 2 % by default.
        max_bytes: Largest size of the bundle in bytes, or a string such as "4MB".
        beam: Beam width; the bundle's own by default.
        runtime: An interpreter, or `auto`.
        also: Interpreters in which parity is checked as well.
        device: `local`, `ssh:USER@HOST[:PORT]` or `adb[:SERIAL]`.
        python: The Python on an ssh device.
        record: Write the results into the bundle, as `quality.json`.
        known: With `record` on `val`, further data folders that the bundle was trained on, whose photos are familiar too.
        threads: Threads of the interpreter.
        progress: Receives progress reports.

    Raises:
        UsageError: An option needs a reference or a recording, or names something unknown.
        DataError: The split is empty or a photo cannot be read.
        BundleError: The bundle or the reference cannot be run.
        DeviceError: The device cannot be reached or used.
    """
    from capprune.devices import open_device
    from capprune.ready import ready_bundle
    from capprune.validation.gate import DEFAULT_MAX_DROP, parse_max_bytes, parse_max_drop
    from capprune_exporters.bundle import record_quality
    from capprune_runtime.bundle.verify import verify_bundle

    if reference is None:
        _refuse_without_reference(max_drop, also)
    further = given_paths(known)
    if further:
        _check_known(further, split, record)
    drop = DEFAULT_MAX_DROP if max_drop is None else parse_max_drop(str(max_drop))
    size = None if max_bytes is None else parse_max_bytes(str(max_bytes))
    opened = open_device(device, python=python)
    place = optional_path(bundle) or ready_bundle()
    verified = verify_bundle(place)
    check_runtimes((*also, *(() if runtime == "auto" or device != LOCAL else (runtime,))), verified.encoder)
    if record and not place.is_dir():
        record_quality(verified, {})  # raises now instead of at the end
    results, validation = validate_bundle(
        verified,
        given_path(data),
        split,
        limit=limit,
        reference=optional_path(reference),
        beam=beam,
        runtime=runtime,
        also=tuple(also),
        threads=threads,
        device=opened,
        progress=progress,
    )
    failure = _failed_gate(verified, results, validation, None if reference is None else drop, size)
    limits = {"max_drop": reference is not None, "max_bytes": size is not None, "parity": bool(results.parity)}
    result = ValidationResult(results, validation, tuple(name for name, given in limits.items() if given), failure)
    if record:
        _record(verified, result.as_json(), validation, _Recorded(given_path(data), split, further, threads), progress)
    return result


def _refuse_without_reference(max_drop: float | str | None, also: Sequence[str]) -> None:
    """Refuse limits and comparisons that cannot be checked without a reference."""
    for option, given in (("--max-drop", max_drop is not None), ("--also", bool(also))):
        if given:
            raise UsageError(
                "this option compares a bundle with its trained model, and none is given",
                where=option,
                hint="give the run with --reference RUN",
            )


def _check_known(folders: Sequence[Path], split: str, record: bool) -> None:
    """Check that further known photos are used and that their captions can be read, before any work."""
    from capprune.data.captions import load_caption_set

    if not (record and split == CHOSEN_ON):
        raise UsageError(
            "further known photos count only where familiar photos are chosen",
            where="--known",
            expected=f"--split {CHOSEN_ON} --record",
            found=f"--split {split}" + (" --record" if record else ""),
        )
    for folder in folders:
        load_caption_set(folder)


def check_runtimes(names: tuple[str, ...], encoder: bytes) -> None:
    """Check that interpreters are known, run this kind of model and are installed here, before any work.

    Raises:
        UsageError: There is no such interpreter, or it runs another kind of model.
        MissingExtra: It is not installed.
    """
    from importlib.util import find_spec

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
    """Return the gate that failed. A float32 bundle must generate the trained model's captions, word by word."""
    from capprune.validation.gate import check_gates

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


@dataclass(frozen=True)
class _Recorded:
    folder: Path
    split: str
    known: tuple[Path, ...]
    threads: int


def _record(
    bundle: Bundle, document: Mapping[str, Any], validation: Validation, data: _Recorded, progress: Progress
) -> None:
    """Write quality.json and the model card. Limits of captions and photos are chosen on val and kept by other splits."""
    from capprune.validation.card import model_card
    from capprune_exporters.bundle import record_quality
    from capprune_runtime import strict_json
    from capprune_runtime.bundle.familiarity import KEY
    from capprune_runtime.bundle.manifest import QUALITY

    quality = {key: document[key] for key in document if key not in ("captions", "failures")}
    if data.split == CHOSEN_ON:
        quality |= _chosen(bundle, validation, data, progress)
    elif QUALITY in bundle.files:
        before = strict_json.parse(bundle.files[QUALITY])
        kept = before if isinstance(before, dict) else {}
        quality |= {key: kept[key] for key in ("confidence", KEY) if kept.get(key)}
    if quality.get("confidence") is None:
        progress.say(f"captions of this bundle will not be marked as unsure: record a validation of {CHOSEN_ON} first")
    record_quality(bundle, quality, model_card(bundle, quality))


def _chosen(bundle: Bundle, validation: Validation, data: _Recorded, progress: Progress) -> dict[str, Any]:
    """Return the limits chosen on a validation: of unsure captions, and of familiar photos if they can be chosen."""
    from capprune.validation.confidence import calibrate
    from capprune.validation.familiarity import MOST_UNLIKELY, choose_familiarity
    from capprune_runtime.bundle.familiarity import KEY
    from capprune_runtime.caption.confidence import mean_log_probability

    said = {one.photo: mean_log_probability(one) for one in validation.measurement.captions}
    scores = dict(zip(sorted(said), validation.scores.per_photo_cider, strict=True))
    found = choose_familiarity(bundle, data.folder, said, split=data.split, known=data.known, threads=data.threads)
    if isinstance(found, str):
        progress.say(f"unfamiliar photos will not be marked: {found}")
        return {"confidence": calibrate(said, scores, split=data.split).as_json()}
    drawn = min(found.drawn_share.values(), default=0.0)
    facts = f"{found.share:.1%} of {data.split}, at least {drawn:.0%} of each kind of drawn image"
    progress.say(
        f"photos that the bundle does not know: {facts}; {found.unsure_share:.1%} of {data.split} are not sure"
    )
    unlikely = calibrate(said, scores, split=data.split, most=MOST_UNLIKELY)
    return {"confidence": unlikely.as_json(), KEY: found.as_json()}


def validate_bundle(
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
    progress: Progress = SILENT,
) -> tuple[Results, Validation]:
    """Run a validation without gates, by default on this machine.

    Returns:
        The results document, and the data behind it.

    Raises:
        DataError: The split is empty or a photo cannot be read.
        BundleError: The bundle or the reference cannot be run.
        DeviceError: The device cannot be reached or used.
    """
    from capprune.data.captions import load_caption_set
    from capprune.data.inputs import open_store
    from capprune.devices import RunJob, open_device
    from capprune.validation.results import DataFacts
    from capprune.validation.validate import first_photos, parity_in_runtime, results_of, score_measurement

    captions = load_caption_set(folder)
    for note in captions.notes():
        progress.say(note)
    photos = first_photos(captions.split(split), limit)
    width = beam or bundle.manifest.decoding.beam
    with open_store(folder, bundle.manifest.preprocessing) as store:
        store.require([photo.name for photo in photos])
        trained: dict[str, Reference] | None = None
        gap: ScoreGap | None = None
        if reference is not None:
            trained, gap = _trained(reference, bundle, [photo.name for photo in photos], store, width, progress)
        place = device or open_device(LOCAL)
        job = RunJob(bundle, [photo.name for photo in photos], store.read, width, runtime, threads)
        with progress.bar("captions") as tell:
            measurement = place.run(job, tell)
        validation = score_measurement(measurement, photos, reference=trained, score_gap=gap)
        others = {}
        if trained is not None and gap is not None:
            for other in also:
                with progress.bar(f"captions in {other}") as tell:
                    others[other] = parity_in_runtime(
                        bundle, photos, store, trained, gap, runtime=other, beam=width, threads=threads, progress=tell
                    )
    facts = DataFacts(captions.name, split, len(photos))
    name = None if reference is None else reference.name
    return results_of(validation, facts, reference_name=name, other_parity=others), validation


def _trained(
    run: Path, bundle: Bundle, names: list[str], store: Store, beam: int, progress: Progress
) -> tuple[dict[str, Reference], ScoreGap]:
    """Return the trained model's captions of the photos, searched for as in the bundle, and a function for its score gaps."""
    from capprune.trained import TrainedCaptioner
    from capprune.training.run import load_run

    captioner = TrainedCaptioner(load_run(run).without_repeats(bundle.manifest.decoding.no_repeat_ngram))
    progress.say(f"captioning {len(names)} photos with the trained model")
    found = captioner.captions(names, store, beam)

    def gap(name: str, reference: tuple[int, ...], other: tuple[int, ...]) -> float:
        return captioner.score_gap(store, name, reference, other, beam)

    return found, gap


def quality_table(results: Results) -> tuple[str, list[str], list[list[str]]]:
    """Return the title, columns and rows of the metrics of a validation."""
    scores, interval = results.quality.scores, results.quality.cider_d
    rows = [_quality_row("this bundle", scores, f"{interval.low:.3f} to {interval.high:.3f}")]
    if results.reference is not None:
        rows.insert(0, _quality_row(f"trained ({results.reference.name})", results.reference.scores))
    title = (
        f"{results.data.name} {results.data.split}, {results.data.photos} photos, beam {results.quality.beam}, "
        f"{scores.tokenizer} tokens"
    )
    return title, ["model", "BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr-D", "95 % interval"], rows


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
