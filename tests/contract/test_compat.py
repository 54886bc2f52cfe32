"""Two versions of a schema: which change breaks whom. And the contract as it is, against the versions before it."""

import json
import subprocess
from pathlib import Path

import pytest

from headrace.schemas.codec import EVENTS
from headrace.schemas.compat import UnknownKeyword, breaking_changes, broken_events, mode_of
from headrace.schemas.export import json_schema

ROOT = Path(__file__).parents[2]
FOLDER = "schemas/exported/"


def of(required=(), closed=False, **properties):
    """An object's schema."""
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return schema | {"additionalProperties": False} if closed else schema


def union(*kinds):
    return {"anyOf": [kind if isinstance(kind, dict) else {"type": kind} for kind in kinds]}


TEXT, WHOLE, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
MAP = {"type": "object", "additionalProperties": WHOLE}
PAIR = {"type": "array", "prefixItems": [WHOLE, TEXT], "minItems": 2, "maxItems": 2, "items": False}
PART = {"$defs": {"Part": of(["n"], n=WHOLE)}, **of(part={"$ref": "#/$defs/Part"})}


def told(old, new, mode):
    return [(change.kind, change.path) for change in breaking_changes(old, new, mode)]


BREAKS_NEW_READERS = {
    "a field that was there is gone": (of(x=TEXT), of(), ("removed", "x")),
    "a field has another name": (of(["x"], x=TEXT), of(y=TEXT), ("renamed", "x")),
    "a field has another type": (of(x=TEXT), of(x=WHOLE), ("retyped", "x")),
    "a number must be whole now": (of(x=NUMBER), of(x=WHOLE), ("retyped", "x")),
    "null is refused now": (of(x=union("string", "null")), of(x=TEXT), ("narrowed", "x")),
    "anything must be a text now": (of(x={}), of(x=TEXT), ("narrowed", "x")),
    "a value is no longer allowed": (of(x={"enum": ["a", "b"]}), of(x={"enum": ["a"]}), ("narrowed", "x")),
    "of all texts two are left": (of(x=TEXT), of(x={"type": "string", "enum": ["a", "b"]}), ("narrowed", "x")),
    "a constant has another value": (of(x={"const": 1}), of(x={"const": 2}), ("narrowed", "x")),
    "a lower bound rises": (of(x=NUMBER | {"minimum": 0}), of(x=NUMBER | {"minimum": 1}), ("narrowed", "x")),
    "a bound becomes exclusive": (
        of(x=WHOLE | {"minimum": 0}), of(x=WHOLE | {"exclusiveMinimum": 0}), ("narrowed", "x"),
    ),
    "an upper bound appears": (of(x=NUMBER), of(x=NUMBER | {"maximum": 9}), ("narrowed", "x")),
    "a text may be shorter only": (of(x=TEXT | {"maxLength": 9}), of(x=TEXT | {"maxLength": 8}), ("narrowed", "x")),
    "a text has a format now": (of(x=TEXT), of(x=TEXT | {"format": "date-time"}), ("narrowed", "x")),
    "an optional field is required": (of(x=TEXT), of(["x"], x=TEXT), ("newly required", "x")),
    "a new field is required": (of(), of(["x"], x=TEXT), ("newly required", "x")),
    "a default has another value": (of(x=TEXT | {"default": ""}), of(x=TEXT | {"default": "-"}), ("new default", "x")),
    "a field of a default has another value": (
        of(x=of(y=WHOLE) | {"default": {"y": 1}}),
        of(x=of(y=WHOLE) | {"default": {"y": 2, "z": 0}}),
        ("new default", "x"),
    ),
    "a default loses a field": (
        of(x=of(y=WHOLE) | {"default": {"y": 1}}), of(x=of(y=WHOLE) | {"default": {}}), ("new default", "x"),
    ),
    "a list has other elements": (
        of(x={"type": "array", "items": TEXT}), of(x={"type": "array", "items": WHOLE}), ("retyped", "x[]"),
    ),
    "a pair has another second": (
        of(x=PAIR), of(x=PAIR | {"prefixItems": [WHOLE, WHOLE]}), ("retyped", "x[1]"),
    ),
    "a pair becomes a triple": (
        of(x=PAIR), of(x=PAIR | {"prefixItems": [WHOLE, TEXT, TEXT], "minItems": 3, "maxItems": 3}), ("narrowed", "x"),
    ),
    "a mapping has other values": (of(x=MAP), of(x=MAP | {"additionalProperties": TEXT}), ("retyped", "x.*")),
    "a mapping becomes an object": (of(x=MAP), of(x=of(y=WHOLE)), ("retyped", "x")),
    "a mapping is closed": (of(x=MAP), of(x=of(y=WHOLE, closed=True)), ("closed", "x.*")),
    "fields become a mapping of other values": (of(x=of(y=TEXT)), of(x=MAP), ("retyped", "x.y")),
    "a part changes": (PART, {**PART, "$defs": {"Part": of(["n"], n=TEXT)}}, ("retyped", "part.n")),
}  # fmt: skip


