"""Rows that an arm in shadow was too slow for: a challenger loses by them, what it is measured by does not."""

import pytest

from headrace.canary import place_of
from headrace.schemas.policies import Gates, Labels, Rollout

AFTER = {"champion": "b", "previous": "a"}
ONE_RUN = {"champion": "a", "anchor": "a"}


def row(stream, shed, accuracies, **more):
    """One prediction; `shed` names the arms that were not asked."""
    wet = stream.rng.random() < 0.5
    values = {
        alias: "shed" if alias in shed else (0.9 if wet == (stream.rng.random() < accuracy) else 0.1)
        for alias, accuracy in accuracies.items()
    }
    stream.predict(wet, **more, **values)


def promoted(after_a_while, labels=None, **gates):
    """Run b was promoted over run a at epoch 3."""
    return after_a_while(gates=Gates(**gates), labels=labels or Labels()).binary(
        60, champion=0.8, challenger=0.85, epoch=2
    )


def watched(stream, n, shed, champion=0.8, previous=0.8):
    """Rows behind a promotion; the previous model is shed in those whose number `shed` names."""
    for number in range(n):
        arms = ("previous",) if shed(number) else ()
        row(stream, arms, {"champion": champion, "previous": previous}, runs=AFTER, epoch=3)
        if stream.told:
            break
    return stream


def test_a_challenger_that_was_shed_fails_and_the_check_says_so_in_plain_words(after_a_while):
    stream = after_a_while()
    for number in range(200):
        row(stream, ("challenger",) if number % 10 else (), {"champion": 0.8, "challenger": 1.0}, epoch=3)
    assert stream.verdicts == [("online", "fail")]
    shed, missing = stream.checks()["shed"], stream.checks()["missing answers"]
    assert (shed.verdict, shed.value, shed.n) == ("fail", 0.9, 200)
    assert shed.detail.startswith(
        "shed: the new run was too slow to run in shadow and not asked in 180 of 200 rows, each a loss of 1"
    )
    assert "Rollout(shadow_share=0.1)" in shed.detail
    assert (missing.verdict, missing.value) == ("fail", 0.9)


def test_a_challenger_that_was_shed_now_and_then_passes_all_the_same(after_a_while):
    stream = after_a_while()
    for number in range(2_000):
        row(stream, ("challenger",) if number % 150 == 149 else (), {"champion": 0.8, "challenger": 0.95}, epoch=3)
        if stream.told:
            break
    assert stream.verdicts == [("online", "pass")]
    assert stream.checks()["shed"].verdict == "pass"


def test_where_nothing_was_shed_no_check_speaks_of_it(after_a_while):
    stream = after_a_while().binary(2_000, champion=0.8, challenger=0.65, epoch=3)
    assert "shed" not in stream.checks()


@pytest.mark.parametrize("seed", range(3))
def test_a_previous_model_does_not_lose_by_the_rows_it_was_not_asked_in(seed, after_a_while):
    """Were they a loss of 1, the new champion would look ten points better than it is and stand the guard."""
    stream = after_a_while(seed=seed).binary(60, champion=0.8, challenger=0.85, epoch=2)
    watched(stream, 4_000, lambda number: number % 5 == 0, champion=0.68)
    assert stream.verdicts == [("guard", "fail")]
    assert stream.checks()["evidence"].n == stream.told[0].n_labels == stream.checks()["missing answers"].n
    assert stream.checks()["shed"].verdict == "pass"


def test_a_guard_waits_for_the_pairs_that_it_takes(after_a_while):
    stream = promoted(after_a_while, guard_labels=600)
    watched(stream, 1_199, lambda number: number % 2 == 0)
    assert stream.told == []
    watched(stream, 1, lambda number: False)
    assert (stream.verdicts, stream.told[0].n_labels) == ([("guard", "pass")], 600)
    assert (stream.checks()["shed"].value, stream.checks()["shed"].n) == (0.5, 1_200)


