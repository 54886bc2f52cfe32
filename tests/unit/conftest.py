"""A joiner and a trainer on the in-process log, with stores on disk: what a process does, crashes, loses."""

from datetime import UTC, datetime

import pytest
from joiner_input import labels, predictions

from headrace import model_bytes
from headrace.infra import create_topics, pipeline_files
from headrace.infra.artifacts import Artifacts
from headrace.infra.bus import TopicSpec
from headrace.infra.checkpoints import Background, Checkpoints
from headrace.infra.follow import Follower
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.records import Incoming
from headrace.infra.runtime import fold_runner
from headrace.infra.service import Wiring
from headrace.infra.settings import Settings
from headrace.infra.store import Store
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import ModelUpdated, PipelineReleased, RunStarted, TrainingRequested
from headrace.schemas.stream import ExampleLabelled, PredictionMade
from headrace.schemas.topics import full_name
from headrace.services import folds_of
from headrace.services.joiner import core
from headrace.services.trainer.__main__ import build

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
        for event in predictions(ids):
            self.put(event)

    def label(self, *ids):
        for event in labels(ids):
            self.put(event)

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


# --- a trainer --------------------------------------------------------------------------------------------

RAIN = """
from headrace import Contract, Gates, Pipeline, Rollout, Triggers
from river import linear_model, preprocessing

class Weather(Contract):
    \"\"\"One number.\"\"\"
    x: float

class Own(preprocessing.StandardScaler):
    \"\"\"Cannot learn large values, and notices it when it is too late.\"\"\"

    def learn_one(self, x):
        super().learn_one(x)
        if POISON and abs(x["x"]) > 30:
            raise POISON("cannot")

POISON = None

def recipe(seed):
    return Own() | linear_model.LogisticRegression()

pipeline = Pipeline(name="rain", contract=Weather, label=bool, recipe=recipe, {more})
"""


