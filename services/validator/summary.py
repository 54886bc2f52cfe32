"""What one window of validated examples looked like, column by column, summed up at its end with builtins in C."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from headrace.schemas.contract import FeatureSpec
from headrace.schemas.control import FeatureSummary

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
TOP = 10
TEXT_SHOWN = 100


def summarise(features: tuple[FeatureSpec, ...], rows: list[tuple[Any, ...]]) -> dict[str, FeatureSummary]:
    """A summary for each column; `rows` hold the values in the contract's order, None where absent."""
    if not rows:
        return {}
    return {f.name: _summary(f, column, len(rows)) for f, column in zip(features, zip(*rows, strict=True), strict=True)}


def _summary(f: FeatureSpec, column: tuple[Any, ...], n: int) -> FeatureSummary:
    values = [value for value in column if value is not None] if f.optional else column
    missing = n - len(values)
    if not values:
        return FeatureSummary(n=0, missing=missing)
    if f.type == "bool":
        return FeatureSummary(n=len(values), missing=missing, mean=sum(values) / len(values))
    if f.type == "str":
        top = Counter(values).most_common(TOP)
        return FeatureSummary(n=len(values), missing=missing, top={text[:TEXT_SHOWN]: count for text, count in top})
    ordered = sorted(values)
    mean = sum(values) / len(values)
    # The distance from the mean keeps the precision that a sum of squares would lose on large means.
    sd = math.dist(values, [mean] * len(values)) / math.sqrt(len(values))
    last = len(ordered) - 1
    return FeatureSummary(
        n=len(values),
        missing=missing,
        mean=_finite(mean),
        sd=_finite(sd),
        min=ordered[0],
        max=ordered[-1],
        quantiles=tuple(ordered[round(q * last)] for q in QUANTILES),
    )


def _finite(value: float) -> float | None:
    """None where the values are so large that their sum overflows."""
    return value if math.isfinite(value) else None
