"""A contract from a file: types, bounds with room to both sides, optional where cells are blank, listed values."""

from __future__ import annotations

import keyword
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from headrace.cli.cells import FALSE, TRUE, is_blank, is_infinite, to_number, to_text
from headrace.cli.files import Source
from headrace.errors import InvalidInput

LOOK_ROWS = 50_000
LISTED = 20  # more different texts than this are open text
CLASSES = 10  # a whole-number label with more different values than this is a number
OPEN_CLASSES = 100
ROOM = 0.5  # of the range seen, to both sides: a value beyond is more likely broken than new
# what a Contract (a pydantic model) or a feature dict cannot have as a name
TAKEN = {"copy", "json", "dict", "schema", "construct", "validate", "fields", "model_config"}

Kind = Literal["bool", "int", "float", "str"]


@dataclass(frozen=True)
class Column:
    """One column as the contract will say it."""

    name: str
    given: str
    kind: Kind
    optional: bool
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    longest: int = 0


@dataclass(frozen=True)
class LabelColumn:
    """The label: its kind, its classes, and what the simplest answers reach (a share, or a mean absolute error).

    `simplest` is always the most common class, or the mean; `no_change` is the row's before, in the file's order.
    """

    given: str
    kind: Literal["bool", "classes", "str", "float"]
    values: tuple[str, ...]
    simplest: float
    no_change: float


def infer(source: Source, roles: Sequence[str | None], label: str) -> tuple[list[Column], LabelColumn, int]:
    """The feature columns, the label, and the number of rows looked at. Raises InvalidInput."""
    cells: dict[str, list[Any]] = {column: [] for column in source.columns}
    rows = 0
    for row in source.rows():
        for column, values in cells.items():
            values.append(row.get(column))
        rows += 1
        if rows == LOOK_ROWS:
            break
    found = infer_label(label, cells[label])
    columns: list[Column] = []
    for column, values in cells.items():
        if column == label or column in roles:
            continue
        if all(is_blank(cell) for cell in values):
            continue  # nothing is known of it, and an unknown column is dropped
        columns.append(infer_column(column, values, {c.name for c in columns}))
    if not columns:
        raise InvalidInput(f"{source.path} has no column besides {label!r} to learn from")
    return columns, found, rows


def infer_column(given: str, cells: Sequence[Any], taken: set[str]) -> Column:
    """A feature column from its cells."""
    values = _told(cells)
    name, optional = identifier(given, taken), any(map(is_blank, cells))
    words = {to_text(value).lower() for value in values}
    if words <= {"true", "false"} or words <= {"yes", "no"}:
        return Column(name, given, "bool", optional)
    numbers = [to_number(value) for value in values]
    if all(map(_is_number, numbers)):
        kind: Kind = "int" if all(isinstance(number, int) for number in numbers) else "float"
        low, high = bounds(numbers, kind)
        return Column(name, given, kind, optional, low=low, high=high)
    texts = [to_text(value) for value in values]
    different = sorted(set(texts))
    if len(different) <= LISTED and (len(different) <= len(texts) / 4 or len(different) <= 2):
        return Column(name, given, "str", optional, values=tuple(different))
    return Column(name, given, "str", optional, longest=2 * max(len(text) for text in texts))


def infer_label(given: str, cells: Sequence[Any]) -> LabelColumn:
    """The label from its cells: two truth values, a few classes, open classes, or a number. Raises InvalidInput."""
    values = _told(cells)
    texts = Counter(to_text(value) for value in values)
    if len(texts) < 2:
        raise InvalidInput(f"the label {given!r} has {len(texts)} different values; there is nothing to learn")
    most = texts.most_common(1)[0][1] / len(values)
    stays = sum(to_text(one) == to_text(next_) for one, next_ in pairwise(values)) / (len(values) - 1)
    words = {text.lower() for text in texts}
    if len(words) == 2 and words & TRUE and words & FALSE and words <= TRUE | FALSE:
        return LabelColumn(given, "bool", (), most, stays)
    numbers = [to_number(value) for value in values]
    if all(map(_is_number, numbers)):
        whole = all(isinstance(number, int) for number in numbers)
        if not (whole and len(texts) <= CLASSES):
            mean = math.fsum(numbers) / len(numbers)
            off = math.fsum(abs(n - mean) for n in numbers) / len(numbers)
            moves = math.fsum(abs(b - a) for a, b in pairwise(numbers)) / (len(numbers) - 1)
            return LabelColumn(given, "float", (), off, moves)
        return LabelColumn(given, "classes", tuple(sorted(texts, key=int)), most, stays)
    if len(texts) <= OPEN_CLASSES:
        return LabelColumn(given, "classes", tuple(sorted(texts)), most, stays)
    return LabelColumn(given, "str", (), most, stays)


def bounds(numbers: Sequence[float], kind: Kind) -> tuple[float, float]:
    """Rounded bounds with room to both sides; what was never below 0, or above it, stays so.

    No room for what looks like a flag (a whole number with two values) or a share (from 0 to 1).
    """
    low, high = min(numbers), max(numbers)
    if (low, high) == (0, 1) or (kind == "int" and len(set(numbers)) == 2):
        return float(low), float(high)
    room = ROOM * ((high - low) or abs(high) or 1.0)
    below, above = _round(low - room, math.floor), _round(high + room, math.ceil)
    if kind == "int":
        below, above = math.floor(below), math.ceil(above)
    return (max(0.0, below) if low >= 0 else below), (min(0.0, above) if high <= 0 else above)


def identifier(given: str, taken: set[str]) -> str:
    """A Python name for a column: lower-case letters, digits and underscores, different from those taken."""
    text = unicodedata.normalize("NFKD", given).encode("ascii", "ignore").decode()
    text = re.sub(r"\(.*?\)|\[.*?\]", " ", text) if re.sub(r"\(.*?\)|\[.*?\]", "", text).strip() else text
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    name = re.sub(r"[^0-9a-zA-Z]+", "_", name).strip("_").lower() or "column"
    if name[0].isdigit() or keyword.iskeyword(name) or name in TAKEN or name.startswith("model_"):
        name = f"x_{name}"
    wanted, number = name, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def _told(cells: Sequence[Any]) -> list[Any]:
    """What is not blank; of numbers without the infinite ones, which are rejected whatever the contract says."""
    values = [cell for cell in cells if not is_blank(cell)]
    finite = [cell for cell in values if not is_infinite(cell)]
    return finite if finite and all(_is_number(to_number(cell)) for cell in finite) else values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _round(value: float, to: Any) -> float:
    """Two significant digits, away from the values seen."""
    if value == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return float(f"{to(value / step) * step:.12g}")
