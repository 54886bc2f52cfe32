"""Events become rows: what is kept of each, what is a repeat, and that poison costs its own row only."""

import json
import math
import random
from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest
from draws import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from river import metrics

from headrace.infra.memory_bus import MemoryMessage
from headrace.infra.records import DeadLetter, Incoming
from headrace.schemas.codec import EVENTS, TYPE_OF, encode, headers_of
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import Check, MetricsUpdated, ModelValidated, RunStarted, WindowValidated
from headrace.schemas.stream import (
    ArmPrediction,
    Baselines,
    ExampleLabelled,
    LabelArrived,
    LabelCorrected,
    PredictionMade,
    Problem,
    RecordRejected,
    Tick,
)
from headrace.services.evaluator import scores
from headrace.services.recorder.batch import Made
from headrace.services.recorder.data_tables import EXAMPLE, TRAINING
from headrace.services.recorder.rows import PipelineRows
from headrace.services.recorder.source import Source
from headrace.services.recorder.store import Position
from headrace.services.recorder.tables import TABLES, feature_columns, features_table

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SOURCE = "/predictor/rainfall/1f3a9c2e/0"


def contract(label="bool", **types):
    types = types or {"temperature": "float", "station": "str"}
    return ContractSpec(
        name="Weather",
        features=tuple(FeatureSpec(name=name, type=kind) for name, kind in types.items()),
        label=LabelSpec(type=label, values=("a", "b") if label == "classes" else None),
    )


def prediction(id="1", value=0.7, served="champion", features=None, alias="champion", **changes):
    arms = {} if value is None else {alias: ArmPrediction(version=3, run="run-1", learned_to=40, value=value)}
    return PredictionMade(
        **{
            "id": id,
            "time": NOON,
            "features": {"temperature": 3.5, "station": "x"} if features is None else features,
            "predictions": arms,
            "served": served if arms else None,
            "release": 1,
            "epoch": 2,
            "origin": (0, 9),
            **changes,
        }
    )


def labelled(label, value=0.7, **changes):
    return ExampleLabelled(
        prediction=prediction(value=value, **changes),
        label=label,
        predicted_at_ms=1_000,
        labelled_at_ms=3_500,
        partition=0,
        number=5,
        pending_from=4,
        known_to=3,
    )


def message(event, offset=0, sequence=None, source=SOURCE, body=None, known_ms=1_000, headers=None):
    sequence = offset * 65_536 if sequence is None else sequence
    made = [(k, v.encode()) for k, v in headers_of(TYPE_OF[type(event)], source, sequence)]
    return MemoryMessage(
        "rainfall.predictions", 0, offset, b"1", encode(event) if body is None else body, headers or made, (0, known_ms)
    )


def recorded(messages, spec=None, topic="<p>.predictions"):
    """All rows by table, as dicts, and the faults."""
    spec = spec or contract()
    rows = PipelineRows("rainfall", [spec]) if topic.startswith("<p>.") and topic != "<p>.snapshots" else None
    source = Source(topic, 0, Position("1f3a9c2e", 0), rows, lambda event, known_ms: None)
    if messages:
        source.take(messages)
    made = Made()
    faults = source.make(made)
    tables = TABLES | {"features_rainfall": features_table("rainfall", feature_columns([spec]))}
    return {name: table.to_pylist() for name, table in made.all(tables)}, faults, source


def test_a_prediction_gives_its_example_with_typed_features_and_one_row_for_each_arm():
    event = prediction(entity="s1")
    arms = {
        **event.predictions,
        "challenger": ArmPrediction(version=4, run="run-2", learned_to=41, error="no such key"),
    }
    found, faults, _ = recorded([message(msgspec.structs.replace(event, predictions=arms), offset=7, known_ms=1_234)])
    assert faults == []
    (example,) = found["features_rainfall"]
    assert (example["temperature"], example["station"], example["other"]) == (3.5, "x", None)
    assert (example["event_time"], example["known_at"]) == (NOON, datetime.fromtimestamp(1.234, UTC))
    assert (example["log_offset"], example["origin_offset"], example["served"]) == (7, 9, "champion")
    champion, challenger = found["predictions"]
    assert (champion["alias"], champion["prediction"], champion["score"], champion["served"]) == (
        "champion",
        "true",
        0.7,
        True,
    )
    assert (challenger["alias"], challenger["error"], challenger["score"], challenger["served"]) == (
        "challenger",
        "no such key",
        None,
        False,
    )
    assert {row["id"] for row in found["predictions"]} == {"1"}
    assert {row["origin_offset"] for row in found["predictions"]} == {9}


