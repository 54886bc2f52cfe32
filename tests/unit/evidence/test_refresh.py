"""Newer revisions of the champion's run beside its anchor, an older one: which verdict comes, and of what."""

import pytest

from headrace.schemas.policies import Gates, Rollout

RUNS = {"champion": "a", "anchor": "a"}


def beside_an_anchor(stream, n, learned_to=50, epoch=1, until=None, runs=RUNS, **accuracies):
    """Predictions of a champion that learns on and of an anchor that learned so much; what is hard is so for both."""
    for _ in range(n):
        wet, hard = stream.rng.random() < 0.5, stream.rng.random()
        values = {
            alias: (0.9 if wet else 0.1) if hard < accuracy else (0.1 if wet else 0.9)
            for alias, accuracy in accuracies.items()
        }
        stream.predict(wet, runs=runs, epoch=epoch, learned_to={"anchor": learned_to}, **values)
        if until is not None and until():
            break
    return stream


def refreshes(stream):
    return [event for event in stream.told if event.stage == "refresh"]


def test_revisions_that_are_no_worse_pass_and_the_next_anchor_is_the_one_that_the_test_began_with(after_a_while):
    stream = beside_an_anchor(after_a_while(), 3_000, champion=0.8, anchor=0.8)
    (told,) = refreshes(stream)
    assert (told.verdict, told.run, told.against, told.snapshot_offset) == ("pass", "a", "a@50", 400)
    assert told.snapshot_uri is None
    check = stream.checks()["no worse"]
    assert check.value >= check.limit == pytest.approx(20)


@pytest.mark.parametrize("seed", range(3))
def test_revisions_that_are_ten_points_worse_fail(seed, after_a_while):
    stream = beside_an_anchor(after_a_while(seed=seed), 3_000, champion=0.7, anchor=0.8)
    (told,) = refreshes(stream)
    assert (told.verdict, told.against) == ("fail", "a@50")
    assert stream.checks()["evidence"].value >= stream.checks()["evidence"].limit == pytest.approx(100)
    assert "worse by more than 0.02" in stream.checks()["evidence"].detail


def test_an_anchor_stays_for_its_time(after_a_while):
    stream = after_a_while(rollout=Rollout(anchor_s=5_000))  # a row each 5 s
    assert not refreshes(beside_an_anchor(stream, 999, champion=0.8, anchor=0.8))
    assert [told.n_labels for told in refreshes(beside_an_anchor(stream, 5, champion=0.8, anchor=0.8))] == [1_001]


def test_before_two_hundred_pairs_nothing_is_said(after_a_while):
    stream = beside_an_anchor(after_a_while(), 199, champion=0.2, anchor=0.9)
    assert not refreshes(stream)
    assert [told.verdict for told in refreshes(beside_an_anchor(stream, 1, champion=0.2, anchor=0.9))] == ["fail"]


def test_one_revision_beside_itself_is_no_evidence(after_a_while):
    stream = after_a_while()
    for _ in range(300):
        stream.predict(True, runs=RUNS, learned_to={"anchor": 400, "champion": 400}, champion=0.9, anchor=0.9)
    assert "refresh" not in stream.state.evidence.trials


def test_an_anchor_of_the_champion_before_is_no_evidence_and_keeps_nobody_from_the_test_of_the_next(after_a_while):
    """An alias moves after the other: a predictor may look in between."""
    stream, epoch = after_a_while(), 2
    beside_an_anchor(stream, 30, epoch=epoch, runs={"champion": "b", "anchor": "a"}, champion=0.2, anchor=0.9)
    beside_an_anchor(stream, 3_000, 400, epoch, runs={"champion": "b", "anchor": "b"}, champion=0.7, anchor=0.8)
    (told,) = refreshes(stream)
    assert (told.verdict, told.run, told.against) == ("fail", "b", "b@400")


def test_each_anchor_is_tested_anew_and_rows_of_the_one_before_are_over(after_a_while):
    stream = after_a_while(gates=Gates(min_labels=100))
    beside_an_anchor(stream, 3_000, until=lambda: bool(stream.told), champion=0.8, anchor=0.8)
    assert stream.told[0].n_labels >= 100
    beside_an_anchor(stream, 50, champion=0.8, anchor=0.8)  # its verdict is not read yet
    assert len(refreshes(stream)) == 1
    beside_an_anchor(stream, 150, learned_to=400, epoch=2, champion=0.8, anchor=0.8)
    assert stream.state.evidence.trials["refresh"].n == 150
    assert stream.state.evidence.trials["refresh"].old == "a@400"


def test_an_anchor_that_stays_where_it_is_is_tested_again_from_the_next_epoch_on(after_a_while):
    stream = beside_an_anchor(after_a_while(), 3_000, champion=0.8, anchor=0.8)
    assert len(refreshes(stream)) == 1
    beside_an_anchor(stream, 3_000, epoch=2, champion=0.8, anchor=0.8)
    assert len(refreshes(stream)) == 2
