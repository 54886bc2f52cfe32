"""The gates as pure computations: from rows and answers to checks with their numbers.

The first model must meet `Success` and beat both baselines on the newest half of its rows, each row answered by the
state that had learned only what was known when the row's prediction was made (docs/statistics.md).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from headrace.schemas.control import Check, Verdict
from headrace.schemas.policies import Gates, Metric, Success
from headrace.schemas.stream import Baselines, Features, Label
from headrace.services.evaluator.scores import Task, brier, checked, decided, score
from headrace.verbs import Answer, Learn

MISSING_ALLOWED = 0.01  # a model that leaves more rows without an answer is no model
RARE = 0.1  # below this share of rows a class is rare, and errors on it weigh more
CLIP = 4.0  # losses of numbers are clipped at this many median errors of the baseline
HARD = {"accuracy"}
BALANCED = {"balanced_accuracy"}
SQUARED = {"rmse", "r2"}


class Row(NamedTuple):
    """A labelled example; `source`, `sequence` and `known_to` are its joiner's, `offset` is the log's."""

    features: Features
    label: Label
    baselines: Baselines
    source: str
    sequence: int
    known_to: int
    offset: int = 0


def learned_before(rows: Sequence[Row]) -> list[int]:
    """For each row, how many rows a model could have learned when the row's prediction was made."""
    places: dict[str, tuple[list[int], list[int]]] = {}
    for index, row in enumerate(rows):
        sequences, indices = places.setdefault(row.source, ([], []))
        sequences.append(row.sequence)
        indices.append(index)
    known = []
    for row in rows:
        sequences, indices = places[row.source]
        position = bisect_right(sequences, row.known_to)
        known.append(indices[position - 1] + 1 if position else 0)
    return known


def replay(rows: Sequence[Row], answer: Answer, learn: Learn, judged_from: int) -> list[Any]:
    """A fresh model's answers to the rows from `judged_from` on, each when it had learned what was known then.

    An answer that raises is None. A learn that raises rises.
    """
    waiting: dict[int, list[int]] = {}
    for index, known in enumerate(learned_before(rows)):
        if index >= judged_from:
            waiting.setdefault(min(known, index), []).append(index)
    answers: dict[int, Any] = {}
    for learned in range(len(rows) + 1):
        for index in waiting.pop(learned, ()):
            answers[index] = _answered(rows[index].features, answer)
        if not waiting:
            break
        learn(rows[learned].features, rows[learned].label)
    return [answers[index] for index in range(judged_from, len(rows))]


def frozen_answers(rows: Sequence[Row], answer: Answer) -> list[Any]:
    """The answers of a model that learns no more."""
    return [_answered(row.features, answer) for row in rows]


def first_model_checks(task: Task, rows: Sequence[Row], values: Sequence[Any], success: Success | None) -> list[Check]:
    """Every check of the first model on the judged rows: answered, `Success`, better than both baselines."""
    if not rows:
        return [Check(name="rows", verdict="fail", value=0, limit=1, n=0, detail="no labelled example to judge by")]
    n = len(rows)
    answers = [checked(task, value) for value in values]
    answered = [(a, row.label) for a, row in zip(answers, rows, strict=True) if a is not None]
    share = len(answered) / n
    checks = [
        Check(
            name="answered",
            verdict=_verdict(share >= 1 - MISSING_ALLOWED),
            value=share,
            limit=1 - MISSING_ALLOWED,
            n=n,
            detail=f"{len(answered)} of {n} rows got a usable answer",
        )
    ]
    if success is not None:
        checks.append(_success(task, success, answered))
    metric: Metric = success.metric if success else ("mae" if task == "regression" else "accuracy")
    name, loss = deciding_loss(task, metric, rows)
    model = sum(1.0 if a is None else loss(a, row.label) for a, row in zip(answers, rows, strict=True)) / n
    for rival, guess in _rivals(task):
        guesses = [guess(row.baselines) for row in rows]
        rival_loss = sum(1.0 if g is None else loss(g, row.label) for g, row in zip(guesses, rows, strict=True)) / n
        checks.append(
            Check(
                name=f"{name} below {rival}",
                verdict=_verdict(model < rival_loss),
                value=model,
                limit=rival_loss,
                n=n,
                detail=f"mean {name} of the model {model:.4f}, of {rival} {rival_loss:.4f}, over {n} rows",
            )
        )
    return checks