@pytest.mark.parametrize("change", BREAKS_NEW_READERS)
def test_a_change_that_new_readers_do_not_survive_is_named_with_its_place(change):
    old, new, expected = BREAKS_NEW_READERS[change]
    assert expected in told(old, new, "BACKWARD")
    assert expected in told(old, new, "FULL")


BREAKS_OLD_READERS = {
    "a value is new": (of(x={"enum": ["a"]}), of(x={"enum": ["a", "b"]}), ("widened", "x")),
    "a bound falls": (of(x=NUMBER | {"minimum": 1}), of(x=NUMBER | {"minimum": 0}), ("widened", "x")),
    "null is new": (of(x=TEXT), of(x=union("string", "null")), ("widened", "x")),
    "a whole number may have a fraction": (of(x=WHOLE), of(x=NUMBER), ("retyped", "x")),
    "a required field may be absent": (of(["x"], x=TEXT), of(x=TEXT), ("no longer required", "x")),
    "a closed object has a new field": (of(closed=True), of(closed=True, x=TEXT), ("added to a closed object", "x")),
}


@pytest.mark.parametrize("change", BREAKS_OLD_READERS)
def test_a_change_that_only_old_readers_do_not_survive_breaks_control_topics_only(change):
    old, new, expected = BREAKS_OLD_READERS[change]
    assert told(old, new, "BACKWARD") == []
    assert told(old, new, "FULL") == [expected]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (of(x=TEXT), of(x=TEXT, y=TEXT | {"default": ""})),
        (
            of(x=of(y=WHOLE) | {"default": {"y": 1}}),
            of(x=of(y=WHOLE, z=WHOLE | {"default": 0}) | {"default": {"y": 1, "z": 0}}),
        ),
        (of(x=TEXT | {"description": "a"}), of(x=TEXT | {"description": "b", "title": "X"})),
        (of(x=union("string", "null")), of(x=union("null", "string"))),
        (of(x=union("integer", "number")), of(x={"type": ["number", "integer"]})),
        (of(x=NUMBER | {"minimum": 0, "exclusiveMinimum": 0}), of(x=NUMBER | {"exclusiveMinimum": 0})),
        (PART, of(part=of(["n"], n=WHOLE))),
        (of(x={"type": "object"}), of(x={"type": "object", "additionalProperties": True})),
    ],
)
def test_what_changes_nothing_for_any_reader_breaks_nobody(old, new):
    assert told(old, new, "FULL") == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (of(x=PAIR | {"prefixItems": [WHOLE, WHOLE]}), of(x={"type": "array", "items": WHOLE})),
        (of(x=of(y=WHOLE)), of(x=MAP)),
        (of(["x"], x=TEXT), of(x=union("string", "null") | {"default": None})),
    ],
)
def test_a_wider_reader_still_reads_what_was_written(old, new):
    assert told(old, new, "BACKWARD") == []


