"""The flow of labels: do they come at all (silence), for enough predictions (coverage), and as fast as before (delay).

Ticks carry the joiner's count of predictions, so time and predictions are known where no label comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from headrace.schemas.policies import Labels
from headrace.statistics.delays import Delays

WINDOW = 1_000  # predictions of one coverage, labels of one median delay
KNOWN = 200  # labels from which on a delay counts as usual
MATURE, SILENT = 4, 3  # times the usual (p99) delay: a prediction is mature, a feed that says nothing is silent
SILENT_AT_LEAST_MS = 5 * 60_000
BY_CHANCE = 1e-6  # chance that so many predictions in a row go without a label, by the usual coverage
SLOWER, SLOW_AT_LEAST_MS = 4.0, 60_000
HYSTERESIS = 0.05
BUCKET = 64
BUCKETS_AT_MOST = 4_096  # open ones; beyond it every second is no longer followed
COVERED_AT_MOST = 0.9

Place = tuple[int, int]


class Said(NamedTuple):
    """What is wrong with the labels: the rule, its numbers, and from where on (offset and known time)."""

    rule: str
    numbers: dict[str, Any]
    since: Place


@dataclass(slots=True)
class Flow:
    """Labels against predictions, by the joiner's partitions. Bounded: histograms, and `BUCKETS_AT_MOST` counts."""

    policy: Labels = field(default_factory=Labels)
    delays: Delays = field(default_factory=Delays)
    newest: Delays = field(default_factory=Delays)
    newest_from: Place = (0, 0)
    usual_median: float | None = None
    first_ms: int | None = None
    labels: int = 0
    predicted: dict[int, int] = field(default_factory=dict)
    last_label: Place = (0, 0)
    at_last: int = 0
    mark: tuple[int, int] | None = None
    marks: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    buckets: dict[Place, int] = field(default_factory=dict)
    begun: dict[int, int] = field(default_factory=dict)
    unknown: int = 0
    stride: int = 1
    covered: tuple[int, int] = (0, 0)
    covered_from: Place | None = None
    told: dict[str, bool] = field(default_factory=lambda: {"silence": False, "coverage": False, "delay": False})

    def label(self, partition: int, number: int, delay_ms: int | None, place: Place) -> list[Said]:
        """A label came for the prediction of this number, at this offset and known time; history has no delay."""
        self.first_ms = place[1] if self.first_ms is None else self.first_ms
        self.labels += 1
        self._begin(partition, number)
        self.predicted[partition] = max(self.predicted.get(partition, 0), number + 1)
        self.last_label, self.at_last, self.mark = place, sum(self.predicted.values()), None
        self.told["silence"] = False
        bucket = number // BUCKET
        if bucket >= self.begun[partition] and not bucket % self.stride:
            self.buckets[partition, bucket] = self.buckets.get((partition, bucket), 0) + 1
            if len(self.buckets) > BUCKETS_AT_MOST:
                self._thin()
        if delay_ms is None:
            return []
        self.delays.add(delay_ms)
        if not self.newest.n:
            self.newest_from = place
        self.newest.add(delay_ms)
        return self._slower() if self.newest.n >= WINDOW else []

    def tick(self, partition: int, predicted: int, place: Place) -> list[Said]:
        """Time passed; the joiner's partition has had so many predictions."""
        self.first_ms = place[1] if self.first_ms is None else self.first_ms
        self._begin(partition, predicted)
        self.predicted[partition] = max(self.predicted.get(partition, 0), predicted)
        marks = self.marks.setdefault(partition, [])
        if predicted // BUCKET > (marks[-1][1] if marks else 0) // BUCKET:
            marks.append((place[1], predicted))
            if len(marks) > BUCKETS_AT_MOST:
                del marks[::2]
        return self._covered(partition, place) + self._silent(place)

    def mature_ms(self, now_ms: int) -> float:
        """How long after a prediction its label counts as missing: from the delays once a TTL of them is known."""
        if self.policy.mature_after_s is not None:
            return self.policy.mature_after_s * 1000
        ttl_ms = self.policy.ttl_s * 1000
        if self.delays.n < KNOWN or self.first_ms is None or now_ms - self.first_ms < ttl_ms:
            return ttl_ms
        return min(ttl_ms, MATURE * self.delays.quantile_ms(0.99))

    def settles_ms(self) -> float:
        """How long after a promotion labels come in their usual mix of fast and slow ones."""
        return min(self.policy.ttl_s * 1000, MATURE * self.delays.quantile_ms(0.99))

    def _covered(self, partition: int, place: Place) -> list[Said]:
        """Close the buckets of which every prediction is mature; judge each window of them."""
        marks, before_ms = self.marks[partition], place[1] - self.mature_ms(place[1])
        done = 0
        while done < len(marks) and marks[done][0] <= before_ms:
            done += 1
        if not done:
            return []
        said: list[Said] = []
        for bucket in range(self.begun[partition], marks[done - 1][1] // BUCKET):
            if not bucket % self.stride:
                came, n = self.covered
                self.covered = came + self.buckets.pop((partition, bucket), 0), n + BUCKET
                self.covered_from = self.covered_from or (place[0], marks[0][0])
                if self.covered[1] >= WINDOW:
                    said += self._judged()
        self.begun[partition] = marks[done - 1][1] // BUCKET
        del marks[:done]
        return said

    def _judged(self) -> list[Said]:
        (came, n), since, least = self.covered, self.covered_from or (0, 0), self.policy.min_coverage
        self.covered, self.covered_from = (0, 0), None
        share = came / n
        if share >= least + HYSTERESIS:
            self.told["coverage"] = False
        if share >= least or self.told["coverage"]:
            return []
        self.told["coverage"] = True
        return [Said("coverage", {"coverage": share, "limit": least, "predictions": n, "labels": came}, since)]

    def _silent(self, place: Place) -> list[Said]:
        """At most one look every three usual delays: of what was predicted by the last look nothing has a label."""
        if self.delays.n < KNOWN or self.told["silence"]:
            return []
        if self.mark is None:
            self.mark = place[1], sum(self.predicted.values())
            return []
        waits_ms = max(SILENT * self.delays.quantile_ms(0.99), SILENT_AT_LEAST_MS)
        if place[1] - self.mark[0] < waits_ms:
            return []
        silent = self.mark[1] - self.at_last
        usual = min(self.labels / max(self.at_last - self.unknown, 1), COVERED_AT_MOST)
        self.mark = place[1], sum(self.predicted.values())
        if silent <= 0 or silent * math.log1p(-usual) > math.log(BY_CHANCE):
            return []
        self.told["silence"] = True
        numbers = {
            "predictions": silent,
            "silent_s": (place[1] - self.last_label[1]) / 1000,
            "usual_delay_s": self.delays.quantile_ms(0.99) / 1000,
            "limit_s": waits_ms / 1000,
            "usual_coverage": usual,
        }
        return [Said("silence", numbers, self.last_label)]

    def _slower(self) -> list[Said]:
        median, since = self.newest.quantile_ms(0.5), self.newest_from
        self.newest = Delays()
        if self.usual_median is None:
            self.usual_median = median
            return []
        limit = max(SLOWER * self.usual_median, SLOW_AT_LEAST_MS)
        if median <= limit / 2:
            self.told["delay"] = False
        if median < limit or self.told["delay"]:
            return []
        self.told["delay"] = True
        numbers = {"delay_s": median / 1000, "usual_delay_s": self.usual_median / 1000, "limit_s": limit / 1000}
        return [Said("delay", {**numbers, "labels": WINDOW}, since)]

    def _begin(self, partition: int, number: int) -> None:
        """What was predicted before the first thing seen of a partition is not known, and not missing."""
        if partition not in self.begun:
            self.begun[partition] = -(-number // BUCKET)
            self.unknown += number

    def _thin(self) -> None:
        self.stride *= 2
        self.buckets = {place: count for place, count in self.buckets.items() if not place[1] % self.stride}
