"""A canary's steps: given these requests and labels at a share, then that verdict on the step."""

import pickle

import pytest

from headrace.schemas.policies import Gates, Labels, Rollout
from headrace.services.evaluator.canary import UNITS, Step, step_of
from headrace.services.evaluator.lean import Answered

STEPS = {"rollout": Rollout(steps=(0.1, 0.5), step_s=600, step_requests=200)}


@pytest.fixture
def won(after_a_while):
    """A stream in which run b won against a in shadow, at epoch 2; what was told until then is forgotten."""

    def make(**policies):
        stream = after_a_while(**(STEPS | policies))
        stream.binary(2_000, champion=0.8, challenger=0.92, epoch=2, until=lambda: stream.told)
        assert stream.verdicts == [("online", "pass")]
        assert stream.told.pop().share is None
        return stream

    return make


def told(stream):
    return [(event.stage, event.verdict, event.share) for event in stream.told]


def test_a_step_passes_with_all_its_checks_once_it_has_its_requests_and_its_time(won):
    stream = won()
    stream.binary(199, champion=0.8, challenger=0.9, epoch=3, share=0.1)
    assert stream.told == []
    stream.binary(1, champion=0.8, challenger=0.9, epoch=3, share=0.1)
    (event,) = stream.told
    assert (event.stage, event.verdict, event.share, event.run, event.against) == ("online", "pass", 0.1, "b", "a")
    assert (event.epoch, event.n_labels) == (3, 200)
    checks = stream.checks()
    assert (checks["step requests"].value, checks["step requests"].limit) == (200, 200)
    assert checks["step time"].value == 199 * 5 >= checks["step time"].limit == 600
    assert checks["sample ratio"].value > 0.001 == checks["sample ratio"].limit
    assert checks["errors"].value == 1.0
    assert checks["evidence"].limit == pytest.approx(100)
    assert "E that it is worse" in checks["evidence"].detail
    assert {"missing answers", "coverage", "accuracy", "baselines"} < set(checks)


def latency(stream, took_us):
    """The step's check of latency, after 200 requests whose answers took so long."""
    stream.binary(200, champion=0.8, challenger=0.9, epoch=3, share=0.1, took_us=took_us)
    return stream.checks()["latency"]


def test_a_challenger_that_takes_too_long_more_often_than_the_champion_fails(won):
    stream = won(gates=Gates(predict_ms=5))
    check = latency(stream, lambda number: {"champion": 300, "challenger": 9_000 if number % 10 == 0 else 400})
    assert (check.verdict, check.n) == ("fail", 200)
    assert check.value < check.limit == 0.001
    assert (
        "20 of 200 answers of the challenger that took more than 5 ms are no more than the champion's 0" in check.detail
    )
    assert told(stream) == [("online", "fail", 0.1)]


@pytest.mark.parametrize(
    "took_us",
    [
        lambda n: {
            "champion": 300,
            "challenger": 900_000 if n % 50 == 0 else 400,
        },  # four times the machine stood still
        lambda n: {"champion": 40_000, "challenger": 60_000},  # too slow for both
    ],
)
def test_what_chance_or_the_machine_does_is_no_fault_of_the_challenger(won, took_us):
    assert latency(won(gates=Gates(predict_ms=5)), took_us).verdict == "pass"


def test_answers_that_were_not_timed_have_no_latency(won):
    stream = won()
    stream.binary(200, champion=0.8, challenger=0.9, epoch=3, share=0.1)
    assert "latency" not in stream.checks()


def test_requests_alone_are_not_enough_and_time_alone_is_not(won):
    hasty = won(rollout=Rollout(step_s=3_600, step_requests=50))
    hasty.binary(720, champion=0.8, challenger=0.85, epoch=3, share=0.1)
    assert hasty.told == []
    hasty.binary(1, champion=0.8, challenger=0.85, epoch=3, share=0.1)
    assert told(hasty) == [("online", "pass", 0.1)]
    slow = won(rollout=Rollout(step_s=60, step_requests=300))
    slow.binary(299, champion=0.8, challenger=0.85, epoch=3, share=0.1)
    assert slow.told == []


