"""Keys: digests of what a fit follows from, equal where the fits are equal.

A pickle would not do: it names a class and leaves out what the class does, it tells 1 from 1.0, and
it refuses classes of a notebook in the processes of ``n_jobs``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property, partial, partialmethod
from numbers import Integral, Real
from os import PathLike, fspath
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch

from .._state import NetworkState, skeleton

_PLAIN = bool | int | float | str | bytes | None

# Packages whose code is described by its name: their versions do not change in a project.
_KNOWN = frozenset({"skmvae", "torch", "sklearn", "builtins", "abc", "typing"})


def key_of(value: Any) -> str:
    """SHA-256 of what ``value`` means.

    Numbers are equal whatever their type, and so are tuples and lists. Estimators and other objects
    are described by the code of their class and by what they hold, classes and functions by their
    bytecode: the source may have been edited since it was imported, and the processes of ``n_jobs``
    lack that of a notebook.
    """
    return hashlib.sha256(repr(_described(value)).encode()).hexdigest()


def code_of_network(state: NetworkState) -> list[Any]:
    """The classes of the modules that an architecture builds, for ``key_of``."""
    return [[name, type(module)] for name, module in skeleton(state).named_modules()]


def _described(value: Any, holders: frozenset[int] = frozenset()) -> Any:
    """Nested lists and strings that stand for the value, which objects of ``holders`` hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | str | bytes | None):
        return repr(value)
    if isinstance(value, Real):
        return _number(value)
    if isinstance(value, PathLike):
        return repr(fspath(value))
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        content = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        return ["array", value.dtype.str, value.shape, hashlib.sha256(content.data).hexdigest()]
    if isinstance(value, type):
        return _class(value)
    if functions := list(_functions_in(value)):
        return ["functions", *map(_function, functions)]
    if id(value) in holders:
        return "a holder"
    return _contents(value, partial(_described, holders=holders | {id(value)}))


def _contents(value: Any, described: Callable[[Any], Any]) -> Any:
    """Describe a collection or an object by its contents."""
    if isinstance(value, np.ndarray):
        return ["objects", value.shape, *map(described, value.flat)]
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if isinstance(value, set | frozenset):
        return ["set", *sorted(repr(described(item)) for item in value)]
    if isinstance(value, dict):
        return ["dict", *([described(k), described(v)] for k, v in value.items())]
    if isinstance(value, partial):
        held = {"func": value.func, "args": value.args, "keywords": value.keywords}
    elif hasattr(value, "get_params"):
        held = value.get_params(deep=False)
    else:
        slots = [n for kind in type(value).__mro__ for n in getattr(kind, "__slots__", ())]
        held = getattr(value, "__dict__", {}) | {n: getattr(value, n, None) for n in slots}
    name = getattr(value, "__name__", "")
    return [name, _class(type(value)), *([n, described(v)] for n, v in sorted(held.items()))]


def _number(value: Real) -> str:
    """Describe 1, 1.0 and numpy.float64(1) alike."""
    if isinstance(value, Integral):
        return repr(int(value))
    as_float = float(value)
    return repr(int(as_float) if as_float.is_integer() else as_float)


def _class(kind: type) -> Any:
    """The functions of a class and of those that it inherits from."""
    described: list[Any] = []
    for base in kind.__mro__:
        described.append(base.__qualname__.rpartition(".")[2])
        if base.__module__.partition(".")[0] in _KNOWN:
            continue
        for name, member in sorted(vars(base).items()):
            described += [[name, _function(function)] for function in _functions_in(member)]
    return ["class", *described]


def _functions_in(value: Any) -> Iterator[Any]:
    """A function, or those that a descriptor or a wrapper is made of."""
    if isinstance(value, FunctionType | MethodType | staticmethod | classmethod):
        yield getattr(value, "__func__", value)
    elif isinstance(value, property):
        yield from (f for f in (value.fget, value.fset) if f is not None)
    elif isinstance(value, partialmethod | cached_property):
        yield value.func
    elif callable(getattr(value, "__wrapped__", None)):
        yield value.__wrapped__
    elif type(value).__name__.startswith("builtin"):
        yield value


def _function(function: Any) -> Any:
    code = getattr(function, "__code__", None)
    if code is None or (function.__module__ or "").partition(".")[0] in _KNOWN:
        return getattr(function, "__qualname__", type(function).__name__)
    defaults = [repr(value) for value in function.__defaults__ or () if isinstance(value, _PLAIN)]
    return [defaults, *_code(code)]


def _code(code: CodeType) -> list[Any]:
    """Bytecode, the names in it and its constants, those of functions inside included."""
    constants: list[Any] = [
        _code(c) if isinstance(c, CodeType) else repr(c)
        for c in code.co_consts
        if isinstance(c, CodeType | _PLAIN | tuple)
    ]
    names = code.co_names, code.co_varnames, code.co_freevars
    return [code.co_code.hex(), code.co_exceptiontable.hex(), *names, constants]
