"""How the values of a slice are named, wherever rows are told apart: `station=Cairns`, `wind=5..20`."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

TEXT = 60  # characters of a value in a name: open text may be of any length
MISSING, OTHER = "missing", "other"


@lru_cache(maxsize=256)
def range_names(edges: tuple[float, ...]) -> tuple[str, ...]:
    """The ranges between growing edges, each from its lower edge on.

    >>> range_names((5, 20))
    ('<5', '5..20', '>=20')
    """
    shown = [f"{edge:.12g}" for edge in edges]
    between = (f"{low}..{high}" for low, high in pairwise(shown))
    return (f"<{shown[0]}", *between, f">={shown[-1]}")
