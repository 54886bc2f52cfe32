"""Labels that were corrected, asked by SQL: reports count the newest one, what was learned keeps the first."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from definitions import definition_of

from headrace.infra import create_topics
from headrace.infra.memory_bus import MemoryBus
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import PipelineReleased
from headrace.schemas.policies import Policies, Slice
from headrace.schemas.stream import ArmPrediction, ExampleLabelled, LabelCorrected, PredictionMade
from headrace.schemas.topics import full_name
from headrace.services.evaluator.slices import Slicer
from headrace.services.recorder.recorder import Recorder
from headrace.services.recorder.store import Store

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Labelled(NamedTuple):
    value: object
    label: object
    entity: str | None = None
    identity: str | None = None
    served: bool = True
    inferred: bool = False
    features: dict | None = None


class World:
    """A pipeline's log and the recorder behind it, in memory."""

    def __init__(self, label="bool", slices=()):
        self.bus = MemoryBus()
        create_topics.create(self.bus)
        create_topics.create_pipeline(self.bus, "rain", 1, Policies())
        self.producer, self.sequence, self.number = self.bus.producer("test"), 0, -1
        self.label = label
        self.released = PipelineReleased(
            pipeline="rain", release=1, definition=self.definition(slices), partitions=1, request="q", by="ann"
        )
        self.send("control-log", self.released)
        self.recorder = Recorder(self.bus, Store(None), commit_s=0)

    def definition(self, slices):
        values = ("dry", "wet/cold", 'sn"ow') if self.label == "classes" else None
        columns = (("x", "float"), ("station", "str"), ("wet", "bool"))
        return definition_of(
            contract=ContractSpec(
                name="R",
                features=tuple(FeatureSpec(name=name, type=kind, optional=True) for name, kind in columns),
                label=LabelSpec(type=self.label, values=values),
            ),
            policies=Policies(slices=slices),)  # fmt: skip

    def send(self, topic, event):
        self.sequence += 65_536
        headers = headers_of(TYPE_OF[type(event)], "/s/x/0", self.sequence)
        self.producer.produce(full_name(topic, "rain"), 0, b"k", encode(event), headers, 1_000)

    def labelled(self, *rows):
        for row in rows:
            self.number += 1
            arm = ArmPrediction(version=1, run="r", learned_to=0, value=row.value)
            predicted = PredictionMade(
                id=row.identity or str(self.number), time=NOON + timedelta(days=self.number), release=1, epoch=1,
                features={"x": 1.0} if row.features is None else row.features,
                predictions={} if row.value is None else {"champion": arm},
                served="champion" if row.served and row.value is not None else None,
                origin=(0, self.number), entity=row.entity,
            )  # fmt: skip
            self.send("<p>.predictions", predicted)
            if row.label is not None:
                joined = ExampleLabelled(
                    prediction=predicted, label=row.label, predicted_at_ms=0, labelled_at_ms=5, partition=0,
                    number=self.number, pending_from=0, known_to=-1, inferred=row.inferred,
                )  # fmt: skip
                self.send("<p>.labelled-examples", joined)
        return self

    def corrected(self, identity, label, entity=None, first=True):
        correction = LabelCorrected(id=identity, first=first, corrected=label, labelled_at_ms=9, entity=entity)
        self.send("<p>.labelled-examples", correction)
        return self

    def ask(self, sql):
        self.producer.flush()
        while self.recorder.tick():
            pass
        self.recorder.commit()
        return self.recorder.store.connection.execute(sql).fetchall()


SCORED = "SELECT id, label, label_value, correct, round(log_loss, 9), error FROM outcomes ORDER BY origin_offset"

HISTORIES = {
    "bool": [(0.9, True, False), (0.2, True, None), (0.0, False, True), (0.5, False, True), (True, True, False)],
    "classes": [
        ({"dry": 0.7, "wet/cold": 0.3}, "dry", "wet/cold"),
        ({"dry": 0.7, "wet/cold": 0.3}, "dry", 'sn"ow'),
        ({"dry": 1.0}, "wet/cold", "dry"),
        ("dry", "dry", "wet/cold"),
        ({"dry": 1.0}, "dry", None),
    ],
    "float": [(1.5, 2.0, 1.0), (0.0, 0.0, -3.25), (1.0, 4.0, None)],
}


@pytest.mark.parametrize("label", HISTORIES)
def test_a_corrected_row_looks_as_if_the_newest_label_had_come_first(label):
    log, right = World(label), World(label)
    for value, first, later in HISTORIES[label]:
        log.labelled(Labelled(value, first))
        right.labelled(Labelled(value, first if later is None else later))
    for number, (_, _, later) in enumerate(HISTORIES[label]):
        if later is not None:
            log.corrected(str(number), later)
    assert log.ask(SCORED) == right.ask(SCORED)
    learned = log.ask("SELECT label FROM labelled_examples ORDER BY log_offset")
    assert learned == log.ask("SELECT first_label FROM outcomes ORDER BY log_offset")
    assert learned != log.ask("SELECT label FROM outcomes ORDER BY log_offset")


