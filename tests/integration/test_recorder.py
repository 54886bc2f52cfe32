"""The recorder on both sides of the bus: all rows once, also after kill -9; snapshots; refusals; the process."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from headrace.infra import create_topics
from headrace.infra.follow import Follower
from headrace.infra.local_broker import free_port
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.query_client import QueryFailed, StoreUnreachable, ask
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import (
    Check,
    ModelUpdated,
    ModelValidated,
    PipelineReleased,
    ReleaseDefinition,
    RequestRefused,
    RunEnded,
    RunStarted,
    SnapshotPublished,
    TrainingCompleted,
    TrainingFailed,
    TrainingRequested,
    WindowValidated,
)
from headrace.schemas.policies import Policies
from headrace.schemas.stream import (
    ArmPrediction,
    ExampleLabelled,
    LabelArrived,
    PredictionMade,
    Problem,
    RecordRejected,
)
from headrace.schemas.topics import TOPICS, full_name
from headrace.services.recorder import export
from headrace.services.recorder.export import Exporter, read_current, thin
from headrace.services.recorder.recorder import CONTROL_TOPICS, DATA_TOPICS, NOT_READ, SNAPSHOTS, Recorder
from headrace.services.recorder.store import Store, StoreRefused

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
WEATHER = ContractSpec(
    name="Weather",
    label=LabelSpec(type="bool"),
    features=(
        FeatureSpec(name="temperature", type="float", unit="°C"),
        FeatureSpec(name="station", type="str", optional=True),
    ),
)


class World:
    """A bus with topics, and what services would write to it."""

    def __init__(self, bus, namespace="", partitions=1):
        self.bus, self.namespace, self.partitions = bus, namespace, partitions
        create_topics.create(bus, namespace)
        self.producer = bus.producer("test")
        self.sequences = {}

    def pipeline(self, name="rainfall", contract=WEATHER, release=1):
        create_topics.create_pipeline(self.bus, name, self.partitions, Policies(), self.namespace)
        return self.log(released(name, contract, release))

    def send(
        self,
        topic,
        event,
        pipeline="rainfall",
        partition=0,
        source="/s/x/0",
        sequence=None,
        body=None,
        more=(),
        ms=None,
    ):
        place = (topic, pipeline, partition, source)
        if sequence is None:
            sequence = self.sequences.get(place, 0) + 65_536
        self.sequences[place] = sequence
        headers = headers_of(TYPE_OF[type(event)], source, sequence) + list(more)
        self.producer.produce(
            full_name(topic, pipeline, self.namespace),
            partition,
            b"k",
            encode(event) if body is None else body,
            headers,
            int(NOON.timestamp() * 1000) if ms is None else ms,
        )
        return event

    def log(self, event):
        number = self.sequences["origin"] = self.sequences.get("origin", 0) + 1
        more = [("ce_correlationid", "c"), ("ce_causationid", ""), ("ce_origin", f"topic/id/0/{number}")]
        return self.send("control-log", event, pipeline="", more=more)

    def example(self, number, partition=0, pipeline="rainfall", served="champion", label=None, **features):
        event = PredictionMade(
            id=str(number),
            time=NOON + timedelta(seconds=number),
            served=served,
            release=1,
            epoch=1,
            features=features or {"temperature": number / 10},
            origin=(partition, number),
            cold=served is None,
            predictions={"champion": ArmPrediction(version=1, run="run-1", learned_to=number, value=0.75)}
            if served
            else {},
        )
        self.send("<p>.predictions", event, pipeline, partition)
        if label is not None:
            self.send(
                "<p>.labelled-examples",
                ExampleLabelled(
                    prediction=event,
                    label=label,
                    predicted_at_ms=0,
                    labelled_at_ms=1_500,
                    partition=partition,
                    number=number,
                    pending_from=number,
                    known_to=number,
                ),
                pipeline,
            )
        return event

    def flush(self):
        self.producer.flush()
        return self

    def recorder(self, path, **options):
        return Recorder(self.bus, Store(path), namespace=self.namespace, **options)


def released(name="rainfall", contract=WEATHER, release=1):
    definition = ReleaseDefinition(
        contract=contract,
        policies=Policies(),
        contract_digest="a",
        policies_digest="b",
        recipe_digest="c",
        source_digest="d",
        source_uri="e",
    )
    return PipelineReleased(
        pipeline=name, release=release, definition=definition, partitions=1, request=f"r{release}", by="ann"
    )


@pytest.fixture
def world(bus, namespace):
    return World(bus, namespace if not isinstance(bus, MemoryBus) else "")


@pytest.fixture
def drain(until):
    """Tick until the recorder has read everything that stands in its topics, then commit."""

    def run(recorder):
        def at_the_end():
            recorder.tick(0.05)
            places = recorder._sources.items()
            return all(source.next_offset >= recorder._bus.offsets(place)[1] for place, source in places)

        until(at_the_end, says="the recorder's reading everything")
        recorder.commit()
        return recorder

    return run


def rows(recorder, sql):
    with recorder.store.reading() as cursor:
        return cursor.sql(sql).fetchall()


def everything(recorder):
    """All rows of all tables but the positions, in their order."""
    names = [name for name in recorder.store.tables if name not in ("positions", "meta")]
    return {name: rows(recorder, f'FROM "{name}"') for name in names}


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


# --- kill -9 ----------------------------------------------------------------------------------------------

NURSERY = """
import os, runpy, sys
from pathlib import Path
from headrace.infra.memory_bus import MemoryBus

