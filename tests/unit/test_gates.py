"""The gates decide by what was known when a prediction was made, and name every number."""

import math
import random

import pytest
from river import linear_model, metrics, naive_bayes, preprocessing, stats, stream

from headrace.schemas.policies import Gates, Success
from headrace.schemas.stream import Baselines
from headrace.services.evaluator import scores
from headrace.services.evaluator.gates import (
    Row,
    challenger_checks,
    first_model_checks,
    infra_checks,
    learned_before,
    overall,
    replay,
)
from headrace.services.evaluator.paired_loss import fixed_by


def rows_with_delay(delay, n=120, seed=1):
    """A stream whose labels come `delay` rows after their examples, in the order and with the numbers of a joiner.

    Row i is predicted before example i's label and after the labels of the examples up to i - delay - 1.
    """
    rng = random.Random(seed)
    rows, last, trues = [], None, 0
    for i in range(n):
        x = {"x": rng.gauss(0, 1)}
        label = x["x"] + rng.gauss(0, 0.5) > 0
        known = max(i - delay, 0)  # rows joined when example i passed
        rows.append(
            Row(
                x,
                label,
                Baselines(majority=trues * 2 > i, last=last),
                "/joiner/0",
                i * 65_536,
                (known - 1) * 65_536 if known else -1,
            )
        )
        last, trues = label, trues + label
    return rows


def model():
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def p_true(fitted, x):
    return fitted.predict_proba_one(x)[True]


def replayed(rows, judged_from):
    fresh = model()
    return replay(rows, lambda x: p_true(fresh, x), fresh.learn_one, judged_from)


@pytest.mark.parametrize("delay", [0, 1, 7, 50, 500])
def test_a_replay_answers_as_river_does_with_the_same_delay(delay):
    rows = rows_with_delay(delay)
    questions = stream.simulate_qa(((r.features, r.label) for r in rows), moment=None, delay=delay + 1)
    plain, expected = model(), []
    for _, x, *y in questions:
        if y[0] is None:
            expected.append(p_true(plain, x))
        else:
            plain.learn_one(x, y[0])
    assert replayed(rows, 0) == expected


def test_the_judged_half_is_answered_as_in_the_whole_replay():
    rows = rows_with_delay(7)
    assert replayed(rows, 60) == replayed(rows, 0)[60:]


def test_a_label_that_comes_late_is_not_known_to_the_examples_between():
    """Example 1's label comes after those of 2 and 3: the state that predicted 1 had learned example 0 only."""
    order = [0, 2, 3, 1]
    rows = [
        Row({"x": 1.0}, True, Baselines(), "/joiner/0", place * 65_536, -1 if number == 0 else 0)
        for place, number in enumerate(order)
    ]
    assert learned_before(rows) == [0, 1, 1, 1]
    seen, learned = [], []
    replay(rows, lambda x: seen.append(len(learned)), lambda x, y: learned.append(y), 0)
    assert seen == [0, 1, 1, 1]


def test_each_joiner_partition_numbers_its_own_outputs():
    """Two joiner partitions write to one log: a number of one says nothing of the other's."""
    rows = [
        Row({}, True, Baselines(), "/joiner/0", 900, -1),
        Row({}, True, Baselines(), "/joiner/1", 10, -1),
        Row({}, True, Baselines(), "/joiner/1", 20, 10),
        Row({}, True, Baselines(), "/joiner/0", 901, 900),
    ]
    assert learned_before(rows) == [0, 0, 2, 1]


def test_an_answer_that_raises_is_no_answer_and_no_end():
    def raises(x):
        raise KeyError("x")

    rows = rows_with_delay(0, n=10)
    assert replay(rows, raises, model().learn_one, 5) == [None] * 5


@pytest.mark.parametrize("error", [MemoryError, OSError])
def test_a_machine_in_trouble_is_no_answer_of_the_model(error):
    def raises(x):
        raise error

    with pytest.raises(error):
        replay(rows_with_delay(0, n=10), raises, model().learn_one, 0)


# --- the first model --------------------------------------------------------------------------------------


def judged(values, labels, task="binary", success=None, majority=None, last=None, mean=None):
    rows = [
        Row({}, label, Baselines(majority=majority, mean=mean, last=last), "s", i, -1) for i, label in enumerate(labels)
    ]
    return {check.name: check for check in first_model_checks(task, rows, values, success)}


