"""Pickles of plain values and numpy arrays, read by a machine that knows nothing else.

Python's own runs what a file names, and it and numpy trust the rest: damaged bytes kill the process, take all memory or
never end. Here `pickletools` takes the file apart, and each instruction makes a number, bytes, text, a container or an
array of numbers.
"""

from __future__ import annotations

import math
import pickletools
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.utils.reading import reason

# Numbers that lie in a file as they lie in memory.
DTYPE = re.compile(r"[biuf][1248]")
MAX_DIMS = 8
RECONSTRUCT, NDARRAY, MAKE_DTYPE, ENCODE, BYTES = "reconstruct", "ndarray", "dtype", "encode", "bytes"
# Names that pickled arrays and Python 3's pickled bytes need. They are never imported.
NAMES = {
    "numpy.core.multiarray _reconstruct": RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": RECONSTRUCT,
    "numpy ndarray": NDARRAY,
    "numpy dtype": MAKE_DTYPE,
    "_codecs encode": ENCODE,
    "__builtin__ bytes": BYTES,
}


def load_python2_pickle(path: Path) -> dict[bytes, Any]:
    """Return the dict of a pickle file; strings of Python 2 become bytes.

    Raises:
        ValueError: if the file is damaged, or holds anything but plain values and arrays.
    """
    try:
        content = _Machine().run(path.read_bytes())
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"expected a pickle of arrays and plain values, got {reason(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a pickled dict, got {type(content).__name__}")
    return {key: value.array if isinstance(value, _Array) else value for key, value in content.items()}


class _Name(str):
    """A global name, by its value in `NAMES`."""


class _Dtype:
    """A dtype under construction: ``f8``, then its byte order."""

    def __init__(self, name: Any) -> None:
        self.name = _ascii(name)
        self.order = "|"

    def build(self, state: Any) -> None:
        self.order = _ascii(state[1])

    def numpy(self) -> np.dtype[Any]:
        if not DTYPE.fullmatch(self.name) or self.order not in ("|", "<", ">", "="):
            raise UnpicklingError(f"an array of {self.order}{self.name}")
        return np.dtype(f"{self.order}{self.name}")


class _Array:
    """An array under construction: first its place in containers, then its content."""

    array: NDArray[Any] | None = None

    def build(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        kind = dtype.numpy()
        sides = _of_type(shape, tuple)
        if len(sides) > MAX_DIMS or not all(type(side) is int and 0 <= side < 2**31 for side in sides):
            raise UnpicklingError(f"an array whose shape is {reprlib.repr(sides)}")
        if len(_of_type(data, bytes)) != math.prod(shape) * kind.itemsize:
            raise UnpicklingError(f"{len(data)} bytes for an array of {math.prod(shape)} {kind}")
        self.array = np.ndarray(shape, kind, data, order="F" if is_fortran is True else "C")


class _Machine:
    """The stack machine of the pickle format, with the instructions that plain values and arrays need."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(content):
            self._step(opcode.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _VALUES:
            stack.append(_VALUES[name](argument))
        elif name in _PUT:
            self._memo[len(self._memo) if argument is None else argument] = stack[-1]
        elif name in _GET:
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in _FROM_MARK:
            stack.append(_FROM_MARK[name](self._pop_mark()))
        elif name in _FROM_TOP:
            stack.append(tuple(self._pop(_FROM_TOP[name])))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop_mark() if name == "APPENDS" else self._pop(1)
            _of_type(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop_mark() if name == "SETITEMS" else self._pop(2)
            _of_type(stack[-1], dict).update(_dict(items))
        elif name == "STACK_GLOBAL":
            stack.append(_name(" ".join(_of_type(part, str) for part in self._pop(2))))
        elif name == "REDUCE":
            stack.append(_call(*self._pop(2)))
        elif name == "BUILD":
            (state,) = self._pop(1)
            _of_type(stack[-1], (_Dtype, _Array)).build(_of_type(state, tuple))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise UnpicklingError(f"the instruction {name}, which no array needs")

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) - count < (self._marks[-1] if self._marks else 0):
            raise UnpicklingError("an instruction without its values")
        items = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return items

    def _pop_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items


def _call(function: Any, arguments: Any) -> Any:
    _of_type(arguments, tuple)
    if not isinstance(function, _Name):
        raise UnpicklingError(f"a call of {type(function).__name__}")
    if function == ENCODE:
        text, encoding = arguments
        if encoding != "latin1":
            raise UnpicklingError(f"encoding {encoding!r}")
        return _of_type(text, str).encode("latin1")
    if function == BYTES and not arguments:
        return b""
    if function == MAKE_DTYPE:
        return _Dtype(arguments[0])
    if function == RECONSTRUCT and arguments[0] == NDARRAY:
        return _Array()
    raise UnpicklingError(f"a call of {function}")


def _name(dotted: str) -> _Name:
    if dotted not in NAMES:
        raise UnpicklingError(f"{dotted.replace(' ', '.')}, which no array needs and which could run code")
    return _Name(NAMES[dotted])


def _dict(items: list[Any]) -> dict[Any, Any]:
    """Pair keys and values; the hash of other keys, of tuples in tuples, may take for ever."""
    keys, values = items[::2], items[1::2]
    if any(type(key) not in (bytes, str, int) for key in keys):
        raise UnpicklingError("a key that is no string or integer")
    return dict(zip(keys, values, strict=True))


def _of_type(value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise UnpicklingError(f"{type(value).__name__} in a wrong place")
    return value


def _ascii(text: Any) -> str:
    return text.decode("ascii") if isinstance(text, bytes) else _of_type(text, str)


def _itself(argument: Any) -> Any:
    return argument


def _latin1(text: str) -> bytes:
    return text.encode("latin1")


_VALUES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"), _itself),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _itself),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _itself),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _latin1),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "GLOBAL": _name,
}
_FROM_MARK: dict[str, Callable[[list[Any]], Any]] = {"DICT": _dict, "LIST": list, "TUPLE": tuple}
_FROM_TOP = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUT = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GET = ("GET", "BINGET", "LONG_BINGET")
