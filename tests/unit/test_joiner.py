"""Labels brought to their predictions: given these records of `<p>.predictions`, then those joined examples."""

from datetime import UTC, datetime

import msgspec
import pytest
from definitions import definition_of
from hypothesis import given
from hypothesis import strategies as st

from headrace.infra.store import Store
from headrace.schemas.codec import EVENTS, TYPE_OF, decode, encode
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import PipelineReleased, PipelineRetired
from headrace.schemas.policies import Labels, Policies, Retention
from headrace.schemas.record import OUTPUTS_PER_STEP, SEQUENCES_PER_OFFSET, Record
from headrace.schemas.stream import (
    ArmPrediction,
    Baselines,
    ExampleLabelled,
    LabelArrived,
    LabelCorrected,
    PredictionMade,
    RecordRejected,
    Tick,
)
from headrace.services.evaluator.gates import Row, learned_before
from headrace.services.joiner.core import DECODERS, TABLES, State, step

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND, DAY = 1_000, 86_400_000


def predicted(record_id, x=1.0, entity=None, **more):
    arms = {"champion": ArmPrediction(version=3, run="a", learned_to=17, value=0.25)}
    return PredictionMade(
        id=record_id,
        time=NOON,
        features={"x": x, "site": "Ås"},
        predictions=arms,
        served="champion",
        release=1,
        epoch=2,
        origin=(0, 5),
        entity=entity,
        baselines=Baselines(majority=True, mean=0.5, last=False),
        **more,
    )


def label(record_id, value=True, entity=None):
    return LabelArrived(id=record_id, time=NOON, label=value, entity=entity)


def tick(minute=0):
    return Tick(schedule="minute", due=NOON.replace(minute=minute), pipeline="rain", signature="s")


def released(release=1, dedupe_ids=1_000_000, **labels):
    contract = ContractSpec(name="R", features=(FeatureSpec(name="x", type="float"),), label=LabelSpec(type="bool"))
    definition = definition_of(
        contract=contract,
        policies=Policies(labels=Labels(**labels), retention=Retention(dedupe_ids=dedupe_ids)),
    )
    return PipelineReleased(
        pipeline="rain", release=release, definition=definition, partitions=1, request="q", by="ann"
    )


class Log:
    """`<p>.predictions` and the joiner behind it: what a service wrote, decoded and numbered as the runtime does."""

    def __init__(self, *events, partition=2, state=None):
        self.state = state or State()
        self.partition, self.offset = partition, -1
        self.told = []  # (sequence, Emit)
        self.then(*events)

    def then(self, *events, at_ms=0):
        """Fold these events, all known at one time; returns what the last one led to."""
        new = []
        for event in events:
            self.offset += 1
            body = encode(event)
            twin = DECODERS.get(type(event).__name__)
            entity_or_id = getattr(event, "entity", None) or getattr(event, "id", "rain")
            record = Record(
                twin(body) if twin else event,
                at_ms,
                "<p>.predictions",
                "rain",
                self.partition,
                self.offset,
                entity_or_id.encode(),
                body,
                "/predictor/rain/0a1b2c3d/2",
                self.offset * SEQUENCES_PER_OFFSET,
            )
            new = step(self.state, record, None)
            assert len(new) <= OUTPUTS_PER_STEP
            self.told += [(self.offset * SEQUENCES_PER_OFFSET + index, emit) for index, emit in enumerate(new)]
        return [event_of(emit) for emit in new]

    def events(self, kind=object):
        return [event for _, emit in self.told if isinstance(event := event_of(emit), kind)]


def event_of(emit):
    """The event as a reader of the output topic decodes it."""
    return decode(emit.type or TYPE_OF[type(emit.event)], encode(emit.event) if emit.body is None else emit.body)


def test_a_label_meets_its_prediction_and_nothing_of_either_is_lost():
    log = Log()
    assert log.then(predicted("a", history=True, cold=True), at_ms=5_000) == []
    assert log.then(label("a", False), at_ms=65_000) == [
        ExampleLabelled(
            prediction=predicted("a", history=True, cold=True),
            label=False,
            predicted_at_ms=5_000,
            labelled_at_ms=65_000,
            partition=2,
            number=0,
            pending_from=1,
            known_to=-1,
        )
    ]
    [(_, emit)] = log.told
    assert (emit.topic, emit.partition, emit.key) == ("<p>.labelled-examples", 0, b"a")
    assert EVENTS["ExampleLabelled"] is ExampleLabelled
    assert emit.type == TYPE_OF[ExampleLabelled]


