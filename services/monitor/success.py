"""Whether the champion meets `Success`, the one absolute limit: asked of every thousand rows that it answered.

One window that misses it may be chance; two of them, one after the other, are told. Then one that meets it is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headrace.schemas.policies import Success
from headrace.schemas.stream import Label
from headrace.services.evaluator.running_metric import RunningMetric, part_of
from headrace.services.evaluator.scores import Task, checked, decided

WINDOW = 1_000
IN_A_ROW = 2

Place = tuple[int, int]  # offset and known time


@dataclass(slots=True)
class Bar:
    """The limit, the metric over the window at hand, and since where windows have missed it."""

    task: Task
    success: Success
    window: RunningMetric = field(init=False)
    begins: Place | None = None
    missed: int = 0
    since: Place | None = None
    value: float = 0.0

    def __post_init__(self) -> None:
        self.window = RunningMetric(self.success.metric)

    @property
    def is_missed(self) -> bool:
        """Whether as many windows as it takes missed it, and none met it since."""
        return self.missed >= IN_A_ROW

    def turns(self, answer: Any, label: Label, place: Place) -> bool:
        """Count one answer, where it is usable; True where by it the limit is missed, or is met again."""
        value, metric = checked(self.task, answer), self.success.metric
        if value is None:
            return False
        if self.begins is None:
            self.begins = place
        self.window.add(label, decided(self.task, value), part_of(metric, self.task, value, label))
        return self.window.n >= WINDOW and self._judge()

    def _judge(self) -> bool:
        before, value = self.is_missed, self.window.get()
        assert value is not None
        self.value = value
        if self.success.is_met(value):
            self.missed = 0
        else:
            self.since = self.begins if not self.missed else self.since
            self.missed += 1
        self.window, self.begins = RunningMetric(self.success.metric), None
        return self.is_missed != before

    def numbers(self) -> dict[str, Any]:
        """The newest whole window's score and what was asked for."""
        return {
            "metric": self.success.metric, "value": self.value, "asked": self.success.asked, "rows": WINDOW,
        }  # fmt: skip
