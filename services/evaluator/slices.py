"""Which slices a row belongs to: one for each declared column, named `station=Cairns` or `wind=5..20`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from headrace.schemas.policies import SLICE_VALUES, Slice
from headrace.schemas.slices import MISSING, OTHER, TEXT, range_names


@dataclass(slots=True)
class Slicer:
    """The declared slices, and the values met in each: the first `SLICE_VALUES` in the log keep their names."""

    slices: tuple[Slice, ...]
    met: dict[str, dict[str, None]] = field(default_factory=dict)

    def names(self, features: Mapping[str, Any]) -> tuple[str, ...]:
        """The slices of a row, one for each declaration."""
        return tuple(f"{one.feature}={self._value(one, features.get(one.feature))}" for one in self.slices)

    def of_body(self, body: bytes) -> tuple[str, ...]:
        """The slices of an ExampleLabelled, from its bytes; nothing but the declared columns is decoded."""
        return self.names(_features_of(tuple(one.feature for one in self.slices))(body))

    def _value(self, one: Slice, value: Any) -> str:
        if value is None:
            return MISSING
        if one.edges:
            return range_names(one.edges)[bisect_right(one.edges, value)]
        text = ("false", "true")[value] if isinstance(value, bool) else str(value)
        text = text if len(text) <= TEXT else text[: TEXT - 1] + "…"
        met = self.met.setdefault(one.feature, {})
        if text not in met:
            if len(met) >= SLICE_VALUES:
                return OTHER
            met[text] = None
        return text


@lru_cache(maxsize=256)
def _features_of(names: tuple[str, ...]) -> Callable[[bytes], dict[str, Any]]:
    fields = [f"f{number}" for number in range(len(names))]
    columns: Any = msgspec.defstruct(
        "Columns", [(one, Any, None) for one in fields], rename=dict(zip(fields, names, strict=True)), gc=False
    )
    predicted: Any = msgspec.defstruct("Predicted", [("features", columns)], gc=False)
    decode = msgspec.json.Decoder(msgspec.defstruct("Sliced", [("prediction", predicted)], gc=False)).decode

    def read(body: bytes) -> dict[str, Any]:
        row: Any = decode(body)
        return dict(zip(names, msgspec.structs.astuple(row.prediction.features), strict=True))

    return read
