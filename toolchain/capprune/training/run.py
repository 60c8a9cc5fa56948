"""The run folder: what training leaves behind, and the way back from it to a model.

config.yaml           the resolved config
vocabulary.txt        one word or piece of a word a line
subwords.model        the sentencepiece model, where tokens are subwords
weights.safetensors   the best checkpoint by validation CIDEr (among those at the target, when pruned)
last.safetensors      the last one
metrics.jsonl         one line every few steps and every epoch
state/                the last two states, with all that is needed to go on; removed when the run is finished
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from capprune.pruning.blocks import find_blocks
from capprune.pruning.state import GATE, MASK
from capprune.pruning.supermask import hard_mask
from capprune.training.encoder import encoder_network, of_decoder, of_encoder
from capprune.training.run_checks import check_facts, check_sizes, metrics_lines
from capprune.training.slim_tensors import widened
from capprune_runtime.atomic import PARTIAL, atomic_file, atomic_folder, raise_if_unwritable, write_bytes, write_text
from capprune_runtime.bundle.preprocessing import REGIONS, PreprocessingSection, RegionsSection
from capprune_runtime.bundle.vocabulary import Vocabulary, read_vocabulary
from capprune_runtime.errors import BundleError, MissingFile, UsageError

CONFIG, VOCABULARY, METRICS, SUBWORDS = "config.yaml", "vocabulary.txt", "metrics.jsonl", "subwords.model"
BEST, LAST, STATE = "weights.safetensors", "last.safetensors", "state/state.safetensors"
FACTS = "__metadata__"  # key of the facts in the header of a safetensors file
NEXT_STATE, PREVIOUS_STATE = "state/next.safetensors", "state/previous.safetensors"
LOCK = "state/lock"  # held by the process that trains this run, and gone with it


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name and a few facts about them, as strings."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """What is known of a run however much of it is read.

    Attributes:
        folder: The run.
        config: As resolved when it was trained.
        vocabulary: Of the decoder.
        masks: For every pruned weight which entries are kept; empty for a dense run.
        facts: Of the checkpoint: epoch, step, CIDEr.
        widths: For every pruned weight how many neighbours in a row share a gate.
    """

    folder: Path
    config: RunConfig
    vocabulary: Vocabulary
    masks: Mapping[str, Tensor]
    facts: Mapping[str, str]
    widths: Mapping[str, int]

    @property
    def method(self) -> str:
        """The method that made the masks; a run that keeps another's remembers it."""
        return self.facts.get("method", self.config.pruning.method)


@dataclass(frozen=True)
class SavedRun(Run):
    """A run as its files have it.

    Attributes:
        weights: As trained: what masks remove is still there. The encoder's, under `encoder.`, where it has learned.
    """

    weights: Mapping[str, Tensor]

    def pruned(self) -> dict[str, Tensor]:
        """The weights that have masks, with zeros where these are closed."""
        return {name: self.weights[name] * mask for name, mask in self.masks.items()}


@dataclass(frozen=True)
class LoadedRun(Run):
    """A trained model, masks applied, ready to caption or to export.

    Attributes:
        model: In evaluation mode, on the CPU; closed gates are zeros.
    """

    model: CaptionModel

    @property
    def preprocessing(self) -> PreprocessingSection | RegionsSection:
        """How a photo becomes the encoder's input."""
        encoder = self.config.encoder
        if encoder.name == REGIONS:
            return RegionsSection(encoder.regions, encoder.channels)
        seen = self.model.encoder
        assert isinstance(seen, GridEncoder)  # all else has its regions given
        return PreprocessingSection(size=encoder.size, mean=seen.network.mean, scale=seen.network.scale)

    @property
    def prunable(self) -> int:
        """Weights that pruning could remove: every matrix of the decoder, and what is masked of the encoder."""
        decoder = self.model.decoder
        own = sum(decoder.get_submodule(name).get_parameter("weight").numel() for name in decoder.roles())
        return own + sum(mask.numel() for mask in of_encoder(self.masks).values())

    @property
    def kept(self) -> int:
        """Weights that are left of them."""
        return self.prunable - sum(mask.numel() - int(mask.sum()) for mask in self.masks.values())


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    """Write a checkpoint as safetensors, whole or not at all; equal tensors and facts make equal bytes."""
    with atomic_file(path) as temporary:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            temporary,
            metadata={key: str(value) for key, value in facts.items()},
        )
        _sort_facts(temporary)


def _sort_facts(path: Path) -> None:
    """Sort the facts in the header, which safetensors writes in another order in each process."""
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
        MissingFile: If it is not there.
        BundleError: If it is not safetensors, is cut short or holds values that are not finite.
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
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BundleError("this checkpoint holds values that are not finite", where=f"{path}: {name}")
    return Checkpoint(tensors, facts)