def test_before_the_first_model_there_is_an_example_and_no_prediction():
    found, _, _ = recorded([message(prediction(value=None, cold=True))])
    assert "predictions" not in found
    assert (found["features_rainfall"][0]["served"], found["features_rainfall"][0]["cold"]) == (None, True)


@pytest.mark.parametrize(
    ("label_type", "value", "answered", "score"),
    [
        ("bool", 0.5, "false", 0.5),
        ("bool", 0.51, "true", 0.51),
        ("bool", 1, "true", 1.0),
        ("bool", True, "true", None),
        ("classes", {"a": 0.2, "b": 0.8}, "b", 0.8),
        ("classes", {"a": 0.5, "b": 0.5}, "a", 0.5),
        ("classes", "a", "a", None),
        ("classes", {}, None, None),
        ("str", "new", "new", None),
        ("str", 3, "3", None),
        ("float", 2.5, None, 2.5),
        ("float", 2, None, 2.0),
        ("float", [1], None, None),
    ],
)
def test_an_answer_is_read_by_the_labels_type(label_type, value, answered, score):
    found, _, _ = recorded([message(prediction(value=value))], contract(label_type))
    (row,) = found["predictions"]
    assert (row["prediction"], row["score"]) == (answered, score)
    assert row["probabilities"] == (json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else None)


def test_a_labelled_example_says_how_right_the_served_answer_was():
    found, _, _ = recorded(
        [message(labelled(False, value=0.7, baselines=Baselines(majority=True, mean=0.4, last=False)))]
    )
    (row,) = found["labelled_examples"]
    assert (row["label"], row["label_value"], row["prediction"], row["correct"]) == ("false", 0.0, "true", False)
    assert row["log_loss"] == pytest.approx(-math.log(0.3))
    assert (row["label_delay_s"], row["majority"], row["mean"], row["last"]) == (2.5, "true", 0.4, "false")
    assert (row["version"], row["run"], row["learned_to"], row["number"], row["known_to"]) == (3, "run-1", 40, 5, 3)


def test_regression_has_an_error_and_classes_a_probability_of_the_label():
    found, _, _ = recorded([message(labelled(2.0, value=2.5))], contract("float"))
    (row,) = found["labelled_examples"]
    assert (row["error"], row["correct"], row["log_loss"], row["label_value"]) == (0.5, None, None, 2.0)
    found, _, _ = recorded([message(labelled("a", value={"a": 0.25, "b": 0.75}))], contract("classes"))
    (row,) = found["labelled_examples"]
    assert (row["correct"], row["label_value"], row["log_loss"]) == (False, None, pytest.approx(-math.log(0.25)))


def test_a_class_that_the_answer_does_not_name_costs_what_it_costs_in_the_evaluators_scores():
    sure = {"a": 1.0}
    found, _, _ = recorded([message(labelled("c", value=sure))], contract("classes"))
    (row,) = found["labelled_examples"]
    assert row["log_loss"] == scores.log_loss("multiclass", sure, "c") == pytest.approx(34.539, abs=0.001)


def test_a_row_nobody_answered_is_no_error_of_a_model():
    found, _, _ = recorded([message(labelled(True, value=None, cold=True))])
    (row,) = found["labelled_examples"]
    assert [row[name] for name in ("served", "version", "prediction", "correct", "log_loss")] == [None] * 5


@pytest.mark.parametrize("label_type", ["bool", "classes"])
def test_scores_of_the_rows_are_rivers(label_type):
    rng = random.Random(3)
    accuracy, loss, messages = metrics.Accuracy(), metrics.LogLoss(), []
    for offset in range(300):
        p, label = rng.choice([0.0, 0.5, 1.0, rng.random()]), rng.random() < 0.5
        proba = {False: 1 - p, True: p}
        accuracy.update(label, max(proba, key=proba.__getitem__))
        loss.update(label, proba)
        if label_type == "bool":
            event = labelled(label, value=p)
        else:
            event = labelled("b" if label else "a", value={"a": 1 - p, "b": p})
        messages.append(message(event, offset))
    found, _, _ = recorded(messages, contract(label_type))
    rows = found["labelled_examples"]
    assert sum(row["correct"] for row in rows) / 300 == pytest.approx(accuracy.get())
    assert sum(row["log_loss"] for row in rows) / 300 == pytest.approx(
        loss.get(), rel=1e-4
    )  # River clips p, not P(label)


