"""A bad hour is learned, rolled back, and learned again without it: the whole system on the in-process log.

The label says on which side of zero a number lies; in the bad hour a feed upstream sends it with the wrong sign.
"""

from datetime import UTC, datetime, timedelta

import pytest
import side
from river import naive_bayes

from headrace import model_bytes
from headrace.cli import bad_range, facts
from headrace.cli.models import versions
from headrace.errors import Missing
from headrace.reproduce import decisions
from headrace.reproduce import log as reproduce_log
from headrace.reproduce import model as again
from headrace.schemas.control import (
    ModelUpdated,
    ModelValidated,
    RangeBarred,
    RollbackAsked,
    RunEnded,
    RunStarted,
    SnapshotTaken,
    TrainingAsked,
    TrainingRequested,
)
from headrace.schemas.stream import ExampleArrived, ExampleLabelled, LabelArrived
from headrace.why import chain, words

BEGIN = datetime(2026, 1, 31, 8, tzinfo=UTC)
GOOD, BAD, AFTER = 900, 600, 300  # rows, one a second
DELAY = 20  # rows until a label comes
SOURCE = side.source("gates=Gates(guard_labels=400, max_labels=600), rollout=Rollout(refresh_s=3),")


class Feed(side.Life):
    """Its stream, whose labels come late."""

    def __init__(self, home):
        super().__init__(home, SOURCE, BEGIN)
        self.late = []

    def live(self, rows, *, bad=False):
        for _ in range(rows):
            self.row += 1
            at, x = self.time(self.row), self.rng.gauss(0, 1)
            features = {"x": -3 * x if bad else x, "y": self.rng.random()}
            self.system.publish("side", ExampleArrived(id=str(self.row), time=at, features=features))
            self.late.append(LabelArrived(id=str(self.row), time=at + timedelta(seconds=DELAY), label=x > 0))
            if len(self.late) > DELAY:
                self.system.publish("side", self.late.pop(0), at_ms=self.ms(self.row))
        return self

    def ms(self, row):
        return int(self.time(row).timestamp() * 1000)

    def look_up(self, first, after):
        return bad_range.look_up("side", self.ms(first), self.ms(after), self.system.bus, self.system.artifacts)

    def roll_back(self, first, after, request):
        found = self.look_up(first, after)
        asked = RollbackAsked(
            pipeline="side", request=request, by="ann", reason="wrong sign", **found.fields(),
        )  # fmt: skip
        self.system.ask(asked)
        return found

    def labelled(self):
        records = self.system.records("<p>.labelled-examples", "side")
        return [r for r in records if isinstance(r.event, ExampleLabelled)]

    def accuracy(self, first, after):
        """Of what was served to these rows."""
        records = self.system.records("<p>.labelled-examples", "side")
        rows = [r.event for r in records if isinstance(r.event, ExampleLabelled)]
        rows = [row for row in rows if first <= int(row.prediction.id) < after and row.prediction.served]
        right = [(row.prediction.predictions[row.prediction.served].value > 0.5) == row.label for row in rows]
        return sum(right) / len(right)


BAD_ROWS = GOOD + 1, GOOD + BAD + 1


@pytest.fixture(scope="module")
def feed(tmp_path_factory):
    """A good quarter of an hour, a bad one, and five minutes in which the champion is seen to be wrong; rolled back."""
    feed = Feed(tmp_path_factory.mktemp("bad")).live(GOOD).live(BAD, bad=True).live(AFTER)
    feed.found = feed.roll_back(*BAD_ROWS, "back")
    feed.asked_at = feed.row
    feed.live(300)
    yield feed
    feed.system.close()


def is_in(offset, ranges):
    return any(first <= offset < after for first, after in ranges)


def test_the_range_is_every_example_that_came_or_whose_label_came_in_it(feed):
    barred = {int(r.event.prediction.id) for r in feed.labelled() if is_in(r.offset, feed.found.ranges)}
    first, after = BAD_ROWS
    assert barred == set(range(first - DELAY, after))
    assert feed.found.examples == len(barred)
    assert len(feed.found.ranges) == 1


def test_what_was_learned_before_serves_at_once_and_the_run_that_learned_the_range_ends(feed):
    first, frozen, fork = [e for e in feed.events(ModelUpdated) if e.alias == "champion"]
    assert (frozen.run, frozen.follows, frozen.barred) == (first.run, False, feed.found.ranges)
    assert frozen.snapshot_offset <= feed.found.ranges[0][0] < frozen.snapshot_offset + 10
    assert fork.follows
    alarmed, ended = feed.events(RunEnded)  # a challenger that the bad hour itself brought, and that failed its gate
    assert (ended.run, alarmed.run != first.run) == (first.run, True)
    assert feed.accuracy(GOOD + BAD + 1, feed.asked_at) < 0.75
    assert feed.accuracy(feed.asked_at + 1, feed.row - DELAY) > 0.95


