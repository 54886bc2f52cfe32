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
        """No prediction below this running number waits any more."""
        bucket = self.next_bucket.get(partition, 0)
        while (bucket + 1) * BUCKET_NUMBERS <= number:
            self.came += self.buckets.pop((partition, bucket), 0)
            self.matured += BUCKET_NUMBERS
            bucket += 1
        self.next_bucket[partition] = bucket

    def share(self) -> float | None:
        """Labels / predictions, None before the first bucket is complete."""
        return self.came / self.matured if self.matured else None
