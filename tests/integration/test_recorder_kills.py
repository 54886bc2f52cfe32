"""Rows that the recorder acknowledged survive its kill -9; the process comes back and stops clean."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import recorded
from recorded import World, everything, long_log, published, rows

from headrace.infra.local_broker import free_port
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.query_client import QueryFailed, StoreUnreachable, ask
from headrace.services.recorder.export import read_current
from headrace.services.recorder.store import Store

NURSERY = """
import os, runpy, sys
from pathlib import Path
from headrace.infra.memory_bus import MemoryBus

store, acknowledgements, log = sys.argv[1:]
recorded = runpy.run_path(log)
world = recorded["long_log"](recorded["World"](MemoryBus()))
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
        [sys.executable, "-c", NURSERY, str(path), str(acknowledgements), recorded.__file__],
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