def test_time_that_passes_without_a_request_is_no_time_of_a_step(won):
    stream = won(rollout=Rollout(step_s=600, step_requests=50))
    stream.binary(60, champion=0.8, challenger=0.9, epoch=3, share=0.1)
    stream.tick(hours=5)
    assert stream.told == []


def test_each_step_is_judged_by_its_own_requests_and_told_once(won):
    stream = won()
    stream.binary(500, champion=0.8, challenger=0.9, epoch=3, share=0.1)
    assert told(stream) == [("online", "pass", 0.1)]
    stream.binary(199, champion=0.8, challenger=0.9, epoch=4, share=0.5)
    assert len(stream.told) == 1
    stream.binary(300, champion=0.8, challenger=0.9, epoch=4, share=0.5)
    assert told(stream) == [("online", "pass", 0.1), ("online", "pass", 0.5)]
    assert stream.checks()["step requests"].value == 200
    assert stream.told[-1].n_labels == 700  # the quality is compared on all rows since the first step
    assert (stream.told[-1].epoch, "50%" in stream.checks()["sample ratio"].detail) == (4, True)


def test_the_question_in_shadow_is_closed_when_the_canary_begins(won):
    stream = won(gates=Gates(max_labels=600))
    stream.binary(1_000, champion=0.8, challenger=0.8, epoch=3, share=0.1)
    assert told(stream) == [("online", "pass", 0.1)]  # equal is good enough, and no "inconclusive" at 600 labels
    assert stream.state.evidence.trials["online"].is_over
    assert not [key for key in stream.state.waiting if key & 3 == 0]


def test_a_challenger_that_turns_out_worse_fails_at_any_time_also_between_its_steps(won):
    stream = won(rollout=Rollout(step_s=86_400, step_requests=200))
    stream.binary(3_000, champion=0.85, challenger=0.6, epoch=3, share=0.1)
    assert told(stream) == [("online", "fail", 0.1)]
    assert stream.checks()["evidence"].verdict == "fail"
    assert stream.checks()["step time"].verdict == "inconclusive"
    assert stream.told[0].n_labels < 600
    assert not stream.state.waiting
    after = won()
    after.binary(400, champion=0.8, challenger=0.8, epoch=3, share=0.1)
    after.binary(3_000, champion=0.9, challenger=0.6, epoch=3, share=0.1, until=lambda: len(after.told) > 1)
    assert told(after) == [("online", "pass", 0.1), ("online", "fail", 0.1)]


def test_arms_that_do_not_get_their_shares_make_the_step_an_error(won):
    stream = won()
    stream.binary(400, champion=0.8, challenger=0.9, epoch=3, share=0.5, lost=lambda number: number % 2 == 0)
    assert told(stream) == [("online", "error", 0.5)]
    assert stream.checks()["sample ratio"].verdict == "error"
    assert stream.checks()["sample ratio"].value < 0.001
    assert stream.checks()["errors"].verdict == "pass"


@pytest.mark.parametrize("seed", range(5))
def test_of_entities_each_counts_once_however_often_it_asks(seed, won):
    """Ten stations at half: seven of ten may well be the challenger's, but 700 of 1,000 requests would be a scandal."""
    stream = won(seed=seed)
    stream.binary(1_000, champion=0.8, challenger=0.9, epoch=3, share=0.5, entities=10)
    assert told(stream) == [("online", "pass", 0.5)]
    assert stream.checks()["sample ratio"].n == 10


