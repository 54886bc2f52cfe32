"""What the SDK refuses before it becomes a record, and says why."""

import math
from datetime import date, datetime

import numpy
import pytest

from headrace.errors import InvalidInput
from headrace.infra.user_events import example, label_for


@pytest.mark.parametrize(
    ("features", "more", "says"),
    [
        ({"x": math.inf}, {}, "a number is finite, not inf"),
        ({"x": [1.0]}, {}, "a value is a number, a text, true or false; not list"),
        ([1.0], {}, "features are a mapping"),
        ({"x": 1.0}, {"time": datetime(2026, 1, 1)}, "time needs a zone"),
        ({"x": 1.0}, {"time": "tomorrow"}, "time is RFC 3339"),
        ({"x": 1.0}, {"time": date(2026, 1, 1)}, "time is a datetime with a zone"),
        ({"x": 1.0}, {"time": 1769860800}, "time is a datetime with a zone"),
        ({"x": "caf\udce9"}, {}, "half a character"),
        ({"x": 1.0}, {"id": "caf\udce9"}, "half a character"),
        ({"x": numpy.array([1.0, 2.0])}, {}, "not ndarray"),
        ({"x": numpy.float32(math.inf)}, {}, "a number is finite"),
        ({"x": 1.0}, {"id": ""}, "id is a text of at least one character"),
        ({"x": 1.0}, {"id": 5}, "id is a text of at least one character, not 5"),
        ({"x": 1.0}, {"entity": 5}, "entity is a text"),
        ({"x": 1.0}, {"label": -math.inf}, "a number is finite"),
    ],
)
def test_what_json_cannot_say_or_nobody_could_take_is_refused_where_it_is_written(features, more, says):
    with pytest.raises(InvalidInput, match=says):
        example(features, **more)


@pytest.mark.parametrize(("id", "label"), [("a", None), ("a", math.nan), ("a", []), ("", True), (None, True)])
def test_a_label_is_a_value_of_an_example(id, label):
    with pytest.raises(InvalidInput):
        label_for(id, label)


def test_what_is_not_known_is_left_out():
    assert example({"x": math.nan, "y": None, "z": 1.5}).features == {"z": 1.5}
    assert example({"x": numpy.float32("nan"), "y": 10**400, "z": numpy.float32(1.5)}).features == {
        "y": 10**400,
        "z": 1.5,
    }
