"""Rows of a file as the examples and labels of a pipeline."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace.cli.cells import is_blank, to_feature, to_label, to_text, to_time
from headrace.cli.files import Source
from headrace.errors import InvalidInput
from headrace.schemas.contract import ContractSpec
from headrace.schemas.stream import ExampleArrived, LabelArrived

ROLES = ("id", "time", "entity", "label")
Clock = Callable[[int], datetime]  # the time of a row that has none, by its number


def live(number: int) -> datetime:
    """A row that names no time happens when it is published."""
    return datetime.now(UTC)


class BadRow(InvalidInput):
    """A row that cannot be published: an event has a time, and this row's is none."""


@dataclass(frozen=True)
class Roles:
    """Which columns of a file are no features: id, time, entity, label. None: the file has no such column."""

    id: str | None = None
    time: str | None = None
    entity: str | None = None
    label: str | None = None


def resolve_roles(source: Source, spec: ContractSpec, given: Roles) -> Roles:
    """The columns that are no features: as given, else by the names `id time entity label`.

    Where no label column is named, the only column that the contract does not know is it. Raises InvalidInput.
    """
    if "features" in source.columns:
        return given  # each line is an event already
    features = {name for f in spec.features for name in (f.name, f.alias) if name}
    has = ", ".join(source.columns)
    for role in ROLES:
        column = getattr(given, role)
        if column is not None and column not in source.columns:
            raise InvalidInput(f"{source.path} has no column {column!r} (--{role}); it has {has}")
    if not features & set(source.columns):
        raise InvalidInput(f"{source.path} has no column of the contract {spec.name}; it has {has}")
    found = {
        role: getattr(given, role) or (role if role in source.columns and role not in features else None)
        for role in ROLES
    }
    if not spec.entity and given.entity is None:
        found["entity"] = None
    if spec.entity and found["entity"] is None:
        raise InvalidInput("the pipeline has entities: say which column holds them with --entity COLUMN")
    over = [c for c in source.columns if c not in features and c not in found.values()]
    if found["label"] is None and len(over) == 1:
        found["label"] = over[0]
    return Roles(**found)


def missing_columns(source: Source, spec: ContractSpec) -> list[str]:
    """The required columns that the file does not have: every row would be rejected."""
    if "features" in source.columns:
        return []
    return [f.name for f in spec.features if not f.optional and not {f.name, f.alias} & set(source.columns)]


def unknown_columns(source: Source, spec: ContractSpec, roles: Roles) -> list[str]:
    """The columns that are neither in the contract nor id, time, entity or label."""
    known = {name for f in spec.features for name in (f.name, f.alias)} | {*vars(roles).values()}
    return [column for column in source.columns if column not in known]


def events(
    source: Source,
    spec: ContractSpec,
    roles: Roles,
    label_delay: int = 0,
    clock: Clock = live,
    skip: Callable[[BadRow], None] | None = None,
) -> Iterator[tuple[int, ExampleArrived | LabelArrived]]:
    """Every example, and its label `label_delay` rows later, each with the number of its row (from 1).

    The ids follow from the file alone where it has no id column: publishing it again repeats them. A bad row is left
    out and given to `skip`; without that it raises BadRow.
    """
    late: deque[tuple[int, LabelArrived]] = deque()
    for number, row in enumerate(source.rows(), 1):
        try:
            example, label = to_events(source.path, spec, roles, number, row, clock)
        except BadRow as error:
            if skip is None:
                raise
            skip(error)
            continue
        yield number, example
        if label is not None:
            late.append((number, label))
        while late and late[0][0] <= number - label_delay:
            yield late.popleft()
    yield from late


def to_events(
    path: Path, spec: ContractSpec, roles: Roles, number: int, row: Mapping[str, Any], clock: Clock = live
) -> tuple[ExampleArrived, LabelArrived | None]:
    """One row as an example and, where it has one, its label. Raises BadRow for a time that is none."""
    cells, history = row, False
    if isinstance(row.get("features"), dict):  # an event: what stands outside of `features` is none
        cells, roles, history = row["features"], Roles(*ROLES), row.get("history") is True
    features = {}
    for f in spec.features:
        value = to_feature(cells.get(f.name, cells.get(f.alias) if f.alias else None), f)
        if value is not None:
            features[f.name] = value
    given = {role: row.get(column) for role in ROLES if (column := getattr(roles, role)) is not None}
    given = {role: cell for role, cell in given.items() if not is_blank(cell)}
    try:
        time = to_time(given["time"], f"{path}, row {number}, {roles.time!r}") if "time" in given else clock(number)
    except InvalidInput as error:
        raise BadRow(str(error)) from None
    entity = to_text(given["entity"]) if "entity" in given else None
    own = to_text(given["id"]) if "id" in given else row_id(path, number, features)
    example = ExampleArrived(id=own, time=time, features=features, entity=entity, history=history)
    if "label" not in given:
        return example, None
    return example, LabelArrived(id=own, time=time, entity=entity, label=to_label(given["label"], spec))


def row_id(path: Path, number: int, features: Mapping[str, Any]) -> str:
    """`<file>-<row>-<digest of its features>`: the same row of the same file has the same id for ever."""
    told = json.dumps(features, sort_keys=True, default=str).encode()
    return f"{path.name.split('.')[0][:60]}-{number}-{hashlib.blake2b(told, digest_size=4).hexdigest()}"
