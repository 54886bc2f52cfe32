"""Rows that an arm in shadow was too slow for: a challenger loses by them, what it is measured by does not."""

import pytest

from headrace.schemas.policies import Gates, Rollout

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
    missing = stream.checks()["missing answers"]
    assert (missing.verdict, missing.value, missing.n) == ("fail", 0.9, 200)
    told = "not asked, as too slow to run in shadow: the new run in 180 of these, the old one in 0 rows more"
    assert told in missing.detail


def test_a_challenger_that_was_shed_now_and_then_passes_all_the_same(after_a_while):
    stream = after_a_while()
    for number in range(2_000):
        row(stream, ("challenger",) if number % 150 == 149 else (), {"champion": 0.8, "challenger": 0.95}, epoch=3)
        if stream.told:
            break
    assert stream.verdicts == [("online", "pass")]
    assert "too slow" in stream.checks()["missing answers"].detail


def test_where_nothing_was_shed_nothing_speaks_of_it(after_a_while):
    stream = after_a_while().binary(2_000, champion=0.8, challenger=0.65, epoch=3)
    assert "too slow" not in stream.checks()["missing answers"].detail


@pytest.mark.parametrize("seed", range(3))
def test_a_previous_model_does_not_lose_by_the_rows_it_was_not_asked_in(seed, after_a_while):
    """Were they a loss of 1, the new champion would look ten points better than it is and stand the guard."""
    stream = after_a_while(seed=seed).binary(60, champion=0.8, challenger=0.85, epoch=2)
    watched(stream, 4_000, lambda number: number % 5 == 0, champion=0.68)
    assert stream.verdicts == [("guard", "fail")]
    assert stream.checks()["evidence"].n == stream.told[0].n_labels == stream.checks()["missing answers"].n


def test_a_guard_waits_for_the_pairs_that_it_takes(after_a_while):
    stream = after_a_while(gates=Gates(guard_labels=600)).binary(60, champion=0.8, challenger=0.85, epoch=2)
    watched(stream, 1_199, lambda number: number % 2 == 0)
    assert stream.told == []
    watched(stream, 1, lambda number: False)
    assert (stream.verdicts, stream.told[0].n_labels) == ([("guard", "pass")], 600)
    assert "the new run in 0 of these, the old one in 600 rows more" in stream.checks()["missing answers"].detail


def test_an_anchor_that_was_shed_compares_nothing_until_it_answers_again(after_a_while):
    stream = after_a_while(gates=Gates(min_labels=200), rollout=Rollout(anchor_s=0))
    learned = {"anchor": 50}
    for _ in range(1_000):
        row(stream, ("anchor",), {"champion": 0.6, "anchor": 0.8}, runs=ONE_RUN, learned_to=learned)
    assert stream.told == []
    for _ in range(3_000):
        row(stream, (), {"champion": 0.6, "anchor": 0.8}, runs=ONE_RUN, learned_to=learned)
    assert stream.verdicts == [("refresh", "fail")]


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