def test_a_good_model_passes_every_check_with_its_numbers():
    labels = [True, False] * 50
    checks = judged(
        [0.9 if y else 0.1 for y in labels], labels, success=Success("accuracy", at_least=0.6), majority=True, last=True
    )
    assert overall(list(checks.values())) == "pass"
    assert (checks["accuracy"].value, checks["accuracy"].limit, checks["accuracy"].n) == (1.0, 0.6, 100)
    assert (checks["0/1 loss below majority"].value, checks["0/1 loss below majority"].limit) == (0.0, 0.5)
    assert set(checks) == {"answered", "accuracy", "0/1 loss below majority", "0/1 loss below no-change"}


def test_a_model_that_says_what_the_majority_says_fails():
    labels = [True, True, False] * 30
    checks = judged([0.9] * 90, labels, majority=True, last=False)
    assert checks["0/1 loss below majority"].verdict == "fail"
    assert checks["0/1 loss below no-change"].verdict == "pass"


def test_a_model_that_repeats_the_last_label_fails():
    labels = [True] * 40 + [False] * 60
    rows = [
        Row({}, y, Baselines(majority=False, last=labels[i - 1] if i else None), "s", i, -1)
        for i, y in enumerate(labels)
    ]
    values = [None] + [1.0 if y else 0.0 for y in labels[:-1]]
    checks = {c.name: c for c in first_model_checks("binary", rows, values, None)}
    assert checks["0/1 loss below no-change"].verdict == "fail"
    assert checks["0/1 loss below majority"].verdict == "pass"


def test_success_is_an_absolute_limit():
    labels = [True, False] * 50
    values = [0.9 if y != (i % 4 == 0) else 0.1 for i, y in enumerate(labels)]  # three of four are right
    assert judged(values, labels, success=Success("accuracy", at_least=0.8))["accuracy"].verdict == "fail"
    assert judged(values, labels, success=Success("accuracy", at_least=0.75))["accuracy"].verdict == "pass"


def test_rows_without_an_answer_cost_the_full_loss_and_more_than_one_in_a_hundred_fail():
    labels = [True, False] * 50
    values = [0.9 if y else 0.1 for y in labels]
    assert judged([None, *values[1:]], labels, majority=True)["answered"].verdict == "pass"
    two = judged([None, math.nan, *values[2:]], labels, majority=True)
    assert two["answered"].verdict == "fail"
    assert two["0/1 loss below majority"].value == pytest.approx(0.02)


def test_no_rows_is_a_fail_and_not_a_crash():
    (check,) = first_model_checks("binary", [], [], None)
    assert check.verdict == "fail"


def test_a_rare_class_weighs_more_than_its_share():
    """At 5 % positives a model that always says no has no loss to speak of in 0/1, but half of it when weighted."""
    labels = ([True] + [False] * 19) * 10
    loss = fixed_by("binary", "accuracy", [Row({}, y, Baselines(), "s", 0, -1) for y in labels])
    assert loss.kind == "class-weighted Brier"
    assert loss.of(0.0, True) == pytest.approx(19 * loss.of(1.0, False))
    checks = judged([0.3 if y else 0.05 for y in labels], labels, majority=False, last=False)
    assert checks["class-weighted Brier below majority"].verdict == "pass"


@pytest.mark.parametrize("metric", ["brier", "logloss", "auc", "f1", "mcc"])
def test_metrics_without_a_loss_per_row_decide_by_brier(metric):
    rows = [Row({}, y, Baselines(), "s", 0, -1) for y in (True, False)]
    assert fixed_by("binary", metric, rows).kind == "Brier"


def test_numbers_are_judged_by_the_clipped_error_against_mean_and_no_change():
    labels = [float(i % 7) for i in range(70)]
    good = judged(
        [y + 0.1 for y in labels], labels, task="regression", mean=3.0, last=0.0, success=Success("mae", at_most=0.2)
    )
    assert overall(list(good.values())) == "pass"
    wild = judged([1e12] * 70, labels, task="regression", mean=3.0, last=0.0)
    below_mean = wild["scaled absolute error below mean"]
    assert below_mean.value == 1.0  # a diverged model cannot hide behind its own scale
    assert below_mean.verdict == "fail"
    # which is 4 times the mean's own median error, 2
    assert below_mean.detail.startswith("mean scaled absolute error (1 is an error of 8 or more) of the model 1.0000")