def test_features_that_the_contract_does_not_know_are_kept_beside_the_columns():
    odd = {"temperature": "warm", "station": "x", "mean_7d": 4.0, "many": 2**70}
    found, faults, _ = recorded(
        [
            message(prediction(), 0),
            message(
                prediction(),
                1,
                body=msgspec.json.encode(msgspec.to_builtins(prediction(features={}))).replace(
                    b'"features":{}', b'"features":' + json.dumps(odd).encode()
                ),
            ),
        ]
    )
    assert faults == []
    plain, row = found["features_rainfall"]
    assert (plain["temperature"], plain["other"]) == (3.5, None)
    assert (row["temperature"], row["station"]) == (None, "x")
    assert set(json.loads(row["other"])) == {"temperature", "mean_7d", "many"}


def test_an_alias_that_we_do_not_know_is_a_row_like_any_other():
    events = [message(prediction(), 0), message(prediction(alias="canary", served="canary"), 1)]
    found, faults, _ = recorded(events)
    assert faults == []
    assert Counter(row["alias"] for row in found["predictions"]) == {"champion": 1, "canary": 1}
    for name in ("__class__", "champion.run", "", "__struct_fields__"):
        event = prediction(alias=name, served=name)
        found, faults, _ = recorded([message(prediction(), 0), message(event, 1), message(labelled(True), 2)])
        assert (faults, len(found["predictions"])) == ([], 2)
        found, faults, _ = recorded([message(labelled(True, served=name), 0)])
        assert (faults, found["labelled_examples"][0]["version"]) == ([], None)
    found, _, _ = recorded([message(labelled(True, alias="canary", served="canary"))])
    assert (found["labelled_examples"][0]["served"], found["labelled_examples"][0]["correct"]) == ("canary", True)


def test_rejects_corrections_and_labels_have_their_rows():
    reject = RecordRejected(
        id="7",
        topic="rainfall.data-arrived",
        partition=0,
        offset=3,
        value=b"\xff{",
        release=1,
        problems=[
            Problem(code="out_of_range", message="pressure is 94", feature="pressure"),
            Problem(code="b", message="c"),
        ],
    )
    found, _, _ = recorded(
        [
            message(reject, 0),
            message(LabelArrived(id="1", time=NOON, label=True), 1),
            message(LabelCorrected(id="1", first=False, corrected=True, labelled_at_ms=5), 2),
            message(Tick(schedule="minute", due=NOON), 3),
        ]
    )
    (row,) = found["rejects"]
    assert (row["code"], row["offset"], row["value"]) == ("out_of_range", 3, b"\xff{")
    assert [problem["code"] for problem in row["problems"]] == ["out_of_range", "b"]
    assert (found["labels"][0]["label"], found["labels"][0]["label_value"]) == ("true", 1.0)
    assert found["label_corrections"][0]["corrected_label"] == "true"
    assert set(found) == {"rejects", "labels", "label_corrections"}


def test_control_events_have_typed_rows_and_the_log_keeps_each_whole():
    verdict = ModelValidated(
        pipeline="rainfall",
        run="run-1",
        request="r",
        stage="offline",
        verdict="pass",
        n_labels=200,
        offset=200,
        checks=(Check(name="accuracy", verdict="pass", value=0.7, limit=0.6, n=100),),
    )
    started = RunStarted(pipeline="rainfall", run="run-1", request="r", release=1, seed=0, start_offset=0)
    origin = [("ce_correlationid", b"c"), ("ce_causationid", b"d"), ("ce_origin", b"model-validations/aa/0/1")]

    def copied(event, offset):
        made = [(k, v.encode()) for k, v in headers_of(TYPE_OF[type(event)], SOURCE, offset)]
        return message(event, offset, headers=made + origin)

    found, faults, _ = recorded([copied(verdict, 0), copied(started, 1)], topic="control-log")
    assert faults == []
    assert found["validations"][0]["checks"][0]["limit"] == 0.6
    assert (found["run_events"][0]["event"], found["run_events"][0]["seed"]) == ("RunStarted", 0)
    assert [row["event"] for row in found["events"]] == ["ModelValidated", "RunStarted"]
    assert found["events"][0]["first_place"] == "model-validations/aa/0/1"
    assert json.loads(found["events"][0]["body"])["run"] == "run-1"


