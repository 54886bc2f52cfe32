"""Checks of a snapshot that need no labels: its bytes answer recent inputs, in time, finitely, and not all alike.

They run on the bytes as they would be loaded, so they find what only saving and loading breaks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import dist, sqrt
from statistics import fmean
from time import perf_counter
from typing import Any

from headrace.schemas.control import QuickCheck
from headrace.schemas.stream import Features
from headrace.verbs import Answer

ASKED = 20  # recent inputs asked for each revision
REVISIONS = 50
SD_LIMIT = 6.0
FLOOR = 0.05  # least sd, as a share of the answers' usual range: 50 revisions over a few quiet inputs hardly differ
FEWEST = 10  # revisions before a jump of the mean can be told, and inputs before "constant" can


@dataclass(slots=True)
class History:
    """Mean and range of the answers of the last revisions, and whether the last one gave one answer to everything."""

    means: deque[float] = field(default_factory=lambda: deque(maxlen=REVISIONS))
    ranges: deque[float] = field(default_factory=lambda: deque(maxlen=REVISIONS))
    constant: bool = False


def quick_checks(
    load: Callable[[], Answer],
    recent: Sequence[Features],
    history: History,
    predict_ms: float,
    *,
    judge_time: bool = True,
) -> tuple[QuickCheck, ...]:
    """Every check in order; `load` makes the answer function from the bytes. Notes the revision in the history.

    A mean that jumps is noted as well, so a lasting jump holds two revisions back, not all that follow. Where the whole
    system is one process the time is told, not judged: every run of it gives the same.
    """
    try:
        answer = load()
    except MemoryError:
        raise
    except Exception:
        return (QuickCheck(name="loads", passed=False),)
    checks = [QuickCheck(name="loads", passed=True)]
    asked = list(recent)[-ASKED:]
    if not asked:
        return tuple(checks)
    values, fastest_ms, failed = _ask(answer, asked)
    checks.append(QuickCheck(name="answers", passed=not failed, value=len(asked) - failed, limit=len(asked)))
    in_time = fastest_ms <= predict_ms or not judge_time
    checks.append(QuickCheck(name="predict_ms", passed=in_time, value=fastest_ms, limit=predict_ms))
    if failed:
        return tuple(checks)
    constant = _is_constant(answer, values, recent)
    checks.append(QuickCheck(name="not_constant", passed=not constant or history.constant))
    history.constant = constant
    numbers = [number for number in map(_number, values) if number is not None]
    if numbers:
        checks.append(_mean(fmean(numbers), history))
        history.means.append(fmean(numbers))
        history.ranges.append(max(numbers) - min(numbers))
    return tuple(checks)


def _ask(answer: Answer, asked: Sequence[Features]) -> tuple[list[Any], float, int]:
    """The answers, the median time of one, and how many failed (a number that is not finite fails)."""
    values, times, failed = [], [], 0
    for features in asked:
        began = perf_counter()
        try:
            values.append(answer(features))
        except MemoryError:
            raise
        except Exception:
            failed += 1
        times.append(perf_counter() - began)
    return values, sorted(times)[len(times) // 2] * 1000, failed


def _is_constant(answer: Answer, values: Sequence[Any], recent: Sequence[Features]) -> bool:
    """Whether different inputs all get one answer; all inputs kept are asked before that is said."""
    if any(value != values[0] for value in values):
        return False
    inputs = list(recent)
    if len(inputs) < FEWEST or all(features == inputs[0] for features in inputs):
        return False
    return all(answer(features) == values[0] for features in inputs)


def _mean(mean: float, history: History) -> QuickCheck:
    if len(history.means) < FEWEST:
        return QuickCheck(name="mean", passed=True, value=mean)
    usual, count = fmean(history.means), len(history.means)
    sd = dist(history.means, [usual] * count) / sqrt(count)
    limit = SD_LIMIT * max(sd, FLOOR * fmean(history.ranges))
    return QuickCheck(name="mean", passed=abs(mean - usual) <= limit, value=abs(mean - usual), limit=limit)


def _number(value: Any) -> float | None:
    """What is averaged: P(true), a number, or the largest share of a class; None for a bare class."""
    if isinstance(value, dict):
        return float(max(value.values()))
    return float(value) if isinstance(value, float) else None
