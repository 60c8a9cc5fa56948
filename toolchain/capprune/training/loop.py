"""The training loop: captions of photos, by cached features or an encoder that learns, dense or pruned on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning_fabric as lightning
import numpy as np
import torch

from capprune.config.methods import StartsFrom
from capprune.config.run import RunConfig
from capprune.models.caption_model import build_decoder
from capprune.models.family import Decoder
from capprune.models.search import greedy
from capprune.pruning.blocks import Blocks
from capprune.pruning.pruner import Pruner
from capprune.pruning.state import plain_state
from capprune.pruning.supermask import Supermask
from capprune.training.batches import Batch, Batches, BatchSource
from capprune.training.encoder import Sight, Table
from capprune.training.health import Moment, Sign, Watch, signs_of, validation_loss
from capprune.training.interrupt import StopRequest, postponed_signals
from capprune.training.memory import keep_freed_memory
from capprune.training.objectives import CrossEntropy, Distillation, Objective, SelfCritical
from capprune.training.resume import Note, Timer, is_unfinished, read_state, restore_state, save_state
from capprune.training.reward import CaptionReward, WordIds
from capprune.training.run import (
    BEST,
    LAST,
    alone_in,
    append_metrics,
    finish_run,
    load_teacher,
    read_checkpoint,
    read_metrics,
    remove_leftovers,
    rewind_metrics,
    save_checkpoint,
    start_run,
)
from capprune.training.start import carried_encoder, make_pruner, read_parent
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.errors import CapPruneError

LOG_EVERY = 50  # steps between two lines of metrics.jsonl
CAPTION_BATCH = 64  # photos that are captioned together in validation
RATE = "rate"  # of a group of parameters: its learning rate over the decoder's


@dataclass(frozen=True)
class Split:
    """One split as training needs it.

    Attributes:
        names: Of the photos.
        features: Of the photos, in the same order, `(P, R, F)`; for an encoder that learns their pixels `(P, S, S, 3)`.
        captions: For every photo its captions as ids.
        taught: What a teacher sees of them, `(P, R, F)` of its own encoder; `features` if left out.
        batches: Of every epoch, where they are read from shards; made of `captions` if left out.
    """

    names: Sequence[str]
    features: Table
    captions: Sequence[Sequence[tuple[int, ...]]]
    taught: Table | None = None
    batches: BatchSource | None = None


@dataclass(frozen=True)
class Progress:
    """Where a run is, for whoever shows it."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    captions_per_second: float
    seconds_left: float
    sparsity: float | None
    cider: float | None
    signs: tuple[Sign, ...] = ()  # that it is not learning, after an epoch


@dataclass(frozen=True)
class Outcome:
    """What a finished run reached.

    Attributes:
        epoch: Of the best checkpoint.
        cider: Its CIDEr-D on the validation photos, greedy.
        sparsity: Its share of closed gates; 0 for a dense run.
        seconds_per_epoch: Median, of this sitting.
        settled: Gates that were moved after the last step, because no epoch had ended at the target.
        signs: That it was not learning, after the last epoch.
    """

    epoch: int
    cider: float
    sparsity: float
    seconds_per_epoch: float | None
    settled: int = 0
    signs: tuple[Sign, ...] = ()


Quality = Callable[[Mapping[str, str]], float]  # captions of the validation photos to their CIDEr-D
Health = Callable[[Mapping[str, str]], Mapping[str, object]]  # the same captions to signs of sick ones
Report = Callable[[Progress], None]


