"""The run folder: the files that training writes, and how they are read back into a model.

config.yaml           the resolved config
vocabulary.txt        one word or piece of a word per line
subwords.model        the sentencepiece model, if tokens are subwords
weights.safetensors   the best checkpoint by validation CIDEr (among those at the target, when pruned)
last.safetensors      the last checkpoint
metrics.jsonl         one line every few steps and every epoch
state/                the last two states, from which the run resumes; removed when the run is finished
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from capprune.config.encoder import EncoderConfig
from capprune.config.reading import load_config
from capprune.config.run import RunConfig
from capprune.file_lock import locked
from capprune.models.caption_model import CaptionModel, GivenRegions, GridEncoder, build_decoder
from capprune.models.family import Decoder
from capprune.models.shapes import shapes_only
from capprune.pruning.blocks import find_blocks
from capprune.pruning.state import GATE, MASK
from capprune.pruning.supermask import hard_mask
from capprune.training.encoder import encoder_network, of_decoder, of_encoder
from capprune.training.run_checks import check_facts, check_masks, check_sizes, metrics_lines, require_facts
from capprune.training.slim_tensors import widened
from capprune_runtime.atomic import PARTIAL, atomic_file, atomic_folder, raise_if_unwritable, write_bytes, write_text
from capprune_runtime.bundle.preprocessing import REGIONS, PreprocessingSection, RegionsSection
from capprune_runtime.bundle.vocabulary import Vocabulary, read_vocabulary
from capprune_runtime.errors import BundleError, MissingFile, UsageError

CONFIG, VOCABULARY, METRICS, SUBWORDS = "config.yaml", "vocabulary.txt", "metrics.jsonl", "subwords.model"
BEST, LAST, STATE = "weights.safetensors", "last.safetensors", "state/state.safetensors"
FACTS = "__metadata__"  # key of the facts in the header of a safetensors file
NEXT_STATE, PREVIOUS_STATE = "state/next.safetensors", "state/previous.safetensors"
LOCK = "state/lock"  # held by the process that trains this run, and released when it ends


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name and facts about them, as strings."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """The common part of runs that were read with or without a model.

    Attributes:
        folder: The run's folder.
        config: The resolved config of its training.
        vocabulary: The decoder's vocabulary.
        masks: For every pruned weight which entries are kept; empty for a dense run.
        facts: Facts of the checkpoint: epoch, step, CIDEr.
        widths: For every pruned weight how many adjacent entries of a row share a gate.
    """

    folder: Path
    config: RunConfig
    vocabulary: Vocabulary
    masks: Mapping[str, Tensor]
    facts: Mapping[str, str]
    widths: Mapping[str, int]

    @property
    def method(self) -> str:
        """The method that made the masks, also for a run that kept those of another run."""
        return self.facts.get("method", self.config.pruning.method)


@dataclass(frozen=True)
class SavedRun(Run):
    """A run with the content of its files.

    Attributes:
        weights: The trained weights, masks not applied. Includes the encoder's, under `encoder.`, if it was trained.
    """

    weights: Mapping[str, Tensor]

    def pruned(self) -> dict[str, Tensor]:
        """Return the weights that have masks, with zeros in the pruned entries."""
        return {name: self.weights[name] * mask for name, mask in self.masks.items()}


@dataclass(frozen=True)
class LoadedRun(Run):
    """A trained model with masks applied, ready to generate captions or to export.

    Attributes:
        model: The model in evaluation mode, on the CPU; pruned weights are zeros.
    """

    model: CaptionModel

    def without_repeats(self, no_repeat_ngram: int | None) -> LoadedRun:
        """Return the run with another `search.no_repeat_ngram`, or as it is for None."""
        if no_repeat_ngram is None:
            return self
        search = self.config.search.model_copy(update={"no_repeat_ngram": no_repeat_ngram})
        return replace(self, config=self.config.model_copy(update={"search": search}))

    @property
    def preprocessing(self) -> PreprocessingSection | RegionsSection:
        """Preprocessing of a photo for the encoder."""
        encoder = self.config.encoder
        if encoder.name == REGIONS:
            return RegionsSection(encoder.regions, encoder.channels)
        seen = self.model.encoder
        assert isinstance(seen, GridEncoder)  # all other encoders have precomputed regions
        return PreprocessingSection(size=encoder.size, mean=seen.network.mean, scale=seen.network.scale)

    @property
    def prunable(self) -> int:
        """Number of prunable weights: every matrix of the decoder, and the masked matrices of the encoder."""
        decoder = self.model.decoder
        own = sum(decoder.get_submodule(name).get_parameter("weight").numel() for name in decoder.roles())
        return own + sum(mask.numel() for mask in of_encoder(self.masks).values())

    @property
    def kept(self) -> int:
        """Number of prunable weights that are kept."""
        return self.prunable - sum(mask.numel() - int(mask.sum()) for mask in self.masks.values())


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    """Write a checkpoint as safetensors, atomically. Equal tensors and facts give equal bytes."""
    with atomic_file(path) as temporary:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            temporary,
            metadata={key: str(value) for key, value in facts.items()},
        )
        _sort_facts(temporary)


def _sort_facts(path: Path) -> None:
    """Sort the facts in the header; safetensors writes them in a different order in each process."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header[FACTS] = dict(sorted(header.get(FACTS, {}).items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > length:
            raise ValueError(f"the header of {path} takes {len(text)} bytes instead of {length}")
        file.seek(8)
        file.write(text.ljust(length))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        MissingFile: It does not exist.
        BundleError: It is not safetensors, is truncated or holds values that are not finite.
    """
    if not path.is_file():
        raise MissingFile(
            "this run has no such checkpoint",
            where=path,
            hint="let the training reach the end of an epoch, at its target if it prunes",
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            facts = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise BundleError("this checkpoint cannot be read", where=path, found=error) from error
    check_facts(facts, path)
    for name, value in tensors.items():
        # as float32, in which float64 may overflow
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise BundleError("this checkpoint holds values that are not finite", where=f"{path}: {name}")
    return Checkpoint(tensors, facts)


def load_run(folder: Path, checkpoint: str = BEST) -> LoadedRun:
    """Read a run into a model.

    Args:
        folder: The run's folder.
        checkpoint: `BEST` or `LAST`.

    Raises:
        UsageError: There is no such folder.
        ConfigError: Its config is broken.
        BundleError: A file is missing or broken, or does not fit the others.
    """
    found = read_run(folder, checkpoint)
    tensors = {**found.weights, **found.pruned()}
    try:
        check_sizes(found.config, found.vocabulary.decoder_size, of_decoder(tensors))
        decoder = build_decoder(found.config, found.vocabulary.decoder_size)
        decoder.load_state_dict(of_decoder(tensors))
        encoder = _encoder(found.config.encoder, tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise _unfit(folder / checkpoint, found.config, found.vocabulary, error) from error
    model = CaptionModel(encoder, decoder).eval()
    return LoadedRun(found.folder, found.config, found.vocabulary, found.masks, found.facts, found.widths, model)


def _encoder(config: EncoderConfig, tensors: Mapping[str, Tensor]) -> GridEncoder | GivenRegions:
    return GivenRegions(config) if config.name == REGIONS else GridEncoder(config, encoder_network(config, tensors))


def read_run(folder: Path, checkpoint: str = BEST) -> SavedRun:
    """Read a run's files without making a model; see `load_run`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError("there is no such run", where=folder, hint="capprune train CONFIG --out RUN makes one")
    if not (folder / CONFIG).is_file():
        raise MissingFile("this folder is not a run", where=folder, expected=f"a {CONFIG} in it")
    config = load_config(folder / CONFIG)
    vocabulary = read_vocabulary(folder / VOCABULARY, config.data.coding)
    saved = read_checkpoint(folder / checkpoint)
    require_facts(saved.facts, folder / checkpoint)
    gates = {name.removesuffix(GATE): gate for name, gate in saved.tensors.items() if name.endswith(GATE)}
    masks = {name.removesuffix(MASK): mask for name, mask in saved.tensors.items() if name.endswith(MASK)}
    try:
        plain = {name: value for name, value in saved.tensors.items() if not name.endswith((GATE, MASK))}
        weights, slim = widened(plain, saved.facts)
        masks |= slim
        with shapes_only():
            shape = build_decoder(config, vocabulary.decoder_size)
        blocks = find_blocks(shape, config.pruning).widths if gates or masks else {}
        widths = {name: blocks.get(name.removesuffix(".weight"), 1) for name in (*gates, *masks)}
        masks |= {name: hard_mask(gate, weights[name], widths[name]) for name, gate in gates.items()}
        check_masks(masks, weights)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError, RuntimeError) as error:
        raise _unfit(folder / checkpoint, config, vocabulary, error) from error
    return SavedRun(folder, config, vocabulary, masks, saved.facts, widths, weights)


