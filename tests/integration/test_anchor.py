"""The champion's newer revisions against an older one of its run: the whole system on the in-process log, at rest."""

import pytest
import side

from headrace.schemas.control import ModelUpdated, ModelValidated, RunEnded, TrainingRequested

POLICIES = """
    gates=Gates(min_labels=100), rollout=Rollout(refresh_s=3, steps=(), anchor={}, anchor_s=300),
    triggers=Triggers(on_performance_drift=False),
"""


@pytest.fixture
def begun(tmp_path):
    """A life in which an anchor answers this share of the examples."""
    lives = []

    def begin(share):
        lives.append(side.Life(tmp_path, side.source(POLICIES.format(share))))
        return lives[-1]

    yield begin
    for life in lives:
        life.system.close()


def anchors(life):
    return [event for event in life.events(ModelUpdated) if event.alias == "anchor"]


def test_the_anchor_follows_revisions_that_are_as_good(begun):
    life = begun(1.0).live(1_500)
    first, second, *_ = anchors(life)
    (champion,) = [event for event in life.events(ModelUpdated) if event.alias == "champion"]
    assert (first.uri, first.follows, first.epoch) == (champion.uri, False, champion.epoch)
    assert second.run == first.run
    assert second.snapshot_offset > first.snapshot_offset
    asked, found = [v for v in life.events(ModelValidated) if v.stage == "refresh"][:2]
    assert (asked.verdict, asked.snapshot_uri) == (found.verdict, None) == ("pass", None)
    assert found.snapshot_uri == second.uri
    assert found.snapshot_offset <= asked.snapshot_offset, "what passed is at least as new as the next anchor"
    assert {check.name: check.verdict for check in asked.checks}["no worse"] == "pass"
    assert not life.events(RunEnded)


def test_only_its_share_of_the_examples_is_answered_twice(begun):
    life = begun(0.1).live(1_500)
    served = [made for made in life.predictions() if made.served]
    twice = [made for made in served if "anchor" in made.predictions]
    assert 0.05 < len(twice) / len(served) < 0.15
    assert {made.served for made in served} == {"champion"}


def test_revisions_that_a_row_broke_give_way_to_the_anchor_and_a_fork_learns_on_without_it(begun):
    """A naive Bayes that met one y of a million in the rain takes every usual y for no rain."""
    life = begun(1.0).live(600).live(1, y=1e6).live(500)
    failed = next(v for v in life.events(ModelValidated) if v.stage == "refresh" and v.verdict == "fail")
    back = next(e for e in life.events(ModelUpdated) if e.alias == "champion" and not e.follows)
    assert f"{back.run}@{back.snapshot_offset}" == failed.against
    assert "worse" in back.reason
    fork = life.events(TrainingRequested)[-1]
    assert (fork.trigger, fork.parent, fork.start) == ("rollback", back.uri, failed.offset)
    last = life.events(ModelUpdated)[-2:]
    assert [(e.alias, e.version, e.follows) for e in last] == [("champion", 2, True), ("anchor", 2, False)]
    assert life.accuracy(150) > 0.95


def test_without_a_share_there_is_no_anchor(begun):
    life = begun(0.0).live(500)
    assert not anchors(life)
    assert not any("anchor" in made.predictions for made in life.predictions())
