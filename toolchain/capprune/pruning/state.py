"""A pruned model's state under plain names: `X.weight`, `X.weight.gate`, `X.weight.mask`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

GATE, MASK = ".gate", ".mask"
_PLAIN = {
    ".parametrizations.weight.original": ".weight",
    ".parametrizations.weight.0.gate": ".weight" + GATE,
    ".parametrizations.weight.0.mask": ".weight" + MASK,
}


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state with plain names instead of those of parametrizations."""
    return {_plain(name): value for name, value in model.state_dict().items()}


def load_plain_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the result of `plain_state` into a model with the same gates and masks."""
    own = {_plain(name): name for name in model.state_dict()}
    model.load_state_dict({own.get(name, name): value for name, value in state.items()})


def _plain(name: str) -> str:
    for ending, plain in _PLAIN.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + plain
    return name