def _unfit(path: Path, config: RunConfig, vocabulary: Vocabulary, error: Exception) -> BundleError:
    return BundleError(
        "the weights do not fit the config and the vocabulary of this run",
        where=path,
        expected=f"a {config.decoder.family} decoder of {config.decoder.shape()} "
        f"with {vocabulary.decoder_size} {vocabulary.coding.kind}",
        found=" ".join(str(error).split()),
    )


def load_teacher(folder: Path, vocabulary: Vocabulary, features: int, words: int | None = None) -> Decoder:
    """Return the decoder of a teacher's run with masks applied, in evaluation mode.

    Args:
        folder: The teacher's run.
        vocabulary: Vocabulary of the student's run.
        features: F, channels of a region.
        words: The longest caption of the student's run, if the teacher's own captions may be shorter.

    Raises:
        UsageError: There is no such run, or its vocabulary is different.
        BundleError: It is broken.
    """
    found = read_run(folder)
    if found.vocabulary != vocabulary:
        raise UsageError(
            "the teacher has other words than this run",
            where=folder,
            expected=f"{len(vocabulary)} {vocabulary.coding.kind} of the same captions",
            found=f"{len(found.vocabulary)} {found.vocabulary.coding.kind}",
            hint=f"data.vocabulary={folder} uses the teacher's words",
        )
    tensors = of_decoder({**found.weights, **found.pruned()})
    try:
        check_sizes(found.config, vocabulary.decoder_size, tensors, features)
        longest = max(found.config.data.maximum_tokens, words or 0)
        data = found.config.data.model_copy(update={"maximum_tokens": longest})
        config = found.config.model_copy(update={"data": data})  # a family that appends to its state has room for it
        decoder = build_decoder(config, vocabulary.decoder_size, features=features)
        decoder.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise _unfit(folder, found.config, vocabulary, error) from error
    return decoder.eval()


