"""The encoder and decoder calls of a trained run, as an export target needs them."""

from __future__ import annotations

from capprune.exporting.contents import decoding_section
from capprune.models.caption_model import GridEncoder
from capprune.models.exportable import exportable
from capprune.models.family import IN_STEP, Role
from capprune.training.run import LoadedRun
from capprune_exporters.plan import Matrix
from capprune_exporters.targets.target import Calls


def calls_of(run: LoadedRun, beam: int) -> Calls:
    """Return the two calls of a run's model.

    Args:
        run: The run to export.
        beam: Default beam width of the bundle.
    """
    encode, step = exportable(run.model)
    decoder, encoder = run.model.decoder, run.model.encoder

    def matrices(*roles: Role) -> dict[str, Matrix]:
        return {name: one.numpy() for name, one in decoder.matrices(*roles).items()}

    def filters() -> dict[str, Matrix]:
        return {**encoder.network.folded_filters()} if isinstance(encoder, GridEncoder) else {}

    return Calls(
        encode=encode,
        encode_inputs=encode.example(),
        step=step,
        step_inputs=step.example(),
        interface=decoder.interface(),
        matrices=matrices(*IN_STEP),
        looked_up=tuple(decoder.matrices(Role.LOOKED_UP)),
        projections=matrices(Role.PER_PHOTO),
        filters=filters,
        vocabulary=run.vocabulary,
        preprocessing=run.preprocessing,
        decoding=decoding_section(run, beam),
        encoder=run.config.encoder.name,
        source=run.config.encoder.source,
    )