store, acknowledgements, this_file = sys.argv[1:]
here = runpy.run_path(this_file)
world = here["long_log"](here["World"](MemoryBus()))
file = os.open(acknowledgements, os.O_WRONLY | os.O_APPEND)

def record():
    recorder = world.recorder(Path(store), commit_records=60, batch=20)
    commit = recorder.commit

    def commit_and_acknowledge():
        commit()
        done = recorder.counts().get("rainfall.predictions-0", {"offset": 0})["offset"]
        os.write(file, b"%d\\n" % done)
        os.fsync(file)

    recorder.commit = commit_and_acknowledge
    while recorder.tick():
        pass
    recorder.commit()

for _ in sys.stdin:
    pid = os.fork()  # each child has the same log and opens the store itself
    if not pid:
        record()
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def long_log(world, examples=2_000):
    """Enough for a process to be killed in. Each record of `rainfall.predictions` makes an example or a dead letter."""
    world.pipeline()
    for number in range(examples):
        event = world.example(number, label=number % 2 == 0)
        if number % 100 == 0:
            world.send("<p>.predictions", event, source="/bad/x/0", body=b"{")
    return world


def kill(process, with_signal):
    """Whether there was such a process."""
    try:
        os.kill(process, with_signal)
    except ProcessLookupError:
        return False
    return True


