"""Labels that are corrected after they were scored: reports use the newest one, as if it had come at first."""

import random
from datetime import UTC, datetime

import pytest
from definitions import definition_of
from hypothesis import given
from hypothesis import strategies as st

from headrace.infra.store import Store
from headrace.schemas.codec import encode
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import MetricsUpdated, PipelineReleased
from headrace.schemas.policies import Policies, Slice, Triggers
from headrace.schemas.record import Record
from headrace.schemas.stream import ArmPrediction, Baselines, ExampleLabelled, LabelCorrected, PredictionMade, Tick
from headrace.services.evaluator import kept, online
from headrace.services.evaluator.online import DECODERS, RUNS_KEPT, TABLES, State, step

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = Tick(schedule="minute", due=NOON)


class Log:
    """`<p>.labelled-examples` and the scores behind it; rows are decoded as the runtime decodes them."""

    def __init__(self, *events, label="bool", state=None, slices=()):
        self.state, self.offset, self.told = state or State(), -1, []
        values = ("dry", "wet", "snow") if label == "classes" else None
        definition = definition_of(
            contract=ContractSpec(
                name="R", features=(FeatureSpec(name="x", type="int"),), label=LabelSpec(type=label, values=values)
            ),
            policies=Policies(triggers=Triggers(), slices=slices),)  # fmt: skip
        self.then(
            PipelineReleased(pipeline="rain", release=1, definition=definition, partitions=1, request="q", by="ann")
        )
        self.then(*events)

    def then(self, *events, at_ms=0):
        """Fold these events; returns what they led to."""
        new = []
        for event in events:
            self.offset += 1
            body = encode(event)
            twin = DECODERS.get(type(event).__name__)
            record = Record(
                twin(body) if twin else event,
                at_ms, "<p>.labelled-examples", "rain", 0, self.offset, b"k", body, "/joiner/rain/t/0",
            )  # fmt: skip
            new += [emit.event for emit in step(self.state, record, None)]
        self.told += new
        return new

    def minute(self):
        """The newest scores of every run, after a minute: (run, slice, scope) → metrics."""
        self.state.minute = -1
        return {
            (e.run, e.slice, e.scope): {"n": e.n, **e.metrics} for e in self.then(TICK) if isinstance(e, MetricsUpdated)
        }


def row(number, label, value=None, run="a", entity=None, alias="champion", identity=None):
    arms = {} if value is None else {alias: ArmPrediction(version=1, run=run, learned_to=0, value=value)}
    prediction = PredictionMade(
        id=str(number) if identity is None else identity, time=NOON, features={"x": number % 3}, predictions=arms,
        served=None, release=1, epoch=1, origin=(0, number), entity=entity,
        baselines=Baselines(majority=True, mean=1.0, last=False),
    )  # fmt: skip
    return ExampleLabelled(
        prediction=prediction, label=label, predicted_at_ms=0, labelled_at_ms=0, partition=0, number=number,
        pending_from=number + 1, known_to=-1,
    )  # fmt: skip


def corrected(number, label, first=None, entity=None):
    return LabelCorrected(id=str(number), first=first, corrected=label, labelled_at_ms=5, entity=entity)


def without_counts(reported):
    return {
        place: pytest.approx({name: value for name, value in metrics.items() if name != "corrected"}, abs=1e-9)
        for place, metrics in reported.items()
    }


def test_a_corrected_label_counts_as_if_it_had_been_the_first_one():
    log = Log(row(0, True, 0.9), row(1, True, 0.8), corrected(0, False))
    assert without_counts(log.minute()) == Log(row(0, False, 0.9), row(1, True, 0.8)).minute()
    assert log.state.counts == {"corrected": 1, "corrected_too_late": 0}


def test_how_many_rows_were_corrected_stands_in_the_cumulative_report_and_the_next_minute_tells_it():
    log = Log(row(0, True, 0.9), row(1, True, 0.8))
    assert "corrected" not in log.minute()["a", None, "cumulative"]
    log.then(corrected(0, False))
    told = log.minute()["a", None, "cumulative"]
    assert (told["accuracy"], told["corrected"]) == (0.5, 1.0)
    assert log.minute() == {}


@pytest.mark.parametrize("block_rows", [2, 250])
def test_a_label_may_be_corrected_again_and_back(monkeypatch, block_rows):
    monkeypatch.setattr(kept, "BLOCK_ROWS", block_rows)
    rows = [row(number, True, 0.9) for number in range(3)]
    log = Log(*rows, corrected(1, False))
    assert log.minute()["a", None, "cumulative"]["accuracy"] == pytest.approx(2 / 3)
    log.then(corrected(1, True))
    assert log.minute()["a", None, "cumulative"]["accuracy"] == 1.0


def test_numbers_and_classes_are_scored_anew_too():
    log = Log(row(0, 3.0, 1.0), row(1, 5.0, 5.0), corrected(0, 2.0), label="float")
    assert log.minute()["a", None, "cumulative"]["mae"] == pytest.approx(0.5)
    log = Log(row(0, "wet", {"dry": 0.9, "wet": 0.1}), corrected(0, "dry"), label="classes")
    told = log.minute()["a", None, "cumulative"]
    assert (told["accuracy"], told["brier"]) == (1.0, pytest.approx(0.01))


def test_a_row_is_known_by_its_id_and_its_entity():
    log = Log(row(0, True, 0.9, entity="A"), row(1, True, 0.9, entity="B", identity="0"))
    log.then(corrected(0, False, entity="B"), corrected(0, False, entity="C"))
    assert log.minute()["a", None, "cumulative"]["accuracy"] == 0.5
    assert log.state.counts == {"corrected": 1, "corrected_too_late": 1}


