"""Train, prune and fine-tune runs, or import them from checkpoints of other code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capprune.api.arguments import Overrides, Place, given_path, given_paths, needs, optional_path, override_texts
from capprune.api.exporting import DEFAULT_BEAM, ExportedBundle, export
from capprune.api.inspection import RunInspection, inspect_run
from capprune.training.progress import SILENT, Progress
from capprune_runtime.atomic import check_folder_place

if TYPE_CHECKING:
    from capprune.config.run import RunConfig
    from capprune.importing.reference import ReferenceCheckpoint
    from capprune.training.health import Sign


@dataclass(frozen=True)
class Run(os.PathLike[str]):
    """A trained model in its folder. A `Run` is also a path, so every function that takes a run's folder takes it.

    Attributes:
        folder: The run's folder.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", given_path(self.folder))

    def __fspath__(self) -> str:
        return str(self.folder)

    def inspect(self) -> RunInspection:
        """Describe this run layer by layer; see `capprune.inspect`."""
        return inspect_run(self)

    def prune(
        self,
        *,
        out: Place,
        method: str = "hard",
        overrides: Overrides = (),
        device: str | None = None,
        precision: str | None = None,
        cache: Place | None = None,
        progress: Progress = SILENT,
    ) -> TrainedRun:
        """Prune this run and train the kept weights; see `capprune.prune`."""
        return prune(
            self,
            out=out,
            method=method,
            overrides=overrides,
            device=device,
            precision=precision,
            cache=cache,
            progress=progress,
        )

    def finetune(
        self,
        *,
        out: Place,
        objective: str = "cross_entropy",
        teacher: Place | Sequence[Place] = (),
        overrides: Overrides = (),
        device: str | None = None,
        precision: str | None = None,
        cache: Place | None = None,
        progress: Progress = SILENT,
    ) -> TrainedRun:
        """Train this run further with fixed masks; see `capprune.finetune`."""
        return finetune(
            self,
            out=out,
            objective=objective,
            teacher=teacher,
            overrides=overrides,
            device=device,
            precision=precision,
            cache=cache,
            progress=progress,
        )

    def export(
        self,
        out: Place,
        *,
        target: str = "tflite",
        weights: str | None = None,
        encoder_weights: str | None = None,
        plan: str | Mapping[str, str] | None = None,
        costs: str | None = None,
        data: Place | None = None,
        photos: int = 1000,
        pack: bool = False,
        beam: int = DEFAULT_BEAM,
        progress: Progress = SILENT,
    ) -> ExportedBundle:
        """Turn this run into a bundle that a device can run; see `capprune.export`."""
        return export(
            self,
            out=out,
            target=target,
            weights=weights,
            encoder_weights=encoder_weights,
            plan=plan,
            costs=costs,
            data=data,
            photos=photos,
            pack=pack,
            beam=beam,
            progress=progress,
        )


