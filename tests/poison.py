"""What users of a pipeline should not have published, each with the reason by which it is refused."""

import json
from typing import NamedTuple

import garbage
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SOURCE = b'''
from typing import Literal

from headrace import Contract, Pipeline, Rollout, Success, Triggers, feature
from river import compose, linear_model, preprocessing


class Weather(Contract):
    """One day."""

    temperature: float = feature(ge=-60, le=60)
    wind: float = feature(ge=0, le=100)
    sky: Literal["clear", "cloudy"]
    gusts: int | None = feature(ge=0)
    note: str | None = feature(max_length=20)


def recipe(seed: int):
    return compose.Select("temperature", "wind") | preprocessing.StandardScaler() | linear_model.LogisticRegression()


pipeline = Pipeline(
    name="rain", contract=Weather, label=bool, recipe=recipe, success=Success("accuracy", at_least=0.6),
    triggers=Triggers(first_model_at=50), rollout=Rollout(refresh_s=REFRESH),
)
'''
TIME = "2026-03-01T00:00:00Z"
GOOD = {"temperature": 1.0, "wind": 2.0, "sky": "clear"}
ANY = ""  # some reason, whichever comes first
EXAMPLE, LABEL, TICK, RELEASED = (
    [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/me"), ("ce_type", kind), ("ce_sequence", b"1")]
    for kind in (
        b"headrace.ExampleArrived.v1", b"headrace.LabelArrived.v1", b"headrace.Tick.v1", b"headrace.PipelineReleased.v1"
    )
)  # fmt: skip


class Poison(NamedTuple):
    """A record, and the reason code it is refused with (`ANY`: one of them)."""

    name: str
    code: str
    value: bytes | None
    key: bytes | None = b"poison"
    headers: tuple = ()


def example(code, name, features=None, **more):
    body = {"id": "poison", "time": TIME, "features": GOOD if features is None else features} | more
    return Poison(name, code, json.dumps(body).encode(), headers=EXAMPLE)


def column(code, name, **columns):
    return example(code, name, GOOD | columns)


def label(code, name, **more):
    return Poison(name, code, json.dumps({"id": "d1", "time": TIME, "label": True} | more).encode(), headers=LABEL)


def raw(code, name, value, headers=(), key=None):
    return Poison(name, code, value, key, tuple(headers))


NAMED = [
    column("unexpected_data_type", "a text for a number", temperature="warm"),
    column("unexpected_data_type", "a bool for a number", temperature=True),
    column("unexpected_data_type", "a list for a number", temperature=[1.0]),
    column("float_type_has_nan", "NaN", temperature=float("nan")),
    column("float_type_has_inf", "infinity", temperature=float("inf")),
    column("float_type_has_inf", "minus infinity", wind=float("-inf")),
    column("float_type_big_float", "1e308", temperature=1e308),
    column("float_type_has_inf", "a number longer than any float", temperature=10**400),
    column("float_type_small_float", "below its bound", temperature=-60.5),
    column("int_type_big_int", "a whole number of 65 bits", gusts=1 << 64),
    column("unexpected_data_type", "a fraction for a whole number", gusts=1.5),
    column("schema_missing_column", "null", temperature=None),
    example("schema_missing_column", "a missing column", {"temperature": 1.0, "sky": "clear"}),
    column("enum_type_unexpected_string_values", "an unknown word", sky="green"),
    column("text_too_long", "a huge text", note="x" * 100_000),
    column("unexpected_data_type", "deep JSON in a column", note=[[[[]]]]),
    example("unexpected_data_type", "features that are a list", [1, 2]),
    example("id_invalid", "a number for an id", id=5),
    example("id_too_long", "a huge id", id="x" * 5_000),
    example("time_invalid", "a time in words", time="tomorrow"),
    example("time_far_future", "the year 9999", time="9999-12-31T00:00:00Z"),
    example("time_far_past", "the year 1700", time="1700-01-01T00:00:00Z"),
    label("label_type", "a text for a label", label="yes"),
    label("label_type", "a number for a label", label=1),
    label("label_missing", "no label", label=None),
    label("id_missing", "a label of nothing", id=None),
    raw("not_json", "not JSON", b"hello, world"),
    raw("not_json", "no bytes", b""),
    raw("not_json", "a tombstone", None),
    raw("not_utf8", "not UTF-8", b'{"id":"\xff\xfe"}'),
    raw("duplicate_key", "a key twice", b'{"id":"poison","id":"d1","features":{}}'),
    raw("too_deep", "deep JSON", garbage.DEEP),
    raw("too_large", "larger than the contract takes", b'{"note":"' + b"x" * 300_000 + b'"}'),
    raw("unknown_shape", "a list", b"[1,2,3]"),
    raw("unknown_shape", "an object of something else", b'{"event":"login","user":7}', [("kafka_x", b"\xff")]),
    raw("marker_not_signed", "a Tick without a signature", b'{"schedule":"minute","due":"2099-01-01T00:00:00Z"}', TICK),
    raw("marker_not_signed", "a Tick signed by somebody else",
        b'{"schedule":"minute","due":"2099-01-01T00:00:00Z","pipeline":"rain","signature":"%s"}' % (b"0" * 64), TICK),
    raw("marker_not_signed", "a release without anything", b'{"pipeline":"rain","release":99}', RELEASED),
    raw("unknown_event_type", "an event of services", b'{"id":"d1"}',
        [*EXAMPLE[:3], ("ce_type", b"headrace.PredictionMade.v1"), EXAMPLE[4]]),
]  # fmt: skip

bad_numbers = st.sampled_from(
    (None, True, 10**400, 1e308, -1e308, float("nan"), float("inf"), "", "1.0", [], {}, [[1]], {"a": 1})
)
bent = st.one_of(
    st.builds(lambda value: column(ANY, f"temperature {value}", temperature=value), bad_numbers),
    st.builds(lambda value: label(ANY, f"label {value}", label=value), bad_numbers.filter(lambda v: v is not True)),
    st.builds(lambda value: example(ANY, "an odd time", time=value), st.text(max_size=30)),
    st.builds(
        lambda name: example(ANY, "an odd column", {"temperature": 1.0, "sky": "clear", name: 2.0}),
        st.text(max_size=8).filter(lambda name: name != "wind"),
    ),
)
written = garbage.unreadable.map(lambda it: Poison("bytes", ANY, it[1], it[0], it[2]))
strategy = st.one_of(st.sampled_from(NAMED), bent, written)


def drawn(what, count):
    """Examples of a strategy, the same ones in every run."""
    found = []

    @seed(5)
    @settings(max_examples=count, phases=(Phase.generate,), database=None, suppress_health_check=list(HealthCheck))
    @given(what)
    def collect(one):
        found.append(one)

    collect()
    return found
