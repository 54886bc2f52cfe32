"""The fast path is River itself, bit for bit: every answer, and the model's digest, over shapes known and unknown."""

import random

import pytest
from river import (
    anomaly,
    compose,
    ensemble,
    feature_extraction,
    feature_selection,
    forest,
    linear_model,
    naive_bayes,
    optim,
    preprocessing,
    stats,
    tree,
)

from headrace import fast_path, model_bytes


class OwnScaler(preprocessing.StandardScaler):
    """A subclass whose method must be called."""

    def transform_one(self, x):
        return {name: value * 2 for name, value in super().transform_one(x).items()}


class OwnModel(linear_model.LogisticRegression):
    """A subclass that learns otherwise."""

    def learn_one(self, x, y, w=1.0):
        super().learn_one(x, not y, w)


class Silent(linear_model.LogisticRegression):
    """A model that cannot predict."""

    def predict_proba_one(self, x):
        raise RuntimeError


def scaler():
    return preprocessing.StandardScaler()


def logistic(**more):
    return linear_model.LogisticRegression(**more)


CLASSIFIERS = {
    "scaler | logistic": lambda: scaler() | logistic(),
    "logistic alone": logistic,
    "inverse scaling": lambda: scaler() | logistic(optimizer=optim.SGD(optim.schedulers.InverseScaling(0.1))),
    "own intercept rate": lambda: scaler() | logistic(intercept_lr=optim.schedulers.InverseScaling(0.5)),
    "steep": lambda: scaler() | logistic(optimizer=optim.SGD(30.0), loss=optim.losses.Log(3.0, 0.5)),
    "clipped": lambda: scaler() | logistic(clip_gradient=0.1),
    "weighted loss": lambda: scaler() | logistic(loss=optim.losses.Log(weight_pos=5)),
    "other loss": lambda: scaler() | logistic(loss=optim.losses.Hinge()),
    "other start": lambda: scaler() | logistic(initializer=optim.initializers.Normal(sigma=0.1, seed=3)),
    "l2": lambda: scaler() | logistic(l2=0.01),
    "l1": lambda: scaler() | logistic(l1=0.01),
    "adam": lambda: scaler() | logistic(optimizer=optim.Adam(0.01)),
    "momentum": lambda: scaler() | logistic(optimizer=optim.NesterovMomentum(0.01)),
    "rolling scaler": lambda: preprocessing.StandardScaler(window_size=20) | logistic(),
    "means only": lambda: preprocessing.StandardScaler(with_std=False) | logistic(),
    "own scaler": lambda: OwnScaler() | logistic(),
    "own model": lambda: scaler() | OwnModel(),
    "two scalers": lambda: preprocessing.MinMaxScaler() | scaler() | logistic(),
    "a function": lambda: compose.FuncTransformer(lambda_free) | scaler() | logistic(),
    "union": lambda: (scaler() + preprocessing.MinMaxScaler()) | logistic(),
    "product": lambda: scaler() * preprocessing.MinMaxScaler() | logistic(),
    "selected": lambda: compose.Select("a", "b") | scaler() | logistic(),
    "polynomial": lambda: scaler() | feature_extraction.PolynomialExtender() | logistic(),
    "supervised": lambda: feature_selection.SelectKBest(stats.PearsonCorr(), k=2) | scaler() | logistic(),
    "supervised in a union": lambda: (scaler() + feature_extraction.TargetAgg("d", stats.Mean())) | logistic(),
    "filter": lambda: scaler() | anomaly.QuantileFilter(anomaly.OneClassSVM(), q=0.9) | logistic(),
    "naive bayes": lambda: naive_bayes.GaussianNB(),
    "scaler | naive bayes": lambda: scaler() | naive_bayes.GaussianNB(),
    "tree": lambda: scaler() | tree.HoeffdingTreeClassifier(grace_period=30),
    "forest": lambda: forest.ARFClassifier(n_models=3, seed=1),
    "bagging": lambda: scaler() | ensemble.BaggingClassifier(logistic(), n_models=3, seed=1),
    "nested": lambda: scaler() | (preprocessing.MinMaxScaler() | logistic()),
}
REGRESSORS = {
    "scaler | linear": lambda: scaler() | linear_model.LinearRegression(),
    "linear alone": linear_model.LinearRegression,
    "passive aggressive": lambda: scaler() | linear_model.PARegressor(),
    "target scaled": lambda: scaler() | preprocessing.TargetStandardScaler(linear_model.LinearRegression()),
    "tree": lambda: scaler() | tree.HoeffdingTreeRegressor(grace_period=30),
}


