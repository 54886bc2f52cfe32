"""What an alert found, in words: the same in a table, on a line and in a story."""

from __future__ import annotations

from typing import Any

from headrace.schemas.control import DriftDetected

COLUMNS_TOLD = 3


def found(alert: DriftDetected) -> str:
    """What changed, by how much, since when, and what it looks like; without kind and level."""
    since = f", since offset {alert.since:,}" if alert.since is not None else ""
    why = f": {alert.diagnosis}" if alert.diagnosis else ""
    return f"{_numbers(alert)}{since}{why}"


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
