"""What the demo would have served without the policy, held to River's own loop."""

from river import linear_model, preprocessing

from headrace.demo.curves import Row, curves_of
from headrace.demo.stories import rainfall_rows


def new_model():
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def answer(odds):
    return odds.get(True, 0.0) > 0.5


def rows(learned_to):
    """The first days, each answered by a model that had learned to there; offsets begin at 3, after markers."""
    stream = enumerate(rainfall_rows(300), start=3)
    return [Row(offset, features, label, learned_to(offset), None) for offset, (features, label) in stream]


def test_a_run_that_is_asked_before_each_label_is_rivers_progressive_validation():
    model, expected = new_model(), []
    for features, label in rainfall_rows(300):
        expected.append(answer(model.predict_proba_one(features)) == label)
        model.learn_one(features, label)
    assert curves_of(rows(lambda offset: offset), new_model, answer).replacing == expected


def test_it_is_asked_at_the_cadence_of_what_was_served_and_the_first_model_never_changes():
    found = curves_of(rows(lambda offset: offset // 50 * 50 if offset >= 100 else None), new_model, answer)
    assert found.replacing[:97] == found.learning[:97] == [None] * 97
    model, stream = new_model(), list(rainfall_rows(300))
    for features, label in stream[:97]:
        model.learn_one(features, label)
    frozen = [answer(model.predict_proba_one(features)) == label for features, label in stream[97:]]
    assert found.learning[97:] == frozen
    assert found.replacing[97:147] == frozen[:50]
    assert found.replacing != found.learning
