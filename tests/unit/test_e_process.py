"""Bets against a bounded mean: fair while the doubt is right, whatever is bet on and however often one looks."""

import doctest
import itertools
import math
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.statistics import e_process
from headrace.statistics.e_process import BETS, EProcess, Inflation, LossOutOfBounds, better, futile, no_worse, worse

gains = st.floats(-1, 1)
forms = [better(), better(0.02), better(-0.5), futile(), worse(), no_worse()]
every_form = pytest.mark.parametrize("form", forms, ids=lambda form: f"sign {form.sign}, margin {form.margin}")


def fresh(form):
    return EProcess(form.margin, form.sign)


def e_of(form, sequence):
    process = fresh(form)
    for gain in sequence:
        process.add(gain)
    return math.exp(process.log_e())


def slowly(margin, sign, sequence):
    """E as its definition says, without logarithms."""
    stakes = [(k + 0.5) / BETS / (1 + abs(margin)) for k in range(BETS)]
    return math.fsum(math.prod(1 + stake * (sign * gain - margin) for gain in sequence) for stake in stakes) / BETS


# --- fairness ---------------------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize("discordance", [0.02, 0.3, 0.7])
def test_no_bet_is_expected_to_win_while_the_doubt_is_right(form, discordance):
    """Every sequence of six gains in {-1, 0, 1}, each with its probability: E is 1 in the mean, to the last digits."""
    mean = form.sign * form.margin
    spread = max(discordance, abs(mean))
    chance = {1.0: (spread + mean) / 2, -1.0: (spread - mean) / 2, 0.0: 1 - spread}
    total = 0.0
    for sequence in itertools.product(chance, repeat=6):
        total += math.prod(chance[gain] for gain in sequence) * e_of(form, sequence)
    assert total == pytest.approx(1, abs=1e-12)


@every_form
def test_well_within_the_doubt_bets_are_expected_to_lose(form):
    low, high = form.sign * form.margin - form.sign * 0.4, form.sign * form.margin + form.sign * 0.2
    total = sum(e_of(form, sequence) / 2**8 for sequence in itertools.product([low, high], repeat=8))
    assert total < 0.9


@pytest.mark.parametrize(("discordance", "labels"), [(0.02, 20_000), (0.1, 4_000), (0.3, 1_300)])
def test_two_equal_models_are_told_apart_in_one_of_twenty_looks_at_every_label(discordance, labels):
    """Peeked at every label: .042, .037, .041 of 1,000 runs of 20,000 labels crossed 20 (docs/statistics.md)."""
    rng, crossed, runs = random.Random(11), 0, 200
    for _ in range(runs):
        process, n = better(), 0
        while (n := n + math.ceil(math.log(1 - rng.random()) / math.log(1 - discordance))) <= labels:
            process.add(1.0 if rng.random() < 0.5 else -1.0)  # between discordant pairs E stands still
            if process.log_e() >= math.log(20):
                crossed += 1
                break
    assert crossed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert crossed  # neither is the test blind


# --- the numbers ------------------------------------------------------------------------------------------


@every_form
@given(st.lists(gains, max_size=40))
def test_e_is_what_its_definition_says(form, sequence):
    assert e_of(form, sequence) == pytest.approx(slowly(form.margin, form.sign, sequence), rel=1e-9)


@given(st.lists(gains, max_size=60), st.randoms())
def test_the_order_of_the_pairs_changes_nothing_but_the_last_digits(sequence, rng):
    shuffled = list(sequence)
    rng.shuffle(shuffled)
    assert e_of(better(), shuffled) == pytest.approx(e_of(better(), sequence), rel=1e-9)


@given(st.lists(gains, max_size=40), gains, gains)
def test_a_larger_gain_never_counts_less(sequence, one, other):
    low, high = sorted([one, other])
    assert e_of(better(), [*sequence, low]) <= e_of(better(), [*sequence, high]) * (1 + 1e-12)
    assert e_of(worse(), [*sequence, low]) >= e_of(worse(), [*sequence, high]) * (1 - 1e-12)


def test_without_any_difference_there_is_no_evidence_but_of_futility():
    assert e_of(better(), [0] * 5_000) == e_of(worse(), [0] * 5_000) == 1
    assert e_of(futile(), [0] * 300) < 20 < e_of(futile(), [0] * 520)


def test_evidence_too_large_for_a_number_is_still_a_logarithm():
    process = better()
    for _ in range(5_000):
        process.add(1.0)
    assert 3_000 < process.log_e() < 5_000
    lost = better()
    for _ in range(5_000):
        lost.add(-1.0)
    assert -150 < lost.log_e() < -50


def test_the_old_one_side_mixture_would_have_grown_for_losers_and_this_does_not():
    assert e_of(better(), [-1] * 60) < 0.1
    assert e_of(worse(), [-1] * 60) > 1e6


@pytest.mark.parametrize("gain", [1.0001, -1.5, 2.0, float("nan"), float("inf")])
def test_a_loss_that_was_not_scaled_is_refused(gain):
    """Two models' Brier sums over classes differ by up to 2: sixteen of the bets could lose more than they have."""
    with pytest.raises(LossOutOfBounds):
        better().add(gain)


def test_a_saved_process_goes_on_alike_and_is_small():
    rng = random.Random(2)
    process, inflation = better(), Inflation()
    for _ in range(1_000):
        process.add(gain := rng.uniform(-1, 1))
        inflation.add(gain)
    again, more = pickle.loads(pickle.dumps((process, inflation)))
    assert (again, more) == (process, inflation)
    assert len(pickle.dumps((process, inflation))) < 1_000


# --- neighbours that share their luck ---------------------------------------------------------------------


def inflation_of(sequence):
    inflation = Inflation()
    for gain in sequence:
        inflation.add(gain)
    return inflation


def test_independent_gains_inflate_nothing():
    rng = random.Random(3)
    found = inflation_of(rng.choice([-1, 0, 0, 0, 1]) for _ in range(50_000)).factor()
    assert 1 <= found < 1.2


def test_luck_that_lasts_fifty_rows_inflates_fifty_times():
    rng = random.Random(3)
    found = inflation_of(luck for _ in range(1_000) for luck in [rng.choice([-1, 1])] * 50).factor()
    assert found == pytest.approx(50, rel=0.1)


def test_before_twenty_blocks_the_factor_is_what_was_known_before_else_three():
    rng = random.Random(3)
    few = inflation_of(rng.choice([-1, 1]) for _ in range(300))
    assert (few.factor(), few.factor(before=1.4)) == (3.0, pytest.approx(1.4, abs=1))
    assert few.factor(before=7.0) == 7.0
    assert inflation_of([]).factor() == inflation_of([0] * 90).factor() == 1.0  # nothing to inflate


@given(st.lists(gains, min_size=2, max_size=400))
def test_the_factor_is_the_ratio_of_the_two_variances(sequence):
    from statistics import variance

    inflation = inflation_of(sequence)
    means = [math.fsum(sequence[i : i + 50]) / 50 for i in range(0, len(sequence) - 49, 50)]
    if len(means) < 2 or variance(sequence) < 1e-6:
        return
    assert inflation.factor(before=1.0) == pytest.approx(max(50 * variance(means) / variance(sequence), 1.0), rel=1e-6)


def test_the_example_in_the_docstring_is_true():
    assert doctest.testmod(e_process).failed == 0