def test_every_run_that_answered_the_row_is_scored_anew():
    both = row(0, True, 0.9)
    arms = {
        "champion": ArmPrediction(version=1, run="a", learned_to=0, value=0.9),
        "challenger": ArmPrediction(version=None, run="b", learned_to=0, value=0.1),
    }
    both = ExampleLabelled(**{f: getattr(both, f) for f in both.__struct_fields__} | {
        "prediction": PredictionMade(**{f: getattr(both.prediction, f) for f in both.prediction.__struct_fields__}
                                     | {"predictions": arms})})  # fmt: skip
    log = Log(both, corrected(0, False))
    told = log.minute()
    assert (told["a", None, "cumulative"]["accuracy"], told["b", None, "cumulative"]["accuracy"]) == (0.0, 1.0)


def test_a_row_that_no_model_answered_has_nothing_to_score_anew():
    log = Log(row(0, True), row(1, True, 0.9), corrected(0, False))
    assert log.minute()["a", None, "cumulative"]["accuracy"] == 1.0
    assert log.state.counts["corrected"] == 1


def test_the_window_that_was_told_stays_and_the_open_one_is_corrected(monkeypatch):
    monkeypatch.setattr(online, "WINDOW_ROWS", 4)
    log = Log(*(row(number, True, 0.9) for number in range(6)))
    log.then(corrected(1, False), corrected(5, False))
    told = log.minute()
    assert told["a", None, "windowed"] | {"logloss": 0, "brier": 0} == {
        "n": 2, "accuracy": 0.5, "majority_accuracy": 0.5, "last_accuracy": 0.5, "logloss": 0, "brier": 0,
    }  # fmt: skip
    assert told["a", None, "cumulative"]["accuracy"] == pytest.approx(4 / 6)


def test_a_correction_of_a_row_that_is_kept_no_more_is_counted_and_told(monkeypatch):
    monkeypatch.setattr(kept, "BLOCK_ROWS", 2)
    monkeypatch.setattr(kept, "BLOCKS", 3)
    log = Log(*(row(number, True, 0.9) for number in range(10)))  # five blocks; the first two made room
    log.then(*(corrected(number, False) for number in range(10)))
    assert log.state.counts == {"corrected": 6, "corrected_too_late": 4}
    told = log.minute()["a", None, "cumulative"]
    assert (told["accuracy"], told["corrected"], told["corrected_too_late"]) == (pytest.approx(0.4), 6.0, 4.0)
    assert (len(log.state.marks), len(log.state.blocks)) == (3, 3)


def test_a_run_that_made_room_and_came_back_is_not_corrected_for_rows_before():
    log = Log(row(0, True, 0.9), *(row(n, True, 0.9, run=f"run-{n}") for n in range(1, RUNS_KEPT + 1)))
    assert ("champion", "a") not in log.state.arms
    log.then(row(99, True, 0.9), corrected(0, False))
    told = log.minute()["a", None, "cumulative"]
    assert (told["n"], told["accuracy"]) == (1, 1.0)
    assert "corrected" not in told


def test_what_decides_is_not_touched_by_a_correction():
    """Counts of labels go to the orchestrator; a correction neither counts as one nor changes one."""
    rows = [row(number, True, 0.9) for number in range(199)]
    assert Log(*rows, *(corrected(n, False) for n in range(199))).told == []
    assert len(Log(*rows, row(199, True, 0.9)).told) == 1


SLICES = (Slice("x"),)
histories = st.lists(
    st.tuples(st.booleans(), st.floats(0.01, 0.99), st.sampled_from("ab"), st.sampled_from([None, True, False])),
    max_size=60,
)


@given(histories, st.randoms(use_true_random=False))
def test_whenever_corrections_come_the_sums_are_those_of_the_newest_labels(history, chance):
    log, right = Log(slices=SLICES), Log(slices=SLICES)
    waiting = []
    for number, (label, value, run, later) in enumerate(history):
        log.then(row(number, label, value, run))
        right.then(row(number, label if later is None else later, value, run))
        if later is not None:
            waiting.append(corrected(number, later))
        if waiting and chance.random() < 0.5:
            log.then(waiting.pop(chance.randrange(len(waiting))))
    log.then(*waiting)
    assert without_counts(log.minute()) == right.minute()


def test_with_the_tables_of_the_store_and_a_restart_in_between_it_tells_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "BLOCK_ROWS", 4)
    monkeypatch.setattr(kept, "BLOCKS", 5)
    chance = random.Random(5)
    events = []
    for number in range(60):
        events.append(row(number, chance.random() < 0.5, chance.random()))
        if chance.random() < 0.4:
            events.append(corrected(chance.randrange(number + 1), chance.random() < 0.5))
    plain = Log(*events)
    store, state = opened(tmp_path)
    log = Log(state=state)
    for event in events:
        log.then(event)
        if log.offset % 7 == 0:
            fields = {name: getattr(log.state, name) for name in State.__slots__ if name not in TABLES}
            store.commit(log.offset, {}, fields, {})
            store.close()
            store, log.state = opened(tmp_path)
    assert log.state.counts == plain.state.counts
    assert plain.state.counts["corrected"] > 5 < plain.state.counts["corrected_too_late"]
    assert log.told == plain.told
    assert log.minute() == plain.minute()
    store.close()


def opened(folder):
    """The store in a folder, and the state in it."""
    store = Store.open(folder / "state", b"k" * 32)
    saved = store.load()
    tables = {name: store.table(name, kind) for name, kind in TABLES.items()}
    return store, State(**(saved.fields if saved else {}), **tables)