def deciding_loss(task: Task, metric: Metric, rows: Sequence[Row]) -> tuple[str, Callable[[Any, Label], float]]:
    """The loss per row, 0..1, by which a metric decides: its name and the function of (checked answer, label)."""
    if task == "regression":
        return _clipped(metric, rows)
    counts = Counter(row.label for row in rows)
    if metric in BALANCED or min(counts.values()) < RARE * len(rows):
        rarest = min(counts.values())
        weights = {label: rarest / count for label, count in counts.items()}
        return "class-weighted Brier", lambda value, label: weights[label] * brier(task, value, label)
    if metric in HARD:
        return "0/1 loss", lambda value, label: float(decided(task, value) != label)
    return "Brier", lambda value, label: brier(task, value, label)


def infra_checks(
    task: Task,
    gates: Gates,
    *,
    answers: Sequence[Any],
    slowest_ms: float,
    size_mb: float,
    memory_mb: float | None,
    is_taught: bool = True,
    judge_resources: bool = True,
) -> list[Check]:
    """What a snapshot must show in a clean process: answers to recent inputs, in time, in a bounded size.

    A model that was taught nothing (`first_model_at=0`) may answer None.
    """
    usable = sum(_is_plausible(task, checked(task, a)) or (a is None and not is_taught) for a in answers)
    time_ok = slowest_ms <= gates.predict_ms or not judge_resources
    memory_ok = memory_mb is None or memory_mb <= gates.model_mb or not judge_resources
    note = "" if judge_resources else "reported, not judged: one process for everything"
    return [
        Check(
            name="golden requests",
            verdict=_verdict(usable == len(answers) > 0),
            value=usable,
            limit=len(answers),
            n=len(answers),
            detail="finite answers to recent inputs",
        ),
        Check(name="predict ms", verdict=_verdict(time_ok), value=slowest_ms, limit=gates.predict_ms, detail=note),
        Check(name="size MB", verdict=_verdict(size_mb <= gates.model_mb), value=size_mb, limit=gates.model_mb),
        Check(name="memory MB", verdict=_verdict(memory_ok), value=memory_mb, limit=gates.model_mb, detail=note),
    ]


def overall(checks: Sequence[Check]) -> Verdict:
    """The verdict of all checks: the worst one."""
    found = {check.verdict for check in checks}
    return next((verdict for verdict in ("error", "fail", "inconclusive") if verdict in found), "pass")


def _success(task: Task, success: Success, answered: Sequence[tuple[Any, Label]]) -> Check:
    limit = success.at_least if success.at_least is not None else success.at_most
    if not answered:
        return Check(name=success.metric, verdict="fail", limit=limit, n=0, detail="no row was answered")
    try:
        value = score(success.metric, task, answered)
    except (ValueError, TypeError) as problem:
        return Check(name=success.metric, verdict="error", limit=limit, n=len(answered), detail=str(problem))
    return Check(
        name=success.metric, verdict=_verdict(success.is_met(value)), value=value, limit=limit, n=len(answered)
    )


def _rivals(task: Task) -> tuple[tuple[str, Callable[[Baselines], Any]], ...]:
    if task == "regression":
        return ("mean", lambda b: b.mean), ("no-change", lambda b: None if b.last is None else float(b.last))
    return ("majority", lambda b: b.majority), ("no-change", lambda b: b.last)


def _clipped(metric: Metric, rows: Sequence[Row]) -> tuple[str, Callable[[Any, Label], float]]:
    errors = [abs(row.baselines.mean - float(row.label)) for row in rows if row.baselines.mean is not None]
    bound = CLIP * median(errors) if errors else 0.0
    bound = bound or 1.0  # labels that never change: any error counts by its size
    if metric in SQUARED:
        return "squared error", lambda value, label: min(abs(value - float(label)) / bound, 1.0) ** 2
    return "absolute error", lambda value, label: min(abs(value - float(label)) / bound, 1.0)


def _is_plausible(task: Task, value: Any) -> bool:
    if value is None:
        return False
    if task == "binary" and not isinstance(value, bool):
        return bool(0 <= value <= 1)
    return not isinstance(value, dict) or all(0 <= p <= 1 for p in value.values())


def _answered(features: Features, answer: Answer) -> Any:
    try:
        return answer(features)
    except (MemoryError, OSError):
        raise
    except Exception:
        return None


def _verdict(passed: bool) -> Verdict:
    return "pass" if passed else "fail"