@pytest.mark.parametrize("value", [True, 3, 2.5, "snow", ""])
def test_a_label_of_any_type_stays_what_it_is(value):
    [joined] = Log(predicted("a")).then(label("a", value))
    assert joined.label == value
    assert type(joined.label) is type(value)


def test_a_label_that_comes_first_waits_for_its_prediction():
    log = Log()
    assert log.then(label("a"), at_ms=1_000) == []
    [joined] = log.then(predicted("a"), at_ms=3_000)
    assert (joined.predicted_at_ms, joined.labelled_at_ms, joined.number, joined.pending_from) == (3_000, 1_000, 0, 1)
    assert log.state.counts["early"] == log.state.counts["joined"] == 1
    assert not log.state.early


def test_the_first_label_decides_and_a_later_other_one_corrects_it():
    log = Log(predicted("a"), label("a", True))
    assert log.then(label("a", True)) == []
    assert log.then(label("a", False), at_ms=9_000) == [
        LabelCorrected(id="a", first=True, corrected=False, labelled_at_ms=9_000)
    ]
    assert log.then(label("a", False)) == []
    [back] = log.then(label("a", True))
    assert (back.first, back.corrected) == (True, True)
    assert len(log.events(ExampleLabelled)) == 1
    assert {emit.topic for _, emit in log.told} == {"<p>.labelled-examples"}


def test_of_early_labels_too_the_first_decides_and_the_newest_corrects():
    log = Log(label("a", 1.0), label("a", 2.0), label("a", 2.0), label("a", 3.0))
    joined, corrected = log.then(predicted("a"))
    assert joined.label == 1.0
    assert (corrected.first, corrected.corrected) == (1.0, 3.0)
    assert log.then(label("a", 3.0)) == []


def test_a_label_is_late_by_the_records_own_known_times_and_is_rejected_with_its_bytes():
    log = Log(released(ttl_s=60, grace_s=30))
    log.then(predicted("a", entity="s7"), predicted("b", entity="s7"), at_ms=0)
    [in_time] = log.then(label("a", entity="s7"), at_ms=60_000)
    assert isinstance(in_time, ExampleLabelled)
    [rejected] = log.then(label("b", entity="s7"), at_ms=60_001)
    assert isinstance(rejected, RecordRejected)
    assert (rejected.id, rejected.topic, rejected.partition, rejected.offset) == ("b", "rain.predictions", 2, 4)
    assert decode(TYPE_OF[LabelArrived], rejected.value) == label("b", entity="s7")
    assert (rejected.key, rejected.release) == (b"s7", 1)
    assert [p.code for p in rejected.problems] == ["label_too_late"]
    assert "60 s" in rejected.problems[0].message
    emit = log.told[-1][1]
    assert (emit.topic, emit.partition, emit.key) == ("<p>.data-rejected", 2, b"b")


def test_a_late_label_leaves_its_prediction_to_one_known_in_time_that_came_a_slower_way():
    log = Log(released(ttl_s=60, grace_s=30), predicted("a"))
    log.then(label("a", True), at_ms=61_000)
    [joined] = log.then(label("a", False), at_ms=59_000)
    assert (joined.label, joined.labelled_at_ms) == (False, 59_000)


def test_a_prediction_waits_for_the_ttl_and_the_grace_and_is_then_given_up():
    log = Log(released(ttl_s=60, grace_s=30), predicted("a"), predicted("b"))
    log.then(tick(1), at_ms=90_000)
    assert len(log.state.pending) == 2
    [passed] = log.then(tick(2), at_ms=90_001)
    assert not log.state.pending
    assert passed.pending_from == 2
    assert log.state.counts["expired"] == 2
    [rejected] = log.then(label("a"), at_ms=30_000)
    assert [p.code for p in rejected.problems] == ["label_too_late"]
    assert log.events(ExampleLabelled) == []


