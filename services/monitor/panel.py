"""Columns watched together: a reference, a window that slides by a quarter, one test of all columns at each quarter.

The reference is two windows; windows that differ little join it until it has five. A column is told of where the
chi-square test finds a change at the false discovery rate over all columns *and* the change is large (PSI), or where
more values are missing, or where values come that a closed column never had. Season and autocorrelation make every
test significant; so a column that moved within the reference must move twice as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.schemas.policies import Drift
from headrace.services.monitor.columns import QUARTERS, Column, Part, Row, Test, values_of
from headrace.statistics.distances import benjamini_hochberg, psi

REFERENCE_WINDOWS = 5
PIECE = 250  # rows kept as they are, and what a diagnosis looks at; a longer quarter is counted in pieces
KEPT_ROWS = 1_000  # at least, of each half of the first reference; windows of twice as many and more are thinned evenly
CORRELATED_AT_MOST = 32  # number columns whose correlations are kept: 8 kB
SEASON_PSI = 0.25


class Finding(NamedTuple):
    """What is new: numbers of each column, the newest rows, and where the change began."""

    columns: dict[str, dict[str, float]]
    offset: int
    known_ms: int
    rows: list[Row]


@dataclass(slots=True)
class Panel:
    """The columns of one topic's rows. `window` and `fdr` are the policies'; state is bounded by the columns."""

    columns: list[Column]
    window: int
    fdr: float
    rows: list[Row] = field(default_factory=list)
    halves: tuple[list[Row], list[Row]] | None = field(default_factory=lambda: ([], []))
    parts: dict[str, list[Part]] = field(default_factory=dict)
    correlations: NDArray[np.float64] | None = None
    counted: int = 0
    seen: int = 0
    since: tuple[int, int] = (0, 0)
    merged: int = 2
    fresh: int = 0

    def add(self, row: Row, offset: int, known_ms: int) -> Finding | None:
        """Take a row in; what is new, at the end of a quarter."""
        self.seen += 1
        if self.halves is not None:
            self._refer(row)
            return None
        if not self.rows:
            self.since = offset, known_ms
        self.rows.append(row)
        left = self.window // QUARTERS - self.counted - len(self.rows)
        if left > 0 and len(self.rows) < PIECE:
            return None
        rows, self.rows = self.rows, []
        for column in self.columns:
            values, parts = values_of(column, rows), self.parts.setdefault(column.name, [])
            part = Part(column.count(values), len(rows) - len(values), len(rows), *self.since)
            if self.counted:
                parts[-1] = parts[-1].joined(part)
            else:
                self.parts[column.name] = [*parts, part][-QUARTERS:]
        self.counted = self.counted + len(rows) if left > 0 else 0
        if left > 0 or len(next(iter(self.parts.values()), ())) < QUARTERS:
            return None
        return self._test(rows)

    def _refer(self, row: Row) -> None:
        assert self.halves is not None
        if not self.seen % max(1, self.window // KEPT_ROWS):
            self.halves[self.seen > self.window].append(row)
        if self.seen < 2 * self.window:
            return
        for column in self.columns:
            column.learn(self.halves)
        self.correlations = correlations(self.columns, [row for half in self.halves for row in half])
        self.halves = None

    def _test(self, rows: list[Row]) -> Finding | None:
        tests = [column.test(self.parts[column.name]) for column in self.columns]
        families = [[getattr(test, name) for test in tests] for name in ("p", "p_missing", "p_unseen")]
        significant = zip(*(benjamini_hochberg(family, self.fdr) for family in families), strict=True)
        found: dict[str, dict[str, float]] = {}
        for column, test, one in zip(self.columns, tests, significant, strict=True):
            numbers = column.judge(test, one)
            if numbers:
                found[column.name] = numbers
        self.fresh += 1
        if all(column.is_quiet() for column in self.columns):
            self._extend(tests)
        if not found:
            return None
        first = min(self._began(column) for column in self.columns if column.name in found)
        return Finding(found, *first, rows)

    def _extend(self, tests: list[Test]) -> None:
        """Nothing stands out: a whole new window joins the reference while that is small."""
        if self.merged >= REFERENCE_WINDOWS or self.fresh < QUARTERS:
            return
        for column, test in zip(self.columns, tests, strict=True):
            column.rest(test.psi)
            column.extend(self.parts[column.name])
        self.merged, self.fresh = self.merged + 1, 0

    def _began(self, column: Column) -> tuple[int, int]:
        """The first quarter of the window that differs as the newest one does, by half of it at least."""
        parts = self.parts[column.name]
        changes = [_change(column, part) for part in parts]
        first = len(parts) - 1
        while first and changes[first - 1] >= changes[-1] / 2:
            first -= 1
        return parts[first].offset, parts[first].known_ms


def panel_of(columns: list[Column], policy: Drift) -> Panel:
    """A panel with the policies' window; with a season it holds whole ones."""
    season = policy.season or 1
    return Panel(columns, season * math.ceil(policy.window / season), policy.fdr)


def limit_of(policy: Drift) -> float:
    """The PSI from which a change is told: with a season at least .25."""
    return max(policy.psi, SEASON_PSI) if policy.season else policy.psi


def correlations(columns: list[Column], rows: list[Row]) -> NDArray[np.float64] | None:
    """Of the number columns, over the rows that have them all; None for too few or too many."""
    names = [column.name for column in columns if column.is_number]
    full = [row for row in rows if all(name in row for name in names)]
    if not 2 <= len(names) <= CORRELATED_AT_MOST or len(full) < 2 * len(names) + 20:
        return None
    numbers = [column for column in columns if column.is_number]
    matrix = np.asarray([values_of(column, full) for column in numbers], dtype=np.float64)
    if (matrix.std(axis=1) == 0).any():
        return None
    return np.asarray(np.corrcoef(matrix))


def _change(column: Column, part: Part) -> float:
    missing = part.missing / part.rows - column.missing / max(column.rows, 1)
    return psi(column.counts, part.counts) + max(missing, 0.0)
