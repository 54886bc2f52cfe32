"""Lean twins of the data events: only what a row needs, decoded from the same bytes. Whole numbers fit a BIGINT.

Fields stand in the order of the bytes, which is what msgspec decodes fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec

from headrace.schemas.control import ALIASES
from headrace.services.recorder.tables import FeatureColumn

Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Ms = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000, le=253_402_300_799_999)]  # years 1 to 9999
Label = bool | Int | float | str


class Arm(msgspec.Struct, gc=False):
    """What a row needs of an ArmPrediction."""

    run: str
    learned_to: Int
    version: Int | None = None
    value: Any = None
    error: str | None = None


class Baselines(msgspec.Struct, gc=False):
    """What a row needs of the baselines."""

    majority: Label | None = None
    mean: float | None = None
    last: Label | None = None


_KNOWN = frozenset(ALIASES)
Arms: Any = msgspec.defstruct(
    "Arms", [(alias, Arm | None, None) for alias in ALIASES], forbid_unknown_fields=True, gc=False
)
NO_ARM = Arm(None, None)  # type: ignore[arg-type]  # of a row without a served answer


class Origin(msgspec.Struct, array_like=True, gc=False):
    """Where an example stood in `<p>.data-arrived`."""

    partition: Int
    offset: Int


class Arrived(msgspec.Struct, gc=False):
    """What a row needs of a LabelArrived."""

    id: str
    time: str
    label: Label
    entity: str | None = None


class Corrected(msgspec.Struct, gc=False):
    """What a row needs of a LabelCorrected."""

    id: str
    first: Label
    corrected: Label
    labelled_at_ms: Ms
    entity: str | None = None


class Problem(msgspec.Struct, gc=False):
    """One reason of a reject."""

    code: str
    message: str
    feature: str | None = None


class Rejected(msgspec.Struct, gc=False):
    """What a row needs of a RecordRejected."""

    id: str
    topic: str
    partition: Int
    offset: Int
    problems: list[Problem]
    value: bytes
    key: bytes | None = None
    release: Int = 0


Decode = Callable[[bytes], Any]
_PYTHON_TYPE: dict[str, Any] = {"float": float, "int": Int, "bool": bool, "str": str}


decode_label: Decode = msgspec.json.Decoder(Arrived).decode
decode_corrected: Decode = msgspec.json.Decoder(Corrected).decode
decode_rejected: Decode = msgspec.json.Decoder(Rejected).decode


def prediction_decoders(features: tuple[FeatureColumn, ...]) -> tuple[Decode, Decode]:
    """Decoders of a PredictionMade: straight into the contract's types and our aliases; into whatever stands there.

    The first raises ValueError where the types or aliases do not fit.
    """
    fields = [f"f{number}" for number in range(len(features))]
    typed = msgspec.defstruct(
        "Features",
        [(name, _PYTHON_TYPE[f.type] | None, None) for name, f in zip(fields, features, strict=True)],
        rename={name: f.feature for name, f in zip(fields, features, strict=True)},
        forbid_unknown_fields=True,
        gc=False,
    )
    known, anything = _predicted(Arms, typed), _predicted(dict[str, Arm], dict[str, Any])
    return msgspec.json.Decoder(known).decode, msgspec.json.Decoder(anything).decode


def label_decoders() -> tuple[Decode, Decode]:
    """Decoders of an ExampleLabelled: with our aliases; with whatever aliases stand there."""
    known, anything = _labelled(_predicted(Arms)), _labelled(_predicted(dict[str, Arm]))
    return msgspec.json.Decoder(known).decode, msgspec.json.Decoder(anything).decode


def columns(events: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """The fields of structs (of one type, or of types with the same fields), each as one column."""
    return dict(zip(events[0].__struct_fields__, zip(*map(msgspec.structs.astuple, events), strict=True), strict=True))


def by_alias(predictions: Sequence[Any]) -> dict[str, Sequence[Arm | None]]:
    """Each alias's arms; `predictions` are Arms or dicts."""
    if dict not in map(type, predictions):
        return columns(predictions)
    more = {alias for p in predictions if isinstance(p, dict) for alias in p}
    return {alias: [_arm(p, alias) for p in predictions] for alias in (*ALIASES, *sorted(more.difference(ALIASES)))}


def served_arms(predictions: Sequence[Any], served: Sequence[str | None]) -> Sequence[Arm]:
    """The arms whose answers were served; NO_ARM where none was."""
    if len(set(served)) == 1:
        arms = by_alias(predictions).get(served[0] or "", [None] * len(served))
    else:
        arms = [_arm(p, alias) for p, alias in zip(predictions, served, strict=True)]
    return [arm or NO_ARM for arm in arms]


def _predicted(predictions: Any, features: Any = None) -> Any:
    """What a row needs of a PredictionMade: the features for an example's row, the baselines for a labelled one."""
    return msgspec.defstruct(
        "Predicted",
        [
            ("id", str),
            ("time", str),
            *([("features", features)] if features else []),
            ("predictions", predictions),
            ("served", str | None),
            ("release", Int),
            ("epoch", Int),
            ("origin", Origin),
            ("entity", str | None, None),
            *([] if features else [("baselines", Baselines, msgspec.field(default_factory=Baselines))]),
            ("history", bool, False),
            ("cold", bool, False),
        ],
        gc=False,
    )


def _labelled(prediction: Any) -> Any:
    """What a row needs of an ExampleLabelled."""
    return msgspec.defstruct(
        "Labelled",
        [
            ("prediction", prediction),
            ("label", Label),
            ("predicted_at_ms", Ms),
            ("labelled_at_ms", Ms),
            ("number", Int),
            ("pending_from", Int),
            ("known_to", Int),
            ("inferred", bool, False),
        ],
        gc=False,
    )


def _arm(predictions: Any, alias: str | None) -> Arm | None:
    if isinstance(predictions, dict):
        return predictions.get(alias)
    return getattr(predictions, alias) if alias in _KNOWN else None
