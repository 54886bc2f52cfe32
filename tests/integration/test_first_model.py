"""The control plane on the in-process log: from a release and labelled examples to version 1, or to a reason."""

import contextlib
import os
import random
import time
from datetime import UTC, datetime

import pytest
from river import linear_model, preprocessing

from headrace import model_bytes
from headrace.infra import create_topics, pipeline_files
from headrace.infra.artifacts import Artifacts, Manifest
from headrace.infra.bus import BusError
from headrace.infra.follow import Follower
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.service import Wiring
from headrace.infra.settings import Settings
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import (
    ModelUpdated,
    ModelValidated,
    ReleaseAsked,
    RunSnapshot,
    RunStarted,
    SnapshotTaken,
    TrainingCompleted,
    TrainingRequested,
)
from headrace.schemas.stream import Baselines, ExampleLabelled, PredictionMade
from headrace.schemas.topics import full_name
from headrace.services.evaluator import jobs as evaluator_jobs
from headrace.services.evaluator.__main__ import build as build_evaluator
from headrace.services.orchestrator.__main__ import build as build_orchestrator
from headrace.services.registry.__main__ import build as build_registry
from headrace.services.sequencer.__main__ import build as build_sequencer

KEY = b"test"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOURCE = '''
from headrace import Contract, Gates, Pipeline, Success, Triggers
from river import linear_model, preprocessing

class Weather(Contract):
    """One number that tells the label."""
    x: float

{helper}

def recipe(seed):
    {recipe}

success = Success("accuracy", at_least=0.6)
pipeline = Pipeline(name="rain", contract=Weather, label=bool, recipe=recipe, success=success, {more})
'''
GOOD = "return preprocessing.StandardScaler() | linear_model.LogisticRegression()"


class Plant:
    """All control services on one in-process log; the test plays the user, the joiner and the trainer."""

    def __init__(self, home, recipe=GOOD, more="", helper="", inline=True, bus=None, **settings):
        self.bus = bus or MemoryBus(clock=lambda: 1_000)
        self.settings = Settings(home=home, instance="t", artifact_key=KEY.decode(), **settings)
        self.namespace = self.settings.namespace
        self.artifacts = Artifacts(self.settings.artifact_url, KEY)
        create_topics.create(self.bus, self.namespace)
        self.wait_until(self.has_leaders)
        self.wiring = Wiring(
            self.settings,
            self.bus,
            self.artifacts,
            KEY,
            lambda fold, place: None,
            timing={"commit_s": 0.0, "follow_s": 0.0},
            inline_jobs=inline,
        )
        self.parts = self.start()
        self.producer = self.bus.producer("test")
        file = home / "rain.py"
        file.write_text(SOURCE.format(recipe=recipe, more=more, helper=helper))
        pipeline = pipeline_files.load_file(file)
        create_topics.create_pipeline(self.bus, "rain", 1, pipeline.policies(), self.namespace)
        self.wait_until(self.has_leaders)
        _, uri = self.artifacts.put_source(file.read_bytes())
        definition = pipeline_files.definition(pipeline, file.read_bytes(), uri)
        topic_id = self.bus.topic_id(f"{self.namespace}rain.data-arrived")
        asked = ReleaseAsked(pipeline="rain", request="q", by="ann", definition=definition, topic_id=topic_id)
        self.say("operator-requests", asked)
        (request,) = self.wait_for("training-requests", TrainingRequested)
        self.request = request.request
        run = RunStarted(pipeline="rain", run="a", request=self.request, release=1, seed=request.seed, start_offset=0)
        self.say("training-runs", run)
        self.wait_for("control-log", RunStarted)

    def has_leaders(self):
        with contextlib.suppress(BusError):
            return [self.bus.offsets((t, 0)) for t in self.bus.topics() if t.startswith(self.namespace)]

    def wait_until(self, condition, limit_s=60.0):
        deadline = time.monotonic() + limit_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{condition} did not come true within {limit_s:g} s"
            time.sleep(0.01)
        return found

    def start(self):
        builds = (build_sequencer, build_orchestrator, build_registry, build_evaluator)
        return [part for build in builds for part in build(self.wiring)]

    def say(self, topic, event, source="/test", sequence=None):
        topic = full_name(topic, "rain", self.namespace)
        if sequence is None:
            sequence = self.bus.offsets((topic, 0))[1]
        headers = headers_of(TYPE_OF[type(event)], source, sequence)
        self.producer.produce(topic, 0, b"rain", encode(event), headers, 1_000)
        self.producer.flush()

    def settle(self):
        while sum(part.tick() for part in self.parts):
            pass

    def wait_for(self, topic, kind):
        """Step until an event of this kind is heard."""

        def found():
            self.settle()
            return [event for event in self.heard(topic) if isinstance(event, kind)]

        return self.wait_until(found)

    def heard(self, topic):
        follower = Follower(self.bus, self.namespace, [full_name(topic, "rain", self.namespace)])
        heard = [record.event for record in follower.read_to_end()]
        follower.close()
        return heard

    def label(self, n, signal=True, delay=0):
        """The joiner's output for n examples whose labels come `delay` examples later."""
        rng = random.Random(1)
        last = None
        for number in range(n):
            x = rng.gauss(0, 1)
            label = (x > 0) if signal else rng.random() < 0.5
            prediction = PredictionMade(
                id=str(number),
                time=NOON,
                features={"x": x},
                predictions={},
                served=None,
                release=1,
                epoch=0,
                origin=(0, number),
                baselines=Baselines(majority=True, last=last),
                cold=True,
            )
            self.say(
                "<p>.labelled-examples",
                ExampleLabelled(
                    prediction=prediction,
                    label=label,
                    predicted_at_ms=0,
                    labelled_at_ms=0,
                    partition=0,
                    number=number,
                    pending_from=number + 1,
                    known_to=number - 1 - delay,
                ),
                "/joiner/rain/x/0",
            )
            last = label

    def complete(self, n):
        self.say(
            "training-completed",
            TrainingCompleted(
                pipeline="rain", run="a", request=self.request, release=1, n_labels=n, start_offset=0, end_offset=n
            ),
            "/trainer/rain/a",
        )

    def snapshot(self, offset, fit=True, model=None):
        model = model or preprocessing.StandardScaler() | linear_model.LogisticRegression()
        uri = self.artifacts.put(model_bytes.dumps(model), Manifest(kind="model", offset=offset))
        run = RunSnapshot(uri=uri, digest="d", n_learned=offset, fit=fit)
        self.say("<p>.snapshots", SnapshotTaken(pipeline="rain", offset=offset, runs={"a": run}))
        return uri

    def verdicts(self):
        return {(e.stage, e.n_labels): e for e in self.heard("model-validations") if isinstance(e, ModelValidated)}


