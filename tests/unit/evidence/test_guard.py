"""Behind a promotion: the previous model goes on learning and answering in shadow, and the new champion must hold."""

import pytest

from headrace.schemas.policies import Gates, Labels

AFTER = {"champion": "b", "previous": "a"}


def promoted(after_a_while, **policies):
    """Run b was promoted over run a at epoch 3."""
    return after_a_while(**policies).binary(60, champion=0.8, challenger=0.85, epoch=2)


def test_a_new_champion_that_is_ten_points_worse_fails(after_a_while):
    stream = promoted(after_a_while)
    stream.binary(2_500, champion=0.7, previous=0.8, epoch=3, runs=AFTER)
    told, checks = stream.told[0], stream.checks()
    assert stream.verdicts == [("guard", "fail")]
    assert (told.run, told.against, told.epoch) == ("b", "a", 3)
    assert 200 <= told.n_labels < 1_000
    assert checks["evidence"].value >= checks["evidence"].limit == pytest.approx(100)


@pytest.mark.parametrize("seed", range(3))
def test_a_new_champion_that_is_as_good_as_the_previous_one_passes(seed, after_a_while):
    stream = promoted(after_a_while, seed=seed, gates=Gates(guard_labels=900))
    stream.binary(1_500, champion=0.8, previous=0.8, epoch=3, runs=AFTER)
    assert stream.verdicts == [("guard", "pass")]
    assert stream.told[0].n_labels == 900


def test_a_new_champion_that_looks_worse_and_is_not_proven_so_is_watched_for_longer(after_a_while):
    stream = promoted(after_a_while, gates=Gates(guard_labels=250, max_labels=400))
    stream.binary(399, champion=0.75, previous=0.8, epoch=3, runs=AFTER)
    assert stream.told == []
    stream.binary(1, champion=0.75, previous=0.8, epoch=3, runs=AFTER)
    assert stream.verdicts == [("guard", "inconclusive")]


def test_before_two_hundred_pairs_the_guard_says_nothing(after_a_while):
    stream = promoted(after_a_while)
    stream.binary(199, champion=0.1, previous=0.9, epoch=3, runs=AFTER)
    assert stream.told == []
    stream.binary(1, champion=0.1, previous=0.9, epoch=3, runs=AFTER)
    assert stream.verdicts == [("guard", "fail")]


def test_labels_of_predictions_from_before_the_promotion_do_not_count(after_a_while):
    """The challenger's last hundred rows in shadow get their labels when it is champion already."""
    stream = after_a_while().binary(100, after=60, champion=0.9, challenger=0.1, epoch=2)
    stream.binary(150, champion=0.8, previous=0.8, epoch=3, runs=AFTER)
    assert stream.state.evidence.trials["guard"].n == 150
    assert stream.told == []


def test_a_new_champion_that_leaves_rows_without_an_answer_fails_and_a_silent_previous_one_is_no_reason(after_a_while):
    stream = promoted(after_a_while)
    silent = promoted(after_a_while, gates=Gates(guard_labels=300))
    for number in range(300):
        gap = "error" if number % 50 == 0 else 0.9
        stream.predict(True, champion=gap, previous=0.9, epoch=3, runs=AFTER)
        silent.predict(True, champion=0.9, previous=gap, epoch=3, runs=AFTER)
    assert (stream.verdicts, silent.verdicts) == ([("guard", "fail")], [("guard", "pass")])


def test_the_next_challenger_is_tried_while_the_guard_still_watches(after_a_while):
    stream = promoted(after_a_while, gates=Gates(guard_labels=2_000))
    runs = AFTER | {"challenger": "c"}
    stream.binary(1_200, champion=0.8, previous=0.79, challenger=0.92, epoch=4, runs=runs, until=lambda: stream.told)
    assert stream.verdicts == [("online", "pass")]
    assert (stream.told[0].run, stream.told[0].against) == ("c", "b")
    guard, online = (stream.state.evidence.trials[kind] for kind in ("guard", "online"))
    assert guard.n == online.n > 199
    assert not stream.state.waiting


def test_where_predictions_decide_who_gets_a_label_the_guard_only_reports(after_a_while):
    stream = promoted(after_a_while, labels=Labels(influenced=True))
    stream.binary(1_000, champion=0.6, previous=0.8, epoch=3, runs=AFTER)
    assert stream.verdicts == [("guard", "inconclusive")]
    assert stream.checks()["evidence"].verdict == "fail"
