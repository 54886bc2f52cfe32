"""The loss that decides, in [0, 1], of one of the champion's answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from headrace.schemas.policies import Metric
from headrace.schemas.stream import Label
from headrace.services.evaluator.paired_loss import CLIP, HARD, SQUARED, PairedLoss
from headrace.services.evaluator.scores import Task, checked

BOUND_ROWS = 200


@dataclass(slots=True)
class Loss:
    """Of a task and the metric of `Success`: the gates' loss, without weights of rare classes.

    Errors of numbers are divided by a bound from the *baseline's* errors in the first rows: from its own a model that
    diverges would set its own limit. Until the bound stands there is no `fixed` loss.
    """

    task: Task
    metric: Metric
    errors: list[float] = field(default_factory=list)
    fixed: PairedLoss | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.task != "regression":
            self.fixed = PairedLoss("0/1 loss" if self.metric in HARD else "Brier", self.task, {})

    def learn(self, label: Label, mean: float | None) -> None:
        """Take a row's baseline into the bound, until it stands."""
        if self.fixed is not None or mean is None:
            return
        self.errors.append(abs(float(label) - mean))
        if len(self.errors) >= BOUND_ROWS:
            bound = CLIP * (median(self.errors) or fmean(self.errors)) or 1.0
            self.fixed = PairedLoss(
                "squared error" if self.metric in SQUARED else "absolute error", self.task, {}, bound
            )
            self.errors = []

    def of(self, answer: Any, label: Label) -> float | None:
        """The loss; 1 for no usable answer; None while the bound is not known."""
        return None if self.fixed is None else self.fixed.of(checked(self.task, answer), label)
