"""What arms that serve nobody may take of the predictor's thread, by clocks of the tests."""

import pytest

from headrace.services.predictor.budget import CHEAP_S, Budget

SHARE, BURST_S = 0.1, 0.05


class Predictor:
    """One thread: a record comes, the champion and then each arm in shadow answers, the next record waits meanwhile.

    `delays` are how long each record's served answer stood behind its arrival, `took` what the shadow took in all. The
    machine is `busy`: what takes the thread so long is there only after so many times that.
    """

    def __init__(self, share=SHARE, champion_s=20e-6, busy=1.0):
        self.now = self.cpu = 0.0
        self.champion_s, self.busy = champion_s, busy
        self.budget = Budget(share, BURST_S, lambda: self.now, lambda: self.cpu)
        self.delays, self.took, self.asked = [], 0.0, {}

    def compute(self, seconds):
        self.cpu += seconds
        self.now += seconds * self.busy

    def run(self, records, gap_s, **shadow):
        """So many records, one each `gap_s`; `shadow` gives how long an arm takes, as a number or by the record."""
        begin = self.now
        for number in range(records):
            due = begin + number * gap_s
            self.now = max(self.now, due)
            self.budget.begin()
            self.compute(self.champion_s)
            self.budget.charge("champion", serves=True)
            for run, cost in shadow.items():
                if self.budget.allows(run):
                    took = cost(number) if callable(cost) else cost
                    self.compute(took)
                    self.took += took
                    self.asked[run] = self.asked.get(run, 0) + 1
                    self.budget.charge(run, serves=False)
            self.delays.append(self.now - due)
        return self

    def allowed(self, run, call_s):
        """The stated bound, where the champion is cheap: the first call is free, the last begins with little left."""
        return SHARE * self.now + CHEAP_S * self.asked[run] + BURST_S + 2 * call_s


@pytest.mark.parametrize("busy", [1, 3, 50])
@pytest.mark.parametrize("each_s", [20e-6, 2e-3, 0.04])
def test_an_arm_as_fast_as_the_champion_is_never_shed_whoever_else_needs_the_machine(busy, each_s):
    made = Predictor(champion_s=each_s, busy=busy).run(3_000, 0, challenger=each_s)
    assert (made.budget.shed, made.asked) == (0, {"challenger": 3_000})


def test_an_arm_that_waits_for_a_core_now_and_then_pays_nothing_for_it():
    """Three of four answers of 0.15 ms are there after 5 ms: by the clock they would take nearly all of the time."""
    made = Predictor(champion_s=20e-6)
    for number in range(5_000):
        made.busy = 1 if number % 4 == 0 else 33
        made.run(1, 0, challenger=CHEAP_S)
    assert made.budget.shed == 0


def test_a_collection_that_falls_into_the_answers_of_either_arm_sheds_none():
    made = Predictor()
    for number in range(20_000):
        made.champion_s = 5e-3 if number % 50 == 25 else 150e-6
        made.run(1, 0, challenger=5e-3 if number % 50 == 0 else 150e-6)
    assert made.budget.shed == 0


def test_a_cheap_arm_is_never_shed_beside_a_champion_that_is_cheaper():
    assert Predictor(champion_s=5e-6).run(20_000, 0, challenger=CHEAP_S).budget.shed == 0


def test_a_slow_arm_is_asked_each_time_where_records_come_seldom():
    made = Predictor().run(500, 1.0, challenger=0.04)
    assert (made.budget.shed, made.asked["challenger"]) == (0, 500)


def test_a_slow_arm_in_a_fast_stream_takes_its_share_of_the_time_and_the_lag_does_not_grow():
    records, gap_s, slow_s = 20_000, 5e-3, 0.04
    made = Predictor().run(records, gap_s, challenger=slow_s)
    assert SHARE * made.now / 2 < made.took <= made.allowed("challenger", slow_s)
    assert made.budget.shed > 0.95 * records
    assert max(made.delays) <= BURST_S + 2 * slow_s
    assert max(made.delays[1_000:]) <= slow_s + gap_s
    assert sorted(made.delays)[records // 2] <= 2 * made.champion_s


def test_what_a_backlog_sheds_first_is_what_is_dear():
    """The same two arms, before, in and after ten thousand records that were there at once."""
    arms = {"dear": 1e-3, "cheap": 50e-6}
    made = Predictor().run(500, 0.02, **arms)
    assert made.budget.shed == 0
    made.run(10_000, 0, **arms)
    assert made.asked["cheap"] == 10_500
    assert 0.9 * 10_000 < made.budget.shed == 10_500 - made.asked["dear"]
    shed = made.budget.shed
    made.run(500, 0.02, **arms)
    assert made.budget.shed - shed < 5


@pytest.mark.parametrize("number", [0, 2_500])
@pytest.mark.parametrize("pause_s", [0.2, 10.0])
def test_a_first_call_and_one_slow_call_shed_nothing(number, pause_s):
    """Where nothing is warm; in a garbage collection, or where the host took the core away."""
    made = Predictor().run(5_000, 0, challenger=lambda row: pause_s if row == number else 20e-6)
    assert made.budget.shed == 0


def test_calls_that_are_slow_again_and_again_are_no_pause():
    made = Predictor().run(20_000, 0, challenger=lambda number: 20e-6 if number % 20 else 0.04)
    assert made.budget.shed > 10_000
    assert made.took <= made.allowed("challenger", 0.04)


def test_a_slow_arm_takes_nothing_from_another_one():
    made = Predictor().run(2_000, 1e-3, challenger=0.04, previous=60e-6)
    assert made.asked["previous"] == 2_000
    assert made.asked["challenger"] < 50


def test_with_the_whole_share_nothing_is_shed():
    assert Predictor(share=1.0).run(500, 0, challenger=0.04).budget.shed == 0


def test_what_is_saved_up_in_quiet_times_is_no_more_than_one_answer_may_take():
    made = Predictor().run(10, 100.0, challenger=1e-3)
    asked, began = made.asked["challenger"], made.now
    made.run(10_000, 0, challenger=1e-3)
    assert (made.asked["challenger"] - asked) * (1e-3 - CHEAP_S) <= SHARE * (made.now - began) + BURST_S + 2e-3


def test_a_champion_that_was_slow_once_allows_nothing_for_the_records_behind():
    made = Predictor(champion_s=1e-3).run(500, 0, challenger=1e-3)
    assert made.budget.shed == 0
    made.champion_s = 20e-6
    made.run(5_000, 0, challenger=1e-3)
    assert made.budget.shed > 4_000


def test_an_arm_that_serves_pays_nothing():
    made = Predictor()
    for _ in range(100):
        made.budget.begin()
        made.compute(0.04)
        made.budget.charge("challenger", serves=True)
        assert made.budget.allows("challenger")


def test_a_run_that_has_gone_is_forgotten_and_the_others_keep_what_they_have():
    made = Predictor().run(20, 0, slow=0.04)
    made.budget.retain(["champion", "slow"])
    assert not made.budget.allows("slow")
    made.budget.retain(["champion"])
    assert made.budget.allows("slow")
