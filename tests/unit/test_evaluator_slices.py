"""Scores by slice: given these rows and the slices a pipeline declares, then those numbers for each of their values."""

import pickle
from datetime import UTC, datetime

import pytest
from definitions import definition_of

from headrace.schemas.codec import encode
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import PipelineReleased, PipelineRetired
from headrace.schemas.policies import SLICE_VALUES, Policies, Slice
from headrace.schemas.record import OUTPUTS_PER_STEP, Record
from headrace.schemas.slices import MISSING, OTHER, TEXT
from headrace.schemas.stream import ArmPrediction, Baselines, ExampleLabelled, PredictionMade, Tick
from headrace.services.evaluator import online
from headrace.services.evaluator.online import DECODERS, State, step
from headrace.services.evaluator.slices import Slicer

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATION, WIND = Slice("station"), Slice("wind", edges=(5, 20))


def released(*slices, release=1):
    columns = ("station", "str"), ("wind", "float"), ("wet", "bool"), ("hour", "int")
    contract = ContractSpec(
        name="R",
        features=tuple(FeatureSpec(name=name, type=kind, optional=True) for name, kind in columns),
        label=LabelSpec(type="bool"),
    )
    definition = definition_of(
        contract=contract, policies=Policies(slices=slices),)  # fmt: skip
    return PipelineReleased(
        pipeline="rain", release=release, definition=definition, partitions=1, request="q", by="ann"
    )


def row(number, label=True, value=0.9, arms=("champion",), **features):
    predictions = {alias: ArmPrediction(version=1, run=f"run-{alias}", learned_to=0, value=value) for alias in arms}
    prediction = PredictionMade(
        id=str(number), time=NOON, features=features, predictions=predictions, served=None, release=1, epoch=1,
        origin=(0, number), baselines=Baselines(majority=True, last=False),
    )  # fmt: skip
    return ExampleLabelled(
        prediction=prediction, label=label, predicted_at_ms=0, labelled_at_ms=0, partition=0, number=number,
        pending_from=number + 1, known_to=-1,
    )  # fmt: skip


class Log:
    """`<p>.labelled-examples` and the scores behind it."""

    def __init__(self, *events):
        self.state, self.offset = State(), -1
        self.then(*events)

    def then(self, *events, at_ms=0):
        """Fold these events; returns the events that they led to."""
        new = []
        for event in events:
            self.offset += 1
            body = encode(event)
            decode = DECODERS.get(type(event).__name__)
            record = Record(
                decode(body) if decode else event,
                at_ms, "<p>.labelled-examples", "rain", 0, self.offset, b"k", body, "/joiner/rain/t/0",
            )  # fmt: skip
            emits = step(self.state, record, None)
            assert len(emits) <= OUTPUTS_PER_STEP
            new += [emit.event for emit in emits]
        return new

    def minute(self, n=1):
        """What the n-th minute tells of slices: (slice, scope) → event."""
        told = self.then(Tick(schedule="minute", due=NOON), at_ms=n * 60_000)
        return {(event.slice, event.scope): event for event in told if event.slice is not None}


def test_every_value_of_a_column_has_its_own_scores_in_its_window_and_in_all():
    log = Log(
        released(STATION),
        row(0, True, station="Cairns"),
        row(1, False, station="Cairns"),
        row(2, True, station="Perth"),
    )
    told = log.minute()
    assert set(told) == {(f"station={name}", scope) for name in ("Cairns", "Perth") for scope in ("windowed", "cumulative")}  # fmt: skip  # noqa: E501
    cairns = told["station=Cairns", "cumulative"]
    assert (cairns.alias, cairns.version, cairns.run, cairns.n) == ("champion", 1, "run-champion", 2)
    assert cairns.metrics["accuracy"] == 0.5
    assert told["station=Perth", "windowed"].metrics["accuracy"] == 1.0
    assert told["station=Perth", "windowed"].window == (3, 4)


def test_numbers_fall_into_the_ranges_between_their_edges_from_the_lower_one_on():
    slicer = Slicer((WIND,))
    assert [slicer.names({"wind": wind})[0] for wind in (-1, 4.9, 5, 19.9, 20, 1e9)] == [
        "wind=<5", "wind=<5", "wind=5..20", "wind=5..20", "wind=>=20", "wind=>=20",
    ]  # fmt: skip


def test_truths_and_whole_numbers_are_values_too_and_an_absent_one_is_missing():
    slicer = Slicer((Slice("wet"), Slice("hour"), STATION))
    assert slicer.names({"wet": True, "hour": 7}) == ("wet=true", "hour=7", f"station={MISSING}")


