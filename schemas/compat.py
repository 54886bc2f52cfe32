"""Whether two versions of a JSON Schema go together, and if not, which change breaks it.

BACKWARD: who reads by the new schema reads all that was written by the old one, and loses none of it (data topics).
FULL: who still reads by the old schema also reads all that is written by the new one (control topics, where services
of two versions meet). Transitive means: against every earlier version, not only the last. A keyword that the
comparison does not know is an error, never a silent yes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, NamedTuple

from headrace.schemas.topics import TOPICS

Schema = Mapping[str, Any]
Mode = Literal["BACKWARD", "FULL"]
Flaw = Literal["missing", "type", "range", "closed", "removed", "renamed", "default"]

ANNOTATIONS = {"$schema", "$id", "$defs", "title", "description", "examples", "deprecated", "default"}
LOWER = (("minimum", "exclusiveMinimum"), ("minLength", ""), ("minItems", ""))
UPPER = (("maximum", "exclusiveMaximum"), ("maxLength", ""), ("maxItems", ""))
BOUNDS = {word for pair in LOWER + UPPER for word in pair if word}
EXACT = ("pattern", "format", "contentEncoding", "multipleOf")
SHAPES = {"type", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems"}
KNOWN = ANNOTATIONS | SHAPES | BOUNDS | {*EXACT, "$ref", "anyOf", "oneOf"}

# What a flaw is called, by who reads: the new schema what the old one wrote, or the old one what the new one writes.
NEW_READS: dict[Flaw, str] = {
    "missing": "newly required",
    "type": "retyped",
    "range": "narrowed",
    "closed": "closed",
    "removed": "removed",
    "renamed": "renamed",
    "default": "new default",
}
OLD_READS: dict[Flaw, str] = {
    "missing": "no longer required",
    "type": "retyped",
    "range": "widened",
    "closed": "added to a closed object",
}


class UnknownKeyword(ValueError):
    """A schema uses a keyword that the comparison does not understand."""


@dataclass(frozen=True)
class Change:
    """A change that breaks: its kind, where (`predictions.*.learned_to`), and what it was and is."""

    kind: str
    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path or 'the event'}: {self.kind} ({self.what})"


class Found(NamedTuple):
    """A flaw for one direction of reading."""

    flaw: Flaw
    path: str
    what: str


def breaking_changes(old: Schema, new: Schema, mode: Mode) -> list[Change]:
    """Every change from one schema to the next that breaks the mode; the same place is named once."""
    found = [Change(NEW_READS[f.flaw], f.path, f.what) for f in _Reading(old, new, keeps=True).flaws()]
    if mode == "FULL":
        found += [Change(OLD_READS[f.flaw], f.path, f.what) for f in _Reading(new, old, keeps=False).flaws()]
    first: dict[str, Change] = {}
    for change in found:
        first.setdefault(change.path, change)
    return list(first.values())


def broken_events(old: Mapping[str, Schema], new: Mapping[str, Schema]) -> dict[str, list[Change]]:
    """By event, all that breaks between two versions of the whole contract (event name → schema)."""
    broken = {}
    for name, schema in old.items():
        gone = [Change("removed", "", "no event has this name any more")]
        changes = breaking_changes(schema, new[name], mode_of(name)) if name in new else gone
        if changes:
            broken[name] = changes
    return broken


def mode_of(event: str) -> Mode:
    """FULL for what stands in a control topic, where services of two versions read each other; else BACKWARD."""
    return "FULL" if any(event in t.events for t in TOPICS.values() if not t.per_pipeline) else "BACKWARD"


class _Reading:
    """One direction: can all that `writer` allows be read by `reader`? `keeps`: and is nothing of it ignored?"""

    def __init__(self, writer: Schema, reader: Schema, *, keeps: bool) -> None:
        self.writer, self.reader, self.keeps = writer, reader, keeps
        self.within: set[tuple[Any, Any]] = set()

    def flaws(self) -> Iterator[Found]:
        yield from self._compare(self.writer, self.reader, "")

    def _compare(self, writer: Schema, reader: Schema, path: str) -> Iterator[Found]:
        refs = writer.get("$ref"), reader.get("$ref")
        if all(refs):
            if refs in self.within:
                return
            self.within.add(refs)
        yield from self._alternatives(_split(self.writer, writer), _split(self.reader, reader), path)
        self.within.discard(refs)

    def _alternatives(self, written: list[Schema], read: list[Schema], path: str) -> Iterator[Found]:
        """Each alternative that may be written needs one that reads it."""
        unread, readable = [], False
        for w in written:
            flaws = [list(self._shape(w, r, path)) for r in read if _accepts(r.get("type"), w.get("type"))]
            readable = readable or bool(flaws)
            if not flaws:
                unread.append(w)
            else:
                yield from min(flaws, key=len)
        if unread:
            flaw: Flaw = "range" if readable or any("type" not in w and not _enum(w) for w in unread) else "type"
            yield Found(flaw, path, f"{_names(unread)} against {_names(read)}")

    def _shape(self, w: Schema, r: Schema, path: str) -> Iterator[Found]:
        yield from _values(w, r, path)
        kind = r.get("type")
        if kind == "object":
            yield from self._object(w, r, path)
        elif kind == "array":
            yield from self._array(w, r, path)

    def _object(self, w: Schema, r: Schema, path: str) -> Iterator[Found]:
        had, has = w.get("properties", {}), r.get("properties", {})
        for name in r.get("required", ()):
            if name not in w.get("required", ()):
                yield Found("missing", _at(path, name), "optional" if name in had else "absent")
        for name in had:
            if name in has:
                yield from self._compare(had[name], has[name], _at(path, name))
                if self.keeps and _differ(had[name], has[name]):
                    what = (
                        f"{had[name]['default']!r} became {has[name]['default']!r}: absent fields change their meaning"
                    )
                    yield Found("default", _at(path, name), what)
            else:
                yield from self._unknown(name, w, r, path)
        more_w, more_r = _others(w), _others(r)
        if more_w and more_r is False:
            yield Found("closed", _at(path, "*"), "other keys are refused")
        elif more_w and more_r is None:
            yield Found("type", path, "a mapping became an object of fields")
        elif more_w:
            yield from self._compare(_schema(more_w), _schema(more_r), _at(path, "*"))

    def _unknown(self, name: str, w: Schema, r: Schema, path: str) -> Iterator[Found]:
        """The reader has no such field: is it refused, an entry of a mapping, or silently lost?"""
        had, has = w["properties"], r.get("properties", {})
        more = _others(r)
        if more:
            yield from self._compare(had[name], _schema(more), _at(path, name))
        elif self.keeps:
            same = [n for n in has if n not in had and has[n] == had[name]]
            if len(same) == 1:
                yield Found("renamed", _at(path, name), f"now {same[0]}")
            else:
                yield Found("removed", _at(path, name), "what was written there is lost")
        elif more is False:
            yield Found("closed", _at(path, name), "readers of the older version refuse it")

    def _array(self, w: Schema, r: Schema, path: str) -> Iterator[Found]:
        places = max(len(w.get("prefixItems", ())), len(r.get("prefixItems", ())))
        for index in range(places):
            at_w, at_r = _item(w, index), _item(r, index)
            if at_w is not None and at_r is not None:
                yield from self._compare(at_w, at_r, f"{path}[{index}]")
        rest_w, rest_r = _item(w, places), _item(r, places)
        if rest_w is not None and rest_r is not None:
            yield from self._compare(rest_w, rest_r, f"{path}[]")


def _values(w: Schema, r: Schema, path: str) -> Iterator[Found]:
    """Values, bounds and formats of one type: may the reader refuse what the writer may write?"""
    allowed = _enum(r)
    if allowed is not None:
        written = _enum(w)
        lost = None if written is None else [value for value in written if value not in allowed]
        if lost is None or lost:
            yield Found("range", path, f"only {allowed}" if lost is None else f"without {lost}")
    for sign, pairs in ((1, LOWER), (-1, UPPER)):
        for inclusive, exclusive in pairs:
            written_bound, read_bound = _bound(w, inclusive, exclusive, sign), _bound(r, inclusive, exclusive, sign)
            if read_bound > written_bound:
                yield Found(
                    "range", path, f"{inclusive} {_shown(written_bound, sign)} against {_shown(read_bound, sign)}"
                )
    for word in EXACT:
        if word in r and r[word] != w.get(word):
            yield Found("range", path, f"{word} {w.get(word, 'none')} against {r[word]}")


def _split(root: Schema, schema: Schema) -> list[Schema]:
    """The alternatives of a schema, each of one type, with references followed. Raises UnknownKeyword."""
    if strange := schema.keys() - KNOWN:
        raise UnknownKeyword(f"cannot compare {', '.join(sorted(strange))}")
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return _split(root, target)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return [alternative for choice in schema[word] for alternative in _split(root, choice)]
    kinds = schema.get("type")
    return [{**schema, "type": kind} for kind in kinds] if isinstance(kinds, list) else [schema]


def _accepts(reader: str | None, writer: str | None) -> bool:
    return reader is None or reader == writer or (reader == "number" and writer == "integer")


def _bound(schema: Schema, inclusive: str, exclusive: str, sign: int) -> tuple[float, bool]:
    """The tightest bound as (value, whether exclusive), larger = tighter; upper bounds come negated."""
    bounds = [(sign * schema[word], word == exclusive) for word in (inclusive, exclusive) if word in schema]
    return max(bounds, default=(-inf, False))


def _shown(bound: tuple[float, bool], sign: int) -> str:
    value, is_exclusive = bound
    return "none" if value == -inf else f"{sign * value:g}{' (exclusive)' * is_exclusive}"


def _enum(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _others(schema: Schema) -> Any:
    """What may stand under other keys: a schema or True, False where they are refused, None where they are ignored."""
    return schema.get("additionalProperties", None if "properties" in schema else True)


def _item(schema: Schema, index: int) -> Schema | None:
    """The schema of an array's element; None where there can be none."""
    prefix = schema.get("prefixItems", ())
    if index < len(prefix):
        return prefix[index]  # type: ignore[no-any-return]
    rest = schema.get("items", True)
    return None if rest is False else _schema(rest)


def _schema(value: Any) -> Schema:
    return value if isinstance(value, Mapping) else {}


def _differ(w: Schema, r: Schema) -> bool:
    return "default" in w and "default" in r and w["default"] != _of_old_fields(r["default"], w["default"])


def _of_old_fields(new: Any, old: Any) -> Any:
    """A new default without what a field adds to it that is new: of those that were there nothing changes."""
    if not (isinstance(new, Mapping) and isinstance(old, Mapping)):
        return new
    return {name: _of_old_fields(new[name], old[name]) for name in old if name in new}


def _names(alternatives: list[Schema]) -> str:
    return " | ".join(str(schema.get("type", "anything")) for schema in alternatives)


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
