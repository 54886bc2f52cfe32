"""Over genuine Kafka: services are killed while a champion gives way to its anchor, and a bad hour is taken back.

A naive Bayes that learns one y of a million in the rain takes every usual y for no rain from then on. In each round
that happens twice. First nobody looks: the newer revisions are found worse than their anchor, which serves until a run
that begins with it has caught up without that row. Then a person bars the time in which it came.
"""

import json
import os
import time
from collections import Counter

import pytest
import side
from killed import VICTIMS, Story, account, history_is_whole, places

from headrace.cli import bad_range
from headrace.schemas.control import RangeBarred, RollbackAsked, RunStarted
from tests.simulation.ways_back import ways

KILLS = int(os.environ.get("WAYS_BACK_KILLS", "60"))
SOURCE = side.source("""
    gates=Gates(alpha=0.5, min_labels=100), rollout=Rollout(refresh_s=0.2, steps=(), anchor=1.0, anchor_s=0.5),
    triggers=Triggers(first_model_at=100, on_performance_drift=False, cooldown_s=0),
""")


class WaysBack(Story):
    """A row breaks what learns it, and the models go back to before it."""

    def a_round(self, number):
        """Back to the anchor, and on; back to before a bad range, and on."""
        before = self.through(self._anchored, f"round {number}: another anchor")
        self.burst(1, y=1e6)
        self.kill("evaluator", "registry")
        frozen = self.through(lambda: self.another(before), f"round {number}: the anchor serves")
        self.kill("orchestrator", "trainer")
        assert (frozen.run, frozen.follows, frozen.barred) == (before.run, False, ())
        fork = self.through(lambda: self.another(frozen), f"round {number}: its fork")
        assert fork.follows
        self._a_bad_range(number, fork)

    def _a_bad_range(self, number, before):
        """No row comes between the bad ones and the request: the anchor would be found better meanwhile."""
        self.burst(60)
        self.settled()
        began_ms = int(time.time() * 1000)
        self.burst(1, y=1e6)
        self.burst(4)
        self.settled()
        stack = self._stack
        found = bad_range.look_up(
            "side", began_ms, int(time.time() * 1000) + 1, stack.bus, stack.artifacts, stack.namespace
        )
        assert found.examples == 5
        self.kill("sequencer")
        self.ask(RollbackAsked, **found.fields())
        self.kill("registry", "predictor")
        frozen = self.through(lambda: self.another(before), f"round {number}: before the range", rows=False)
        assert (frozen.run, frozen.follows, frozen.barred) == (before.run, False, found.ranges)
        self.kill("orchestrator", "trainer")
        fork = self.through(lambda: self.another(frozen), f"round {number}: a run without the range")
        assert fork.follows

    def _anchored(self):
        """The champion, once its anchor has moved on."""
        named = self.aliases()
        champion, anchor = named.get("champion"), named.get("anchor")
        has_moved = None not in (champion, anchor) and anchor.snapshot_offset > champion.snapshot_offset
        return champion if has_moved else None

    def accuracy(self, last):
        """Of what was served to the newest rows."""
        rows = [record.event for record in self.joined()[-last:]]
        served = [(made.predictions[made.served].value, row.label) for row in rows if (made := row.prediction).served]
        assert len(served) == last, "every row was answered"
        return sum((value > 0.5) == label for value, label in served) / last


def live(stack, until, kills):
    """Rounds until so many were killed, at least one; then what the log tells."""
    began = time.monotonic()
    story = WaysBack(stack, until)
    number = story.live(SOURCE, kills, 1)
    story.burst(200)
    repeats = history_is_whole(story, stack, until)
    assert story.accuracy(200) > 0.9, "the stack goes on serving"
    said = {"rounds": number, **account(story, stack, began, repeats)}
    assert said["served"] == {
        "first": 1, "return to the anchor": number, "back to before a range": number, "fork serves": 2 * number
    }  # fmt: skip
    forks = Counter(e.request.partition("-")[0] for e in story.events(RunStarted) if e.parent is not None)
    assert forks == {"rollback": number, "without": number}
    assert len(story.events(RangeBarred)) == number
    assert {"the anchor moved on", "return to the anchor", "back to before a range"} <= ways(*places(stack))
    print("\n" + json.dumps(said, indent=2))
    return said


@pytest.fixture
def chain(some_services):
    with some_services(*VICTIMS, "scheduler") as stack:
        yield stack


@pytest.mark.kafka
def test_whoever_is_killed_on_a_way_back_it_is_gone_once_and_leads_on(chain, until):
    assert live(chain, until, kills=0)["kills"] > 0


@pytest.mark.kafka
@pytest.mark.slow
def test_sixty_kills_on_ways_back_change_no_history_and_no_model(chain, until):
    assert live(chain, until, kills=KILLS)["repeats_dropped"] > 0, "a run without repeats proves nothing"