def test_a_stand_in_for_labels_that_do_not_come_is_marked_and_no_late_label_replaces_it():
    log = Log(released(ttl_s=60, grace_s=30, on_timeout=False))
    log.then(predicted("a", entity="s7"), at_ms=5_000)
    joined, passed = log.then(tick(2), at_ms=95_001)
    assert joined == ExampleLabelled(
        prediction=predicted("a", entity="s7"),
        label=False,
        predicted_at_ms=5_000,
        labelled_at_ms=95_001,
        partition=2,
        number=0,
        pending_from=1,
        known_to=-1,
        inferred=True,
    )
    assert passed.pending_from == 1
    assert log.told[-2][1].key == b"s7"
    [rejected] = log.then(label("a", True, entity="s7"), at_ms=95_002)
    assert [p.code for p in rejected.problems] == ["label_too_late"]


def test_more_expiries_than_one_step_may_tell_wait_for_the_next_inputs_and_none_is_lost():
    log = Log(released(ttl_s=60, grace_s=0, on_timeout=False))
    log.then(*[predicted(f"p{n}") for n in range(2_500)])
    passed = log.then(tick(2), at_ms=60_001)[-1]
    assert passed.pending_from == OUTPUTS_PER_STEP - 1
    log.then(predicted("new"), label("new"), at_ms=60_002)
    numbers = [joined.number for joined in log.events(ExampleLabelled)]
    assert sorted(numbers) == list(range(2_501))
    assert len(log.then(tick(3), at_ms=60_003)) == 1


def test_stand_ins_rejects_and_the_tick_share_the_room_of_one_step():
    log = Log(released(ttl_s=60, grace_s=0, on_timeout=False))
    log.then(*[predicted(f"p{n}") for n in range(600)], *[label(f"ghost{n}") for n in range(600)])
    assert len(log.then(tick(2), at_ms=60_001)) == OUTPUTS_PER_STEP
    log.then(label("other"), at_ms=60_002)
    assert (len(log.events(ExampleLabelled)), len(log.events(RecordRejected))) == (600, 600)


def test_a_prediction_knows_all_stand_ins_that_one_step_told():
    log = Log(released(ttl_s=60, grace_s=0, on_timeout=False), predicted("a"), predicted("b"))
    log.then(tick(2), at_ms=60_001)
    log.then(predicted("c"), at_ms=60_002)
    [joined] = log.then(label("c"), at_ms=60_003)
    assert joined.known_to == log.told[-3][0]
    assert event_of(log.told[-3][1]).prediction.id == "b"


def test_the_clock_is_the_largest_known_time_seen():
    log = Log(released(ttl_s=60, grace_s=30), predicted("a"))
    log.then(label("ghost"), at_ms=90_001)
    log.then(tick(2), at_ms=70_000)
    assert log.state.counts["expired"] == 1


def test_before_1970_too_a_label_that_comes_late_meets_its_prediction():
    in_1950 = -631_152_000_000
    log = Log()
    log.then(predicted("a"), at_ms=in_1950)
    log.then(tick(1), at_ms=in_1950 + 60_000)
    [joined] = log.then(label("a"), at_ms=in_1950 + DAY)
    assert joined.labelled_at_ms - joined.predicted_at_ms == DAY


def test_a_label_whose_example_never_comes_is_rejected_with_its_own_place():
    log = Log(released(ttl_s=60, grace_s=30))
    log.then(label("ghost"), at_ms=1_000)
    assert len(log.then(tick(1), at_ms=91_000)) == 1
    rejected, passed = log.then(tick(2), at_ms=91_001)
    assert isinstance(passed, Tick)
    assert (rejected.id, rejected.offset, rejected.problems[0].code) == ("ghost", 1, "label_without_example")
    assert decode(TYPE_OF[LabelArrived], rejected.value) == label("ghost")
    assert rejected.key == b"ghost"


def test_an_early_label_waits_no_longer_than_the_ttl_even_within_the_grace():
    log = Log(released(ttl_s=60, grace_s=1_000))
    log.then(label("a"), at_ms=0)
    [rejected] = log.then(predicted("a"), at_ms=60_001)
    assert rejected.problems[0].code == "label_without_example"
    assert len(log.then(label("a", False), at_ms=60_002)) == 1


