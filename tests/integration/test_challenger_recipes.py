"""A pipeline with other recipes in its file: the whole system on the in-process log, stepped to rest.

The label needs two columns and the pipeline's own recipe reads one. Of its challengers one reads the wrong column and
one reads both: nobody asks for a training, and the one that is better serves in the end.
"""

import re

import pytest
import side

from headrace.cli import facts, models
from headrace.reproduce import log as reproduce_log
from headrace.reproduce import model as again
from headrace.reproduce.decisions import replay
from headrace.schemas.control import ModelUpdated, ModelValidated, RunEnded, RunStarted, TrainingRequested
from headrace.why import chain, words

POLICIES = """
    challengers=[Challenger("wrong", recipe, columns=("y",)), Challenger("both", recipe, columns=("x", "y"))],
    gates=Gates(guard_labels=300, max_labels=600), rollout=Rollout(refresh_s=3, steps=()),
    triggers=Triggers(cooldown_s=0),
"""
RECIPE = """def recipe(seed, columns=("x",)):
    return compose.Select(*columns) | naive_bayes.GaussianNB()
"""
SOURCE = side.source(POLICIES, recipes=RECIPE)


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """Two thousand rows."""
    life = side.TwoColumns(tmp_path_factory.mktemp("tried"), SOURCE).live(2_000)
    yield life
    life.system.close()


def test_every_recipe_is_tried_and_the_better_one_serves(tried):
    asked = tried.events(TrainingRequested)
    assert [(one.trigger, one.recipe) for one in asked] == [
        ("first_model", None),
        ("recipe", "wrong"),
        ("recipe", "both"),
    ]
    started = {one.recipe: one.run for one in tried.events(RunStarted)}
    champions = [one.run for one in tried.events(ModelUpdated) if one.alias == "champion"]
    assert champions == [started[None], started["both"]]
    ended = {one.run: one.reason for one in tried.events(RunEnded)}
    assert "it came to no verdict online over 600 labels" in ended[started["wrong"]]
    judged = [(v.stage, v.verdict) for v in tried.events(ModelValidated) if v.run == started["both"]]
    assert judged == [(stage, "pass") for stage in ("offline", "infra", "online", "guard")]


def test_the_offline_gate_folds_a_challenger_by_its_own_recipe(tried):
    run = next(one.run for one in tried.events(RunStarted) if one.recipe == "both")
    (offline,) = [v for v in tried.events(ModelValidated) if v.run == run and v.stage == "offline"]
    detail = offline.checks[-1].detail
    mine, theirs = (float(number) for number in re.findall(r"0\.\d+", detail))
    assert mine < theirs / 2, detail


def test_the_recipe_s_name_stands_where_runs_and_models_are_shown(tried):
    found = facts.fold(tried.system.records("control-log"))
    assert [(run.recipe, run.state) for run in found["side"].runs.values()] == [
        ("own", "ended"),
        ("wrong", "ended"),
        ("both", "live"),
    ]
    assert [(one["version"], one["recipe"]) for one in models.versions(found)] == [
        (1, "own"),
        (2, "wrong"),
        (3, "both"),
    ]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_challenger_s_model_is_folded_again_by_its_own_recipe(tried, version):
    found = reproduce_log.find(f"side@{version}", tried.system.bus)
    done = again.reproduce(found, tried.system.bus, tried.system.artifacts)
    assert (done.outcome, done.evidence) == ("equal", "structural digest")


def test_every_decision_and_gate_is_made_again_from_the_log(tried):
    replayed = replay("side", tried.system.bus, tried.system.artifacts, tried.system.key)
    assert replayed.is_equal
    assert [gate.outcome for gate in replayed.gates] == ["equal"] * 3


def test_why_names_the_recipe_and_leads_to_the_release_that_brought_it(tried):
    story = chain.story(chain.Log.of(tried.system.records("control-log")), "side@champion")
    told = "\n".join(words.lines(story))
    assert "for another recipe: release 1 brought the recipe both" in told
    assert "release 1, recipe both, seed 0" in told
