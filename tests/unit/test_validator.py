"""The validator: given these records, then those events; and whatever comes, one fate each and never an error."""

import copy
import json
import math
import pickle
import random
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.codec import TYPE_OF, decode, encode, headers_of
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import PipelineReleased, PipelineRetired, ReleaseDefinition, WindowValidated
from headrace.schemas.policies import Policies, Retention
from headrace.schemas.record import OUTPUTS_PER_STEP, Record
from headrace.schemas.signing import sign
from headrace.schemas.stream import ExampleArrived, LabelArrived, RecordRejected, Tick
from headrace.services.validator import core
from headrace.services.validator.compiled import MAX_BYTES, compile_contract
from headrace.services.validator.examine import Refused, examine
from headrace.services.validator.reasons import REASONS
from headrace.services.validator.tidy import Arrival

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)
WORLD = core.World(b"key")
EXAMPLE, LABEL = TYPE_OF[ExampleArrived], TYPE_OF[LabelArrived]
NONE = "0" * 64

WEATHER = (
    FeatureSpec(name="temperature", type="float", ge=-60, le=60, unit="°C"),
    FeatureSpec(name="pressure", type="float", gt=800, lt=1100, alias="pressure (hPa)"),
    FeatureSpec(name="gusts", type="int", ge=0, optional=True),
    FeatureSpec(name="sky", type="str", values=("clear", "cloudy"), optional=True),
    FeatureSpec(name="holiday", type="bool", optional=True),
    FeatureSpec(name="note", type="str", max_length=5, optional=True),
)
ONE = (FeatureSpec(name="x", type="float"),)


def contract(features=ONE, label="bool", values=None, entity=False, extra="drop"):
    return ContractSpec(
        name="C", features=features, label=LabelSpec(type=label, values=values), entity=entity, extra=extra
    )


def marker(release=1, spec=None, partitions=1, ids=1_000_000, pipeline="rain", key=WORLD.key):
    definition = ReleaseDefinition(
        contract=spec or contract(), policies=Policies(retention=Retention(dedupe_ids=ids)), contract_digest=NONE,
        policies_digest=NONE, recipe_digest=NONE, source_digest=NONE, source_uri="none",
    )  # fmt: skip
    return sign(
        key,
        PipelineReleased(
            pipeline=pipeline, release=release, definition=definition, partitions=partitions, request="r", by="me"
        ),
    )


def tick(minute, key=WORLD.key, pipeline="rain"):
    return sign(key, Tick(schedule="minute", due=NOON + timedelta(minutes=minute), pipeline=pipeline))


def retired():
    return sign(WORLD.key, PipelineRetired(pipeline="rain", request="r", by="me"))


def binary(event_type):
    return [(name, value.encode()) for name, value in headers_of(event_type, "/users", 0)]


class History:
    """Folds what is given, one record after another; tells what came out."""

    def __init__(self, *given, spec=None, **settings):
        self.state, self.offset, self.out = core.State(), 0, []
        if spec is not None:
            self.give(marker(spec=spec, **settings))
            self.out.clear()
        for what in given:
            self.give(what)

    def give(self, what, headers=None, at_ms=NOON_MS):
        """An event (binary mode), bytes or a JSON value (without headers); returns what its step emitted."""
        if isinstance(what, bytes):
            body = what
        elif type(what) in TYPE_OF:
            body, headers = encode(what), headers or binary(TYPE_OF[type(what)])
        else:
            body = json.dumps(what).encode()
        record = Record(None, at_ms, "<p>.data-arrived", "rain", 3, self.offset, b"k", body, headers=headers)
        self.offset += 1
        emits = core.step(self.state, record, WORLD)
        self.out += emits
        return emits

    def told(self, topic):
        return [told(emit) for emit in self.out if emit.topic == topic]

    @property
    def validated(self):
        return self.told(core.VALIDATED)

    @property
    def codes(self):
        return [[p.code for p in event.problems] for event in self.told(core.REJECTED)]

    def counts(self):
        """validated, labels, rejected, duplicates of the window so far."""
        w = self.state.window
        return w.validated, w.labels, w.rejected, w.duplicates


def told(emit):
    """The event as a reader decodes it."""
    body = encode(emit.event) if emit.body is None else emit.body
    return decode(emit.type or TYPE_OF[type(emit.event)], body)


def example(example_id="a", features=None, time=NOON, **more):
    return ExampleArrived(id=example_id, time=time, features=features or {"x": 1.5}, **more)


def label(example_id="a", value=True, time=NOON, **more):
    return LabelArrived(id=example_id, time=time, label=value, **more)


# --- what is right passes -----------------------------------------------------------------------------------


