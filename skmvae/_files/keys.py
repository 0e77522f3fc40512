"""Keys: digests of values, and of the code that they bring along, equal where the fit is equal.

A pickle would not do: it names a class and leaves out what the class does, it tells 1 from 1.0, and
it refuses classes of a notebook in the processes of ``n_jobs``.
"""

from __future__ import annotations

import dis
import hashlib
import pickle
import sys
from dataclasses import fields, is_dataclass
from functools import cached_property, partial
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

# Attributes of a class that say nothing of what it does, or that others add while it is used.
_BOOKKEEPING = frozenset(
    {
        "__abstractmethods__",
        "__annotate__",
        "__annotations__",
        "__annotations_cache__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__slotnames__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def key_of(value: Any) -> str:
    """SHA-256 of what ``value`` means; TypeError if it holds an object that cannot be described.

    Numbers are equal whatever their type, and so are tuples and lists. Estimators are described by
    class and parameters, and classes and functions by the code that they run: bytecode rather than
    source, which a file may have changed since it was imported and which the processes of
    ``n_jobs`` lack for a notebook. Installed packages are described by name and version.
    """
    return hashlib.sha256(repr(_Description().of(value)).encode()).hexdigest()


class _Description:
    """Nested lists of strings that stand for a value; each class and function is described once."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, Any]] = {}  # the object is kept, so that its id is its own

    def of(self, value: Any) -> Any:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool | str | bytes | None):
            return repr(value)
        if isinstance(value, Real):
            return _number(value)
        if isinstance(value, PathLike):
            return repr(fspath(value))
        if isinstance(value, list | tuple):
            return [self.of(item) for item in value]
        if isinstance(value, set | frozenset):
            return ["set", *sorted(map(repr, map(self.of, value)))]
        if isinstance(value, dict):
            return ["dict", *sorted(repr([self.of(k), self.of(v)]) for k, v in value.items())]
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        if isinstance(value, np.ndarray):
            return self._array(value)
        return self._once(value)

    def _array(self, array: np.ndarray) -> Any:
        if array.dtype.hasobject:
            return ["objects", array.shape, *(self.of(item) for item in array.flat)]
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return ["array", array.dtype.str, array.shape, hashlib.sha256(content.data).hexdigest()]

    def _once(self, value: Any) -> Any:
        """Objects that may refer to each other in a circle."""
        if id(value) in self._seen:
            return ["seen", self._seen[id(value)][0]]
        self._seen[id(value)] = len(self._seen), value
        if isinstance(value, ModuleType):
            return ["module", value.__name__]
        if isinstance(value, CodeType):
            return self._code(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, FunctionType):
            return self._function(value)
        if parts := _parts_of_callable(value):
            return [type(value).__name__, *map(self.of, parts)]
        if hasattr(value, "__qualname__"):  # built into a package, such as torch.tanh
            return ["builtin", str(getattr(value, "__module__", "")), value.__qualname__]
        return self._instance(value)

    def _instance(self, value: Any) -> Any:
        if hasattr(value, "get_params"):
            state = value.get_params(deep=False)
        elif is_dataclass(value):
            state = {field.name: getattr(value, field.name) for field in fields(value)}
        elif hasattr(value, "__dict__"):
            state = vars(value)
        else:
            try:
                state = pickle.dumps(value)
            except Exception as error:
                raise TypeError(f"{value!r} cannot be described: {error}") from error
        return ["instance", self.of(type(value)), self.of(state)]

    def _class(self, kind: type) -> Any:
        if library := _library_of(kind.__module__):
            return ["class", library, kind.__qualname__]
        members = {n: m for n, m in vars(kind).items() if n not in _BOOKKEEPING}
        return [
            "class",
            kind.__qualname__,
            self.of(kind.__bases__),
            [[name, self._content(members[name])] for name in sorted(members)],
        ]

    def _function(self, function: FunctionType) -> Any:
        if library := _library_of(function.__module__):
            return ["function", library, function.__qualname__]
        names, attributes = _names(function.__code__)
        used = {name: function.__globals__[name] for name in names & function.__globals__.keys()}
        for module in [m for m in used.values() if isinstance(m, ModuleType)]:
            if not _library_of(module.__name__):
                found = vars(module).keys() & attributes
                used |= {f"{module.__name__}.{name}": vars(module)[name] for name in found}
        return [
            "function",
            self.of(function.__code__),
            self.of([function.__defaults__, function.__kwdefaults__]),
            [self._content(cell) for cell in function.__closure__ or ()],
            [[name, self._content(used[name])] for name in sorted(used)],
        ]

    def _code(self, code: CodeType) -> Any:
        constants = [
            self.of(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts
        ]
        signature = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        return [
            code.co_code.hex(),
            signature,
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            constants,
        ]

    def _content(self, value: Any) -> Any:
        """What code finds in a variable: all of a constant, the class alone of other objects.

        Loggers, locks and caches are among those, and change while the code runs.
        """
        if type(value).__name__ == "cell":
            try:
                value = value.cell_contents
            except ValueError:
                return "empty"
        is_code = isinstance(value, type | FunctionType | ModuleType) or _parts_of_callable(value)
        constants = bool | Real | str | bytes | None | list | tuple | set | frozenset | dict
        is_constant = isinstance(value, constants | np.ndarray | np.generic | torch.Tensor)
        if is_code or is_constant or hasattr(value, "get_params") or is_dataclass(value):
            return self.of(value)
        return ["object", self.of(type(value)), getattr(value, "__qualname__", "")]


def _number(value: Real) -> str:
    """The same for 1, 1.0 and numpy.float64(1)."""
    if isinstance(value, Integral):
        return repr(int(value))
    as_float = float(value)
    return repr(int(as_float) if as_float.is_integer() else as_float)


def _constant(value: Any) -> Any:
    """A constant of code, in which 1 and 1.0 differ."""
    if isinstance(value, tuple):
        return [_constant(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(map(repr, value))
    return [type(value).__name__, repr(value)]


def _names(code: CodeType) -> tuple[set[str], set[str]]:
    """The global variables that a function and those inside it use, and all other names."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    attributes = set(code.co_names) - names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner_names, inner_attributes = _names(constant)
            names, attributes = names | inner_names, attributes | inner_attributes
    return names, attributes


def _parts_of_callable(value: Any) -> tuple[Any, ...]:
    """What a wrapper of functions is made of; nothing of any other object."""
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, staticmethod | classmethod):
        return (value.__func__,)
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    return (value.func,) if isinstance(value, cached_property) else ()


def _library_of(module_name: str | None) -> str:
    """Name and version of the installed package that a module belongs to; "" for the user's own.

    In a process of ``n_jobs`` the file of ``__main__`` is joblib's, and its classes are not.
    """
    name = module_name or "builtins"
    top = name.partition(".")[0]
    if top in ("__main__", "__mp_main__"):
        return ""
    path = getattr(sys.modules.get(name), "__file__", None) or ""
    is_ours_or_pythons = top == "skmvae" or top in sys.stdlib_module_names
    if is_ours_or_pythons or _INSTALLED.intersection(PurePath(path).parts):
        return f"{name} {getattr(sys.modules.get(top), '__version__', '')}"
    return ""
