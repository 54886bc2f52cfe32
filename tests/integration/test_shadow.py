"""A challenger that is better but too slow to keep up in shadow: the whole system on the in-process log.

The time of the predictor is the stream's and what the challenger's answers take, by clocks of the test. The label
needs two columns, of which the pipeline's own recipe reads one and the challenger's both.
"""

import sys
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
import side

from headrace.reproduce.decisions import replay
from headrace.schemas.control import AliasRemoved, ModelUpdated, ModelValidated
from headrace.schemas.stream import SHED
from headrace.services.predictor import __main__ as predictor
from headrace.services.predictor.arms import Arms
from headrace.why import chain, words

POLICIES = """
    challengers=[Challenger("slow", slow)], triggers=Triggers(cooldown_s=0),
    gates=Gates(guard_labels=300, max_labels=600), rollout=Rollout(refresh_s=1, steps=()),
"""
RECIPES = """def recipe(seed):
    return compose.Select("x") | naive_bayes.GaussianNB()


class Slow(naive_bayes.GaussianNB):
    def predict_proba_one(self, x):
        sys.modules["slowness"].spend()
        return super().predict_proba_one(x)


def slow(seed):
    return Slow()
"""


class Life(side.TwoColumns):
    """So many rows a second; each answer of the challenger takes so long."""

    def __init__(self, home, monkeypatch, rate, took_s):
        self.rate, self.spent_s = rate, 0.0
        monkeypatch.setitem(sys.modules, "slowness", SimpleNamespace(spend=lambda: self.spend(took_s)))
        monkeypatch.setattr(predictor, "Arms", lambda wiring: Arms(replace(wiring, clock_ms=None), self.now, self.cpu))
        super().__init__(home, side.source(POLICIES, recipes=RECIPES))

    def spend(self, took_s):
        self.spent_s += took_s

    def cpu(self):
        return self.spent_s

    def now(self):
        return self.system.now_ms / 1_000 + self.spent_s

    def time(self, row):
        return self.begin + timedelta(seconds=row / self.rate)

    def in_shadow(self):
        """The challenger's answers."""
        return [made.predictions["challenger"] for made in self.predictions() if "challenger" in made.predictions]


def test_a_challenger_that_cannot_keep_up_in_shadow_loses_its_name_for_that(tmp_path, monkeypatch):
    life = Life(tmp_path, monkeypatch, rate=100, took_s=0.04).live(1_500)
    shadow = life.in_shadow()
    shed = [arm for arm in shadow if arm.error == SHED]
    assert len(shed) > 0.8 * len(shadow) > 100
    assert all(made.served == "champion" for made in life.predictions() if made.predictions)
    (failed,) = [v for v in life.events(ModelValidated) if v.stage == "online"]
    checks = {check.name: check for check in failed.checks}
    assert (failed.verdict, checks["missing answers"].verdict) == ("fail", "fail")
    (removed,) = life.events(AliasRemoved)
    assert "too slow to run in shadow" in checks["missing answers"].detail
    assert "missing answers" in removed.reason
    assert {event.version for event in life.events(ModelUpdated) if event.alias == "champion"} == {1}
    assert replay("side", life.system.bus, life.system.artifacts, life.system.key).is_equal
    told = "\n".join(words.lines(chain.story(chain.Log.of(life.system.records("control-log")), f"side@{removed.run}")))
    assert "too slow to run in shadow" in told
    life.system.close()


@pytest.mark.parametrize(("rate", "took_s"), [(2, 0.04), (100, 0.0005)])
def test_one_that_keeps_up_is_never_shed_and_takes_over(tmp_path, monkeypatch, rate, took_s):
    """40 ms an answer are no burden where two records come in a second."""
    life = Life(tmp_path, monkeypatch, rate, took_s).live(1_500)
    assert not [arm for made in life.predictions() for arm in made.predictions.values() if arm.error]
    assert {event.version for event in life.events(ModelUpdated) if event.alias == "champion"} == {1, 2}
    life.system.close()
