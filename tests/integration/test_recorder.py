"""The recorder on both sides of the bus: what it reads, all rows once, and what it refuses."""

import subprocess
import sys

import duckdb
import pytest
from recorded import NOON, WEATHER, World, everything, released, rows

from headrace.infra import create_topics
from headrace.infra.memory_bus import MemoryBus
from headrace.schemas.codec import encode
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import (
    Check,
    ModelUpdated,
    ModelValidated,
    RequestRefused,
    RunEnded,
    RunStarted,
    TrainingCompleted,
    TrainingFailed,
    TrainingRequested,
    WindowValidated,
)
from headrace.schemas.policies import Policies
from headrace.schemas.stream import (
    LabelArrived,
    Problem,
    RecordRejected,
)
from headrace.schemas.topics import TOPICS, full_name
from headrace.services.recorder.recorder import CONTROL_TOPICS, DATA_TOPICS, NOT_READ, SNAPSHOTS
from headrace.services.recorder.store import Store, StoreRefused


def test_what_services_write_can_be_asked_by_sql(world, tmp_path, drain):
    world.pipeline()
    for number in range(50):
        world.example(number, label=number % 3 == 0, served="champion" if number >= 10 else None)
    world.send("<p>.predictions", LabelArrived(id="nobody", time=NOON, label=True))
    world.send(
        "<p>.data-rejected",
        RecordRejected(
            id="51",
            topic="rainfall.data-arrived",
            partition=0,
            offset=51,
            value=b"{",
            problems=[Problem(code="out_of_range", message="temperature is 99", feature="temperature")],
        ),
    )
    world.send(
        "validation-results",
        WindowValidated(
            pipeline="rainfall",
            partition=0,
            start_offset=0,
            end_offset=9,
            start_ms=0,
            end_ms=1,
            release=1,
            validated=8,
            labels=0,
            rejected=1,
            duplicates=0,
            reasons={"out_of_range": 1},
            extra_columns={},
            verdict="ok",
            features={"temperature": {"n": 8, "missing": 0, "mean": 0.5, "quantiles": (0.1, 0.9)}},
        ),
        pipeline="",
    )
    world.log(
        TrainingRequested(
            pipeline="rainfall",
            request="t1",
            trigger="first_model",
            cause="release 1",
            release=1,
            seed=0,
            start=0,
            end_at_labels=20,
        )
    )
    world.log(RunStarted(pipeline="rainfall", run="run-1", request="t1", release=1, seed=0, start_offset=0))
    world.log(
        TrainingCompleted(
            pipeline="rainfall",
            run="run-1",
            request="t1",
            release=1,
            n_labels=20,
            start_offset=0,
            end_offset=20,
        )
    )
    world.log(
        ModelValidated(
            pipeline="rainfall",
            run="run-1",
            request="t1",
            stage="offline",
            verdict="pass",
            n_labels=20,
            offset=20,
            checks=(Check(name="accuracy", verdict="pass", value=0.7, limit=0.6, n=10),),
        )
    )
    world.log(
        ModelValidated(
            pipeline="rainfall",
            run="run-1",
            request="t1",
            stage="infra",
            verdict="pass",
            n_labels=20,
            offset=20,
            checks=(),
            snapshot_uri="u",
        )
    )
    world.log(  # it serves, learns on, and is judged no more
        TrainingCompleted(
            pipeline="rainfall", run="run-1", request="t1", release=1, n_labels=40, start_offset=0, end_offset=40
        )
    )
    for version, alias in ((1, "champion"), (2, "challenger"), (2, "champion"), (1, "previous")):
        world.log(
            ModelUpdated(
                pipeline="rainfall",
                alias=alias,
                version=version,
                run=f"run-{version}",
                release=1,
                snapshot_offset=20,
                uri="u",
                follows=True,
                epoch=version,
                reason="first model",
            )
        )
    world.log(RunEnded(pipeline="rainfall", run="run-1", reason="superseded", offset=40))
    world.log(RequestRefused(pipeline="rainfall", request="t2", kind="training", reason="one slot", numbers={"k": 1}))
    recorder = drain(world.flush().recorder(tmp_path / "s.duckdb"))
    ask = lambda sql: rows(recorder, sql)  # noqa: E731
    assert ask("SELECT count(*), sum(temperature), count(station) FROM features_rainfall") == [
        (50, pytest.approx(122.5), 0)
    ]
    assert ask("SELECT count(*), count(served), min(features->>'temperature') FROM examples") == [(50, 40, "0.0")]
    assert ask("SELECT alias, count(*), any_value(prediction), any_value(score) FROM predictions GROUP BY 1") == [
        ("champion", 40, "true", 0.75)
    ]
    assert ask("SELECT count(*), count(correct), avg(correct::INT), max(label_delay_s) FROM labelled_examples") == [
        (50, 40, pytest.approx(13 / 40), 1.5)
    ]
    assert ask("SELECT label, typeof(label), temperature, correct FROM training_rainfall WHERE id = '12'") == [
        (True, "BOOLEAN", 1.2, True)
    ]
    assert ask("SELECT count(*), avg(correct::INT) FROM scored_predictions WHERE alias = 'champion'") == [
        (40, pytest.approx(13 / 40))
    ]
    assert ask("SELECT id FROM waiting_labels") == [("nobody",)]
    assert ask('SELECT code, "offset", value FROM rejects') == [("out_of_range", 51, b"{")]
    assert ask("SELECT feature, mean, quantiles FROM feature_windows") == [("temperature", 0.5, [0.1, 0.9])]
    assert ask("SELECT reasons->>'out_of_range' FROM windows") == [("1",)]
    assert ask("SELECT request, status, n_labels, reason FROM trainings") == [("t1", "ended", 40, "superseded")]
    assert ask('SELECT name, "limit" FROM validation_checks') == [("accuracy", 0.6)]
    assert ask("SELECT alias, version FROM aliases ORDER BY 1") == [("challenger", 2), ("champion", 2), ("previous", 1)]
    assert ask("SELECT version, aliases, trigger, n_labels FROM models ORDER BY 1") == [
        (1, ["previous"], "first_model", 20),
        (2, ["challenger", "champion"], None, None),
    ]
    assert ask("SELECT event, reason, subject FROM decisions") == [("RequestRefused", "one slot", "t2")]
    assert ask("SELECT release, released_by, retired_at FROM pipelines") == [(1, "ann", None)]
    assert ask("SELECT count(*) FROM events") == [(13,)]
    assert ask("SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL") == []
    assert ask("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL") == []
    recorder.close()


