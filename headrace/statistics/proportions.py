"""Whether shares differ: of two samples, and of any of several groups against the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import erfc, sqrt
from typing import TypeVar

Group = TypeVar("Group")

SOURCE = "two proportions, Pearson 1900; Bonferroni, Dunn 1961"


def two_proportions(hits: int, n: int, others: int, m: int) -> float:
    """Two-sided p that `hits` of n and `others` of m have one share: the z-test with the pooled share.

    Its z² is Pearson's chi-square of the two-by-two table (1900), uncorrected. A normal approximation: for samples of
    some ten rows and more. 1.0 where all or none are hits.
    """
    pooled = (hits + others) / (n + m)
    spread = sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return erfc(abs(hits / n - others / m) / spread / sqrt(2)) if spread else 1.0


def bonferroni(p_values: Iterable[float]) -> float:
    """p that none of several hypotheses is false: the least p times their number (Dunn, Multiple Comparisons Among
    Means, JASA 56, 1961). 1.0 without any.

    >>> bonferroni([0.5, 0.01, 0.2])
    0.03
    """
    found = list(p_values)
    return min(min(found) * len(found), 1.0) if found else 1.0


def against_the_rest(hits: Mapping[Group, int], misses: Mapping[Group, int], at_least: int) -> Iterator[float]:
    """For each group p that its share of hits is that of all others together; groups or rests of fewer are left out."""
    all_hits = sum(hits.values())
    total = all_hits + sum(misses.values())
    if not 0 < all_hits < total:
        return
    for group in {**misses, **hits}:
        n = hits.get(group, 0) + misses.get(group, 0)
        if min(n, total - n) >= at_least:
            yield two_proportions(hits.get(group, 0), n, all_hits - hits.get(group, 0), total - n)
