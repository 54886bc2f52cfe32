"""The statistics against scipy, River and their definitions."""

import doctest
import pickle
import random
from fractions import Fraction
from math import comb, exp, pi

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river.drift import ADWIN
from scipy import stats

from headrace.statistics import alpha_spending, proportions
from headrace.statistics.alpha_spending import log_limit, next_rung, spent
from headrace.statistics.bins import commonest, count_numbers, count_texts, edges
from headrace.statistics.change_point import change_point
from headrace.statistics.delays import KEPT, LONGEST_MS, STEPS, Delays
from headrace.statistics.distances import benjamini_hochberg, chi_square, dispersion, more_often, psi
from headrace.statistics.proportions import against_the_rest, bonferroni, two_proportions
from headrace.statistics.rising import SUSPECT_ROWS, RisingMean
from headrace.statistics.sample_ratio import sample_ratio


def test_a_sample_fills_its_own_bins_equally():
    rng = np.random.default_rng(1)
    sample = rng.lognormal(size=5_000)
    counts = count_numbers(sample, edges(sample))
    assert len(counts) == 10
    assert set(counts) <= {499, 500, 501}


def test_a_value_that_is_common_has_a_bin_of_its_own():
    rng = np.random.default_rng(1)
    amounts = np.where(rng.random(2_000) < 0.6, 0.0, rng.exponential(size=2_000))
    inner = edges(amounts)
    at_zero = int(np.searchsorted(inner, 0.0, side="right"))
    assert count_numbers(amounts, inner)[at_zero] == (amounts == 0).sum()


def test_a_constant_column_has_bins_below_and_above_it():
    inner = edges([3.0] * 100)
    assert list(count_numbers([2.0, 3.0, 3.0, 4.0], inner)) == [1, 2, 1]


def test_texts_beyond_the_commonest_share_a_bin():
    places = commonest(["a", "b", "b", "c", "c"], at_most=2)
    assert places == {"b": 0, "c": 1}
    assert list(count_texts(["a", "b", "x"], places)) == [1, 0, 2]


def test_bins_need_a_sample():
    with pytest.raises(ValueError, match="sample"):
        edges([])


def test_the_index_is_the_divergence_both_ways_of_scipy():
    a, b = np.array([100, 300, 50, 20]), np.array([80, 10, 60, 40])
    p, q = (a + 0.5) / (a + 0.5).sum(), (b + 0.5) / (b + 0.5).sum()
    assert psi(a, b) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p))
    assert psi(a, a) == 0.0
    assert psi([*a, 0], [*b, 0]) == psi(a, b)


def test_the_index_of_two_equal_samples_is_as_large_as_its_theory_says():
    rng = np.random.default_rng(2)
    found = [psi(*(rng.multinomial(n, [0.1] * 10) for n in (2_000, 1_000))) for _ in range(400)]
    assert np.mean(found) == pytest.approx(9 * (1 / 2_000 + 1 / 1_000), rel=0.1)


def test_chi_square_is_that_of_scipy():
    rng = np.random.default_rng(3)
    for _ in range(50):
        a, b = rng.integers(20, 200, 8), rng.integers(20, 200, 8)
        assert chi_square(a, b) == pytest.approx(stats.chi2_contingency([a, b], correction=False).pvalue, rel=1e-9)


def test_rare_bins_are_taken_together():
    a, b = [100, 100, 2, 1, 3, 0], [90, 110, 1, 2, 3, 0]
    joint = stats.chi2_contingency([[100, 100, 6], [90, 110, 6]], correction=False).pvalue
    assert chi_square(a, b) == pytest.approx(joint)


def test_nothing_to_compare_is_no_difference():
    assert chi_square([0, 0], [5, 5]) == 1.0
    assert chi_square([9], [5]) == 1.0


def test_false_discoveries_are_those_of_scipy():
    rng = np.random.default_rng(4)
    for _ in range(50):
        p = np.concatenate([rng.random(15), rng.random(5) / 500])
        assert benjamini_hochberg(list(p), 0.05) == list(stats.false_discovery_control(p) <= 0.05)
    assert benjamini_hochberg([], 0.05) == []


def test_the_change_point_is_the_likeliest_split():
    rng = np.random.default_rng(5)
    losses = np.concatenate([rng.random(150) < 0.2, rng.random(90) < 0.6]).astype(float)

    def likelihood(at):
        return sum(stats.bernoulli.logpmf(part, part.mean()).sum() for part in (losses[:at], losses[at:]))

    assert change_point(losses, 20) == max(range(20, 221), key=likelihood)
    assert change_point(losses[:39]) is None


def test_a_change_of_losses_between_0_and_1_is_found_where_it_began():
    rng = np.random.default_rng(6)
    losses = np.concatenate([rng.beta(2, 8, 500), rng.beta(4, 6, 300)])
    assert abs(change_point(losses) - 500) < 25


