"""Records that nobody should have written: what hypothesis makes of bytes, envelopes and true records."""

import json

from hypothesis import strategies as st

from headrace.schemas.codec import DECODERS

DEEP = b'{"features":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
BODIES = (
    b"", b"null", b"[]", b"{}", b'""', b"NaN", b"-Infinity", b"1e999", b"{", b'{"a":', b"\xff\xfe\x00", b"\x00" * 64,
    b'{"a":1,"a":2}', b'{"pipeline":"../../etc"}', b'{"id":"\\ud800"}', DEEP, b'"' + b"x" * 300_000 + b'"',
    b"\xef\xbb\xbf{}", b"'; DROP TABLE predictions; --",
)  # fmt: skip
NUMBERS = (
    None, b"", b"x", b"-1", b"1.5", b"nan", b"0x10", b"9" * 18, b"9" * 30, b"9" * 6_000, b"\xff", "٣".encode(),
)  # fmt: skip
SOURCES = (None, b"", b"/", b"/validator/rain/0/x", b"\xff\xfe", b"s" * 5_000, b"\x00", "/ü/ü".encode())
TYPES = (None, b"", b"headrace.", b"headrace.Nothing.v1", b"\xff", *(name.encode() for name in DECODERS))
VALUES = (
    None, True, False, -1, 0, 7, 2**53, 2**62, 2**63, 10**400, -1e308, 1e308, float("nan"), float("inf"), "",
    "x", "../x", "x" * 5_000, "\u0000", [], {}, [[]], {"a": None},
)  # fmt: skip

bodies = st.one_of(st.sampled_from(BODIES), st.binary(max_size=64), st.text(max_size=64).map(str.encode))
numbers = st.sampled_from(NUMBERS)
sources = st.sampled_from(SOURCES)
types = st.sampled_from(TYPES)
keys = st.one_of(st.none(), st.binary(max_size=20), st.just(b"k" * 100_000))
strange = st.lists(st.tuples(st.text(min_size=1, max_size=9), st.one_of(st.none(), st.binary(max_size=20))), max_size=6)
envelopes = st.tuples(types, sources, numbers).map(
    lambda it: [
        ("ce_specversion", b"1.0"),
        ("ce_id", it[2]),
        ("ce_source", it[1]),
        ("ce_type", it[0]),
        ("ce_sequence", it[2]),
    ]
)
headers = st.one_of(
    strange,
    envelopes,
    st.permutations(["ce_source", "ce_type", "ce_sequence"]).map(lambda names: [(name, b"7") for name in names]),
)
times_ms = st.sampled_from((1, 1_772_323_680_000, 10**17))  # the last one in no year that a datetime knows
unreadable = st.tuples(keys, bodies, headers)


def bent(chance, real):
    """A true record with one thing changed, told after it: `real` are (key, value, headers). Rare events come often."""
    kinds = sorted({_named(own, "ce_type") for _, _, own in real})
    kind = chance.choice(kinds)
    key, value, own = chance.choice([one for one in real if _named(one[2], "ce_type") == kind])
    how = chance.choice(("cut", "flip", "field", "field", "field", "gone", "header"))
    later = b"%d" % (int(_named(own, "ce_sequence")) + chance.randint(1, 9))  # between it and what came next
    own = [(name, later if name == "ce_sequence" else one) for name, one in own or ()]
    if how == "cut":
        value = value[: chance.randint(0, max(0, len(value) - 1))]
    elif how == "flip" and value:
        at = chance.randint(0, len(value) - 1)
        value = value[:at] + bytes([value[at] ^ chance.randint(1, 255)]) + value[at + 1 :]
    elif how in ("field", "gone"):
        value = json.dumps(_changed(chance, json.loads(value), how)).encode()
    elif own:
        at = chance.randint(0, len(own) - 1)
        own[at] = (own[at][0], chance.choice(chance.choice((NUMBERS, SOURCES, TYPES))))
    return key, value, own


def _named(headers, name):
    return dict(headers or ()).get(name) or b""


def _changed(chance, value, how):
    """The value with one field, anywhere in it, replaced or taken away; as often as not by another of its type."""
    if isinstance(value, dict) and value:
        name = chance.choice(sorted(value))
        if how == "gone" and chance.random() < 0.5:
            return {key: one for key, one in value.items() if key != name}
        return value | {name: _changed(chance, value[name], how)}
    alike = [one for one in VALUES if type(one) is type(value)]
    return chance.choice(alike if alike and chance.random() < 0.5 else VALUES)
