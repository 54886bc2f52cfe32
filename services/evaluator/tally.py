"""Sums of scores: row by row into the newest window, fading sums and running means; out again as reports.

A row's numbers stand in the order of its names. A corrected row replaces its numbers wherever it still counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from river import stats

from headrace.schemas.stream import Baselines, Label
from headrace.services.evaluator.scores import Task, brier, decided, has_probabilities, log_loss

WINDOW_ROWS = 1_000
FADING = 0.999  # a row weighs half after 693 more (Gama, Sebastião, Rodrigues 2013: prequential with fading factors)

NAMES: dict[tuple[Task, bool], tuple[str, ...]] = {
    ("binary", True): ("accuracy", "majority_accuracy", "last_accuracy", "logloss", "brier"),
    ("binary", False): ("accuracy", "majority_accuracy", "last_accuracy"),
    ("multiclass", True): ("accuracy", "majority_accuracy", "last_accuracy", "logloss", "brier"),
    ("multiclass", False): ("accuracy", "majority_accuracy", "last_accuracy"),
    ("regression", False): ("mae", "rmse", "mean_mae", "last_mae"),
}
ROOTS = {"rmse"}  # reported as the root of the mean
SHARES = {"accuracy", "majority_accuracy", "last_accuracy"}  # hits / rows, exact; the others are River's running mean

Scope = Literal["windowed", "fading", "cumulative"]


class Report(NamedTuple):
    """The scores of one scope over `n` rows."""

    scope: Scope
    n: int
    metrics: dict[str, float | None]


@dataclass(slots=True)
class Tally:
    """Sums over the rows of one run, or of one slice of them, from offset `first` on. `fades`: with fading sums."""

    names: tuple[str, ...]
    first: int
    fades: bool = True
    window: list[float] = field(init=False)
    fading: list[float] = field(init=False)
    total: list[Any] = field(init=False)
    n: int = 0
    window_n: int = 0
    window_start: int = 0
    window_end: int = 0
    fading_n: float = 0.0
    unreported: int = 0

    def __post_init__(self) -> None:
        self.fading = [0.0] * len(self.names)
        self.total = [0.0 if name in SHARES else stats.Mean() for name in self.names]
        self.begin_window(self.first)

    def begin_window(self, offset: int) -> None:
        """The next window begins here, empty."""
        self.window = [0.0] * len(self.names)
        self.window_n, self.window_start, self.window_end = 0, offset, offset

    def add(self, row: tuple[float, ...], offset: int) -> None:
        """Count one row."""
        self.n += 1
        self.window_n += 1
        self.unreported += 1
        self.window_end = offset + 1
        window, total = self.window, self.total
        if self.fades:
            self.fading_n = self.fading_n * FADING + 1
            fading = self.fading
            for index, x in enumerate(row):
                fading[index] = fading[index] * FADING + x
        for index, x in enumerate(row):
            window[index] += x
            if isinstance(total[index], float):
                total[index] += x
            else:
                total[index].update(x)

    def replace(self, old: tuple[float, ...], new: tuple[float, ...], offset: int, later: int = 0) -> None:
        """Count a row, which stands at `offset` with `later` rows of its run behind it, as another one."""
        if offset < self.first:
            return  # it was scored before this began, by sums that are gone
        self.unreported += 1
        weight = FADING**later
        for index, (was, x) in enumerate(zip(old, new, strict=True)):
            if offset >= self.window_start:
                self.window[index] += x - was
            self.fading[index] += (x - was) * weight
            if isinstance(self.total[index], float):
                self.total[index] += x - was
            else:
                self.total[index].revert(was)
                self.total[index].update(x)

    def reports(self) -> list[Report]:
        """The scores of every scope that has rows."""
        self.unreported = 0
        totals = [x / max(self.n, 1) if isinstance(x, float) else x.get() for x in self.total]
        means: tuple[tuple[Scope, int, list[float]], ...] = (
            ("windowed", self.window_n, [x / max(self.window_n, 1) for x in self.window]),
            ("fading", self.n if self.fades else 0, [x / max(self.fading_n, 1) for x in self.fading]),
            ("cumulative", self.n, totals),
        )
        return [Report(scope, n, self._named(values)) for scope, n, values in means if n]

    def _named(self, means: list[float]) -> dict[str, float | None]:
        named = zip(self.names, means, strict=True)
        return {name: max(mean, 0.0) ** 0.5 if name in ROOTS else mean for name, mean in named}


def numbers(task: Task, value: Any, label: Label, baselines: Baselines) -> tuple[float, ...]:
    """One row's numbers, in the order of `NAMES`; a baseline without an answer misses, or says 0."""
    if task == "regression":
        error = float(value) - float(label)
        mean, last = baselines.mean or 0.0, float(baselines.last or 0.0)
        return abs(error), error * error, abs(mean - float(label)), abs(last - float(label))
    hits = (
        float(decided(task, value) == label),
        float(baselines.majority is not None and baselines.majority == label),
        float(baselines.last is not None and baselines.last == label),
    )
    if not has_probabilities(task, value):
        return hits
    return (*hits, log_loss(task, value, label), brier(task, value, label))
