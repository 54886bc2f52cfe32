"""What an alert found, in words: the same in a table, on a line and in a story."""

from __future__ import annotations

from typing import Any

from headrace.schemas.control import DriftDetected
from headrace.schemas.record import Record

COLUMNS_TOLD = 3


def found(alert: DriftDetected) -> str:
    """What changed, by how much, since when, and what it looks like; without kind and level."""
    since = f", since offset {alert.since:,}" if alert.since is not None else ""
    why = f": {alert.diagnosis}" if alert.diagnosis else ""
    return f"{_numbers(alert)}{since}{why}"


def is_beside(performance: Record, other: Record) -> bool:
    """Whether inputs of the same champion drifted in the time in which its loss rose: from its change point until told.

    The monitor's two folds read different topics and know nothing of each other.
    """
    alert, inputs = performance.event, other.event
    if not isinstance(alert, DriftDetected) or not isinstance(inputs, DriftDetected):
        return False
    if (alert.kind, inputs.kind) != ("performance", "input") or alert.degraded is False or alert.since_ms is None:
        return False
    began_ms = other.known_ms if inputs.since_ms is None else inputs.since_ms
    same = (alert.pipeline, alert.run) == (inputs.pipeline, inputs.run)
    return same and began_ms <= performance.known_ms and other.known_ms >= alert.since_ms


def _numbers(alert: DriftDetected) -> str:
    numbers = alert.evidence
    if "columns" in numbers:
        named = list(numbers["columns"].items())
        more = f" and {len(named) - COLUMNS_TOLD} more" if len(named) > COLUMNS_TOLD else ""
        return ", ".join(f"{name} {_change(change)}" for name, change in named[:COLUMNS_TOLD]) + more
    if alert.kind == "performance" and "metric" in numbers:
        told = f"{numbers['metric']} {numbers['value']:.4f} over {numbers['rows']:,} rows"
        return f"{told}, asked for {numbers['asked']}, {alert.detector}"
    if alert.kind == "performance" and {"reference_loss", "recent_loss"} <= numbers.keys():
        return f"loss {numbers['reference_loss']:.3f} -> {numbers['recent_loss']:.3f}, {alert.detector}"
    return f"{alert.detector}: " + ", ".join(f"{name} {_shown(value)}" for name, value in numbers.items())


def _change(change: dict[str, float]) -> str:
    told = []
    if "psi" in change:
        told.append(f"PSI {change['psi']:.2f}, limit {change['limit']:.2f}")
    if "missing" in change:
        told.append(f"missing {change['missing']:.1%}, before {change['missing_before']:.1%}")
    if "unseen" in change:
        told.append(f"values never seen {change['unseen']:.1%}")
    return f"({'; '.join(told)})"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
