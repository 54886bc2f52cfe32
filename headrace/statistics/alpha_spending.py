"""How often the k-th of many tests may be wrong, so that all together are wrong no more often than one may be.

The weights 6 / (pi² k²) sum to 1 over all k (Euler 1735), so by the union bound any test of an endless row is wrong
with probability alpha at most, whatever the tests share: alpha spending in its simplest form (Foster and Stine,
α-investing, JRSS B 70, 2008).
"""

from __future__ import annotations

from math import ceil, log, pi


def spent(alpha: float, k: int) -> float:
    """The share of alpha that the k-th test may spend, k = 1, 2 …

    >>> round(sum(spent(0.05, k) for k in range(1, 10_000)), 4)
    0.05
    """
    return alpha * 6 / (pi**2 * k**2)


def log_limit(alpha: float, rung: int) -> float:
    """The logarithm of the limit of E at a rung of the ladder: 1 / alpha at 0, then 1 / alpha_k for the k-th test."""
    return -log(alpha if rung == 0 else spent(alpha, rung))


def next_rung(rung: int) -> int:
    """Every one of the first ten, then a quarter more each time: strong evidence must not be told a thousand times."""
    return rung + 1 if rung < 10 else ceil(rung * 1.25)
