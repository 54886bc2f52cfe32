"""From a fall in performance to a new champion, and back: the whole system on the in-process log, stepped to rest.

The label says on which side of zero a number lies; when the rule turns round, a naive Bayes that remembers everything
is wrong for long, one that began at the change is right at once.
"""

import pytest
import side

from headrace.reproduce import log as reproduce_log
from headrace.reproduce import model as again
from headrace.schemas.control import (
    DriftDetected,
    ModelUpdated,
    ModelValidated,
    PromotionAsked,
    RequestRefused,
    RollbackAsked,
    RunEnded,
    SnapshotTaken,
    TrainingAsked,
    TrainingRequested,
)
from headrace.why import chain, words

POLICIES = """
    gates=Gates(guard_labels=400, max_labels=600), rollout=Rollout(refresh_s=3, steps=()),
    triggers=Triggers(on_performance_drift={}), slices=[Slice("y", edges=(0.5,))],
"""


class Life(side.Life):
    """Its stream, whose rule may turn round."""

    def __init__(self, home, *, on_alert=True):
        super().__init__(home, side.source(POLICIES.format(on_alert)))


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """A rule that turned round after 1,500 rows, and 1,300 rows under the new one."""
    life = Life(tmp_path_factory.mktemp("turned")).live(1_500).live(1_300, turned=True)
    yield life
    life.system.close()


def test_a_rule_that_turned_round_makes_a_new_champion_out_of_what_came_since(turned):
    assert turned.moves() == [
        ("champion", 1),
        ("challenger", 2),
        ("previous", 1),
        ("champion", 2),
        ("challenger", ""),
        ("previous", ""),
    ]
    (alert, *_) = turned.events(DriftDetected)
    _, asked = turned.events(TrainingRequested)
    assert (asked.trigger, asked.start, asked.alpha) == ("performance", alert.since, 0.05)
    turn = 1_500 * 1_000  # ms
    assert abs(alert.since_ms - turned.begin.timestamp() * 1000 - turn) < 30_000
    stages = [(v.stage, v.verdict) for v in turned.events(ModelValidated)]
    (offline,) = [v for v in turned.events(ModelValidated) if v.stage == "offline" and v.against is not None]
    told = [check for check in offline.checks if check.name.partition("=")[0].endswith(" y")]
    assert {check.verdict for check in told} == {"pass"}, "its slices, and those of too few rows"
    assert stages == [(s, "pass") for s in ("offline", "infra", "offline", "infra", "online", "guard")]
    assert turned.accuracy(500) > 0.97


def test_the_old_run_ends_when_its_successor_stood_the_guard(turned):
    (ended,) = turned.events(RunEnded)
    first, _ = (event for event in turned.events(ModelUpdated) if event.alias == "champion")
    assert ended.run == first.run
    assert "stood the guard" in ended.reason


def test_all_runs_are_in_each_snapshot_and_arms_answer_from_one_offset(turned):
    taken = [r.event for r in turned.system.records("<p>.snapshots", "side") if isinstance(r.event, SnapshotTaken)]
    assert {len(event.runs) for event in taken} == {1, 2}
    both = [event for event in turned.predictions() if len(event.predictions) == 2]
    assert len(both) > 500
    assert all(len({arm.learned_to for arm in event.predictions.values()}) == 1 for event in both)


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_are_folded_again_from_the_log(turned, version):
    found = reproduce_log.find(f"side@{version}", turned.system.bus)
    done = again.reproduce(found, turned.system.bus, turned.system.artifacts)
    assert (done.outcome, done.evidence) == ("equal", "structural digest")


def test_why_leads_from_the_champion_back_to_the_alert_and_the_first_release(turned):
    log = chain.Log.of(turned.system.records("control-log"))
    story = chain.story(log, "side@champion")
    told = [type(link.event).__name__ for link in story]
    for name in (
        "ReleaseAsked",
        "PipelineReleased",
        "DriftDetected",
        "TrainingRequested",
        "RunStarted",
        "ModelUpdated",
    ):
        assert name in told
    assert any("since offset 1,5" in line for line in words.lines(story))


def test_a_forced_promotion_is_rolled_back_by_the_guard(tmp_path):
    """Beside a champion that knows 1,000 rows one is forced that learned the turned-round rows of a false alarm."""
    life = Life(tmp_path, on_alert=False).live(1_000).live(500, turned=True)
    life.system.ask(TrainingAsked(pipeline="side", request="t", by="ann", start=1_000))
    assert [event.start for event in life.events(TrainingRequested)] == [0, 1_000]
    assert life.moves() == [("champion", 1), ("challenger", 2)]
    life.system.ask(PromotionAsked(pipeline="side", request="p", by="ann", version=2, forced=True))
    assert life.events(ModelUpdated)[-1].forced_by == "ann"
    life.live(700)
    assert life.moves()[5:] == [("champion", 1), ("previous", "")]
    (failed,) = [v for v in life.events(ModelValidated) if v.verdict == "fail"]
    assert (failed.stage, failed.against) == ("guard", life.events(ModelUpdated)[0].run)
    assert life.accuracy(100) > 0.9
    life.system.close()


def test_a_challenger_that_is_no_better_is_never_promoted_and_ends(tmp_path):
    life = Life(tmp_path).live(700)
    life.system.ask(TrainingAsked(pipeline="side", request="t", by="ann", start=300))
    life.live(1_000)
    assert life.moves() == [("champion", 1), ("challenger", 2), ("challenger", "")]
    (lost,) = [v for v in life.events(ModelValidated) if v.stage == "online"]
    assert lost.verdict in ("fail", "inconclusive")
    assert [event.run for event in life.events(RunEnded)] == [lost.run]
    life.system.close()


def test_a_person_goes_back_to_a_version_whose_run_ended_and_a_fork_of_it_learns_on(turned, tmp_path):
    """The last test of this stream: it moves the champion."""
    old = next(event for event in turned.events(ModelUpdated) if event.version == 1)
    taken = [r.event for r in turned.system.records("<p>.snapshots", "side") if old.run in getattr(r.event, "runs", {})]
    ask = {"pipeline": "side", "by": "ann", "version": 1}
    turned.system.ask(RollbackAsked(request="without", **ask))
    assert "names no snapshot" in turned.events(RequestRefused)[-1].reason
    newest = taken[-1]
    uri = newest.runs[old.run].uri
    turned.system.ask(RollbackAsked(request="back", uri=uri, snapshot_offset=newest.offset, **ask))
    back = turned.events(ModelUpdated)[-1]
    assert (back.alias, back.version, back.uri, back.follows) == ("champion", 1, uri, False)
    turned.live(300, turned=True)
    forked = turned.events(TrainingRequested)[-1]
    assert (forked.trigger, forked.parent, forked.start) == ("rollback", uri, newest.offset)
    assert turned.moves()[-1] == ("champion", 3)
    found = reproduce_log.find("side@3", turned.system.bus)
    assert again.reproduce(found, turned.system.bus, turned.system.artifacts).outcome == "equal"