def test_a_canonical_example_is_forwarded_byte_for_byte_and_keyed_by_its_id():
    history = History(spec=contract())
    (emit,) = history.give(example())
    assert (emit.body, emit.key, emit.partition, emit.topic) == (encode(example()), b"a", None, "<p>.data-validated")
    assert told(emit) == example()
    assert history.counts() == (1, 0, 0, 0)


def test_a_canonical_label_is_forwarded_byte_for_byte():
    history = History(spec=contract())
    (emit,) = history.give(label())
    assert (emit.body, emit.key, told(emit)) == (encode(label()), b"a", label())
    assert history.counts() == (0, 1, 0, 0)


@pytest.mark.parametrize(
    "features",
    [
        {"temperature": 1, "pressure": 1000.5},
        {"temperature": -60.0, "pressure": 1000.5, "gusts": 0, "sky": "clear", "holiday": False, "note": "abcde"},
    ],
)
def test_optional_columns_may_be_absent_and_the_bytes_are_still_forwarded(features):
    history = History(spec=contract(WEATHER))
    (emit,) = history.give(example(features=features))
    assert emit.body == encode(example(features=features))


def test_the_headers_may_stand_in_any_order_and_a_foreign_type_goes_by_shape():
    history = History(spec=contract())
    history.give(encode(example("a")), headers=list(reversed(binary(EXAMPLE))))
    history.give(encode(label("b")), headers=[("ce_type", b"com.acme.reading")])
    history.give(encode(label("c")), headers=[("traceparent", b"00"), ("x", None)])
    assert [(type(e).__name__, e.id) for e in history.validated] == [
        ("ExampleArrived", "a"), ("LabelArrived", "b"), ("LabelArrived", "c")
    ]  # fmt: skip


def test_plain_json_without_id_and_time_gets_its_place_and_its_append_time():
    history = History(spec=contract())
    history.give({"features": {"x": 2}})
    assert history.validated == [ExampleArrived(id="rain.data-arrived-3-1", time=NOON, features={"x": 2.0})]
    history.give({"id": "a", "label": True})
    assert history.validated[1] == label()


def test_a_structured_event_is_taken_out_of_its_envelope():
    envelope = {"specversion": "1.0", "id": "7", "source": "/me", "type": EXAMPLE}
    history = History(
        {**envelope, "data": {"id": "a", "features": {"x": 1}}},
        {**envelope, "type": "com.acme.answer", "data": {"id": "a", "label": False}},
        spec=contract(),
    )
    assert history.validated == [example(features={"x": 1.0}), label(value=False)]


def test_aliases_nulls_and_extra_columns_are_tidied_and_extras_counted():
    history = History(spec=contract(WEATHER))
    (emit,) = history.give(
        example(features={"temperature": 1, "pressure (hPa)": 1000, "gusts": None, "sky": "clear", "more": {"a": [1]}})
    )
    assert told(emit).features == {"temperature": 1.0, "pressure": 1000.0, "sky": "clear"}
    history.give({"id": "b", "features": {"temperature": 1, "pressure": 900}, "comment": "hi", "entity": "e"})
    assert history.validated[1].entity is None
    assert history.state.window.extras == {"more": 1, "comment": 1, "entity": 1}


def test_an_inline_label_becomes_a_label_of_its_own_behind_its_example():
    for whole in (example(label=True), {"id": "a", "time": NOON.isoformat(), "features": {"x": 1.5}, "label": True}):
        history = History(whole, spec=contract())
        assert history.validated == [example(), label()]
        assert [emit.key for emit in history.out] == [b"a", b"a"]
        assert history.counts() == (1, 0, 0, 0)


def test_history_is_kept():
    history = History(example(history=True), {"features": {"x": 1}, "history": True}, spec=contract())
    assert [e.history for e in history.validated] == [True, True]
    assert history.out[0].body is not None


def test_with_entities_the_key_is_the_entity_and_ids_are_unique_within_it():
    spec = contract(entity=True)
    history = History(example(entity="e"), example(entity="f"), label(entity="e"), example(entity="e"), spec=spec)
    assert [emit.key for emit in history.out] == [b"e", b"f", b"e"]
    assert history.counts() == (2, 1, 0, 1)


def test_many_brackets_are_not_deep():
    wide = {"x": 1, "list": [[] for _ in range(50)], "text": "[{" * 50 + '"'}
    assert History({"features": wide}, example("b"), spec=contract()).counts() == (2, 0, 0, 0)


def test_texts_with_escapes_pass_though_their_bytes_are_not_canonical():
    history = History(example('say "a"', features={"x": 1.5}), label('say "a"'), spec=contract())
    assert [e.id for e in history.validated] == ['say "a"', 'say "a"']


# --- repeats ------------------------------------------------------------------------------------------------