def test_a_window_of_labels_alone_has_no_features_to_record():
    window = WindowValidated(
        pipeline="rainfall",
        partition=0,
        start_offset=0,
        end_offset=1_000,
        start_ms=0,
        end_ms=1,
        release=1,
        validated=0,
        labels=1_000,
        rejected=0,
        duplicates=0,
        reasons={},
        extra_columns={},
        features={},
        verdict="ok",
    )
    found, faults, _ = recorded([message(window)], topic="validation-results")
    assert faults == []
    assert found["windows"][0]["labels"] == 1_000
    assert "feature_windows" not in found


def test_each_metric_is_a_row_and_nan_is_no_json():
    event = MetricsUpdated(
        pipeline="rainfall",
        alias="champion",
        version=1,
        run="r",
        scope="windowed",
        n=10,
        coverage=0.9,
        metrics={"accuracy": 0.7, "auc": None, "r2": float("nan")},
        window=(0, 10),
    )
    found, _, _ = recorded([message(event)], topic="metrics")
    assert [row["metric"] for row in found["metrics"]] == ["accuracy", "auc", "r2"]
    sliced, _, _ = recorded([message(event.model_copy(update={"slice": "wind=5..20"}))], topic="metrics")
    assert {row["slice"] for row in sliced["metrics"]} == {"wind=5..20"}
    found, _, _ = recorded([message(event)], topic="control-log")
    json.loads(found["events"][0]["body"], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


# --- poison -----------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["id", "time", "features", "predictions", "origin", "release", "served", "epoch", "label", "mean"]
)
ARMS = st.dictionaries(
    st.sampled_from(["champion", "challenger", "__class__", ""]),
    ANYTHING.map(lambda value: {"run": "r", "learned_to": 1, "version": 1, "value": value}),
)


GOLDEN = [
    msgspec.to_builtins(prediction()),
    {"pipeline": "p", "run": "r", "reason": "x", "offset": 2**70},
    {"pipeline": "p", "reason": "x", "numbers": {"a": [2**70]}, "request": "q", "kind": "k"},
    {"pipeline": "", "run_event": {"a": 1e300}},
]


def changed(event, field, value):
    """The event's JSON with one field, here or one level down, replaced."""
    whole = msgspec.to_builtins(event)
    (whole["prediction"] if field in whole.get("prediction", ()) else whole)[field] = value
    return json.dumps(whole).encode()


@settings(max_examples=draws(300), deadline=None)
@given(
    st.data(),
    st.sampled_from([prediction(), labelled(True), LabelArrived(id="1", time=NOON, label=True)]),
    st.sampled_from(["bool", "classes", "str", "float"]),
    st.sampled_from([1_000, -1, 2**62]),
)
def test_poison_costs_its_own_row_and_no_other(data, event, label_type, known_ms):
    one = st.one_of(
        st.binary(max_size=60),
        ANYTHING.map(lambda value: json.dumps(value).encode()),
        st.tuples(FIELDS, ANYTHING).map(lambda change: changed(event, *change)),
        ARMS.map(lambda arms: changed(event, "predictions", arms)),
    )
    bodies = data.draw(st.lists(one, max_size=6))
    messages = [message(event, 0)]
    messages += [message(event, 1 + n, body=body, known_ms=known_ms) for n, body in enumerate(bodies)]
    messages.append(message(event, 100))
    found, faults, _ = recorded(messages, contract(label_type))
    (main,) = [name for name in found if name in ("features_rainfall", "labelled_examples", "labels")]
    offsets = {row["log_offset"] for row in found[main]}
    assert {0, 100} <= offsets
    assert offsets | {fault.offset for fault in faults} == {0, 100, *range(1, 1 + len(bodies))}
    assert all(fault.reason for fault in faults)


