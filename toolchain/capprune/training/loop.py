"""The training loop: captions of photos, from cached features or a trained encoder, dense or with pruning."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from capprune.config.methods import StartsFrom
from capprune.config.run import RunConfig
from capprune.models.caption_model import build_decoder
from capprune.models.search import greedy
from capprune.pruning.blocks import Blocks
from capprune.pruning.state import plain_state
from capprune.pruning.supermask import Supermask
from capprune.training.batches import Batch, Batches, BatchSource
from capprune.training.encoder import Sight
from capprune.training.finished import finished_outcome, is_finished
from capprune.training.hardware import PRODUCTS, slow_precision
from capprune.training.health import Moment, Sign, Watch, signs_of, validation_loss
from capprune.training.interrupt import StopRequest, postponed_signals
from capprune.training.launch import Place
from capprune.training.memory import keep_freed_memory
from capprune.training.object_labels import named_too, without_labels
from capprune.training.objectives import CrossEntropy, Distillation, Objective, SelfCritical
from capprune.training.outcome import Health, Outcome, Progress, Quality, Report, Split
from capprune.training.ranks import Ranks, own_share
from capprune.training.resume import Note, Timer, is_unfinished, read_state, restore_state, save_state
from capprune.training.reward import CaptionReward, WordIds
from capprune.training.run import (
    BEST,
    LAST,
    alone_in,
    append_metrics,
    finish_run,
    read_metrics,
    remove_leftovers,
    rewind_metrics,
    save_checkpoint,
    start_run,
)
from capprune.training.start import carried_encoder, make_pruner, read_parent
from capprune.training.step import Stepper, make_optimiser
from capprune.training.teachers import load_teachers
from capprune_runtime.bundle.vocabulary import Vocabulary
from capprune_runtime.errors import CapPruneError

LOG_EVERY = 50  # steps between two lines of metrics.jsonl
CAPTION_BATCH = 64  # photos per batch of captions in validation


class Trainer:
    """One run, from its first step or from where it was interrupted.

    Args:
        config: The run's config.
        folder: The run's folder. It is made if missing, and an unfinished run in it is resumed.
        vocabulary: Vocabulary of the captions.
        train: The training photos.
        validation: The validation photos, which decide the best epoch.
        quality: Scores captions of `validation`.
        health: Returns more facts about the same captions for metrics.jsonl.
        report: Called after every step.
        note: Called with lines for the user, such as about a damaged state.
        subwords: Content of the sentencepiece model for the run folder, if tokens are subwords.
        place: Position of this process. All processes make a trainer of the same data.

    Raises:
        UnreachableTarget: The run can never reach its sparsity. Raised before anything is written.
        UsageError: The folder holds something else.
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
        place: Place | None = None,
    ) -> None:
        self.config, self.folder, self.vocabulary = config, Path(folder), vocabulary
        self.train, self.validation, self.quality, self.report = train, validation, quality, report
        self.health, self.note = health, note
        settings = config.training
        self.ranks = Ranks(settings, place or Place())
        parent = read_parent(config, vocabulary)
        self.batches: BatchSource = (
            train.batches
            if train.batches is not None
            else Batches(
                train.captions, photos_per_batch=settings.photos_per_batch, seed=settings.seed, weights=train.weights
            )
        )
        self.steps = settings.epochs * len(self.batches)
        self.sight = Sight(config.encoder)
        torch.manual_seed(settings.seed)  # after the encoder, which draws random weights before it loads its own
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
        for module in (self.model, self.decoder):  # buffers of the decoder are part of both
            module.to(self.ranks.device)
        self.sight.move_to(self.ranks.device)
        self.objective, labels = named_too(self._objective(), config, train.objects, self.model)
        self.optimiser = make_optimiser(self.decoder, self.sight, self.pruner, config, labels)
        self.watch = Watch(self.decoder, self.sight, train.captions, validation.features, validation.captions)
        self.step, self.best, self.best_epoch, self.best_sparsity, self.settled = 0, -math.inf, -1, 0.0, 0
        self.ranks.first_does(lambda: start_run(self.folder, config, vocabulary, subwords))

    def run(self) -> Outcome:
        """Train to the end.

        Returns:
            The results of the best checkpoint.

        Raises:
            UsageError: Another process trains this run now.
            BundleError: The saved state of an interrupted run is broken.
            CapPruneError: The loss is no longer finite, or the disk is full.
            KeyboardInterrupt, SystemExit: On Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, after the state has been saved.
        """
        ended = finished_outcome(self.folder) if self.ranks.first and is_finished(self.folder) else None
        if (ended := self.ranks.share(ended)) is not None:
            return ended
        keep_freed_memory()
        with ExitStack() as stack:
            stack.enter_context(self.ranks.together())
            self.ranks.first_does(lambda: stack.enter_context(alone_in(self.folder)))
            request = stack.enter_context(postponed_signals())
            stack.enter_context(_denormals_as_zero())
            self._begin()
            seconds = self._train(request)
            self._save_checkpoint(LAST)
            self.ranks.first_does(lambda: finish_run(self.folder))
            request.obey()
        usual = float(np.median(seconds)) if seconds else None
        signs = self.ranks.share(signs_of(read_metrics(self.folder)))
        return Outcome(self.best_epoch, self.best, self.best_sparsity, usual, self.settled, signs)

    def _begin(self) -> None:
        """Resume from the saved state, or make the choices that are possible before the first step."""
        if self.ranks.share(is_unfinished(self.folder)):
            self._resume()
        else:
            self.pruner.begin(self._first_loss if self.pruner.needs_loss else None)
        self.ranks.first_does(self._tidy)

    def _tidy(self) -> None:
        remove_leftovers(self.folder)
        rewind_metrics(self.folder, self.step)
        self._note_blocks()
        slow = slow_precision(self.ranks.precision, self.ranks.device)
        if slow is not None and self.note:
            self.note(slow)

    def _train(self, request: StopRequest) -> list[float]:
        """Run the remaining epochs. Returns the seconds of each epoch that was run completely."""
        stepper = Stepper(
            self.config,
            self.folder,
            ranks=self.ranks,
            decoder=self.decoder,
            sight=self.sight,
            pruner=self.pruner,
            objective=self.objective,
            optimiser=self.optimiser,
            photos=self.train.features,
            learning_rate=self._learning_rate,
        )
        durations = []
        for epoch in range(self.step // len(self.batches), self.config.training.epochs):
            first, began = self.step % len(self.batches), time.monotonic()
            self._run_epoch(epoch, first, stepper, request)
            seconds = time.monotonic() - began
            self._end_epoch(epoch, seconds)
            durations += [seconds] if first == 0 else []
        return durations

    def captions(self, split: Split, limit: int | None = None) -> dict[str, str]:
        """Generate greedy captions of a split's first photos. The processes share the batches."""
        self._set_training(False)
        names = list(split.names[:limit])
        found = {}
        with torch.inference_mode():
            for start in own_share(range(0, len(names), CAPTION_BATCH), self.ranks.place):
                some = np.arange(start, min(start + CAPTION_BATCH, len(names)))
                with Supermask.one_sample():
                    encoded = self.decoder.encode(self.sight(split.features, some))
                    limit, no_repeat = self.config.data.steps, self.config.search.no_repeat_ngram
                    tokens = greedy(self.decoder, encoded, limit, no_repeat_ngram=no_repeat).tokens
                found.update({names[i]: self.vocabulary.caption(ids) for i, ids in zip(some, tokens, strict=True)})
        self._set_training(True)
        parts = self.ranks.gather(found)
        return {name: parts[number // CAPTION_BATCH % len(parts)][name] for number, name in enumerate(names)}

    def _run_epoch(self, epoch: int, first: int, stepper: Stepper, request: StopRequest) -> None:
        self._set_training(True)
        began, captions, timer = time.monotonic(), 0, Timer(self.config.training.save_interval)
        batches = self.batches.epoch(epoch, first)
        while (batch := self._next(batches, request)) is not None:
            if request.signal is not None:  # before a step: after the last one the epoch must end first
                self._save_state()
                request.obey()
            loss, sparsity_loss = stepper.take(self.step, batch)
            self.step += 1
            captions += len(batch.inputs)
            if self.step % LOG_EVERY == 0 and self.ranks.first:
                self._log(epoch, loss, sparsity_loss)
            if timer.is_due():
                self._save_state()
                timer.restart()
            if self.report:
                self.report(self._progress(epoch, loss, captions / (time.monotonic() - began), len(batch.inputs)))

    def _next(self, batches: Iterator[Batch], request: StopRequest) -> Batch | None:
        """Return the next batch; None after the last. A stop signal or an error of any process stops all at one step."""
        batch, error = None, None
        try:
            batch = next(batches, None)
        except CapPruneError as raised:
            error = raised
        asked = self.ranks.agree(request.signal or 0, error)
        request.signal = request.signal or asked or None
        return batch

    def _log(self, epoch: int, loss: float, sparsity_loss: float) -> None:
        line = {"step": self.step, "epoch": epoch, "loss": loss, "learning_rate": self._learning_rate(self.step)}
        line |= self.objective.facts()
        sparsity = self.pruner.sparsity()
        append_metrics(
            self.folder, line if sparsity is None else {**line, "sparsity": sparsity, "sparsity_loss": sparsity_loss}
        )

    def _end_epoch(self, epoch: int, seconds: float) -> None:
        if self.step == self.steps and self.best_epoch < 0:  # every run ends with a model
            self.settled = self.pruner.reach_target()
        self.ranks.check_equal(self._digest() if self.ranks.place.world > 1 else "")
        captions = self.captions(self.validation, self.config.training.validation_photos)
        judged = self.ranks.first_does(lambda: self._judge(epoch, seconds, captions))
        cider, signs = self.ranks.share(judged) or (0.0, ())
        if cider > self.best and self.pruner.at_target():
            self.best, self.best_epoch, self.best_sparsity = cider, epoch, self.pruner.sparsity() or 0.0
            self._save_checkpoint(BEST)
        if self.report:
            self.report(replace(self._progress(epoch, math.nan, 0.0, 1, cider), signs=signs))
        self._save_state()

    def _judge(self, epoch: int, seconds: float, captions: Mapping[str, str]) -> tuple[float, tuple[Sign, ...]]:
        """Score the validation captions and write the epoch's line of the metrics."""
        cider = self.quality(captions)
        sparsity = self.pruner.sparsity()
        line: dict[str, object] = {"step": self.step, "epoch": epoch, "cider": cider, "seconds": seconds}
        line |= {"health": dict(self.health(captions))} if self.health else {}
        losses, signs = self._signs(epoch, captions)
        line |= {**losses, "warnings": [sign.as_json() for sign in signs]}
        line |= {"settled": self.settled} if self.settled else {}
        append_metrics(self.folder, line if sparsity is None else {**line, "sparsity": sparsity, **self.pruner.costs()})
        return cider, signs

    def _signs(self, epoch: int, captions: Mapping[str, str]) -> tuple[dict[str, float], tuple[Sign, ...]]:
        """Return the losses on validation photos after an epoch, and the signs that the model does not learn."""
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
        products, limit = PRODUCTS[self.ranks.precision], self.config.data.steps
        if settings.objective == "scst":
            reward = CaptionReward(
                self.train.captions,
                cider=settings.reward.cider,
                bleu4=settings.reward.bleu4,
                repetition=settings.reward.repetition,
                words=WordIds(self.vocabulary),
            )
            return SelfCritical(self.decoder, settings.reward, reward, limit, products=products)
        if settings.distillation.teachers:
            folders, words = settings.distillation.teachers, self.config.data.maximum_tokens
            teachers = load_teachers(folders, self.vocabulary, self.train, words, self.ranks.device)
            no_repeat = self.config.search.no_repeat_ngram
            return Distillation(teachers, settings.distillation, limit, no_repeat_ngram=no_repeat, products=products)
        return CrossEntropy()

    def _first_loss(self) -> torch.Tensor:
        """Return the caption loss of the first batch, with a gradient."""
        batch = next(self.batches.epoch(0))
        features = self.sight(self.train.features, batch.photos)
        return CrossEntropy().loss(self.decoder.scores, features, batch)

    def _set_training(self, mode: bool) -> None:
        self.decoder.train(mode)
        self.model.train(mode)

    def _save_checkpoint(self, name: str) -> None:
        def save() -> None:
            tensors = {**without_labels(plain_state(self.model)), **self.carried}
            save_checkpoint(self.folder / name, tensors, {"step": self.step, **self._facts()})

        self.ranks.first_does(save)

    def _digest(self) -> str:
        """Return a digest of the weights and gates, to compare processes."""
        digest = hashlib.sha256()
        for value in plain_state(self.model).values():
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:12]

    def _facts(self) -> dict[str, object]:
        facts = {"epoch": self.best_epoch, "cider": self.best, "sparsity": self.best_sparsity}
        return {**facts, "method": self.method, "settled": self.settled}

    def _progress(self, epoch: int, loss: float, speed: float, captions: int, cider: float | None = None) -> Progress:
        left = (self.steps - self.step) * captions / speed if speed else 0.0
        sparsity = self.pruner.sparsity() if self.step % 10 == 0 else None
        epochs = self.config.training.epochs
        return Progress(epoch, epochs, self.step, self.steps, loss, speed, left, sparsity, cider)

    def _learning_rate(self, step: int) -> float:
        """Return the learning rate of the weights after `step` steps: linear warm-up, then half a cosine."""
        settings, done = self.config.training, step / self.steps
        rise, final = settings.warmup, settings.final_learning_rate
        if done < rise:
            return settings.learning_rate * min(1.0, (step + 1) / (rise * self.steps))
        fallen = min(1.0, (done - rise) / (1 - rise))
        return final + (settings.learning_rate - final) * (1 + math.cos(math.pi * fallen)) / 2

    def _note_blocks(self) -> None:
        """Write where gates are for blocks, and where that was not possible, as the first line of the metrics."""
        if self.pruner.blocks != Blocks() and not read_metrics(self.folder):
            append_metrics(self.folder, {"step": 0, **asdict(self.pruner.blocks)})

    def _save_state(self) -> None:
        """Write the state. It is the same in every process, except noise that follows from seed and step."""
        if self.ranks.first:
            facts = {"step": self.step, **self._facts(), "processes": self.ranks.place.world}
            save_state(self.folder, self.model, self.optimiser, facts, self.ranks.scaler)

    def _resume(self) -> None:
        saved = self.ranks.share(self.ranks.first_does(lambda: read_state(self.folder, self.note)))
        assert saved is not None
        facts = restore_state(saved, self.folder, self.model, self.optimiser, self.ranks.scaler)
        self.step, self.best_epoch = int(facts["step"]), int(facts["epoch"])
        self.best, self.best_sparsity = float(facts["cider"]), float(facts["sparsity"])
        self.settled = int(facts.get("settled", 0))
        before, now = int(facts.get("processes", 1)), self.ranks.place.world
        if before != now and self.note:
            self.note(
                f"this run was started with {before} processes and is resumed with {now}: sums are rounded differently"
            )


@contextmanager
def _denormals_as_zero() -> Iterator[None]:
    """Flush numbers below 1e-38 to zero. Saturated gates make many of them, and they slow a processor down greatly."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