def test_accuracy_by_day_counts_the_newest_label_and_what_was_learned_the_first():
    log = World().labelled(*(Labelled(0.9, True) for _ in range(3))).corrected("1", False)
    by_day = "SELECT event_time::DATE, avg(correct::INT) FROM {} GROUP BY ALL ORDER BY ALL"
    assert [score for _, score in log.ask(by_day.format("outcomes"))] == [1.0, 0.0, 1.0]
    assert [score for _, score in log.ask(by_day.format("labelled_examples"))] == [1.0, 1.0, 1.0]
    assert log.ask("SELECT count(*) FROM training_rain WHERE label") == [(3,)]
    assert log.ask("SELECT correct FROM scored_predictions ORDER BY id") == [(True,), (False,), (True,)]


def test_the_newest_of_several_corrections_counts_also_back_to_the_first_label():
    log = World().labelled(Labelled(0.9, True), Labelled(0.9, True))
    log.corrected("0", False).corrected("1", False).corrected("1", True)
    told = log.ask("SELECT label, first_label, corrected_at IS NOT NULL FROM outcomes ORDER BY id")
    assert told == [("false", "true", True), ("true", "true", True)]


def test_a_correction_belongs_to_its_entity_and_to_the_newest_row_before_it():
    log = World().labelled(Labelled(0.9, True, "A", "x"), Labelled(0.9, True, "B", "x")).corrected("x", False, "A")
    assert log.ask("SELECT label FROM outcomes ORDER BY origin_offset") == [("false",), ("true",)]
    again = World().labelled(Labelled(0.9, True, identity="x")).corrected("x", False)
    again.labelled(Labelled(0.9, True, identity="x")).corrected("x", False).labelled(Labelled(0.9, True, identity="x"))
    assert again.ask("SELECT label FROM outcomes ORDER BY origin_offset") == [("false",), ("false",), ("true",)]


def test_rows_without_a_served_answer_get_their_newest_label_too():
    log = World().labelled(Labelled(None, True)).corrected("0", False)
    assert log.ask("SELECT label, correct, log_loss FROM outcomes") == [("false", None, None)]


SLICES = (Slice("station"), Slice("x", edges=(5, 20)), Slice("wet"))
SLICED = "SELECT slice, examples, labelled, coverage, accuracy FROM slices ORDER BY slice"


def test_slices_know_the_examples_whose_label_never_came():
    log = World(slices=SLICES).labelled(
        Labelled(0.9, True, features={"station": "Perth", "x": 5.0, "wet": True}),
        Labelled(0.9, True, features={"station": "Perth", "x": 4.9}),
        Labelled(0.9, None, features={"station": "Perth", "x": 20.0, "wet": False}),
        Labelled(0.9, False, inferred=True, features={"x": 6.0}),
    )
    assert log.ask(SLICED) == [
        ("station=Perth", 3, 2, 2 / 3, 1.0),
        ("station=missing", 1, 0, 0.0, None),
        ("wet=false", 1, 0, 0.0, None),
        ("wet=missing", 2, 1, 0.5, 1.0),
        ("wet=true", 1, 1, 1.0, 1.0),
        ("x=5..20", 2, 1, 0.5, 1.0),
        ("x=<5", 1, 1, 1.0, 1.0),
        ("x=>=20", 1, 0, 0.0, None),
    ]
    log.corrected("0", False)
    assert log.ask("SELECT accuracy FROM slices WHERE slice = 'station=Perth'") == [(0.5,)]


def test_slices_are_named_as_the_evaluator_names_them():
    features = [
        {"station": "x" * 99, "x": -1e9, "wet": True}, {"station": "it's", "x": 5.0, "wet": False}, {"x": 19.999}, {},
    ]  # fmt: skip
    log = World(slices=SLICES).labelled(*(Labelled(0.9, True, features=one) for one in features))
    named = {name for one in features for name in Slicer(SLICES).names(one)}
    assert {name for (name,) in log.ask("SELECT slice FROM slices")} == named


def test_slices_follow_the_newest_release_and_outlive_a_restart(tmp_path):
    log = World(slices=SLICES[:1])
    log.recorder.close()
    log.recorder = Recorder(log.bus, Store(tmp_path / "s.duckdb"), commit_s=0)
    log.labelled(Labelled(0.9, True, features={"station": "a", "x": 1.0}))
    assert log.ask(SLICED) == [("station=a", 1, 1, 1.0, 1.0)]
    log.send("control-log", log.released.model_copy(update={"release": 2, "definition": log.definition(SLICES[1:2])}))
    assert log.ask(SLICED) == [("x=<5", 1, 1, 1.0, 1.0)]
    log.recorder.close()
    log.recorder = Recorder(log.bus, Store(tmp_path / "s.duckdb"), commit_s=0)
    log.recorder.store.add_pipeline("snow", log.recorder.store.contracts()["rain"])
    assert log.ask(SLICED) == [("x=<5", 1, 1, 1.0, 1.0)]


def test_without_slices_the_view_is_empty():
    assert World().labelled(Labelled(0.9, True)).ask(SLICED) == []
