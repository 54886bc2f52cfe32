"""Histograms over bins that a reference sample fixes: quantiles for numbers, the commonest values for texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

BINS = 10
DISTINCT_AT_MOST = 20  # a number with so few values has a bin for each
POINT_MASS = 1.5 / BINS  # a value that makes up so much of the sample has a bin of its own


def edges(sample: Sequence[float], bins: int = BINS) -> NDArray[np.float64]:
    """The inner edges of about `bins` equally filled bins of a sample; a value belongs to the bin from its edge on.

    A value that fills more than a bin (the zeros of an amount, an integer of few values) gets one of its own, so that
    a change of its share is seen. Raises ValueError for an empty sample.
    """
    values = np.asarray(sample, dtype=np.float64)
    if not len(values):
        raise ValueError("bins need a sample")
    distinct, shares = np.unique(values, return_counts=True)
    if len(distinct) <= DISTINCT_AT_MOST:
        single = distinct
        inner = np.empty(0)
    else:
        single = distinct[shares >= POINT_MASS * len(values)]
        inner = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
    return np.unique(np.concatenate([inner, single, np.nextafter(single, np.inf)]))


def count_numbers(values: Sequence[float], inner: NDArray[np.float64]) -> Counts:
    """How many values fall in each of the `len(inner) + 1` bins."""
    places = np.searchsorted(inner, np.asarray(values, dtype=np.float64), side="right")
    return np.bincount(places, minlength=len(inner) + 1)


def commonest(values: Iterable[str], at_most: int) -> dict[str, int]:
    """The commonest values, each with its bin; ties go by the value itself."""
    counted = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    return {value: place for place, (value, _) in enumerate(counted[:at_most])}


def count_texts(values: Iterable[str], places: dict[str, int]) -> Counts:
    """How many values fall in each bin of `commonest`, and in a last one how many in none."""
    counts = np.zeros(len(places) + 1, dtype=np.int64)
    for value, n in Counter(values).items():
        counts[places.get(value, len(places))] += n
    return counts
