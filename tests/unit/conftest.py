"""A joiner on the in-process log, with stores and checkpoints on disk: what a process does, crashes, loses."""

from datetime import UTC, datetime

import pytest

from headrace.infra.bus import TopicSpec
from headrace.infra.checkpoints import Background, Checkpoints
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.records import Incoming
from headrace.infra.runtime import fold_runner
from headrace.infra.store import Store
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.stream import ExampleLabelled, LabelArrived, PredictionMade
from headrace.services import folds_of
from headrace.services.joiner import core

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
INPUT, OUTPUT = "rain.predictions", "rain.labelled-examples"
PLACE = (INPUT, 0)
FOLD = "joiner-core"
KEY = b"k" * 32


class JoinerProcess:
    """One process of the joiner: `instance` has a state folder of its own; artifacts are shared."""

    def __init__(self, bus, home, instance="i", key=KEY, checkpoint_s=3_600.0):
        self.bus, self.home, self.instance, self.key, self.now = bus, home, instance, key, 0.0
        self.checkpoint_s = checkpoint_s
        self.stores = []
        self.checkpoints = Checkpoints(str(home / "artifacts"), key, self.folder_of)
        self.runner = None

    def folder_of(self, fold=FOLD, place=PLACE):
        return self.home / "state" / self.instance / "joiner" / fold / f"{place[0]}-{place[1]}"

    def start(self):
        def open_store(fold, place):
            self.stores.append(Store.open(self.folder_of(fold, place), self.key))
            return self.stores[-1]

        self.background = Background(self.checkpoint_s, lambda: self.now)
        self.runner = fold_runner(
            folds_of("joiner"), core, self.bus, namespace="", instance=self.instance, open_store=open_store,
            checkpoints=self.checkpoints, background=self.background, commit_s=3_600.0, commit_records=10**9,
            follow_s=0.0, batch=1, clock=lambda: self.now,
        )  # fmt: skip
        self.runner.pipelines.released["rain"] = None  # released: the runner subscribes to its topics
        self.runner.tick()
        return self

    def drain(self):
        while self.runner.tick():
            pass
        return self

    def commit(self):
        self.runner.commit()
        self.background.wait()
        return self

    def crash(self):
        """kill -9: nothing is committed, the store's lock goes with the process, its session ends."""
        for store in self.stores:
            store.close()
        self.stores.clear()
        self.bus.end_session("headrace-joiner-core", f"{self.instance}-joiner-core")
        return self

    def stop(self):
        """SIGTERM."""
        self.runner.close()
        self.stores.clear()
        self.bus.end_session("headrace-joiner-core", f"{self.instance}-joiner-core")
        return self

    @property
    def worker(self):
        return self.runner.workers[PLACE]

    @property
    def state(self):
        """All that the fold knows, in a form that can be compared byte for byte."""
        fields = self.worker._fields()
        tables = {name: list(getattr(self.worker.state, name).items()) for name in core.TABLES}
        sequences = dict(sorted(self.worker._incoming.sequences.items(), key=str))
        return repr((self.worker.offset, sequences, fields, tables))

    def put(self, event, source="/predictor/rain/0/0"):
        offset = self.bus.offsets(PLACE)[1]
        headers = headers_of(TYPE_OF[type(event)], source, offset * 65_536)
        self.bus.append(INPUT, 0, event.id.encode(), encode(event), headers, 1_000 + offset)

    def predict(self, *ids):
        more = {"time": NOON, "predictions": {}, "served": None, "release": 1, "epoch": 0, "origin": (0, 0)}
        for id in ids:
            self.put(PredictionMade(id=id, features={"x": 1.0}, **more))

    def label(self, *ids):
        for id in ids:
            self.put(LabelArrived(id=id, time=NOON, label=True))

    def told(self):
        """The ids of the examples that a reader takes, and how many repeats it dropped."""
        incoming = Incoming(OUTPUT, "")
        records = [incoming.record(message) for message in self.bus.read((OUTPUT, 0), 0, 100_000)]
        kept = [r.event.prediction.id for r in records if r is not None and isinstance(r.event, ExampleLabelled)]
        return kept, incoming.repeats


@pytest.fixture
def memory_bus():
    made = MemoryBus(clock=lambda: 0)
    for topic in (INPUT, OUTPUT, "rain.data-rejected", "pipelines", INPUT + "-dlq"):
        made.create_topics([TopicSpec(topic, 1, {})])
    return made


@pytest.fixture
def joiner(memory_bus, tmp_path):
    """Make joiner processes on one log and one artifact store; those that live are crashed at the end."""
    made = []

    def make(instance="i", home=tmp_path, **more):
        made.append(JoinerProcess(memory_bus, home, instance, **more))
        return made[-1]

    yield make
    for one in made:
        one.crash()
