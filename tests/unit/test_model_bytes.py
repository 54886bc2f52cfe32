"""A model's identity survives saving, other processes and other hash seeds; its bytes hold no random state in vain."""

import collections
import json
import os
import pickle
import random
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

import pytest
from river import drift, ensemble, forest, linear_model, naive_bayes, neighbors, preprocessing, proba, tree
from river.datasets import synth

from headrace.model_bytes import PROTOCOL, digest, dumps, is_stable, loads

ROWS, LATER = 860, 60  # enough for every tree to split, and for its new leaves to learn
RECIPES = {
    "scaler | logistic regression": lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    "gaussian naive bayes": naive_bayes.GaussianNB,
    "hoeffding tree": lambda: tree.HoeffdingTreeClassifier(grace_period=50),
    "hoeffding adaptive tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(grace_period=50, seed=7),
    "adaptive random forest": lambda: forest.ARFClassifier(n_models=3, grace_period=50, seed=7),
    "adwin bagging": lambda: ensemble.ADWINBaggingClassifier(
        tree.HoeffdingTreeClassifier(grace_period=50), n_models=3, seed=7
    ),
    "scaler | linear regression": lambda: preprocessing.StandardScaler() | linear_model.LinearRegression(),
    "hoeffding tree regressor": lambda: tree.HoeffdingTreeRegressor(grace_period=50),
    "adaptive random forest regressor": lambda: forest.ARFRegressor(n_models=3, grace_period=50, seed=7),
}
REGRESSIONS = {"scaler | linear regression", "hoeffding tree regressor", "adaptive random forest regressor"}


@cache
def examples(name, n=ROWS + LATER):
    if name in REGRESSIONS:
        return [({str(k): v for k, v in x.items()}, y) for x, y in synth.Friedman(seed=3).take(n)]
    words = ("gaussian", "logistic") if "naive" in name or "logistic" in name else ()
    rows = []
    for x, y in synth.Agrawal(seed=3).take(n):
        features = {key: float(value) for key, value in x.items()}
        if not words:  # trees take text too, whose hash differs in every process
            features |= {"car": f"car {x['car']}", "zipcode": f"zip {x['zipcode']}"}
        rows.append((features, bool(y)))
    return rows


def predictions(name, model):
    predict = model.predict_one if name in REGRESSIONS else model.predict_proba_one
    return [
        sorted((str(key), value.hex()) for key, value in answer.items()) if isinstance(answer, dict) else answer.hex()
        for answer in (predict(x) for x, _ in examples(name)[ROWS:])
    ]


def learn(name, model, start, end):
    for x, y in examples(name)[start:end]:
        model.learn_one(dict(x), y)
    return model


