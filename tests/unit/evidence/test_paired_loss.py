"""The loss that decides, and the metric beside it: what a comparison keeps is what all rows together give."""

import random
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.schemas.policies import Labels
from headrace.schemas.stream import Baselines
from headrace.services.evaluator import evidence
from headrace.services.evaluator.gates import Row
from headrace.services.evaluator.paired_loss import fixed_by, usable
from headrace.services.evaluator.running_metric import RunningMetric, part_of
from headrace.services.evaluator.scores import brier, decided, score
from headrace.statistics.delays import Delays

CLASSES = ["dry", "wet", "snow"]
TASKS = {
    "binary": ["accuracy", "balanced_accuracy", "logloss", "brier", "f1", "mcc", "auc"],
    "multiclass": ["accuracy", "balanced_accuracy", "logloss", "brier", "f1"],
    "regression": ["mae", "rmse", "r2"],
}
every_metric = pytest.mark.parametrize(("task", "metric"), [(task, one) for task in TASKS for one in TASKS[task]])


def answers(task, n, rng):
    """Answers and labels of a model that knows a little."""
    for _ in range(n):
        if task == "binary":
            label = rng.random() < 0.4
            yield min(max(rng.gauss(0.7 if label else 0.4, 0.2), 0.0), 1.0), label
        elif task == "regression":
            label = rng.gauss(3, 2)
            yield label + rng.gauss(0, 1), label
        else:
            label = rng.choice([*CLASSES, "dry"])
            weights = [rng.random() + (one == label) for one in CLASSES]
            yield {one: w / sum(weights) for one, w in zip(CLASSES, weights, strict=True)}, label


@every_metric
def test_a_metric_kept_pair_by_pair_is_the_one_that_river_computes(task, metric):
    rows = list(answers(task, 400, random.Random(5)))
    running = RunningMetric(metric)
    for value, label in rows:
        running.add(label, decided(task, value), part_of(metric, task, value, label))
    assert running.get() == pytest.approx(score(metric, task, rows), abs=0.01 if metric == "auc" else 1e-9)


def rule(task, metric, rows):
    """The rule as docs/statistics.md says it: the loss's name, and the loss of one answer."""
    if task == "regression":
        bound = 4 * statistics.median(abs(row.baselines.mean - row.label) for row in rows)
        if metric == "mae":
            return "absolute error", lambda value, label: min(abs(value - label) / bound, 1)
        return "squared error", lambda value, label: min(abs(value - label) / bound, 1) ** 2
    counts = Counter(row.label for row in rows)
    rarest = min(counts.values())
    if metric == "balanced_accuracy" or rarest < 0.1 * len(rows):
        weights = {label: rarest / count for label, count in counts.items()}
        return "class-weighted Brier", lambda value, label: weights[label] * brier(task, value, label)
    if metric == "accuracy":
        return "0/1 loss", lambda value, label: float(decided(task, value) != label)
    return "Brier", lambda value, label: brier(task, value, label)


@every_metric
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_a_metric_decides_by_the_loss_that_its_rule_says(task, metric, share):
    rng = random.Random(6)
    rare = {"binary": True, "multiclass": "snow"}.get(task)
    rows = [
        Row({}, rare if rare is not None and rng.random() < share else label, Baselines(mean=1.0), "s", 0, 0)
        for _, label in answers(task, 300, rng)
    ]
    name, loss = rule(task, metric, rows)
    fixed = fixed_by(task, metric, rows)
    assert fixed.kind == name
    for value, label in answers(task, 100, rng):
        assert fixed.of(value, label) == loss(value, label)


@given(st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=3)), st.booleans())
def test_whatever_an_arm_answers_its_loss_lies_between_0_and_1(value, label):
    rows = [Row({}, index % 2 == 0, Baselines(mean=0.5), "s", 0, 0) for index in range(10)]
    for metric in ("accuracy", "brier", "balanced_accuracy"):
        assert 0 <= fixed_by("binary", metric, rows).of(usable("binary", value), label) <= 1


@given(st.dictionaries(st.sampled_from([*CLASSES, "hail"]), st.floats()), st.sampled_from(CLASSES))
def test_whatever_is_said_of_classes_its_loss_lies_between_0_and_1(value, label):
    rows = [Row({}, CLASSES[index % 3], Baselines(), "s", 0, 0) for index in range(9)]
    for metric in ("accuracy", "brier", "balanced_accuracy"):
        assert 0 <= fixed_by("multiclass", metric, rows).of(usable("multiclass", value), label) <= 1


@given(st.floats(), st.floats(-1e6, 1e6))
def test_whatever_number_is_said_its_loss_lies_between_0_and_1(value, label):
    rows = [Row({}, float(index), Baselines(mean=3.0), "s", 0, 0) for index in range(9)]
    for metric in ("mae", "rmse"):
        assert 0 <= fixed_by("regression", metric, rows).of(usable("regression", value), label) <= 1


# --- how long labels take ---------------------------------------------------------------------------------


def test_too_few_delays_do_not_tell_how_long_to_wait_for_a_label():
    delays, labels = Delays(), Labels(ttl_s=1_000)
    for known in (24, 25):
        while delays.n < known:
            delays.add(5_000)
        assert (evidence._mature_ms(delays, labels) == 1_000_000) == (known == 24)
