"""What two models are and where they differ: parameters, weights, source. Pure: models and text in, data out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any


def parameters(model: Any) -> dict[str, str]:
    """A River model's parameters by dotted name, the nested ones included, as text."""
    found: dict[str, str] = {}
    for name, value in model._get_params().items():
        _flatten(str(name), value, found)
    return found


def _flatten(name: str, value: Any, found: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            _flatten(f"{name}.{key}", one, found)
    elif isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], type) and isinstance(value[1], Mapping):
        found[name] = value[0].__name__
        for key, one in value[1].items():
            _flatten(f"{name}.{key}", one, found)
    elif isinstance(value, set | frozenset):
        found[name] = ", ".join(sorted(map(str, value)))
    elif isinstance(value, tuple) and value and all(isinstance(one, type) for one in value):
        found[name] = ", ".join(one.__name__ for one in value)
    elif not isinstance(value, Mapping):
        found[name] = repr(value)


def weights(model: Any) -> dict[str, float]:
    """The weights of the linear models inside, by step and column; empty where there is none."""
    return {
        f"{name}.{column}": float(weight)
        for name, step in _steps(model)
        for column, weight in dict(getattr(step, "weights", None) or {}).items()
        if isinstance(weight, int | float)
    }


def _steps(model: Any) -> Iterator[tuple[str, Any]]:
    """The estimators of a pipeline by name, through nested ones; a model alone is its own step."""
    steps = getattr(model, "steps", None) or getattr(model, "transformers", None)
    if not isinstance(steps, Mapping):
        yield type(model).__name__, model
        return
    for name, step in steps.items():
        for inner, one in _steps(step):
            yield (str(name) if inner == str(name) else f"{name}.{inner}"), one


def changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two mappings, each key with both values; None where one has none."""
    keys = dict.fromkeys((*a, *b))
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}


def largest(a: Mapping[str, float], b: Mapping[str, float], most: int) -> dict[str, tuple[float, float]]:
    """The weights that differ most; a column that one does not have weighs nothing there."""
    both = {key: (a.get(key, 0.0), b.get(key, 0.0)) for key in dict.fromkeys((*a, *b))}
    ordered = sorted(both, key=lambda key: (-abs(both[key][1] - both[key][0]), key))
    return {key: both[key] for key in ordered[:most] if both[key][0] != both[key][1]}


def source_lines(a: bytes, b: bytes, names: tuple[str, str]) -> list[str]:
    """A unified diff of two pipeline files; empty where they are the same."""
    old, new = (text.decode(errors="replace").splitlines() for text in (a, b))
    return list(difflib.unified_diff(old, new, *names, lineterm="", n=2))
