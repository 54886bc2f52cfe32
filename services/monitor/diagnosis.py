"""What a change of the inputs looks like: a column missing, constant, in another unit, swapped or shifted.

Each needs evidence beyond "it changed", taken from the newest quarter of the window; without any, nothing is claimed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.services.monitor.columns import Column, Row, values_of
from headrace.services.monitor.panel import Panel, correlations
from headrace.statistics.distances import psi

ALIKE = 0.35  # PSI below which a quarter of a window looks like a reference: its noise alone makes about .05
BETTER = 4.0  # times that an explanation must fit better than "nothing is mixed up"
GONE = 0.95
NAMED = 3
UNITS: tuple[tuple[float, float, str], ...] = (
    (1.8, 32.0, "°C became °F"),
    (1 / 1.8, -32 / 1.8, "°F became °C"),
    (1.0, 273.15, "°C became K"),
    (1.0, -273.15, "K became °C"),
    (3.6, 0.0, "m/s became km/h"),
    (1 / 3.6, 0.0, "km/h became m/s"),
    (2.23694, 0.0, "m/s became mph"),
    (1.609344, 0.0, "miles became km"),
    (1 / 1.609344, 0.0, "km became miles"),
    (0.3048, 0.0, "feet became metres"),
    (1 / 0.3048, 0.0, "metres became feet"),
    (2.54, 0.0, "inches became cm"),
    (25.4, 0.0, "inches became mm"),
    (33.8639, 0.0, "inHg became hPa"),
    (0.453592, 0.0, "pounds became kg"),
    (1 / 0.453592, 0.0, "kg became pounds"),
    (60.0, 0.0, "minutes became seconds"),
    (1 / 60, 0.0, "seconds became minutes"),
    *((10.0**k, 0.0, f"a factor of {10**k:,}") for k in (1, 2, 3, 6)),
    *((10.0**-k, 0.0, f"a factor of 1/{10**k:,}") for k in (1, 2, 3, 6)),
)
UNIT_TOLERANCE = 0.06  # of the factor; the shift may be off by as much of the spread


def diagnose(panel: Panel, names: Sequence[str], rows: Sequence[Row]) -> str | None:
    """A sentence on the columns `names` that changed, from the newest rows; None where nothing fits."""
    changed = [column for column in panel.columns if column.name in names]
    told = [said for column in changed if (said := _broken(column, rows)) is not None]
    if not told:
        mixed = _shifted(panel, rows) or _mixed_up(panel, changed, rows)
        told = [mixed] if mixed else [said for column in changed if (said := _unit(column, rows)) is not None]
    if not told:
        told = [said for column in changed if (said := _unseen(column, rows)) is not None]
    return "; ".join(told[:NAMED]) or None


def _broken(column: Column, rows: Sequence[Row]) -> str | None:
    values = values_of(column, rows)
    if len(values) <= (1 - GONE) * len(rows) and column.missing < 0.5 * column.rows:
        return f"`{column.name}` is missing"
    distinct = set(values)
    if len(distinct) == 1 and len(values) > 1:
        (value,) = distinct
        before = column.counts[int(np.argmax(column.count([value])))] / max(column.counts.sum(), 1)
        if before < 0.5:
            return f"`{column.name}` is constantly {value}"
    return None


def _shifted(panel: Panel, rows: Sequence[Row]) -> str | None:
    """Every number column holds the values of a neighbour: the mapping of the columns moved, as a whole."""
    numbers = [column for column in panel.columns if column.is_number]
    now = correlations(panel.columns, list(rows))
    if panel.correlations is None or now is None or len(numbers) < 3:
        return None
    scores = {shift: _misfit(panel, numbers, now, rows, shift) for shift in range(len(numbers))}
    best = min(scores, key=scores.__getitem__)
    others = [score for shift, score in scores.items() if shift != best]
    if best == 0 or scores[best] * 2 > min(others):
        return None
    example = ", ".join(
        f"`{column.name}` holds `{numbers[(place + best) % len(numbers)].name}`"
        for place, column in enumerate(numbers[:NAMED])
    )
    left = len(numbers) - best
    by = f"{best} to the left" if best <= left else f"{left} to the right"
    return f"the columns look shifted by {by}: {example}, …"


def _misfit(panel: Panel, numbers: list[Column], now: NDArray[np.float64], rows: Sequence[Row], shift: int) -> float:
    """How badly "column i holds column i + shift" fits: mean gap of the correlations, and of the spreads."""
    assert panel.correlations is not None
    places = [(place + shift) % len(numbers) for place in range(len(numbers))]
    gap = float(np.abs(panel.correlations[np.ix_(places, places)] - now).mean())
    stretched = [
        abs(np.log((_spread(numbers[place].profile) + 1e-9) / (_spread(values_of(column, rows)) + 1e-9)))
        for column, place in zip(numbers, places, strict=True)
    ]
    return gap + float(np.mean(stretched))


def _mixed_up(panel: Panel, changed: list[Column], rows: Sequence[Row]) -> str | None:
    """A changed column looks as another one did: swapped where both do, else a wrong source."""
    like: dict[str, str] = {}
    for column in changed:
        values: list[Any] = values_of(column, rows)
        alike = {
            other.name: psi(other.counts, other.count(values))
            for other in panel.columns
            if other is not column and other.is_number == column.is_number and len(other.profile) and values
        }
        if not alike:
            continue
        ordered = sorted(alike, key=alike.__getitem__)
        own, best = psi(column.counts, column.count(values)), alike[ordered[0]]
        rival = alike[ordered[1]] if len(ordered) > 1 else own
        if best < ALIKE and best * BETTER < own and best * 2 < rival:
            like[column.name] = ordered[0]
    for name, other in like.items():
        if like.get(other) == name:
            return f"`{name}` and `{other}` look swapped"
    told = [f"`{name}` now looks like `{other}` did" for name, other in like.items()]
    return "; ".join(told[:NAMED]) or None


def _unit(column: Column, rows: Sequence[Row]) -> str | None:
    """The values are the old ones times a factor plus a shift that a change of unit makes."""
    values: list[Any] = values_of(column, rows)
    if not column.is_number or not values or _spread(column.profile) == 0:
        return None
    now = np.quantile(np.asarray(values, dtype=np.float64), (0.1, 0.25, 0.5, 0.75, 0.9))
    before = column.profile[[10, 25, 50, 75, 90]]
    own = psi(column.counts, column.count(values))
    for factor, shift, said in UNITS:
        back = (np.asarray(values, dtype=np.float64) - shift) / factor
        fits = psi(column.counts, column.count(back))  # type: ignore[arg-type]
        moved = np.abs((now - shift) / factor - before).max() / (before[4] - before[0] or 1.0)
        if fits < ALIKE and fits * BETTER < own and moved < 3 * UNIT_TOLERANCE:
            return f"the unit of `{column.name}` looks changed: {said}"
    return None


def _unseen(column: Column, rows: Sequence[Row]) -> str | None:
    if column.is_number or not column.is_closed:
        return None
    new = Counter(value for value in map(str, values_of(column, rows)) if value not in column.places)
    if not new:
        return None
    named = ", ".join(repr(value) for value, _ in sorted(new.items(), key=lambda item: (-item[1], item[0]))[:NAMED])
    return f"`{column.name}` has values it never had: {named}"


def _spread(values: Any) -> float:
    return float(np.std(np.asarray(values, dtype=np.float64))) if len(values) else 0.0
