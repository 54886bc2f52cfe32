"""Whether two histograms over the same bins differ, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import bdtrc, chdtrc

EXPECTED_AT_LEAST = 5.0  # Cochran 1954: bins with fewer expected counts are taken together
MORE_OFTEN_SOURCE = "binomial test given the sum, Przyborowski and Wilenski 1940"
SMOOTHING = 0.5  # Jeffreys' prior: an empty bin must not make the index infinite


def psi(reference: Any, current: Any) -> float:
    """Population stability index of two histograms: the sum of (p - q) ln(p / q), symmetric, 0 for equal shares.

    It is the divergence J of Jeffreys (1946), named so in credit scoring (Siddiqi, Credit Risk Scorecards, 2006);
    with no change its mean is about (bins - 1)(1/n + 1/m) (Yurdakul, Statistical Properties of PSI, 2018). Shares
    are smoothed by half a count a bin; bins that are empty in both do not count.
    """
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    used = (a + b) > 0
    a, b = a[used] + SMOOTHING, b[used] + SMOOTHING
    p, q = a / a.sum(), b / b.sum()
    return float(((p - q) * np.log(p / q)).sum())


def dispersion(parts: Sequence[Any]) -> float:
    """How many times more the parts of one stretch of rows differ than independent rows would: 1 or more.

    The mean of each part's PSI against the others, over what theory expects of it (see `psi`): a first-order design
    effect in the sense of Rao and Scott, with the parts as clusters. It sees what wanders within a part's length.
    """
    counts = [np.asarray(part, dtype=np.float64) for part in parts]
    total, found = np.sum(counts, axis=0), []
    bins = int((total > 0).sum())
    for part in counts:
        n, rest = part.sum(), total.sum() - part.sum()
        if n and rest and bins > 1:
            found.append(psi(total - part, part) / ((bins - 1) * (1 / n + 1 / rest)))
    return max(1.0, float(np.mean(found))) if found else 1.0


def chi_square(reference: Any, current: Any, dispersion: float = 1.0) -> float:
    """p of Pearson's chi-square test (1900) that two histograms come from one distribution.

    Bins of which either sample is expected to hold fewer than five are taken together (Cochran, Some Methods for
    Strengthening the Common χ² Tests, Biometrics 10, 1954). Rows that follow from each other weigh less: the
    statistic is divided by their `dispersion` (Rao and Scott, The Analysis of Categorical Data from Complex Sample
    Surveys, JASA 76, 1981). 1.0 where nothing can be compared.
    """
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    n, m = a.sum(), b.sum()
    if not n or not m:
        return 1.0
    both = a + b
    rare = both * min(n, m) / (n + m) < EXPECTED_AT_LEAST
    if rare.any():
        a = np.append(a[~rare], a[rare].sum())
        b = np.append(b[~rare], b[rare].sum())
        both = a + b
    used = both > 0
    a, b, both = a[used], b[used], both[used]
    if len(both) < 2:
        return 1.0
    expected_a, expected_b = both * n / (n + m), both * m / (n + m)
    statistic = ((a - expected_a) ** 2 / expected_a).sum() + ((b - expected_b) ** 2 / expected_b).sum()
    return float(chdtrc(len(both) - 1, statistic / dispersion))


def benjamini_hochberg(p_values: Sequence[float], rate: float) -> list[bool]:
    """Which hypotheses to reject so that at most `rate` of the rejections are expected to be false.

    Benjamini and Hochberg, Controlling the False Discovery Rate, J. R. Stat. Soc. B 57 (1995): the largest k whose
    k-th smallest p is at most rate · k / m; that one and all smaller ones are rejected.
    """
    limit = -math.inf
    for k, p in enumerate(sorted(p_values), 1):
        if p <= rate * k / len(p_values):
            limit = p
    return [p <= limit for p in p_values]


def more_often(reference: int, n: int, current: int, m: int) -> float:
    """p of the one-sided test that something seen `current` times in m rows is not commoner than `reference` in n.

    Given the sum, the newer count is binomial with m / (n + m) where both rates are equal (Przyborowski and Wilenski,
    Homogeneity of Results in Testing Samples from Poisson Series, Biometrika 31, 1940): exact for rare things, and
    safe for common ones.
    """
    if not current or not n or not m:
        return 1.0
    return float(bdtrc(current - 1, reference + current, m / (n + m)))
