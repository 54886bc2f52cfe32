"""A person asks for a training that begins with a version's model: given these decisions, then it is one or not."""

import pytest
from orchestrated import Told, asked

from headrace.schemas.control import RangeBarred, RequestRefused, RunEnded, TrainingRequested


@pytest.fixture
def told():
    """The first model serves; what made it learns on."""
    told = Told(challengers=())
    told.win(1)
    return told


def fork(told, **changes):
    """A person asks for a run that begins with the first version's model."""
    run = next(iter(told.state.pipelines["rain"].live), None)
    named = {"version": 1, "parent": "model/1", "parent_run": run, "parent_offset": 200, "start": 200}
    (answer,) = told(asked(None, **named | changes))
    return answer


def test_a_fork_begins_with_the_model_that_a_person_named(told):
    run = next(iter(told.state.pipelines["rain"].live))
    told(RunEnded(pipeline="rain", run=run, reason="another serves"))
    requested = fork(told, parent_run=run)
    assert (requested.trigger, requested.parent, requested.start) == ("person", "model/1", 200)


def test_a_fork_of_a_run_that_lives_would_be_that_run(told):
    refusal = fork(told)
    assert isinstance(refusal, RequestRefused)
    assert "goes on from the model of version 1 already" in refusal.reason
    assert (refusal.numbers["seed"], refusal.numbers["start"]) == (0, 200)


def test_one_that_starts_later_or_leaves_out_what_that_run_learned_is_another(told):
    later = fork(told, start=201, request="later")
    assert (type(later), later.parent, later.start) == (TrainingRequested, "model/1", 201)
    told.lose()
    told(RangeBarred(pipeline="rain", request="b", start_offset=300, end_offset=400))
    without = fork(told, request="without")
    assert (without.start, without.excluded) == (200, ((300, 400),))


def test_a_fork_cannot_start_before_the_end_of_what_its_parent_learned(told):
    assert "it would learn twice" in fork(told, start=199).reason