def test_a_repeat_is_counted_and_not_forwarded_whatever_its_form_and_time():
    history = History(
        example(), example(), example(time=NOON + timedelta(hours=1)), {"id": "a", "features": {"x": 1.50}},
        spec=contract(),
    )  # fmt: skip
    assert history.validated == [example()]
    assert history.counts() == (1, 0, 0, 3)


def test_the_same_id_with_other_features_is_a_conflict_that_names_the_first():
    history = History(example(), example(features={"x": 2.0}), {"id": "a", "features": {"x": 3}}, spec=contract())
    assert history.codes == [["id_conflict"], ["id_conflict"]]
    assert "offset 1 " in history.told(core.REJECTED)[0].problems[0].message
    assert history.counts() == (1, 0, 2, 0)


def test_a_label_with_another_value_passes_and_the_same_value_again_does_not():
    history = History(label(), label(), label(value=False), label(value=False), label(), spec=contract())
    assert [e.label for e in history.validated] == [True, False, True]
    assert history.counts() == (0, 3, 0, 2)


def test_an_example_and_a_label_with_one_id_are_no_repeats_of_each_other():
    assert History(label(), example(), spec=contract()).counts() == (1, 1, 0, 0)


def test_a_repeated_example_that_brings_its_label_gives_the_label():
    history = History(example(), example(label=True), example(label=True), spec=contract())
    assert history.validated == [example(), label()]
    assert history.counts() == (1, 1, 0, 1)


def test_a_rejected_record_does_not_make_its_id_known():
    history = History(example(features={"x": "?"}), example(), spec=contract())
    assert history.counts() == (1, 0, 1, 0)


def test_ids_are_forgotten_oldest_first_beyond_the_bound_and_only_then():
    history = History(*(example(f"e{n}") for n in range(999)), spec=contract(), ids=10)
    assert len(history.state.examples) == 999
    history.give(example("last"))
    assert list(history.state.examples) == [*(f"e{n}" for n in range(990, 999)), "last"]
    history.give(example("e998"))
    history.give(example("e0"))
    assert history.counts() == (1, 0, 0, 1)


def test_labels_are_forgotten_by_the_same_bound():
    history = History(*(label(f"e{n}") for n in range(30)), tick(1), spec=contract(), ids=10)
    assert list(history.state.labels) == [f"e{n}" for n in range(20, 30)]


def test_absent_columns_count_when_examples_are_compared():
    floats = (*ONE, FeatureSpec(name="y", type="float", optional=True))
    history = History(example(), example(), example(features={"x": 1.5, "y": 0.0}), spec=contract(floats))
    assert history.counts() == (1, 0, 1, 1)


def test_long_ids_are_told_apart():
    history = History(example("i" * 199 + "1"), example("i" * 199 + "2"), example("i" * 199 + "1"), spec=contract())
    assert history.counts() == (2, 0, 0, 1)
    assert all(len(key) < 64 for key in history.state.examples)


# --- what is wrong is rejected with its reason --------------------------------------------------------------

OK = {"temperature": 1, "pressure": 1000}