def test_acknowledged_rows_survive_kill_9(tmp_path, until):
    path, acknowledgements = tmp_path / "s.duckdb", tmp_path / "acknowledgements"
    acknowledgements.touch()
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(path), str(acknowledgements), __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    rng, kills, ended = random.Random(8), 0, False
    while not ended:
        line = acknowledgements.read_bytes().count(b"\n") + rng.randint(0, 5)
        nursery.stdin.write("\n")
        nursery.stdin.flush()
        child = int(nursery.stdout.readline())

        def far_enough(child=child, line=line):
            return acknowledgements.read_bytes().count(b"\n") > line or not kill(child, 0)

        until(far_enough, limit_s=60, says="a commit of the child")
        time.sleep(rng.random() * 0.01)  # anywhere in a commit, not only after one
        kill(child, signal.SIGKILL)
        ended = nursery.stdout.readline() == "0\n"
        kills += not ended
        store = Store(path)
        acknowledged = max((int(line) for line in acknowledgements.read_text().split()), default=0)
        position = store.positions().get(("rainfall.predictions", 0))
        stored = position.next_offset if position else 0
        assert stored >= acknowledged
        if store.features:
            with store.reading() as cursor:
                assert cursor.execute(
                    "SELECT count(*), count(DISTINCT log_offset) FROM (SELECT log_offset FROM features_rainfall "
                    "UNION ALL SELECT log_offset FROM dead_letters)"
                ).fetchone() == (stored, stored)
        store.close()
    nursery.stdin.close()
    assert nursery.wait() == 0
    assert kills >= 10
    undisturbed = long_log(World(MemoryBus())).recorder(tmp_path / "undisturbed.duckdb")
    while undisturbed.tick():
        pass
    undisturbed.commit()
    killed = Store(path)
    for name in everything(undisturbed):
        with killed.reading() as cursor:
            assert cursor.sql(f'FROM "{name}"').fetchall() == rows(undisturbed, f'FROM "{name}"'), name
    killed.close()
    undisturbed.close()


# --- snapshots --------------------------------------------------------------------------------------------


def published(bus, namespace=""):
    """What the recorder announced."""
    reader = bus.reader()
    topic = full_name("store-snapshots", namespace=namespace)
    reader.assign({(topic, 0): 0})
    found = []
    while len(found) < bus.offsets((topic, 0))[1]:
        found += reader.poll(10, 0.1)
    reader.close()
    return [SnapshotPublished.model_validate_json(message.value()) for message in found]


