"""A model's bytes and its identity.

Every `river.proba` distribution carries an OS-seeded `random.Random` that only `.sample()` uses: most of a tree's
pickle, and never the same twice. The slim pickle leaves it out (and loads a `Random(0)` in its place); the
structural digest ignores it, and with it everything that makes two equal models pickle differently: the order of
dicts and sets, shared references, interned strings.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import random
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any

PROTOCOL = 5
_ATOMS = (str, bytes, int, type(None), bool, complex, bytearray)


def dumps(model: Any) -> bytes:
    """The slim pickle."""
    out = io.BytesIO()
    _SlimPickler(out, protocol=PROTOCOL).dump(model)
    return out.getvalue()


def loads(data: bytes) -> Any:
    """The model from its slim pickle. Only for bytes whose authenticity was checked."""
    return pickle.loads(data)


def digest(model: Any) -> str:
    """The structural digest: sha256 in hex; equal for models that behave equally and were built equally."""
    walker = _Walker()
    walker.walk(model)
    return walker.hash.hexdigest()


def _is_unseeded_distribution(obj: Any) -> bool:
    return (
        type(obj).__module__.startswith("river.proba")
        and isinstance(getattr(obj, "_rng", None), random.Random)
        and getattr(obj, "seed", 0) is None
    )


def _rebuild(cls: type, state: dict[str, Any]) -> Any:
    model = cls.__new__(cls)
    model.__dict__.update(state)
    model._rng = random.Random(0)
    return model


class _SlimPickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if _is_unseeded_distribution(obj):
            return _rebuild, (type(obj), {name: value for name, value in obj.__dict__.items() if name != "_rng"})
        return NotImplemented


class _Walker:
    """Feeds a hash with what `__reduce_ex__(4)` says, in an order that does not depend on memory or hash seeds."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # an id is only unique while its object lives

    def walk(self, obj: Any) -> None:
        kind = type(obj)
        if kind is float:
            self._put("f", obj.hex())
        elif kind in _ATOMS:
            self._put(kind.__name__, repr(obj))
        elif isinstance(obj, type | FunctionType | BuiltinFunctionType):
            self._put("name", f"{obj.__module__}.{obj.__qualname__}")
        elif self._is_known(obj):
            return
        elif kind is dict:
            self._mapping("dict", obj)
        elif kind in (list, tuple):
            self._put(kind.__name__, str(len(obj)))
            for item in obj:
                self.walk(item)
        elif kind in (set, frozenset):
            self._put(kind.__name__, str(len(obj)))
            for part in sorted(digest(item) for item in obj):
                self._put("item", part)
        else:
            self._reduced(obj)

    def _put(self, kind: str, text: str) -> None:
        self.hash.update(f"{kind}:{len(text)}:{text};".encode())

    def _is_known(self, obj: Any) -> bool:
        number = self._seen.get(id(obj))
        if number is not None:
            self._put("ref", str(number))
            return True
        self._seen[id(obj)] = len(self._seen)
        self._alive.append(obj)
        return False

    def _mapping(self, kind: str, mapping: dict[Any, Any]) -> None:
        self._put(kind, str(len(mapping)))
        if all(type(key) is str for key in mapping):
            keys = sorted(mapping)
        else:
            keys = [key for _, key in sorted(((digest(key), key) for key in mapping), key=lambda pair: pair[0])]
        for key in keys:
            self.walk(key)
            self.walk(mapping[key])

    def _reduced(self, obj: Any) -> None:
        reduced = obj.__reduce_ex__(4)
        if isinstance(reduced, str):
            self._put("global", reduced)
            return
        build, arguments, state, items, pairs = (*reduced, *(None,) * (5 - len(reduced)))[:5]
        self._put("object", f"{type(obj).__module__}.{type(obj).__qualname__}")
        self.walk(build)
        self.walk(arguments)
        if isinstance(state, dict) and _is_unseeded_distribution(obj):
            state = {name: value for name, value in state.items() if name != "_rng"}
        self.walk(state)
        if items is not None:
            self.walk(list(items))
        if pairs is not None:
            self._mapping("items", dict(pairs))


def learns_the_same(build: Callable[[], Any], teach: Callable[[Any], None]) -> bool:
    """Whether two models, built and taught alike, have one digest: what `reproduce` needs of a recipe."""
    digests = set()
    for _ in range(2):
        model = build()
        teach(model)
        digests.add(digest(model))
    return len(digests) == 1