def test_a_part_that_is_used_twice_is_compared_twice():
    def twice(kind):
        part = {"$ref": "#/$defs/Part"}
        return {"$defs": {"Part": of(["n"], n=kind)}, **of(first=part, second=part)}

    assert told(twice(WHOLE), twice(TEXT), "BACKWARD") == [("retyped", "first.n"), ("retyped", "second.n")]


def test_a_schema_that_holds_itself_is_compared_to_its_end():
    tree = {"$defs": {"Tree": of(["n"], n=WHOLE, left={"$ref": "#/$defs/Tree"})}, "$ref": "#/$defs/Tree"}
    other = {"$defs": {"Tree": of(["n"], n=TEXT, left={"$ref": "#/$defs/Tree"})}, "$ref": "#/$defs/Tree"}
    assert told(tree, tree, "FULL") == []
    assert told(tree, other, "BACKWARD") == [("retyped", "n")]


def test_a_keyword_that_is_not_understood_is_an_error():
    with pytest.raises(UnknownKeyword, match="patternProperties"):
        breaking_changes(of(x=TEXT), of(x={"type": "object", "patternProperties": {}}), "BACKWARD")


def test_a_message_says_what_and_where():
    [change] = breaking_changes(of(x=of(y={"enum": ["a", "b"]})), of(x=of(y={"enum": ["a"]})), "BACKWARD")
    assert str(change) == "x.y: narrowed (without ['b'])"


def test_an_event_that_is_gone_is_named_and_a_new_one_breaks_nothing():
    old, new = {"Tick": of(), "Gone": of()}, {"Tick": of(), "New": of(["x"], x=TEXT)}
    assert {name: [change.kind for change in changes] for name, changes in broken_events(old, new).items()} == {
        "Gone": ["removed"]
    }


def test_control_topics_are_held_to_full_compatibility_and_data_topics_to_backward():
    assert {name for name in EVENTS if mode_of(name) == "BACKWARD"} == {
        "ExampleArrived", "LabelArrived", "RecordRejected", "FeaturesComputed", "PredictionMade", "ExampleLabelled",
        "LabelCorrected", "SnapshotTaken", "FaultFound",
    }  # fmt: skip


@pytest.mark.parametrize("name", EVENTS)
def test_every_schema_of_ours_can_be_compared_and_agrees_with_itself(name):
    assert breaking_changes(json_schema(name), json_schema(name), "FULL") == []


def test_the_comparison_sees_every_required_field_of_our_schemas():
    for name in EVENTS:
        schema = json_schema(name)
        for field in schema["required"]:
            lacking = schema | {"properties": {k: v for k, v in schema["properties"].items() if k != field}}
            assert field in [change.path for change in breaking_changes(schema, lacking, "BACKWARD")], f"{name}.{field}"


def git(*arguments):
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def exported_at(version):
    """Event name → schema, as a tag or commit has them."""
    paths = (git("ls-tree", "--name-only", version, FOLDER) or "").split()
    names = [Path(path).stem.split(".")[0] for path in paths]
    return {
        name: json.loads(git("show", f"{version}:{path}"))
        for name, path in zip(names, paths, strict=True)
        if name != "asyncapi"
    }


def test_the_contract_goes_together_with_every_tagged_version_or_else_the_last_commit():
    if git("rev-parse", "--is-inside-work-tree") is None:
        pytest.skip("no git here: nothing to compare with")
    tags = (git("tag", "--merged", "HEAD") or "").split()
    earlier = {version: schemas for version in tags or ["HEAD"] if (schemas := exported_at(version))}
    if not earlier:
        pytest.skip(f"{' '.join(tags) or 'HEAD'} has no exported schemas yet")
    now = {name: json_schema(name) for name in EVENTS}
    broken = [
        f"since {version}: {event}: {change}"
        for version, schemas in earlier.items()
        for event, changes in broken_events(schemas, now).items()
        for change in changes
    ]
    if broken and not tags:
        pytest.xfail("binding from the first tag on: " + "; ".join(broken))
    assert broken == []
