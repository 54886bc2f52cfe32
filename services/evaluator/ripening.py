"""Labelled rows in the order of their predictions, behind a maturity mark.

Labels that come faster for one class than for another make the newest labels a biased sample: taken as they arrive,
they promote a model that is worse. So a row waits until every earlier prediction of its partition is labelled, or is
older than labels usually take; a label that comes after that is missing, for every row alike.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from zlib import crc32

import msgspec

from headrace.schemas.record import BEFORE_ALL_MS
from headrace.schemas.stream import Label

WAITING = 1_000_000  # rows; beyond, a hash of the prediction's number thins what waits and what comes
ROWS_A_STEP = 200  # taken out at most: a step stays short, and every input takes more than it brings
_PARTITION_BITS, _STAGE_BITS = 14, 2


class Pair(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a comparison needs of one row, of the old arm and of the new one; `said` None: no usable answer.

    `rivals` are the losses of the majority (mean) and of no change; `slices` those that the row is in. `shed`: the
    new one was not asked, for it had used up its time in shadow.
    """

    label: Label
    losses: tuple[float, float]
    said: tuple[Label | None, Label | None]
    parts: tuple[float, float]
    rivals: tuple[float, float]
    slices: tuple[str, ...] = ()
    shed: bool = False


class Waiting(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A labelled row that waits for earlier ones; without a pair it counts for the coverage only."""

    predicted_at_ms: int
    pair: Pair | None = None


Table = MutableMapping[int, Waiting]


@dataclass(slots=True)
class Lane:
    """The rows of one partition: the numbers of the first pair, of the next and the last that wait, of the last taken.

    -1 stands for none. `clock_ms` is the partition's own: a lagging one must not look late beside a fast one.
    """

    first: int
    head: int = -1
    top: int = -1
    taken: int = -1
    pending_from: int = 0
    clock_ms: int = BEFORE_ALL_MS


@dataclass(slots=True)
class Ripening:
    """What waits for one comparison, number `stage`. `mature_ms` None: every prediction gets a label in the end.

    `came` of `matured` predictions had their label in time, `late` ones had not; one row in 2 ** `halvings` counts.
    """

    stage: int
    mature_ms: int | None
    lanes: dict[int, Lane] = field(default_factory=dict)
    waiting: int = 0
    halvings: int = 0
    came: int = 0
    matured: float = 0.0
    late: int = 0

    def put(self, table: Table, place: tuple[int, int], row: Waiting, pending_from: int, known_ms: int) -> bool:
        """Let the row of this partition and number wait; True where its label came too late for that.

        A row before the first pair is none of this comparison.
        """
        partition, number = place
        lane = self.lanes.get(partition)
        if lane is None or number < lane.first:
            if row.pair is None:
                return False
            lane = self.lanes.setdefault(partition, Lane(number))
            lane.first = number
        self.pass_on(partition, pending_from, known_ms)
        if self._is_mature(lane, row) or number <= lane.taken:
            self.late += 1
            return True
        if not self._is_kept(number):
            return False
        table[self._key(partition, number)] = row
        self.waiting += 1
        lane.top = max(lane.top, number)
        if lane.head < 0 or number < lane.head:
            lane.head = number
        if self.waiting > WAITING:
            self._thin(table)
        return False

    def pass_on(self, partition: int, pending_from: int, known_ms: int) -> None:
        """No prediction of the partition below this number waits any more; its clock shows this time."""
        lane = self.lanes.get(partition)
        if lane is not None:
            lane.pending_from = max(lane.pending_from, pending_from)
            lane.clock_ms = max(lane.clock_ms, known_ms)

    def take(self, table: Table) -> list[Pair]:
        """The pairs that are ripe, in the order of their predictions, as many as one step may take."""
        pairs: list[Pair] = []
        room = ROWS_A_STEP
        for partition, lane in self.lanes.items():
            while lane.head >= 0 and room:
                key = self._key(partition, lane.head)
                row = table[key]
                if lane.head >= lane.pending_from and not self._is_mature(lane, row):
                    break
                del table[key]
                room -= 1
                self.waiting -= 1
                self.came += 1
                self.matured += (lane.head - lane.taken if lane.taken >= 0 else 1) / 2**self.halvings
                lane.taken = lane.head
                lane.head = self._next(table, partition, lane)
                if row.pair is not None:
                    pairs.append(row.pair)
        return pairs

    def coverage(self) -> float | None:
        """The share of mature predictions whose label came in time."""
        return min(self.came / self.matured, 1.0) if self.matured else None

    def clear(self, table: Table) -> None:
        """Forget what waits."""
        for partition, lane in self.lanes.items():
            while lane.head >= 0:
                del table[self._key(partition, lane.head)]
                lane.taken = lane.head
                lane.head = self._next(table, partition, lane)
        self.waiting = 0

    def _is_mature(self, lane: Lane, row: Waiting) -> bool:
        return self.mature_ms is not None and lane.clock_ms - row.predicted_at_ms > self.mature_ms

    def _next(self, table: Table, partition: int, lane: Lane) -> int:
        for number in range(lane.taken + 1, lane.top + 1):
            if self._key(partition, number) in table:
                return number
        return -1

    def _is_kept(self, number: int) -> bool:
        return not self.halvings or not crc32(number.to_bytes(8, "big")) % 2**self.halvings

    def _thin(self, table: Table) -> None:
        """Every second row goes, by a hash that knows neither arm nor label, and of the later ones as many."""
        self.halvings += 1
        for partition, lane in self.lanes.items():
            first = -1
            for number in range(lane.head, lane.top + 1) if lane.head >= 0 else ():
                key = self._key(partition, number)
                if key in table:
                    if self._is_kept(number):
                        first = number if first < 0 else first
                    else:
                        del table[key]
                        self.waiting -= 1
            lane.head = first

    def _key(self, partition: int, number: int) -> int:
        return ((number << _PARTITION_BITS) | partition) << _STAGE_BITS | self.stage
