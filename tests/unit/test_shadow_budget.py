"""What arms that serve nobody may take of the predictor's time, by a clock of the tests."""

import pytest

from headrace.services.predictor.budget import CALLS, CHEAP_US, Budget

SECOND = 1_000_000
BURST_US = 50_000


class Predictor:
    """One thread: a record comes, the champion and then each arm in shadow answers, the next record waits meanwhile.

    `delays` are how long each record's served answer stood behind its arrival, `took` what the shadow took in all.
    """

    def __init__(self, share=0.1, champion_us=20):
        self.now, self.champion_us = 0, champion_us
        self.budget = Budget(lambda: self.now, share, BURST_US)
        self.delays, self.took, self.asked = [], 0, {}

    def run(self, records, gap_us, **shadow):
        """So many records, one each `gap_us`; `shadow` gives how long an arm takes, as a number or by the record."""
        begin = self.now
        for number in range(records):
            due = begin + number * gap_us
            self.now = max(self.now, due)
            assert self.budget.begin("champion", serves=True)
            self.now += self.champion_us
            self.budget.end()
            for run, cost in shadow.items():
                if self.budget.begin(run, serves=False):
                    took = cost(number) if callable(cost) else cost
                    self.now += took
                    self.took += took
                    self.asked[run] = self.asked.get(run, 0) + 1
                    self.budget.end()
            self.delays.append(self.now - due)
        return self


def test_an_arm_as_fast_as_the_champion_is_never_shed_however_many_records_are_at_hand():
    made = Predictor(champion_us=2_000).run(5_000, 0, challenger=2_000)
    assert (made.budget.shed, made.asked) == (0, {"challenger": 5_000})


def test_a_machine_that_halts_both_arms_now_and_then_sheds_none():
    """Each answer takes 150 µs, and one in fifty 5 ms: of the champion and of the challenger in turn."""
    made = Predictor()
    for number in range(20_000):
        made.champion_us = 5_000 if number % 50 == 25 else 150
        made.run(1, 0, challenger=5_000 if number % 50 == 0 else 150)
    assert made.budget.shed == 0


def test_a_cheap_arm_is_never_shed_beside_a_champion_that_is_cheaper():
    assert Predictor(champion_us=5).run(20_000, 0, challenger=CHEAP_US).budget.shed == 0


def test_a_slow_arm_is_asked_each_time_where_records_come_seldom():
    made = Predictor().run(500, SECOND, challenger=40_000)
    assert (made.budget.shed, made.asked["challenger"]) == (0, 500)


def test_a_slow_arm_in_a_fast_stream_takes_its_share_of_the_time_and_the_lag_does_not_grow():
    records, gap_us, slow_us = 20_000, 5_000, 40_000
    made = Predictor().run(records, gap_us, challenger=slow_us)
    allowed = 0.1 * made.now + CHEAP_US * made.asked["challenger"] + BURST_US
    assert allowed / 2 < made.took <= allowed + 2 * slow_us  # the first for nothing, the last begun with little left
    assert made.budget.shed > 0.95 * records
    assert max(made.delays) <= BURST_US + 2 * slow_us
    assert max(made.delays[1_000:]) <= slow_us + gap_us
    assert sorted(made.delays)[records // 2] <= 2 * made.champion_us


def test_what_a_backlog_sheds_first_is_what_is_dear():
    """The same two arms, before, in and after ten thousand records that were there at once."""
    arms = {"dear": 1_000, "cheap": 50}
    made = Predictor().run(500, 20_000, **arms)
    assert made.budget.shed == 0
    made.run(10_000, 0, **arms)
    assert made.asked["cheap"] == 10_500
    assert 0.9 * 10_000 < made.budget.shed == 10_500 - made.asked["dear"]
    shed = made.budget.shed
    made.run(500, 20_000, **arms)
    assert made.budget.shed - shed < 5


@pytest.mark.parametrize("pause_us", [200_000, 10 * SECOND])
def test_one_slow_call_sheds_nothing(pause_us):
    """A garbage collection, or a process that stood still."""
    made = Predictor().run(5_000, 0, challenger=lambda number: pause_us if number == 2_500 else 20)
    assert made.budget.shed == 0


def test_calls_that_are_slow_again_and_again_are_no_pause():
    made = Predictor().run(20_000, 0, challenger=lambda number: 20 if number % 20 else 40_000)
    assert made.budget.shed > 10_000
    assert made.took <= 0.1 * made.now + CHEAP_US * made.asked["challenger"] + BURST_US + 2 * 40_000


def test_a_slow_arm_takes_nothing_from_another_one():
    made = Predictor().run(2_000, 1_000, challenger=40_000, previous=60)
    assert made.asked["previous"] == 2_000
    assert made.asked["challenger"] < 50


def test_with_the_whole_share_nothing_is_shed_and_with_none_only_what_costs_more_than_the_champion_does():
    assert Predictor(share=1.0).run(500, 0, challenger=40_000).budget.shed == 0
    none = Predictor(share=0.0, champion_us=300)
    assert none.run(3_000, SECOND, challenger=300).budget.shed == 0
    assert none.run(3_000, SECOND, challenger=900).budget.shed > 2_900


def test_an_arm_that_answers_a_unit_in_a_canary_pays_nothing_for_it():
    made = Predictor()
    for _ in range(1_000):
        assert made.budget.begin("challenger", serves=True)
        made.now += 40_000
        made.budget.end()
    assert made.run(1, 0, challenger=40_000).budget.shed == 0


def test_a_run_that_has_gone_is_forgotten_and_the_others_keep_what_they_have():
    made = Predictor().run(CALLS, 0, slow=40_000, other=20)
    assert made.budget.shed > 0
    made.budget.retain(["champion", "slow"])
    shed = made.budget.shed
    made.run(1, 0, slow=40_000)
    assert made.budget.shed == shed + 1
    made.budget.retain(["champion"])
    made.run(1, 0, slow=40_000)
    assert made.budget.shed == shed + 1
