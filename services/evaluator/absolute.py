"""The absolute limit of a first model and of a challenger: `Success`, on the rows that the offline gate judges."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from headrace.schemas.control import Check, Verdict
from headrace.schemas.policies import LOWER_IS_BETTER, Success
from headrace.schemas.stream import Label
from headrace.services.evaluator.doubt import NOT_WORSE, SLICE_ROWS
from headrace.services.evaluator.scores import Task, score

SUCCESS = "policy Success"  # where the rule stands
Answered = tuple[Any, Any, Label]  # what a challenger and the champion answered, None where one did not; the label


def meets(task: Task, success: Success, answered: Sequence[tuple[Any, Label]]) -> Check:
    """Whether the answers meet `Success`."""
    limit = success.at_least if success.at_least is not None else success.at_most
    told = partial(Check, name=success.metric, source=SUCCESS, limit=limit, n=len(answered))
    if not answered:
        return told(verdict="fail", detail="no row was answered")
    try:
        value = score(success.metric, task, answered)
    except (ValueError, TypeError) as problem:
        return told(verdict="error", detail=str(problem))
    return told(verdict="pass" if success.is_met(value) else "fail", value=value)


def meets_as_challenger(task: Task, success: Success, rows: Sequence[Answered]) -> Check:
    """The same for a challenger; where the champion misses `Success` on the same rows too, not being worse is enough.

    A model that misses it beside a better one, or beside none, is not to serve; but where what serves is bad, a rescue
    need not be good. Not being clearly worse is a check of its own. It needs many rows, so on fewer than 200 the metric
    must be no worse, and no miss on so few is a fail: the run is judged again with twice its labels.
    """
    check = meets(task, success, [(new, label) for new, _, label in rows if new is not None])
    both = [(new, old, label) for new, old, label in rows if new is not None and old is not None]
    if check.verdict != "fail" or not check.n:
        return check
    waits: Verdict = "inconclusive" if check.n < SLICE_ROWS else "fail"
    if not both:
        why = f"misses {success.asked}, and the champion answered none of these rows"
        return check.model_copy(update={"verdict": waits, "detail": why})
    new = score(success.metric, task, [(new, label) for new, _, label in both])
    old = score(success.metric, task, [(old, label) for _, old, label in both])
    where = f"misses {success.asked}; on the {len(both)} rows that both answered {new:.4f}, the champion {old:.4f}"
    if success.is_met(old):
        return check.model_copy(update={"verdict": waits, "detail": f"{where}, which meets it"})
    where += ", which misses it as well"
    is_worse = new > old if success.metric in LOWER_IS_BETTER else new < old
    if is_worse and len(both) < SLICE_ROWS:
        few = f"{where} and is better; judged again over more"
        return check.model_copy(update={"verdict": "inconclusive", "detail": few})
    return check.model_copy(update={"verdict": "pass", "detail": f'{where}: held to "{NOT_WORSE}" instead'})
