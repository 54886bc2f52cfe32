"""Over genuine Kafka: services are killed while a challenger is judged, takes over, is watched and is taken back.

In each round the rule that labels follow turns round and a person asks for a training. The challenger wins by its
evidence; in every second round the guard lets the old model go, in the others a person takes the new one back. In the
end a person goes back to version 1, whose run ended long ago: it serves frozen until its fork has caught up.
"""

import json
import os
import time
from collections import Counter

import pytest
import side
from killed import VICTIMS, Story, account, history_is_whole

from headrace.schemas.control import (
    ModelUpdated,
    ModelValidated,
    RollbackAsked,
    RunStarted,
    SnapshotTaken,
    TrainingAsked,
)
from headrace.schemas.stream import SHED, PredictionMade
from tests.simulation.history import served

KILLS = int(os.environ.get("PROMOTION_KILLS", "60"))
SETTLED = 1_200
SOURCE = side.source("""
    gates=Gates(alpha=0.3, guard_labels=600, max_labels=2_000),
    rollout=Rollout(refresh_s=0.2, steps=(0.5,), step_s=0.5, step_requests=20),
    triggers=Triggers(first_model_at=100, on_performance_drift=False),
""")


class Promotions(Story):
    """The rule turns round, and a challenger takes over."""

    def a_round(self, number):
        """From a rule that turns round to the guard's verdict, or to a person who takes the new model back.

        No row comes between that person's request and its answer: the guard would be over, and nobody stand by.
        """
        self.burst(SETTLED)
        self.settled()
        before = self.aliases()["champion"]
        start = self._stack.bus.offsets(self.place())[1]
        self.is_turned = not self.is_turned
        self.burst(150)
        self.settled()
        self.ask(TrainingAsked, start=start, seed=number)
        champion = self.through(lambda: self.another(before), f"round {number}: a promotion")
        if number % 2:
            self.through(lambda: "previous" not in self.aliases(), f"round {number}: the guard's verdict")
            return
        self.ask(RollbackAsked)
        self.through(lambda: self.another(champion), f"round {number}: the model before it", rows=False)
        self.through(lambda: champion.run in self.ended(), f"round {number}: the end of the run taken back")
        self.is_turned = not self.is_turned

    def back_to_the_first(self):
        """Version 1 serves frozen, then its fork."""
        first = self.events(ModelUpdated)[0]
        taken = [r.event for r in self._stack.records("<p>.snapshots", "side") if isinstance(r.event, SnapshotTaken)]
        newest = [event for event in taken if first.run in event.runs][-1]
        before = self.aliases()["champion"]
        self.ask(RollbackAsked, version=1, uri=newest.runs[first.run].uri, snapshot_offset=newest.offset)
        frozen = self.through(lambda: self.another(before), "version 1 again")
        assert (frozen.version, frozen.follows) == (1, False)
        fork = self.through(lambda: self.another(frozen), "its fork")
        assert fork.follows


def live(stack, until, kills, rounds):
    """Rounds until so many were killed, at least these; then what the log tells."""
    began = time.monotonic()
    story = Promotions(stack, until)
    number = story.live(SOURCE, kills, rounds)
    story.back_to_the_first()
    repeats = history_is_whole(story, stack, until)
    told = story.events(object)
    how = Counter(kind for kind, _ in served(told))
    back = number // 2
    assert how == {"first": 1, "promotion": number, "return to a version": 1, "fork serves": 1} | (
        {"rollback by a person": back} if back else {}
    )
    forks = [event for event in told if isinstance(event, RunStarted) and event.parent is not None]
    assert len(forks) == 1
    shares = Counter(event.share for event in told if isinstance(event, ModelUpdated) and event.share is not None)
    assert shares == {0.5: number}, "each went through its canary, once"
    steps = [event for event in told if isinstance(event, ModelValidated) and event.share is not None]
    assert all("latency" in {check.name for check in event.checks} for event in steps)
    made = (record.event for record in stack.records("<p>.predictions", "side"))
    answers = [arm for event in made if isinstance(event, PredictionMade) for arm in event.predictions.values()]
    assert not any(arm.error == SHED for arm in answers), "each arm is as fast as the champion"
    said = {"rounds": number, **account(story, stack, began, repeats)}
    print("\n" + json.dumps(said, indent=2))
    return said


@pytest.fixture
def chain(some_services):
    with some_services(*VICTIMS, "scheduler") as stack:
        yield stack


@pytest.mark.kafka
def test_whoever_is_killed_in_a_promotion_and_a_rollback_each_happens_once(chain, until):
    assert live(chain, until, kills=0, rounds=2)["kills"] > 0


@pytest.mark.kafka
@pytest.mark.slow
def test_sixty_kills_in_promotions_and_rollbacks_change_no_history_and_no_model(chain, until):
    said = live(chain, until, kills=KILLS, rounds=2)
    assert said["repeats_dropped"] > 0, "a run without repeats proves nothing"
