"""Every move of an alias as it was decided: when, from which version to which, why, and where that stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace.schemas.control import AliasRemoved, ModelUpdated
from headrace.schemas.record import Record
from headrace.why import chain
from headrace.why.sentences import moment


def moves(records: Iterable[Record], pipeline: str | None = None) -> list[dict[str, Any]]:
    """The moves of one pipeline's aliases or of all, oldest first; `place` is what `headrace why` takes.

    `to_version` is None where an alias was taken away, `share` the part of the units that a challenger serves then.
    """
    now: dict[tuple[str, str], int] = {}
    told = []
    for record in records:
        event = record.event
        if not isinstance(event, ModelUpdated | AliasRemoved) or pipeline not in (None, event.pipeline):
            continue
        alias, link = (event.pipeline, event.alias), chain.link_of(record)
        told.append(
            {
                "at": moment(record.known_ms),
                "pipeline": event.pipeline,
                "alias": event.alias,
                "from_version": now.pop(alias, None),
                "to_version": event.version if isinstance(event, ModelUpdated) else None,
                "share": event.share if isinstance(event, ModelUpdated) else None,
                "run": event.run,
                "epoch": event.epoch,
                "reason": event.reason,
                "place": link.origin or link.place,
            }
        )
        if isinstance(event, ModelUpdated):
            now[alias] = event.version
    return told


def row(move: dict[str, Any]) -> tuple[Any, ...]:
    """A move for people."""
    alias = move["alias"] if move["share"] is None else f"{move['alias']} (serves {move['share']:.0%})"
    versions = f"{_named(move['from_version'])} → {_named(move['to_version'])}"
    return move["at"], move["pipeline"], alias, versions, move["reason"], move["place"]


def _named(version: int | None) -> str:
    return "none" if version is None else str(version)