def test_a_training_that_left_an_example_out_learns_on_and_one_that_could_not_begin_failed(world, drain, tmp_path):
    for request, offset in (("t1", 7), ("t2", None)):
        run = f"run-{request}"
        world.log(RunStarted(pipeline="rainfall", run=run, request=request, release=1, seed=0, start_offset=0))
        world.log(TrainingFailed(pipeline="rainfall", request=request, run=run, reason="no wind", offset=offset))
    recorder = drain(world.flush().recorder(tmp_path / "s.duckdb"))
    assert rows(recorder, "SELECT request, status, reason FROM trainings ORDER BY ALL") == [
        ("t1", "learning", None),
        ("t2", "failed", "no wind"),
    ]


def test_a_new_pipeline_and_a_new_feature_come_without_a_restart(world, tmp_path, drain):
    world.pipeline()
    world.example(0, temperature=1.0)
    recorder = drain(world.flush().recorder(tmp_path / "s.duckdb"))
    world.pipeline(
        "my-pump", ContractSpec(name="P", features=(FeatureSpec(name="id", type="int"),), label=LabelSpec(type="float"))
    )
    world.example(0, pipeline="my-pump", id=7)
    drain_twice = lambda: (world.flush(), drain(recorder), drain(recorder))  # noqa: E731
    drain_twice()
    assert rows(recorder, "SELECT id, id_1 FROM features_my_pump") == [("0", 7)]
    wider = WEATHER.model_copy(
        update={"features": (*WEATHER.features, FeatureSpec(name="wind", type="float", optional=True))}
    )
    world.send("<p>.predictions", released(contract=wider, release=2))
    world.example(1, temperature=2.0, wind=3.0)
    drain_twice()
    assert rows(recorder, "SELECT temperature, wind, other FROM features_rainfall ORDER BY 1") == [
        (1.0, None, None),
        (2.0, 3.0, None),
    ]
    world.log(released(contract=wider, release=2))
    drain_twice()
    assert rows(recorder, "SELECT pipeline, release FROM releases ORDER BY ALL") == [
        ("my-pump", 1),
        ("rainfall", 1),
        ("rainfall", 2),
    ]
    assert rows(recorder, "SELECT pipeline, features->>'wind' FROM examples ORDER BY ALL") == [
        ("my-pump", None),
        ("rainfall", "3.0"),
        ("rainfall", None),
    ]
    recorder.close()