def test_what_waits_is_bounded_and_the_oldest_makes_room():
    log = Log(released(max_pending=3))
    log.then(*[predicted(f"p{n}") for n in range(5)])
    assert list(log.state.pending) == ["p2", "p3", "p4"]
    assert (log.state.pending_from, log.state.counts["dropped"]) == (2, 2)
    [rejected] = log.then(label("p1"))
    assert rejected.problems[0].code == "label_too_late"
    log.then(*[label(f"ghost{n}") for n in range(3)])
    [pushed_out] = log.then(label("ghost3"))
    assert (pushed_out.id, pushed_out.problems[0].code) == ("ghost0", "label_without_example")


def test_a_lower_bound_of_a_new_release_is_reached_step_by_step():
    log = Log(released(), *[predicted(f"p{n}") for n in range(10)], released(2, max_pending=5))
    log.then(predicted("q0"))
    assert len(log.state.pending) == 9
    log.then(*[predicted(f"q{n}") for n in range(1, 6)])
    assert list(log.state.pending) == ["q1", "q2", "q3", "q4", "q5"]
    assert (log.state.pending_from, log.state.counts["dropped"]) == (11, 11)


@pytest.mark.parametrize("joined", [False, True])
def test_a_second_prediction_of_an_id_is_dropped_and_with_other_features_it_is_a_conflict(joined):
    log = Log(predicted("a", 1.0), *[label("a")] * joined)
    assert log.then(predicted("a", 1.0)) == []
    [rejected] = log.then(predicted("a", 2.0))
    assert (rejected.id, rejected.problems[0].code) == ("a", "id_conflict")
    assert log.state.counts["repeats"] == log.state.counts["conflicts"] == 1
    assert log.state.number == 1


def test_ids_are_unique_within_their_entity_only():
    log = Log()
    log.then(predicted("1", entity="2 a"), predicted("a1", entity="2 "), predicted("1", entity="b"))
    [joined] = log.then(label("a1", entity="2 "))
    assert (joined.prediction.entity, joined.prediction.id) == ("2 ", "a1")
    assert len(log.state.pending) == 2


def test_a_tick_says_how_many_predictions_there_were_and_which_is_the_oldest_that_waits():
    log = Log(*[predicted(f"p{n}") for n in range(4)])
    log.then(label("p0"), label("p2"))
    assert log.then(tick(7)) == [msgspec.structs.replace(tick(7), pending_from=1, predicted=4)]
    log.then(label("p3"), label("p1"))
    assert log.then(tick(8)) == [msgspec.structs.replace(tick(8), pending_from=4, predicted=4)]
    assert log.told[-1][1].partition == 0


def test_the_first_marker_of_a_release_counts_and_is_passed_on_unchanged():
    log = Log()
    marker = released(1, ttl_s=60)
    assert log.then(marker) == [marker]
    assert log.told[0][1].body == encode(marker)
    assert log.then(released(1, ttl_s=5)) == []
    assert log.state.ttl_ms == 60_000
    assert log.then(released(2, ttl_s=7)) == [released(2, ttl_s=7)]
    assert log.state.ttl_ms == 7_000
    retired = PipelineRetired(pipeline="rain", request="q", by="ann")
    assert log.then(retired) == [retired]


def test_joined_ids_are_kept_for_the_dedupe_window_and_not_for_ever():
    log = Log(released(dedupe_ids=100))
    for n in range(1_100):
        log.then(predicted(f"p{n}"), label(f"p{n}"))
    assert len(log.state.done) < 300
    assert len(log.then(label("p950", False))) == 1
    assert log.then(label("p1099", False)) == [
        LabelCorrected(id="p1099", first=True, corrected=False, labelled_at_ms=0)
    ]
    assert log.then(label("p0", False)) == []  # forgotten: it may be the label of an example to come


def test_another_event_than_the_topics_is_an_error_that_names_it():
    with pytest.raises(TypeError, match=r"RecordRejected is no event of <p>.predictions"):
        Log(RecordRejected(id="a", topic="t", partition=0, offset=0, problems=[], value=b""))


happenings = st.lists(
    st.tuples(st.sampled_from(["predict", "label", "tick"]), st.integers(0, 5), st.integers(0, 2)), max_size=60
)


