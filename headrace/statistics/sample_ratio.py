"""Whether the arms of an experiment got the shares they should: the sample-ratio test.

A ratio that is off says that the experiment is broken (units that change sides, answers that get lost), so whatever
else it shows is not believed (Fabijan et al., Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD
2019).
"""

from __future__ import annotations

from scipy.special import bdtr, bdtrc

SOURCE = "exact binomial test, Clopper and Pearson 1934; sample ratio, Fabijan et al. 2019"


def sample_ratio(seen: int, n: int, share: float) -> float:
    """Two-sided p that an arm which is due this share of n independent units has so many: the exact binomial test.

    Twice the smaller tail, 1 at most (Clopper and Pearson, Biometrika 26, 1934). Raises ValueError where the numbers
    make no sense.

    >>> sample_ratio(3, 30, 0.1)
    1.0
    >>> sample_ratio(30, 100, 0.1) < 1e-6
    True
    """
    if not 0 <= seen <= n or not 0 < share < 1:
        raise ValueError(f"no sample ratio: {seen} of {n}, at a share of {share}")
    at_most = float(bdtr(seen, n, share))
    at_least = float(bdtrc(seen - 1, n, share)) if seen else 1.0
    return min(1.0, 2 * min(at_most, at_least))
