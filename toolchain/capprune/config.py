"""The one typed tree that says how a run is made: read from YAML, overridden by `key=value`, saved with the run.

Unknown keys are refused with the nearest name. Numbers carry their unit in their name or description.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from capprune.plain_yaml import plain_yaml, truth_as_text, written_text
from capprune.registry import Registry
from capprune_runtime.bundle.tokens import TokensSection, radix
from capprune_runtime.errors import ConfigError, UsageError

__all__ = ["CONFIG_BYTES", "RunConfig", "load_config", "load_tree", "parse_config", "plain_yaml"]

CONFIG_BYTES = 1 << 16  # a config larger than this is not one
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")  # an owner and a name on the Hugging Face Hub
MOST_UNITS = 16_384  # in one layer; beyond it a typing error is more likely than a caption model

DEFAULT_FAMILY = "soft_attention"
DECODERS = Registry(
    "capprune.decoders",
    {
        DEFAULT_FAMILY: "capprune.models.soft_attention:SoftAttention",
        "show_tell": "capprune.models.show_tell:ShowTell",
        "up_down": "capprune.models.up_down:UpDown",
        "relation_transformer": "capprune.models.relation_transformer:RelationTransformer",
        "retention": "capprune.models.retention:Retention",
    },
    "decoder family",
)
DEFAULT_ENCODER = "efficientnet_lite0"
ENCODERS = Registry(
    "capprune.encoders",
    {
        DEFAULT_ENCODER: "capprune.models.efficientnet_lite:EfficientNetLite0",
        "efficientnet_lite1": "capprune.models.efficientnet_lite:EfficientNetLite1",
        "efficientnet_lite2": "capprune.models.efficientnet_lite:EfficientNetLite2",
        "hf": "capprune.models.huggingface:HuggingFaceEncoder",
    },
    "encoder",
)


class _Tree(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, tree: Any) -> Any:
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        return truth_as_text(tree, kinds) if isinstance(tree, dict) else tree


class DataConfig(_Tree):
    """Where photos and captions are, and which words are kept."""

    folder: Path = Field(description="folder with captions and photos, in a layout that `capprune data check` knows")
    minimum_count: int = Field(
        default=5, ge=1, description="words that occur less often in the training captions become `<unk>`"
    )
    maximum_tokens: int = Field(
        default=20,
        ge=2,
        le=500,
        description="longest caption in tokens (radix: in words); longer training captions are cut",
    )
    tokens: Literal["words", "characters", "subwords", "radix"] = Field(
        default="words", description="unit that the decoder generates at each step"
    )
    radix_base: int = Field(
        default=768, ge=2, le=65_536, description="number of digits of radix tokens; every word is two digits"
    )
    subword_pieces: int = Field(default=1000, ge=20, le=100_000, description="size of the subword vocabulary")
    subword_model: Literal["bpe", "unigram"] = Field(
        default="unigram", description="sentencepiece's algorithm for subwords"
    )
    licence: str = Field(default="unknown", description="terms of the data, written into every bundle made from it")
    limit: int | None = Field(default=None, ge=1, description="use only the first photos of each split")

    @property
    def coding(self) -> TokensSection:
        """What a token id stands for."""
        return radix(self.radix_base) if self.tokens == "radix" else TokensSection(self.tokens)

    @property
    def steps(self) -> int:
        """The longest caption in tokens of the decoder."""
        return self.maximum_tokens * self.coding.per_word


class EncoderConfig(_Tree):
    """Which encoder sees the photo, at what size, on which grid, and what of it learns."""

    name: str = Field(
        default=DEFAULT_ENCODER,
        description="encoder of the registry, or `regions` for given region features without an encoder",
    )
    source: str | None = Field(
        default=None, description="with `hf`: a folder, or an id `OWNER/NAME` on the Hugging Face Hub"
    )
    size: int = Field(
        default=224, ge=32, le=1024, description="side of the resized photo in pixels; by default the encoder's own"
    )
    mean: tuple[float, float, float] | None = Field(
        default=None, description="with `hf`: mean of red, green and blue, from 0 to 255; by default that of the source"
    )
    scale: tuple[float, float, float] | None = Field(
        default=None,
        description="with `hf`: divisor of red, green and blue after the mean is subtracted; by default that of the source",
    )
    regions: int = Field(default=100, ge=1, le=100, description="with `regions`: largest number of regions per photo")
    channels: int = Field(
        default=2048, ge=1, le=MOST_UNITS, description="with `regions`: number of channels of each region"
    )
    grid: int | None = Field(
        default=None,
        ge=1,
        le=32,
        description="pool the feature grid to this number of cells per side; by default the grid is not pooled",
    )
    pooling: Literal["average", "capsules"] = Field(
        default="average", description="how the grid becomes regions: its cells, or capsules routed from them"
    )
    capsules: int = Field(
        default=16, ge=1, le=1024, description="number of capsules, which the decoder uses as regions"
    )
    capsule_channels: int = Field(default=128, ge=1, le=4096, description="number of channels of each capsule")
    routing_iterations: int = Field(default=3, ge=1, le=10, description="rounds of routing between cells and capsules")
    train: Literal["frozen", "masks", "all"] = Field(
        default="frozen",
        description="parts of the encoder that learn with the decoder: none (features are cached), its masks, or all",
    )
    frozen_blocks: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="number of blocks at the photo's end that stay fixed, with the stem; their output is cached",
    )
    rounded: bool = Field(
        default=False,
        description="round the filters of a frozen encoder to int8 first, as the export will",
    )
    start: Path | None = Field(
        default=None, description="folder of a run whose encoder is used, frozen, instead of that of the run at `start`"
    )
    learning_rate: float = Field(
        default=1e-4, gt=0, description="learning rate of the encoder's weights; it falls like `training.learning_rate`"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_its_encoder_is(cls, tree: Any) -> Any:
        """Fill in what the encoder knows of itself, so that a saved config does not change with the encoder's source."""
        name = tree.get("name", DEFAULT_ENCODER) if isinstance(tree, dict) else None
        if not isinstance(name, str):
            return tree
        given = {key: value for key, value in tree.items() if value is not None}
        if name == "regions":  # no encoder at all
            return tree
        return {**tree, **ENCODERS.load(name, "encoder.name").defaults(given), **given}

    @property
    def title(self) -> str:
        """The encoder's name, and its source without a path."""
        source = self.without_places().source
        return self.name if source is None else f"{self.name} {source}"

    def without_places(self) -> Self:
        """Return the config with the last part of every path alone; an id on the Hub is no path."""
        source = self.source
        if source and (Path(source).is_dir() or not HUB_ID.fullmatch(source)):
            source = Path(source).name
        return self.model_copy(update={"start": self.start and Path(self.start.name), "source": source})

    @field_validator("scale")
    @classmethod
    def _divides(cls, scale: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if scale is not None and min(scale) <= 0:
            raise ValueError("numbers above 0")
        return scale


class Dropout(_Tree):
    """Shares of values that are dropped in training (not kept); a family names its own."""

    def scaled(self, factor: float) -> Self:
        """Return every rate times `factor`."""
        return self.model_copy(update={name: rate * factor for name, rate in self.model_dump().items()})


class DecoderConfig(_Tree):
    """The sizes of a decoder; each family has its own, beside its module."""

    family: str
    dropout: SerializeAsAny[Dropout] = Dropout()

    def with_dropout(self, factor: float) -> Self:
        """Return the config with every dropout rate times `factor`."""
        return self.model_copy(update={"dropout": self.dropout.scaled(factor)})

    def shape(self) -> dict[str, Any]:
        """Return all that decides the shapes of weights: everything but dropout."""
        return self.model_dump(exclude={"dropout"})


class DistillationConfig(_Tree):
    """Learning from another run's scores beside the human captions (Hinton et al., 2015)."""

    teacher: Path | None = Field(
        default=None, description="folder of a run with the same vocabulary whose scores are learned; none by default"
    )
    weight: float = Field(default=0.5, gt=0, le=1, description="share of the teacher's scores in the loss")
    temperature: float = Field(
        default=1.0, gt=0, le=20, description="divisor of all scores; the loss is multiplied by its square"
    )
    sequences: bool = Field(
        default=False, description="learn the teacher's own caption of a photo as one more of its captions"
    )


class RewardConfig(_Tree):
    """Self-critical sequence training (Rennie et al., 2017), with `<end>` as a word of the reward."""

    samples: int = Field(default=5, ge=2, le=100, description="number of sampled captions per photo")
    baseline: Literal["sample_mean", "greedy"] = Field(
        default="sample_mean",
        description="score that a sample must exceed: the mean of the other samples, or the greedy caption's",
    )
    cider: float = Field(default=1.0, ge=0, description="weight of CIDEr-D (0 to 10) in the reward")
    bleu4: float = Field(default=1.0, ge=0, description="weight of BLEU-4 (0 to 1) in the reward")
    cross_entropy: float = Field(
        default=0.0,
        ge=0,
        description="weight of the cross-entropy of human captions beside the reward; keeps captions from becoming alike",
    )


class TrainingConfig(_Tree):
    """Optimiser, schedule and batches. Adam; after the warm-up a cosine from `learning_rate` to `final_learning_rate`."""

    objective: Literal["cross_entropy", "scst"] = Field(
        default="cross_entropy",
        description="loss: the next word of human captions, or the score of whole sampled captions",
    )
    distillation: DistillationConfig = DistillationConfig()
    reward: RewardConfig = RewardConfig()

    epochs: int = Field(default=10, ge=1, description="number of passes over the training photos")
    photos_per_batch: int = Field(
        default=10, ge=1, description="number of photos per batch; a batch contains all their captions"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="learning rate of the weights after the warm-up")
    final_learning_rate: float = Field(
        default=1e-5, ge=0, description="learning rate at the end of the run; the rate falls along half a cosine"
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="share of the run in which the learning rate rises from 0"
    )
    adam_eps: float = Field(default=1e-8, gt=0, description="epsilon of Adam for the weights")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay of Adam")
    gradient_clip: float = Field(
        default=5.0, ge=0, description="largest norm of the weights' gradient; 0 means no limit"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="number format of matrix products; bfloat16 is about twice as quick where the processor supports it",
    )
    validation_photos: int = Field(
        default=500, ge=1, description="number of validation photos; their greedy CIDEr-D chooses the best epoch"
    )
    seed: int = Field(default=8888, ge=0, lt=1 << 63, description="seed of all random numbers of the run")


BlockShape = Literal["none", "1x16"]


Method = Literal["none", "supermask", "gradual", "hard", "lottery", "snip", "keep"]
Scope = Literal["blind", "uniform", "distribution"]


class GradualConfig(_Tree):
    """The cubic schedule of Zhu and Gupta (2017), in shares of the run."""

    begin: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="share of the run at which pruning begins; by default after the first epoch",
    )
    end: float = Field(
        default=0.5, gt=0, le=1, description="share of the run at which pruning ends; the rest trains the kept weights"
    )
    updates: int = Field(default=100, ge=1, description="number of updates of the masks, evenly spaced")


