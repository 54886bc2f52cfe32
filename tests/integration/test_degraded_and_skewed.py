"""A champion that is worse for a while, and data that do not meet the contract: the whole system, without Kafka.

The label says on which side of zero a number lies; the rule turns round and back, and no training may mend it, so that
the pipeline stays degraded until the old rule holds again.
"""

import json

import commands
import pytest
import side

from headrace.cli import facts
from headrace.cli.watching import line
from headrace.reproduce.decisions import replay
from headrace.schemas.control import (
    DriftDetected,
    LabelsCounted,
    PipelineDegraded,
    SchemaSkewed,
    TrainingRequested,
    WindowValidated,
)
from headrace.schemas.stream import ExampleArrived, LabelArrived
from headrace.why import chain, words

POLICIES = """
    rollout=Rollout(refresh_s=3, steps=()), gates=Gates(max_labels=300),
    triggers=Triggers(on_performance_drift=False, every_labels=400, window_labels=200),
"""


class Life(side.Life):
    """Its stream, whose rule may turn round, and whose numbers may be words."""

    def live(self, rows, *, turned=False):
        """Publish rows with their labels."""
        for _ in range(rows):
            self.row += 1
            at, x = self.time(self.row), self.rng.gauss(0, 1)
            self.system.publish("side", ExampleArrived(id=str(self.row), time=at, features={"x": x}))
            self.system.publish("side", LabelArrived(id=str(self.row), time=at, label=(x > 0) != turned))
        return self

    def garble(self, rows):
        """Publish rows that the contract refuses."""
        for _ in range(rows):
            self.row += 1
            row = ExampleArrived(id=str(self.row), time=self.time(self.row), features={"x": "north"})
            self.system.publish("side", row)
        return self

    def trainings(self):
        """The triggers of what was asked for."""
        return [one.trigger for one in self.events(TrainingRequested)]

    def lines(self, kind):
        """What `headrace watch` shows of a kind of event."""
        return [line(record) for record in self.system.records("control-log") if isinstance(record.event, kind)]


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """A rule that turned round after 1,500 rows; an hour of it, then the old one."""
    policies = POLICIES.replace("every_labels=400", "every_labels=None")
    life = Life(tmp_path_factory.mktemp("turned"), side.source(policies, columns=("x",)))
    yield life.live(1_500).live(700, turned=True)
    life.system.close()


def test_a_degraded_pipeline_is_shown_with_its_numbers_and_why(turned):
    (degraded,) = turned.events(PipelineDegraded)
    (alert, *_) = turned.events(DriftDetected)
    numbers = degraded.numbers
    assert (numbers["run"], numbers["since"], numbers["recent_loss"]) == (
        alert.run,
        alert.since,
        alert.evidence["recent_loss"],
    )
    assert numbers["recent_loss"] - numbers["reference_loss"] > numbers["limit"] == 0.05
    (shown,) = turned.lines(PipelineDegraded)
    assert f"degraded: version 1 (run {alert.run}): loss" in shown
    story = chain.story(chain.Log.of(turned.system.records("control-log")), "side/degraded")
    assert [type(link.event).__name__ for link in story][-2:] == ["DriftDetected", "PipelineDegraded"]
    assert any("side is degraded: version 1" in text for text in words.lines(story))
    found = facts.fold(turned.system.records("control-log"))["side"]
    assert found.training.degraded.alert == alert
    assert facts.degraded(found, None)


def test_it_is_over_when_the_old_rule_holds_again(turned):
    turned.live(2_500)
    last = turned.events(PipelineDegraded)[-1]
    assert (last.over, last.reason) == (True, "the loss came back")
    assert "over: the loss came back" in turned.lines(PipelineDegraded)[-1]
    found = facts.fold(turned.system.records("control-log"))["side"]
    assert found.training.degraded is None
    assert facts.degraded(found, None) == []


def test_while_most_records_are_rejected_nothing_is_trained_by_itself(tmp_path, monkeypatch):
    life = Life(tmp_path, side.source(POLICIES, columns=("x",))).live(390)
    assert life.trainings() == ["first_model"]
    life.garble(150)
    (skewed,) = life.events(SchemaSkewed)
    assert skewed.numbers["rejected"] > 0.2 * (skewed.numbers["validated"] + skewed.numbers["rejected"])
    assert f"skewed: {skewed.numbers['rejected']} of" in life.lines(SchemaSkewed)[0]
    assert facts.fold(life.system.records("control-log"))["side"].training.skewed
    for _ in range(40):  # labels go on to come for few rows among many that are refused
        life.live(1).garble(4)
    assert [one.n for one in life.events(LabelsCounted)][-1] == 400
    assert life.trainings() == ["first_model"]
    life.live(180)
    assert [one.over for one in life.events(SchemaSkewed)] == [False, True]
    assert life.trainings() == ["first_model", "new_data"]
    story = chain.story(chain.Log.of(life.system.records("control-log")), "side/skewed")
    assert [type(link.event) for link in story][-2:] == [WindowValidated, SchemaSkewed]
    assert any("side is no longer skewed" in text for text in words.lines(story))
    run = commands.over(life.system, monkeypatch)
    told = json.loads(run("alerts", "side", "--kind", "skewed", "--json").stdout)
    assert [(one["kind"], one["level"], one["over"]) for one in told] == [
        ("skewed", "state", False), ("skewed", "over", True),
    ]  # fmt: skip
    assert told[1]["says"].startswith("no longer skewed: ")
    assert "side is skewed" in run("why", told[0]["place"]).stdout
    assert replay("side", life.system.bus, life.system.artifacts, life.system.key).is_equal
    life.system.close()
