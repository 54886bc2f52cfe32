"""Contracts: from a class to data, what is refused and with which name, and which change may follow which."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from headrace.contract import Contract, InvalidDefinition, contract_spec, digest, feature, incompatibilities
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec


class Weather(Contract):
    """One day at one weather station."""

    temperature: float = feature(ge=-60, le=60, unit="°C")
    pressure: float = feature(gt=800, lt=1100, unit="hPa", alias="pressure (hPa)")
    gusts: int | None = feature(ge=0)
    holiday: bool
    sky: Literal["clear", "cloudy"] | None
    station: str = feature(max_length=8, description="Its name")


def one(annotation, **settings):
    """The spec of a contract with the single field x."""
    return contract_spec(type("C", (Contract,), {"__annotations__": {"x": annotation}, "x": feature(**settings)}), bool)


BINARY = LabelSpec(type="bool")


def spec(label=BINARY, entity=False, extra="drop", **features):
    specs = tuple(FeatureSpec(name=name, **what) for name, what in features.items())
    return ContractSpec(name="C", features=specs, label=label, entity=entity, extra=extra)


def test_a_class_becomes_data():
    assert contract_spec(Weather, bool, entity=True, extra="reject") == ContractSpec(
        name="Weather",
        description="One day at one weather station.",
        entity=True,
        extra="reject",
        label=LabelSpec(type="bool"),
        features=(
            FeatureSpec(name="temperature", type="float", ge=-60, le=60, unit="°C"),
            FeatureSpec(name="pressure", type="float", gt=800, lt=1100, unit="hPa", alias="pressure (hPa)"),
            FeatureSpec(name="gusts", type="int", optional=True, ge=0),
            FeatureSpec(name="holiday", type="bool"),
            FeatureSpec(name="sky", type="str", optional=True, values=("clear", "cloudy")),
            FeatureSpec(name="station", type="str", max_length=8, description="Its name"),
        ),
    )


def test_annotated_fields_and_inherited_columns_count_too():
    class Base(Contract):
        a: Annotated[float, Field(ge=0)]

    class More(Base):
        b: int | None = None

    assert [(f.name, f.ge, f.optional) for f in contract_spec(More, float).features] == [
        ("a", 0, False),
        ("b", None, True),
    ]


@pytest.mark.parametrize(
    ("label", "type_name", "values", "task"),
    [
        (bool, "bool", None, "binary"),
        (float, "float", None, "regression"),
        (str, "str", None, "multiclass"),
        (Literal["a", "b"], "classes", ("a", "b"), "multiclass"),
    ],
)
def test_the_label_names_the_task(label, type_name, values, task):
    found = contract_spec(Weather, label).label
    assert (found.type, found.values, found.task) == (type_name, values, task)


@pytest.mark.parametrize("label", [int, Literal["only"], Literal[1, 2], "bool", None, bool | None])
def test_any_other_label_is_refused_by_its_name(label):
    with pytest.raises(InvalidDefinition, match=r"^label: ") as refusal:
        contract_spec(Weather, label)
    assert refusal.value.field == "label"


@pytest.mark.parametrize(
    ("annotation", "settings", "word"),
    [
        (list[float], {}, "list"),
        (dict, {}, "dict"),
        (float | int, {}, "float"),
        (Literal[1, 2], {}, "texts"),
        (bytes, {}, "bytes"),
        (str, {"ge": 1}, "bound numbers"),
        (float, {"ge": 1, "gt": 0}, "both ge and gt"),
        (float, {"le": 1, "lt": 2}, "both le and lt"),
        (float, {"ge": 2, "le": 1}, "no number"),
        (float, {"gt": 1, "lt": 1}, "no number"),
        (float, {"ge": float("-inf")}, "finite"),
        (str, {"max_length": 0}, "at least 1"),
    ],
)
def test_a_column_that_cannot_stand_is_refused_by_its_name(annotation, settings, word):
    with pytest.raises(InvalidDefinition, match=word) as refusal:
        one(annotation, **settings)
    assert refusal.value.field == "C.x"


def test_a_default_is_refused_for_a_contract_makes_no_values_up():
    class Filled(Contract):
        x: float = 3.0

    with pytest.raises(InvalidDefinition, match=r"^Filled\.x: has a default"):
        contract_spec(Filled, bool)


def test_names_that_two_columns_share_are_refused():
    class Twice(Contract):
        a: float = feature(alias="b")
        b: float

    with pytest.raises(InvalidDefinition, match=r"^Twice\.a: .*'b'"):
        contract_spec(Twice, bool)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"cls": dict}, "contract"),
        ({"cls": Contract}, "Contract"),
        ({"extra": "keep"}, "extra"),
        ({"entity": "id"}, "entity"),
    ],
)
def test_other_settings_are_refused_by_their_name(settings, field):
    with pytest.raises(InvalidDefinition) as refusal:
        contract_spec(**{"cls": Weather, "label": bool} | settings)
    assert refusal.value.field == field


def test_an_unresolved_annotation_is_refused_by_what_it_names():
    class Later(Contract):
        x: "Unknown"  # noqa: F821

    with pytest.raises(InvalidDefinition, match="'Unknown'"):
        contract_spec(Later, bool)


def test_an_example_can_be_made_from_the_class_by_name_or_alias():
    given = {"temperature": 3, "holiday": True, "station": "OFF"}
    assert Weather(pressure=1000.0, **given).gusts is None
    assert Weather(**{"pressure (hPa)": 1000.0}, **given).pressure == 1000.0
    with pytest.raises(ValidationError, match="pressure"):
        Weather(pressure=94.0, **given)


def test_the_digest_is_of_what_decides_and_not_of_the_words():
    a = spec(x={"type": "float", "ge": 0, "description": "metres"})
    assert digest(a) == digest(spec(x={"type": "float", "ge": 0}).model_copy(update={"description": "Ours"}))
    assert digest(a) != digest(spec(x={"type": "float", "ge": 1}))
    assert digest(a) != digest(spec(x={"type": "float", "ge": 0, "unit": "m"}))
    assert len(digest(a)) == 64


OLD = {"type": "float", "ge": 0, "le": 10}


@pytest.mark.parametrize(
    "new",
    [
        spec(x=OLD),
        spec(x=OLD, y={"type": "int", "optional": True}),
        spec(x={"type": "float", "ge": -1, "le": 10}),
        spec(x={"type": "float", "le": 11}),
        spec(x={"type": "float"}),
        spec(x={"type": "float", "gt": -0.5, "lt": 10.5}),
        spec(x=OLD | {"alias": "X"}),
        spec(x=OLD | {"description": "other words"}),
    ],
)
def test_what_accepts_at_least_the_same_records_may_follow(new):
    assert incompatibilities(spec(x=OLD), new) == []


@pytest.mark.parametrize(
    ("new", "names"),
    [
        (spec(y=OLD), "x: is gone"),
        (spec(x=OLD, y={"type": "int"}), "y: is new and required"),
        (spec(x={"type": "int", "ge": 0, "le": 10}), "x: changes from float to int"),
        (spec(x=OLD | {"unit": "m"}), "x: the unit"),
        (spec(x=OLD | {"optional": True}), "x: changes from required"),
        (spec(x=OLD | {"ge": 1}), "x: the lower"),
        (spec(x={"type": "float", "gt": 0, "le": 10}), "x: the lower"),
        (spec(x={"type": "float", "ge": 0, "lt": 10}), "x: the upper"),
        (spec(x=OLD, entity=True), "entity: "),
        (spec(x=OLD, extra="reject"), "extra: "),
        (spec(x=OLD, label=LabelSpec(type="float")), "label: the task"),
        (spec(x=OLD, label=LabelSpec(type="str")), "label: the task"),
    ],
)
def test_all_else_may_not_and_the_reason_names_the_field(new, names):
    reasons = incompatibilities(spec(x=OLD), new)
    assert any(reason.startswith(names) for reason in reasons), reasons


def test_allowed_values_may_grow_and_not_shrink_or_open():
    old = spec(x={"type": "str", "values": ("a", "b")})
    assert incompatibilities(old, spec(x={"type": "str", "values": ("c", "b", "a")})) == []
    assert incompatibilities(old, spec(x={"type": "str", "values": ("a", "c")})) == [
        "x: allowed before and no longer: b"
    ]
    assert incompatibilities(old, spec(x={"type": "str"})) == ["x: changes between listed values and open text"]
    longer, shorter = spec(x={"type": "str", "max_length": 9}), spec(x={"type": "str", "max_length": 8})
    assert incompatibilities(shorter, longer) == []
    assert incompatibilities(longer, shorter) == ["x: max_length is narrower than before"]


def test_classes_of_the_label_may_not_change_within_the_task():
    old, new = (spec(x=OLD, label=LabelSpec(type="classes", values=v)) for v in (("a", "b"), ("a", "b", "c")))
    assert incompatibilities(old, new) == ["label: changes from classes a, b to classes a, b, c"]
