"""The metric that a pipeline names, over the pairs of a comparison, one pair at a time and small enough to be saved.

Equal to `scores.score`, whose River metrics keep sets: their order, and so the last digit, changes with the hash seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from headrace.schemas.policies import LOWER_IS_BETTER, Metric
from headrace.schemas.stream import Label
from headrace.services.evaluator.scores import Task, brier, has_probabilities, log_loss

BINS = 200  # of P(true), for AUC: told beside the verdict, never decided by


def part_of(metric: Metric, task: Task, value: Any, label: Label) -> float:
    """What one usable answer adds to the metric beside the class it names."""
    if task == "regression":
        error = float(value) - float(label)
        return abs(error) if metric == "mae" else error * error
    if metric == "brier":
        return brier(task, value, label)
    if not has_probabilities(task, value):
        return 0.0
    if metric == "logloss":
        return log_loss(task, value, label)
    return float(value) if metric == "auc" and task == "binary" else 0.0


@dataclass(slots=True)
class RunningMetric:
    """One arm's metric: sums of parts, counts of (label, said), and for R² the spread of the labels."""

    metric: Metric
    n: int = 0
    total: float = 0.0
    confusion: dict[tuple[Label, Label], int] = field(default_factory=dict)
    bins: dict[tuple[int, bool], int] = field(default_factory=dict)
    label_mean: float = 0.0
    label_squares: float = 0.0

    def add(self, label: Label, said: Label, part: float) -> None:
        """Count one answered row."""
        self.n += 1
        self.total += part
        if self.metric in _OF_COUNTS:
            self.confusion[label, said] = self.confusion.get((label, said), 0) + 1
        elif self.metric == "auc":
            place = min(int(part * BINS), BINS - 1), bool(label)
            self.bins[place] = self.bins.get(place, 0) + 1
        elif self.metric == "r2":
            change = float(label) - self.label_mean
            self.label_mean += change / self.n
            self.label_squares += change * (float(label) - self.label_mean)

    def get(self) -> float | None:
        """The metric so far; None without a row, and where it does not exist."""
        if not self.n:
            return None
        if self.metric in _OF_COUNTS:
            return _OF_COUNTS[self.metric](self.confusion)
        if self.metric == "auc":
            return _auc(self.bins)
        if self.metric == "r2":
            return 1 - self.total / self.label_squares if self.label_squares else 0.0
        mean = self.total / self.n
        return sqrt(mean) if self.metric == "rmse" else mean

    def is_no_worse_than(self, other: RunningMetric) -> bool:
        """Whether this arm's metric is as good as the other's; one that does not exist is no objection."""
        mine, theirs = self.get(), other.get()
        if mine is None or theirs is None:
            return True
        return mine <= theirs if self.metric in LOWER_IS_BETTER else mine >= theirs


Confusion = dict[tuple[Label, Label], int]


def _classes(confusion: Confusion) -> list[Label]:
    return sorted({label for pair in confusion for label in pair}, key=str)


def _rows(confusion: Confusion, label: Label) -> int:
    return sum(n for (true, _), n in confusion.items() if true == label)


def _columns(confusion: Confusion, label: Label) -> int:
    return sum(n for (_, said), n in confusion.items() if said == label)


def _accuracy(confusion: Confusion) -> float:
    return sum(n for (true, said), n in confusion.items() if true == said) / sum(confusion.values())


def _balanced(confusion: Confusion) -> float:
    recalls = [
        confusion.get((label, label), 0) / rows for label in _classes(confusion) if (rows := _rows(confusion, label))
    ]
    return sum(recalls) / len(recalls)


def _f1_of(confusion: Confusion, label: Label) -> float:
    both = _rows(confusion, label) + _columns(confusion, label)
    return 2 * confusion.get((label, label), 0) / both if both else 0.0


def _f1(confusion: Confusion) -> float:
    """Of True for a bool label, else the mean over classes."""
    classes = _classes(confusion)
    if all(isinstance(label, bool) for label in classes):
        return _f1_of(confusion, True)
    return sum(_f1_of(confusion, label) for label in classes) / len(classes)


def _mcc(confusion: Confusion) -> float:
    """Matthews' correlation, for any number of classes (Gorodkin 2004)."""
    n = sum(confusion.values())
    right = sum(count for (true, said), count in confusion.items() if true == said)
    margins = [(_rows(confusion, label), _columns(confusion, label)) for label in _classes(confusion)]
    both = n * right - sum(rows * columns for rows, columns in margins)
    true_spread = n * n - sum(rows * rows for rows, _ in margins)
    said_spread = n * n - sum(columns * columns for _, columns in margins)
    return both / sqrt(true_spread * said_spread) if true_spread and said_spread else 0.0


def _auc(bins: dict[tuple[int, bool], int]) -> float:
    """P(a true row lies in a higher bin than a false one), ties half; 0.5 where a class is missing."""
    trues = sum(n for (_, label), n in bins.items() if label)
    falses = sum(bins.values()) - trues
    below, won = 0, 0.0
    for place in sorted({place for place, _ in bins}):
        here = bins.get((place, False), 0)
        won += bins.get((place, True), 0) * (below + here / 2)
        below += here
    return won / (trues * falses) if trues and falses else 0.5


_OF_COUNTS = {"accuracy": _accuracy, "balanced_accuracy": _balanced, "f1": _f1, "mcc": _mcc}
