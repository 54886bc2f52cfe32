"""Bytes to JSON values, with the reason where that fails. Slow and exact: only for records that need an explanation."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from headrace.services.validator.reasons import shown

DEPTH = 32
INT_DIGITS = 400  # more cannot be a finite float, and Python reads no more than 4,300 digits

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[{\]}]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Unreadable(ValueError):
    """The bytes hold no JSON value that every reader would understand alike; `code` is the reason's."""

    def __init__(self, code: str, message: str) -> None:
        """Say which reason it is and what was found."""
        super().__init__(message)
        self.code = code
        self.message = message


def parse(body: bytes) -> Any:
    """The JSON value. NaN and infinities come through, as do numbers beyond any float (as infinities).

    Raises Unreadable: not UTF-8, not JSON, nested too deep, or a key twice in one object.
    """
    if _is_deep(body):
        raise Unreadable("too_deep", f"nested deeper than {DEPTH} levels")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable("not_utf8", f"byte {error.start} is not UTF-8 ({error.reason})") from error
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise Unreadable("not_json", f"{error.msg} at character {error.pos}") from error
    if "\\u" in text and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise Unreadable("not_utf8", "a text holds half of a surrogate pair")
    return value


def _is_deep(body: bytes) -> bool:
    if body.count(b"{") + body.count(b"[") <= DEPTH:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH:
            return True
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Unreadable("duplicate_key", f"the key {shown(twice)} stands twice in one object")
    return found


def _integer(text: str) -> int | float:
    if len(text) > INT_DIGITS:
        return -math.inf if text[0] == "-" else math.inf
    return int(text)
