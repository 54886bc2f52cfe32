"""A challenger that won in shadow serves a tenth, then half of the units: the whole system on the in-process log.

The label says on which side of zero a number lies, for each of many stations; when the rule turns round, a naive Bayes
that remembers everything is wrong for long, one that began at the change is right at once, and wrong again when the
rule turns back.
"""

import pytest
import side
from scipy import stats

from headrace.canary import place_of
from headrace.reproduce import log as reproduce_log
from headrace.reproduce import model as again
from headrace.schemas.control import AliasRemoved, ModelUpdated, ModelValidated, RunEnded
from headrace.schemas.stream import ExampleArrived, LabelArrived
from headrace.why import chain, words

STATIONS = 400
POLICIES = """
    entity=True, gates=Gates(guard_labels=300, min_labels={min_labels}, max_labels=800),
    rollout=Rollout(refresh_s=3, steps=(0.1, 0.5), step_s=120, step_requests={step_requests}),
"""


class Life(side.Life):
    """Its stream, of many stations, whose rule may turn round."""

    def __init__(self, home, *, min_labels=200, step_requests=200):
        policies = POLICIES.format(min_labels=min_labels, step_requests=step_requests)
        super().__init__(home, side.source(policies, columns=("x",)))

    def live(self, rows, *, turned=False, until=None):
        """Publish rows with their labels; where the rule is turned round, the other side is true."""
        for _ in range(rows):
            self.row += 1
            at, x = self.time(self.row), self.rng.gauss(0, 1)
            who = {"id": str(self.row), "entity": f"station {self.rng.randrange(STATIONS)}", "time": at}
            self.system.publish("side", ExampleArrived(features={"x": x}, **who))
            self.system.publish("side", LabelArrived(label=(x > 0) != turned, **who))
            if until is not None and until():
                break
        return self

    def shares(self):
        """The share of the challenger at each move of its alias, and why it lost it."""
        moved = [event for event in self.events(ModelUpdated, AliasRemoved) if event.alias == "challenger"]
        return [event.share if isinstance(event, ModelUpdated) else event.reason for event in moved]


@pytest.fixture(scope="module")
def rolled_out(tmp_path_factory):
    """A rule that turned round after 1,500 rows, and 2,000 rows under the new one."""
    life = Life(tmp_path_factory.mktemp("rolled-out")).live(1_500).live(2_000, turned=True)
    yield life
    life.system.close()


def test_a_challenger_serves_a_tenth_then_half_then_all_and_the_guard_stands_behind_it(rolled_out):
    assert rolled_out.shares() == [None, 0.1, 0.5, "it became champion as version 2"]
    told = [(v.stage, v.verdict, v.share) for v in rolled_out.events(ModelValidated)]
    assert told == [
        *[(stage, "pass", None) for stage in ("offline", "infra", "offline", "infra", "online")],
        ("online", "pass", 0.1),
        ("online", "pass", 0.5),
        ("guard", "pass", None),
    ]
    champion = [event for event in rolled_out.events(ModelUpdated) if event.alias == "champion"][-1]
    assert champion.version == 2
    assert champion.reason.startswith("canary step of 50% passed")


def test_each_station_is_served_by_one_arm_and_those_of_the_tenth_are_among_those_of_the_half(rolled_out):
    made = [event for event in rolled_out.predictions() if event.share is not None]
    served = {}
    for event in made:
        served.setdefault((event.share, event.entity), set()).add(event.served)
    assert all(len(arms) == 1 for arms in served.values())
    tenth, half = (
        {e for (s, e), arms in served.items() if s == share and arms == {"challenger"}} for share in (0.1, 0.5)
    )
    asked = {entity for share, entity in served if share == 0.5}
    assert tenth & asked <= half
    run = made[0].predictions["challenger"].run
    assert all((place_of(run, entity) < share) == (arms == {"challenger"}) for (share, entity), arms in served.items())
    assert stats.binomtest(len(half), len(asked), 0.5).pvalue > 0.001


def test_pairs_and_snapshots_go_on_through_the_canary(rolled_out):
    made = [event for event in rolled_out.predictions() if event.share is not None]
    assert len(made) >= 400
    assert all(set(event.predictions) == {"champion", "challenger"} for event in made)
    assert all(len({arm.learned_to for arm in event.predictions.values()}) == 1 for event in made)
    last = [v for v in rolled_out.events(ModelValidated) if v.share == 0.5][-1]
    checks = {check.name: check for check in last.checks}
    assert checks["step requests"].n >= 200
    assert checks["step time"].value >= 120
    assert all(check.verdict == "pass" for check in last.checks)


def test_why_tells_the_steps_in_sentences(rolled_out):
    log = chain.Log.of(rolled_out.system.records("control-log"))
    told = "\n".join(words.lines(chain.story(log, "side@champion")))
    assert "serves 50% of the units" in told


def test_the_version_is_folded_again_from_the_log(rolled_out):
    found = reproduce_log.find("side@2", rolled_out.system.bus)
    assert again.reproduce(found, rolled_out.system.bus, rolled_out.system.artifacts).outcome == "equal"


def test_a_challenger_that_turns_out_worse_at_a_tenth_goes_and_its_run_ends(tmp_path):
    """The rule turns back while the challenger that knows only the turned one serves its tenth."""
    life = Life(tmp_path, min_labels=400, step_requests=600).live(2_000)
    life.live(1_500, turned=True, until=lambda: life.shares()[-1:] == [0.1])
    life.live(700)
    assert life.shares()[:2] == [None, 0.1]
    assert life.shares()[2].startswith("it failed its canary step of 10%")
    (lost,) = [v for v in life.events(ModelValidated) if v.verdict == "fail"]
    assert (lost.stage, lost.share) == ("online", 0.1)
    assert {check.name for check in lost.checks if check.verdict == "fail"} == {"evidence"}
    assert lost.run in {event.run for event in life.events(RunEnded)}
    served = [event.served for event in life.predictions()]
    assert 10 < served.count("challenger") < 0.2 * 700
    assert served[-100:] == ["champion"] * 100
    assert max(event.epoch for event in life.predictions()) == lost.epoch + 1
    champions = [event.version for event in life.events(ModelUpdated) if event.alias == "champion"]
    assert champions == [1]
    life.system.close()