def test_a_good_first_model_becomes_version_1(tmp_path):
    plant = Plant(tmp_path)
    plant.label(200)
    plant.complete(200)
    plant.settle()
    assert plant.heard("model-updates") == []  # no snapshot yet: infra waits
    uri = plant.snapshot(200)
    plant.settle()
    (updated,) = plant.heard("model-updates")
    assert isinstance(updated, ModelUpdated)
    assert (updated.version, updated.run, updated.uri, updated.snapshot_offset) == (1, "a", uri, 200)
    assert (updated.follows, updated.forced_by) == (True, None)
    verdicts = plant.verdicts()
    offline = {check.name: check for check in verdicts["offline", 200].checks}
    assert offline["accuracy"].n == 100
    assert offline["accuracy"].value > 0.9
    assert verdicts["infra", 200].seconds is not None
    assert verdicts["infra", 200].peak_mb > 1


def test_noise_fails_with_its_numbers_and_is_judged_again_at_twice_the_labels(tmp_path):
    plant = Plant(tmp_path)
    plant.label(400, signal=False)
    plant.complete(200)
    plant.settle()
    plant.complete(400)
    plant.snapshot(400)
    plant.settle()
    verdicts = plant.verdicts()
    assert {(key, v.verdict) for key, v in verdicts.items()} == {(("offline", 200), "fail"), (("offline", 400), "fail")}
    failed = [check for check in verdicts["offline", 400].checks if check.verdict == "fail"]
    assert all(check.value is not None and check.limit is not None for check in failed)
    assert plant.heard("model-updates") == []


def test_a_snapshot_from_before_the_end_or_unfit_does_not_serve(tmp_path):
    plant = Plant(tmp_path)
    plant.label(200)
    plant.snapshot(199)
    plant.snapshot(200, fit=False)
    plant.complete(200)
    plant.settle()
    assert set(plant.verdicts()) == {("offline", 200)}
    uri = plant.snapshot(200)
    plant.settle()
    assert plant.heard("model-updates")[0].uri == uri


def test_a_snapshot_whose_bytes_were_changed_is_refused(tmp_path):
    plant = Plant(tmp_path)
    plant.label(200)
    uri = plant.snapshot(200)
    (tmp_path / "artifacts" / uri).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    plant.complete(200)
    plant.settle()
    verdict = plant.verdicts()["infra", 200]
    assert verdict.verdict == "error"
    assert "ArtifactTampered" in verdict.checks[0].detail


def test_the_first_gate_switched_off_is_recorded_as_forced(tmp_path):
    plant = Plant(tmp_path, more='gates=Gates(first="off")')
    plant.label(20, signal=False)
    plant.complete(10)
    plant.snapshot(10)
    plant.settle()
    (updated,) = plant.heard("model-updates")
    assert updated.forced_by == "gates.first=off in release 1"


def test_a_first_model_at_no_labels_serves_before_the_first_example(tmp_path):
    plant = Plant(tmp_path, more='gates=Gates(first="off"), triggers=Triggers(first_model_at=0)')
    plant.complete(0)
    uri = plant.snapshot(0)
    plant.settle()
    (updated,) = plant.heard("model-updates")
    assert (updated.uri, updated.snapshot_offset) == (uri, 0)


