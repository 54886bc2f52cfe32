"""One column: its values in a reference, in the newest window, and what was told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.schemas.contract import ContractSpec
from headrace.schemas.stream import Scalar
from headrace.statistics.bins import Counts, commonest, count_numbers, count_texts, edges
from headrace.statistics.distances import chi_square, dispersion, more_often, psi

QUARTERS = 4  # of a window: it slides by one
LARGEST = int(1e300)
TEXTS = 50  # values of a text column that have bins; a reference without others is closed: a new value is told
PROFILE = np.linspace(0.0, 1.0, 101)
MORE = 0.005  # missing or unseen values are told from this rise of their share on
RESTLESS = 2.0  # a column must change twice as much as it did within the reference
LIMIT_AT_MOST = 0.5
SETTLING = 4  # tests after an alert in which the changed rows still fill the window: they are the same change
CLEAN = 12  # tests, that is three windows, without a finding until a column may be told of anew
AGAIN = 2.0  # a column that was told of is told of again at so many times the change


Row = Mapping[str, Scalar]


class Part(NamedTuple):
    """A quarter of a window: counts by bin, missing values, and where it began."""

    counts: Counts
    missing: int
    rows: int
    offset: int
    known_ms: int

    def joined(self, later: Part) -> Part:
        """This one and the rows after it."""
        counts, missing, rows = self.counts + later.counts, self.missing + later.missing, self.rows + later.rows
        return Part(counts, missing, rows, self.offset, self.known_ms)


class Test(NamedTuple):
    """The newest window against the reference."""

    psi: float
    p: float
    missing: float
    p_missing: float
    unseen: float
    p_unseen: float


@dataclass(slots=True)
class Latch:
    """What was told stays told: anew only at twice its size, or after three windows without it."""

    told: float | None = None
    settling: int = 0
    clean: int = 1

    def hears(self, is_found: bool, size: float) -> bool:
        """Whether this is news."""
        if not is_found:
            self.clean, self.settling = self.clean + 1, 0
            if self.clean >= CLEAN:
                self.told = None
            return False
        self.clean = 0
        if self.told is None or (not self.settling and size >= AGAIN * self.told):
            self.told, self.settling = size, SETTLING
            return True
        if self.settling:
            self.told, self.settling = max(self.told, size), self.settling - 1
        return False


@dataclass(slots=True)
class Column:
    """A number or a text; `limit` is the change that its own reference makes unlikely."""

    name: str
    is_number: bool
    limit: float
    inner: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    places: dict[str, int] = field(default_factory=dict)
    is_closed: bool = False
    profile: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    counts: Counts = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    missing: int = 0
    rows: int = 0
    wanders: float = 1.0
    changed: Latch = field(default_factory=Latch)
    more_missing: Latch = field(default_factory=Latch)
    more_unseen: Latch = field(default_factory=Latch)

    def learn(self, halves: Sequence[Sequence[Row]]) -> None:
        """Take the two halves of the first reference: bins from both, and how much they differ."""
        given = [values_of(self, half) for half in halves]
        values: list[Any] = [value for half in given for value in half]
        if self.is_number:
            self.inner = edges(values or [0.0])
            self.profile = np.quantile(np.asarray(values or [0.0], dtype=np.float64), PROFILE)
        else:
            self.places = commonest(map(str, values), TEXTS)
            self.is_closed = len(set(map(str, values))) <= TEXTS
        first, second = map(self.count, given)
        if len(given[0]) and len(given[1]):
            self.rest(psi(first, second))
        self.wanders = dispersion([self.count(part) for half in given for part in quarters(half)])
        self.counts, self.rows = first + second, sum(map(len, halves))
        self.missing = self.rows - len(values)

    def rest(self, change: float) -> None:
        """The column changed so much without a cause: an alert needs twice of it."""
        self.limit = max(self.limit, min(RESTLESS * change, LIMIT_AT_MOST))

    def count(self, values: Sequence[Any]) -> Counts:
        """Values that are not missing, by bin."""
        return count_numbers(values, self.inner) if self.is_number else count_texts(map(str, values), self.places)

    def test(self, parts: Sequence[Part]) -> Test:
        """The window that the parts make."""
        counts = np.sum([part.counts for part in parts], axis=0)
        rows, missing = sum(part.rows for part in parts), sum(part.missing for part in parts)
        known, reference_known = rows - missing, self.rows - self.missing
        unseen = int(counts[-1]) if self.is_closed else 0
        unseen_before = int(self.counts[-1]) if self.is_closed else 0
        comparable = known > 0 and reference_known > 0
        return Test(
            psi=psi(self.counts, counts) if comparable else 0.0,
            p=chi_square(self.counts, counts, self.wanders) if comparable else 1.0,
            missing=missing / rows,
            p_missing=more_often(self.missing, self.rows, missing, rows),
            unseen=unseen / max(known, 1),
            p_unseen=more_often(unseen_before, reference_known, unseen, known),
        )

    def judge(self, test: Test, is_significant: tuple[bool, bool, bool]) -> dict[str, float]:
        """What is new of this column, with its numbers; empty where nothing is, or where it was told already."""
        missing_before = self.missing / max(self.rows, 1)
        changed = is_significant[0] and test.psi > self.limit
        more_missing = is_significant[1] and test.missing - missing_before >= MORE
        more_unseen = is_significant[2] and test.unseen >= MORE
        settling = any(latch.settling for latch in (self.changed, self.more_missing, self.more_unseen))
        found: dict[str, float] = {}
        if self.changed.hears(changed, test.psi):
            found |= {"psi": test.psi, "limit": self.limit, "p": test.p}
        if self.more_missing.hears(more_missing, test.missing):
            found |= {"missing": test.missing, "missing_before": missing_before, "p_missing": test.p_missing}
        if self.more_unseen.hears(more_unseen, test.unseen):
            found |= {"unseen": test.unseen, "p_unseen": test.p_unseen}
        return {} if settling else found  # what a second rule finds while the window fills is the same change

    def is_quiet(self) -> bool:
        """Whether the newest window said nothing of this column, new or not."""
        return bool(self.changed.clean and self.more_missing.clean and self.more_unseen.clean)

    def extend(self, parts: Sequence[Part]) -> None:
        """A window that differed little belongs to the reference."""
        self.counts = np.sum([self.counts, *(part.counts for part in parts)], axis=0)
        self.rows += sum(part.rows for part in parts)
        self.missing += sum(part.missing for part in parts)


def quarters(values: Sequence[Any]) -> list[Sequence[Any]]:
    """Four parts of equal length, in order."""
    length = max(1, len(values) // QUARTERS)
    return [values[place : place + length] for place in range(0, QUARTERS * length, length)]


def columns_of(contract: ContractSpec, limit: float) -> list[Column]:
    """A column for each feature of a contract."""
    return [Column(feature.name, feature.type in ("float", "int"), limit) for feature in contract.features]


def values_of(column: Column, rows: Sequence[Row]) -> list[Any]:
    """What the rows have in a column, without the missing ones; whole numbers beyond a float's reach are cut."""
    name = column.name
    values = [row[name] for row in rows if name in row]
    if column.is_number and values:
        try:
            float(max(values)), float(min(values))
        except OverflowError:
            return [min(max(value, -LARGEST), LARGEST) for value in values]
    return values
