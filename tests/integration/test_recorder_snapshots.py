"""Snapshots of the store: whole, of one moment, announced, with their lineage; one cut short is never seen."""

import hashlib
import subprocess
import sys

import duckdb
from recorded import World, published, rows

from headrace.infra.follow import Follower
from headrace.infra.memory_bus import MemoryBus
from headrace.schemas.topics import full_name
from headrace.services.recorder import export
from headrace.services.recorder.export import Exporter, read_current, thin
from headrace.services.recorder.recorder import Recorder
from headrace.services.recorder.store import Store


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
