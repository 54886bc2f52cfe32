"""`learning="frozen"`: a version learns nothing once it serves, so its successor must have learned enough before."""

import json

import commands
import pytest
import side

from headrace.reproduce import log as reproduce_log
from headrace.reproduce import model as again
from headrace.schemas.control import DriftDetected, ModelUpdated, ModelValidated, TrainingRequested

POLICIES = """
    gates=Gates(guard_labels=400, max_labels=600), rollout=Rollout(refresh_s=3, steps=()), learning="frozen",
"""


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """A rule that turned round after 600 rows, under versions that never learn again."""
    life = side.Life(tmp_path_factory.mktemp("frozen"), side.source(POLICIES)).live(600).live(1_000, turned=True)
    yield life
    life.system.close()


def reproduced(life, version):
    """A version folded again from the log: the outcome, by what, and from how many examples."""
    roots = reproduce_log.find(f"side@{version}", life.system.bus)
    done = again.reproduce(roots, life.system.bus, life.system.artifacts)
    return done.outcome, done.evidence, done.n_learned


def test_after_an_alert_a_frozen_challenger_has_learned_as_much_as_a_first_model(life):
    alert = life.events(DriftDetected)[0]
    assert alert.evidence["rows_since"] < 100
    _, second = life.events(TrainingRequested)
    assert (second.trigger, second.start, second.end_at_labels) == ("performance", alert.since, 200)
    assert [reproduced(life, version) for version in (1, 2)] == [("equal", "structural digest", 100)] * 2


def test_it_takes_over_stands_its_guard_and_answers_well(life):
    assert life.moves() == [
        ("champion", 1), ("challenger", 2), ("previous", 1), ("champion", 2), ("challenger", ""), ("previous", ""),
    ]  # fmt: skip
    stages = [(one.stage, one.verdict) for one in life.events(ModelValidated)]
    assert stages == [(s, "pass") for s in ("offline", "infra", "offline", "infra", "online", "guard")]
    assert not any(event.follows for event in life.events(ModelUpdated))
    assert life.accuracy(300) > 0.93


def test_a_person_lets_a_frozen_version_learn_on_from_its_snapshot_as_another_version(life, monkeypatch):
    """The last test of this life."""
    run = commands.over(life.system, monkeypatch)
    asked = json.loads(run("train", "side", "--from", "2", "--json").stdout)
    second = next(event for event in life.events(ModelUpdated) if event.version == 2)
    assert (asked["parent"], asked["start"]) == (second.uri, second.snapshot_offset)
    life.live(60, turned=True)
    assert life.moves()[-1] == ("challenger", 3)
    outcome, evidence, learned = reproduced(life, 3)
    assert (outcome, evidence) == ("equal", "structural digest")
    assert learned > 300, "half of what came since version 2 was frozen"