def act(part, folder):
    """What one of the two other processes does."""
    for number, (name, build) in enumerate(RECIPES.items()):
        if part == "straight":
            model = learn(name, build(), 0, ROWS)
        else:
            model = learn(name, loads((folder / f"{number}.pickle").read_bytes()), ROWS // 2, ROWS)
        print(json.dumps({"name": name, "digest": digest(model), "predictions": predictions(name, model)}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Digest and predictions of every recipe: taught in one go, and saved half way here and resumed elsewhere."""
    folder = tmp_path_factory.mktemp("models")
    for number, (name, build) in enumerate(RECIPES.items()):
        (folder / f"{number}.pickle").write_bytes(dumps(learn(name, build(), 0, ROWS // 2)))
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, part, str(folder)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for part, hash_seed in (("straight", "1"), ("resumed", "2"))
    ]
    told = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    return [{row["name"]: row for row in map(json.loads, text.splitlines())} for text in told]


@pytest.fixture(scope="module")
def taught():
    return {name: learn(name, build(), 0, ROWS) for name, build in RECIPES.items()}


@pytest.mark.long
@pytest.mark.parametrize("name", RECIPES)
def test_a_model_resumed_half_way_in_another_process_is_the_model_that_was_never_saved(runs, name):
    straight, resumed = runs
    assert resumed[name]["digest"] == straight[name]["digest"]
    assert resumed[name]["predictions"] == straight[name]["predictions"]
    assert len(set(map(str, straight[name]["predictions"]))) > 1  # a model that learned nothing would prove nothing


@pytest.mark.parametrize("name", RECIPES)
def test_a_reloaded_model_has_the_same_digest_answers_and_bytes(taught, name):
    model = taught[name]
    again = loads(dumps(model))
    assert digest(again) == digest(model)
    assert predictions(name, again) == predictions(name, model)
    assert digest(loads(dumps(again))) == digest(model)


@pytest.mark.parametrize("name", RECIPES)
def test_one_more_example_or_another_seed_is_another_model(taught, name):
    model = loads(dumps(taught[name]))
    x, y = examples(name)[ROWS]
    model.learn_one(dict(x), y)
    assert digest(model) != digest(taught[name])


@pytest.mark.parametrize("name", ["gaussian naive bayes", "hoeffding tree", "adaptive random forest"])
def test_a_slim_pickle_is_much_smaller(taught, name):
    assert len(pickle.dumps(taught[name])) > 3 * len(dumps(taught[name]))


def test_a_slim_pickle_loads_without_headrace(taught):
    assert not [name for name, model in taught.items() if b"headrace" in dumps(model)]


def gaussian(seed=None):
    distribution = proba.Gaussian(seed=seed)
    for value in (1.0, 2.0, 3.0):
        distribution.update(value)
    return distribution


def test_a_distribution_still_draws_samples_after_reload():
    one = gaussian()
    first, second = loads(dumps([one, one]))
    assert first is second
    assert first.mu == 2.0
    assert first.sample() != first.sample()


def test_a_seeded_distribution_goes_on_in_its_own_sequence():
    one, other = gaussian(seed=4), gaussian(seed=4)
    assert one.sample() == other.sample()
    assert loads(dumps(one)).sample() == other.sample()
    assert digest(one) != digest(other)


def test_a_seeded_generator_belongs_to_the_model():
    assert digest(proba.Gaussian(seed=1)) != digest(proba.Gaussian(seed=2))
    one, other = random.Random(1), random.Random(1)
    assert digest(one) == digest(other)
    other.random()
    assert digest(one) != digest(other)


@pytest.mark.parametrize("name", ["scaler | logistic regression", "hoeffding adaptive tree", "adaptive random forest"])
def test_recipes_with_a_seed_are_stable(name):
    assert is_stable(RECIPES[name], examples(name)[:200])


def test_nearest_neighbours_without_a_seed_are_named_unstable():
    rows = examples("gaussian naive bayes")[:200]
    assert not is_stable(neighbors.KNNClassifier, rows)  # its SWINN engine draws from an unseeded generator
    assert is_stable(lambda: neighbors.KNNClassifier(engine=neighbors.LazySearch(window_size=50)), rows)


def test_a_forest_without_a_seed_is_named_unstable():
    assert not is_stable(lambda: forest.ARFClassifier(n_models=3), examples("adaptive random forest")[:200])


class Forgets:
    """Loses what it learned when it is pickled."""

    def __init__(self):
        self.n = 0

    def __reduce_ex__(self, protocol):
        return (Forgets, (), {"n": self.n}) if protocol < PROTOCOL else (Forgets, ())

    def learn_one(self, x, y):
        self.n += 1


def test_a_model_that_forgets_when_saved_is_named_unstable():
    assert not is_stable(Forgets, [({}, True)] * 4)


EQUAL = {
    "order of a dict": ({"a": 1, "b": 2.5}, {"b": 2.5, "a": 1}),
    "order of a set": ({"a", "b", "c"}, {"c", "b", "a"}),
    "keys of several kinds": ({1: "x", "1": "y", (2, "z"): 3, None: 4}, {None: 4, (2, "z"): 3, "1": "y", 1: "x"}),
    "one tuple or two": ([(t := (1, 2.0)), t], [(1, 2.0), tuple(iter((1, 2.0)))]),
    "a default dict": (collections.defaultdict(int, a=1, b=2), collections.defaultdict(int, b=2, a=1)),
}
DIFFERENT = {
    "kinds of numbers": (1, 1.0),
    "bool and number": (True, 1),
    "signs of zero": (0.0, -0.0),
    "last bits": (0.1 + 0.2, 0.3),
    "text and bytes": ("a", b"a"),
    "list and tuple": ([1], (1,)),
    "set and frozenset": ({1}, frozenset({1})),
    "nesting": ([["a"], "b"], [["a", "b"]]),
    "cut of texts": (["as", "b"], ["a", "sb"]),
    "texts that look like structure": (["a", "bs1:c"], ["a", "b", "c"]),
    "contents of a deque": (collections.deque([1]), collections.deque([2])),
    "shared or equal": ([(shared := [1]), shared], [[1], [1]]),
    "which one is shared": ([(p := [1]), (q := [1]), p], [(p2 := [1]), (q2 := [1]), q2]),
    "classes": (collections.OrderedDict(a=1), collections.Counter(a=1)),
    "length of a deque": (collections.deque([1], maxlen=2), collections.deque([1], maxlen=3)),
    "functions": (partial(max, 1), partial(min, 1)),
    "absent and None": ({"a": None}, {}),
    "long rows of numbers": (list(range(100)), [*range(99), 7]),
    "long rows and their text": (list(range(20)), [",".join(map(str, range(20)))]),
    "values of keys": ({"a": "b", "c": "d"}, {"a": "d", "c": "b"}),
}


@pytest.mark.parametrize("what", EQUAL)
def test_equal_structures_have_one_digest(what):
    one, other = EQUAL[what]
    assert digest(one) == digest(other)


@pytest.mark.parametrize("what", DIFFERENT)
def test_different_structures_have_different_digests(what):
    one, other = DIFFERENT[what]
    assert digest(one) != digest(other)


def test_structures_that_hold_themselves_or_go_deep_end():
    ring = [1]
    ring.append(ring)
    chain = None
    for _ in range(5_000):
        chain = [chain]
    assert digest(ring) != digest([1, [1]])
    assert len(digest(chain)) == 64


def test_odd_but_honest_contents_have_a_digest():
    odd = {
        "when": datetime(2024, 1, 1, tzinfo=UTC),
        "where": Path("a"),
        "lone surrogate": "\ud800",
        "none": ...,
        "f": len,
    }
    assert digest(odd) == digest(dict(reversed(odd.items())))
    assert digest(drift.ADWIN()) == digest(drift.ADWIN())


def test_the_digest_of_a_small_model_is_cheap(taught):
    import timeit

    model = taught["scaler | logistic regression"]
    assert (
        min(timeit.repeat(lambda: digest(model), number=10, repeat=10)) / 10 < 1e-3
    )  # 0.1 ms when the machine is free


if __name__ == "__main__":
    act(sys.argv[1], Path(sys.argv[2]))
