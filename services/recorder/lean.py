"""Lean twins of the data events: only what a row needs, decoded from the same bytes. Whole numbers fit a BIGINT.

Fields stand in the order of the bytes, which is what msgspec decodes fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated, Any, get_args

import msgspec

from headrace.schemas.control import Alias
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


ALIASES: tuple[str, ...] = get_args(Alias)
Arms: Any = msgspec.defstruct(
    "Arms", [(alias, Arm | None, None) for alias in ALIASES], forbid_unknown_fields=True, gc=False
)
NO_ARM = Arm(None, None)  # type: ignore[arg-type]  # of a row without a served answer


class Origin(msgspec.Struct, array_like=True, gc=False):
    """Where an example stood in `<p>.data-arrived`."""

    partition: Int
    offset: Int


class PredictedAnything(msgspec.Struct, gc=False):
    """A prediction whose features or aliases are not those we know; `prediction_decoder` makes the usual one."""

    id: str
    time: str
    features: dict[str, Any]
    predictions: dict[str, Arm]
    served: str | None
    release: Int
    epoch: Int
    origin: Origin
    entity: str | None = None
    history: bool = False
    cold: bool = False


class PredictedBefore(msgspec.Struct, gc=False):
    """What a labelled row needs of its prediction."""

    id: str
    time: str
    predictions: Arms
    served: str | None
    release: Int
    epoch: Int
    origin: Origin
    entity: str | None = None
    baselines: Baselines = msgspec.field(default_factory=Baselines)
    history: bool = False
    cold: bool = False


class Labelled(msgspec.Struct, gc=False):
    """What a row needs of an ExampleLabelled."""

    prediction: PredictedBefore
    label: Label
    predicted_at_ms: Ms
    labelled_at_ms: Ms
    number: Int
    pending_from: Int
    known_to: Int
    inferred: bool = False


class PredictedBeforeAnything(PredictedBefore, gc=False, kw_only=True):
    """The same with any alias."""

    predictions: dict[str, Arm]


class LabelledAnything(Labelled, gc=False, kw_only=True):
    """The same with any alias."""

    prediction: PredictedBeforeAnything


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


decode_labelled: Decode = msgspec.json.Decoder(Labelled).decode
decode_labelled_anything: Decode = msgspec.json.Decoder(LabelledAnything).decode
decode_predicted_anything: Decode = msgspec.json.Decoder(PredictedAnything).decode
decode_label: Decode = msgspec.json.Decoder(Arrived).decode
decode_corrected: Decode = msgspec.json.Decoder(Corrected).decode
decode_rejected: Decode = msgspec.json.Decoder(Rejected).decode


def prediction_decoder(features: tuple[FeatureColumn, ...]) -> Decode:
    """Decodes features straight into a struct of the contract's types; ValueError where they do not fit."""
    fields = [f"f{number}" for number in range(len(features))]
    typed = msgspec.defstruct(
        "Features", [(name, _PYTHON_TYPE[f.type] | None, None) for name, f in zip(fields, features, strict=True)],
        rename={name: f.feature for name, f in zip(fields, features, strict=True)}, forbid_unknown_fields=True, gc=False,
    )
    known = msgspec.defstruct("Predicted", [
        ("id", str), ("time", str), ("features", typed), ("predictions", Arms), ("served", str | None), ("release", Int),
        ("epoch", Int), ("origin", Origin), ("entity", str | None, None), ("history", bool, False), ("cold", bool, False),
    ], gc=False)
    return msgspec.json.Decoder(known).decode


def arms(predictions: Sequence[Any], alias: str) -> list[Arm | None]:
    """Each one's arm of that alias; `predictions` are Arms or dicts."""
    try:
        return list(map(attrgetter(alias), predictions))
    except AttributeError:
        return [p.get(alias) if isinstance(p, dict) else getattr(p, alias, None) for p in predictions]


def aliases(predictions: Sequence[Any]) -> tuple[str, ...]:
    """The aliases that may be among them."""
    more = {alias for p in predictions if type(p) is dict for alias in p}
    return (*ALIASES, *sorted(more.difference(ALIASES)))
