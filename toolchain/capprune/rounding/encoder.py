"""Round the filters of an encoder to 16 values each layer, from the photo on, and keep what the layers give.

Each layer is fitted to what the layers before it give after their own rounding, rounded with `codebook.coded`, and then
scaled and shifted, channel by channel, to give what the original layer gives. Nothing is trained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capprune.models.caption_model import normalised
from capprune.models.encoder import Encoder
from capprune.pruning.layers import belongs
from capprune.rounding.codebook import Floats, coded, fitted, int8_filters, stepped

PHOTOS_AT_ONCE = 16
POSITIONS = 60_000  # of a feature map that a layer is fitted to: small maps need all photos, large ones a few
LEAST_PHOTOS = 64
ROWS = 128  # at most, positions of each photo
LARGEST_GAIN = 2.0  # of a channel, and its inverse the smallest
Progress = Callable[[int, int], None]


class _Reached(Exception):
    """The layer has run; the rest of the network is not needed."""


@dataclass(frozen=True)
class _Site:
    """A convolution, in the original network and the rounded one, and where it starts to be computed.

    Attributes:
        name: Its name in the network.
        start: Number of blocks whose output is kept for this layer and others on maps of the same size.
        norm: Name of the batch norm that reads its output, if any.
        positions: Least number of positions of an output in its block, in one photo.
    """

    name: str
    start: int
    norm: str | None
    positions: int


@torch.no_grad()
def coded_filters(
    network: Encoder, photos: npt.NDArray[np.uint8], progress: Progress | None = None, *, bits: float | None = None
) -> Encoder:
    """Return a copy of the network whose filters have 16 values in each layer; depthwise filters are rounded to int8.

    With `bits`, each filter has multiples of a step instead, see `codebook.stepped`. Behind the batch norm, the step is a
    number of 8 bits beside its exponent, so that the steps of a file take few bytes too.

    Zeros of a pruned filter stay zero. The copy's batch norms, or biases, are adjusted as well.

    Args:
        network: The encoder; it is not changed.
        photos: `(B, S, S, 3)`, about a thousand of those that it is meant for.
        progress: Is called with the number of finished layers and of all layers.
        bits: Entropy of the numbers of the steps, bits per weight.

    Raises:
        ValueError: There are no photos.
    """
    if not len(photos):
        raise ValueError("rounding an encoder to 16 values needs photos")
    before = network.eval()
    after: Encoder = copy.deepcopy(before)
    sites = _sites(before, normalised(photos[:1], network.mean, network.scale))
    start, shown, seen = -1, list[Tensor](), list[Tensor]()
    for place, site in enumerate(sites):
        if site.start != start:
            start = site.start
            chunks = [normalised(some, network.mean, network.scale) for some in _enough(photos, site.positions)]
            shown, seen = [before.before(one, start) for one in chunks], [after.before(one, start) for one in chunks]
        _round_layer(site, before, after, shown, seen, bits)
        if progress:
            progress(place + 1, len(sites))
    return after


def _enough(photos: npt.NDArray[np.uint8], positions: int) -> list[npt.NDArray[np.uint8]]:
    """Return as many photos as the layer needs, spread over all, in chunks."""
    number = min(len(photos), max(LEAST_PHOTOS, -(-POSITIONS // positions)))
    chosen = photos[np.linspace(0, len(photos) - 1, number).astype(int)]
    return [chosen[first : first + PHOTOS_AT_ONCE] for first in range(0, number, PHOTOS_AT_ONCE)]


def _sites(network: Encoder, photo: Tensor) -> list[_Site]:
    """Return the convolutions in the order in which they run."""
    names = {module: name for name, module in network.named_modules()}
    ran: dict[nn.Module, int] = {}
    made_by: dict[int, tuple[Tensor, nn.Module]] = {}
    norms: dict[nn.Module, str] = {}

    def convolved(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        ran[module] = output[0, 0].numel()
        made_by[id(output)] = (output, module)

    def normed(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if id(given[0]) in made_by:
            norms[made_by[id(given[0])][1]] = names[module]

    hooks = [
        module.register_forward_hook(convolved if isinstance(module, nn.Conv2d) else normed)
        for module in names
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        network(photo)
    finally:
        for hook in hooks:
            hook.remove()
    block = {module: _block(network, names[module]) for module in ran}
    least = {one: min(ran[module] for module in ran if block[module] == one) for one in block.values()}
    first = {positions: min(one for one in least if least[one] == positions) for positions in least.values()}
    return [
        _Site(names[module], first[least[block[module]]], norms.get(module), least[block[module]]) for module in ran
    ]


def _block(network: Encoder, layer: str) -> int:
    """Return the number of blocks before the one that a layer is in."""
    below = (network.frozen_layers(blocks) for blocks in range(network.stages + 1))
    return max(blocks for blocks, layers in enumerate(below) if not any(belongs(layer, one) for one in layers))


def _round_layer(
    site: _Site, before: Encoder, after: Encoder, shown: list[Tensor], seen: list[Tensor], bits: float | None
) -> None:
    layer, rounded = before.get_submodule(site.name), after.get_submodule(site.name)
    assert isinstance(layer, nn.Conv2d) and isinstance(rounded, nn.Conv2d)
    weights = layer.weight.flatten(1).double().numpy()
    if layer.groups > 1:
        rounded.weight.copy_(torch.from_numpy(int8_filters(weights)).view_as(layer.weight))
        return
    inputs = _moments(layer, _inputs(before, site, shown), _inputs(after, site, seen))
    kept = weights != 0
    wanted = fitted(weights, inputs.same, inputs.crossed)
    norm = None if site.norm is None else after.get_submodule(site.norm)
    if bits is None:
        found, _ = coded(wanted, inputs.same, None if kept.all() else kept)
        gain, shift = _match(weights, found, inputs)
    else:
        found, steps = stepped(wanted, inputs.same, None if kept.all() else kept, bits=bits)
        gain, _ = _match(weights, found, inputs)
        gain *= _short(steps * gain * _factors(norm, len(steps))) / (steps * gain * _factors(norm, len(steps)))
        shift = weights @ inputs.original - gain * (found @ inputs.changed)
    if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
        norm.running_mean.sub_(torch.from_numpy(shift).to(norm.running_mean))
    elif rounded.bias is not None:
        rounded.bias.add_(torch.from_numpy(shift).to(rounded.bias))
    else:
        gain[:] = 1.0  # with no place for the shift
    rounded.weight.copy_(torch.from_numpy(found * gain[:, None]).view_as(layer.weight))


def _factors(norm: nn.Module | None, channels: int) -> Floats:
    """Return what a batch norm multiplies each channel with, without its sign."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None:
        return np.ones(channels)
    scale = torch.ones(channels) if norm.weight is None else norm.weight
    found: Floats = (scale / torch.sqrt(norm.running_var + norm.eps)).abs().double().numpy()
    return np.where(found > 0, found, 1.0)


