"""In which order rows become evidence, which of them do, and when a label came too late."""

import pickle

import pytest

from headrace.schemas.policies import Gates, Labels, Policies
from headrace.services.evaluator import ripening
from headrace.services.evaluator.ripening import Pair, Ripening, Waiting

FAST, SLOW = 5, 1_200  # predictions until a label of rain comes, and one of no rain


def lopsided(stream, n, **arms):
    """`n` predictions of a champion that is right four times of five, and of a challenger that cries rain.

    It finds 19 of 20 rainy rows and rather few of the dry ones: 5 points worse.
    """
    right = {"champion": {True: 0.8, False: 0.8}, "challenger": {True: 0.95, False: 0.55}}
    for _ in range(n):
        wet = stream.rng.random() < 0.5
        says = {alias: wet == (stream.rng.random() < right[alias][wet]) for alias in arms}
        stream.predict(
            wet, after=FAST if wet else SLOW, **{alias: 0.9 if rain else 0.1 for alias, rain in says.items()}
        )
        if stream.told:
            break


def promoted_of(runs, after_a_while):
    """In how many of the histories the worse challenger passes first."""
    promoted = 0
    for seed in range(runs):
        stream = after_a_while(0, seed=seed)
        lopsided(stream, SLOW + SLOW // 2, champion=True)
        lopsided(stream, 4 * SLOW, champion=True, challenger=True)
        promoted += stream.verdicts[0] == ("online", "pass")
    return promoted


@pytest.mark.long
def test_a_worse_challenger_is_not_promoted_by_labels_that_come_faster_for_one_class(after_a_while):
    assert promoted_of(20, after_a_while) == 0


@pytest.mark.long
def test_taken_as_labels_arrive_it_would_be_promoted_nearly_always(after_a_while, monkeypatch):
    put = Ripening.put

    def put_as_it_arrives(self, table, place, row, pending_from, known_ms):
        arrived[0] += 1
        return put(self, table, (0, arrived[0]), row, arrived[0] + 1, known_ms)

    class Arriving(Ripening):
        put = put_as_it_arrives

    arrived = [0]
    monkeypatch.setattr("headrace.services.evaluator.evidence.Ripening", Arriving)
    assert promoted_of(10, after_a_while) >= 9


def test_rows_become_evidence_in_the_order_of_their_predictions_whenever_their_labels_come(new_stream):
    """The same answers with labels at once, and with labels up to 50 rows late: the same verdict of the same pairs."""
    verdicts = []
    for latest in (0, 50):
        stream = new_stream(seed=3, labels=Labels(mature_after_s=3_600))
        stream.binary(400, champion=0.8)
        answers, delays = stream.rng, pickle.loads(pickle.dumps(stream.rng))
        for _ in range(700):
            wet = answers.random() < 0.5
            right = [answers.random() < 0.8, answers.random() < 0.93]
            arms = {
                alias: 0.9 if wet == one else 0.1 for alias, one in zip(("champion", "challenger"), right, strict=True)
            }
            stream.predict(wet, after=delays.randint(0, latest), **arms)
        stream.tick(hours=1)
        verdicts.append([(event.verdict, event.n_labels, event.checks[:3]) for event in stream.told])
    assert verdicts[0] == verdicts[1] != []


# --- maturity ---------------------------------------------------------------------------------------------


def test_a_label_that_never_comes_holds_the_evidence_up_only_until_the_maturity_mark(after_a_while):
    stream = after_a_while(labels=Labels(mature_after_s=600))
    stream.predict(True, after=None, champion=0.9, challenger=0.9)
    stream.binary(100, champion=0.8, challenger=0.9)
    assert stream.state.evidence.trials["online"].n == 0
    stream.binary(100, champion=0.8, challenger=0.9)  # 5 s each: more than ten minutes later
    trial = stream.state.evidence.trials["online"]
    assert 0 < trial.n < 200
    stream.tick(hours=1)
    assert trial.n == 200


def test_a_label_after_the_mark_counts_as_missing_and_the_verdict_says_the_mark(after_a_while):
    stream = after_a_while(labels=Labels(mature_after_s=600), gates=Gates(max_labels=300))
    for _ in range(40):
        stream.binary(9, champion=0.8, challenger=0.81)
        stream.binary(1, after=200, champion=0.8, challenger=0.81)
    stream.tick(hours=2)
    coverage = stream.checks()["coverage"]
    assert coverage.value == pytest.approx(0.9, abs=0.01)
    assert "or after 600 s" in coverage.detail
    assert coverage.verdict == "pass"


def test_without_a_policy_labels_mature_after_four_times_the_delay_of_nearly_all(new_stream):
    stream = new_stream()
    stream.binary(400, after=30, champion=0.8)
    stream.binary(50, after=30, champion=0.8, challenger=0.8)
    mature_ms = stream.state.evidence.trials["online"].ripening.mature_ms
    assert mature_ms == pytest.approx(4 * 30 * 5_000, rel=0.1)
    quick = new_stream()
    quick.binary(400, champion=0.8).binary(1, champion=0.8, challenger=0.8)
    assert quick.state.evidence.trials["online"].ripening.mature_ms == 60_000  # a tick's length at least


def test_where_a_missing_label_has_a_value_by_policy_evidence_waits_for_it(after_a_while):
    stream = after_a_while(labels=Labels(on_timeout=False))
    stream.binary(50, after=5, champion=0.8, challenger=0.9)
    for _ in range(50):
        stream.predict(False, after=40_000, inferred=True, champion=0.1, challenger=0.1)
    stream.binary(100, champion=0.8, challenger=0.9)
    trial = stream.state.evidence.trials["online"]
    assert (trial.n, trial.ripening.mature_ms) == (50, None)
    stream.tick(hours=60)
    assert trial.n == 200
    plain = after_a_while()
    plain.predict(False, after=0, inferred=True, champion=0.1, challenger=0.1)
    plain.predict(False, after=0, champion=0.1, challenger=0.1)
    assert plain.state.evidence.trials["online"].n == 1  # stand-ins that the policy does not know are none


def test_too_few_labels_are_no_basis_for_a_verdict(after_a_while):
    stream = after_a_while(labels=Labels(mature_after_s=60, min_coverage=0.9))
    for _ in range(800):
        stream.binary(1, champion=0.7, challenger=0.95)
        stream.predict(True, after=None, champion=0.9, challenger=0.9)
        if stream.told:
            break
    assert stream.verdicts == [("online", "inconclusive")]
    assert stream.checks()["coverage"].value == pytest.approx(0.5, abs=0.01)
    assert stream.checks()["evidence"].verdict == "pass"


def test_labels_that_come_late_for_one_predicted_class_are_no_basis_either(after_a_while):
    stream = after_a_while(labels=Labels(mature_after_s=300))
    for _ in range(2_000):
        wet = stream.rng.random() < 0.5
        arms = {"champion": stream.rng.random() < 0.7, "challenger": stream.rng.random() < 0.95}
        says = {alias: 0.9 if wet == right else 0.1 for alias, right in arms.items()}
        stream.predict(wet, after=0 if wet or stream.rng.random() < 0.7 else 100, **says)
        if stream.told:
            break
    assert stream.verdicts == [("online", "inconclusive")]
    assert "for one predicted class" in stream.checks()["coverage"].detail


# --- which rows -------------------------------------------------------------------------------------------


def test_a_row_whose_arms_had_not_learned_the_same_is_no_evidence(after_a_while):
    stream = after_a_while()
    for number in range(400):
        stream.predict(number % 2 == 0, champion=0.2, challenger=0.9, learned_to={"champion": 7, "challenger": 6})
    assert stream.told == []
    assert (stream.state.evidence.trials["online"].n, stream.state.evidence.trials["online"].unequal) == (0, 400)
    frozen = after_a_while(learning="frozen")  # there no arm learns any more, and each serves as it is
    frozen.binary(10, champion=0.8, challenger=0.8)
    assert frozen.state.evidence.trials["online"].n == 10


def test_evidence_begins_anew_with_another_run_and_late_rows_of_the_old_one_do_not_return(after_a_while):
    stream = after_a_while()
    stream.binary(150, champion=0.7, challenger=0.95, epoch=2)
    stream.binary(5, after=20, champion=0.7, challenger=0.95, epoch=2)
    stream.binary(100, champion=0.7, challenger=0.95, epoch=3, runs={"champion": "a", "challenger": "c"})
    trial = stream.state.evidence.trials["online"]
    assert (trial.new, trial.n, trial.epoch) == ("c", 100, 3)
    stream.binary(100, champion=0.7, challenger=0.95, epoch=4, runs={"champion": "d", "challenger": "c"})
    assert (stream.state.evidence.trials["online"].old, stream.state.evidence.trials["online"].n) == ("d", 100)
    assert stream.told == []


def test_before_two_hundred_labels_there_is_nothing_to_fix_a_loss_by(new_stream):
    stream = new_stream().binary(250, champion=0.8, challenger=0.9)
    assert stream.state.evidence.trials["online"].n == 51


# --- the state --------------------------------------------------------------------------------------------


def test_a_state_saved_in_the_middle_goes_on_alike_and_stays_small(after_a_while):
    whole, saved = (after_a_while(labels=Labels(mature_after_s=3_600)) for _ in range(2))
    for number in range(900):
        after = number % 37
        whole.binary(1, after=after, champion=0.75, challenger=0.9)
        saved.binary(1, after=after, champion=0.75, challenger=0.9)
        if number % 50 == 0:
            saved.state = pickle.loads(pickle.dumps(saved.state))
    assert saved.told == whole.told != []
    assert len(pickle.dumps(whole.state.evidence)) < 6_000


def test_more_rows_than_may_wait_are_thinned_all_alike(monkeypatch):
    monkeypatch.setattr(ripening, "WAITING", 1_000)
    table, waiting, pair = {}, Ripening(0, None), Pair(True, (0.0, 1.0), (True, False), (0.0, 0.0), (1.0, 1.0))
    for number in reversed(range(5_000)):
        waiting.put(table, (number % 2, number // 2), Waiting(number, pair), 0, 0)
        assert len(table) == waiting.waiting <= 1_000
    assert waiting.halvings == 3
    kept = {key >> 16 for key in table}
    assert kept == {number for number in range(2_500) if waiting._is_kept(number)}
    taken = 0
    for partition in (0, 1):
        waiting.pass_on(partition, 2_500, 0)
    while pairs := waiting.take(table):
        taken += len(pairs)
    assert (taken, waiting.waiting, table) == (2 * len(kept), 0, {})
    assert waiting.coverage() == pytest.approx(1.0, abs=0.15)


def test_policies_of_a_release_hold_for_the_next_trial_not_inside_one(after_a_while):
    stream = after_a_while().binary(10, champion=0.8, challenger=0.8)
    stream.state.evidence.take_up("binary", Policies(gates=Gates(max_labels=20)))
    stream.binary(50, champion=0.8, challenger=0.8)
    assert stream.told == []
