"""Losses and scores of answers, row by row and over many rows. River's metrics where they are exact.

An answer is what `ArmPrediction.value` holds: P(true) for a bool label, {class: p} for classes, a number for
regression, or the bare class where a recipe has no probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from headrace.schemas.policies import Metric, Success
from headrace.schemas.stream import Label

Task = Literal["binary", "multiclass", "regression"]

EDGE = 1e-15  # River keeps probabilities this far from 0 and 1 before it takes a logarithm


def metric_of(task: Task, success: Success | None) -> Metric:
    """The metric that a pipeline names, else the plainest one of its task."""
    if success is not None:
        return success.metric
    return "mae" if task == "regression" else "accuracy"


def checked(task: Task, value: Any) -> Any:
    """The value where it is a usable answer, else None: missing, empty, not finite or of another kind."""
    if task == "regression":
        return value if _is_number(value) else None
    if task == "binary":
        return value if isinstance(value, bool) or _is_number(value) else None
    if isinstance(value, dict):
        return value if value and all(_is_number(p) for p in value.values()) else None
    return value if isinstance(value, str) else None


def has_probabilities(task: Task, value: Any) -> bool:
    """Whether a checked answer says how sure it is."""
    return isinstance(value, dict) if task == "multiclass" else task == "binary" and not isinstance(value, bool)


def decided(task: Task, value: Any) -> Label:
    """The class or number that a checked answer stands for; a tie goes as `predict_one` of River's models lets it."""
    if task == "binary" and not isinstance(value, bool):
        return bool(value > 0.5)
    if isinstance(value, dict):
        return max(value, key=value.__getitem__)  # type: ignore[no-any-return]
    return value  # type: ignore[no-any-return]


def log_loss(task: Task, value: Any, label: Label) -> float:
    """River's `LogLoss` and `CrossEntropy` of one row, where a class that the answer does not name has probability 0.

    So has River's `LogLoss` it; in its `CrossEntropy` such a row costs nothing, and the surest wrong answer is free.
    """
    if task == "binary":
        p = min(max(value, EDGE), 1 - EDGE)
        return -math.log(p) if label else -math.log(1 - p)
    return -math.log(min(max(value.get(label, 0.0), EDGE), 1 - EDGE))


def brier(task: Task, value: Any, label: Label) -> float:
    """Squared error of the probabilities, 0..1: multiclass is halved (Brier 1950 sums over classes).

    An answer that is no probability costs 1 at most: a power would raise, infinity would spoil every later mean.
    """
    if not has_probabilities(task, value):
        return float(value != label)
    if task == "binary":
        error = value - (1.0 if label else 0.0)
        return min(float(error * error), 1.0)
    missing = 0.0 if label in value else 1.0
    squares = sum((error := p - (name == label)) * error for name, p in value.items())
    return min(float(missing + squares) / 2, 1.0)


def score(metric: Metric, task: Task, rows: Iterable[tuple[Any, Any]]) -> float:
    """One metric over (checked answer, label) rows. Raises ValueError for one that the task does not have."""
    pairs = list(rows)
    if metric == "brier" and task != "regression":
        return sum(brier(task, value, label) for value, label in pairs) / max(len(pairs), 1)
    make = _RIVER.get((metric, task == "regression"))
    if metric in ("auc", "logloss") and not all(has_probabilities(task, value) for value, _ in pairs):
        raise ValueError(f"the recipe gives no probabilities, so there is no {metric}")
    if metric == "auc" and task == "binary":
        return auc([float(value) for value, _ in pairs], [bool(label) for _, label in pairs])
    if make is None:
        raise ValueError(f"a {task} label has no {metric}")
    if metric == "logloss" and task == "multiclass":
        pairs = [({label: 0.0, **value}, label) for value, label in pairs]
    found: Any = make(task)
    for value, label in pairs:
        found.update(label, value if metric == "logloss" else decided(task, value))
    return float(found.get())


def auc(values: Sequence[float], labels: Sequence[bool]) -> float:
    """Area under the ROC curve: P(a true row scores higher than a false one), ties half. 0.5 where a class is missing.

    Exact (Mann and Whitney 1947); River's `ROCAUC` approximates with thresholds.
    """
    trues = sum(labels)
    falses = len(labels) - trues
    if not trues or not falses:
        return 0.5
    ranks, rank = 0.0, 0
    ordered = sorted(zip(values, labels, strict=True))
    while rank < len(ordered):
        end = rank
        while end < len(ordered) and ordered[end][0] == ordered[rank][0]:
            end += 1
        ranks += (rank + 1 + end) / 2 * sum(label for _, label in ordered[rank:end])
        rank = end
    return (ranks - trues * (trues + 1) / 2) / (trues * falses)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _river(name: str, multiclass: str = "") -> Callable[[Task], Any]:
    def make(task: Task) -> Any:
        from river import metrics

        return getattr(metrics, multiclass if multiclass and task == "multiclass" else name)()

    return make


_RIVER: dict[tuple[str, bool], Callable[[Task], Any]] = {
    ("accuracy", False): _river("Accuracy"),
    ("balanced_accuracy", False): _river("BalancedAccuracy"),
    ("logloss", False): _river("LogLoss", "CrossEntropy"),
    ("f1", False): _river("F1", "MacroF1"),
    ("mcc", False): _river("MCC"),
    ("mae", True): _river("MAE"),
    ("rmse", True): _river("RMSE"),
    ("r2", True): _river("R2"),
}