@dataclass(frozen=True)
class TrainedRun(Run):
    """A run as `train`, `prune` or `finetune` returns it.

    Attributes:
        best_epoch: Epoch of the best checkpoint, from 0.
        cider_d_val: CIDEr-D of that checkpoint on the validation photos (greedy search).
        sparsity: Share of closed gates, 0 to 1; 0 for a dense run.
        prunes: Whether the run has masks.
        seconds_per_epoch: Median time of an epoch; None if this call trained none.
        settled: Number of gates that were changed after the last step, because no epoch had ended at the target.
        signs: Signs that the run was not learning, after its last epoch.
    """

    best_epoch: int
    cider_d_val: float
    sparsity: float
    prunes: bool
    seconds_per_epoch: float | None
    settled: int
    signs: tuple[Sign, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune train --json` prints."""
        return {
            "run": str(self.folder),
            "best_epoch": self.best_epoch,
            "cider_d_val": self.cider_d_val,
            "sparsity": self.sparsity,
            "seconds_per_epoch": self.seconds_per_epoch,
            "settled": self.settled,
            "warnings": [sign.as_json() for sign in self.signs],
        }


@dataclass(frozen=True)
class ImportedRun(Run):
    """A run as `import_` returns it.

    Attributes:
        checkpoint: Description of the imported checkpoint.
    """

    checkpoint: ReferenceCheckpoint

    def as_json(self) -> dict[str, Any]:
        """Return what `capprune import --json` prints."""
        read = self.checkpoint
        return {
            "run": str(self.folder),
            "weights_file": read.weights_file,
            "name": read.config.name,
            "vocabulary": len(read.tokens),
            "weights": read.weights,
            "kept": read.kept_weights,
            "tensors": {name: {"shape": list(mask.shape), "kept": int(mask.sum())} for name, mask in read.kept.items()},
        }


@needs("train")
def train(
    config: Place | Mapping[str, Any],
    *,
    out: Place,
    overrides: Overrides = (),
    device: str | None = None,
    precision: str | None = None,
    cache: Place | None = None,
    progress: Progress = SILENT,
) -> TrainedRun:
    """Train a captioning model, dense or pruned during training. An interrupted run is resumed.

    Args:
        config: A YAML file or a tree of keys; with `stages`, several runs are trained in order, in sub-folders of `out`.
        out: Folder for the run.
        overrides: Keys of the config with their values: `{"training.epochs": 3}` or `["training.epochs=3"]`.
        device: Device to train on, `auto`, `cpu`, `cuda` or `mps`; by default the config's.
        precision: `auto`, `float32`, `bfloat16` or `float16`; by default the config's.
        cache: Folder for computed features; `~/.cache/capprune` by default.
        progress: Receives progress reports.

    Returns:
        The run; for stages, the last one.

    Raises:
        UsageError: The config does not exist, an override has no effect, or `out` holds another run.
        ConfigError: A key is unknown or has an invalid value.
        DataError: A split is empty, a photo cannot be read, or no epoch reached the target.
    """
    from capprune.config.reading import load_tree, parse_config, require_single
    from capprune.ineffective import ineffective_notes, refuse_ineffective
    from capprune.training.stages import is_recipe, read_stages

    tree = dict(config) if isinstance(config, Mapping) else load_tree(given_path(config))
    where = "config" if isinstance(config, Mapping) else os.fspath(config)
    texts, folder = _texts(overrides, device, precision), given_path(out)
    check_folder_place(folder, new=False)
    require_single(texts)
    if not is_recipe(tree):
        resolved = parse_config(tree, texts, where=where)
        refuse_ineffective(resolved, texts)
        for note in ineffective_notes(resolved, texts):
            progress.say(note)
        return _trained(resolved, folder, cache, progress)
    *before, last = stages = read_stages(tree, texts, folder, where=where)
    for number, stage in enumerate(before, 1):
        progress.say(f"stage {number} of {len(stages)}: {stage.name}")
        _trained(stage.config, stage.folder, cache, progress)
    progress.say(f"stage {len(stages)} of {len(stages)}: {last.name}")
    return _trained(last.config, last.folder, cache, progress)


@needs("prune")
def prune(
    run: Place,
    *,
    out: Place,
    method: str = "hard",
    overrides: Overrides = (),
    device: str | None = None,
    precision: str | None = None,
    cache: Place | None = None,
    progress: Progress = SILENT,
) -> TrainedRun:
    """Prune a trained run and train the kept weights.

    Args:
        run: The run to start from.
        out: Folder for the sparse run.
        method: A pruning method for trained runs, such as `hard`, `lottery`, `gradual` or `supermask`.
        overrides: Keys of the run's config with their values.
        device: Device to train on, `auto`, `cpu`, `cuda` or `mps`; by default the config's.
        precision: `auto`, `float32`, `bfloat16` or `float16`; by default the config's.
        cache: Folder for computed features; `~/.cache/capprune` by default.
        progress: Receives progress reports.

    Raises:
        UsageError: The run does not exist, the method does not prune trained runs, or `out` holds another run.
        ConfigError: A key is unknown or has an invalid value.
    """
    from capprune.training.derived import pruning_config

    check_folder_place(given_path(out), new=False)
    config = pruning_config(given_path(run), method, _texts(overrides, device, precision), progress)
    return _trained(config, given_path(out), cache, progress)


@needs("finetune")
def finetune(
    run: Place,
    *,
    out: Place,
    objective: str = "cross_entropy",
    teacher: Place | Sequence[Place] = (),
    overrides: Overrides = (),
    device: str | None = None,
    precision: str | None = None,
    cache: Place | None = None,
    progress: Progress = SILENT,
) -> TrainedRun:
    """Train a run further with fixed masks.

    Args:
        run: The run to start from.
        out: Folder for the tuned run.
        objective: `cross_entropy` (the next word of human captions) or `scst` (the score of whole captions).
        teacher: A run, usually the dense one, whose scores are learned as well, or several, whose probabilities are
            averaged.
        overrides: Keys of the run's config with their values.
        device: Device to train on, `auto`, `cpu`, `cuda` or `mps`; by default the config's.
        precision: `auto`, `float32`, `bfloat16` or `float16`; by default the config's.
        cache: Folder for computed features; `~/.cache/capprune` by default.
        progress: Receives progress reports.

    Raises:
        UsageError: A run or the objective does not exist, or `out` holds another run.
        ConfigError: A key is unknown or has an invalid value.
    """
    from capprune.training.derived import finetuning_config

    check_folder_place(given_path(out), new=False)
    texts = _texts(overrides, device, precision)
    config = finetuning_config(given_path(run), objective, given_paths(teacher), texts, progress)
    return _trained(config, given_path(out), cache, progress)


@needs("import")
def import_(file: Place, *, out: Place, progress: Progress = SILENT) -> ImportedRun:
    """Convert a checkpoint of the papers' code to a run. No code in the file is executed.

    Args:
        file: A `.pth` with its `config.json` and `tokenizer/` beside it, the folder of these, or the `.zip` as distributed.
        out: Folder for the run.
        progress: Receives a message about the content.

    Raises:
        UsageError: The file does not exist, or `out` cannot be written to.
        DataError: The checkpoint is damaged or of an unknown kind.
    """
    from capprune.importing.reference import read_reference
    from capprune.importing.run import write_run

    folder = given_path(out)
    check_folder_place(folder, new=False)
    checkpoint = read_reference(given_path(file))
    progress.say(f"read {checkpoint.weights_file}: {checkpoint.kept_weights:,} of {checkpoint.weights:,} weights kept")
    write_run(checkpoint, folder)
    return ImportedRun(folder, checkpoint)


def _texts(overrides: Overrides, device: str | None, precision: str | None) -> tuple[str, ...]:
    """Return overrides as strings, with those for `device` and `precision`."""
    own = {"training.device": device, "training.precision": precision}
    return (*override_texts(overrides), *(f"{key}={value}" for key, value in own.items() if value is not None))


def _trained(config: RunConfig, out: Path, cache: Place | None, progress: Progress) -> TrainedRun:
    from capprune.training.session import train_run

    outcome = train_run(config, out, optional_path(cache), progress)
    return TrainedRun(
        out,
        best_epoch=outcome.epoch,
        cider_d_val=outcome.cider,
        sparsity=outcome.sparsity,
        prunes=config.pruning.prunes,
        seconds_per_epoch=outcome.seconds_per_epoch,
        settled=outcome.settled,
        signs=outcome.signs,
    )
