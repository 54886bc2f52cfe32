"""The gates as pure computations: from rows and answers to checks with their numbers.

The first model must meet `Success` and beat both baselines on the newest half of its rows, each row answered by the
state that had learned only what was known when the row's prediction was made (docs/statistics.md). A challenger must
answer there too, meet `Success` unless the champion misses it as well, and not be clearly worse than what the champion
answered to the same rows; that it is better is for the online gate to find out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from headrace.schemas.control import Check, Verdict
from headrace.schemas.policies import Gates, Success
from headrace.schemas.stream import Baselines, Features, Label
from headrace.services.evaluator.absolute import meets, meets_as_challenger
from headrace.services.evaluator.doubt import NOT_WORSE, SLICE_ROWS, Doubt
from headrace.services.evaluator.paired_loss import fixed_by, usable
from headrace.services.evaluator.scores import Task, checked, metric_of
from headrace.statistics.e_process import SOURCE, Inflation
from headrace.verbs import Answer, Learn

MISSING_ALLOWED = 0.01  # a model that leaves more rows without an answer is no model
SLICES_TOLD = 5
OWN_RULE = "Headrace's own rule"
SIZE = "policy Gates(model_mb=…)"


class Row(NamedTuple):
    """A labelled example; `source`, `sequence` and `known_to` are its joiner's, `offset` is the log's.

    `champion` is what the run answered that a challenger is compared with, None where it did not.
    """

    features: Features
    label: Label
    baselines: Baselines
    source: str
    sequence: int
    known_to: int
    offset: int = 0
    champion: Any = None


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
        nothing = "no labelled example to judge by"
        return [Check(name="rows", verdict="fail", value=0, limit=1, n=0, detail=nothing, source=OWN_RULE)]
    n = len(rows)
    answers = [checked(task, value) for value in values]
    answered = [(a, row.label) for a, row in zip(answers, rows, strict=True) if a is not None]
    checks = [_answered_share(len(answered), n)]
    if success is not None:
        checks.append(meets(task, success, answered))
    loss = fixed_by(task, metric_of(task, success), rows)
    model = sum(loss.of(answer, row.label) for answer, row in zip(answers, rows, strict=True)) / n
    for rival, guess in _rivals(task):
        rival_loss = sum(loss.of(guess(row.baselines), row.label) for row in rows) / n
        checks.append(
            Check(
                name=f"{loss.name} below {rival}",
                verdict=_verdict(model < rival_loss),
                value=model,
                limit=rival_loss,
                n=n,
                detail=f"mean {loss.told} of the model {model:.4f}, of {rival} {rival_loss:.4f}, over {n} rows",
                source=OWN_RULE,
            )
        )
    return checks


def challenger_checks(
    task: Task,
    rows: Sequence[Row],
    values: Sequence[Any],
    success: Success | None,
    gates: Gates,
    slices: Sequence[tuple[str, ...]] = (),
) -> list[Check]:
    """A challenger on the judged rows: answered, `Success`, not clearly worse than the champion, over all and by slice.

    Clearly: E of "it is not worse" reaches 1 / alpha (`headrace.statistics.e_process`), in one of K slices K / alpha,
    tempered as the online evidence is. A row that the champion did not answer compares nothing. `slices` names those of
    each row.
    """
    n = len(rows)
    answers = [checked(task, value) for value in values]
    champion = [checked(task, row.champion) for row in rows]
    checks = [_answered_share(sum(a is not None for a in answers), n)]
    if success is not None:
        shared = [(new, old, row.label) for new, old, row in zip(answers, champion, rows, strict=True)]
        checks.append(meets_as_challenger(task, success, shared))
    loss = fixed_by(task, metric_of(task, success), rows) if rows else None
    everywhere, champions, by_slice = Doubt(), Inflation(), dict[str, Doubt]()
    for index, (answer, row) in enumerate(zip(answers, rows, strict=True)):
        if loss is None or row.champion is None:
            continue
        old, new = loss.of(champion[index], row.label), loss.of(answer, row.label)
        champions.add(old)
        everywhere.add(old, new)
        for name in slices[index] if slices else ():
            by_slice.setdefault(name, Doubt()).add(old, new)
    if loss is None or not everywhere.evidence.n:
        nothing = "the champion answered none of these rows, so there is nothing to compare with"
        return [*checks, Check(name=NOT_WORSE, verdict="pass", n=0, detail=nothing, source=SOURCE)]
    inflated = everywhere.inflation.factor(champions.factor() if champions.is_known() else None)
    overall_check = everywhere.check(gates.alpha, inflated, loss.told)
    return [*checks, overall_check, *_in_slices(by_slice, gates, inflated, loss.told)]


def _in_slices(by_slice: Mapping[str, Doubt], gates: Gates, inflated: float, kind: str) -> list[Check]:
    """No slice of enough rows is clearly worse; one of fewer is told, and waited for where the policy names it."""
    large = {name: doubt for name, doubt in by_slice.items() if doubt.evidence.n >= SLICE_ROWS}
    checks = [doubt.check(gates.alpha / len(large), inflated, kind, name) for name, doubt in sorted(large.items())]
    for column in dict.fromkeys(name.partition("=")[0] for name in by_slice):
        small = [name for name in by_slice if name.partition("=")[0] == column and name not in large]
        if small:
            names = ", ".join(sorted(small)[:SLICES_TOLD]) + (" …" if len(small) > SLICES_TOLD else "")
            detail = f"{len(small)} with fewer than {SLICE_ROWS} rows: {names}"
            is_named = column in gates.slices
            checks.append(
                Check(
                    name=f"enough rows of each {column}",
                    verdict="inconclusive" if is_named else "pass",
                    value=min(by_slice[name].evidence.n for name in small),
                    limit=SLICE_ROWS,
                    detail=f"{detail}; "
                    + ("judged again over more" if is_named else "not judged, as Gates(slices=…) does not name it"),
                    slice=column,
                    source="policy Gates(slices=…)",
                )
            )
    return checks


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
    fine = sum(usable(task, a) is not None or (a is None and not is_taught) for a in answers)
    time_ok = slowest_ms <= gates.predict_ms or not judge_resources
    memory_ok = memory_mb is None or memory_mb <= gates.model_mb or not judge_resources
    note = "" if judge_resources else "reported, not judged: one process for everything"
    return [
        Check(
            name="golden requests",
            verdict=_verdict(fine == len(answers) > 0),
            value=fine,
            limit=len(answers),
            n=len(answers),
            detail="finite answers to recent inputs",
            source=OWN_RULE,
        ),
        _within("predict ms", slowest_ms, gates.predict_ms, time_ok, "policy Gates(predict_ms=…)", note),
        _within("size MB", size_mb, gates.model_mb, size_mb <= gates.model_mb, SIZE),
        _within("memory MB", memory_mb, gates.model_mb, memory_ok, SIZE, note),
    ]


def _within(name: str, value: float | None, limit: float, passed: bool, source: str, note: str = "") -> Check:
    return Check(name=name, verdict=_verdict(passed), value=value, limit=limit, detail=note, source=source)


def overall(checks: Sequence[Check]) -> Verdict:
    """The verdict of all checks: the worst one."""
    found = {check.verdict for check in checks}
    return next((verdict for verdict in ("error", "fail", "inconclusive") if verdict in found), "pass")


def _answered_share(answered: int, n: int) -> Check:
    share = answered / n if n else 0.0
    return Check(
        name="answered",
        verdict=_verdict(share >= 1 - MISSING_ALLOWED),
        value=share,
        limit=1 - MISSING_ALLOWED,
        n=n,
        detail=f"{answered} of {n} rows got a usable answer",
        source=OWN_RULE,
    )


def _rivals(task: Task) -> tuple[tuple[str, Callable[[Baselines], Any]], ...]:
    if task == "regression":
        return ("mean", lambda b: b.mean), ("no-change", lambda b: None if b.last is None else float(b.last))
    return ("majority", lambda b: b.majority), ("no-change", lambda b: b.last)


def _answered(features: Features, answer: Answer) -> Any:
    try:
        return answer(features)
    except (MemoryError, OSError):
        raise
    except Exception:
        return None


def _verdict(passed: bool) -> Verdict:
    return "pass" if passed else "fail"
