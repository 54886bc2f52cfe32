"""Ranges of offsets, first inclusive and last exclusive."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

Ranges = tuple[tuple[int, int], ...]


def union(*many: Iterable[tuple[int, int]]) -> Ranges:
    """All of them in order, what touches made one.

    >>> union([(5, 9), (20, 30)], [(9, 12), (22, 25)])
    ((5, 12), (20, 30))
    """
    joined: list[tuple[int, int]] = []
    for first, after in sorted(part for ranges in many for part in ranges):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], after)
        else:
            joined.append((first, after))
    return tuple(joined)


def without(start: int, end: int, left_out: Iterable[tuple[int, int]]) -> Ranges:
    """What remains of one range.

    >>> without(0, 10, [(2, 4), (9, 20)])
    ((0, 2), (4, 9))
    """
    kept = []
    for first, after in sorted(left_out):
        if start < min(first, end):
            kept.append((start, min(first, end)))
        start = max(start, after)
    return (*kept, (start, end)) if start < end else tuple(kept)


def from_on(start: int, ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Those that are not over before an offset.

    >>> from_on(8, [(2, 8), (7, 9)])
    ((7, 9),)
    """
    return tuple(part for part in ranges if part[1] > start)


def meet(ranges: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> bool:
    """Whether an offset is in both.

    >>> meet([(0, 5)], [(5, 9)]), meet([(0, 5), (8, 9)], [(5, 9)])
    (False, True)
    """
    others = tuple(others)
    return any(first < end and start < after for first, after in ranges for start, end in others)


def covering(ranges: Iterable[tuple[int, int]], at_most: int) -> Ranges:
    """So many ranges at most that hold all of these: the nearest are joined, with what stands between.

    >>> covering([(1, 4), (7, 9), (90, 91)], at_most=9), covering([(1, 4), (7, 9), (90, 91)], at_most=2)
    (((1, 4), (7, 9), (90, 91)), ((1, 9), (90, 91)))
    """
    parts = union(ranges)
    gaps = [(before[1], part[0]) for before, part in pairwise(parts)]
    nearest = sorted(gaps, key=lambda gap: gap[1] - gap[0])
    return union(parts, nearest[: max(len(parts) - at_most, 0)])
