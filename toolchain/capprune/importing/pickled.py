"""A restricted interpreter for the pickles that `torch.save` writes for tensors.

No module is imported and no object of a pickle is built. A global is looked up in a table of allowed names or rejected.
A tensor becomes a description of the position of its numbers.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, Final

from capprune.importing.described import CALLS, Global, Malformed, OrderedState, known, storage
from capprune_runtime.errors import BadModelFile

MAX_OPCODES: Final = 200_000  # a state dict takes about 20 per tensor


class _Mark:
    """Position on the stack where a pickle's tuple, list or items begin."""


def read_pickle(stream: io.BytesIO, where: str) -> Any:
    """Interpret one pickle, from the stream's position to its STOP.

    Args:
        stream: The file; its position is after the pickle on return.
        where: Its name, for messages.

    Returns:
        dict, list, tuple, str, int, float, bool, None, and `Storage`, `View` and `Coo` in the place of tensors.

    Raises:
        BadModelFile: The pickle is truncated, uses an opcode or a global that is not allowed, or misuses one. The
            message names the byte and the last name read before it.
    """
    machine = _Machine()
    place = stream.tell()
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
            place = place if position is None else position
            if count >= MAX_OPCODES:
                raise Malformed("a pickle is too long", f"at most {MAX_OPCODES:,} opcodes")
            machine.run(opcode.name, argument)
        return machine.result()
    except Malformed as error:
        raise BadModelFile(
            error.what, where=f"{where}, byte {place}{machine.near()}", expected=error.expected, found=error.found
        ) from None
    except ValueError as error:  # from pickletools: truncated, an unknown opcode, text that is not UTF-8
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
        """Return the value of the pickle."""
        if not self._stopped or len(self._stack) != 1:
            raise Malformed("a pickle does not end in one value", found=f"{len(self._stack)} values")
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
            raise Malformed("a pickle uses an opcode that tensors do not need", found=opcode)

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
            raise Malformed("a pickle refers to a value that it does not hold", found=f"memo {number}")
        self._stack.append(self._memo[number])

    def global_(self, names: str) -> None:
        self._stack.append(known(names.replace(" ", ".", 1)))

    def stack_global(self, _: Any) -> None:
        module, name = self._pop_many(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise Malformed("the name of a global is not text", found=f"{type(module).__name__}, {type(name).__name__}")
        self._stack.append(known(f"{module}.{name}"))

    def reduce(self, _: Any) -> None:
        function, arguments = self._pop_many(2)
        if not isinstance(function, Global) or function.name not in CALLS:
            found = function.name if isinstance(function, Global) else type(function).__name__
            raise Malformed("a pickle calls an object that is not callable", found=found)
        if not isinstance(arguments, tuple):
            raise Malformed(f"a call of {function.name} has no arguments", "a tuple", type(arguments).__name__)
        self._stack.append(CALLS[function.name](arguments))

    def build(self, _: Any) -> None:
        """Accept and ignore the `_metadata` of a state dict, which holds version numbers."""
        state = self._pop()
        if not (type(self._top()) is OrderedState and type(state) is dict and set(state) <= {"_metadata"}):
            raise Malformed("a pickle sets the state of an object", "only _metadata of a state dict")

    def persistent(self, _: Any) -> None:
        self._stack.append(storage(self._pop()))

    def _top(self) -> Any:
        if not self._stack or isinstance(self._stack[-1], _Mark):
            raise Malformed("a pickle takes a value from an empty stack")
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
        raise Malformed("a pickle has no mark where one is needed")

    def _extend(self, items: list[Any]) -> None:
        if type(self._top()) is not list:
            raise Malformed("a pickle appends to an object that is not a list", found=type(self._top()).__name__)
        self._stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        if type(self._top()) not in (dict, OrderedState) or len(items) % 2:
            raise Malformed("a pickle sets items of an object that is not a dict", found=type(self._top()).__name__)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise Malformed("a key of a dict is neither text nor a whole number", found=type(key).__name__)
            if key in self._stack[-1]:
                raise Malformed("a key of a dict is repeated", found=ascii(key)[:80])
            self._stack[-1][key] = value


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