class PruningConfig(_Tree):
    """How weights are removed; docs/pruning.md says what to set."""

    method: Method = Field(default="none", description="pruning method; `none` trains a dense model")
    sparsity: float = Field(default=0.975, gt=0, lt=1, description="share of the prunable weights that end as zero")
    bytes: int | None = Field(
        default=None, ge=1, description="limit of the bytes of the kept weights in the bundle, instead of `sparsity`"
    )
    step_us: float | None = Field(
        default=None, gt=0, description="limit of the time of one step in microseconds, instead of `sparsity`"
    )
    costs: str = Field(
        default="x86-64",
        description="cost table of a kept weight for the limits: the name of a shipped table, or a JSON file",
    )
    scope: Scope | None = Field(
        default=None,
        description="how magnitudes of layers are compared; default `uniform` for `gradual`, otherwise `blind`",
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="layers, or `encoder` or `decoder`, that stay dense and do not count towards the target"
    )
    keep: tuple[str, ...] = Field(
        default=(), description="layers, or `encoder` or `decoder`, that keep the masks of the run at `start`"
    )
    depthwise: bool = Field(default=False, description="prune depthwise convolutions too; they have few weights")
    least_kept: float = Field(
        default=0.0, ge=0, lt=1, description="smallest share of its weights that every layer keeps"
    )
    gradual: GradualConfig = GradualConfig()
    block: BlockShape = Field(
        default="none", description="shape of the blocks of weights in `step` that are kept or removed together"
    )
    blocks: Mapping[str, BlockShape] = Field(default={}, description="`block` of single matrices of `step`, by name")
    kappa: float = Field(
        default=6000.0,
        gt=0,
        description="strength of the sparsity loss over the whole run: higher values close the masks earlier",
    )
    sparsity_weight: float | None = Field(
        default=None,
        gt=0,
        description="lambda, the weight of the sparsity loss in nats; derived from the target by default",
    )
    gate_learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="learning rate of the gates; derived from kappa and lambda by default, 100 in published recipes",
    )
    gate_adam_eps: float = Field(default=1e-2, gt=0, description="epsilon of Adam for the gates")
    # beyond 15 a sigmoid in float32 is so close to 1 that its gate would hardly ever move
    initial_gate: float = Field(
        default=5.0,
        gt=0,
        le=15,
        description="value of all gates at the start; a gate of 5 keeps its weight with probability 0.993",
    )
    tolerance: float = Field(
        default=0.05,
        gt=0,
        description="largest relative distance from the target's kept weights at which a checkpoint counts",
    )
    dropout_factor: float = Field(
        default=1 / 3,
        ge=0,
        le=1,
        description="factor of all dropout rates in pruned runs, because masks regularise too",
    )

    @field_validator("blocks", mode="before")
    @classmethod
    def _without_none(cls, value: Any) -> Any:
        """A matrix without an entry of its own follows `block`; runs of version 0.1 say so with null."""
        return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value