def test_a_release_in_the_middle_of_others_records_reads_nothing_twice(world, tmp_path, drain):
    world.pipeline()
    recorder = drain(drain(world.flush().recorder(tmp_path / "s.duckdb")))
    event = world.example(0)
    for number in range(1, 40):
        world.example(number, label=True)
        world.send("<p>.data-rejected", event, body=b"{", source=f"/bad/{number}")
        if number == 20:
            world.pipeline("pump")
            world.send("<p>.predictions", released(contract=WEATHER, release=2))
    world.flush()
    drain(drain(recorder))
    assert sum(numbers["repeats"] for numbers in recorder.counts().values()) == 0
    assert rows(recorder, "SELECT count(*), count(DISTINCT topic_offset) FROM dead_letters") == [(39, 39)]
    assert rows(recorder, "SELECT count(*), count(DISTINCT id) FROM features_rainfall") == [(40, 40)]
    recorder.close()


def test_repeats_are_dropped_also_by_the_next_process(world, tmp_path, drain):
    world.pipeline()
    for number in range(4):
        world.example(number, label=True)
    path = tmp_path / "s.duckdb"
    drain(world.flush().recorder(path)).close()
    world.sequences = {place: 0 for place in world.sequences if place != "origin"}
    for number in range(6):
        world.example(number, label=True)
    recorder = drain(world.flush().recorder(path))
    for table in ("features_rainfall", "predictions", "labelled_examples"):
        assert rows(recorder, f"SELECT list(id ORDER BY log_offset) FROM {table}") == [
            (["0", "1", "2", "3", "4", "5"],)
        ], table
    assert sum(numbers["repeats"] for numbers in recorder.counts().values()) == 8
    recorder.close()


def test_poison_is_kept_as_a_dead_letter_and_stops_nothing(world, tmp_path, drain):
    world.pipeline()
    event = world.example(0)
    for number, body in enumerate(
        (b"", b"\xff", b'{"id":1}', encode(event).replace(b'"release":1', b'"release":' + b"9" * 40))
    ):
        world.send("<p>.predictions", event, body=body, source=f"/bad/{number}")
    world.producer.produce(full_name("<p>.predictions", "rainfall", world.namespace), 0, b"k", b"x", [], 1_000)
    world.send("metrics", event, pipeline="", body=b"[]")
    world.send("lineage", released(), pipeline="", body=b"{")
    world.example(1)
    recorder = drain(world.flush().recorder(tmp_path / "s.duckdb"))
    assert rows(
        recorder, "SELECT count(*), count(DISTINCT reason), count(*) FILTER (value = '\\xFF'::BLOB) FROM dead_letters"
    ) == [(7, 7, 1)]
    assert rows(recorder, "SELECT id FROM features_rainfall ORDER BY 1") == [("0",), ("1",)]
    recorder.close()


