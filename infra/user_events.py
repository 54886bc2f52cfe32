"""What users give, as events: plain values, an id, a time with a zone."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from numbers import Real
from typing import Any

from headrace.errors import InvalidInput
from headrace.schemas.stream import ExampleArrived, Label, LabelArrived

ROW_KEYS = ("features", "id", "time", "entity", "label", "history")


def example(
    features: Mapping[str, Any],
    *,
    id: str | None = None,
    time: datetime | str | None = None,
    entity: str | None = None,
    label: Label | None = None,
    history: bool = False,
) -> ExampleArrived:
    """An example; `id` is made here where none is given, `time` is now. None and NaN among features are left out."""
    if not isinstance(features, Mapping):
        raise InvalidInput(f"features are a mapping of columns to values, not {features!r}")
    values = {str(name): plain(value) for name, value in features.items() if not is_absent(value)}
    return ExampleArrived(
        id=uuid.uuid4().hex if id is None else named("id", id),
        time=zoned(time),
        features=values,
        entity=None if entity is None else named("entity", entity),
        label=None if label is None else plain(label),
        history=history,
    )


def label_for(id: str, label: Label, *, entity: str | None = None, time: datetime | str | None = None) -> LabelArrived:
    """The answer to an example."""
    entity = None if entity is None else named("entity", entity)
    return LabelArrived(id=named("id", id), time=zoned(time), label=plain(label), entity=entity)


def from_row(row: Mapping[str, Any]) -> ExampleArrived | LabelArrived:
    """A mapping with what `Client.publish` takes; without `features` it is a label."""
    unknown = [key for key in row if key not in ROW_KEYS]
    if unknown:
        raise InvalidInput(f"a row has {', '.join(ROW_KEYS)}; not {', '.join(map(repr, unknown))}")
    if "features" in row:
        return example(**row)
    if row.get("id") is None or row.get("label") is None:
        raise InvalidInput(f"a row without features is a label, with id and label; not {dict(row)!r}")
    return label_for(row["id"], row["label"], entity=row.get("entity"), time=row.get("time"))


def new_request(kind: str) -> str:
    """An id for what a person asks."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def named(field: str, value: str) -> str:
    """An id or entity. Raises InvalidInput for what is no text, or empty."""
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{field} is a text of at least one character, not {value!r}")
    return plain(value)  # type: ignore[no-any-return]


def zoned(time: datetime | str | None) -> datetime:
    """An event time; now where none is given. Raises InvalidInput for one without a zone."""
    if time is None:
        return datetime.now(UTC)
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time)
        except ValueError as error:
            raise InvalidInput(f"time is RFC 3339 such as 2026-01-31T12:00:00Z, not {time!r}") from error
    if not isinstance(time, datetime):
        raise InvalidInput(f"time is a datetime with a zone, or RFC 3339 as text; not {time!r}")
    if time.tzinfo is None:
        raise InvalidInput(f"time needs a zone: {time.isoformat()}Z or {time.isoformat()}+01:00 (tzinfo=UTC in Python)")
    return time


def is_absent(value: Any) -> bool:
    """Whether a value stands for nothing: None or NaN, NumPy's of any width too."""
    return value is None or (isinstance(value, Real) and bool(value != value))


def plain(value: Any) -> Any:
    """A number, text or truth value as Python has it; NumPy's and pandas' scalars become theirs.

    Raises InvalidInput for anything else, and for what JSON cannot say: it would arrive as null.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"a number is finite, not {value}; leave out what is not known")
    if isinstance(value, str) and not _is_text(value):
        raise InvalidInput(f"a text has only what UTF-8 can say, and {value!r} has half a character")
    if isinstance(value, str | bool | int | float):
        return value if type(value) in (str, bool, int, float) else _base(value)
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "size", 1) == 1:
        return plain(item())
    raise InvalidInput(f"a value is a number, a text, true or false; not {type(value).__name__} ({value!r})")


def _is_text(value: str) -> bool:
    """Whether a text can be written: one of bytes that were no text has surrogates, which UTF-8 knows not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _base(value: str | bool | int | float) -> Any:
    """The builtin twin of a subclass's instance, such as numpy.float64 or an Enum of texts."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value