def test_a_metric_that_the_task_lacks_is_an_error_that_says_so():
    checks = judged([0.5, 0.5], [True, False], success=Success("mae", at_most=1))
    assert checks["mae"].verdict == "error"
    assert "binary label has no mae" in checks["mae"].detail


# --- infra ------------------------------------------------------------------------------------------------


def infra(**changes):
    numbers = {"answers": [0.2, 0.9], "slowest_ms": 1.0, "size_mb": 0.1, "memory_mb": 1.0} | changes
    return {check.name: check for check in infra_checks("binary", Gates(predict_ms=5, model_mb=10), **numbers)}


def test_a_fit_snapshot_passes():
    assert overall(list(infra().values())) == "pass"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"answers": [0.2, None]}, "golden requests"),
        ({"answers": [0.2, math.inf]}, "golden requests"),
        ({"answers": [0.2, 1.5]}, "golden requests"),
        ({"answers": []}, "golden requests"),
        ({"slowest_ms": 5.1}, "predict ms"),
        ({"size_mb": 10.1}, "size MB"),
        ({"memory_mb": 10.1}, "memory MB"),
    ],
)
def test_each_infra_limit_can_fail(change, name):
    checks = infra(**change)
    assert [check.name for check in checks.values() if check.verdict == "fail"] == [name]


def test_a_model_that_was_taught_nothing_may_have_no_opinion():
    assert infra(answers=[None, None], is_taught=False)["golden requests"].verdict == "pass"
    assert infra(answers=[None, math.nan], is_taught=False)["golden requests"].verdict == "fail"


def test_in_one_process_time_and_memory_are_reported_but_not_judged():
    checks = infra(slowest_ms=99.0, memory_mb=99.0, judge_resources=False)
    assert overall(list(checks.values())) == "pass"
    assert (checks["predict ms"].value, checks["memory MB"].value) == (99.0, 99.0)


# --- scores against River ---------------------------------------------------------------------------------


def mean_of(losses):
    mean = stats.Mean()
    for loss in losses:
        mean.update(loss)
    return mean.get()


def test_log_loss_and_accuracy_are_those_of_river_to_the_last_bit():
    rng = random.Random(3)
    rows = [(p, rng.random() < 0.4) for p in [0.0, 1.0, 0.5, *(rng.random() for _ in range(500))]]
    loss, accuracy = metrics.LogLoss(), metrics.Accuracy()
    for p, y in rows:
        loss.update(y, {False: 1 - p, True: p})
        accuracy.update(y, max({False: 1 - p, True: p}, key={False: 1 - p, True: p}.get))
    assert mean_of(scores.log_loss("binary", p, y) for p, y in rows) == loss.get()
    assert sum(scores.decided("binary", p) == y for p, y in rows) / len(rows) == accuracy.get()


def test_cross_entropy_is_that_of_river_where_a_class_that_is_not_named_has_no_probability():
    rows = [({"a": 0.7, "b": 0.3}, "a"), ({"a": 0.2, "b": 0.8}, "c"), ({"b": 1.0}, "b"), ({"a": 0.5, "b": 0.5}, "b")]
    loss = metrics.CrossEntropy()
    for value, label in rows:
        loss.update(label, {"c": 0.0, **value})
    assert mean_of(scores.log_loss("multiclass", v, y) for v, y in rows) == loss.get()
    assert scores.score("logloss", "multiclass", rows) == loss.get()
    assert scores.log_loss("multiclass", {"a": 1.0}, "c") == scores.log_loss("binary", 0.0, True)  # as its LogLoss


def test_a_tie_between_classes_goes_as_the_models_own_predict_one():
    bayes = naive_bayes.GaussianNB()
    for label in ("b", "a"):
        bayes.learn_one({"x": 1.0}, label)
    proba = bayes.predict_proba_one({"x": 1.0})
    assert proba["a"] == proba["b"]
    assert scores.decided("multiclass", proba) == bayes.predict_one({"x": 1.0})


def test_auc_counts_ordered_pairs_and_half_of_the_ties():
    rng = random.Random(5)
    values = [round(rng.random(), 1) for _ in range(60)]
    labels = [rng.random() < v for v in values]
    pairs = [
        (a > b) + (a == b) / 2
        for a, x in zip(values, labels, strict=True)
        if x
        for b, y in zip(values, labels, strict=True)
        if not y
    ]
    assert scores.auc(values, labels) == pytest.approx(sum(pairs) / len(pairs))
    assert scores.auc([0.1, 0.2], [True, True]) == 0.5


