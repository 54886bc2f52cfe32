"""Contracts: what a pipeline's examples must look like, written as a class and released as data.

>>> class Weather(Contract):
...     temperature: float = feature(ge=-60, le=60, unit="°C")
...     sky: Literal["clear", "cloudy"] | None
>>> [(f.name, f.type, f.optional) for f in contract_spec(Weather, bool).features]
[('temperature', 'float', False), ('sky', 'str', True)]
"""

from __future__ import annotations

import hashlib
import inspect
import math
import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic.fields import FieldInfo

from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec

Extra = Literal["drop", "reject"]

TYPES: dict[Any, Literal["float", "int", "bool", "str"]] = {float: "float", int: "int", bool: "bool", str: "str"}
BOUNDS = ("ge", "gt", "le", "lt")
LABELS = "bool, Literal[...] of texts, str (open classes) or float (a number)"


class InvalidDefinition(ValueError):
    """A setting of a pipeline or contract that cannot stand; `field` names it and the message says what would."""

    def __init__(self, field: str, reason: str) -> None:
        """Say which field it is and what would stand."""
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Contract(BaseModel):
    """Subclass it with one annotated field a column: float, int, bool, str or Literal texts, each also `| None`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """A column that may be absent needs no value when an example is made from the class."""
        optional = [f for f in cls.model_fields.values() if f.is_required() and type(None) in get_args(f.annotation)]
        for field in optional:
            field.default = None
        if optional:
            cls.model_rebuild(force=True)


def feature(
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    unit: str | None = None,
    alias: str | None = None,
    max_length: int | None = None,
    description: str | None = None,
) -> Any:
    """One column: its bounds (inclusive `ge`/`le`, exclusive `gt`/`lt`), unit, and the name it has in the data."""
    given = {"ge": ge, "gt": gt, "le": le, "lt": lt, "alias": alias, "max_length": max_length}
    constraints: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return Field(description=description, json_schema_extra={"unit": unit} if unit else None, **constraints)


def contract_spec(cls: type[Contract], label: Any, entity: bool = False, extra: Extra = "drop") -> ContractSpec:
    """The contract as data. Raises InvalidDefinition that names the field which cannot stand."""
    if not (inspect.isclass(cls) and issubclass(cls, Contract)):
        raise InvalidDefinition("contract", f"needs a subclass of headrace.Contract, not {cls!r}")
    if extra not in get_args(Extra):
        raise InvalidDefinition("extra", f'"drop" or "reject", not {extra!r}')
    if not isinstance(entity, bool):
        raise InvalidDefinition("entity", f"True or False, not {entity!r}")
    features = tuple(_feature_spec(cls.__name__, name, field) for name, field in _fields(cls).items())
    if not features:
        raise InvalidDefinition(cls.__name__, "has no fields; a contract names at least one column")
    _refuse_shared_names(cls.__name__, features)
    return ContractSpec(
        name=cls.__name__,
        features=features,
        label=label_spec(label),
        entity=entity,
        extra=extra,
        description=inspect.cleandoc(cls.__doc__) if cls.__doc__ else None,
    )


def label_spec(label: Any) -> LabelSpec:
    """The label as data. Raises InvalidDefinition where it is none of bool, Literal texts, str, float."""
    if label is bool:
        return LabelSpec(type="bool")
    if label is float:
        return LabelSpec(type="float")
    if label is str:
        return LabelSpec(type="str")
    if get_origin(label) is Literal:
        values = get_args(label)
        if not all(isinstance(value, str) for value in values):
            raise InvalidDefinition("label", f"the classes of {label!r} must be texts")
        if len(set(values)) < 2:
            raise InvalidDefinition("label", f"{label!r} has one class; there is nothing to learn")
        return LabelSpec(type="classes", values=values)
    raise InvalidDefinition("label", f"{LABELS}, not {_shown(label)}")


def digest(spec: ContractSpec) -> str:
    """SHA-256 of everything that decides which records are accepted; descriptions do not count."""
    plain = spec.model_copy(
        update={
            "description": None,
            "features": tuple(f.model_copy(update={"description": None}) for f in spec.features),
        }
    )
    return hashlib.sha256(plain.model_dump_json(exclude_defaults=True).encode()).hexdigest()


def incompatibilities(old: ContractSpec, new: ContractSpec) -> list[str]:
    """Why the new contract may not follow the old one; nothing where it may.

    It may where every record that was accepted still is, with the same features: a new optional feature, a wider
    bound, a new allowed value, a new alias. All else needs a new pipeline name.
    """
    reasons = []
    if new.label.task != old.label.task:
        reasons.append(f"label: the task changes from {old.label.task} to {new.label.task}")
    elif new.label != old.label:
        reasons.append(f"label: changes from {_label(old.label)} to {_label(new.label)}")
    if new.entity != old.entity:
        reasons.append(f"entity: changes from {old.entity} to {new.entity}, so ids would mean something else")
    if new.extra == "reject" and old.extra == "drop":
        reasons.append('extra: changes from "drop" to "reject", so records accepted before would be refused')
    olds, news = ({f.name: f for f in spec.features} for spec in (old, new))
    reasons += [f"{name}: is gone" for name in olds if name not in news]
    reasons += [
        f"{name}: is new and required; only an optional feature (| None) may be added"
        for name, f in news.items()
        if name not in olds and not f.optional
    ]
    for name in olds:
        if name in news:
            reasons += _changes(olds[name], news[name])
    return reasons


def _changes(old: FeatureSpec, new: FeatureSpec) -> Iterable[str]:
    name = old.name
    if new.type != old.type:
        yield f"{name}: changes from {old.type} to {new.type}"
        return
    if new.optional != old.optional:
        words = ("required", "optional")
        yield f"{name}: changes from {words[old.optional]} to {words[new.optional]}"
    if new.unit != old.unit:
        yield f"{name}: the unit changes from {old.unit} to {new.unit}"
    if old.alias is not None and new.alias != old.alias:
        yield f"{name}: the alias {old.alias!r} is gone"
    if _lowest(new) > _lowest(old):
        yield f"{name}: the lower bound is narrower than before"
    if _highest(new) < _highest(old):
        yield f"{name}: the upper bound is narrower than before"
    if new.max_length is not None and (old.max_length is None or new.max_length < old.max_length):
        yield f"{name}: max_length is narrower than before"
    if (old.values is None) != (new.values is None):
        yield f"{name}: changes between listed values and open text"
    elif old.values is not None and new.values is not None and (gone := sorted(set(old.values) - set(new.values))):
        yield f"{name}: allowed before and no longer: {', '.join(gone)}"


def _lowest(spec: FeatureSpec) -> tuple[float, bool]:
    """The lower bound, an exclusive one just above an inclusive one of the same number."""
    return (spec.gt, True) if spec.gt is not None else (-math.inf if spec.ge is None else spec.ge, False)


def _highest(spec: FeatureSpec) -> tuple[float, bool]:
    return (spec.lt, False) if spec.lt is not None else (math.inf if spec.le is None else spec.le, True)


def _fields(cls: type[Contract]) -> dict[str, FieldInfo]:
    if not cls.__pydantic_complete__:
        try:
            cls.model_rebuild()
        except PydanticUndefinedAnnotation as error:
            raise InvalidDefinition(cls.__name__, f"an annotation names {error.name!r}, not defined") from error
    return dict(cls.model_fields)


def _feature_spec(owner: str, name: str, field: FieldInfo) -> FeatureSpec:
    def refuse(reason: str) -> NoReturn:
        raise InvalidDefinition(f"{owner}.{name}", reason)

    kind, optional = _without_none(field.annotation)
    values: tuple[str, ...] | None = None
    if get_origin(kind) is Literal:
        values = get_args(kind)
        if not all(isinstance(value, str) for value in values):
            refuse(f"the values of {_shown(kind)} must be texts")
        kind = str
    if kind not in TYPES:
        refuse(f"float, int, bool, str or Literal texts, each also | None; not {_shown(field.annotation)}")
    if not field.is_required() and not (optional and field.default is None and field.default_factory is None):
        refuse("has a default; a contract makes no values up. Say `| None` for a column that may be absent")
    bounds = {bound: value for bound in BOUNDS if (value := _constraint(field, bound)) is not None}
    max_length = _constraint(field, "max_length")
    if bounds and kind not in (float, int):
        refuse(f"{' and '.join(bounds)} bound numbers, and this is {TYPES[kind]}")
    if max_length is not None and (kind is not str or values is not None):
        refuse("max_length bounds open text only")
    if max_length is not None and max_length < 1:
        refuse(f"max_length is at least 1, not {max_length}")
    _refuse_empty_range(refuse, bounds)
    extra = field.json_schema_extra
    return FeatureSpec(
        name=name,
        type=TYPES[kind],
        optional=optional,
        values=values,
        max_length=max_length,
        alias=field.alias,
        unit=str(extra["unit"]) if isinstance(extra, dict) and "unit" in extra else None,
        description=field.description,
        **bounds,
    )


def _constraint(field: FieldInfo, name: str) -> Any:
    return next((getattr(m, name) for m in field.metadata if getattr(m, name, None) is not None), None)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """The annotation without `| None` and `Annotated`, and whether it had None."""
    optional = False
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        optional = len(parts) < len(get_args(annotation))
        annotation = parts[0] if len(parts) == 1 else annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation, optional


def _refuse_empty_range(refuse: Any, bounds: dict[str, float]) -> None:
    if any(isinstance(b, bool) or not isinstance(b, int | float) or not math.isfinite(b) for b in bounds.values()):
        refuse("bounds must be finite numbers")
    if "ge" in bounds and "gt" in bounds:
        refuse("has both ge and gt; keep one")
    if "le" in bounds and "lt" in bounds:
        refuse("has both le and lt; keep one")
    low, high = bounds.get("ge", bounds.get("gt", -math.inf)), bounds.get("le", bounds.get("lt", math.inf))
    if low > high or (low == high and ("gt" in bounds or "lt" in bounds)):
        refuse(f"no number lies within its bounds ({', '.join(f'{k}={v:g}' for k, v in bounds.items())})")


def _refuse_shared_names(owner: str, features: tuple[FeatureSpec, ...]) -> None:
    names = {f.name for f in features}
    for f in features:
        if f.alias is None or f.alias == f.name:
            continue
        if f.alias in names:
            raise InvalidDefinition(f"{owner}.{f.name}", f"the alias {f.alias!r} is the name of another column")
        names.add(f.alias)


def _label(label: LabelSpec) -> str:
    return f"classes {', '.join(label.values)}" if label.values else label.type


def _shown(annotation: Any) -> str:
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation).replace("typing.", "")
