"""Pickles of plain values and uint8 arrays, read by a machine that knows nothing else.

Python's own unpickler runs what a file names, and it and numpy trust the rest: damaged bytes crash the process, take
all memory or never end. Here `pickletools` takes the file apart, and each instruction makes a number, bytes, text, a
container or an array.
"""

import pickletools
import reprlib
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.utils.reading import reason


def load_python2_pickle(path: Path) -> dict[bytes, Any]:
    """Return the dict of a pickle file; strings of Python 2 become bytes.

    Raises:
        ValueError: if the file is damaged, or holds anything but plain values and uint8 arrays.
    """
    try:
        content = _run(path.read_bytes())
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"expected a pickle of arrays and plain values, got {reason(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a pickled dict, got {type(content).__name__}")
    return {key: value.array if isinstance(value, _Array) else value for key, value in content.items()}


def _run(content: bytes) -> Any:
    """Return the value that the instructions of a pickle leave on the stack."""
    stacks: list[list[Any]] = [[]]  # each MARK begins another one
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name, stack = opcode.name, stacks[-1]
        if name == "MARK":
            stacks.append([])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _VALUES:
            stack.append(_VALUES[name](argument))
        elif name in _ACTIONS:
            if name in _FROM_MARK:
                items, stack = stacks.pop(), stacks[-1]
                stack.append(items)
            count, action = _ACTIONS[name]
            arguments = [stack.pop() for _ in range(count)]
            stack.append(action(*reversed(arguments)))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise UnpicklingError(f"the instruction {name}, which no array needs")
    return stacks[-1].pop()


class _Array:
    """An array under construction: first its place in containers, then its content."""

    array: NDArray[np.uint8] | None = None


class _Global:
    """A name that a pickle refers to. It is never imported: calling it makes what the pickle means."""

    def __init__(self, dotted: str) -> None:
        if dotted not in _MAKERS:
            raise UnpicklingError(f"{dotted.replace(' ', '.')}, which no array needs and which could run code")
        self.make = _MAKERS[dotted]


def _dtype(name: Any, *unused: Any) -> str:
    if name not in ("u1", b"u1"):
        raise UnpicklingError(f"an array of {reprlib.repr(name)}, and not of uint8")
    return "uint8"


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding != "latin1":
        raise UnpicklingError(f"encoding {encoding!r}")
    return _of_type(text, str).encode("latin1")


# What pickled arrays and Python 3's pickled bytes refer to. ndarray is only an argument of _reconstruct.
_MAKERS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray _reconstruct": lambda *unused: _Array(),
    "numpy._core.multiarray _reconstruct": lambda *unused: _Array(),
    "numpy ndarray": lambda: None,
    "numpy dtype": _dtype,
    "_codecs encode": _encode,
    "__builtin__ bytes": lambda: b"",
}


def _call(function: Any, arguments: Any) -> Any:
    return _of_type(function, _Global).make(*_of_type(arguments, tuple))


def _build(value: Any, state: Any) -> Any:
    """Give an array its content; a dtype is complete already."""
    if value != "uint8":
        _, shape, dtype, is_fortran, data = _of_type(state, tuple)
        if dtype != "uint8":
            raise UnpicklingError("an array without its dtype")
        flat = np.frombuffer(_of_type(data, bytes), np.uint8)
        _of_type(value, _Array).array = flat.reshape(_of_type(shape, tuple), order="F" if is_fortran is True else "C")
    return value


def _extend(target: Any, items: list[Any]) -> list[Any]:
    _of_type(target, list).extend(items)
    return target


def _set_items(target: Any, items: list[Any]) -> dict[Any, Any]:
    """Add keys and values to a dict. Keys that are tuples are refused: the hash of nested ones may take for ever."""
    keys, values = items[::2], items[1::2]
    if any(type(key) not in (bytes, str, int) for key in keys):
        raise UnpicklingError("a key that is neither a string nor an integer")
    _of_type(target, dict).update(zip(keys, values, strict=True))
    return target


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise UnpicklingError(f"{type(value).__name__} in a wrong place")
    return value


# Instructions whose argument is a value.
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
# What other instructions make of their argument.
_VALUES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), lambda text: text.encode("latin1")),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "GLOBAL": _Global,
}
_FROM_MARK = ("TUPLE", "LIST", "DICT", "APPENDS", "SETITEMS")  # they find one list: what lies above the last MARK
# How many values an instruction takes from the stack, and what it makes of them.
_ACTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    **{f"TUPLE{count}": (count, lambda *items: items) for count in (1, 2, 3)},
    "TUPLE": (1, tuple),
    "LIST": (1, list),
    "DICT": (1, lambda items: _set_items({}, items)),
    "APPEND": (2, lambda target, item: _extend(target, [item])),
    "APPENDS": (2, _extend),
    "SETITEM": (3, lambda target, key, value: _set_items(target, [key, value])),
    "SETITEMS": (2, _set_items),
    "STACK_GLOBAL": (2, lambda module, name: _Global(f"{_of_type(module, str)} {_of_type(name, str)}")),
    "REDUCE": (2, _call),
    "BUILD": (2, _build),
}
