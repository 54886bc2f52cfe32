"""A record against its contract, slowly: accepted in canonical form, or refused with every problem it has."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from headrace.schemas.contract import FeatureSpec
from headrace.schemas.stream import Label, LabelArrived, Problem, Time
from headrace.services.validator.compiled import MAX_BYTES, NAME_LENGTH, Compiled, int_range
from headrace.services.validator.parse import Unreadable, parse
from headrace.services.validator.reasons import problem, shown
from headrace.services.validator.tidy import Accepted, Ambiguous, Arrival, accepted, by_own_name, is_name
from headrace.services.validator.times import EARLIEST

EXAMPLE, LABEL = "headrace.ExampleArrived.v1", "headrace.LabelArrived.v1"
OURS = "headrace."
ENVELOPE = {EXAMPLE: ("id", "time", "features", "entity", "label", "history"), LABEL: ("id", "time", "label", "entity")}
PROBLEMS = 20  # told of one record
KINDS = {type(None): "null", bool: "a bool", int: "a whole number", float: "a number", str: "a text", list: "a list"}


class Refused(NamedTuple):
    """A record that does not meet the contract, with every reason."""

    id: str
    problems: list[Problem]


def examine(c: Compiled, event_type: str | None, body: bytes, arrival: Arrival) -> Accepted | Refused:
    """The record in canonical form, or every reason why not. `event_type` is the envelope's, where it names one."""
    if len(body) > MAX_BYTES:
        return Refused(arrival.id, [problem("too_large", f"{len(body):,} bytes; at most {MAX_BYTES:,} are taken")])
    try:
        value = parse(body)
    except Unreadable as error:
        return Refused(arrival.id, [problem(error.code, error.message)])
    if isinstance(value, dict) and "specversion" in value and "data" in value:
        event_type = value["type"] if isinstance(value.get("type"), str) else None
        value = value["data"]
    if not isinstance(value, dict):
        return Refused(arrival.id, [problem("unknown_shape", f"an object is needed, not {_kind(value)}")])
    kind, problems = _kind_of_event(event_type, value)
    known_id = value.get("id")
    shown_id = known_id if is_name(known_id) else arrival.id
    if kind is None:
        return Refused(shown_id, problems)
    examined = _Examined(c, value, arrival, problems)
    found = examined.example() if kind == EXAMPLE else examined.label_event()
    return Refused(shown_id, problems[:PROBLEMS]) if problems else found


def _kind_of_event(event_type: str | None, value: dict[str, Any]) -> tuple[str | None, list[Problem]]:
    if event_type in (EXAMPLE, LABEL):
        return event_type, []
    if event_type is not None and event_type.startswith(OURS):
        return None, [problem("unknown_event_type", f"users write {EXAMPLE} and {LABEL}, not {shown(event_type)}")]
    if "features" in value:
        return EXAMPLE, []
    if "label" in value:
        return LABEL, []
    keys = ", ".join(shown(key) for key in list(value)[:5])
    return None, [problem("unknown_shape", f"neither features nor label among its keys ({keys or 'none'})")]