def start_run(folder: Path, config: RunConfig, vocabulary: Vocabulary, subwords: bytes | None = None) -> None:
    """Write config and vocabulary of a new run. An unfinished run of the same config is left as it is, to be resumed.

    Args:
        folder: The run's folder.
        config: The run's config.
        vocabulary: Vocabulary of its captions.
        subwords: Content of the sentencepiece model, if tokens are subwords.

    Raises:
        UsageError: The folder holds something else, or a run of another config.
    """
    if (folder / CONFIG).is_file():
        if not load_config(folder / CONFIG).trains_like(config):
            raise UsageError(
                "this folder holds a run of another config",
                where=folder,
                hint="choose another --out, or remove it first",
            )
        if read_vocabulary(folder / VOCABULARY, config.data.coding) != vocabulary:
            raise BundleError(
                "the captions have changed since this run began", where=folder, hint="choose another --out"
            )
        return
    with atomic_folder(folder) as new:
        write_text(new / CONFIG, config.as_yaml())
        write_text(new / VOCABULARY, vocabulary.as_text())
        if subwords is not None:
            write_bytes(new / SUBWORDS, subwords)


@contextmanager
def alone_in(folder: Path, doing: str = "training this run") -> Iterator[None]:
    """Lock a run, or a folder of runs, against other processes while the block runs.

    Args:
        folder: An existing folder.
        doing: What the process does, for the message to others.

    Raises:
        UsageError: Another process holds the lock.
    """
    busy = UsageError(f"another process is {doing}", where=folder, hint="wait for it, or choose another --out")
    with locked(folder / LOCK, busy=busy):
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove incomplete files of a killed process; no other process may use the run."""
    for name in (BEST, LAST, METRICS, NEXT_STATE):
        place = folder / name
        for path in place.parent.glob(f".{place.name}.*{PARTIAL}"):
            path.unlink(missing_ok=True)


def finish_run(folder: Path) -> None:
    """Remove the files that only an unfinished run needs."""
    shutil.rmtree((folder / STATE).parent, ignore_errors=True)


def append_metrics(folder: Path, line: Mapping[str, object]) -> None:
    """Append one line to metrics.jsonl.

    Raises:
        CapPruneError: The disk is full.
    """
    try:
        with (folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise_if_unwritable(error, folder / METRICS)
        raise


def read_metrics(folder: Path) -> list[dict[str, object]]:
    """Return the lines of metrics.jsonl, up to the first that a killed process or a full disk truncated."""
    return metrics_lines(folder / METRICS) if (folder / METRICS).is_file() else []


def rewind_metrics(folder: Path, step: int) -> None:
    """Remove the lines after `step`, which a resumed run writes again."""
    if (folder / METRICS).is_file():
        kept = [line for line in read_metrics(folder) if int(str(line.get("step", 0))) <= step]
        write_text(folder / METRICS, "".join(json.dumps(line) + "\n" for line in kept))
