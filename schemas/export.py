"""The contract for other languages: a JSON Schema of every event, and an AsyncAPI 3 document of every topic.

`python -m headrace.schemas.export` writes them to `schemas/exported/`; a test tells when that was forgotten.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import msgspec

from headrace.schemas.codec import CONTROL_EVENTS, EVENTS, ORIGIN, PREFIX, STREAM_EVENTS, VERSION
from headrace.schemas.topics import DLQ, PIPELINE_NAME, TOPICS, Topic, control_log_events

Document = dict[str, Any]

FOLDER = Path(__file__).parent
EXAMPLES, EXPORTED = FOLDER / "examples", FOLDER / "exported"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_FORMAT = "application/schema+json;version=draft-2020-12"
DEAD_LETTERS = "dead-letters"

HEADERS = {
    "ce_specversion": "1.0",
    "ce_id": "unique within the source",
    "ce_source": "which fold wrote it, of which pipeline, from which input: /validator/rainfall/1f3a9c2e/0",
    "ce_type": f"the event's name and version: {PREFIX}PredictionMade{VERSION}",
    "ce_sequence": "input offset × 65,536 + index of the output: readers drop what is not larger than the last one",
}
CAUSES = {
    "ce_correlationid": "the place of the record that began the whole story",
    "ce_causationid": "the place of the record that led to this one directly",
}
PLACE = {ORIGIN: "the place first written, in control-log: topic/topic id/partition/offset"}


def documents() -> dict[str, Document]:
    """Every exported file by its name."""
    schemas = {f"{name}{VERSION}.json": json_schema(name) for name in EVENTS}
    return {**schemas, "asyncapi.json": asyncapi()}


def json_schema(name: str) -> Document:
    """The JSON Schema (2020-12) of an event's body, with its parts under `$defs`."""
    if name in STREAM_EVENTS:
        parts: Document = msgspec.json.schema(STREAM_EVENTS[name])["$defs"]
        schema: Document = parts.pop(name)
    else:
        schema = CONTROL_EVENTS[name].model_json_schema()  # type: ignore[attr-defined]
        parts = schema.pop("$defs", {})
    defs = {part: _tidy(parts[part]) for part in sorted(parts)}
    return {
        "$schema": DIALECT,
        "$id": f"urn:{PREFIX.rstrip('.')}:{name}:{VERSION.lstrip('.')}",
        "title": name,
        **_tidy(schema),
        **({"$defs": defs} if defs else {}),
    }


def asyncapi() -> Document:
    """Topics as channels, events as messages, and which service sends and receives what."""
    channels = {_id(topic): _channel(topic) for topic in TOPICS.values()}
    operations = {}
    for topic in TOPICS.values():
        for action, services in (("send", topic.producers), ("receive", topic.consumers)):
            for service in services:
                operations[f"{service}.{action}.{_id(topic)}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{_id(topic)}"},
                    "summary": f"{service} {'writes' if action == 'send' else 'reads'} {topic.name}",
                }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Headrace",
            "version": VERSION.lstrip(".v") + ".0.0",
            "license": {"name": "BSD-3-Clause"},
            "description": (
                "The topics of Headrace and the events in them: JSON bodies, CloudEvents 1.0 in Kafka's binary mode. "
                "HEADRACE_NAMESPACE, where set, stands before every address."
            ),
        },
        "defaultContentType": "application/json",
        "channels": channels | {DEAD_LETTERS: _dead_letters()},
        "operations": operations,
        "components": {
            "messages": {name: _message(name) for name in EVENTS},
            "messageTraits": {
                "stream": {"headers": _headers(HEADERS)},
                "control": {"headers": _headers(HEADERS | CAUSES, PLACE)},
            },
        },
    }


def _tidy(schema: Any) -> Any:
    """Without titles that repeat a field's name; one line a paragraph; objects open to later fields."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy: Document = {}
    for key, value in schema.items():
        if key == "description" and isinstance(value, str):
            paragraphs = inspect.cleandoc(value).split("\n\n")
            tidy[key] = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        elif key == "properties":
            tidy[key] = {name: _tidy(field) for name, field in value.items()}
        elif key in ("default", "enum", "const"):
            tidy[key] = value
        elif key != "title" and (key, value) != ("additionalProperties", False):  # readers ignore what they do not know
            tidy[key] = _tidy(value)
    return tidy


def _id(topic: Topic) -> str:
    return topic.name.removeprefix("<p>.")


def _channel(topic: Topic) -> Document:
    events = control_log_events() if topic.name == "control-log" else topic.events
    channel: Document = {
        "address": topic.name.replace("<p>", "{pipeline}"),
        "title": topic.name,
        "summary": topic.what,
        "messages": {event: {"$ref": f"#/components/messages/{event}"} for event in events},
        "bindings": {"kafka": _kafka(topic)},
    }
    if topic.per_pipeline:
        names = f"a released pipeline's name: {PIPELINE_NAME.pattern}"
        channel["parameters"] = {"pipeline": {"description": names, "examples": ["rainfall"]}}
    return channel


def _kafka(topic: Topic) -> Document:
    config: Document = {
        "cleanup.policy": ["delete"],
        "message.timestamp.type": "LogAppendTime" if topic.append_time else "CreateTime",
    }
    if topic.retention_s is None:
        config["retention.ms"] = -1
    elif topic.retention_s > 0:  # else the pipeline's policies say how long
        config["retention.ms"] = topic.retention_s * 1000
    if topic.retention_bytes is not None:
        config["retention.bytes"] = topic.retention_bytes
    partitions = {} if topic.partitions == "pipeline" else {"partitions": topic.partitions}
    return {**partitions, "topicConfiguration": config, "bindingVersion": "0.5.0"}


def _dead_letters() -> Document:
    return {
        "address": "{topic}" + DLQ,
        "title": f"<topic>{DLQ}",
        "summary": "records of a topic that no retry can fix, with where they stood and why",
        "messages": {"FaultFound": {"$ref": "#/components/messages/FaultFound"}},
        "parameters": {"topic": {"description": "a topic that services read", "examples": ["rainfall.predictions"]}},
    }


def _message(name: str) -> Document:
    trait = "stream" if name in STREAM_EVENTS else "control"
    summary, _, more = json_schema(name)["description"].partition("\n\n")
    folder = EXAMPLES / name / VERSION.lstrip(".")
    return {
        "name": f"{PREFIX}{name}{VERSION}",
        "title": name,
        "summary": summary,
        **({"description": more} if more else {}),
        "traits": [{"$ref": f"#/components/messageTraits/{trait}"}],
        "payload": {"schemaFormat": SCHEMA_FORMAT, "schema": {"$ref": f"./{name}{VERSION}.json"}},
        "examples": [
            {"name": path.stem, "payload": json.loads(path.read_text())} for path in sorted(folder.glob("*.json"))
        ],
    }


def _headers(required: dict[str, str], optional: dict[str, str] | None = None) -> Document:
    return {
        "type": "object",
        "properties": {
            name: {"type": "string", "description": text} for name, text in (required | (optional or {})).items()
        },
        "required": list(required),
    }


def text(document: Document) -> str:
    """A document as its file has it."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every document, and remove those that are none any more."""
    wanted = documents()
    EXPORTED.mkdir(exist_ok=True)
    for path in EXPORTED.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, document in wanted.items():
        (EXPORTED / name).write_text(text(document))
    print(f"{len(wanted)} documents in schemas/exported/")


if __name__ == "__main__":
    main()
