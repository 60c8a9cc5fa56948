"""`capprune train`: a config in, a run out."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capprune.cli.console import CLEAR, Place, bar, cache_option, echo, emit, json_option, out_option, say
from capprune_runtime.streams import printable

if TYPE_CHECKING:
    from capprune.config.run import RunConfig
    from capprune.training.loop import Outcome, Progress


@click.command()
@click.argument("config", type=Place(dir_okay=False))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@out_option("run")
@cache_option
@json_option
def command(config: Path, overrides: tuple[str, ...], out: Path, cache: Path | None, as_json: bool) -> None:
    """Train a captioning model, dense or pruned while it trains.

    The same command goes on where an interrupted run stopped. A config with stages makes one run after the other in
    sub-folders of --out.

    \b
    Example:
      capprune train configs/flickr8k_sparse.yaml data.folder=flickr8k --out runs/sparse
    """
    from capprune.config.reading import load_config, load_tree, require_single
    from capprune.ineffective import ineffective_notes, refuse_ineffective
    from capprune.training.stages import is_recipe, read_stages

    tree = load_tree(config)
    if not is_recipe(tree):
        resolved = load_config(config, overrides)
        refuse_ineffective(resolved, overrides)
        for note in ineffective_notes(resolved, overrides):
            say(note)
        train_and_show(resolved, out, cache, as_json)
        return
    require_single(overrides)
    *before, last = read_stages(tree, overrides, out, where=str(config))
    for number, stage in enumerate(before, 1):
        say(f"stage {number} of {len(before) + 1}: {stage.name}")
        train(stage.config, stage.folder, cache)
    say(f"stage {len(before) + 1} of {len(before) + 1}: {last.name}")
    train_and_show(last.config, last.folder, cache, as_json)


def train_and_show(config: RunConfig, out: Path, cache: Path | None, as_json: bool) -> None:
    """Train a config and say what came of it; what `train`, `prune` and `finetune` share."""
    outcome = train(config, out, cache)

    def show() -> None:
        echo(
            f"trained {out}: CIDEr-D {outcome.cider:.3f} on val (greedy), best after epoch {outcome.epoch + 1}"
            + (f", {outcome.sparsity:.2%} sparse" if config.pruning.prunes else "")
        )
        if outcome.settled:
            echo(
                f"its gates were still on their way to the target: {outcome.settled:,} were moved after the last step; "
                f"capprune finetune {out} --out {out.name}-tuned mends what that cost"
            )
        for sign in outcome.signs:
            for line in sign.lines():
                echo(line)
        echo(f"next: capprune export {out} --target tflite --out {out.name}-bundle")

    document: dict[str, Any] = {"run": str(out), "best_epoch": outcome.epoch, "cider_d_val": outcome.cider}
    document |= {
        "sparsity": outcome.sparsity,
        "seconds_per_epoch": outcome.seconds_per_epoch,
        "settled": outcome.settled,
        "warnings": [sign.as_json() for sign in outcome.signs],
    }
    emit(document, as_json, show)


def derived(
    run: Path,
    changed: Mapping[str, Any],
    pruning: Mapping[str, Any],
    training: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    dropout: float = 1.0,
) -> RunConfig:
    """The config of a run that starts from another: that one's own, changed, then overridden.

    Args:
        run: To start from.
        changed: Keys of the tree's top.
        pruning: Keys of `pruning`; a run without masks has none to keep and stays dense.
        training: Keys of `training`.
        overrides: `key=value`, which win.
        dropout: Factor of every dropout rate of the decoder.

    Raises:
        UsageError: If the run is not there, or an override has no effect.
    """
    from capprune.config.methods import KEEP, NONE
    from capprune.config.reading import parse_config, require_single
    from capprune.ineffective import ineffective_notes, refuse_ineffective
    from capprune.training.run import read_run

    require_single(overrides)
    parent = read_run(run)
    tree = parent.config.as_tree()
    method = NONE if pruning["method"] == KEEP and not parent.masks else pruning["method"]
    own = {**tree["training"], "objective": "cross_entropy", "distillation": {}, **training}
    seen = {**tree["encoder"], "start": None}  # the run holds the encoder that it was given
    decoder = parent.config.decoder.with_dropout(dropout).model_dump(mode="json")
    pruned = {**tree["pruning"], **pruning, "method": method}
    changes = {"encoder": seen, "decoder": decoder, **changed, "pruning": pruned, "training": own}
    config = parse_config({**tree, **changes}, overrides, where=str(run))
    refuse_ineffective(config, overrides)
    for note in ineffective_notes(config, overrides):
        say(note)
    return config


def train(config: RunConfig, out: Path, cache: Path | None) -> Outcome:
    """Prepare the data of a config and train it, showing progress on stderr.

    Raises:
        CapPruneError: Whatever keeps the run from its end; see the README's table of exit codes.
    """
    from capprune.metrics.health import caption_health
    from capprune.metrics.scores import cider_d
    from capprune.training.loop import Trainer
    from capprune.training.prepare import default_cache, prepare
    from capprune_runtime.errors import DataError

    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # it announces its precision
    prepared = prepare(config, cache=cache or default_cache(), bar=bar)
    for note in prepared.notes:
        say(note)
    config = config.model_copy(update={"data": config.data.model_copy(update={"licence": prepared.licence})})
    human = {photo.name: photo.captions for photo in prepared.validation_photos}
    trainer = Trainer(
        config,
        out,
        vocabulary=prepared.vocabulary,
        train=prepared.train,
        validation=prepared.validation,
        quality=lambda captions: cider_d({name: human[name] for name in captions}, captions),
        health=lambda captions: caption_health(captions.values()).as_json(),
        report=_Reporter(),
        note=say,
        subwords=prepared.subwords,
    )
    for layer, reason in trainer.pruner.blocks.left_single.items():
        say(f"{layer} keeps single gates: {reason}")
    try:
        with _way_on(out):
            outcome = trainer.run()
    finally:
        if (skipped := prepared.skipped()) is not None:
            click.echo(printable(skipped), err=True)
    if outcome.epoch < 0:
        raise DataError(
            "no epoch ended within tolerance of the target, so there is no checkpoint to export",
            where=out,
            expected=f"{config.pruning.sparsity:.2%} sparsity",
            hint="raise training.epochs or pruning.kappa, and choose another --out",
        )
    return outcome


@contextmanager
def _way_on(out: Path) -> Iterator[None]:
    """After a signal, print the command that goes on with the run."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        command = shlex.join(["capprune", *sys.argv[1:]])
        click.echo(printable(f"the state of {out} is saved; go on with: {command}"), err=True)
        raise


