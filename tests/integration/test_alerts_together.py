"""Real alerts of the real monitor, and the trainings that they start: the whole system on the in-process log.

The label says on which side of zero a number lies. First the numbers move, which the model does not mind; then the rule
turns round.
"""

import side

from headrace.schemas.control import DriftDetected, PipelineDegraded, TrainingRequested
from headrace.schemas.stream import ExampleArrived, LabelArrived
from headrace.why import chain

POLICIES = """
    rollout=Rollout(refresh_s=3, steps=()), drift=Drift(window=200), gates=Gates(max_labels=300),
    triggers=Triggers(window_labels=300, {}),
"""


class Life(side.Life):
    """Its stream, whose numbers may move and whose rule may turn round."""

    def __init__(self, home, triggers):
        super().__init__(home, side.source(POLICIES.format(triggers), columns=("x",)))

    def live(self, rows, *, moved=0.0, turned=False):
        """Publish rows with their labels."""
        for _ in range(rows):
            self.row += 1
            at, x = self.time(self.row), self.rng.gauss(moved, 1)
            self.system.publish("side", ExampleArrived(id=str(self.row), time=at, features={"x": x}))
            self.system.publish("side", LabelArrived(id=str(self.row), time=at, label=(x > 0) != turned))
        return self

    def alerts(self):
        """What the monitor told, in order."""
        return [(one.kind, one.level) for one in self.events(DriftDetected)]

    def trainings(self):
        """What was asked for, without the first model."""
        return self.events(TrainingRequested)[1:]


def test_an_input_that_moved_waits_for_a_loss_that_rose_where_both_must_agree(tmp_path):
    rule = 'on_performance_drift=False, alerts=Alerts("input.x", "performance", within_s=7200)'
    life = Life(tmp_path, rule).live(900).live(400, moved=0.7)
    assert ("input", "warning") in life.alerts()
    assert life.trainings() == []
    life.live(500, moved=0.7, turned=True)
    (asked,) = life.trainings()
    rose = next(one for one in life.events(DriftDetected) if one.kind == "performance")
    assert (asked.trigger, asked.start) == ("performance", rose.since)
    assert asked.cause.endswith(": input.x, performance")
    log = chain.Log.of(life.system.records("control-log"))
    told = [link.event for link in chain.story(log, asked.request)]
    assert {one.kind for one in told if isinstance(one, DriftDetected)} == {"input", "performance"}
    assert life.events(PipelineDegraded)[0].numbers["since"] == rose.since
    life.system.close()


def test_an_input_that_moved_trains_alone_where_the_policy_says_so(tmp_path):
    life = Life(tmp_path, "on_input_drift=True").live(900).live(400, moved=0.7)
    (asked, *_) = life.trainings()
    assert (asked.trigger, asked.start > 0, "x" in asked.cause) == ("input", True, True)
    life.system.close()
