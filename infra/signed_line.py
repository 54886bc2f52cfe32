"""JSON that says who signed it: one line whose last field is an HMAC over the rest. And the name of a key."""

from __future__ import annotations

import hashlib
import hmac
import re

_LINE = re.compile(rb'(\{[^\n]*),"hmac":"([0-9a-f]{64})"\}\n')


def key_id(key: bytes) -> str:
    """What may be told of a key, so that another one is noticed."""
    return hashlib.sha256(b"headrace key id " + key).hexdigest()[:12]


def sign_line(key: bytes, body: bytes, purpose: bytes = b"") -> bytes:
    """The line of a JSON object; `purpose` keeps what was signed for one thing from being taken for another."""
    return b'%b,"hmac":"%b"}\n' % (body[:-1], _mac(key, body, purpose))


class Line:
    """A signed line at the start of some bytes: its JSON, and where what follows it begins."""

    __slots__ = ("_mac", "body", "end")

    def __init__(self, matched: re.Match[bytes]) -> None:
        self.body, self.end, self._mac = matched[1] + b"}", matched.end(), matched[2]

    def is_authentic(self, key: bytes, purpose: bytes = b"") -> bool:
        """Whether this key signed it."""
        return hmac.compare_digest(_mac(key, self.body, purpose), self._mac)


def read_line(content: bytes) -> Line | None:
    """The signed line that the content begins with, None where it does not."""
    matched = _LINE.match(content)
    return Line(matched) if matched is not None else None


def _mac(key: bytes, body: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, purpose + body, "sha256").hex().encode()