def load_run(folder: Path, checkpoint: str = BEST) -> LoadedRun:
    """Read a run back into a model.

    Args:
        folder: Of the run.
        checkpoint: `BEST` or `LAST`.

    Raises:
        UsageError: If there is no such folder.
        ConfigError: If its config is broken.
        BundleError: If a file is missing, broken, or does not fit the others.
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
    """Read a run's files, without a model; see `load_run`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError("there is no such run", where=folder, hint="capprune train CONFIG --out RUN makes one")
    if not (folder / CONFIG).is_file():
        raise MissingFile("this folder is not a run", where=folder, expected=f"a {CONFIG} in it")
    config = load_config(folder / CONFIG)
    vocabulary = read_vocabulary(folder / VOCABULARY, config.data.coding)
    saved = read_checkpoint(folder / checkpoint)
    gates = {name.removesuffix(GATE): gate for name, gate in saved.tensors.items() if name.endswith(GATE)}
    masks = {name.removesuffix(MASK): mask for name, mask in saved.tensors.items() if name.endswith(MASK)}
    try:
        plain = {name: value for name, value in saved.tensors.items() if not name.endswith((GATE, MASK))}
        weights, slim = widened(plain, saved.facts)
        masks |= slim
        with torch.device("meta"):
            shape = build_decoder(config, vocabulary.decoder_size)
        blocks = find_blocks(shape, config.pruning).widths if gates or masks else {}
        widths = {name: blocks.get(name.removesuffix(".weight"), 1) for name in (*gates, *masks)}
        masks |= {name: hard_mask(gate, weights[name], widths[name]) for name, gate in gates.items()}
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


def load_teacher(folder: Path, vocabulary: Vocabulary, features: int) -> Decoder:
    """The decoder of a run that another one learns from, masks applied, in evaluation mode.

    Args:
        folder: Of the teacher's run.
        vocabulary: Of the run that learns.
        features: F, channels of a region.

    Raises:
        UsageError: If there is no such run, or it has other words.
        BundleError: If it is broken.
    """
    found = read_run(folder)
    if found.vocabulary != vocabulary:
        raise UsageError(
            "the teacher has other words than this run",
            where=folder,
            expected=f"{len(vocabulary)} {vocabulary.coding.kind} of the same captions",
            found=f"{len(found.vocabulary)} {found.vocabulary.coding.kind}",
        )
    tensors = of_decoder({**found.weights, **found.pruned()})
    try:
        check_sizes(found.config, vocabulary.decoder_size, tensors, features)
        decoder = build_decoder(found.config, vocabulary.decoder_size, features=features)
        decoder.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise _unfit(folder, found.config, vocabulary, error) from error
    return decoder.eval()


def start_run(folder: Path, config: RunConfig, vocabulary: Vocabulary, subwords: bytes | None = None) -> None:
    """Write config and vocabulary of a new run; an unfinished run of the same config is left to be resumed.

    Args:
        folder: Of the run.
        config: Of the run.
        vocabulary: Of its captions.
        subwords: Content of the sentencepiece model, where tokens are subwords.

    Raises:
        UsageError: If the folder holds something else, or a run of another config.
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
    """Keep other processes from a run, or a folder of runs, while the block runs.

    Args:
        folder: That must be there.
        doing: What another process would be at, for the message.

    Raises:
        UsageError: If another process is at it now.
    """
    busy = UsageError(f"another process is {doing}", where=folder, hint="wait for it, or choose another --out")
    with locked(folder / LOCK, busy=busy):
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process had begun to write; nobody else may be at the run."""
    for name in (BEST, LAST, METRICS, NEXT_STATE):
        place = folder / name
        for path in place.parent.glob(f".{place.name}.*{PARTIAL}"):
            path.unlink(missing_ok=True)


def finish_run(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    shutil.rmtree((folder / STATE).parent, ignore_errors=True)


def append_metrics(folder: Path, line: Mapping[str, object]) -> None:
    """Add one line to metrics.jsonl.

    Raises:
        CapPruneError: If the disk is full.
    """
    try:
        with (folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise_if_unwritable(error, folder / METRICS)
        raise


def read_metrics(folder: Path) -> list[dict[str, object]]:
    """The lines of metrics.jsonl, up to the first that a killed process or a full disk cut off."""
    return metrics_lines(folder / METRICS) if (folder / METRICS).is_file() else []


def rewind_metrics(folder: Path, step: int) -> None:
    """Drop the lines after `step`, which a resumed run will write again."""
    if (folder / METRICS).is_file():
        kept = [line for line in read_metrics(folder) if int(str(line.get("step", 0))) <= step]
        write_text(folder / METRICS, "".join(json.dumps(line) + "\n" for line in kept))