def raw(features):
    return b'{"id":"a","features":' + features + b"}"


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (b"", ["not_json"]),
        (b"hello", ["not_json"]),
        (b'{"id":"a"', ["not_json"]),
        (b'\xef\xbb\xbf{"features":{}}', ["not_json"]),
        (b'{"id":"\xff"}', ["not_utf8"]),
        (b'{"id":"\\ud800","label":true}', ["not_utf8"]),
        (b"[1]", ["unknown_shape"]),
        (b"null", ["unknown_shape"]),
        (b'{"x":1}', ["unknown_shape"]),
        (b'{"specversion":"1.0","data":[1]}', ["unknown_shape"]),
        (b"[" * 100_000, ["too_deep"]),
        (b'{"features":' * 40 + b"1" + b"}" * 40, ["too_deep"]),
        (b'{"id":"a","id":"b","label":true}', ["duplicate_key"]),
        (
            b'{"id":"a","time":"2026-01-01T12:00:00Z","features":{"temperature":1,"temperature":2,"pressure":1000}}',
            ["duplicate_key"],
        ),
        (raw(b'{"temperature":1,"pressure":1000,"pressure (hPa)":1000}'), ["duplicate_key"]),
        (b'{"features":{"temperature":1,"pressure":1000,"note":"' + b"x" * MAX_BYTES + b'"}}', ["too_large"]),
        (raw(b'{"temperature":1,"pressure":1000,"more":"' + b"x" * MAX_BYTES + b'"}'), ["too_large"]),
        (raw(b"{}"), ["schema_missing_column", "schema_missing_column"]),
        (raw(b'{"temperature":null,"pressure":1000}'), ["schema_missing_column"]),
        (raw(b"[1,2]"), ["unexpected_data_type"]),
        (raw(b"null"), ["unexpected_data_type"]),
        (raw(b'{"temperature":"1","pressure":true}'), ["unexpected_data_type", "unexpected_data_type"]),
        (raw(b'{"temperature":NaN,"pressure":1000}'), ["float_type_has_nan"]),
        (raw(b'{"temperature":Infinity,"pressure":1e400}'), ["float_type_has_inf", "float_type_has_inf"]),
        (raw(b'{"temperature":1,"pressure":1' + b"0" * 5_000 + b"}"), ["float_type_has_inf"]),
        (raw(b'{"temperature":-1' + b"0" * 350 + b',"pressure":1000}'), ["float_type_has_inf"]),
        (raw(b'{"temperature":-60.1,"pressure":800}'), ["float_type_small_float", "float_type_small_float"]),
        (raw(b'{"temperature":1e308,"pressure":1100}'), ["float_type_big_float", "float_type_big_float"]),
        (raw(b'{"temperature":1,"pressure":1000,"gusts":-1}'), ["int_type_small_int"]),
        (raw(b'{"temperature":1,"pressure":1000,"gusts":9223372036854775808}'), ["int_type_big_int"]),
        (raw(b'{"temperature":1,"pressure":1000,"gusts":3.0}'), ["unexpected_data_type"]),
        (raw(b'{"temperature":1,"pressure":1000,"gusts":true}'), ["unexpected_data_type"]),
        (raw(b'{"temperature":1,"pressure":1000,"holiday":1}'), ["unexpected_data_type"]),
        (raw(b'{"temperature":1,"pressure":1000,"sky":"green"}'), ["enum_type_unexpected_string_values"]),
        (raw(b'{"temperature":1,"pressure":1000,"note":"abcdef"}'), ["text_too_long"]),
        (
            raw(b'{"temperature":"?","gusts":"?","sky":"?"}'),
            [
                "unexpected_data_type",
                "schema_missing_column",
                "unexpected_data_type",
                "enum_type_unexpected_string_values",
            ],
        ),
        (b'{"label":true}', ["id_missing"]),
        (b'{"id":17,"label":true}', ["id_invalid"]),
        (b'{"id":"","label":true}', ["id_invalid"]),
        (b'{"id":"' + b"i" * 201 + b'","label":true}', ["id_too_long"]),
        (b'{"id":"a","label":1}', ["label_type"]),
        (b'{"id":"a","label":"true"}', ["label_type"]),
        (b'{"id":"a","label":null}', ["label_missing"]),
        (b'{"id":"a","time":"yesterday","label":true}', ["time_invalid"]),
        (b'{"id":"a","time":"2026-01-01T12:00:00","label":true}', ["time_invalid"]),
        (b'{"id":"a","time":1767268800,"label":true}', ["time_invalid"]),
        (b'{"id":"a","time":"1899-12-31T23:59:59Z","label":true}', ["time_far_past"]),
        (b'{"id":"a","time":"2026-01-02T12:01:01Z","label":true}', ["time_far_future"]),
        (b'{"features":{"temperature":1,"pressure":1000},"label":3}', ["label_type"]),
        (b'{"features":{"temperature":1,"pressure":1000},"history":"yes"}', ["unexpected_data_type"]),
    ],
)
def test_a_reject_says_every_reason(body, codes):
    history = History(body, spec=contract(WEATHER))
    assert history.codes == [codes]
    assert history.counts() == (0, 0, 1, 0)


def test_a_canonical_record_with_its_time_out_of_range_is_rejected_too():
    late, early = NOON + timedelta(days=2), datetime(1800, 1, 1, tzinfo=UTC)
    history = History(example(time=late), example(time=early), label(time=late), label(time=early), spec=contract())
    assert history.codes == [["time_far_future"], ["time_far_past"]] * 2


def test_old_series_are_no_fault_even_where_their_log_is_as_old():
    history = History()
    long_ago = datetime(1949, 1, 1, tzinfo=UTC)
    ms = int(long_ago.timestamp() * 1000)
    history.give(marker(), at_ms=ms)
    history.give(example("a", time=long_ago), at_ms=ms)
    history.give({"features": {"x": 1}}, at_ms=ms)
    assert [e.time for e in history.validated[1:]] == [long_ago, long_ago]
    history.give(example("b"), at_ms=ms)
    assert history.codes == [["time_far_future"]]


