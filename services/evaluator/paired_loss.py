"""The loss by which models are compared, offline and pair by pair online: in [0, 1], fixed by a reference of rows.

A value that a fold can keep and save.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, Protocol

from headrace.schemas.policies import Metric
from headrace.schemas.stream import Baselines, Label
from headrace.services.evaluator.scores import Task, brier, checked, decided

RARE = 0.1  # below this share of rows a class is rare, and errors on it weigh more
CLIP = 4.0  # losses of numbers are clipped at this many median errors of the baseline
HARD: frozenset[Metric] = frozenset({"accuracy"})
BALANCED: frozenset[Metric] = frozenset({"balanced_accuracy"})
SQUARED: frozenset[Metric] = frozenset({"rmse", "r2"})
Kind = Literal["0/1 loss", "Brier", "class-weighted Brier", "absolute error", "squared error"]


class Reference(Protocol):
    """A labelled row that fixes a loss."""

    @property
    def label(self) -> Label: ...

    @property
    def baselines(self) -> Baselines: ...


@dataclass(frozen=True, slots=True)
class PairedLoss:
    """`weights` by class (1 for the rarest), `bound` of an error of numbers: none is larger than this one's loss of 1.

    The bound comes from the errors of a baseline: a model that diverges must not set its own.
    """

    kind: Kind
    task: Task
    weights: Mapping[Label, float]
    bound: float = 1.0

    @property
    def name(self) -> str:
        """What a person reads: an error of numbers is not in the units of the label."""
        return f"scaled {self.kind}" if self.task == "regression" else self.kind

    @property
    def told(self) -> str:
        """The name, and where the loss ends."""
        return f"{self.name} (1 is an error of {self.bound:.4g} or more)" if self.task == "regression" else self.kind

    def of(self, value: Any, label: Label) -> float:
        """The loss of one usable answer (`usable`); 1 where there is none."""
        if value is None:
            return 1.0
        if self.task == "regression":
            error: float = min(abs(value - float(label)) / self.bound, 1.0)
            return error * error if self.kind == "squared error" else error
        if self.kind == "0/1 loss":
            return float(decided(self.task, value) != label)
        loss = brier(self.task, value, label)
        return loss * self.weights.get(label, 1.0) if self.weights else loss


def fixed_by(task: Task, metric: Metric, rows: Iterable[Reference]) -> PairedLoss:
    """The loss by which a metric decides: of the judged rows offline, of those known when evidence begins online."""
    if task == "regression":
        errors = [abs(r.baselines.mean - float(r.label)) for r in rows if r.baselines.mean is not None]
        bound = CLIP * median(errors) if errors else 0.0
        kind: Kind = "squared error" if metric in SQUARED else "absolute error"
        return PairedLoss(kind, task, {}, bound or 1.0)  # labels that never change: any error counts by its size
    counts = Counter(row.label for row in rows)
    rarest = min(counts.values(), default=0)
    if metric in BALANCED or rarest < RARE * counts.total():
        return PairedLoss("class-weighted Brier", task, {label: rarest / count for label, count in counts.items()})
    return PairedLoss("0/1 loss" if metric in HARD else "Brier", task, {})


def usable(task: Task, value: Any) -> Any:
    """The answer if it can be compared, else None: missing, not finite, or no probability where one is due."""
    value = checked(task, value)
    if task == "binary" and not isinstance(value, bool | None) and not 0 <= value <= 1:
        return None
    if isinstance(value, dict) and not all(0 <= p <= 1 for p in value.values()):
        return None
    return value
