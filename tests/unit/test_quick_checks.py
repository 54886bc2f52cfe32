"""Quick checks: what a revision must show without any label, and what they must not take for a fault."""

import math
import random

import pytest

from headrace.services.trainer.quick_checks import ASKED, FEWEST, REVISIONS, History, quick_checks

RECENT = [{"x": float(n)} for n in range(40)]


def checked(answer, recent=RECENT, history=None, predict_ms=50.0, **more):
    checks = quick_checks(lambda: answer, recent, history if history is not None else History(), predict_ms, **more)
    return {check.name: check for check in checks}


def failed(found):
    return {name for name, check in found.items() if not check.passed}


def sigmoid(slope=0.1, shift=0.0):
    return lambda x: 1 / (1 + math.exp(-slope * (x["x"] - 20) - shift))


def test_a_model_that_answers_passes_with_its_numbers():
    found = checked(sigmoid())
    assert failed(found) == set()
    assert (found["answers"].value, found["answers"].limit) == (ASKED, ASKED)
    assert 0 <= found["predict_ms"].value < found["predict_ms"].limit == 50.0
    assert set(found) == {"loads", "answers", "predict_ms", "not_constant", "mean"}


def test_bytes_that_do_not_load_fail():
    def load():
        raise ValueError("torn")

    (check,) = quick_checks(load, RECENT, History(), 50.0)
    assert (check.name, check.passed) == ("loads", False)


def test_an_answer_that_raises_or_is_not_finite_fails():
    def answer(x):
        if x["x"] == 37:
            raise ZeroDivisionError
        return 0.5 + x["x"] / 100

    found = checked(answer)
    assert failed(found) == {"answers"}
    assert found["answers"].value == ASKED - 1


def test_slow_answers_fail():
    assert failed(checked(sigmoid(), predict_ms=1e-9)) == {"predict_ms"}
    assert failed(checked(sigmoid(), predict_ms=1e-9, judge_time=False)) == set()


def test_constant_answers_fail_only_when_the_revision_before_was_not_constant():
    history = History()
    assert failed(checked(lambda x: 0.5, history=history)) == {"not_constant"}
    assert failed(checked(lambda x: 0.5, history=history)) == set()
    assert failed(checked(sigmoid(), history=history)) == set()
    assert failed(checked(lambda x: 0.7, history=history)) == {"not_constant"}


def test_alike_on_the_newest_inputs_is_not_constant_where_older_ones_differ():
    assert failed(checked(lambda x: 0.9 if x["x"] >= 15 else 0.2)) == set()


@pytest.mark.parametrize("recent", [[{"x": 1.0}] * 40, RECENT[: FEWEST - 1]], ids=["one input", "few inputs"])
def test_one_answer_to_one_input_is_no_fault(recent):
    assert failed(checked(lambda x: 0.5, recent=recent)) == set()


def test_before_any_label_there_is_nothing_to_ask():
    assert set(checked(sigmoid(), recent=[])) == {"loads"}


def test_a_jump_of_the_mean_holds_two_revisions_back_and_then_is_the_new_normal():
    history = History()
    chance = random.Random(1)
    for _ in range(REVISIONS):
        assert failed(checked(sigmoid(shift=chance.gauss(0, 0.02)), history=history)) == set()
    jumps = [failed(checked(sigmoid(shift=-6.0), history=history)) for _ in range(4)]
    assert jumps == [{"mean"}, {"mean"}, set(), set()]


def test_a_mean_that_drifts_slowly_passes():
    history = History()
    for n in range(300):
        assert failed(checked(sigmoid(shift=n / 40), history=history)) == set()


def test_quiet_inputs_do_not_make_the_next_ones_a_jump():
    history = History()
    same = RECENT[:20]
    for _ in range(REVISIONS):
        checked(sigmoid(), recent=same, history=history)
    assert failed(checked(sigmoid(), recent=RECENT[3:23], history=history)) == set()


def test_classes_are_judged_by_their_largest_share_and_bare_classes_by_nothing():
    history = History()
    for _ in range(FEWEST + 1):
        checked(lambda x: {"a": 0.6 + x["x"] / 200, "b": 0.1}, history=history)
    assert failed(checked(lambda x: {"a": 0.1 + x["x"] / 4_000, "b": 0.1}, history=history)) == {"mean"}
    assert "mean" not in checked(lambda x: "a" if x["x"] > 30 else "b")


def test_out_of_memory_is_no_verdict():
    def answer(x):
        raise MemoryError

    with pytest.raises(MemoryError):
        checked(answer)
