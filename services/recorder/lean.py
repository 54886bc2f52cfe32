"""Lean twins of the data events: only what a row needs, decoded from the same bytes. Whole numbers fit a BIGINT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

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


class Predicted(msgspec.Struct, gc=False):
    """What a row needs of a PredictionMade, but for the features."""

    id: str
    time: str
    predictions: dict[str, Arm]
    release: Int
    epoch: Int
    origin: tuple[Int, Int]
    served: str | None = None
    entity: str | None = None
    history: bool = False
    cold: bool = False


class PredictedAnything(Predicted, gc=False):
    """A prediction whose features do not have the contract's names and types."""

    features: dict[str, Any] = msgspec.field(default_factory=dict)


class PredictedBefore(Predicted, gc=False):
    """What a labelled row needs of its prediction."""

    baselines: Baselines = msgspec.field(default_factory=Baselines)


class Labelled(msgspec.Struct, gc=False):
    """What a row needs of an ExampleLabelled."""

    prediction: PredictedBefore
    label: Label
    predicted_at_ms: Ms
    labelled_at_ms: Ms
    partition: Int
    number: Int
    pending_from: Int
    known_to: Int
    inferred: bool = False


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
decode_labelled: Decode = msgspec.json.Decoder(Labelled).decode
decode_corrected: Decode = msgspec.json.Decoder(Corrected).decode
decode_rejected: Decode = msgspec.json.Decoder(Rejected).decode

_PYTHON_TYPE: dict[str, Any] = {"float": float, "int": Int, "bool": bool, "str": str}


def prediction_decoder(features: tuple[FeatureColumn, ...]) -> Decode:
    """Decodes features straight into a struct of the contract's types; where they do not fit, into a dict."""
    fields = [f"f{number}" for number in range(len(features))]
    typed = msgspec.defstruct(
        "Features", [(name, _PYTHON_TYPE[f.type] | None, None) for name, f in zip(fields, features, strict=True)],
        rename={name: f.feature for name, f in zip(fields, features, strict=True)}, forbid_unknown_fields=True, gc=False,
    )
    with_features = msgspec.defstruct(
        "PredictedTyped", [("features", typed)], bases=(Predicted,), gc=False, kw_only=True
    )
    fast = msgspec.json.Decoder(with_features).decode
    slow = msgspec.json.Decoder(PredictedAnything).decode

    def decode(body: bytes) -> Any:
        try:
            return fast(body)
        except msgspec.ValidationError:
            return slow(body)

    return decode
