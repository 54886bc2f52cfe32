"""How long labels take: a histogram of their delays on a logarithmic scale, from which maturity is told.

Buckets that grow by a constant factor bound the relative error of every quantile, whatever the delays are (Masson, Rim
and Lee, DDSketch, VLDB 2019); halving all counts now and then is an exponential decay in steps, so old ones fade.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, log2

STEPS = 8  # buckets for each doubling: a quantile is at most 9 % too large, never too small
LONGEST_MS = 1 << 53  # of a garbled time; no label takes as long, and what is longer has no power of two to name it
KEPT = 4_096  # samples; at twice as many each counts half, so that the newest ones decide


@dataclass(slots=True)
class Delays:
    """Counts of delays by the logarithm of their milliseconds."""

    n: int = 0
    counts: dict[int, int] = field(default_factory=dict)

    def add(self, delay_ms: int) -> None:
        """Count one label's delay."""
        bucket = ceil(STEPS * log2(min(max(delay_ms, 0), LONGEST_MS) + 1))
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.n += 1
        if self.n >= 2 * KEPT:
            self.counts = {bucket: half for bucket, n in self.counts.items() if (half := n // 2)}
            self.n = sum(self.counts.values())

    def quantile_ms(self, share: float) -> int:
        """The delay within which this share of the labels came; 0 before the first."""
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= share * self.n:
                return ceil(2 ** (bucket / STEPS) - 1)
        return 0
