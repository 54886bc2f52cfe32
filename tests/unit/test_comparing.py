"""What two models are and where they differ."""

from river import compose, linear_model, preprocessing, tree

from headrace import comparing


def linear(l2=0.0, **row):
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression(l2=l2)
    for _ in range(3):
        model.learn_one(row | {"turns": float(_)}, True)
    return model


def test_parameters_are_named_by_step_down_to_the_nested_ones():
    told = comparing.parameters(linear(l2=0.5))
    assert told["LogisticRegression.l2"] == "0.5"
    assert told["LogisticRegression.optimizer"] == "SGD"
    assert told["LogisticRegression.optimizer.lr.learning_rate"] == "0.01"
    assert comparing.parameters(tree.HoeffdingTreeClassifier(grace_period=7))["grace_period"] == "7"


def test_a_parameter_that_is_two_types_is_told_by_their_names():
    model = (compose.SelectType(int, float) | preprocessing.StandardScaler()) + compose.Select("country")
    told = comparing.parameters(model | linear_model.LogisticRegression())
    assert "int, float" in told.values()


def test_only_parameters_that_differ_are_told_with_both_values():
    a, b = comparing.parameters(linear()), comparing.parameters(linear(l2=0.5))
    assert comparing.changed(a, b) == {"LogisticRegression.l2": ("0.0", "0.5")}
    assert comparing.changed(a, a) == {}
    assert comparing.changed({"x": 1}, {"y": None}) == {"x": (1, None)}


def test_weights_are_those_of_the_linear_steps_also_inside_others():
    nested = compose.Select("a") | (preprocessing.StandardScaler() | linear_model.LinearRegression())
    nested.learn_one({"a": 1.0}, 2.0)
    assert [name.rpartition(".")[2] for name in comparing.weights(nested)] == ["a"]
    assert comparing.weights(tree.HoeffdingTreeClassifier()) == {}


def test_the_weights_that_differ_most_come_first_and_a_column_that_is_missing_weighs_nothing():
    a, b = {"x": 1.0, "y": 0.0, "same": 2.0}, {"x": 1.5, "z": -3.0, "same": 2.0}
    assert comparing.largest(a, b, 5) == {"z": (0.0, -3.0), "x": (1.0, 1.5)}
    assert list(comparing.largest(a, b, 1)) == ["z"]


def test_the_source_is_told_as_a_unified_diff():
    lines = comparing.source_lines(b"a\nb\n", b"a\nc\n", ("p@1", "p@2"))
    assert lines[:2] == ["--- p@1", "+++ p@2"]
    assert lines[-2:] == ["-b", "+c"]
    assert comparing.source_lines(b"a\n", b"a\n", ("p@1", "p@2")) == []