def test_partitions_and_commit_sizes_do_not_change_the_rows(bus, namespace, tmp_path, drain):
    namespace = "" if isinstance(bus, MemoryBus) else namespace
    world = World(bus, namespace, partitions=3)
    world.pipeline()
    for number in range(60):
        world.example(number, partition=number % 3, label=number % 2 == 0)
    world.flush()
    found = []
    for size in (1, 7, 10_000):
        recorder = drain(world.recorder(tmp_path / f"{size}.duckdb", commit_records=size, batch=11))
        found.append({name: sorted(map(repr, some)) for name, some in everything(recorder).items()})
        recorder.close()
    assert len(found[0]["features_rainfall"]) == 60
    assert found[0] == found[1] == found[2]


def test_large_records_are_committed_before_they_fill_the_memory(tmp_path, monkeypatch):
    world = World(MemoryBus())
    world.pipeline()
    recorder = world.recorder(tmp_path / "s.duckdb", batch=10, commit_s=1e9)
    monkeypatch.setattr("headrace.services.recorder.recorder.HELD_BYTES", 1 << 20)
    recorder.tick()
    for number in range(100):
        world.example(number, temperature=1.0, station="x" * 50_000)
    stored = []
    while recorder.tick():
        stored += rows(recorder, "SELECT count(*) FROM features_rainfall")
    assert stored[-1] == (90,)
    assert len(set(stored)) >= 4
    recorder.close()


# --- refusals ---------------------------------------------------------------------------------------------


def test_a_gap_a_recreated_topic_and_a_foreign_file_are_refused(tmp_path, drain):
    world = World(MemoryBus())
    world.pipeline()
    for number in range(5):
        world.example(number)
    path = tmp_path / "s.duckdb"
    drain(world.recorder(path)).close()
    for number in range(5, 9):
        world.example(number)
    world.bus.delete_records(("rainfall.predictions", 0), 7)
    with pytest.raises(
        StoreRefused, match=r"rainfall\.predictions partition 0: this store ends at offset 5, the log holds 7 to 9"
    ):
        world.recorder(path)
    world.bus.delete_topic("rainfall.predictions")
    create_topics.create_pipeline(world.bus, "rainfall", 1, Policies())
    with pytest.raises(
        StoreRefused, match=r"rainfall\.predictions partition 0 was deleted and made again.*Move .* aside"
    ):
        world.recorder(path)
    foreign = tmp_path / "foreign.duckdb"
    duckdb.connect(str(foreign)).execute("CREATE TABLE t(a INT)").close()
    with pytest.raises(StoreRefused, match="no store of layout"):
        Store(foreign)
    foreign.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreRefused, match="cannot be opened"):
        Store(foreign)


def test_a_second_recorder_on_the_same_file_is_refused(tmp_path):
    store = Store(tmp_path / "s.duckdb")
    code = "import sys, pathlib, headrace.services.recorder.store as s; s.Store(pathlib.Path(sys.argv[1]))"
    second = subprocess.run([sys.executable, "-c", code, str(store.path)], capture_output=True, text=True, check=False)
    store.close()
    assert second.returncode == 1
    assert "StoreRefused" in second.stderr
    assert "Is another recorder running?" in second.stderr


# --- what it reads ----------------------------------------------------------------------------------------


def test_every_topic_meant_for_the_recorder_is_read_and_what_is_not_has_a_reason():
    meant = {name for name, topic in TOPICS.items() if "recorder" in topic.consumers}
    read = {*CONTROL_TOPICS, *DATA_TOPICS, SNAPSHOTS}
    assert meant == read, "a right to read is given for what is read, and for nothing else"
    assert not read & set(NOT_READ)
    assert all(TOPICS[name].decides for name, why in NOT_READ.items() if "control-log" in why)