def test_brier_lies_between_0_and_1_for_any_number_of_classes():
    assert scores.brier("multiclass", {"a": 1.0, "b": 0.0}, "b") == 1.0
    assert scores.brier("multiclass", {"a": 1.0}, "never seen") == 1.0
    assert scores.brier("multiclass", {"a": 1.0}, "a") == 0.0
    assert scores.brier("binary", 0.75, False) == 0.5625


@pytest.mark.parametrize(
    ("metric", "task", "value"),
    [
        ("accuracy", "binary", 0.75),
        ("balanced_accuracy", "binary", 0.75),
        ("f1", "binary", 0.8),
        ("mcc", "binary", 0.577),
        ("auc", "binary", 1.0),
        ("brier", "binary", 0.125),
        ("mae", "regression", 0.5),
        ("rmse", "regression", 0.5),
        ("r2", "regression", 0.8),
    ],
)
def test_each_metric_of_success_can_be_computed(metric, task, value):
    binary = [(0.9, True), (0.7, True), (0.6, False), (0.2, False)]
    numbers = [(y + (0.5 if y % 2 else -0.5), float(y)) for y in (1, 2, 3, 4)]
    assert scores.score(metric, task, binary if task == "binary" else numbers) == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(
    ("task", "value", "usable"),
    [
        ("binary", 0.3, True),
        ("binary", True, True),
        ("binary", None, False),
        ("binary", {}, False),
        ("binary", math.nan, False),
        ("binary", "yes", False),
        ("multiclass", {"a": 1.0}, True),
        ("multiclass", {}, False),
        ("multiclass", {"a": math.nan}, False),
        ("multiclass", "a", True),
        ("regression", 3, True),
        ("regression", math.inf, False),
        ("regression", True, False),
    ],
)
def test_what_counts_as_an_answer(task, value, usable):
    assert (scores.checked(task, value) is not None) == usable


# --- challengers ------------------------------------------------------------------------------------------


def compared(own, champion, n=200, seed=3, success=None):
    """A challenger and a champion that are right with these chances, each on its own luck."""
    rng = random.Random(seed)
    labels = [rng.random() < 0.5 for _ in range(n)]
    values = [float(label if rng.random() < own else not label) for label in labels]
    answers = [float(label if rng.random() < champion else not label) for label in labels]
    rows = [
        Row({}, label, Baselines(), "/joiner/0", i, i, champion=answer)
        for i, (label, answer) in enumerate(zip(labels, answers, strict=True))
    ]
    return challenger_checks("binary", rows, values, success, Gates())


@pytest.mark.parametrize(("own", "champion", "verdict"), [(0.8, 0.6, "pass"), (0.7, 0.7, "pass"), (0.5, 0.8, "fail")])
def test_a_challenger_passes_unless_it_is_clearly_worse_than_the_champion_on_the_same_rows(own, champion, verdict):
    _, check = compared(own, champion)
    assert (check.name, check.verdict, check.n) == ("not worse", verdict, 200)
    assert (check.value < check.limit) == (verdict == "pass")
    assert check.limit == 20
    assert "mean 0/1 loss" in check.detail


def test_rows_that_the_champion_did_not_answer_compare_nothing():
    rows = [Row({}, True, Baselines(), "/joiner/0", i, i) for i in range(50)]
    answered, check = challenger_checks("binary", rows, [0.1] * 50, None, Gates())
    assert (answered.verdict, check.verdict, check.n) == ("pass", "pass", 0)


def test_a_challenger_that_leaves_rows_without_an_answer_fails_and_they_count_as_losses():
    rows = [Row({}, True, Baselines(), "/joiner/0", i, i, champion=0.9) for i in range(50)]
    answered, check = challenger_checks("binary", rows, [0.9] * 25 + [None] * 25, None, Gates())
    assert answered.verdict == check.verdict == "fail"


def right(times, of):
    """Answers to rows whose label is True, of which so many are right."""
    return [1.0] * times + [0.0] * (of - times)


