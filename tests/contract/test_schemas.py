"""The contract as data: every event has golden examples that decode for ever, an exported schema and a topic."""

import json
import sys
from pathlib import Path

import garbage
import pytest

from headrace.schemas import codec
from headrace.schemas.codec import EVENTS, STREAM_EVENTS, TYPE_OF, Undecodable, decode, encode
from headrace.schemas.export import EXAMPLES, EXPORTED, documents, json_schema, text
from headrace.schemas.topics import TOPICS, control_log_events
from headrace.services import FOLDS, SERVICES

FILES = sorted(EXAMPLES.glob("*/*/*.json"))
LATER = {"features"}  # a service that comes later: windowed features
every_event = pytest.mark.parametrize("name", EVENTS)
every_example = pytest.mark.parametrize("path", FILES, ids=["/".join(path.parts[-3:]) for path in FILES])


def type_of(path):
    return f"{codec.PREFIX}{path.parts[-3]}.{path.parts[-2]}"


def holds(whole, part):
    """Whether everything in `part` stands in `whole` too: nothing is lost, defaults may be added."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and holds(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(holds, whole, part))
    return type(whole) is type(part) and whole == part


def seen_fields(schema, root, value, part):
    """The fields (part, name) of a schema that a value names, at any depth."""
    if "$ref" in schema:
        part = schema["$ref"].rpartition("/")[2]
        schema = root["$defs"][part]
    found = set()
    for alternative in schema.get("anyOf", ()):
        found |= seen_fields(alternative, root, value, part)
    if isinstance(value, dict):
        for key, field in schema.get("properties", {}).items():
            if key in value:
                found |= {(part, key)} | seen_fields(field, root, value[key], part)
        if isinstance(schema.get("additionalProperties"), dict):
            for item in value.values():
                found |= seen_fields(schema["additionalProperties"], root, item, part)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            found |= seen_fields(schema["items"], root, item, part)
    return found


@every_event
def test_every_event_has_a_full_and_a_minimal_example(name):
    cases = {path.stem: json.loads(path.read_text()) for path in (EXAMPLES / name / "v1").glob("*.json")}
    assert {"full", "minimal"} <= cases.keys()
    schema = json_schema(name)
    assert cases["full"].keys() == schema["properties"].keys()
    assert cases["minimal"].keys() == set(schema["required"])
    fields = {("", key) for key in schema["properties"]}
    fields |= {(part, key) for part, inner in schema.get("$defs", {}).items() for key in inner.get("properties", {})}
    assert fields == set().union(*(seen_fields(schema, schema, case, "") for case in cases.values()))


@every_example
def test_an_example_decodes_and_nothing_of_it_is_lost(path):
    event = decode(type_of(path), path.read_bytes())
    assert type(event) is EVENTS[path.parts[-3]]
    assert holds(json.loads(encode(event)), json.loads(path.read_text()))


@every_example
def test_an_example_stays_what_it_is_through_any_number_of_services(path):
    body = encode(decode(type_of(path), path.read_bytes()))
    assert encode(decode(type_of(path), body)) == body


@every_example
def test_a_field_that_a_later_version_adds_is_ignored(path):
    later = json.loads(path.read_text()) | {"a_field_of_the_future": {"x": 1}}
    assert decode(type_of(path), json.dumps(later).encode()) == decode(type_of(path), path.read_bytes())


@every_event
def test_an_event_without_a_required_field_is_undecodable(name):
    minimal = json.loads((EXAMPLES / name / "v1" / "minimal.json").read_text())
    for field in minimal:
        lacking = {key: value for key, value in minimal.items() if key != field}
        with pytest.raises(Undecodable, match=field):
            decode(TYPE_OF[EVENTS[name]], json.dumps(lacking).encode())


@every_event
def test_json_deeper_than_any_decoder_goes_is_undecodable(name):
    with pytest.raises(Undecodable):
        decode(TYPE_OF[EVENTS[name]], garbage.DEEP)


@pytest.mark.parametrize("name", STREAM_EVENTS)
def test_a_stream_event_is_written_without_what_it_need_not_say(name):
    minimal = (EXAMPLES / name / "v1" / "minimal.json").read_bytes()
    assert json.loads(encode(decode(TYPE_OF[EVENTS[name]], minimal))).keys() == json.loads(minimal).keys()


def test_what_is_exported_is_what_the_code_says():
    wanted = {name: text(document) for name, document in documents().items()}
    stale = {name for name in wanted if not (EXPORTED / name).exists() or (EXPORTED / name).read_text() != wanted[name]}
    assert not stale, "run: python -m headrace.schemas.export"
    assert {path.name for path in EXPORTED.iterdir()} == wanted.keys()


def test_no_example_and_no_topic_is_an_orphan():
    folders = {(path.parts[-2], path.parts[-1]) for path in EXAMPLES.glob("*/*")}
    assert folders == {(name, "v1") for name in EVENTS}
    assert len(FILES) == sum(path.is_file() for path in EXAMPLES.rglob("*"))
    told = {event for topic in TOPICS.values() for event in topic.events}
    assert told == EVENTS.keys() - {"FaultFound"}  # which is told in the dead-letter topics
    for topic in TOPICS.values():
        assert topic.producers, topic.name
        assert topic.consumers, topic.name
        assert topic.events or topic.name == "control-log"
        assert {*topic.producers, *topic.consumers} <= {*SERVICES, *LATER, "users", "operators"}, topic.name


def test_the_control_log_takes_every_event_that_decides_and_no_other():
    of_deciding_topics = {event for topic in TOPICS.values() if topic.decides for event in topic.events}
    assert set(control_log_events()) == of_deciding_topics
    assert not {"MetricsUpdated", "SnapshotTaken", "LineageRecorded"} & of_deciding_topics
    sequenced = {fold.input for fold in FOLDS if fold.service == "sequencer"}
    assert sequenced == {topic.name for topic in TOPICS.values() if topic.decides}


def test_the_table_of_folds_and_the_table_of_topics_agree():
    for fold in FOLDS:
        assert fold.service in TOPICS[fold.input].consumers, f"{fold.id} reads {fold.input}"
        for table in fold.tables:
            assert fold.service in TOPICS[table].consumers, f"{fold.id} follows {table}"
        for output in fold.outputs:
            assert fold.service in TOPICS[output].producers, f"{fold.id} writes {output}"


def test_the_asyncapi_document_names_every_topic_and_all_its_references_lead_somewhere():
    document = json.loads((EXPORTED / "asyncapi.json").read_text())
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses == {name.replace("<p>", "{pipeline}") for name in TOPICS} | {"{topic}-dlq"}
    said = {(o["action"], key.split(".")[0], o["channel"]["$ref"]) for key, o in document["operations"].items()}
    assert len(said) == sum(len(topic.producers) + len(topic.consumers) for topic in TOPICS.values())
    references = list(references_in(document))
    assert len(references) > len(EVENTS)
    for reference in references:
        file, _, pointer = reference.partition("#")
        target = json.loads((EXPORTED / file).read_text()) if file else document
        for step in filter(None, pointer.split("/")):
            target = target[step]


def references_in(value):
    if isinstance(value, dict):
        if "$ref" in value and isinstance(value["$ref"], str):
            yield value["$ref"]
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from references_in(item)


def test_the_schemas_import_nothing_but_pydantic_msgspec_and_python():
    allowed = {"headrace", "pydantic", "msgspec"}
    for path in Path(codec.__file__).parent.glob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                module = words[1].split(".")
                assert module[0] in allowed or module[0] in sys.stdlib_module_names, f"{path.name}: {line}"
                assert module[0] != "headrace" or module[1] == "schemas", f"{path.name}: {line}"
