"""What a person asks with `headrace train`: from where on, with whose model, and what comes of it."""

import json

import commands
import pytest
import side

from headrace.infra import pipeline_files
from headrace.reproduce import log as reproduce_log
from headrace.reproduce import model as again
from headrace.schemas.control import ModelUpdated, ModelValidated, RunEnded, RunStarted, TrainingRequested

POLICIES = """
    gates=Gates(guard_labels=300, max_labels=600), rollout=Rollout(refresh_s=3, steps=()),
    triggers=Triggers(on_performance_drift=False),
"""


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """A rule that turned round after 600 rows, found by no alert."""
    life = side.Life(tmp_path_factory.mktemp("life"), side.source(POLICIES)).live(600).live(400, turned=True)
    yield life
    life.system.close()


@pytest.fixture
def run(life, monkeypatch):
    """The command line over that life."""
    return commands.over(life.system, monkeypatch)


def train(run, *arguments):
    """A training that is asked for, as it was requested."""
    done = run("train", "side", *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def refused(run, *arguments, status=2):
    """Why a training is not to be had."""
    done = run("train", "side", *arguments)
    assert done.exit_code == status, done.stdout
    return done.stderr


def labels_from(life, offset):
    """How many labelled examples stand from an offset on."""
    from headrace.cli.offsets import labelled

    return len(list(labelled("side", life.system.bus, start=offset)))


@pytest.mark.parametrize(
    ("arguments", "labels"), [((), 500), (("--last", "150"), 150), (("--since", "2026-01-01T00:11:41Z"), 300)]
)
def test_a_training_begins_where_a_person_says_in_labels_or_time_and_else_at_their_newer_half(
    life, run, arguments, labels
):
    assert labels_from(life, train(run, *arguments)["start"]) == labels


def test_one_window_of_labels_is_learned_where_two_are_there(life):
    from headrace.cli import offsets

    start = offsets.of_a_window("side", 200, life.system.bus)
    assert labels_from(life, start) == 200


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--last", "5000"), "there are 1,000 labelled examples of side, not 5,000"),
        (("--start", "5000"), "--start 5,000 is beyond the end of side.labelled-examples"),
        (("--start", "first"), "or earliest; not 'first'"),
        (("--last", "5", "--start", "earliest"), "begins at one place"),
        (("--from", "1", "--seed", "3"), "a seed says how a model begins"),
        (("--from", "1", "--start", "5"), "it would learn twice"),
    ],
)
def test_what_cannot_be_is_said_at_once(run, arguments, why):
    assert why in refused(run, *arguments)


def test_a_time_without_examples_and_a_version_that_is_not_there_are_missing(run):
    assert "no labelled example of side came since 2027" in refused(run, "--since", "2027-01-01", status=1)
    assert "side has no version 7" in refused(run, "--from", "7", status=1)


def test_the_whole_log_again_would_be_the_champion_and_so_would_a_fork_of_it_from_where_it_stands(run):
    assert "the same model bit for bit" in refused(run, "--start", "earliest", status=3)
    assert "goes on from the model of version 1 already" in refused(run, "--from", "1", status=3)


def test_a_fork_of_an_older_version_is_judged_takes_over_and_is_folded_again(tmp_path, monkeypatch):
    """The rule turns round, and back: who knew it before, and learned nothing meanwhile, is right at once."""
    life = side.Life(tmp_path, side.source(POLICIES)).live(400).live(300, turned=True)
    run = commands.over(life.system, monkeypatch)
    train(run, "--last", "290")
    life.live(700, turned=True)
    assert life.moves()[-1] == ("previous", ""), "version 2 stood its guard, and the run of version 1 ended"
    life.live(60)
    asked = train(run, "--from", "1", "--last", "50", "--reason", "the rule is back")
    first = next(event for event in life.events(ModelUpdated) if event.version == 1)
    assert (asked["parent"], asked["trigger"], asked["recipe"]) == (first.uri, "person", None)
    life.live(500)
    fork = life.events(RunStarted)[-1]
    assert (fork.parent, fork.start_offset) == (first.uri, asked["start"])
    stages = [(one.stage, one.verdict) for one in life.events(ModelValidated) if one.run == fork.run]
    assert stages[:3] == [("offline", "pass"), ("infra", "pass"), ("online", "pass")]
    offline = next(one for one in life.events(ModelValidated) if one.run == fork.run)
    (beside,) = [check.detail for check in offline.checks if check.name == "not worse"]
    ours, champions = (float(part.split()[-1]) for part in beside.split(",")[:2])
    assert champions > ours + 0.5, "what serves, by the other rule; not the version that it begins with"
    assert ("champion", 3) in life.moves()
    assert life.accuracy(100) > 0.9
    for version in (1, 2, 3):
        roots = reproduce_log.find(f"side@{version}", life.system.bus)
        assert again.reproduce(roots, life.system.bus, life.system.artifacts).outcome == "equal"
    history = json.loads(run("models", "side", "--history", "--json").stdout)
    assert [(one["alias"], one["to_version"] or "") for one in history] == life.moves()
    champions = [(one["from_version"], one["to_version"]) for one in history if one["alias"] == "champion"]
    assert champions == [(None, 1), (1, 2), (2, 3)]
    (gone,) = [one for one in history if one["alias"] == "previous" and one["from_version"] == 1]
    assert (gone["to_version"], "stood the guard" in gone["reason"]) == (None, True)
    assert "rule is back" in run("why", history[-1]["place"]).stdout
    shown = run("models", "--history", "--at", history[0]["at"]).stdout.splitlines()
    assert [line.split()[3:7] for line in shown[1:2]] == [["champion", "none", "→", "1"]]
    assert len(shown) == 3, "a heading, what was decided by then, and how to look closer"
    told = run("why", "side@3").stdout
    assert f"asked to train side from offset {asked['start']:,}, beginning with the model of version 1" in told
    life.system.close()


def test_a_fork_that_is_no_better_ends_and_the_champion_stays(tmp_path, monkeypatch):
    life = side.Life(tmp_path, side.source(POLICIES)).live(500)
    train(commands.over(life.system, monkeypatch), "--from", "1", "--last", "50")
    life.live(900)
    assert life.moves() == [("champion", 1), ("challenger", 2), ("challenger", "")]
    assert [event.run for event in life.events(RunEnded)] == [life.events(RunStarted)[-1].run]
    life.system.close()


def test_a_version_by_another_recipe_and_one_whose_snapshot_is_lost_are_refused(tmp_path, monkeypatch):
    life = side.Life(tmp_path, side.source(POLICIES)).live(250)
    run = commands.over(life.system, monkeypatch)
    other = side.source(POLICIES).replace(b"GaussianNB()", b"BernoulliNB()")
    (tmp_path / "side.py").write_bytes(other)
    pipeline = pipeline_files.load_file(tmp_path / "side.py")
    _, uri = life.system.artifacts.put_source(other)
    life.system.release(pipeline, pipeline_files.definition(pipeline, other, uri))
    before = life.events(TrainingRequested)
    assert "whose recipe is another than that of release 2" in refused(run, "--from", "1")
    life.system.artifacts.delete(next(event.uri for event in life.events(ModelUpdated)))
    assert "no artifact" in refused(run, "--from", "1", status=3).lower()
    assert life.events(TrainingRequested) == before, "nothing gave way to a training that could not begin"
    life.system.close()
