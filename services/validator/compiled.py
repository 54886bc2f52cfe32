"""A contract compiled to decoders that check columns, types and bounds while they decode, in C."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from zlib import crc32

import msgspec

from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.stream import Time

NAME_LENGTH = 200  # of ids, entities and open labels: they are keys everywhere downstream
MAX_BYTES = 256 << 10  # a reject carries the bytes as base64 and must itself fit into a Kafka message
INT64 = (-(1 << 63), (1 << 63) - 1)

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH)]
encode = msgspec.json.Encoder().encode


class Loose(msgspec.Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """An example with any columns, by any names: what needs more work than forwarding, but no explanation."""

    features: dict[str, Any]
    id: Any = msgspec.UNSET
    time: Time | msgspec.UnsetType = msgspec.UNSET
    entity: Any = msgspec.UNSET
    label: Any = msgspec.UNSET
    history: bool | msgspec.UnsetType = msgspec.UNSET


decode_loose = msgspec.json.Decoder(Loose).decode


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a step needs of a contract.

    `quotes` and `label_quotes` count the quotation marks of a canonical example (with every column) and label: more
    of them mean a key given twice, which the decoder does not tell. An inline label adds `inline_quotes`.
    `fingerprint` makes bytes of a row, comparable within one `layout` (the high half of 64 bits).
    """

    spec: ContractSpec
    names: tuple[str, ...]
    own_name: dict[str, str]
    features: Any
    label: Any
    decode_example: Callable[[bytes], Any]
    decode_label: Callable[[bytes], Any]
    fingerprint: Callable[..., bytes]
    layout: int
    quotes: int
    label_quotes: int
    inline_quotes: int
    optional: bool
    texts: tuple[bool, ...]

    def quotes_of(self, row: tuple[Any, ...]) -> int:
        """The quotation marks of a canonical example of which some columns (None) are absent."""
        missing = [text for value, text in zip(row, self.texts, strict=True) if value is None]
        return self.quotes - 2 * len(missing) - 2 * sum(missing)


def compile_contract(spec: ContractSpec) -> Compiled:
    """Make the decoders of a contract."""
    features = msgspec.defstruct(
        "Features", [_field(f) for f in spec.features], kw_only=True, forbid_unknown_fields=True, frozen=True, gc=False
    )
    label = label_type(spec.label)
    entity: Any = ("entity", Name) if spec.entity else ("entity", None, None)
    example = msgspec.defstruct(
        "Example",
        [
            ("id", Name),
            ("time", Time),
            ("features", features),
            entity,
            ("label", label | None, None),
            ("history", bool, False),
        ],
        kw_only=True,
        forbid_unknown_fields=True,
        frozen=True,
        gc=False,
    )
    label_event = msgspec.defstruct(
        "Label",
        [("id", Name), ("time", Time), ("label", label), entity],
        kw_only=True,
        forbid_unknown_fields=True,
        frozen=True,
        gc=False,
    )
    texts = tuple(f.type == "str" for f in spec.features)
    # Keys and text values come in pairs of marks: id and time are both (8), an entity too (4), features a key (2).
    envelope = 8 + 4 * spec.entity
    inline = 4 if spec.label.type in ("str", "classes") else 2
    return Compiled(
        spec=spec,
        names=tuple(f.name for f in spec.features),
        own_name=_own_names(spec),
        features=features,
        label=label,
        decode_example=msgspec.json.Decoder(example).decode,
        decode_label=msgspec.json.Decoder(label_event).decode,
        fingerprint=_fingerprint(spec),
        layout=crc32(encode([(f.name, f.type, f.optional) for f in spec.features])) << 32,
        quotes=envelope + 2 + 2 * len(texts) + 2 * sum(texts),
        label_quotes=envelope + inline,
        inline_quotes=inline,
        optional=any(f.optional for f in spec.features),
        texts=texts,
    )


def label_type(label: LabelSpec) -> Any:
    """The msgspec type of a label's value."""
    if label.type == "classes":
        return Literal[tuple(label.values or ())]
    return {"bool": bool, "float": float, "str": Name}[label.type]


def _field(f: FeatureSpec) -> tuple[str, Any] | tuple[str, Any, None]:
    return (f.name, _type(f), None) if f.optional else (f.name, _type(f))


def _type(f: FeatureSpec) -> Any:
    if f.type == "bool":
        return bool
    if f.type == "str":
        if f.values is not None:
            return Literal[f.values]
        return str if f.max_length is None else Annotated[str, msgspec.Meta(max_length=f.max_length)]
    if f.type == "float":
        bounds = {name: value for name in ("ge", "gt", "le", "lt") if (value := getattr(f, name)) is not None}
        return Annotated[float, msgspec.Meta(**bounds)] if bounds else float
    low, high = int_range(f)
    return Annotated[int, msgspec.Meta(ge=low, le=high)]


def int_range(f: FeatureSpec) -> tuple[int, int]:
    """The least and the largest whole number within the bounds and 64 bits."""
    low, high = INT64
    if f.ge is not None:
        low = max(low, math.ceil(f.ge))
    if f.gt is not None:
        low = max(low, math.floor(f.gt) + 1)
    if f.le is not None:
        high = min(high, math.floor(f.le))
    if f.lt is not None:
        high = min(high, math.ceil(f.lt) - 1)
    return low, high


def _own_names(spec: ContractSpec) -> dict[str, str]:
    return {f.name: f.name for f in spec.features} | {f.alias: f.name for f in spec.features if f.alias is not None}


def _fingerprint(spec: ContractSpec) -> Callable[..., bytes]:
    if all(f.type == "float" and not f.optional for f in spec.features):
        return struct.Struct(f"<{len(spec.features)}d").pack  # a third of the cost of writing the numbers out
    return lambda *row: encode(row)