def test_a_rise_is_found_when_river_finds_it_and_only_once():
    rng = random.Random(7)
    losses = [float(rng.random() < 0.2) for _ in range(3_000)] + [float(rng.random() < 0.5) for _ in range(3_000)]
    mine, rivers, alarms, detected = RisingMean(1e-4, 0.05), ADWIN(delta=1e-4), [], []
    for row, loss in enumerate(losses):
        rise = mine.update(loss)
        rivers.update(loss)
        if rise:
            alarms.append((row, rise))
        if rivers.drift_detected:
            detected.append(row)
    ((row, rise),) = alarms
    assert row == detected[0]
    assert 3_000 < row < 3_300
    assert rise.before == pytest.approx(0.2, abs=0.03)
    assert rise.recent > rise.before + 0.05


def test_an_improvement_is_no_alarm():
    rng = random.Random(8)
    losses = [float(rng.random() < 0.6) for _ in range(3_000)] + [float(rng.random() < 0.1) for _ in range(3_000)]
    rising = RisingMean(1e-4, 0.05)
    assert [row for row, loss in enumerate(losses) if rising.update(loss)] == []


def test_a_detection_whose_rise_is_still_small_is_confirmed_later_or_forgotten():
    def alarms(rest):
        rng, rising = random.Random(9), RisingMean(1e-4, 0.15)
        slow = [0.2 + 0.3 * min(i, rest) / 3_000 for i in range(6_000)]
        losses = [float(rng.random() < p) for p in [*[0.2] * 3_000, *slow]]
        found = []
        for row, loss in enumerate(losses):
            if rising.update(loss):
                found.append(row)
            assert rising.suspect_for <= SUSPECT_ROWS
        return found

    assert alarms(3_000)
    assert alarms(300) == []


def test_a_saved_detector_goes_on_as_if_it_had_not_been():
    rng = random.Random(10)
    losses = [float(rng.random() < 0.2) for _ in range(1_000)] + [float(rng.random() < 0.6) for _ in range(500)]
    straight, saved = RisingMean(1e-4, 0.05), RisingMean(1e-4, 0.05)
    for loss in losses:
        saved = pickle.loads(pickle.dumps(saved))
        assert straight.update(loss) == saved.update(loss)


def test_after_an_alarm_it_is_quiet_for_as_long_as_asked():
    rising = RisingMean(1e-4, 0.05)
    rng = random.Random(11)
    for _ in range(1_000):
        rising.update(float(rng.random() < 0.1))
    rising.be_quiet(400)
    assert [row for row in range(400) if rising.update(1.0)] == []


def test_rows_that_follow_from_each_other_are_seen_as_fewer_and_independent_ones_are_not():
    rng = np.random.default_rng(12)

    def parts(rho):
        values = rng.normal(size=2_000)
        for row in range(1, 2_000):
            values[row] += rho * values[row - 1]
        return [count_numbers(part, edges(values)) for part in np.split(values, 8)]

    alone = np.mean([dispersion(parts(0.0)) for _ in range(50)])
    wandering = np.mean([dispersion(parts(0.9)) for _ in range(50)])
    assert 1.0 <= alone < 1.15
    assert 3 < wandering < 8  # the nth Hermite component counts (1 + .9^n) / (1 - .9^n) times; 6 on average of nine
    assert chi_square([50, 50], [70, 30], 4.0) > chi_square([50, 50], [70, 30]) == chi_square([50, 50], [70, 30], 1.0)


def test_something_seen_more_often_is_a_binomial_test_given_the_sum():
    for a, n, b, m in ((0, 2_000, 10, 1_000), (5, 5_000, 3, 1_000), (40, 400, 60, 500)):
        exact = stats.binomtest(b, a + b, m / (n + m), alternative="greater").pvalue
        assert more_often(a, n, b, m) == pytest.approx(exact)
    assert more_often(3, 100, 0, 100) == 1.0


def test_a_mean_that_falls_is_not_even_suspect():
    rng, rising = random.Random(1), RisingMean(1e-4, 0.05)
    for number in range(4_000):
        assert rising.update(float(rng.random() < (0.5 if number < 2_000 else 0.1))) is None
        assert rising.before is None


# --- sample ratios ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("n", [1, 7, 60])
def test_a_sample_ratio_is_judged_by_twice_the_smaller_tail_as_the_definition_sums_it(n, share):
    chances = [comb(n, k) * Fraction(share) ** k * Fraction(1 - share) ** (n - k) for k in range(n + 1)]
    for seen in range(n + 1):
        tail = min(sum(chances[: seen + 1]), sum(chances[seen:]))
        assert sample_ratio(seen, n, share) == pytest.approx(float(min(2 * tail, 1)), rel=1e-9)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5])
def test_of_many_requests_it_is_the_binomial_test_of_scipy(share):
    for seen in (1_000_000 * share + apart * 1_000 * share for apart in (-5, -1, 0, 2, 8)):
        tails = [stats.binomtest(round(seen), 1_000_000, share, alternative=one).pvalue for one in ("less", "greater")]
        assert sample_ratio(round(seen), 1_000_000, share) == pytest.approx(min(1.0, 2 * min(tails)), rel=1e-6)