class RunConfig(_Tree):
    """Everything that makes a run."""

    name: str = Field(default="run", description="name of the run, used in tables and as the name of bundles")
    start: Path | None = Field(default=None, description="folder of a run whose weights this run starts from")
    data: DataConfig
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    decoder: SerializeAsAny[DecoderConfig] = Field(default_factory=lambda: decoder_config({}), validate_default=True)
    training: TrainingConfig = TrainingConfig()
    pruning: PruningConfig = PruningConfig()

    @field_validator("decoder", mode="before")
    @classmethod
    def _of_its_family(cls, value: Any) -> Any:
        return decoder_config(value) if isinstance(value, dict) else value

    def as_tree(self) -> dict[str, Any]:
        """The resolved tree in plain types, as it is saved."""
        tree: dict[str, Any] = self.model_dump(mode="json")
        return tree

    def without_places(self) -> RunConfig:
        """The config to hand on: of a path to data or to another run only the last part, the rest is nobody's business."""
        teaching = self.training.distillation
        teacher = teaching.teacher and Path(teaching.teacher.name)
        distillation = teaching.model_copy(update={"teacher": teacher})
        return self.model_copy(
            update={
                "start": self.start and Path(self.start.name),
                "data": self.data.model_copy(update={"folder": Path(self.data.folder.name)}),
                "encoder": self.encoder.without_places(),
                "training": self.training.model_copy(update={"distillation": distillation}),
            }
        )

    def as_yaml(self) -> str:
        """The resolved tree as YAML."""
        return yaml.safe_dump(self.as_tree(), sort_keys=False)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config and apply `key=value` overrides.

    Args:
        path: A YAML file; relative folders in it are relative to where the command runs.
        overrides: Such as `training.epochs=3`; the value is read as YAML, and as it is where the key holds text or a path.

    Raises:
        UsageError: If the file is not there, or an override is given twice.
        ConfigError: If it is not YAML, holds an unknown key, one key twice, or an impossible value.
    """
    require_single(overrides)
    return parse_config(load_tree(path), overrides, where=str(path))


def load_tree(path: Path) -> dict[str, Any]:
    """Read a config file as it is, its keys not yet checked; see `load_config`."""
    try:
        if path.stat().st_size > CONFIG_BYTES:
            raise ConfigError("this config is too large", where=path, expected=f"at most {CONFIG_BYTES} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(
            "there is no such config", where=path, hint="capprune train configs/flickr8k_dense.yaml"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("this config cannot be read", where=path, found=error) from error
    tree = plain_yaml(text, path, texts=_is_text)
    if not isinstance(tree, dict):
        raise ConfigError("a config is a tree of keys", where=path, found=type(tree).__name__)
    return tree


def parse_config(tree: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "config") -> RunConfig:
    """Check a tree and apply overrides, of which a later one wins; see `load_config`."""
    merged: dict[str, Any] = {**tree}
    for override in overrides:
        _override(merged, override)
    _move_dropout(merged)
    try:
        if isinstance(merged.get("decoder"), dict):
            merged["decoder"] = decoder_config(merged["decoder"], where)
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise _as_config_error(error, where) from error


def require_single(overrides: Sequence[str]) -> None:
    """Check that overrides, as a user typed them, name each key once.

    Raises:
        UsageError: A key has two values.
    """
    given: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if given.setdefault(key, value) != value:
            raise UsageError("a key is given twice", where=key, found=f"{given[key]} and {value}", hint="give it once")


def decoder_config(tree: Mapping[str, Any], where: str = "config") -> DecoderConfig:
    """Return the config of the family that `decoder.family` names.

    Args:
        tree: The keys under `decoder`.
        where: The config's file, for messages.

    Raises:
        ConfigError: There is no such family, an unknown key or an impossible value.
    """
    family = tree.get("family", DEFAULT_FAMILY)
    if not isinstance(family, str):
        raise ConfigError("impossible value for decoder.family", where=where, expected="a name", found=repr(family))
    kind: type[DecoderConfig] = DECODERS.load(family, f"{where}, decoder.family").Config
    try:
        return kind.model_validate(dict(tree))
    except ValidationError as error:
        raise _as_config_error(error, where, (("decoder",), kind)) from error


def _move_dropout(tree: dict[str, Any]) -> None:
    """`training.dropout`, as version 0.1 had it, is `decoder.dropout` now."""
    training, decoder = tree.get("training"), tree.get("decoder", {})
    if not isinstance(training, dict) or "dropout" not in training or not isinstance(decoder, dict):
        return
    if "dropout" in decoder:
        raise ConfigError("dropout is given twice", where="training.dropout", hint="keep decoder.dropout alone")
    tree["training"] = {key: value for key, value in training.items() if key != "dropout"}
    tree["decoder"] = {**decoder, "dropout": training["dropout"]}


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UsageError("an override is key=value", found=override, expected="such as training.epochs=3")
    *parents, last = key.split(".")
    for parent in parents:
        child = tree.get(parent)
        if child is not None and not isinstance(child, dict):
            raise ConfigError(f"{parent} is no tree of keys", where=override, found=repr(child))
        tree[parent] = {**(child or {})}
        tree = tree[parent]
    tree[last] = written_text(value) if _is_text(tuple(key.split("."))) else plain_yaml(value, override)


def _is_text(key: tuple[str, ...]) -> bool:
    """Whether a key of the tree holds a text or a path; what `stages` holds are trees too."""
    if "stages" in key[:1]:
        key = key[1:]
    model: type[BaseModel] = RunConfig
    for part in key[:-1]:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return False
        model = field.annotation
    field = model.model_fields.get(key[-1]) if key else None
    return field is not None and field.annotation in (str, Path, str | None, Path | None)


def _as_config_error(
    error: ValidationError, where: str, part: tuple[tuple[str, ...], type[BaseModel]] | None = None
) -> ConfigError:
    """The first fault of a tree.

    Args:
        error: As pydantic found it.
        where: The config's file.
        part: Where the tree stands in the config, and its model; the whole config if left out.
    """
    first = error.errors()[0]
    above, model = part or ((), RunConfig)
    place = ".".join(str(step) for step in (*above, *first["loc"]))
    if first["type"] == "extra_forbidden":
        names = _names_beside(model, first["loc"])
        near = difflib.get_close_matches(str(first["loc"][-1]), names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(names)}"
        return ConfigError(f"unknown key {place}", where=where, hint=hint)
    if first["type"] == "missing":
        return ConfigError(f"the key {place} is missing", where=where, hint=f"add it, or pass {place}=VALUE")
    return ConfigError(f"impossible value for {place}", where=where, expected=first["msg"], found=repr(first["input"]))


def _names_beside(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys known at the place of an unknown one."""
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return list(model.model_fields)
