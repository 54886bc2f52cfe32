"""Cells of a file as the contract's types. What cannot be converted stays: the validator says why it is rejected."""

from __future__ import annotations

import contextlib
import math
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from headrace.errors import InvalidInput
from headrace.schemas.contract import ContractSpec, FeatureSpec
from headrace.schemas.stream import Label

BLANKS = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
TRUE = frozenset({"true", "t", "yes", "y", "1", "1.0"})
FALSE = frozenset({"false", "f", "no", "n", "0", "0.0"})
DAY = re.compile(r"(?:19|20)\d{6}")  # 20260131 is a day before it is a second of 1970


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
    """A whole number where it is written as one, else a float; a text where no float is as large, else unchanged."""
    if isinstance(cell, Decimal):
        cell = str(cell)
    if not isinstance(cell, str):
        plain = _plain(cell)
        return str(plain) if is_infinite(plain) else plain  # JSON has no such number: it would arrive as null
    for kind in (int, float):
        try:
            number = kind(cell)
        except ValueError:
            continue
        return cell if is_infinite(number) or number != number or "_" in cell else number
    return cell


def is_infinite(cell: Any) -> bool:
    """Whether a cell is a number that no float can hold, or stands for one."""
    try:
        return isinstance(cell, str | int | float) and math.isinf(float(cell))
    except OverflowError:
        return True
    except ValueError:
        return False


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
    try:
        value = _from_text(cell.strip()) if isinstance(cell, str) else to_number(cell)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidInput(f"{place}: {cell!r} is no time (ISO 8601, or seconds since 1970)") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise InvalidInput(f"{place}: {cell!r} is no time")
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _from_text(text: str) -> datetime | int | float:
    if DAY.fullmatch(text):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text)
    number = to_number(text)
    return datetime.fromisoformat(number) if isinstance(number, str) else number


def _as_float(number: Any) -> Any:
    return float(number) if isinstance(number, int) and not isinstance(number, bool) else number


def _plain(cell: Any) -> Any:
    return cell.item() if hasattr(cell, "item") else cell