def test_of_many_values_the_first_ones_are_told_apart_and_the_rest_together():
    slicer = Slicer((STATION,))
    named = [slicer.names({"station": f"s{number}"})[0] for number in range(SLICE_VALUES + 9)]
    assert named[:SLICE_VALUES] == [f"station=s{number}" for number in range(SLICE_VALUES)]
    assert set(named[SLICE_VALUES:]) == {f"station={OTHER}"}
    assert slicer.names({"station": "s0"}) == ("station=s0",)


def test_a_long_text_is_cut_in_the_name():
    (name,) = Slicer((STATION,)).names({"station": "x" * 10_000})
    assert name == f"station={'x' * (TEXT - 1)}…"


def test_only_the_declared_columns_are_read_from_a_rows_bytes():
    slicer = Slicer((WIND, STATION))
    assert slicer.of_body(encode(row(0, station="Cairns", wind=7.5, hour=3))) == ("wind=5..20", "station=Cairns")
    assert slicer.of_body(encode(row(0, hour=3))) == (f"wind={MISSING}", f"station={MISSING}")


def test_slices_of_a_row_add_up_to_the_scores_of_all_rows():
    log = Log(released(STATION, WIND))
    for number in range(300):
        log.then(row(number, number % 3 == 0, station="ab"[number % 2], wind=float(number % 25)))
    told = log.minute()
    total = log.state.arms["champion", "run-champion"].tally.reports()[2]
    for feature in ("station", "wind"):
        parts = [e for (name, scope), e in told.items() if name.startswith(feature) and scope == "cumulative"]
        assert sum(part.n for part in parts) == total.n == 300
        mean = sum(part.n * part.metrics["brier"] for part in parts) / 300
        assert mean == pytest.approx(total.metrics["brier"])


def test_a_slice_is_told_once_a_minute_and_only_when_it_has_new_rows():
    log = Log(released(STATION), row(0, station="a"), row(1, station="b"))
    assert len(log.minute(1)) == 4
    log.then(row(2, station="a"), at_ms=60_500)
    assert {name for name, _ in log.minute(2)} == {"station=a"}
    assert log.minute(3) == {}


def test_a_slices_window_has_as_many_rows_as_any_window(monkeypatch):
    monkeypatch.setattr(online, "WINDOW_ROWS", 3)
    log = Log(released(STATION))
    told = log.then(*(row(number, station="ab"[number % 2]) for number in range(6)))
    windows = [(e.slice, e.n, e.window) for e in told if e.scope == "windowed" and e.slice]
    assert windows == [("station=a", 3, (1, 6)), ("station=b", 3, (2, 7))]
    log.then(row(6, False, station="a"))
    assert log.minute()["station=a", "windowed"].metrics["accuracy"] == 0.0


def test_more_slices_than_one_step_may_tell_are_told_by_the_next_inputs_each_once():
    columns = [Slice("station"), Slice("hour")]
    aliases = ("champion", "challenger", "previous", "anchor")
    log = Log(released(*columns))
    log.then(*(row(n, arms=aliases, station=f"s{n}", hour=n) for n in range(60)))
    told = log.then(Tick(schedule="minute", due=NOON), at_ms=60_000)
    told += log.then(*(Tick(schedule="minute", due=NOON) for _ in range(5)), at_ms=60_001)
    parts = [(e.alias, e.slice, e.scope) for e in told if e.slice]
    assert len(parts) == len(set(parts)) == 4 * 2 * (SLICE_VALUES + 1) * 2
    assert log.state.owed == {}


def test_other_slices_of_a_new_release_begin_anew_and_the_same_ones_go_on():
    log = Log(released(STATION), row(0, station="a", wind=1.0), released(STATION, release=2), row(1, station="a"))
    assert log.minute(1)["station=a", "cumulative"].n == 2
    log.then(released(WIND, release=3), row(2, station="a", wind=1.0), at_ms=60_001)
    told = log.minute(2)
    assert {name for name, _ in told} == {"wind=<5"}
    assert told["wind=<5", "cumulative"].n == 1
    log.then(released(release=4), row(3, wind=1.0), at_ms=120_001)
    assert log.minute(3) == {}


def test_without_slices_nothing_of_a_row_is_looked_at(monkeypatch):
    monkeypatch.setattr(online, "_slices_of", None)
    assert Log(released(), row(0, station="a")).minute() == {}


def test_the_last_numbers_are_told_when_a_pipeline_ends():
    log = Log(released(STATION), row(0, station="a"))
    told = log.then(PipelineRetired(pipeline="rain", request="q", by="ann"))
    assert [event.slice for event in told] == [None] * 3 + ["station=a"] * 2


def test_a_state_saved_and_read_again_goes_on_alike():
    rows = [row(n, n % 3 == 0, station=f"s{n % 60}", wind=float(n % 30)) for n in range(400)]
    whole, log = Log(released(STATION, WIND), *rows), Log(released(STATION, WIND), *rows[:150])
    log.state = pickle.loads(pickle.dumps(log.state))
    log.then(*rows[150:])
    assert log.minute() == whole.minute()