def lambda_free(x):
    """A function that can be pickled."""
    return {**x, "ab": x.get("a", 0.0) * x.get("b", 0.0)}


def rows(n, regression=False):
    """Examples of which some lack a column, bring whole numbers or truth values, or repeat themselves."""
    chance = random.Random(5)
    for number in range(n):
        x = {name: chance.gauss(3, 2) for name in "abcd"}
        if number % 7 == 3:
            del x["c"]
        if number % 5 == 0:
            x["d"] = number % 3
        if number % 11 == 0:
            x["b"] = number % 2 == 0
        if number % 13 == 0:
            x = {name: x[name] for name in reversed(x)}
        y = x["a"] + x["b"] - 6
        yield x, (y if regression else y + chance.gauss(0, 1) > 0)


def compare(make, verb, data):
    plain, quick, once = make(), make(), make()
    predict, learn = fast_path.fast(quick, verb)
    train = fast_path.fast_test_then_train(once, verb)
    for number, (x, y) in enumerate(data):
        given = dict(x)
        expected = repr(getattr(plain, verb)(x))
        assert repr(predict(x)) == expected, f"answer {number}"
        learn(x, y)
        assert repr(train(x, y)) == expected, f"answer {number} in one call"
        plain.learn_one(dict(x), y)
        assert x == given
        if number == len(data) // 2:  # saved and loaded half way
            quick = model_bytes.loads(model_bytes.dumps(quick))
            predict, learn = fast_path.fast(quick, verb)
            once = model_bytes.loads(model_bytes.dumps(once))
            train = fast_path.fast_test_then_train(once, verb)
    assert model_bytes.digest(quick) == model_bytes.digest(once) == model_bytes.digest(plain)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("verb", ["predict_proba_one", "predict_one"])
def test_a_classifier_answers_and_learns_as_river_does(name, verb):
    if verb == "predict_proba_one" and name == "other loss":
        pytest.skip("the hinge loss has no probabilities")
    compare(CLASSIFIERS[name], verb, list(rows(400)))


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_answers_and_learns_as_river_does(name):
    compare(REGRESSORS[name], "predict_one", list(rows(400, regression=True)))


@pytest.mark.parametrize("make", [lambda: scaler() | Silent(), lambda: Silent()], ids=["scaled", "alone"])
def test_a_predict_that_raises_does_not_keep_it_from_learning(make):
    model = make()
    train = fast_path.fast_test_then_train(model)
    assert [train({"a": 1.0}, True), train({"a": 2.0}, False)] == [None, None]
    plain = make()
    plain.learn_one({"a": 1.0}, True)
    plain.learn_one({"a": 2.0}, False)
    assert model_bytes.digest(model) == model_bytes.digest(plain)


@pytest.mark.parametrize("value", [float("inf"), 1e308, -1e308, float("nan"), 0.0, 10**400])
def test_extreme_values_leave_the_same_model_or_the_same_error(value):
    outcomes = []
    for is_fast in (False, True):
        model = scaler() | logistic()
        predict, learn = fast_path.fast(model) if is_fast else (model.predict_proba_one, model.learn_one)
        told = []
        for x, y in [({"a": 1.0}, True), ({"a": value}, False), ({"a": 2.0}, True)]:
            try:
                learn(x, y)
                told.append(repr(predict(x)))
            except (OverflowError, ValueError) as error:
                told.append(type(error).__name__)
        outcomes.append((told, model_bytes.digest(model)))
    assert outcomes[0] == outcomes[1]


def test_labels_that_are_no_truth_values_are_learned_as_river_does():
    plain, quick = scaler() | logistic(), scaler() | logistic()
    _, learn = fast_path.fast(quick)
    for x, y in rows(60):
        plain.learn_one(dict(x), int(y))
        learn(x, int(y))
    assert model_bytes.digest(quick) == model_bytes.digest(plain)


def test_what_learns_while_it_predicts_is_left_to_river():
    def learned(as_fast):
        model = scaler() | logistic()
        with compose.learn_during_predict():
            predict, learn = fast_path.fast(model) if as_fast else (model.predict_proba_one, model.learn_one)
            answers = [(predict(x), learn(x, y)) for x, y in rows(50)]
        return answers, model_bytes.digest(model)

    assert learned(True) == learned(False)