def test_a_snapshot_is_whole_announced_and_read_by_another_process_while_the_recorder_writes(world, tmp_path, drain):
    world.pipeline()
    for number in range(20):
        world.example(number, label=True)
    store = Store(tmp_path / "s.duckdb")
    folder = tmp_path / "snapshots"
    exporter = Exporter(store, folder, world.bus, namespace=world.namespace, inline=True)
    recorder = drain(Recorder(world.flush().bus, store, namespace=world.namespace, exporter=exporter))
    first = exporter.run()
    assert exporter.run() is None, "nothing came since"
    for number in range(20, 30):
        world.example(number, label=True)
    drain(world.flush() and recorder)
    manifest = read_current(folder)
    assert manifest["snapshot"] == first.snapshot
    topic = full_name("<p>.predictions", "rainfall", world.namespace)
    assert manifest["offsets"][f"{topic}/0"] == first.offsets[f"{topic}/0"] == 20
    here = folder / first.snapshot
    for table in manifest["tables"]:
        content = (here / table["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == table["sha256"]
        read = f"SELECT count(*) FROM '{here / table['file']}'"
        other = (
            subprocess.run(
                [sys.executable, "-c", f"import duckdb; print(duckdb.execute({read!r}).fetchone()[0])"],
                capture_output=True,
                text=True,
                check=True,
            )
            if table["rows"] == 20
            else None
        )
        assert other is None or int(other.stdout) == 20
    names = {table["name"]: table["rows"] for table in manifest["tables"]}
    assert (names["features_rainfall"], names["predictions"], names["labelled_examples"]) == (20, 20, 20)
    column = duckdb.execute(
        f"SELECT typeof(temperature), typeof(event_time) FROM '{here}/features_rainfall.parquet' LIMIT 1"
    ).fetchone()
    assert column == ("DOUBLE", "TIMESTAMP WITH TIME ZONE")
    recorder.close()
    last = read_current(folder)
    assert {table["name"]: table["rows"] for table in last["tables"]}["predictions"] == 30
    announced = published(world.bus, world.namespace)
    assert [event.snapshot for event in announced] == [first.snapshot, last["snapshot"]]
    assert announced[1].offsets == last["offsets"]


def told_lineage(bus, namespace=""):
    """The run events in `lineage`."""
    return [record.event.run_event for record in Follower(bus, namespace, [f"{namespace}lineage"]).read_to_end()]


def test_a_snapshots_lineage_names_every_topic_with_its_offsets(world, tmp_path, drain, valid_lineage):
    world.pipeline()
    for number in range(5):
        world.example(number, label=True)
    store, folder = Store(tmp_path / "s.duckdb"), tmp_path / "snapshots"
    exporter = Exporter(store, folder, world.bus, namespace=world.namespace, inline=True)
    recorder = drain(Recorder(world.flush().bus, store, namespace=world.namespace, exporter=exporter))
    published = exporter.run()
    start, end = map(valid_lineage, told_lineage(world.bus, world.namespace))
    assert (start["eventType"], end["eventType"], start["run"]["runId"]) == ("START", "COMPLETE", end["run"]["runId"])
    assert start["eventTime"] <= end["eventTime"]
    assert end["job"] == {"namespace": "headrace", "name": "recorder.snapshot"}
    read = {one["name"]: one["facets"]["headrace"]["offsets"] for one in end["inputs"]}
    assert read["rainfall.labelled-examples"] == {"0": 5}
    assert sum(map(len, read.values())) == len(published.offsets)
    (made,) = end["outputs"]
    assert (made["namespace"], made["name"]) == ("file", str(folder.resolve()))
    assert made["facets"]["version"]["datasetVersion"] == published.snapshot
    assert made["facets"]["headrace"]["rows"]["labelled_examples"] == 5
    drain(recorder)
    assert exporter.run() is None, "its own run events are no news"
    assert rows(recorder, "SELECT count(*) FROM lineage") == [(2,)]
    recorder.close()


def test_a_snapshot_that_cannot_be_written_is_a_failed_run(tmp_path, monkeypatch, valid_lineage):
    world = World(MemoryBus())
    world.pipeline()
    store = Store(tmp_path / "s.duckdb")
    exporter = Exporter(store, tmp_path / "snapshots", world.bus, inline=True)
    recorder = Recorder(world.bus, store, exporter=exporter)
    recorder.tick()
    recorder.commit()
    with monkeypatch.context() as broken:
        broken.setattr(export.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
        assert exporter.run() is None
    assert exporter.run() is not None
    told = [valid_lineage(event) for event in told_lineage(world.bus)]
    assert [event["eventType"] for event in told] == ["START", "FAIL", "START", "COMPLETE"]
    assert "disk full" in told[1]["run"]["facets"]["errorMessage"]["message"]
    assert told[0]["run"] != told[2]["run"]
    recorder.close()


def test_all_tables_of_a_snapshot_are_of_one_moment(tmp_path, monkeypatch):
    world = World(MemoryBus())
    world.pipeline()
    world.example(0, label=True)
    store = Store(tmp_path / "s.duckdb")
    recorder = Recorder(world.bus, store)
    recorder.tick()
    recorder.tick()
    recorder.commit()
    write_table, numbers = export._write_table, iter(range(1, 1_000))

    def while_more_comes(cursor, table, path):
        world.example(next(numbers), label=True)
        recorder.tick()
        recorder.commit()
        return write_table(cursor, table, path)

    monkeypatch.setattr(export, "_write_table", while_more_comes)
    snapshot = export.write_snapshot(store, tmp_path / "snapshots", 1_000)
    written = {table.name: table.rows for table in snapshot.tables}
    assert {written[name] for name in ("features_rainfall", "predictions", "labelled_examples")} == {1}
    assert snapshot.offsets["rainfall.predictions/0"] == 1
    assert rows(recorder, "SELECT count(*) > 10 FROM predictions") == [(True,)]
    recorder.close()


def test_a_snapshot_in_the_background_comes_at_its_time_and_holds_up_nobody(tmp_path, until):
    world = World(MemoryBus())
    world.pipeline()
    world.example(0)
    now = [0.0]
    store = Store(tmp_path / "s.duckdb")
    exporter = Exporter(store, tmp_path / "snapshots", world.bus, every_s=60, clock=lambda: now[0])
    recorder = Recorder(world.bus, store, exporter=exporter, commit_s=0)
    recorder.tick()
    assert read_current(tmp_path / "snapshots") is None
    now[0] = 61
    recorder.tick()
    until(lambda: (recorder.tick(), exporter.published)[1] == 1, says="the announcement")
    recorder.close()


def test_a_snapshot_cut_short_is_never_seen_and_cleared_away(tmp_path, monkeypatch):
    world = World(MemoryBus())
    world.pipeline()
    world.example(0)
    store = Store(tmp_path / "s.duckdb")
    folder = tmp_path / "snapshots"
    exporter = Exporter(store, folder, world.bus, inline=True)
    recorder = Recorder(world.bus, store, exporter=exporter)
    recorder.tick()
    recorder.commit()
    monkeypatch.setattr(
        "headrace.services.recorder.export.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "disk full"))
    )
    assert exporter.run() is None
    assert "disk full" in exporter.failure
    assert "disk full" in recorder.health()["snapshot_failure"]
    assert read_current(folder) is None
    assert [path.name[:9] for path in folder.iterdir()] == [".writing-"]
    monkeypatch.undo()
    again = Exporter(store, folder, world.bus, inline=True)
    assert list(folder.iterdir()) == []
    assert again.run() is not None
    recorder.close()


def test_old_snapshots_are_thinned_to_the_newest_and_one_a_day(tmp_path):
    names = [f"202611{day:02d}T{hour:02d}0000.000Z" for day in range(10, 24) for hour in (1, 13)]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / "current").write_text(names[-1])
    thin(tmp_path, keep=3, keep_days=7)
    kept = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert kept == sorted({*names[-3:], *(f"202611{day:02d}T130000.000Z" for day in range(17, 24))})


# --- what it reads ----------------------------------------------------------------------------------------


def test_every_topic_meant_for_the_recorder_is_read_and_what_is_not_has_a_reason():
    meant = {name for name, topic in TOPICS.items() if "recorder" in topic.consumers}
    read = {*CONTROL_TOPICS, *DATA_TOPICS, SNAPSHOTS}
    assert meant == read, "a right to read is given for what is read, and for nothing else"
    assert not read & set(NOT_READ)
    assert all(TOPICS[name].decides for name, why in NOT_READ.items() if "control-log" in why)


# --- the process ------------------------------------------------------------------------------------------


@pytest.mark.kafka
def test_the_process_answers_survives_kill_9_and_stops_clean(kafka, kafka_bus, namespace, tmp_path, until):
    world = World(kafka_bus, namespace)
    world.pipeline()
    for number in range(100):
        world.example(number, label=True)
    world.flush()
    port = free_port()
    environment = os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_HOME": str(tmp_path),
        "HEADRACE_ARTIFACT_KEY": "k" * 32,
        "HEADRACE_QUERY_PORT": str(port),
        "HEADRACE_QUERY_TOKEN": "secret",
    }

    def start():
        return subprocess.Popen([sys.executable, "-m", "headrace.services.recorder"], env=environment, cwd=tmp_path)

    def stored():
        try:
            return ask(f"http://127.0.0.1:{port}", "SELECT count(*) FROM training_rainfall", token="secret").rows[0][0]
        except (StoreUnreachable, QueryFailed):  # not up yet, or the release is not read yet
            return 0

    process = start()
    until(lambda: stored() == 100, says="100 rows in the store")
    for number in range(100, 200):
        world.example(number, label=True)
    process.kill()
    process.wait()
    world.flush()
    process = start()
    until(lambda: stored() == 200, says="200 rows in the store")
    process.terminate()
    assert process.wait(timeout=20) == 0
    manifest = read_current(tmp_path / "store" / "snapshots")
    assert {table["name"]: table["rows"] for table in manifest["tables"]}["labelled_examples"] == 200
    assert [event.snapshot for event in published(kafka_bus, namespace)] == [manifest["snapshot"]]