def test_errors_are_compared_with_an_equal_slice_of_the_champion(won):
    stream = won(rollout=Rollout(step_s=600, step_requests=600), gates=Gates(min_labels=2_000))
    for number in range(600):
        wet = number % 2 == 0
        failing = "error" if number % 8 == 0 else 0.9 if wet else 0.1
        stream.predict(wet, champion=0.9 if wet else 0.1, challenger=failing, epoch=3, share=0.5)
    assert told(stream) == [("online", "fail", 0.5)]
    errors, ratio = stream.checks()["errors"], stream.checks()["sample ratio"]
    assert errors.verdict == "fail"
    assert errors.n == 600
    assert ratio.verdict == "pass"  # the champion answered for it: an error, and no lost unit
    both = won()
    for number in range(600):
        value = "error" if number % 60 == 0 else 0.9
        both.predict(True, champion=value, challenger=value, epoch=3, share=0.5)
    assert told(both) == [("online", "fail", 0.5)]
    assert both.checks()["errors"].verdict == "pass"
    assert both.checks()["missing answers"].verdict == "fail"


def test_a_step_without_pairs_is_not_judged(won):
    stream = won()
    for number in range(600):
        stream.predict(True, champion=0.9, challenger=0.9, epoch=3, share=0.1, learned_to={"champion": number - 1})
    assert stream.told == []


def test_late_labels_of_the_shadow_and_of_the_step_before_do_not_count_for_the_step(won):
    stream = won()
    stream.binary(100, after=150, champion=0.8, challenger=0.9, epoch=2)
    stream.binary(250, champion=0.8, challenger=0.9, epoch=3, share=0.1, after=100)
    stream.binary(250, champion=0.8, challenger=0.9, epoch=4, share=0.5)
    trial = stream.state.evidence.trials["canary"]
    assert trial.step.share == 0.5
    assert trial.step.requests == 250
    assert trial.n <= 500


def test_labels_that_come_too_seldom_leave_the_step_without_a_verdict(won):
    stream = won(labels=Labels(mature_after_s=600, min_coverage=0.9))
    for number in range(800):
        late = None if number % 3 == 0 else 0
        stream.predict(number % 2 == 0, after=late, champion=0.9, challenger=0.9, epoch=3, share=0.1)
    assert told(stream) == [("online", "inconclusive", 0.1)]
    assert stream.checks()["coverage"].verdict == "inconclusive"


def test_after_a_rollback_the_next_champion_is_another_rival_and_the_canary_is_closed(won):
    stream = won()
    stream.binary(100, champion=0.8, challenger=0.9, epoch=3, share=0.1)
    stream.binary(300, champion=0.8, challenger=0.8, epoch=4, runs={"champion": "z", "challenger": "b"})
    trials = stream.state.evidence.trials
    assert trials["canary"].is_over
    assert (trials["online"].old, trials["online"].new, trials["online"].is_over) == ("z", "b", False)
    stream.binary(3_000, champion=0.7, challenger=0.95, epoch=4, runs={"champion": "z", "challenger": "b"})
    stream.told.clear()
    stream.binary(250, champion=0.8, challenger=0.9, epoch=5, share=0.1, runs={"champion": "z", "challenger": "b"})
    assert told(stream) == [("online", "pass", 0.1)]
    assert stream.told[0].against == "z"


def test_a_canary_that_is_saved_and_loaded_goes_on_as_if_nothing_had_been(won):
    whole, saved = won(), won()
    for number in range(420):
        for stream in (whole, saved):
            stream.binary(1, champion=0.8, challenger=0.85, epoch=3 + number // 210, share=(0.1, 0.5)[number // 210])
        if number % 60 == 0:
            saved.state = pickle.loads(pickle.dumps(saved.state))
    assert saved.told == whole.told
    assert len(whole.told) == 2


def test_the_entities_remembered_of_a_step_are_bounded():
    step = None
    for number in range(3 * UNITS):
        made = Answered(id=str(number), predictions={}, epoch=1, entity=f"e{number}", served="champion", share=0.1)
        step = step_of(step, made, number, 0)
        step.count(made, "b", (True, True), None, number)
    assert (len(step.seen), sum(step.units), step.requests) == (UNITS, UNITS, 3 * UNITS)
    assert len(pickle.dumps(step)) < 60_000
    assert isinstance(step, Step)
