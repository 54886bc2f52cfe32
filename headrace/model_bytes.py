"""A model's bytes and its identity.

Every `river.proba` distribution carries a `random.Random` seeded by the operating system, which only `.sample()`
uses: most of a tree's pickle, and never the same twice. The slim pickle puts one `Random(0)` in the place of all of
them. The structural digest leaves them out, and with them whatever makes two equal models pickle differently: the
order of dicts and sets, and which equal strings, numbers or tuples are one object.
"""

from __future__ import annotations

import copyreg
import gc
import hashlib
import io
import pickle
import random
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import FunctionType
from typing import Any

PROTOCOL = 5
_LONG = 16  # from so many numbers on (the 625 of a Random's state) a sequence is written at once


def dumps(model: Any) -> bytes:
    """The slim pickle; loading it needs nothing of Headrace."""
    out = io.BytesIO()
    _SlimPickler(out).dump(model)
    return out.getvalue()


def loads(data: bytes) -> Any:
    """The model of a slim pickle. Only for bytes whose authenticity was checked: unpickling runs code.

    Of a tree it makes tens of thousands of objects and no garbage: the collector, which would look through them and
    all older ones again and again (5 times as long beside half a million), waits.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return pickle.loads(data)
    finally:
        if collects:
            gc.enable()


def digest(model: Any) -> str:
    """The structural digest, 64 hex digits: equal for models that were built and taught equally.

    It does not depend on the process, its hash seed, or on having been saved and loaded in between.
    """
    return hashlib.sha256(_structure(model)).hexdigest()


def is_stable(build: Callable[[], Any], examples: Iterable[tuple[dict[str, Any], Any]]) -> bool:
    """Whether a recipe's models can be made again: two built and taught alike, one of them saved and loaded half
    way, have one digest.
    """
    taught = list(examples)
    straight, resumed = build(), build()
    for number, (features, label) in enumerate(taught):
        if number == len(taught) // 2:
            resumed = loads(dumps(resumed))
        straight.learn_one(dict(features), label)
        resumed.learn_one(dict(features), label)
    return digest(straight) == digest(resumed)


class _SlimPickler(pickle.Pickler):
    def __init__(self, out: io.BytesIO) -> None:
        super().__init__(out, protocol=PROTOCOL)
        self._rng = random.Random(0)

    def reducer_override(self, obj: Any) -> Any:
        if obj is self._rng:
            return random.Random, (0,)
        if _is_unseeded_distribution(obj):
            return copyreg.__newobj__, (type(obj),), {**obj.__dict__, "_rng": self._rng}  # type: ignore[attr-defined]
        return NotImplemented


def _is_unseeded_distribution(obj: Any) -> bool:
    kind: Any = type(obj)
    return _is_distribution(kind) and obj.__dict__.get("seed", 0) is None and "_rng" in obj.__dict__


@lru_cache(maxsize=4_096)
def _is_distribution(kind: type) -> bool:
    return kind.__module__.startswith("river.proba.")


def _structure(root: Any) -> bytes:
    """What `__reduce_ex__(4)` says of an object and all it holds, written so that no two structures look alike.

    Mutable objects are numbered by first visit, so that shared ones stay distinct from equal ones. Tuples and
    frozensets are written out each time: whether equal constants are one object depends on when the model was loaded.
    A stack instead of recursion: a chain of nodes may be longer than Python's call stack.
    """
    out: list[str] = []
    put = out.append
    todo = [root]
    pop = todo.pop
    seen: dict[int, int] = {}
    alive: list[Any] = []  # an id belongs to one object only while that lives
    while todo:
        obj = pop()
        kind: Any = type(obj)
        if kind is float:
            put(f"f{obj.hex()};")
        elif kind is str:
            put(f"s{len(obj)}:{obj}")
        elif kind is int or kind is bool or obj is None:
            put(f"i{obj};")
        elif kind is tuple:
            _sequence("t", obj, put, todo)
        elif kind is bytes or kind is bytearray:
            put(f"b{len(obj)}:{obj.hex()}")
        elif kind is complex:
            put(f"c{obj!r};")
        elif kind is frozenset:
            _unordered("z", obj, put)
        elif kind is FunctionType or isinstance(obj, type):
            put(_name(obj))
        elif id(obj) in seen:
            put(f"r{seen[id(obj)]};")
        else:
            seen[id(obj)] = len(seen)
            alive.append(obj)
            if kind is dict:
                _mapping("d", obj, put, todo)
            elif kind is list:
                _sequence("l", obj, put, todo)
            elif kind is set:
                _unordered("y", obj, put)
            else:
                reduced = obj.__reduce_ex__(4)
                if isinstance(reduced, str):
                    put(f"g{getattr(obj, '__module__', '')}.{reduced};")
                else:
                    _reduced(obj, kind, reduced, put, todo)
    return "".join(out).encode("utf-8", "surrogatepass")


def _reduced(obj: Any, kind: Any, reduced: tuple[Any, ...], put: Callable[[str], None], todo: list[Any]) -> None:
    build, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    plain = build is copyreg.__newobj__ and arguments == (kind,)  # type: ignore[attr-defined]
    bare = type(state) is dict
    put(f"o{plain:d}{bare:d}{items is not None:d}{pairs is not None:d}{_name(kind)}")
    # The stack gives back first what was put on it last.
    if pairs is not None:
        todo.append(dict(pairs))
    if items is not None:
        todo.append(list(items))
    if not plain:
        todo += (arguments, build)
    if not bare:
        todo.append(state)
        return
    if _is_unseeded_distribution(obj):
        state = {name: value for name, value in state.items() if name != "_rng"}
    _mapping("a", state, put, todo)


def _sequence(sign: str, items: Any, put: Callable[[str], None], todo: list[Any]) -> None:
    put(f"{sign}{len(items)};")
    if len(items) >= _LONG and set(map(type, items)) == {int}:
        put(f"n{','.join(map(str, items))};")
    else:
        todo.extend(reversed(items))


def _mapping(sign: str, mapping: dict[Any, Any], put: Callable[[str], None], todo: list[Any]) -> None:
    put(f"{sign}{len(mapping)};")
    kinds = set(map(type, mapping))
    keys = sorted(mapping) if kinds in ({str}, {int}) else sorted(mapping, key=_structure)
    for key in reversed(keys):
        todo.append(mapping[key])
        todo.append(key)


def _unordered(sign: str, items: Any, put: Callable[[str], None]) -> None:
    put(f"{sign}{len(items)};")
    for part in sorted(map(_structure, items)):
        put(f"{len(part)}:{part.decode('utf-8', 'surrogatepass')}")


@lru_cache(maxsize=4_096)
def _name(obj: Any) -> str:
    return f"q{obj.__module__}.{obj.__qualname__};"
