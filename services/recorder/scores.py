"""What an arm's value says, and how it compares with the label. Lists in, lists out: one call for a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

EPSILON = 1e-15  # as River's LogLoss clips


def answers(values: Sequence[Any], label_type: str) -> tuple[list[str | None], list[float | None]]:
    """The classes answered, as text, and the scores: P(true), the answer's probability, the number in regression."""
    if label_type == "bool" and all(type(value) is float for value in values):
        return ["true" if p > 0.5 else "false" for p in values], list(values)  # a tie is false, as in River
    both = [answer(value, label_type) for value in values]
    return [one[0] for one in both], [one[1] for one in both]


def answer(value: Any, label_type: str) -> tuple[str | None, float | None]:
    """One class and its score."""
    if value is None:
        return None, None
    if isinstance(value, bool):
        return text(value), None
    if isinstance(value, float | int):
        if label_type == "bool":
            return ("true" if value > 0.5 else "false"), _number(value)
        return (None, _number(value)) if label_type == "float" else (text(value), None)
    if isinstance(value, dict):
        numbers = {name: p for name, p in value.items() if isinstance(p, float | int)}
        best = max(numbers, key=numbers.__getitem__, default=None)
        return (None, None) if best is None else (best, _number(numbers[best]))
    return (value, None) if isinstance(value, str) else (None, None)


def log_losses(values: Sequence[Any], labels: Sequence[Any]) -> list[float | None]:
    """-ln of the probability that each value gives to its label; None where it gives none."""
    low, high = EPSILON, 1 - EPSILON
    if all(type(value) is float for value in values) and all(type(label) is bool for label in labels):
        given = [value if label else 1.0 - value for value, label in zip(values, labels, strict=True)]
        return [-log(low if p < low else high if p > high else p) for p in given]
    known = [probability(value, label) for value, label in zip(values, labels, strict=True)]
    return [None if p is None else -log(min(max(p, low), high)) for p in known]


def probability(value: Any, label: Any) -> float | None:
    """The probability that a value gives to a label; None where it gives none."""
    if isinstance(value, dict):
        p = value.get(text(label), 0.0)
        return _number(p) if isinstance(p, float | int) else None
    if isinstance(value, float | int) and not isinstance(value, bool) and isinstance(label, bool):
        p = _number(value)
        return p if p is None or label else 1.0 - p
    return None


def text(label: Any) -> str | None:
    """A label or class as text: true, false, a number as JSON writes it, or its name."""
    if label is True:
        return "true"
    if label is False:
        return "false"
    return label if label is None or isinstance(label, str) else repr(label)


def number(label: Any) -> float | None:
    """A label as a number, true as 1; None for a class."""
    return None if label is None or isinstance(label, str) else _number(label)


def _number(value: float) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