@settings(max_examples=draws(150), deadline=None)
@given(
    st.sampled_from(sorted(EVENTS)),
    st.sampled_from(["control-log", "metrics", "validation-results", "lineage", "<p>.snapshots", "metrics-dlq"]),
    st.lists(st.one_of(ANYTHING, st.sampled_from(GOLDEN)), max_size=4),
)
def test_no_event_on_any_control_topic_stops_the_recorder(name, topic, bodies):
    made = [(k, v.encode()) for k, v in headers_of(f"headrace.{name}.v1", SOURCE, 0)]
    messages = [
        MemoryMessage(topic, 0, n, b"", json.dumps(body).encode(), [*made[:4], ("ce_sequence", b"%d" % n)], (0, 1_000))
        for n, body in enumerate(bodies)
    ]
    found, faults, _ = recorded(messages, topic=topic)
    assert len(faults) + len(found.get("events", [])) <= len(bodies)


@pytest.mark.parametrize(
    "time", ["2026-11-24T12:00:00.123456789Z", "2026-11-24t12:00:00z", "2026-11-24 12:00:00+05:30", "not a time", ""]
)
def test_a_time_that_arrow_cannot_read_does_not_cost_the_row(time):
    body = encode(prediction()).replace(b"2026-11-24T12:00:00Z", time.encode())
    found, faults, _ = recorded([message(prediction(), 0), message(prediction(), 1, body=body)])
    assert faults == []
    first, second = found["features_rainfall"]
    assert first["event_time"] == NOON
    assert (second["event_time"] is None) == ("not" in time or not time)


# --- repeats ----------------------------------------------------------------------------------------------


@settings(max_examples=draws(200), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["/a/x/0", "/b/x/0"]), st.integers(0, 8), st.sampled_from(["fit", "swap", "none", "bad"])
        )
    ),
    st.sampled_from(["<p>.predictions", "control-log"]),
)
def test_what_is_a_repeat_is_what_the_runtime_says(records, topic):
    full = topic.replace("<p>", "rainfall")
    incoming, kept, letters = Incoming(full, ""), [], 0
    messages = []
    for offset, (source, sequence, shape) in enumerate(records):
        headers = [(k, v.encode()) for k, v in headers_of(TYPE_OF[Tick], source, sequence)]
        if topic == "control-log":
            headers += [("ce_correlationid", b""), ("ce_causationid", b""), ("ce_origin", f"t/id/0/{offset}".encode())]
        headers = {"fit": headers, "swap": headers[::-1], "none": None, "bad": [*headers[:4], ("ce_sequence", b"x")]}[
            shape
        ]
        one = MemoryMessage(full, 0, offset, b"", encode(Tick(schedule="m", due=NOON)), headers, (0, 1_000))
        messages.append(one)
        try:
            record = incoming.record(one)
        except DeadLetter:
            letters += 1
            continue
        if record is not None:
            kept.append(offset)
    _, faults, source = recorded(messages, topic=topic)
    assert source.repeats == incoming.repeats
    assert len(faults) == letters
    assert source.position().sequences == incoming.sequences


# --- the tables -------------------------------------------------------------------------------------------


def test_every_table_and_column_says_what_it_is():
    for table in TABLES.values():
        assert table.comment
        assert all(column.comment for column in table.columns)
        assert not table.name.startswith(("features_", "training_")), "these are kept for the pipelines' own tables"


def test_a_feature_whose_name_is_taken_gets_another_column():
    spec = contract(id="float", a="float", A="float", ID="bool")
    spec = spec.model_copy(update={"features": (*spec.features, FeatureSpec(name="", type="float"))})
    columns = feature_columns([spec])
    names = [column.column.name.casefold() for column in columns]
    assert len({*names, *(column.name for column in (*EXAMPLE, *TRAINING))}) == len(names) + len(EXAMPLE) + len(
        TRAINING
    )
    assert [column.feature for column in columns] == ["id", "a", "A", "ID", ""]


def test_a_later_release_adds_columns_and_moves_none():
    first, second = contract(a="float"), contract(b="int", a="float")
    assert [f.column.name for f in feature_columns([first, second])] == ["a", "b"]
