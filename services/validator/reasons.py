"""Why a record is rejected: every reason code with its sentence. Codes that TFDV has are TFDV's, in lower case."""

from __future__ import annotations

from headrace.schemas.stream import Problem

REASONS: dict[str, str] = {
    # the bytes
    "too_large": "The record is larger than the validator takes.",
    "not_utf8": "The bytes are not UTF-8, or hold half of a surrogate pair.",
    "not_json": "The text is not JSON.",
    "too_deep": "The JSON is nested deeper than any event.",
    "duplicate_key": "An object names the same key twice, or a column by its name and its alias; readers would differ.",
    # which event it is
    "unknown_event_type": "The envelope names an event that users do not write.",
    "unknown_shape": "Not an object with `features` (an example) or `label` (a label).",
    "marker_not_signed": "A release marker or tick that the system did not sign, or signed for another pipeline.",
    # its place in the life of the pipeline
    "before_first_release": "It came before the pipeline's first release; publish it again after it.",
    "after_retirement": "The pipeline is retired.",
    # id, entity, time
    "id_missing": "A label must name the id of its example.",
    "id_invalid": "The id is not a text of at least one character.",
    "id_too_long": "The id is longer than any reader keeps.",
    "id_conflict": "The same id came before with other features.",
    "entity_missing": "The pipeline has entities, and the record names none.",
    "entity_invalid": "The entity is not a text of at least one character.",
    "entity_too_long": "The entity is longer than any reader keeps.",
    "time_invalid": "The time is not RFC 3339 with a zone, such as 2026-01-31T12:00:00Z.",
    "time_far_future": "The time lies more than a day after the record's arrival.",
    "time_far_past": "The time lies before 1900.",
    # columns
    "schema_missing_column": "A required column is absent or null.",
    "schema_new_column": "The contract does not know the column, and refuses such.",
    "unexpected_data_type": "The value is of another type than the contract says.",
    "float_type_has_nan": "The number is NaN.",
    "float_type_has_inf": "The number is infinite, or larger than any float.",
    "float_type_small_float": "The number is below the contract's lower bound.",
    "float_type_big_float": "The number is above the contract's upper bound.",
    "int_type_small_int": "The whole number is below the contract's lower bound, or needs more than 64 bits.",
    "int_type_big_int": "The whole number is above the contract's upper bound, or needs more than 64 bits.",
    "enum_type_unexpected_string_values": "The text is none of the values that the contract lists.",
    "text_too_long": "The text is longer than the contract allows.",
    # the label
    "label_missing": "A label event without a label.",
    "label_type": "The label is of another type than the pipeline's.",
    "label_value": "The label is none of the pipeline's classes, not finite, or too long.",
}

NOT_OF_THE_SCHEMA = frozenset({"before_first_release", "after_retirement", "marker_not_signed"})

SHOWN = 80


def problem(code: str, detail: str, feature: str | None = None) -> Problem:
    """A problem whose message is what was found, in one sentence; `code` must be in REASONS."""
    if code not in REASONS:
        raise KeyError(code)
    return Problem(code=code, message=detail, feature=feature)


def shown(value: object) -> str:
    """A value as a message quotes it: cut short, and free of characters that no message can carry."""
    text = repr(value).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"
