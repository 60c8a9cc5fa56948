"""The names that a pickle of tensors may call, and the resulting descriptions: position and shape of each tensor.

Nothing here is checked against the file; `tensors` does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

DTYPES: Final = {  # torch's storage: NumPy's name
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.DoubleStorage": "<f8",
    "torch.LongStorage": "<i8",
}
COO: Final = "torch.sparse_coo"


@dataclass(frozen=True)
class Storage:
    """A block of numbers in the file.

    Attributes:
        key: The name of the block.
        dtype: NumPy's name of the type of its numbers.
        count: Number of its numbers.
    """

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class View:
    """A dense tensor: a part of a storage. Offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Coo:
    """A sparse tensor: the indices of its values, (dimensions, kept), and the values, (kept,)."""

    indices: View
    values: View
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Global:
    """A name that a pickle may use."""

    name: str


@dataclass(frozen=True)
class Layout:
    """The storage layout of a sparse tensor, by torch's name."""

    name: str


class OrderedState(dict[Any, Any]):
    """A separate class from `dict`, because only this one may have a state set."""


class Malformed(Exception):
    """A rule that the pickle violates; the interpreter adds the position."""

    def __init__(self, what: str, expected: object = None, found: object = None) -> None:
        super().__init__(what)
        self.what, self.expected, self.found = what, expected, found


def known(name: str) -> Global:
    """Look up a name that a pickle uses.

    Raises:
        Malformed: Tensors do not need it.
    """
    if name not in CALLS and name not in DTYPES:
        raise Malformed(
            "a pickle uses a global that tensors do not need", "only " + ", ".join((*CALLS, *DTYPES)), name[:160]
        )
    return Global(name)


def storage(identity: Any) -> Storage:
    """Read ("storage", type, key, device, count); the old format adds None or a view of the whole."""
    match identity:
        case ("storage", Global(name), str(key), str(), int(count), *rest) if name in DTYPES and rest in ([], [None]):
            return Storage(key, DTYPES[name], _whole(count, "a storage's length"))
    raise Malformed("a storage is described in a form that is not known")


def _view(arguments: tuple[Any, ...]) -> View:
    match arguments:
        case (Storage() as storage, offset, shape, strides, bool(), {}):
            found = View(storage, _whole(offset, "a tensor's offset"), _sizes(shape), _sizes(strides))
            if len(found.shape) == len(found.strides):
                return found
    raise Malformed("a tensor is described in a form that is not known")


def _parameter(arguments: tuple[Any, ...]) -> View:
    match arguments:
        case (View() as view, bool(), {}):
            return view
    raise Malformed("a parameter is described in a form that is not known")


def _sparse(arguments: tuple[Any, ...]) -> Coo:
    match arguments:
        case (Layout(name), _) if name != COO:
            raise Malformed("a sparse tensor has a layout that is not read", COO, name[:80])
        case (Layout(), (View() as indices, View() as values, shape, *rest)) if rest in ([], [True], [False]):
            return Coo(indices, values, _sizes(shape))
    raise Malformed("a sparse tensor is described in a form that is not known")


def _layout(arguments: tuple[Any, ...]) -> Layout:
    match arguments:
        case (str(name),):
            return Layout(name)
    raise Malformed("a layout has no name")


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    match arguments:
        case (tuple() | list() as sizes,):
            return _sizes(sizes)
    raise Malformed("a size is not a list of numbers")


def _ordered(arguments: tuple[Any, ...]) -> OrderedState:
    if arguments not in ((), ([],)):
        raise Malformed("a dict is not made from items")
    return OrderedState()


def _sizes(sizes: Any) -> tuple[int, ...]:
    if type(sizes) not in (tuple, list) or len(sizes) > 8:
        raise Malformed("a shape or a stride is not a short list of numbers", found=type(sizes).__name__)
    return tuple(_whole(size, "a shape or a stride") for size in sizes)


def _whole(number: Any, what: str) -> int:
    if type(number) is not int:
        raise Malformed(f"{what} is not a whole number", found=type(number).__name__)
    if not 0 <= number < 1 << 40:
        raise Malformed(f"{what} is impossible", "0 to 2^40", f"{number}"[:40])
    return number


# Everything that a pickle may call, by its name in the pickle.
CALLS: Final[Mapping[str, Callable[[tuple[Any, ...]], Any]]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor_v2": _view,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch.serialization._get_layout": _layout,
    "torch.Size": _size,
}
