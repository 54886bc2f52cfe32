"""What objects that were unpickled lack: pickle gives them the fields of then, without a word about those of now."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

PLAIN = (str, bytes, int, float, bool, type(None))


def lacking(value: Any) -> str | None:
    """The first field that an object within a value lacks, as `Training.counted`; None where all are whole.

    Looks into containers, dataclasses, Structs and pydantic models; what a library made is its own affair.
    """
    todo, seen = [value], set[int]()
    while todo:
        one = todo.pop()
        if isinstance(one, PLAIN) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            todo += one.keys()
            todo += one.values()
        elif isinstance(one, list | tuple | set | frozenset | deque):
            todo += one
        kind: Any = type(one)
        for name in _fields_of(kind):
            try:
                todo.append(getattr(one, name))
            except AttributeError:
                return f"{kind.__name__}.{name}"
    return None


@functools.cache
def _fields_of(kind: type) -> Iterable[str]:
    if is_dataclass(kind):
        return tuple(field.name for field in fields(kind))
    return getattr(kind, "__struct_fields__", None) or tuple(getattr(kind, "model_fields", ()))
