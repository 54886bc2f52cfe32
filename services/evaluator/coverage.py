"""Label coverage: of the predictions that wait no longer, how many got their label."""

from __future__ import annotations

from dataclasses import dataclass, field

BUCKET_NUMBERS = 64  # whole buckets of predictions are counted: a million pending ones are 16,000 numbers


@dataclass(slots=True)
class Coverage:
    """Labels that came and predictions that wait no longer, counted per joiner partition."""

    came: int = 0
    matured: int = 0
    buckets: dict[tuple[int, int], int] = field(default_factory=dict)
    next_bucket: dict[int, int] = field(default_factory=dict)

    def came_in(self, partition: int, number: int, *, is_label: bool) -> None:
        """The prediction of this running number was joined, with a label or (`is_label` false) with a stand-in."""
        if is_label:
            bucket = partition, number // BUCKET_NUMBERS
            self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def wait_from(self, partition: int, number: int) -> None:
        """No prediction below this running number waits any more.

        Looks at the buckets that hold labels only: a number that no joiner ever reached costs no time.
        """
        first, end = self.next_bucket.get(partition, 0), number // BUCKET_NUMBERS
        if end <= first:
            return
        passed = range(first, end)
        few = end - first <= len(self.buckets)  # the length of a range has 63 bits
        full = passed if few else [b for p, b in self.buckets if p == partition]
        self.came += sum(self.buckets.pop((partition, bucket), 0) for bucket in full if bucket in passed)
        self.matured += BUCKET_NUMBERS * (end - first)
        self.next_bucket[partition] = end

    def share(self) -> float | None:
        """Labels / predictions, None before the first bucket is complete."""
        return self.came / self.matured if self.matured else None
