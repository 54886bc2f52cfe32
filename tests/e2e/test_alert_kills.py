"""Over genuine Kafka: services are killed from a fall in performance to the guard of the challenger that answers it.

Nobody asks for anything: the rule that labels follow turns round, the monitor tells of it, the orchestrator has a
challenger trained from the change point, and it takes over. Monitor and scheduler are among those that are killed.
"""

import json
import os
import time
from collections import Counter

import pytest
import side
from killed import VICTIMS, Story, account, history_is_whole

from headrace.reproduce.decisions import replay
from headrace.schemas.control import DriftDetected, RunStarted, TrainingRequested
from tests.simulation.history import served

KILLS = int(os.environ.get("ALERT_KILLS", "60"))
SETTLED = 600
SOURCE = side.source("""
    gates=Gates(alpha=0.3, guard_labels=200, max_labels=2_000),
    rollout=Rollout(refresh_s=0.2, steps=(0.5,), step_s=0.5, step_requests=20),
    triggers=Triggers(first_model_at=100, cooldown_s=0),
""")


class Alerts(Story):
    """The rule turns round; whoever notices it, and what follows."""

    victims = (*VICTIMS, "monitor", "scheduler")

    def a_round(self, number):
        """From a rule that turns round to the guard's verdict about the model that learned the new one."""
        before = self.aliases()["champion"]
        self.burst(SETTLED)
        self.settled()
        self.is_turned = not self.is_turned
        self.kill("monitor")
        self.through(lambda: self.alerts(before), f"round {number}: an alert")
        self.kill("monitor", "orchestrator")
        self.through(lambda: self.another(before), f"round {number}: a promotion")
        self.kill("monitor", "scheduler")
        self.through(lambda: "previous" not in self.aliases(), f"round {number}: the guard's verdict")

    def alerts(self, champion=None):
        """The alerts about performance that start a training, of one champion or all."""
        told = [e for e in self.events(DriftDetected) if (e.kind, e.level) == ("performance", "drift")]
        return [event for event in told if champion is None or event.run == champion.run]


def live(stack, until, kills, rounds):
    """Rounds until so many were killed, at least these; then what the log tells."""
    began = time.monotonic()
    story = Alerts(stack, until)
    number = story.live(SOURCE, kills, rounds)
    repeats = history_is_whole(story, stack, until)
    each_promotion_has_an_alert_of_its_own(story, number)
    again = replay("side", stack.bus, stack.artifacts, stack.settings.key(), stack.namespace)
    assert again.is_equal, again
    said = {"rounds": number, "alerts": len(story.alerts()), **account(story, stack, began, repeats)}
    print("\n" + json.dumps(said, indent=2))
    return said


def each_promotion_has_an_alert_of_its_own(story, rounds):
    """By a training that its alert started, and no alert was told twice."""
    alerts = story.alerts()
    assert max(Counter((event.run, event.since, event.offset) for event in alerts).values()) == 1
    request_of = {event.run: event.request for event in story.events(RunStarted)}
    asked = [event for event in story.events(TrainingRequested) if event.trigger == "performance"]
    assert max(Counter(event.request for event in asked).values()) == 1
    promoted = [request_of[event.run] for kind, event in served(story.events(object)) if kind == "promotion"]
    assert len(promoted) == len(set(promoted)) == rounds
    assert set(promoted) <= {f"performance-{event.run}-{event.since}" for event in alerts}
    by_champion = Counter(request.rpartition("-")[0] for request in promoted)
    assert max(by_champion.values()) == 1, "one answers the fall of a champion"


@pytest.fixture
def chain(some_services):
    with some_services(*Alerts.victims) as stack:
        yield stack


@pytest.mark.kafka
@pytest.mark.slow
def test_sixty_kills_after_alerts_change_no_history_and_no_model(chain, until):
    said = live(chain, until, kills=KILLS, rounds=2)
    assert said["repeats_dropped"] > 0, "a run without repeats proves nothing"