ABSOLUTE = {
    "it meets the limit": (290, 295, 300, "pass", ""),
    "the champion meets it": (260, 280, 300, "fail", "which meets it"),
    "both miss it, and it is no worse": (150, 120, 300, "pass", 'which misses it as well: held to "not worse" instead'),
    "both miss it, and it is a little worse": (150, 155, 300, "pass", "which misses it as well"),
    "nothing to compare with": (150, None, 300, "fail", "the champion answered none of these rows"),
    "few rows: it meets the limit": (90, 95, 100, "pass", ""),
    "few rows: the champion meets it": (80, 95, 100, "inconclusive", "which meets it"),
    "few rows: both miss it, and it is no worse": (80, 80, 100, "pass", "which misses it as well"),
    "few rows: both miss it, and it is a little worse": (79, 80, 100, "inconclusive", "is better; judged again over"),
    "few rows: nothing to compare with": (80, None, 100, "inconclusive", "the champion answered none"),
}


@pytest.mark.parametrize("case", ABSOLUTE)
def test_a_challenger_meets_success_unless_what_serves_misses_it_on_the_same_rows(case):
    own, old, n, verdict, detail = ABSOLUTE[case]
    answers = [None] * n if old is None else right(old, n)
    rows = [Row({}, True, Baselines(), "/joiner/0", i, i, champion=answer) for i, answer in enumerate(answers)]
    checks = challenger_checks("binary", rows, right(own, n), Success("accuracy", at_least=0.9), Gates())
    absolute = next(check for check in checks if check.name == "accuracy")
    assert (absolute.verdict, absolute.value, absolute.limit, absolute.n) == (verdict, own / n, 0.9, n)
    assert detail in absolute.detail
    assert overall(checks) == verdict


def test_a_challenger_that_is_clearly_worse_than_a_champion_that_misses_success_fails_all_the_same():
    checks = compared(0.4, 0.7, success=Success("accuracy", at_least=0.9))
    assert {check.name: check.verdict for check in checks} == {
        "answered": "pass",
        "accuracy": "pass",
        "not worse": "fail",
    }


@pytest.mark.parametrize(("old", "verdict"), [(4.0, "pass"), (2.5, "inconclusive"), (1.0, "inconclusive")])
def test_of_errors_the_smaller_is_no_worse(old, verdict):
    rows = [Row({}, 0.0, Baselines(mean=9.0), "/joiner/0", i, i, champion=old) for i in range(100)]
    checks = challenger_checks("regression", rows, [3.0] * 100, Success("mae", at_most=2), Gates())
    assert next(check for check in checks if check.name == "mae").verdict == verdict


def sliced(sizes, worse_at, gates):
    """A champion that is right four times in five, and a challenger that always is but in one slice: checks by name."""
    rng = random.Random(5)
    rows, values, slices = [], [], []
    for name, size in sizes.items():
        for _ in range(size):
            label = rng.random() < 0.5
            answer = float(label if rng.random() < 0.8 else not label)
            place = len(rows)
            rows.append(Row({}, label, Baselines(), "/joiner/0", place, place, champion=answer))
            values.append(float(not label) if name == worse_at else float(label))
            slices.append((name,))
    return {check.name: check for check in challenger_checks("binary", rows, values, None, gates, slices)}


def test_a_slice_in_which_the_challenger_is_clearly_worse_fails_though_all_rows_together_pass():
    checks = sliced({"station=Cairns": 6_000, "station=Darwin": 200, "station=Perth": 200}, "station=Darwin", Gates())
    worse = checks["not worse at station=Darwin"]
    assert (worse.verdict, worse.n) == ("fail", 200)
    assert worse.limit == pytest.approx(3 * 20)  # three slices may be wrong together as often as one
    assert "mean 0/1 loss 1.0000, the old run's 0.1" in worse.detail
    assert {check.verdict for check in checks.values() if check is not worse} == {"pass"}


@pytest.mark.parametrize(("required", "verdict"), [((), "pass"), (("station",), "inconclusive")])
def test_a_slice_of_few_rows_is_told_and_waited_for_only_where_the_policy_names_its_column(required, verdict):
    checks = sliced({"station=Cairns": 600, "station=Darwin": 199}, "station=Darwin", Gates(slices=required))
    few = checks["enough rows of each station"]
    assert (few.verdict, few.value, few.limit) == (verdict, 199, 200)
    assert "1 with fewer than 200 rows: station=Darwin" in few.detail
    assert "not worse at station=Darwin" not in checks
    assert checks["not worse at station=Cairns"].limit == 20


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_no_rows_are_no_pass(task):
    answered, _ = challenger_checks(task, [], [], None, Gates())
    assert answered.verdict == "fail"