def test_a_right_sample_ratio_is_doubted_once_in_a_thousand_times_at_most():
    rng = np.random.default_rng(3)
    found = [sample_ratio(int(seen), 2_000, 0.1) < 0.001 for seen in rng.binomial(2_000, 0.1, size=20_000)]
    assert sum(found) <= 35  # 20 are expected; more than 35 come once in a thousand


@pytest.mark.parametrize("asked", [(3, 2, 0.5), (-1, 2, 0.5), (1, 2, 0.0), (1, 2, 1.0)])
def test_a_sample_ratio_without_meaning_is_refused(asked):
    with pytest.raises(ValueError, match="no sample ratio"):
        sample_ratio(*asked)


# --- proportions ------------------------------------------------------------------------------------------


def test_two_proportions_are_compared_as_by_pearsons_chi_square_of_scipy():
    for hits, n, others, m in ((3, 80, 20, 90), (50, 100, 50, 100), (1, 60, 40, 5_000), (0, 70, 9, 100)):
        table = [[hits, n - hits], [others, m - others]]
        exact = stats.chi2_contingency(table, correction=False).pvalue
        assert two_proportions(hits, n, others, m) == pytest.approx(exact)
    assert two_proportions(0, 50, 0, 90) == two_proportions(50, 50, 90, 90) == 1.0


def test_the_least_of_many_p_is_wrong_no_more_often_than_one():
    """Equal shares of five groups: each against the rest, at .05 all together."""
    rng = np.random.default_rng(6)
    wrong = 0
    for _ in range(2_000):
        hits = dict(enumerate(rng.binomial(300, 0.2, size=5).tolist()))
        misses = {group: 300 - n for group, n in hits.items()}
        wrong += bonferroni(against_the_rest(hits, misses, 50)) < 0.05
    assert 40 <= wrong <= 130  # 100 are the bound
    assert bonferroni([]) == 1.0
    assert bonferroni([0.4, 0.9]) == pytest.approx(0.8)


def test_each_group_is_compared_with_all_others_and_small_ones_are_left_out():
    hits, misses = {"a": 30, "b": 5, "c": 2}, {"a": 70, "b": 95, "c": 1}
    found = list(against_the_rest(hits, misses, 50))
    assert sorted(found) == pytest.approx(sorted([two_proportions(30, 100, 7, 103), two_proportions(5, 100, 32, 103)]))
    assert list(against_the_rest({}, misses, 50)) == list(against_the_rest(hits, {}, 50)) == []


# --- alpha spent over many tests --------------------------------------------------------------------------


def test_all_tests_together_may_be_wrong_no_more_often_than_one():
    shares = [spent(0.05, k) for k in range(1, 100_001)]
    assert shares[0] == pytest.approx(0.05 * 6 / pi**2)
    assert 0.05 * (1 - 1e-5) < sum(shares) < 0.05  # the rest of the sum is about .03 / k


def test_a_rung_of_the_ladder_is_met_by_whoever_spends_that_share():
    assert exp(log_limit(0.05, 0)) == pytest.approx(20)
    for k in (1, 2, 7, 1_000):
        assert exp(log_limit(0.05, k)) == pytest.approx(1 / spent(0.05, k))
    rungs = [0]
    while rungs[-1] <= 1_000:
        rungs.append(next_rung(rungs[-1]))
    assert rungs[:13] == [*range(11), 13, 17]
    assert len(rungs) < 40


@pytest.mark.parametrize("module", [alpha_spending, proportions], ids=lambda module: module.__name__)
def test_the_examples_say_what_they_give(module):
    assert doctest.testmod(module).failed == 0


# --- how long labels take ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**9), min_size=25, max_size=300), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_of_delays_is_that_of_numpy_at_most_a_bucket_too_large_and_never_too_small(found, share):
    delays = Delays()
    for one in found:
        delays.add(one)
    exact = int(np.quantile(found, share, method="inverted_cdf"))
    assert exact <= delays.quantile_ms(share) <= (exact + 1) * 2 ** (1 / STEPS) + 1


def test_a_garbled_time_is_a_long_delay_and_no_error():
    delays = Delays()
    delays.add(10**400)
    assert delays.quantile_ms(0.99) >= LONGEST_MS - 1


def test_the_newest_delays_decide_and_the_histogram_stays_small():
    delays = Delays()
    assert delays.quantile_ms(0.99) == 0
    for _ in range(4 * KEPT):
        delays.add(9_000_000)
    for _ in range(20 * KEPT):
        delays.add(100)
    assert delays.quantile_ms(0.99) == pytest.approx(100, rel=0.1)
    assert sum(delays.counts.values()) == delays.n <= 2 * KEPT
    assert len(delays.counts) < 200