def test_the_fork_is_champion_by_its_gates_and_equals_river_without_the_range(feed):
    fork = feed.events(RunStarted)[-1]
    asked = feed.events(TrainingRequested)[-1]
    assert (asked.trigger, fork.excluded, fork.parent) == ("rollback", feed.found.ranges, feed.found.good.uri)
    stages = [(v.stage, v.verdict) for v in feed.events(ModelValidated) if v.run == fork.run]
    assert stages == [("offline", "pass"), ("infra", "pass")]
    taken = [r.event for r in feed.system.records("<p>.snapshots", "side") if isinstance(r.event, SnapshotTaken)]
    newest = [event for event in taken if fork.run in event.runs][-1]
    river = naive_bayes.GaussianNB()
    for record in feed.labelled():
        if record.offset < newest.offset and not is_in(record.offset, feed.found.ranges):
            river.learn_one(record.event.prediction.features, record.event.label)
    data, manifest = feed.system.artifacts.get(newest.runs[fork.run].uri)
    assert model_bytes.digest(model_bytes.loads(data)) == model_bytes.digest(river)
    assert not any(is_in(offset, manifest.learned) for offset in range(*feed.found.ranges[0]))


@pytest.mark.parametrize("name", ["side@1", "side@2", "side@champion"])
def test_each_model_is_folded_again_from_the_log(feed, name):
    found = reproduce_log.find(name, feed.system.bus)
    done = again.reproduce(found, feed.system.bus, feed.system.artifacts)
    assert done.outcome == "equal"


def test_every_decision_is_made_again(feed):
    done = decisions.replay("side", feed.system.bus, feed.system.artifacts, feed.system.key)
    assert done.is_equal, [fold.first_difference for fold in done.folds]
    assert {gate.outcome for gate in done.gates} == {"equal"}


def test_why_leads_from_the_fork_back_to_the_person_and_the_range(feed):
    story = chain.story(chain.Log.of(feed.system.records("control-log")), "side@2")
    told = [type(link.event).__name__ for link in story]
    assert [told.count(name) for name in ("RollbackAsked", "RangeBarred")] == [1, 1]
    lines = words.lines(story)
    first, after = feed.found.ranges[0]
    assert any("ann asked to roll side back to before the examples from 2026-01-31 08:15:01" in line for line in lines)
    assert any(f"Offsets {first:,} to {after:,} are barred" in line for line in lines)
    assert any(f"without offsets {first:,} to {after:,}" in line for line in lines)


def test_the_registry_is_told_as_it_was_at_any_time(feed):
    def serves(row):
        found = facts.fold(facts.as_of(feed.ms(row), feed.system.records("control-log")))
        named = [version["serves"].get("champion") for version in versions(found)]
        return [champion and (champion["snapshot_offset"], champion["follows"]) for champion in named]

    first, _, fork = [e.snapshot_offset for e in feed.events(ModelUpdated) if e.alias == "champion"]
    assert serves(-1) == serves(100) == []
    assert serves(GOOD) == serves(feed.asked_at - 1) == [(first, True)]
    assert serves(feed.asked_at) == serves(feed.row) == [None, (fork, True)]  # here a fork is ready at once


def test_a_range_without_examples_says_where_there_are_some(feed):
    with pytest.raises(Missing, match="no labelled example of side came from 2026-01-31 07") as caught:
        feed.look_up(-3_600, -1)
    assert caught.value.next.startswith("headrace rollback side ")


def test_a_later_training_leaves_it_out_and_another_range_before_any_version_begins_anew(feed):
    """The last test of this stream: it moves the champion."""
    feed.system.ask(TrainingAsked(pipeline="side", request="t", by="ann"))
    later = feed.events(RunStarted)[-1]
    assert (later.start_offset, later.excluded) == (0, feed.found.ranges)
    found = feed.roll_back(10, 40, "early")
    assert found.good is None
    assert feed.events(RangeBarred)[-1].again_from == 0
    anew = feed.events(RunStarted)[-1]
    assert (anew.parent, anew.excluded) == (None, (*found.ranges, *feed.found.ranges))
    feed.live(20)
    serves = [e for e in feed.events(ModelUpdated) if e.alias == "champion"][-1]
    assert (serves.run, serves.follows) == (anew.run, True)
    found = reproduce_log.find(f"side@{serves.version}", feed.system.bus)
    assert again.reproduce(found, feed.system.bus, feed.system.artifacts).outcome == "equal"
