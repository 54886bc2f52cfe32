"""Counting what happened since the last WindowValidated, and saying so at the window's end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headrace.schemas.contract import ContractSpec
from headrace.schemas.control import WindowValidated
from headrace.schemas.record import Record
from headrace.schemas.stream import Problem
from headrace.services.validator.reasons import NOT_OF_THE_SCHEMA
from headrace.services.validator.summary import summarise

SKEW_SHARE, SKEW_RECORDS = 0.2, 50  # more rejects than this share, of at least so many records: the schema is skewed
EXTRA_NAMES, OTHERS, NAME_SHOWN = 100, "(others)", 64


@dataclass(slots=True)
class Window:
    """The records since `start_offset`: each is one of validated, labels, rejected, duplicates.

    An inline label counts with its example. `skewing` are the rejects that speak against the schema; `rows` the
    features of the examples validated.
    """

    start_offset: int = 0
    start_ms: int | None = None
    records: int = 0
    validated: int = 0
    labels: int = 0
    rejected: int = 0
    duplicates: int = 0
    skewing: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    extras: dict[str, int] = field(default_factory=dict)
    rows: list[tuple[Any, ...]] = field(default_factory=list)


def count_reject(window: Window, problems: list[Problem]) -> None:
    """Count a rejected record, under each of its reason codes once."""
    window.rejected += 1
    codes = {p.code: None for p in problems}
    if not NOT_OF_THE_SCHEMA.issuperset(codes):
        window.skewing += 1
    for code in codes:
        window.reasons[code] = window.reasons.get(code, 0) + 1


def count_extras(window: Window, names: list[str]) -> None:
    """Count columns that the contract does not know; of very many different ones the rest goes under one name."""
    extras = window.extras
    for name in names:
        name = name[:NAME_SHOWN]
        if name not in extras and len(extras) >= EXTRA_NAMES:
            name = OTHERS
        extras[name] = extras.get(name, 0) + 1


def window_event(
    window: Window, record: Record, clock_ms: int, release: int, contract: ContractSpec | None
) -> WindowValidated:
    """The event that ends the window after this record."""
    judged = window.validated + window.labels + window.skewing
    skewed = judged >= SKEW_RECORDS and window.skewing > SKEW_SHARE * judged
    return WindowValidated(
        pipeline=record.pipeline,
        partition=record.partition,
        release=release,
        start_offset=window.start_offset,
        end_offset=record.offset + 1,
        start_ms=clock_ms if window.start_ms is None else window.start_ms,
        end_ms=clock_ms,
        validated=window.validated,
        labels=window.labels,
        rejected=window.rejected,
        duplicates=window.duplicates,
        reasons=window.reasons,
        extra_columns=window.extras,
        features=summarise(contract.features, window.rows) if contract is not None else {},
        verdict="skewed" if skewed else "ok",
    )