@pytest.mark.parametrize(
    ("spec", "given", "codes"),
    [
        (contract(entity=True), {"id": "a", "label": True}, ["entity_missing"]),
        (contract(entity=True), example(), ["entity_missing"]),
        (contract(entity=True), {"id": "a", "label": True, "entity": 3}, ["entity_invalid"]),
        (contract(entity=True), {"features": {"x": 1}, "entity": "e" * 201}, ["entity_too_long"]),
        (contract(extra="reject"), {"features": {"x": 1, "y": 2}, "z": 3}, ["schema_new_column", "schema_new_column"]),
        (contract(extra="reject"), example(entity="e"), ["schema_new_column"]),
        (contract(label="float"), {"id": "a", "label": "1"}, ["label_type"]),
        (contract(label="float"), b'{"id":"a","label":1e400}', ["label_value"]),
        (contract(label="classes", values=("p", "q")), {"id": "a", "label": "r"}, ["label_value"]),
        (contract(label="classes", values=("p", "q")), {"features": {"x": 1}, "label": "r"}, ["label_value"]),
        (contract(label="str"), {"id": "a", "label": ""}, ["label_value"]),
        (contract(label="str"), {"id": "a", "label": 4}, ["label_type"]),
    ],
)
def test_the_contract_decides(spec, given, codes):
    history = History(given, spec=spec)
    assert history.codes == [codes]


def test_a_type_of_ours_that_users_do_not_write_is_refused_even_where_its_shape_fits():
    history = History(spec=contract())
    for name in ("headrace.ModelUpdated.v1", "headrace.ExampleArrived.v2", "headrace.PredictionMade.v1"):
        history.give(encode(label()), headers=binary(name))
    history.give({"specversion": "1.0", "type": "headrace.Tick.v1", "data": {"id": "a", "label": True}})
    assert history.codes == [["unknown_event_type"]] * 4


def test_a_reject_holds_the_bytes_their_place_and_the_release():
    history = History(b"{]", spec=contract())
    (emit,) = history.out
    assert emit.partition is None
    event = told(emit)
    assert (event.id, event.topic, event.partition, event.offset) == (
        "rain.data-arrived-3-1", "rain.data-arrived", 3, 1
    )  # fmt: skip
    assert (event.value, event.key, event.release) == (b"{]", b"k", 1)


def test_a_reject_keeps_the_id_that_the_record_has_and_names_its_columns():
    history = History(example("mine", features={"x": "?"}), spec=contract())
    (event,) = history.told(core.REJECTED)
    assert (event.id, event.problems[0].feature) == ("mine", "x")


def test_every_code_has_its_sentence():
    assert all(text.endswith(".") and code == code.lower() for code, text in REASONS.items())


# --- releases, retirement, ticks ----------------------------------------------------------------------------


def test_before_the_first_release_and_after_retirement_records_are_rejected():
    history = History(example(), tick(0), label(), marker(), example(), retired(), example("b"), label("b"), tick(1))
    assert history.codes == [
        ["before_first_release"], ["before_first_release"], ["after_retirement"], ["after_retirement"]
    ]  # fmt: skip
    assert [type(e).__name__ for e in history.validated] == [
        "PipelineReleased", "ExampleArrived", "PipelineRetired", "Tick"
    ]  # fmt: skip


def test_in_band_events_go_to_every_partition_unchanged():
    history = History(marker(partitions=3), tick(1))
    assert [(emit.partition, emit.key) for emit in history.out] == [(0, b"rain"), (1, b"rain"), (2, b"rain")] * 2
    assert history.validated == [marker(partitions=3)] * 3 + [tick(1)] * 3


def test_the_marker_swaps_the_contract_and_keeps_the_ids():
    wider = contract((*ONE, FeatureSpec(name="y", type="int", optional=True)))
    history = History(example("a"), example("b", {"x": 1.0, "y": 2}), marker(2, wider), spec=contract())
    history.give(example("c", {"x": 1.0, "y": 2}))
    history.give(example("a"))
    assert history.validated[1].features == {"x": 1.0}
    assert history.validated[-1].features == {"x": 1.0, "y": 2}
    assert history.counts() == (1, 0, 0, 1)
    assert history.state.release == 2


def test_a_marker_of_the_same_or_a_lower_release_and_any_after_retirement_are_ignored():
    history = History(marker(2), marker(2, contract(WEATHER)), marker(1), retired(), retired(), marker(3))
    assert history.validated == [marker(2), retired()]
    assert history.state.contract == contract()


@pytest.mark.parametrize(
    "forged",
    [
        marker(2, key=b"other"),
        marker(2).model_copy(update={"signature": ""}),
        marker(2).model_copy(update={"release": 3}),
        marker(2, pipeline="snow"),
        tick(1, key=b"other"),
        tick(1, pipeline="snow"),
        msgspec.structs.replace(tick(1), signature="é"),
        retired().model_copy(update={"by": "x"}),
    ],
)
def test_what_the_system_did_not_sign_for_this_pipeline_is_rejected(forged):
    history = History(forged, spec=contract())
    assert history.codes == [["marker_not_signed"]]
    assert (history.state.release, history.state.last_tick, history.validated) == (1, None, [])