class Plant:
    """Topics, stores and a clock; the test plays the sequencer, the joiner and the crash."""

    def __init__(self, home, more="", poison="None", inline=True):
        self.home, self.now, self.inline = home, 1_000.0, inline
        self.bus = MemoryBus(clock=lambda: int(self.now * 1000))
        self.artifacts = Artifacts(str(home / "artifacts"), b"key")
        create_topics.create(self.bus)
        source = RAIN.replace("{more}", more).replace("POISON = None", f"POISON = {poison}").encode()
        (home / "rain.py").write_bytes(source)
        pipeline = pipeline_files.load_file(home / "rain.py")
        create_topics.create_pipeline(self.bus, "rain", 1, pipeline.policies())
        _, uri = self.artifacts.put_source(source)
        definition = pipeline_files.definition(pipeline, source, uri)
        self.released = PipelineReleased(
            pipeline="rain", release=1, definition=definition, partitions=1, request="r", by="ann"
        )
        self.sequenced = 0
        self.say("pipelines", self.released)
        self.say("control-log", self.released)
        self.rows = []
        self.start()

    def start(self, key=b"key"):
        def open_store(fold, place):
            return Store.open(self.home / "state" / fold / f"{place[0]}-{place[1]}", key)

        settings = Settings(home=self.home, instance="t", artifact_key=key.decode())
        wiring = Wiring(
            settings,
            self.bus,
            Artifacts(str(self.home / "artifacts"), key),
            key,
            open_store,
            timing={"commit_s": 0.0, "follow_s": 0.0, "clock": lambda: self.now},
            inline_jobs=self.inline,
            clock_ms=lambda: int(self.now * 1000),
        )
        self.lockstep, self.control = build(wiring)

    def crash(self):
        """Everything in memory is gone; nothing is committed or told."""
        for part in (self.lockstep._runner, self.control):
            for worker in part.workers.values():
                worker.close()

    def say(self, topic, event, source="/test", sequence=None):
        name = full_name(topic, "rain")
        number = self.bus.offsets((name, 0))[1] if sequence is None else sequence
        headers = headers_of(TYPE_OF[type(event)], source, number)
        self.bus.append(name, 0, b"rain", encode(event), headers, 1_000_000 + number)

    def settle(self):
        """Step to rest, copying what the trainer decides into `control-log`."""
        while True:
            while self.control.tick() + self.lockstep.tick():
                pass
            told = self.heard("training-runs")
            if len(told) == self.sequenced:
                return
            for event in told[self.sequenced :]:
                self.say("control-log", event)
            self.sequenced = len(told)

    def ask(self, request="q", end_at=None, start=0, **more):
        """Ask for a run and let it begin; returns its name."""
        self.say(
            "control-log",
            TrainingRequested(
                pipeline="rain",
                request=request,
                trigger="first_model",
                cause="",
                seed=0,
                start=start,
                end_at_labels=end_at,
                **({"release": 1} | more),
            ),
        )
        self.settle()
        started = [event for event in self.heard("training-runs") if isinstance(event, RunStarted)]
        return started[-1].run

    def alias(self, alias, run, version=1, **more):
        """What the registry writes."""
        fields = {"release": 1, "snapshot_offset": 0, "uri": "none", "follows": True, "epoch": version, "reason": ""}
        moved = ModelUpdated(pipeline="rain", alias=alias, version=version, run=run, **(fields | more))
        self.say("control-log", moved)
        self.settle()

    def label(self, n=1, x=None):
        """What the joiner writes; the test steps afterwards."""
        for _ in range(n):
            number = len(self.rows)
            value = x if x is not None else (number * 7 % 5) / 2
            row = ({"x": value}, value > 1)
            made = PredictionMade(
                id=str(number),
                time=NOON,
                features=row[0],
                predictions={},
                served=None,
                release=1,
                epoch=0,
                origin=(0, number),
            )
            event = ExampleLabelled(
                prediction=made,
                label=row[1],
                predicted_at_ms=0,
                labelled_at_ms=0,
                partition=0,
                number=number,
                pending_from=0,
                known_to=0,
            )
            self.say("<p>.labelled-examples", event, "/joiner/rain/x/0", number)
            self.rows.append(row)

    def learned(self, n=1, x=None):
        self.label(n, x)
        self.settle()

    def repeat(self, number):
        """The joiner tells one row again, as after a crash."""
        log = self.bus.read(("rain.labelled-examples", 0), 0, 1_000)
        again = next(m for m in log if int(m.headers()[4][1]) == number)
        self.bus.append("rain.labelled-examples", 0, b"rain", again.value(), again.headers(), again.timestamp()[1])

    def heard(self, topic):
        """The events of a topic, without repeats."""
        follower = Follower(self.bus, topics=[full_name(topic, "rain")])
        return [record.event for record in follower.read_to_end()]

    def records(self, topic):
        follower = Follower(self.bus, topics=[full_name(topic, "rain")])
        return follower.read_to_end()

    def snapshots(self):
        return self.heard("<p>.snapshots")

    def newest(self, run=None):
        """The model and manifest of the newest snapshot, which holds one run unless it is named."""
        runs = self.snapshots()[-1].runs
        (name,) = [run] if run is not None else runs
        data, manifest = self.artifacts.get(runs[name].uri)
        return model_bytes.loads(data), manifest

    def plain(self, rows=None):
        """The digest of River's own loop over the rows."""
        model = pipeline_files.load_file(self.home / "rain.py").recipe(0)
        for x, y in self.rows if rows is None else rows:
            model.predict_proba_one(x)
            model.learn_one(x, y)
        return model_bytes.digest(model)

    def digest(self, run=None):
        """The digest of the run as it stands, saved by a clean stop."""
        self.lockstep.close()
        return model_bytes.digest(self.newest(run)[0])

    def counts(self):
        return next(iter(self.lockstep.counts().values()))

    def counts_or_none(self):
        return next(iter(self.lockstep.counts().values()), None)


@pytest.fixture
def trainer_plant():
    """Make a trainer with its topics, stores and a clock: `trainer_plant(home, more="", poison="None")`.

    `inline=False` lets runs catch up in processes.
    """
    return Plant
