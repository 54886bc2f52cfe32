"""What the demo would have served without the policy, held to River's own loop."""

from river import linear_model, preprocessing

from headrace.demo.curves import Row, curves_of
from headrace.demo.measure import ACCURACY, ERROR
from headrace.demo.stories import rainfall_rows


def new_model():
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def rows(learned_to):
    """The first days, each answered by a model that had learned to there; offsets begin at 3, after markers."""
    stream = enumerate(rainfall_rows(300), start=3)
    return [Row(offset, features, label, learned_to(offset), None) for offset, (features, label) in stream]


def test_a_run_that_is_asked_before_each_label_is_rivers_progressive_validation():
    model, expected = new_model(), []
    for features, label in rainfall_rows(300):
        expected.append(ACCURACY.of(ACCURACY.ask(model, features), label))
        model.learn_one(features, label)
    assert curves_of(rows(lambda offset: offset), new_model, ACCURACY).replacing == expected


def test_it_is_asked_at_the_cadence_of_what_was_served_and_the_first_model_never_changes():
    found = curves_of(rows(lambda offset: offset // 50 * 50 if offset >= 100 else None), new_model, ACCURACY)
    assert found.replacing[:97] == found.learning[:97] == [None] * 97
    model, stream = new_model(), list(rainfall_rows(300))
    for features, label in stream[:97]:
        model.learn_one(features, label)
    frozen = [ACCURACY.of(ACCURACY.ask(model, features), label) for features, label in stream[97:]]
    assert found.learning[97:] == frozen
    assert found.replacing[97:147] == frozen[:50]
    assert found.replacing != found.learning


def test_where_an_older_model_came_back_the_run_that_was_never_replaced_goes_on_at_its_last_age():
    """From row 200 on the served model is that of row 100; the other one would have been 5 rows old as ever."""
    came_back = curves_of(rows(lambda offset: offset - 5 if offset < 203 else 103), new_model, ACCURACY)
    assert came_back.replacing == curves_of(rows(lambda offset: offset - 5), new_model, ACCURACY).replacing


def test_numbers_are_scored_by_how_far_off_they_are():
    def new_model():
        return preprocessing.StandardScaler() | linear_model.LinearRegression()

    stream = [
        Row(offset, {"x": features["temperature"]}, features["average_wind_speed"], offset, None)
        for offset, (features, _) in enumerate(rainfall_rows(100))
    ]
    model, expected = new_model(), []
    for row in stream:
        expected.append(abs(model.predict_one(row.features) - row.label))
        model.learn_one(row.features, row.label)
    assert curves_of(stream, new_model, ERROR).replacing == expected
    assert max(expected) > 0