def test_a_marker_that_cannot_be_read_is_rejected():
    history = History(spec=contract())
    for body in (b"{", b"[" * 10_000, b'{"x":' + b"[" * 10_000, b'{"pipeline":"rain","signature":3}'):
        for kind in (Tick, PipelineReleased, PipelineRetired):
            history.give(body, headers=binary(TYPE_OF[kind]))
    assert history.codes == [["marker_not_signed"]] * 12


def test_a_repeated_or_older_tick_is_passed_on_once():
    history = History(tick(1), tick(1), tick(0), tick(2), spec=contract())
    assert history.validated == [tick(1), tick(2)]


# --- windows ------------------------------------------------------------------------------------------------


def test_a_window_ends_at_a_tick_and_tells_what_it_saw():
    history = History(
        example("a", {"x": 1.0}), example("b", {"x": 3.0}), example("a", {"x": 1.0}), label("a"),
        example("c", {"x": "?"}), {"features": {"x": 5.0, "y": 1}}, spec=contract(),
    )  # fmt: skip
    history.give(tick(1), at_ms=NOON_MS + 60_000)
    (window,) = history.told(core.RESULTS)
    assert window.model_dump(exclude={"features"}) == {
        "pipeline": "rain", "partition": 3, "start_offset": 0, "end_offset": 8, "start_ms": NOON_MS,
        "end_ms": NOON_MS + 60_000, "release": 1, "validated": 3, "labels": 1, "rejected": 1, "duplicates": 1,
        "reasons": {"unexpected_data_type": 1}, "extra_columns": {"y": 1}, "verdict": "ok",
    }  # fmt: skip
    x = window.features["x"]
    assert (x.n, x.missing, x.mean, x.min, x.max) == (3, 0, 3.0, 1.0, 5.0)
    assert x.sd == pytest.approx(math.sqrt(8 / 3))
    assert x.quantiles == (1.0, 1.0, 1.0, 3.0, 5.0, 5.0, 5.0)
    assert [emit.topic for emit in history.out[-2:]] == [core.RESULTS, core.VALIDATED]
    assert (history.out[-2].key, history.out[-2].partition) == (b"rain", 0)


def test_windows_tile_the_log_and_a_window_without_records_is_not_told():
    history = History(marker(), example("a"), tick(1), tick(2), example("b"), example("c"), tick(3))
    assert [(w.start_offset, w.end_offset) for w in history.told(core.RESULTS)] == [(0, 3), (3, 7)]


def test_a_window_ends_after_a_thousand_records_and_at_a_release():
    history = History(*(example(str(n)) for n in range(1_005)), marker(2), spec=contract())
    windows = history.told(core.RESULTS)
    assert [(w.validated, w.start_offset, w.end_offset, w.release) for w in windows] == [
        (1_000, 0, 1_001, 1), (5, 1_001, 1_007, 1)
    ]  # fmt: skip


def test_the_summary_of_each_kind_of_column():
    rows = [
        {"temperature": 1.0, "pressure": 900.0, "gusts": 3, "sky": "clear", "holiday": True},
        {"temperature": 2.0, "pressure": 900.0, "gusts": 5, "sky": "clear"},
        {"temperature": 3.0, "pressure": 900.0, "sky": "cloudy", "holiday": False},
    ]
    history = History(*(example(str(n), row) for n, row in enumerate(rows)), tick(1), spec=contract(WEATHER))
    (window,) = history.told(core.RESULTS)
    f = window.features
    assert (f["gusts"].n, f["gusts"].missing, f["gusts"].mean, f["gusts"].max) == (2, 1, 4.0, 5.0)
    assert (f["sky"].top, f["sky"].mean) == ({"clear": 2, "cloudy": 1}, None)
    assert (f["holiday"].n, f["holiday"].missing, f["holiday"].mean) == (2, 1, 0.5)
    assert (f["note"].n, f["note"].missing, f["note"].quantiles) == (0, 3, None)
    assert f["pressure"].sd == 0.0


def test_a_sum_that_overflows_is_no_number():
    history = History(*(example(str(n), {"x": 1.7e308}) for n in range(3)), tick(1), spec=contract())
    x = history.told(core.RESULTS)[0].features["x"]
    assert (x.mean, x.sd, x.max) == (None, None, 1.7e308)


@pytest.mark.parametrize(
    ("good", "bad", "verdict"), [(80, 20, "ok"), (79, 21, "skewed"), (10, 39, "ok"), (0, 50, "skewed")]
)
def test_too_many_rejects_skew_the_window(good, bad, verdict):
    history = History(
        *(example(str(n)) for n in range(good)), *(example(f"b{n}", {"x": "?"}) for n in range(bad)), tick(1),
        spec=contract(),
    )  # fmt: skip
    assert history.told(core.RESULTS)[0].verdict == verdict


