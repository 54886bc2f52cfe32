"""A pipeline's contract as declarative data, so that the validator needs no user code."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Declared(BaseModel):
    """Immutable, and an unknown field is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureSpec(Declared):
    """One column: its type, bounds (inclusive `ge`/`le`, exclusive `gt`/`lt`), allowed values, unit and alias."""

    name: str
    type: Literal["float", "int", "bool", "str"]
    optional: bool = False
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    values: tuple[str, ...] | None = None
    max_length: int | None = None
    unit: str | None = None
    alias: str | None = None
    description: str | None = None


class LabelSpec(Declared):
    """What is predicted: `bool`, one of `values` (`classes`), open classes (`str`) or a number (`float`)."""

    type: Literal["bool", "classes", "str", "float"]
    values: tuple[str, ...] | None = None

    @property
    def task(self) -> Literal["binary", "multiclass", "regression"]:
        """The learning task that this label names."""
        if self.type == "bool":
            return "binary"
        return "regression" if self.type == "float" else "multiclass"


class ContractSpec(Declared):
    """The columns of a pipeline's examples. `extra` says what happens to columns not named here."""

    name: str
    features: tuple[FeatureSpec, ...]
    label: LabelSpec
    entity: bool = False
    extra: Literal["drop", "reject"] = "drop"
    description: str | None = None
