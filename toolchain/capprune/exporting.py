"""A trained run to a proven bundle: what `capprune export` calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from capprune import __version__
from capprune.data.scenes import golden_scenes
from capprune.evaluation.trained import TrainedCaptioner
from capprune.models.caption_model import region_count
from capprune.models.exportable import exportable
from capprune.models.search import SUPPRESSED
from capprune.training.run import LoadedRun
from capprune_exporters.bundle import BundleContents, GoldenCaption, write_bundle
from capprune_exporters.targets import find_target
from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.quantise import weight_only_int8
from capprune_exporters.tflite.sparse import SparseModel, StoredTensor, make_sparse
from capprune_runtime.errors import ExportError, UsageError
from capprune_runtime.golden import prove_golden
from capprune_runtime.manifest import (
    ENCODE_SIGNATURE,
    STEP_SIGNATURE,
    DataSection,
    DecodingSection,
    ModelSection,
    PreprocessingSection,
    PruningSection,
    QuantisationSection,
)
from capprune_runtime.verify import Bundle
from capprune_runtime.vocabulary import END, START

GOLDEN_SCENES = 4
DEFAULT_BEAM = 3


def export(
    run: LoadedRun,
    out: Path,
    *,
    target: str = "tflite",
    encoder_weights: str | None = None,
    beam: int = DEFAULT_BEAM,
    say: Callable[[str], None] = lambda message: None,
) -> tuple[Bundle, tuple[StoredTensor, ...]]:
    """Convert, rewrite, write, verify and prove a bundle; it appears under its name once all of that is done.

    Args:
        run: What to export.
        out: Folder of the bundle, to be made.
        target: A name of `capprune_exporters.targets`.
        encoder_weights: A form that the target's encoder can take; its default when left out.
        beam: K that the bundle uses when nobody says otherwise.
        say: Is told what is being done.

    Returns:
        The bundle, and what became of each weight tensor of the decoder.

    Raises:
        UsageError: If the target or the form is unknown, or `out` exists.
        MissingExtra: If the converter is not installed.
        ExportError: If the graph cannot be converted, or a golden photo gives other tokens.
    """
    chosen = find_target(target)
    form = encoder_weights or chosen.encoder_weights[0]
    if form not in chosen.encoder_weights:
        expected = ", ".join(chosen.encoder_weights)
        raise UsageError("there is no such form", where="--encoder-weights", expected=expected, found=form)
    if out.exists() and any(out.iterdir()):  # before minutes of work, not after
        raise UsageError("this folder exists already", where=out, hint="choose another --out, or remove it first")
    encode, step = exportable(run.model)
    say("converting the encoder")
    encoder = make_sparse(convert(encode, ENCODE_SIGNATURE, encode.example()), one_row=False).data
    if form == "weight_only_int8":
        encoder = weight_only_int8(encoder)
    say("converting the decoder")
    decoder = make_sparse(convert(step, STEP_SIGNATURE, step.example()), one_row=True)
    say("proving the bundle on its golden photos")
    contents = _contents(run, encoder, decoder, encoder_form=form, beam=beam)
    bundle = write_bundle(out, contents, prove=_prove if form == "float32" else None)
    return bundle, decoder.tensors


def _contents(run: LoadedRun, encoder: bytes, decoder: SparseModel, *, encoder_form: str, beam: int) -> BundleContents:
    config = run.config
    tree = config.as_tree()
    tree["data"]["folder"] = config.data.folder.name  # the rest of the path is nobody's business
    kept, prunable = run.kept, run.prunable
    sparse = any(tensor.form != "dense_float32" for tensor in decoder.tensors)
    return BundleContents(
        created_by=f"capprune {__version__}",
        encoder=encoder,
        decoder=decoder.data,
        vocabulary=run.vocabulary,
        model=ModelSection(
            family="soft_attention",
            regions=region_count(config.encoder),
            vocabulary=len(run.vocabulary),
            **config.decoder.model_dump(),
        ),
        preprocessing=PreprocessingSection(size=config.encoder.size),
        decoding=DecodingSection(
            start=START, end=END, suppress=SUPPRESSED, max_tokens=config.data.maximum_tokens, beam=beam
        ),
        state=run.model.decoder.state_names,
        pruning=PruningSection(
            method=config.pruning.method, sparsity=1 - kept / prunable, kept_weights=kept, prunable_weights=prunable
        ),
        quantisation=QuantisationSection(encoder=encoder_form, decoder="csr_float32" if sparse else "float32"),
        data=DataSection(name=config.data.folder.name or "unknown", licence=config.data.licence),
        config=tree,
        golden=golden_captions(run),
        model_card=_model_card(run, encoder_form),
    )


def golden_captions(run: LoadedRun) -> list[GoldenCaption]:
    """Drawn scenes with what the trained model says of them, greedy and by beam in turn."""
    captioner = TrainedCaptioner(run)
    found = []
    for number, (photo, name) in enumerate(golden_scenes(GOLDEN_SCENES, run.config.encoder.size)):
        beam = 1 if number % 2 == 0 else DEFAULT_BEAM
        said = captioner.caption(photo[None], beam)[0]
        found.append(GoldenCaption(name, photo, beam, said.tokens, said.caption))
    return found


def _prove(bundle: Bundle) -> None:
    """Refuse a float32 bundle whose golden photos give other tokens than torch gave."""
    for proof in prove_golden(bundle):
        if not proof.same:
            raise ExportError(
                "the exported model says something else than the trained one",
                where=f"golden photo {proof.golden.name}",
                expected=proof.golden.caption,
                found=proof.said.text,
                hint="this is a defect; please report it with the run's config",
            )


def _model_card(run: LoadedRun, encoder_form: str) -> str:
    config, kept = run.config, run.kept
    return (
        f"# {config.name}\n\n"
        f"A {config.decoder.cell.upper()} captioner with soft attention over the features of {config.encoder.name}.\n\n"
        f"- Data: {config.data.folder.name}. Terms: {config.data.licence}.\n"
        f"- Decoder: {kept:,} of {run.prunable:,} weights kept ({1 - kept / run.prunable:.2%} sparse).\n"
        f"- Encoder weights: {encoder_form}.\n"
        f"- CIDEr-D on the validation photos when trained, greedy: {float(run.facts['cider']):.3f}.\n\n"
        "Captions can be wrong. Do not rely on them where a mistake does harm.\n"
    )
