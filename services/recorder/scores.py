"""What arms answered, and how it compares with the labels: Arrow columns from lists.

Where all values are numbers, as nearly always, Arrow computes whole columns; other values go one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

EPSILON = 1e-15  # as River's LogLoss clips
WORD, NUMBER, TRUTH = pa.string(), pa.float64(), pa.bool_()
Columns = dict[str, Any]


def answers(values: Sequence[Any], label_type: str) -> Columns:
    """`prediction` (the class, as text) and `score`: P(true), the answer's probability, or the number in regression."""
    scores = _all(values, NUMBER) if label_type in ("bool", "float") else None
    if scores is None:
        both = [answer(value, label_type) for value in values]
        return {"prediction": pa.array([b[0] for b in both], WORD), "score": pa.array([b[1] for b in both], NUMBER)}
    # a tie is false, as in River
    predictions = pc.cast(pc.greater(scores, 0.5), WORD) if label_type == "bool" else pa.nulls(len(values), WORD)
    return {"prediction": predictions, "score": scores}


def outcomes(values: Sequence[Any], labels: Sequence[Any], label_type: str) -> Columns:
    """The answers, the labels, and how right they were: `correct` and `log_loss` for classes, `error` in regression."""
    found = answers(values, label_type) | labels_as(labels)
    n = len(values)
    if label_type == "float":
        error = pc.subtract(found["score"], found["label_value"])
        return found | {"correct": pa.nulls(n, TRUTH), "log_loss": pa.nulls(n, NUMBER), "error": error}
    correct = pc.equal(found["prediction"], found["label"])
    return found | {"correct": correct, "log_loss": _log_losses(values, labels), "error": pa.nulls(n, NUMBER)}


def labels_as(labels: Sequence[Any]) -> Columns:
    """`label` as text (true, false, the class, a number as JSON writes it), `label_value` as number (true is 1)."""
    truths = _all(labels, TRUTH)
    if truths is not None:
        return {"label": pc.cast(truths, WORD), "label_value": pc.cast(truths, NUMBER)}
    return {
        "label": pa.array([text(label) for label in labels], WORD),
        "label_value": pa.array([None if isinstance(label, str) else _number(label) for label in labels], NUMBER),
    }


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


def texts(labels: Sequence[Any]) -> Any:
    """Labels as text, in one column."""
    truths = _all(labels, TRUTH)
    return pa.array([text(label) for label in labels], WORD) if truths is None else pc.cast(truths, WORD)


def _log_losses(values: Sequence[Any], labels: Sequence[Any]) -> Any:
    scores, truths = _all(values, NUMBER), _all(labels, TRUTH)
    if scores is None or truths is None:
        given = [probability(value, label) for value, label in zip(values, labels, strict=True)]
        losses = [None if p is None else -log(min(max(p, EPSILON), 1 - EPSILON)) for p in given]
        return pa.array(losses, NUMBER)
    given = pc.if_else(truths, scores, pc.subtract(1.0, scores))
    clipped = pc.min_element_wise(pc.max_element_wise(given, EPSILON, skip_nulls=False), 1 - EPSILON, skip_nulls=False)
    return pc.negate(pc.ln(clipped))


def _all(values: Sequence[Any], kind: Any) -> Any:
    """The values as one Arrow column where all are of the kind (or None), else None."""
    wanted = {bool, type(None)} if kind == TRUTH else {float, int, type(None)}
    if not wanted.issuperset(map(type, values)):
        return None
    try:
        return pa.array(values, kind)
    except pa.ArrowException:  # a whole number that no double holds
        return None


def _number(value: float | None) -> float | None:
    try:
        return None if value is None else float(value)
    except OverflowError:
        return None
