"""A record that is right but not canonical: tidied at three times the cost of forwarding it.

Aliases become own names, extra columns and nulls go, an inline label becomes a label of its own, and a missing id or
time is that of the record's place. What needs an explanation is left to `examine`, which accepts the same records.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple, TypeGuard

import msgspec

from headrace.schemas.stream import ExampleArrived, Features, LabelArrived
from headrace.services.validator.compiled import MAX_BYTES, NAME_LENGTH, Compiled, decode_loose
from headrace.services.validator.reasons import shown
from headrace.services.validator.times import EARLIEST


class Arrival(NamedTuple):
    """What the place of a record gives it: an id and a time where it has none, and the latest time allowed."""

    id: str
    time: datetime
    latest: datetime


class Accepted(NamedTuple):
    """A record that meets the contract, made canonical: an example with its inline label, or a label.

    `row` holds the features in the contract's order (None where absent), `extras` the names of columns dropped.
    """

    example: ExampleArrived | None
    label: LabelArrived | None
    row: tuple[Any, ...]
    extras: list[str]


class Ambiguous(ValueError):
    """A column is named twice: by its own name and by its alias."""


def tidy(c: Compiled, body: bytes, arrival: Arrival) -> Accepted | None:
    """An example that is right but not canonical; None where it must be examined."""
    try:
        loose = decode_loose(body)
        features, extras = by_own_name(c, loose.features)
        if body.count(b'"') != _quotes(loose) or len(body) > MAX_BYTES:
            return None
        checked = msgspec.convert(features, c.features)
        unset = msgspec.UNSET
        label = None if loose.label is unset or loose.label is None else msgspec.convert(loose.label, c.label)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Ambiguous):
        return None
    example_id = arrival.id if loose.id is unset or loose.id is None else loose.id
    time = arrival.time if loose.time is unset else loose.time
    entity = None if loose.entity is unset else loose.entity
    if entity is not None and not c.spec.entity:
        entity = None
        extras.append("entity")
    if not is_name(example_id) or (c.spec.entity and not is_name(entity)) or (extras and c.spec.extra == "reject"):
        return None
    if time is not arrival.time and not EARLIEST <= time <= arrival.latest:
        return None
    history = loose.history is True
    return accepted(c, example_id, time, entity, msgspec.structs.astuple(checked), label, history, extras)


def by_own_name(c: Compiled, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The columns that the contract knows, without those that are null, and the names of the others."""
    values: dict[str, Any] = {}
    extras: list[str] = []
    own_name = c.own_name
    for key, value in given.items():
        name = own_name.get(key)
        if name is None:
            extras.append(key)
        elif name != key and name in given:
            raise Ambiguous(f"{name} stands there by its name and by its alias {shown(key)}")
        elif value is not None:
            values[name] = value
    return values, extras


def accepted(
    c: Compiled,
    example_id: str,
    time: datetime,
    entity: str | None,
    row: tuple[Any, ...],
    label: Any,
    history: bool,
    extras: list[str],
) -> Accepted:
    """The canonical events of an example whose parts were checked."""
    features: Features = {name: value for name, value in zip(c.names, row, strict=False) if value is not None}
    example = ExampleArrived(id=example_id, time=time, features=features, entity=entity, history=history)
    inline = None if label is None else LabelArrived(id=example_id, time=time, label=label, entity=entity)
    return Accepted(example, inline, row, extras)


def _quotes(loose: Any) -> int:
    """The quotation marks of the record if no key stands in it twice and no text holds an escaped one."""
    unset = msgspec.UNSET
    given = (loose.id, loose.time, loose.entity, loose.label, loose.history)
    kinds = [type(value) for value in given if value is not unset]
    kinds += map(type, loose.features.values())
    return 2 * (1 + len(kinds) + kinds.count(str) + kinds.count(datetime))


def is_name(value: Any) -> TypeGuard[str]:
    """Whether a value can be an id, an entity or an open class."""
    return isinstance(value, str) and 0 < len(value) <= NAME_LENGTH