class _Reporter:
    """Shows where a run is: a line that is rewritten on a terminal, a line an epoch elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last: Progress | None = None
        self._warned: frozenset[str] = frozenset()

    def __call__(self, progress: Progress) -> None:
        if progress.cider is not None:
            sparse = "" if self._last is None or self._last.sparsity is None else f", {self._last.sparsity:.2%} sparse"
            speed = "" if self._last is None else f", {self._last.captions_per_second:.0f} captions/s"
            clear = CLEAR if self._live else ""
            say(f"{clear}epoch {progress.epoch + 1}/{progress.epochs}: CIDEr-D {progress.cider:.3f}{sparse}{speed}")
            self._warn(progress)
        elif progress.step % 10 == 0:
            self._last = progress
            if self._live:
                minutes = progress.seconds_left / 60
                click.echo(
                    f"{CLEAR}step {progress.step}/{progress.steps}  loss {progress.loss:.3f}  "
                    f"{progress.captions_per_second:.0f} captions/s  {minutes:.0f} min left",
                    err=True,
                    nl=False,
                )

    def _warn(self, progress: Progress) -> None:
        """Print each sign that the run is not learning when it comes up, not after every epoch."""
        for sign in progress.signs:
            if sign.kind not in self._warned:
                say("\n".join(sign.lines()))
        kinds = frozenset(sign.kind for sign in progress.signs)
        if self._warned and not kinds:
            say("the run is learning now: the warnings above no longer hold")
        self._warned = kinds