def test_a_frozen_pipeline_serves_the_bytes_that_were_scored(tmp_path):
    plant = Plant(tmp_path, more='learning="frozen"')
    plant.label(200)
    plant.complete(200)
    plant.settle()
    (updated,) = plant.heard("model-updates")
    assert (updated.snapshot_offset, updated.follows) == (100, False)
    data, manifest = plant.artifacts.get(updated.uri)
    assert (manifest.learned, manifest.n_learned, manifest.run) == (((0, 100),), 100, "a")
    assert model_bytes.digest(model_bytes.loads(data)) == manifest.structural_digest


def test_a_frozen_model_is_judged_only_by_rows_predicted_after_it_was_frozen(tmp_path):
    plant = Plant(tmp_path, more='learning="frozen"')
    plant.label(200, delay=30)
    plant.complete(200)
    plant.settle()
    assert {check.n for check in plant.verdicts()["offline", 200].checks} == {70}


def test_a_recipe_that_raises_late_is_an_error_and_no_crash(tmp_path):
    fragile = """class Fragile(linear_model.LogisticRegression):
    def learn_one(self, x, y):
        self.learned = getattr(self, "learned", 0) + 1
        if self.learned > 350:
            raise RuntimeError("enough")
        super().learn_one(x, y)"""
    plant = Plant(tmp_path, helper=fragile, recipe="return Fragile()")
    plant.label(400)
    plant.complete(400)
    plant.settle()
    verdict = plant.verdicts()["offline", 400]
    assert verdict.verdict == "error"
    assert "RuntimeError: enough" in verdict.checks[0].detail


# --- the jobs' processes ----------------------------------------------------------------------------------


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Jobs run in forked children, which read the in-process log as it stood when they were forked."""
    made = Plant(tmp_path, inline=False)
    monkeypatch.setattr(evaluator_jobs, "_bus", lambda settings: made.bus)
    yield made
    for part in made.parts:
        part.close()


def children(plant):
    (jobs,) = [part for part in plant.parts if isinstance(part, evaluator_jobs.Jobs)]
    return jobs._children


def test_in_child_processes_the_same_model_becomes_version_1(plant):
    plant.label(200)
    plant.complete(200)
    uri = plant.snapshot(200)
    (updated,) = plant.wait_for("model-updates", ModelUpdated)
    assert updated.uri == uri
    checks = {check.name: check for check in plant.verdicts()["infra", 200].checks}
    assert all(
        check.verdict == "pass" and check.detail in ("", "finite answers to recent inputs") for check in checks.values()
    )


def test_a_child_that_is_killed_is_started_again(plant):
    plant.label(200)
    plant.complete(200)
    while not children(plant):
        plant.settle()
    (one,) = children(plant).values()
    os.kill(one.child.process.pid, 9)
    (verdict,) = plant.wait_for("model-validations", ModelValidated)
    assert verdict.verdict == "pass"


def test_a_child_that_never_answers_ends_in_an_error(plant, monkeypatch):
    monkeypatch.setattr(evaluator_jobs, "judge", lambda *given, **more: time.sleep(60))
    monkeypatch.setitem(evaluator_jobs.LIMIT_S, "offline", 0.2)
    plant.label(200)
    plant.complete(200)
    (verdict,) = plant.wait_for("model-validations", ModelValidated)
    assert (verdict.verdict, verdict.checks[0].detail) == ("error", "no verdict within 0.2 s")
    assert not children(plant)


def test_a_child_that_dies_each_time_ends_in_an_error(plant, monkeypatch):
    monkeypatch.setattr(evaluator_jobs, "judge", lambda *given, **more: os._exit(7))
    plant.label(200)
    plant.complete(200)
    (verdict,) = plant.wait_for("model-validations", ModelValidated)
    assert verdict.verdict == "error"
    assert "exit code 7" in verdict.checks[0].detail


def test_after_a_crash_the_open_job_starts_again_and_its_verdict_counts_once(tmp_path):
    plant = Plant(tmp_path)
    plant.label(200)
    plant.complete(200)
    plant.snapshot(200)
    plant.settle()
    plant.wiring.timing["batch"] = 1  # the old job is open for a moment, until the fold has read its verdict
    plant.parts = plant.start()  # everything lost but the log; what was told is told again
    plant.settle()
    assert len(plant.heard("model-updates")) == 1
    assert set(plant.verdicts()) == {("offline", 200), ("infra", 200)}
    (jobs,) = [part for part in plant.parts if isinstance(part, evaluator_jobs.Jobs)]
    assert jobs.verdicts == 0  # a job that the log closed is not even started


@pytest.mark.kafka
def test_on_genuine_kafka_children_with_clients_of_their_own_judge(tmp_path, kafka, kafka_bus, namespace):
    plant = Plant(tmp_path, inline=False, bus=kafka_bus, namespace=namespace, bootstrap_servers=kafka)
    plant.label(200)
    plant.complete(200)
    uri = plant.snapshot(200)
    (updated,) = plant.wait_for("model-updates", ModelUpdated)
    assert (updated.version, updated.uri) == (1, uri)
    assert {verdict.verdict for verdict in plant.verdicts().values()} == {"pass"}
    for part in plant.parts:
        part.close()