def test_rejects_that_do_not_speak_against_the_schema_do_not_skew_the_window():
    history = History(*(example(str(n)) for n in range(60)), marker())
    assert [(w.verdict, w.reasons) for w in history.told(core.RESULTS)] == [("ok", {"before_first_release": 60})]


def test_the_names_of_extra_columns_are_bounded():
    history = History(*({"features": {"x": 1, f"y{n}": 1}} for n in range(150)), spec=contract())
    extras = history.state.window.extras
    assert (len(extras), extras["(others)"], sum(extras.values())) == (101, 50, 150)


# --- whatever comes -----------------------------------------------------------------------------------------

HUGE = ["1e308", "1e400", "-1e400", "9223372036854775808", "1" + "0" * 400, "1" + "0" * 5_000, "NaN", "Infinity"]
TEXTS = ['"clear"', '"1"', '"\\u00e9\\""', '"\\ud800"', '""', '"' + "i" * 300 + '"']
VALUES = ["1", "1.5", "-61", "1000", "true", "null", "[]", "{}", '{"a":1,"a":2}', "[[[[1]]]]", *HUGE, *TEXTS]
TIMES = ['"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-10:00"', '"2026-01-01"', "0"]
COLUMNS = {
    "temperature": ("1", "-60", "3.5"), "pressure": ("1000", "900.5"), "gusts": ("0", "7"),
    "sky": ('"clear"', '"cloudy"'), "holiday": ("true", "false"), "note": ('""', '"caf\u00e9"', '"\\u0041"'),
}  # fmt: skip


def made_up(seed):
    """A record as bytes: mostly right, with up to two faults."""
    rng = random.Random(seed)
    required = ("temperature", "pressure")
    columns = [[k, rng.choice(v)] for k, v in COLUMNS.items() if k in required or rng.random() < 0.5]
    fields = [["id", '"a"'], ["time", '"2026-01-01T12:00:00Z"'], ["label", rng.choice(["true", "1.5", '"clear"'])]]
    fields += [["entity", '"e"']] * (rng.random() < 0.3) + [["history", "true"]] * (rng.random() < 0.2)
    with_features = rng.random() < 0.8
    for _ in range(rng.choice([0, 1, 1, 2])):
        pairs = rng.choice([columns, fields])
        at = rng.randrange(len(pairs)) if pairs else 0
        fault = rng.choice(["value", "value", "drop", "twice", "extra", "alias"])
        if fault == "value" and pairs:
            pairs[at] = [pairs[at][0], rng.choice(TIMES if pairs[at][0] == "time" else VALUES)]
        elif fault == "drop" and pairs:
            del pairs[at]
        elif fault == "twice" and pairs:
            pairs.append([pairs[at][0], rng.choice([pairs[at][1], *VALUES])])
        elif fault == "extra":
            pairs.append([rng.choice(["more", "x", "specversion"]), rng.choice(VALUES)])
        elif fault == "alias":
            columns[:] = [[k.replace("pressure", "pressure (hPa)"), v] for k, v in columns]
    if with_features:
        fields = [pair for pair in fields if pair[0] != "label" or rng.random() < 0.4]
        fields.append(["features", rng.choice(VALUES) if rng.random() < 0.05 else _object(columns, rng)])
    text = _object(fields, rng)
    if rng.random() < 0.1:
        named = rng.choice([EXAMPLE, LABEL, "acme", TYPE_OF[Tick]])
        text = _object([["specversion", '"1.0"'], ["type", f'"{named}"'], ["data", text]], rng)
    return (text + rng.choice(["", "", "", "", "", "", " ", "x", "\0"])).encode()


def _object(pairs, rng):
    space = rng.choice(["", "", " "])
    return "{" + ",".join(f'{space}"{key}"{space}:{space}{value}' for key, value in pairs) + "}"


anything = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists).map(
    lambda value: json.dumps(value).encode()
)
bodies = st.one_of(anything, st.binary(max_size=60), st.integers(0, 1 << 32).map(made_up))
names = st.sampled_from([EXAMPLE, LABEL, TYPE_OF[Tick], TYPE_OF[PipelineReleased], "headrace.X.v1", "acme", "é"])
header_values = st.one_of(names.map(str.encode), names, st.binary(max_size=5), st.none())
header_lists = st.one_of(
    st.none(), names.map(lambda n: [(k, v.encode()) for k, v in headers_of(n, "/u", 0)]),
    st.lists(st.tuples(st.sampled_from(["ce_type", "ce_id", "content-type"]), header_values), max_size=5),
)  # fmt: skip
LABELS = [{"label": "bool"}, {"label": "float"}, {"label": "str"}, {"label": "classes", "values": ("clear", "1")}]
SPECS = [
    *(contract(WEATHER, **label_) for label_ in LABELS), contract(WEATHER, entity=True),
    contract(WEATHER, extra="reject"), contract(),
]  # fmt: skip