class _Examined:
    """One record under examination; what is found wrong goes to `problems`."""

    def __init__(self, c: Compiled, value: dict[str, Any], arrival: Arrival, problems: list[Problem]) -> None:
        self.c, self.value, self.arrival, self.problems = c, value, arrival, problems
        self.extras: list[str] = []

    def example(self) -> Accepted:
        self._extras_of(EXAMPLE)
        example_id = self._name("id", self.arrival.id)
        time, entity = self._time(), self._entity()
        row = self._features()
        label = self.value.get("label")
        if label is not None:
            label = self._label(label)
        history = self.value.get("history")
        if not isinstance(history, bool | None):
            self._found("unexpected_data_type", f"history is true or false, not {_kind(history)}")
        return accepted(self.c, example_id, time, entity, row, label, history is True, self.extras)

    def label_event(self) -> Accepted:
        self._extras_of(LABEL)
        label_id = ""
        if self.value.get("id") is None:
            self._found("id_missing", "a label names the id of its example")
        else:
            label_id = self._name("id", "")
        time, entity = self._time(), self._entity()
        label = self.value.get("label")
        if label is None:
            self._found("label_missing", "no label, or null")
            return Accepted(None, None, (), self.extras)
        event = LabelArrived(id=label_id, time=time, label=self._label(label), entity=entity)
        return Accepted(None, event, (), self.extras)

    def _found(self, code: str, detail: str, feature: str | None = None) -> None:
        self.problems.append(problem(code, detail, feature))

    def _extras_of(self, kind: str) -> None:
        known = ENVELOPE[kind]
        for key in self.value:
            if key not in known or (key == "entity" and not self.c.spec.entity and self.value[key] is not None):
                self._extra(key)

    def _extra(self, key: str) -> None:
        self.extras.append(key)
        if self.c.spec.extra == "reject":
            self._found("schema_new_column", f"the contract has no column {shown(key)}", key[:NAME_LENGTH])

    def _name(self, field: str, default: str) -> str:
        given = self.value.get(field)
        if given is None:
            return default
        if not isinstance(given, str) or not given:
            self._found(f"{field}_invalid", f"{field} is a text of at least one character, not {shown(given)}")
        elif len(given) > NAME_LENGTH:
            self._found(f"{field}_too_long", f"{field} has {len(given):,} characters; at most {NAME_LENGTH}")
        else:
            return given
        return default

    def _entity(self) -> str | None:
        if not self.c.spec.entity:
            return None
        if self.value.get("entity") is None:
            self._found("entity_missing", "the pipeline has entities, and the record names none")
            return None
        return self._name("entity", "")

    def _time(self) -> datetime:
        given = self.value.get("time")
        if given is None:
            return self.arrival.time
        try:
            time = msgspec.convert(given, Time) if isinstance(given, str) else None
        except msgspec.ValidationError:
            time = None
        if time is None:
            self._found("time_invalid", f"RFC 3339 with a zone, such as 2026-01-31T12:00:00Z, not {shown(given)}")
        elif time < EARLIEST:
            self._found("time_far_past", f"{shown(given)} lies before 1900")
        elif time > self.arrival.latest:
            self._found("time_far_future", f"{shown(given)} lies more than a day after the record's arrival")
        else:
            return time
        return self.arrival.time

    def _features(self) -> tuple[Any, ...]:
        given = self.value.get("features")
        if not isinstance(given, dict):
            self._found("unexpected_data_type", f"features is an object of columns, not {_kind(given)}")
            return ()
        try:
            values, extras = by_own_name(self.c, given)
        except Ambiguous as error:
            self._found("duplicate_key", str(error))
            return ()
        for key in extras:
            self._extra(key)
        return tuple(self._column(f, values.get(f.name)) for f in self.c.spec.features)

    def _column(self, f: FeatureSpec, value: Any) -> Any:
        if value is None:
            if not f.optional:
                self._found("schema_missing_column", f"{f.name} is required", f.name)
            return None
        if f.type == "float" and isinstance(value, int | float) and not isinstance(value, bool):
            return self._float(f, value)
        if f.type == "int" and isinstance(value, int) and not isinstance(value, bool):
            low, high = int_range(f)
            if value < low:
                self._found("int_type_small_int", f"{f.name} is {shown(value)}, not at least {low}", f.name)
            elif value > high:
                self._found("int_type_big_int", f"{f.name} is {shown(value)}, not at most {high}", f.name)
        elif f.type == "str" and isinstance(value, str):
            if f.values is not None and value not in f.values:
                detail = f"{f.name} is {shown(value)}, not one of {', '.join(f.values[:10])}"
                self._found("enum_type_unexpected_string_values", detail, f.name)
            elif f.max_length is not None and len(value) > f.max_length:
                self._found("text_too_long", f"{f.name} has {len(value):,} characters; at most {f.max_length}", f.name)
        elif not (f.type == "bool" and isinstance(value, bool)):
            self._found("unexpected_data_type", f"{f.name} is {_kind(value)} ({shown(value)}), not {f.type}", f.name)
        return value

    def _float(self, f: FeatureSpec, value: int | float) -> float | None:
        number = _as_float(value)
        if math.isnan(number):
            self._found("float_type_has_nan", f"{f.name} is NaN", f.name)
        elif math.isinf(number):
            self._found("float_type_has_inf", f"{f.name} is infinite or larger than any float", f.name)
        elif (f.ge is not None and number < f.ge) or (f.gt is not None and number <= f.gt):
            bound = f"at least {f.ge:g}" if f.ge is not None else f"above {f.gt:g}"
            self._found("float_type_small_float", f"{f.name} is {number:g}{_unit(f)}, not {bound}", f.name)
        elif (f.le is not None and number > f.le) or (f.lt is not None and number >= f.lt):
            bound = f"at most {f.le:g}" if f.le is not None else f"below {f.lt:g}"
            self._found("float_type_big_float", f"{f.name} is {number:g}{_unit(f)}, not {bound}", f.name)
        return number

    def _label(self, value: Any) -> Label:
        label = self.c.spec.label
        if label.type == "bool" and isinstance(value, bool):
            return value
        if label.type == "float" and isinstance(value, int | float) and not isinstance(value, bool):
            number = _as_float(value)
            if not math.isfinite(number):
                self._found("label_value", "the label is not a finite number")
            return number
        if label.type in ("classes", "str") and isinstance(value, str):
            if label.values is not None and value not in label.values:
                self._found("label_value", f"the label is {shown(value)}, not one of {', '.join(label.values[:10])}")
            elif label.values is None and not is_name(value):
                self._found("label_value", f"the label has {len(value):,} characters; 1 to {NAME_LENGTH} are taken")
            return value
        wanted = f"one of {', '.join(label.values[:10])}" if label.values else label.type
        self._found("label_type", f"the label is {_kind(value)} ({shown(value)}), not {wanted}")
        return ""


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _unit(f: FeatureSpec) -> str:
    return f" {f.unit}" if f.unit else ""


def _kind(value: Any) -> str:
    return KINDS.get(type(value), "an object")