def test_a_guard_whose_previous_model_is_always_shed_neither_passes_nor_rolls_back(after_a_while):
    stream = promoted(after_a_while, guard_labels=300, max_labels=700)
    watched(stream, 699, lambda number: True, champion=0.4)
    assert stream.told == []
    watched(stream, 1, lambda number: True)
    assert (stream.verdicts, stream.told[0].n_labels) == ([("guard", "inconclusive")], 0)
    check = stream.checks()["shed"]
    assert (check.verdict, check.value) == ("inconclusive", 1.0)
    assert "the old run was too slow to run in shadow and not asked in 700 of 700 rows" in check.detail
    assert stream.state.evidence.trials["guard"].is_over


def test_rows_that_were_shed_ripen_like_the_others(after_a_while):
    """One label that is late holds all of them up; counted as they come, the shed ones would end the guard alone."""
    stream = promoted(after_a_while, labels=Labels(mature_after_s=10_000), guard_labels=200, max_labels=200)
    row(stream, (), {"champion": 0.8, "previous": 0.8}, runs=AFTER, epoch=3, after=1_000)
    watched(stream, 999, lambda number: number % 4 == 0)
    assert stream.told == []
    watched(stream, 5, lambda number: False)
    assert (stream.verdicts, stream.told[0].n_labels) == ([("guard", "pass")], 200)


def test_an_anchor_that_was_shed_compares_nothing_until_it_answers_again(after_a_while):
    stream = after_a_while(gates=Gates(min_labels=200), rollout=Rollout(anchor_s=0))
    learned = {"anchor": 50}
    for _ in range(1_000):
        row(stream, ("anchor",), {"champion": 0.6, "anchor": 0.8}, runs=ONE_RUN, learned_to=learned)
    assert stream.told == []
    for _ in range(3_000):
        row(stream, (), {"champion": 0.6, "anchor": 0.8}, runs=ONE_RUN, learned_to=learned)
    assert stream.verdicts == [("refresh", "fail")]


def test_a_challenger_that_becomes_too_slow_in_its_canary_loses_it(after_a_while):
    """Its own units it serves, at whatever cost; for the others it is in shadow."""
    stream = after_a_while()
    stream.binary(2_000, champion=0.8, challenger=0.93, epoch=2, until=lambda: stream.told).told.clear()
    for _ in range(400):
        is_due = place_of("b", str(stream.predicted)) < 0.1
        shed = () if is_due else ("challenger",)
        row(stream, shed, {"champion": 0.8, "challenger": 0.95}, epoch=3, share=0.1, took_us={"champion": 10})
    assert stream.verdicts == [("online", "fail")]
    assert stream.checks()["shed"].verdict == "fail"
    assert stream.checks()["errors"].verdict == "pass"
    assert "latency" not in stream.checks()


def test_rows_it_was_shed_in_say_nothing_of_how_much_a_run_s_losses_vary(after_a_while):
    stream = after_a_while()
    for number in range(1_500):
        row(stream, ("challenger",) if 300 <= number < 600 else (), {"champion": 0.8, "challenger": 0.8}, epoch=2)
    row(stream, (), {"champion": 0.8, "challenger": 0.8}, epoch=3, runs={"champion": "b", "challenger": "c"})
    trial = stream.state.evidence.trials["online"]
    assert (trial.old, trial.new) == ("b", "c")
    assert trial.inflated < 2


def test_scores_begin_with_the_first_answer_and_count_what_was_shed_later(new_stream):
    stream = new_stream("classes")
    said = {"dry": 0.7, "wet": 0.3}
    stream.predict("dry", champion=said, challenger="shed")
    assert ("challenger", "b") not in stream.state.arms
    for answer in (said, "shed", said):
        stream.predict("dry", champion=said, challenger=answer)
    scores = stream.state.arms["challenger", "b"]
    assert (scores.tally.n, scores.failed) == (2, 1)