class Trainer:
    """One run, from its first step or from where it was interrupted.

    Args:
        config: Of the run.
        folder: Of the run; made if it is not there, resumed if it is unfinished.
        vocabulary: Of the captions.
        train: What is learned from.
        validation: What chooses the best epoch.
        quality: Scores captions of `validation`.
        health: What metrics.jsonl tells of the same captions beside their score.
        report: Is told every step.
        note: Is told in a line what the user should know, such as a damaged state.
        subwords: Content of the sentencepiece model that the run folder keeps, where tokens are subwords.

    Raises:
        UnreachableTarget: Before anything is written, if the run could never reach its sparsity.
        UsageError: If the folder holds something else.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        vocabulary: Vocabulary,
        train: Split,
        validation: Split,
        quality: Quality,
        health: Health | None = None,
        report: Report | None = None,
        note: Note | None = None,
        subwords: bytes | None = None,
    ) -> None:
        self.config, self.folder, self.vocabulary = config, Path(folder), vocabulary
        self.train, self.validation, self.quality, self.report = train, validation, quality, report
        self.health, self.note = health, note
        settings = config.training
        parent = read_parent(config, vocabulary)
        self.batches: BatchSource = (
            train.batches
            if train.batches is not None
            else Batches(train.captions, photos_per_batch=settings.photos_per_batch, seed=settings.seed)
        )
        self.steps = settings.epochs * len(self.batches)
        self.sight = Sight(config.encoder)
        torch.manual_seed(settings.seed)  # after the encoder, which draws weights that it then replaces
        self.decoder = build_decoder(
            config,
            vocabulary.decoder_size,
            features=train.features.shape[-1] if self.sight.encoder is None else None,
            own=config.decoder.with_dropout(config.pruning.dropout_factor if config.pruning.prunes else 1.0),
        )
        self.model = self.sight.joined(self.decoder)
        self.pruner = make_pruner(self.model, config, parent=parent, steps=self.steps, epoch=len(self.batches))
        self.carried = carried_encoder(config, parent)
        keeps = parent is not None and config.pruning.how.starts_from is StartsFrom.MASKED
        self.method = parent.method if parent and keeps else config.pruning.method
        self.objective = self._objective()
        self.optimiser = _optimiser(self.decoder, self.sight, self.pruner, config)
        self.watch = Watch(self.decoder, self.sight, train.captions, validation.features, validation.captions)
        self.step, self.best, self.best_epoch, self.best_sparsity, self.settled = 0, -math.inf, -1, 0.0, 0
        start_run(self.folder, config, vocabulary, subwords)

    def run(self) -> Outcome:
        """Train to the end.

        Returns:
            What the best checkpoint reached.

        Raises:
            UsageError: If another process trains this run now.
            BundleError: If the saved state of an interrupted run is broken.
            CapPruneError: If the loss stops being finite or the disk is full.
                KeyboardInterrupt, SystemExit: On Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, after the state has been saved.
        """
        if (self.folder / LAST).is_file() and not is_unfinished(self.folder):
            return self._finished()
        keep_freed_memory()
        with alone_in(self.folder), postponed_signals() as request, _denormals_as_zero():
            remove_leftovers(self.folder)
            if is_unfinished(self.folder):
                self._resume()
            else:
                self.pruner.begin(self._first_loss if self.pruner.needs_loss else None)
            rewind_metrics(self.folder, self.step)
            self._note_blocks()
            seconds = self._train(request)
            self._save_checkpoint(LAST)
            finish_run(self.folder)
            request.obey()
        usual = float(np.median(seconds)) if seconds else None
        return Outcome(
            self.best_epoch, self.best, self.best_sparsity, usual, self.settled, signs_of(read_metrics(self.folder))
        )

    def _train(self, request: StopRequest) -> list[float]:
        """Run the epochs that are left; the seconds of those that were run from their start."""
        fast = self.config.training.precision == "bfloat16"
        fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed" if fast else "32-true")
        module, optimiser = fabric.setup(self.decoder, self.optimiser)
        module.mark_forward_method("scores")
        durations = []
        for epoch in range(self.step // len(self.batches), self.config.training.epochs):
            first, began = self.step % len(self.batches), time.monotonic()
            self._run_epoch(epoch, first, fabric, module, optimiser, request)
            seconds = time.monotonic() - began
            self._end_epoch(epoch, seconds)
            durations += [seconds] if first == 0 else []
        return durations

    def captions(self, split: Split, limit: int | None = None) -> dict[str, str]:
        """Greedy captions of a split's first photos."""
        self._set_training(False)
        names = list(split.names[:limit])
        found = {}
        with torch.inference_mode():
            for start in range(0, len(names), CAPTION_BATCH):
                some = np.arange(start, min(start + CAPTION_BATCH, len(names)))
                with Supermask.one_sample():
                    encoded = self.decoder.encode(self.sight(split.features, some))
                    tokens = greedy(self.decoder, encoded, self.config.data.steps).tokens
                found.update({names[i]: self.vocabulary.caption(ids) for i, ids in zip(some, tokens, strict=True)})
        self._set_training(True)
        return found

    def _run_epoch(
        self, epoch: int, first: int, fabric: Any, module: Any, optimiser: Any, request: StopRequest
    ) -> None:
        self._set_training(True)
        began, captions, timer = time.monotonic(), 0, Timer(self.config.training.save_interval)
        for batch in self.batches.epoch(epoch, first):
            if request.signal is not None:  # before a step: after the last one the epoch must end first
                self._save_state()
                request.obey()
            loss, sparsity_loss = self._step(batch, fabric, module, optimiser)
            captions += len(batch.inputs)
            if self.step % LOG_EVERY == 0:
                line = {"step": self.step, "epoch": epoch, "loss": loss, "learning_rate": self._learning_rate()}
                line |= self.objective.facts()
                sparsity = self.pruner.sparsity()
                if sparsity is not None:
                    line |= {"sparsity": sparsity, "sparsity_loss": sparsity_loss}
                append_metrics(self.folder, line)
            if timer.is_due():
                self._save_state()
                timer.restart()
            if self.report:
                self.report(self._progress(epoch, loss, captions / (time.monotonic() - began), len(batch.inputs)))

    def _step(self, batch: Batch, fabric: Any, module: Any, optimiser: Any) -> tuple[float, float]:
        self.pruner.before(self.step)
        with Supermask.one_sample(), fabric.autocast():
            features = self.sight(self.train.features, batch.photos)
        batch = self.objective.prepare(features.detach(), batch)
        with Supermask.one_sample():
            loss = self.objective.loss(module.scores, features, batch)
        caption_loss, sparsity_loss = float(loss.detach()), 0.0
        if not math.isfinite(caption_loss):
            raise CapPruneError(
                f"the loss is not finite at step {self.step}",
                where=self.folder,
                found=caption_loss,
                hint="lower training.learning_rate, and choose another --out",
            )
        for weight, pulled in self.pruner.losses(self.step):
            sparsity_loss += float(pulled.detach())
            loss = loss + weight * pulled
        optimiser.zero_grad(set_to_none=True)
        fabric.backward(loss)
        for group in self.optimiser.param_groups:
            if RATE in group:  # of weights; the gates are not clipped, and their rate stays as it is
                if self.config.training.gradient_clip:
                    torch.nn.utils.clip_grad_norm_(group["params"], self.config.training.gradient_clip)
                group["lr"] = group[RATE] * self._learning_rate()
        optimiser.step()
        self.pruner.after(self.step)
        self.step += 1
        return caption_loss, sparsity_loss

    def _end_epoch(self, epoch: int, seconds: float) -> None:
        if self.step == self.steps and self.best_epoch < 0:  # a run ends with a model
            self.settled = self.pruner.settle()
        captions = self.captions(self.validation, self.config.training.validation_photos)
        cider = self.quality(captions)
        sparsity = self.pruner.sparsity()
        line: dict[str, object] = {"step": self.step, "epoch": epoch, "cider": cider, "seconds": seconds}
        line |= {"health": dict(self.health(captions))} if self.health else {}
        losses, signs = self._signs(epoch, captions)
        line |= {**losses, "warnings": [sign.as_json() for sign in signs]}
        line |= {"settled": self.settled} if self.settled else {}
        append_metrics(self.folder, line if sparsity is None else {**line, "sparsity": sparsity, **self.pruner.costs()})
        if cider > self.best and self.pruner.at_target():
            self.best, self.best_epoch, self.best_sparsity = cider, epoch, sparsity or 0.0
            self._save_checkpoint(BEST)
        if self.report:
            self.report(replace(self._progress(epoch, math.nan, 0.0, 1, cider), signs=signs))
        self._save_state()

    def _signs(self, epoch: int, captions: Mapping[str, str]) -> tuple[dict[str, float], tuple[Sign, ...]]:
        """The losses on validation photos after an epoch, and signs that the run is not learning."""
        self._set_training(False)
        probe = self.watch.probe()
        self._set_training(True)
        settings = self.config.training
        moment = Moment(
            epoch,
            last=self.step == self.steps,
            step=self.step,
            learning_rate=settings.learning_rate,
            previous_loss=validation_loss(read_metrics(self.folder)),
            sparsity=self.pruner.sparsity(),
            started=self.config.start is not None,
            likelihood=settings.objective == "cross_entropy",
        )
        losses = {"validation_loss": probe.loss, "validation_loss_swapped": probe.swapped_loss}
        return losses, self.watch.signs(probe, captions, moment)

    def _objective(self) -> Objective:
        settings = self.config.training
        fast, limit = settings.precision == "bfloat16", self.config.data.steps
        if settings.objective == "scst":
            reward = CaptionReward(
                self.train.captions,
                cider=settings.reward.cider,
                bleu4=settings.reward.bleu4,
                words=WordIds(self.vocabulary),
            )
            return SelfCritical(self.decoder, settings.reward, reward, limit, bfloat16=fast)
        if settings.distillation.teacher is not None:
            seen = self.train.taught or self.train.features
            teacher = load_teacher(settings.distillation.teacher, self.vocabulary, seen.shape[-1])
            return Distillation(teacher, seen, settings.distillation, limit, bfloat16=fast)
        return CrossEntropy()

    def _first_loss(self) -> torch.Tensor:
        """The caption loss of the first batch, with a gradient."""
        batch = next(self.batches.epoch(0))
        features = self.sight(self.train.features, batch.photos)
        return CrossEntropy().loss(self.decoder.scores, features, batch)

    def _set_training(self, mode: bool) -> None:
        self.decoder.train(mode)
        self.model.train(mode)

    def _save_checkpoint(self, name: str) -> None:
        tensors = {**plain_state(self.model), **self.carried}
        save_checkpoint(self.folder / name, tensors, {"step": self.step, **self._facts()})

    def _facts(self) -> dict[str, object]:
        facts = {"epoch": self.best_epoch, "cider": self.best, "sparsity": self.best_sparsity}
        return {**facts, "method": self.method, "settled": self.settled}

    def _progress(self, epoch: int, loss: float, speed: float, captions: int, cider: float | None = None) -> Progress:
        left = (self.steps - self.step) * captions / speed if speed else 0.0
        sparsity = self.pruner.sparsity() if self.step % 10 == 0 else None
        epochs = self.config.training.epochs
        return Progress(epoch, epochs, self.step, self.steps, loss, speed, left, sparsity, cider)

    def _learning_rate(self) -> float:
        """Of the weights, for the next step: up a line, then down half a cosine."""
        settings, done = self.config.training, self.step / self.steps
        rise, final = settings.warmup, settings.final_learning_rate
        if done < rise:
            return settings.learning_rate * min(1.0, (self.step + 1) / (rise * self.steps))
        fallen = min(1.0, (done - rise) / (1 - rise))
        return final + (settings.learning_rate - final) * (1 + math.cos(math.pi * fallen)) / 2

    def _note_blocks(self) -> None:
        """Where gates stand for blocks and where they could not, as the first line of the metrics."""
        if self.pruner.blocks != Blocks() and not read_metrics(self.folder):
            append_metrics(self.folder, {"step": 0, **asdict(self.pruner.blocks)})

    def _save_state(self) -> None:
        save_state(self.folder, self.model, self.optimiser, {"step": self.step, **self._facts()})

    def _resume(self) -> None:
        saved = read_state(self.folder, self.note)
        facts = restore_state(saved, self.folder, self.model, self.optimiser)
        self.step, self.best_epoch = int(facts["step"]), int(facts["epoch"])
        self.best, self.best_sparsity = float(facts["cider"]), float(facts["sparsity"])
        self.settled = int(facts.get("settled", 0))

    def _finished(self) -> Outcome:
        facts = read_checkpoint(self.folder / LAST).facts
        settled = int(facts.get("settled", 0))
        signs = signs_of(read_metrics(self.folder))
        return Outcome(int(facts["epoch"]), float(facts["cider"]), float(facts["sparsity"]), None, settled, signs)


@contextmanager
def _denormals_as_zero() -> Iterator[None]:
    """Numbers under 1e-38, of which saturated gates make many, cost a processor many times what others do."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _optimiser(decoder: Decoder, sight: Sight, pruner: Pruner, config: RunConfig) -> torch.optim.Adam:
    """Adam for the weights and, in groups of their own with their own rates, for the encoder's and for the gates."""
    gates = list(pruner.gates.values())
    known = set(map(id, gates))
    weights = [parameter for parameter in decoder.parameters() if id(parameter) not in known]
    settings = config.training
    usual = {"eps": settings.adam_eps, "weight_decay": settings.weight_decay}
    groups: list[dict[str, Any]] = [{"params": weights, RATE: 1.0, **usual}]
    if seen := sight.settle():
        groups.append({"params": seen, RATE: config.encoder.learning_rate / settings.learning_rate, **usual})
    if gates:
        groups.append({"params": gates, "lr": pruner.gate_learning_rate, "eps": pruner.gate_adam_eps})
    return torch.optim.Adam(groups, lr=settings.learning_rate, fused=True)
