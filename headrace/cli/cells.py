"""Cells of a file as the contract's types. What cannot be converted stays: the validator says why it is rejected."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

from headrace.errors import InvalidInput
from headrace.schemas.contract import ContractSpec, FeatureSpec
from headrace.schemas.stream import Label

BLANKS = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
TRUE = frozenset({"true", "t", "yes", "y", "1", "1.0"})
FALSE = frozenset({"false", "f", "no", "n", "0", "0.0"})


def is_blank(cell: Any) -> bool:
    """Whether a cell stands for a missing value."""
    return cell is None or cell != cell or (isinstance(cell, str) and cell.strip().lower() in BLANKS)


def to_feature(cell: Any, f: FeatureSpec) -> Any:
    """The cell as its column's type; None where it is blank."""
    if f.values is not None and cell in f.values:
        return cell
    if is_blank(cell):
        return None
    if f.type == "str":
        return to_text(cell)
    if f.type == "bool":
        return to_truth(cell)
    number = to_number(cell)
    if f.type == "int":
        return int(number) if isinstance(number, float) and number.is_integer() else number
    return _as_float(number)


def to_label(cell: Any, spec: ContractSpec) -> Label:
    """The cell as the pipeline's label."""
    if spec.label.type == "bool":
        return to_truth(cell)  # type: ignore[no-any-return]
    return _as_float(to_number(cell)) if spec.label.type == "float" else to_text(cell)


def to_number(cell: Any) -> Any:
    """A whole number where it is written as one, else a float; unchanged where it is no finite number."""
    if not isinstance(cell, str):
        return _plain(cell)
    for kind in (int, float):
        try:
            number = kind(cell)
        except ValueError:
            continue
        return number if math.isfinite(number) and "_" not in cell else cell
    return cell


def to_truth(cell: Any) -> Any:
    """True or False for the usual words and 1 and 0; unchanged otherwise."""
    word = str(cell).strip().lower()
    return True if word in TRUE else False if word in FALSE else _plain(cell)


def to_text(cell: Any) -> str:
    """A text without surrounding spaces; 3.0 is "3"."""
    plain = _plain(cell)
    return str(int(plain) if isinstance(plain, float) and plain.is_integer() else plain).strip()


def to_time(cell: Any, place: str) -> datetime:
    """From ISO 8601, a date, or seconds since 1970; UTC where no zone is named. Raises InvalidInput naming `place`."""
    value = cell
    if isinstance(value, str):
        number = to_number(value.strip())
        try:
            value = datetime.fromisoformat(number) if isinstance(number, str) else number
        except ValueError:
            raise InvalidInput(f"{place}: {cell!r} is no time (ISO 8601, or seconds since 1970)") from None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise InvalidInput(f"{place}: {cell!r} is no time")
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _as_float(number: Any) -> Any:
    return float(number) if isinstance(number, int) and not isinstance(number, bool) else number


def _plain(cell: Any) -> Any:
    return cell.item() if hasattr(cell, "item") else cell