@given(happenings)
def test_however_records_interleave_each_id_gets_its_first_prediction_and_its_first_label(history):
    log = Log()
    first, labels, numbers, expected = {}, {}, {}, {}
    for kind, n, value in history:
        record_id = f"d{n}"
        if kind == "predict":
            log.then(predicted(record_id, float(value)))
            first.setdefault(record_id, float(value))
            numbers.setdefault(record_id, len(numbers))
        elif kind == "label":
            log.then(label(record_id, value))
            labels.setdefault(record_id, []).append(value)
        else:
            [passed] = log.then(tick())
            open_numbers = [numbers[i] for i in numbers if i not in labels]
            assert passed.pending_from == min(open_numbers, default=len(numbers))
    for record_id in first.keys() & labels.keys():
        expected[record_id] = (first[record_id], labels[record_id][0], numbers[record_id])
    joined = log.events(ExampleLabelled)
    assert {e.prediction.id: (e.prediction.features["x"], e.label, e.number) for e in joined} == expected
    assert len(joined) == len(expected)
    newest = {e.prediction.id: e.label for e in joined} | {e.id: e.corrected for e in log.events(LabelCorrected)}
    assert newest == {record_id: labels[record_id][-1] for record_id in expected}


@given(happenings)
def test_known_to_names_exactly_the_examples_that_were_joined_before_the_prediction(history):
    log, known = Log(released(on_timeout=9, ttl_s=60, grace_s=0)), {}
    for at, (kind, n, value) in enumerate(history):
        record_id = f"d{n}"
        if kind == "predict":
            known.setdefault(record_id, len(log.events(ExampleLabelled)))
            log.then(predicted(record_id), at_ms=at * 5 * SECOND)
        elif kind == "label":
            log.then(label(record_id, value), at_ms=at * 5 * SECOND)
        else:
            log.then(tick(), at_ms=at * 5 * SECOND)
    rows, expected = [], []
    for sequence, emit in log.told:
        event = event_of(emit)
        if isinstance(event, ExampleLabelled):
            p = event.prediction
            rows.append(Row(p.features, event.label, p.baselines, "/joiner/rain/0/2", sequence, event.known_to))
            expected.append(known[p.id])
    assert learned_before(rows) == expected


@given(happenings, st.integers(1, 9))
def test_every_record_has_one_fate(history, max_pending):
    log = Log(released(max_pending=max_pending, ttl_s=60, grace_s=0))
    predictions = labels = 0
    for at, (kind, n, value) in enumerate(history):
        events = {"predict": predicted(f"d{n}", float(value)), "label": label(f"d{n}", n), "tick": tick()}
        log.then(events[kind], at_ms=at * 5 * SECOND)
        predictions += kind == "predict"
        labels += kind == "label"
    counts = log.state.counts
    rejected = log.events(RecordRejected)
    conflicts = sum(r.problems[0].code == "id_conflict" for r in rejected)
    joined = len(log.events(ExampleLabelled))
    assert conflicts == counts["conflicts"]
    assert log.state.number == joined + len(log.state.pending) + counts["expired"] + counts["dropped"]
    repeats = predictions - log.state.number - conflicts + labels - joined - len(rejected) + conflicts
    assert repeats - len(log.state.early) == counts["repeats"]


@given(st.lists(st.tuples(st.sampled_from(["predict", "label", "tick", "commit"]), st.integers(0, 20)), max_size=80))
def test_with_the_tables_of_the_store_it_tells_the_same(tmp_path_factory, history):
    folder = tmp_path_factory.mktemp("joiner") / "store"

    def opened():
        store = Store.open(folder, b"key")
        saved = store.load()
        tables = {name: store.table(name, kind) for name, kind in TABLES.items()}
        return store, State(**(saved.fields if saved else {}), **tables)

    plain = Log(released(ttl_s=60, grace_s=0))
    store, state = opened()
    live = Log(released(ttl_s=60, grace_s=0), state=state)
    for at, (kind, n) in enumerate(history):
        if kind == "commit":
            fields = {f: getattr(live.state, f) for f in State.__dataclass_fields__ if f not in TABLES}
            store.commit(live.offset, {}, fields, {})
            store.close()
            store, live.state = opened()
            continue
        event = {"predict": predicted(f"d{n}"), "label": label(f"d{n}", n > 9), "tick": tick()}[kind]
        plain.then(event, at_ms=at * 5 * SECOND)
        live.then(event, at_ms=at * 5 * SECOND)
    store.close()
    assert live.told == plain.told
