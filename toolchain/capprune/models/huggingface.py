"""Vision backbones of Hugging Face as photo encoders: a folder that `save_pretrained` wrote, or an id on the Hub.

The features are the last hidden state: the last feature map of a convolutional network, or the patch tokens of a transformer
without its class and register tokens. `transformers` is imported when such an encoder is built. Weights are read only from
safetensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from math import isqrt
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from capprune.config.encoder import EncoderConfig
from capprune.models.encoder import Encoder
from capprune.models.huggingface_files import preprocessing_defaults, reading
from capprune.models.shapes import shapes_only
from capprune_exporters.quiet import quiet
from capprune_runtime.errors import BundleError, ConfigError, MissingExtra

UNUSED = ("pooler.", "head.", "classifier.")  # prefixes of unused tensors and modules, which come after the features
ATTENTION = "capprune_plain"  # name of `_attention` in transformers' registry
NEVER_NEGATIVE = ("relu", "relu6")  # activations
INTERPOLATE = "interpolate_pos_encoding"  # option of transformers' vision transformers for photos of another size


class _Grid(NamedTuple):
    """Layout of the last hidden state for photos of one size."""

    channels: int
    cells: int
    tokens: int | None  # number of tokens before a transformer's patches; None for a feature map


class _ZeroPaddedMaxPool(nn.Module):
    """Max pooling of non-negative numbers, padded with zeros instead of -inf, which model files must not contain."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        assert isinstance(pool.padding, int)
        self.padding = pool.padding
        self.pool = nn.MaxPool2d(pool.kernel_size, pool.stride, ceil_mode=pool.ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        for axis in (2, 3):
            beside = torch.zeros_like(x.narrow(axis, 0, self.padding))
            x = torch.cat([beside, x, beside], axis)
        out: Tensor = self.pool(x)
        return out


class HuggingFaceEncoder(Encoder):
    """The vision backbone of `encoder.source`.

    Args:
        config: The encoder's config, with `source`, `mean` and `scale`.

    Raises:
        MissingExtra: `transformers` is not installed.
        ConfigError: The source is not a vision backbone.
        MissingFile: The source does not exist.
    """

    published_by_package = False
    patches: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        source = _source(config)
        assert config.mean is not None and config.scale is not None  # ensured by `defaults`
        self.mean, self.scale, self._size, self._source = config.mean, config.scale, config.size, source
        self.channels, self._cells, self._tokens = _grid(source, config.size)
        self.stride = -(-config.size // self._cells)
        with reading(source), quiet():
            kind, settings = _backbone(source)
            self.network = kind(settings, **_without_pooler(kind))
        if getattr(settings, "hidden_act", None) in NEVER_NEGATIVE:
            _pad_with_zeros(self.network)
        self.register_buffer("patches", _selection(self._cells**2, self._tokens or 0), persistent=False)
        self._settings: str = settings.to_json_string()
        self._fix_positions()
        self.network.register_load_state_dict_post_hook(lambda *_: self._fix_positions())
        self.eval()

    @classmethod
    def defaults(cls, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return size, mean and scale from the source's preprocessor_config.json; see `Encoder.defaults`."""
        source = tree.get("source")
        if not isinstance(source, str) or not source:
            raise ConfigError(
                "encoder.name hf needs a source",
                where="encoder.source",
                expected="a folder that save_pretrained wrote, or an id on the Hugging Face Hub",
                found=source,
            )
        return preprocessing_defaults(source, tree)

    @classmethod
    def pretrained(cls, config: EncoderConfig) -> Self:
        """Return the network with all weights of its source; see `Encoder.pretrained`."""
        source = _source(config)
        encoder = cls(config)
        with reading(source), quiet():
            kind, settings = _backbone(source)
            found, notes = kind.from_pretrained(
                source, config=settings, use_safetensors=True, output_loading_info=True, **_without_pooler(kind)
            )
        missing = [name for name in notes["missing_keys"] if not name.startswith(UNUSED)]
        if missing or notes["mismatched_keys"]:
            raise BundleError(
                f"these are not the weights of a {settings.model_type}",
                where=source,
                found=f"without {', '.join(sorted(missing)[:3])}" if missing else "tensors of other shapes",
            )
        encoder.network.load_state_dict(found.float().state_dict())
        return encoder

    def before(self, photo: Tensor, blocks: int) -> Tensor:
        """Return the photos themselves; this network cannot be split."""
        return photo

    def after(self, x: Tensor, blocks: int) -> Tensor:
        """Return the grid `(B, F, G, G)` of photos `(B, 3, S, S)`."""
        found: Tensor = _call(self.network, x)
        if self._tokens is None:
            return found
        if self._tokens:
            found = self.patches @ found  # a matrix product: no form of slicing passes both verifiers
        return found.transpose(1, 2).reshape(-1, self.channels, self._cells, self._cells)

    def cells(self, size: int) -> int:
        """Return G for photos of `size` pixels a side."""
        return self._cells if size == self._size else _grid(self._source, size).cells

    def identity(self) -> str:
        """Return the network's settings as JSON."""
        return self._settings

    def train(self, mode: bool = True) -> Self:
        """See `Encoder.train`. The network's own dropout is always off."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.Dropout) or type(module).__name__.endswith("DropPath"):
                module.eval()
        return self

    @torch.no_grad()
    def _fix_positions(self) -> None:
        """Compute the position embeddings for this photo size once, because neither runtime resizes them like transformers."""
        for module in self.network.modules():
            positions, resize = getattr(module, "position_embeddings", None), getattr(type(module), INTERPOLATE, None)
            if resize is None or not isinstance(positions, Tensor):
                continue
            others = positions.shape[1] - isqrt(positions.shape[1]) ** 2  # class and distillation tokens
            like = positions.new_zeros(1, self._cells**2 + others, positions.shape[-1])
            fixed = resize(module, like, self._size, self._size)
            if fixed is not positions:
                module.__dict__[INTERPOLATE] = partial(_constant, fixed)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Compute attention of queries, keys and values `(B, heads, N, d)` with operators of both runtimes, without a mask."""
    scale = settings.get("scaling") or query.shape[-1] ** -0.5
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    weights = torch.softmax(scores if mask is None else scores + mask, -1)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


def _pad_with_zeros(network: nn.Module) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d) and type(child.padding) is int and child.padding and child.dilation == 1:
                setattr(module, name, _ZeroPaddedMaxPool(child))


def _selection(patches: int, tokens: int) -> Tensor:
    """Return a matrix `(patches, tokens + patches)` that removes the first tokens: zeros beside an identity."""
    return torch.cat([torch.zeros(patches, tokens), torch.eye(patches)], 1)


def _constant(value: Tensor, *_: object) -> Tensor:
    return value


def _source(config: EncoderConfig) -> str:
    assert config.source is not None  # ensured by `defaults`
    return config.source


def _transformers() -> Any:
    try:
        with quiet():
            import transformers
    except ImportError as error:
        raise MissingExtra(
            "encoders from Hugging Face need transformers",
            found=error,
            expected="the package transformers",
            hint="pip install 'capprune[hf]'",
        ) from error
    return transformers


def _backbone(source: str) -> tuple[Any, Any]:
    """Return the class of the network at `source`, and its settings."""
    transformers = _transformers()
    settings = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    kind = transformers.MODEL_MAPPING.get(type(settings), None)
    if kind is None or isinstance(kind, tuple) or getattr(kind, "main_input_name", None) != "pixel_values":
        raise ConfigError(
            "this is not a vision backbone of transformers",
            where=f"encoder.source {source}",
            expected="a network that takes pixel_values, such as resnet, mobilenet_v2, convnext, vit or dinov2",
            found=f"model_type {settings.model_type}",
        )
    transformers.AttentionInterface.register(ATTENTION, _attention)
    settings._attn_implementation = ATTENTION
    return kind, settings


def _without_pooler(kind: Any) -> dict[str, bool]:
    name = "add_pooling_layer"
    return {name: False} if name in inspect.signature(kind.__init__).parameters else {}


def _call(network: Any, photo: Tensor) -> Tensor:
    forward: Callable[..., Any] = network.forward
    resizes = {INTERPOLATE: True} if INTERPOLATE in inspect.signature(forward).parameters else {}
    found: Tensor = network(photo, **resizes).last_hidden_state
    return found


@lru_cache(maxsize=64)
def _grid(source: str, size: int) -> _Grid:
    """Return the grid for photos of `size` pixels, computed from shapes only."""
    with reading(source), quiet():
        kind, settings = _backbone(source)
        try:
            with shapes_only(), torch.inference_mode():
                shape = _call(kind(settings, **_without_pooler(kind)).eval(), torch.zeros(1, 3, size, size)).shape
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise _refused(source, size, settings, error) from error
    if len(shape) == 4 and shape[2] == shape[3]:
        return _Grid(shape[1], shape[2], None)
    if len(shape) != 3:
        raise _refused(source, size, settings, f"features of shape {tuple(shape)}")
    patch = getattr(settings, "patch_size", None)
    side = size // patch if isinstance(patch, int) and 0 < patch <= size else 0
    if not 0 < shape[1] - side**2 < 2 * side + 1:  # a class token and registers before the patches
        side = isqrt(shape[1])
    return _Grid(shape[2], side, shape[1] - side**2)


def _refused(source: str, size: int, settings: Any, found: object) -> ConfigError:
    return ConfigError(
        f"this {settings.model_type} has no grid of features for photos of {size} pixels",
        where=f"encoder.source {source}",
        expected="a feature map (F, G, G), or patch tokens after at most a few other tokens",
        found=" ".join(str(found).split())[:200],
    )