@settings(max_examples=draws(300), deadline=None)
@given(st.lists(st.tuples(bodies, header_lists, st.integers(-(1 << 40), 1 << 62)), max_size=4), st.sampled_from(SPECS))
def test_anything_at_all_ends_in_exactly_one_fate_and_never_raises(records, spec):
    history = History(spec=spec)
    for n, (body, headers, at_ms) in enumerate(records, 1):
        emits = history.give(body, headers=headers, at_ms=at_ms)
        assert sum(history.counts()) == n
        check_outputs(body, emits)


def test_a_large_corpus_of_almost_right_records_meets_every_fate_one_at_a_time():
    histories = [History(spec=spec) for spec in SPECS]
    for seed in range(4_000):
        history = histories[seed % len(histories)]
        before, body = sum(history.counts()), made_up(seed).replace(b'"a"', f'"{seed // 20}"'.encode())
        emits = history.give(body, headers=[None, binary(EXAMPLE), binary(LABEL)][seed % 3])
        if not any(emit.topic == core.RESULTS for emit in emits):
            assert sum(history.counts()) == before + 1, body
            check_outputs(body, emits)
    met = {code for history in histories for codes in history.codes for code in codes}
    assert len(met) > 25
    assert {"id_conflict", "duplicate_key", "not_utf8", "not_json", "time_far_future", "schema_new_column"} <= met
    assert any(history.state.window.duplicates for history in histories)
    assert all(history.validated for history in histories)


def check_outputs(body, emits):
    """What every reader relies on."""
    assert all(isinstance(emit.key, bytes) for emit in emits)
    for event in map(told, emits):
        if isinstance(event, RecordRejected):
            assert event.problems
            assert all(p.code in REASONS and len(p.message) < 400 for p in event.problems)
            assert event.value == body
        else:
            assert isinstance(event, ExampleArrived | LabelArrived)
            assert isinstance(event, LabelArrived) or event.label is None
            assert all(value is not None for value in getattr(event, "features", {}).values())


def test_the_fast_ways_accept_what_the_slow_one_accepts_with_the_same_outcome():
    accepted = dict.fromkeys(["forwarded", "encoded"], 0)
    compiled = [compile_contract(spec) for spec in SPECS]
    for seed in range(6_000):
        body, spec, event_type = made_up(seed), SPECS[seed % len(SPECS)], [None, EXAMPLE, LABEL][seed % 3]
        history = History(spec=spec)
        emits = history.give(body, headers=binary(event_type) if event_type else None)
        arrival = Arrival("rain.data-arrived-3-1", NOON, history.state.latest)
        found = examine(compiled[seed % len(SPECS)], event_type, body, arrival)
        if isinstance(found, Refused):
            assert [told(emit).problems for emit in emits] == [found.problems], body
        else:
            assert list(map(told, emits)) == [e for e in (found.example, found.label) if e is not None], body
            assert history.state.window.rows == ([found.row] if found.example is not None else []), body
            accepted["encoded" if emits[0].body is None else "forwarded"] += 1
    assert min(accepted.values()) > 300


def test_a_reject_fits_into_a_message_whatever_came():
    history = History(spec=contract())
    record = Record(None, NOON_MS, "<p>.data-arrived", "rain", 0, 9, b"k" * 900_000, b"\x00" * 900_000)
    (emit,) = core.step(history.state, record, WORLD)
    assert len(encode(emit.event)) < 400_000


def test_the_fold_goes_on_from_any_position_as_if_it_had_never_stopped():
    given_ = [marker(), *(example(str(n % 7), {"x": float(n % 5)}) for n in range(30)), tick(1), label(), b"{", tick(2)]
    whole = History(*given_)
    for cut in range(len(given_)):
        first = History(*given_[:cut])
        second = History()
        second.state, second.offset = pickle.loads(pickle.dumps(first.state)), first.offset
        for what in given_[cut:]:
            second.give(what)
        assert first.out + second.out == whole.out
        assert second.state == whole.state


def test_a_step_leaves_its_record_alone_and_stays_within_the_outputs_of_one_step():
    history = History(marker(partitions=100))
    emits = history.give(tick(1))
    assert len(emits) <= OUTPUTS_PER_STEP
    before = copy.copy(history.state.window)
    assert history.give(tick(1)) == []
    assert history.state.window == before


def test_a_window_that_was_told_is_not_changed_afterwards():
    history = History(example("a", {"x": "?"}), tick(1), spec=contract())
    (emit,) = [emit for emit in history.out if isinstance(emit.event, WindowValidated)]
    before = encode(emit.event)
    history.give(example("b", {"x": "?"}))
    assert encode(emit.event) == before
