"""The pickles that `torch.save` writes for tensors, interpreted by a machine that knows nothing else.

No module is imported and no object of a pickle is built. A global is a name that is looked up in `_CALLS` or refused, and a
tensor is a description of where its numbers lie: `Storage`, `View`, `Coo`. What they describe is checked by `tensors`.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from capprune_runtime.errors import BadModelFile

MAX_OPCODES: Final = 200_000  # a state dict takes about 20 a tensor
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
        count: How many there are.
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
    """A sparse tensor: the places of its values, (dimensions, kept), and the values, (kept,)."""

    indices: View
    values: View
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """A name that a pickle may use."""

    name: str


@dataclass(frozen=True)
class _Layout:
    name: str


class _OrderedDict(dict[Any, Any]):
    """Told apart from `dict`, because only this one has a state that may be set."""


class _Mark:
    """Where a pickle's tuple, list or items begin on the stack."""


class _Malformed(Exception):
    """A rule that the pickle breaks; the machine adds where."""

    def __init__(self, what: str, expected: object = None, found: object = None) -> None:
        super().__init__(what)
        self.what, self.expected, self.found = what, expected, found


def read_pickle(stream: io.BytesIO, where: str) -> Any:
    """Interpret one pickle, from the stream's position to its STOP.

    Args:
        stream: The file; left behind the pickle.
        where: Its name, for messages.

    Returns:
        dict, list, tuple, str, int, float, bool, None, and `Storage`, `View` and `Coo` in the place of tensors.

    Raises:
        BadModelFile: The pickle is cut off, uses an opcode or a global that is not allowed, or misuses one. The message
            names the byte and the last name read before it.
    """
    machine = _Machine()
    place = stream.tell()
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
            place = place if position is None else position
            if count >= MAX_OPCODES:
                raise _Malformed("a pickle is too long", f"at most {MAX_OPCODES:,} opcodes")
            machine.run(opcode.name, argument)
        return machine.result()
    except _Malformed as error:
        raise BadModelFile(
            error.what, where=f"{where}, byte {place}{machine.near()}", expected=error.expected, found=error.found
        ) from None
    except ValueError as error:  # pickletools: cut off, an unknown opcode, text that is not UTF-8
        raise BadModelFile(
            "a pickle cannot be read", where=f"{where}, byte {place}", found=str(error)[:120], hint="it may be cut off"
        ) from None


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._last_name = ""
        self._stopped = False

    def near(self) -> str:
        """Return the name of the tensor read last, for messages."""
        return f", near {self._last_name[:80]!a}" if self._last_name else ""

    def result(self) -> Any:
        """Return what the pickle describes."""
        if not self._stopped or len(self._stack) != 1:
            raise _Malformed("a pickle does not end in one value", found=f"{len(self._stack)} values")
        return self._stack[0]

    def run(self, opcode: str, argument: Any) -> None:
        """Interpret one opcode."""
        if opcode in _IGNORED:
            return
        if opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode]())
        elif opcode in _LITERALS:
            if isinstance(argument, str) and "." in argument and not argument.startswith("torch."):
                self._last_name = argument
            self._stack.append(argument)
        elif opcode in _TUPLES:
            self._stack.append(tuple(self._pop_many(_TUPLES[opcode])))
        elif opcode in _MACHINE:
            _MACHINE[opcode](self, argument)
        else:
            raise _Malformed("a pickle uses an opcode that tensors do not need", found=opcode)

    def stop(self, _: Any) -> None:
        self._stopped = True

    def tuple_(self, _: Any) -> None:
        self._stack.append(tuple(self._to_mark()))

    def append(self, _: Any) -> None:
        item = self._pop()
        self._extend([item])

    def appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def set_item(self, _: Any) -> None:
        self._update(self._pop_many(2))

    def set_items(self, _: Any) -> None:
        self._update(self._to_mark())

    def put(self, number: int) -> None:
        self._memo[number] = self._top()

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def get(self, number: int) -> None:
        if number not in self._memo:
            raise _Malformed("a pickle refers to a value that it does not hold", found=f"memo {number}")
        self._stack.append(self._memo[number])

    def global_(self, names: str) -> None:
        self._stack.append(_known(names.replace(" ", ".", 1)))

    def stack_global(self, _: Any) -> None:
        module, name = self._pop_many(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise _Malformed("a global's name is no text", found=f"{type(module).__name__}, {type(name).__name__}")
        self._stack.append(_known(f"{module}.{name}"))

    def reduce(self, _: Any) -> None:
        function, arguments = self._pop_many(2)
        if not isinstance(function, _Global) or function.name not in _CALLS:
            found = function.name if isinstance(function, _Global) else type(function).__name__
            raise _Malformed("a pickle calls something that cannot be called", found=found)
        if not isinstance(arguments, tuple):
            raise _Malformed(f"a call of {function.name} has no arguments", "a tuple", type(arguments).__name__)
        self._stack.append(_CALLS[function.name](arguments))

    def build(self, _: Any) -> None:
        """Accept the `_metadata` of a state dict, which holds version numbers, and leave it out."""
        state = self._pop()
        if not (type(self._top()) is _OrderedDict and type(state) is dict and set(state) <= {"_metadata"}):
            raise _Malformed("a pickle sets the state of an object", "only _metadata of a state dict")

    def persistent(self, _: Any) -> None:
        self._stack.append(_storage(self._pop()))

    def _top(self) -> Any:
        if not self._stack or isinstance(self._stack[-1], _Mark):
            raise _Malformed("a pickle takes a value that is not there")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _pop_many(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _to_mark(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[place], _Mark):
                items = self._stack[place + 1 :]
                del self._stack[place:]
                return items
        raise _Malformed("a pickle has no mark where one is needed")

    def _extend(self, items: list[Any]) -> None:
        if type(self._top()) is not list:
            raise _Malformed("a pickle appends to something that is no list", found=type(self._top()).__name__)
        self._stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        if type(self._top()) not in (dict, _OrderedDict) or len(items) % 2:
            raise _Malformed("a pickle sets items of something that is no dict", found=type(self._top()).__name__)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise _Malformed("a key of a dict is neither text nor a whole number", found=type(key).__name__)
            if key in self._stack[-1]:
                raise _Malformed("a key of a dict stands twice", found=ascii(key)[:80])
            self._stack[-1][key] = value


def _known(name: str) -> _Global:
    if name not in _CALLS and name not in DTYPES:
        raise _Malformed(
            "a pickle uses a global that tensors do not need", "only " + ", ".join((*_CALLS, *DTYPES)), name[:160]
        )
    return _Global(name)


def _storage(identity: Any) -> Storage:
    """Read ("storage", type, key, device, count), with None or a view of the whole behind it in the old format."""
    match identity:
        case ("storage", _Global(name), str(key), str(), int(count), *rest) if name in DTYPES and rest in ([], [None]):
            return Storage(key, DTYPES[name], _whole(count, "a storage's length"))
    raise _Malformed("a storage is described in a form that is not known")


def _view(arguments: tuple[Any, ...]) -> View:
    match arguments:
        case (Storage() as storage, offset, shape, strides, bool(), {}):
            found = View(storage, _whole(offset, "a tensor's offset"), _sizes(shape), _sizes(strides))
            if len(found.shape) == len(found.strides):
                return found
    raise _Malformed("a tensor is described in a form that is not known")


def _parameter(arguments: tuple[Any, ...]) -> View:
    match arguments:
        case (View() as view, bool(), {}):
            return view
    raise _Malformed("a parameter is described in a form that is not known")


def _sparse(arguments: tuple[Any, ...]) -> Coo:
    match arguments:
        case (_Layout(name), _) if name != COO:
            raise _Malformed("a sparse tensor has a layout that is not read", COO, name[:80])
        case (_Layout(), (View() as indices, View() as values, shape, *rest)) if rest in ([], [True], [False]):
            return Coo(indices, values, _sizes(shape))
    raise _Malformed("a sparse tensor is described in a form that is not known")


def _layout(arguments: tuple[Any, ...]) -> _Layout:
    match arguments:
        case (str(name),):
            return _Layout(name)
    raise _Malformed("a layout has no name")


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    match arguments:
        case (tuple() | list() as sizes,):
            return _sizes(sizes)
    raise _Malformed("a size is no list of numbers")


def _ordered(arguments: tuple[Any, ...]) -> _OrderedDict:
    if arguments not in ((), ([],)):
        raise _Malformed("a dict is made of something else")
    return _OrderedDict()


def _sizes(sizes: Any) -> tuple[int, ...]:
    if type(sizes) not in (tuple, list) or len(sizes) > 8:
        raise _Malformed("a shape or a stride is no short list of numbers", found=type(sizes).__name__)
    return tuple(_whole(size, "a shape or a stride") for size in sizes)


def _whole(number: Any, what: str) -> int:
    if type(number) is not int:
        raise _Malformed(f"{what} is no whole number", found=type(number).__name__)
    if not 0 <= number < 1 << 40:
        raise _Malformed(f"{what} is impossible", "0 to 2^40", f"{number}"[:40])
    return number


# Everything that a pickle may call, by the name that the pickle uses.
_CALLS: Final[Mapping[str, Callable[[tuple[Any, ...]], Any]]] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor_v2": _view,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch.serialization._get_layout": _layout,
    "torch.Size": _size,
}

_IGNORED: Final = frozenset({"PROTO", "FRAME"})
_CONSTANTS: Final[Mapping[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}
_LITERALS: Final = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"})
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MACHINE: Final[Mapping[str, Callable[[_Machine, Any], None]]] = {
    "STOP": _Machine.stop,
    "TUPLE": _Machine.tuple_,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