def _short(values: Floats) -> Floats:
    """Return the nearest numbers of 8 bits beside the exponent, as bfloat16 has them."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent)


def _inputs(network: Encoder, site: _Site, chunks: list[Tensor]) -> Iterator[Tensor]:
    """Return the layer's input for each chunk, which is the output of the blocks before the layer's own."""
    found: list[Tensor] = []

    def reached(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append(given[0])
        raise _Reached

    for chunk in chunks:
        hook = network.get_submodule(site.name).register_forward_pre_hook(reached)
        try:
            network.after(chunk, site.start)
        except _Reached:
            pass
        finally:
            hook.remove()
        yield found.pop()


@dataclass(frozen=True)
class _Moments:
    """Means over positions of photos: of the original inputs, the changed ones `(I,)`, and of their products `(I, I)`."""

    original: Floats
    changed: Floats
    same: Floats
    crossed: Floats


def _moments(layer: nn.Conv2d, shown: Iterator[Tensor], seen: Iterator[Tensor]) -> _Moments:
    size = layer.weight[0].numel()
    sums, rows = [np.zeros(size), np.zeros(size), np.zeros((size, size)), np.zeros((size, size))], 0
    for original, changed in zip(shown, seen, strict=True):
        there, here = _patches(layer, original), _patches(layer, changed)
        for total, part in zip(sums, (there.sum(0), here.sum(0), here.T @ here, there.T @ here), strict=True):
            total += part.double().numpy()
        rows += len(here)
    return _Moments(*(total / rows for total in sums))


def _match(weights: Floats, found: Floats, inputs: _Moments) -> tuple[Floats, Floats]:
    """Return the gain and the shift of each channel that bring the rounded outputs nearest to the original ones."""
    wanted, given = weights @ inputs.original, found @ inputs.changed
    spread = ((found @ inputs.same) * found).sum(1) - given**2
    common = ((weights @ inputs.crossed) * found).sum(1) - wanted * given
    gain = np.where(spread > 0, common / np.maximum(spread, np.finfo(np.float32).tiny), 1.0)
    gain = np.clip(gain, 1 / LARGEST_GAIN, LARGEST_GAIN)
    return gain, wanted - gain * given


def _patches(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return what the filters are multiplied with at some positions of each photo, `(positions, I)`."""
    if layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.padding in ((0, 0), "valid", "same"):
        rows = x.flatten(2)
    else:
        x = F.pad(x, layer._reversed_padding_repeated_twice)
        rows = F.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride)
    step = -(-rows.shape[-1] // ROWS)
    return rows[..., :: step + (step % 2 == 0)].transpose(1, 2).flatten(0, 1)  # odd, so that no column is preferred
