"""Where in a row of losses the change began."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import xlogy

SHORTEST = 20  # rows on each side: a split off of a few rows says nothing


def change_point(losses: Sequence[float], shortest: int = SHORTEST) -> int | None:
    """The index of the first loss after the likeliest change of the mean of losses in [0, 1]; None if too few.

    Maximum likelihood of two Bernoulli means against one (Hinkley and Hinkley, Inference about the Change-Point in a
    Sequence of Binomial Variables, Biometrika 57, 1970); for losses between 0 and 1 the same as a quasi-likelihood.
    """
    values = np.asarray(losses, dtype=np.float64)
    n = len(values)
    if n < 2 * shortest:
        return None
    sums = np.cumsum(values)
    before = np.arange(1, n)
    left, right = sums[:-1], sums[-1] - sums[:-1]
    likelihood = _best(left, before) + _best(np.maximum(right, 0.0), n - before)
    likelihood[: shortest - 1] = likelihood[n - shortest :] = -np.inf
    return int(np.argmax(likelihood)) + 1


def _best(hits: np.ndarray, n: np.ndarray) -> np.ndarray:
    misses = np.maximum(n - hits, 0.0)
    return np.asarray(xlogy(hits, hits / n) + xlogy(misses, misses / n))
