"""Pipelines: what contradicts itself is refused by name; recipes are tried; files become modules that pickles find."""

import hashlib
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

import headrace
from headrace.contract import Contract, InvalidDefinition, digest, feature
from headrace.infra.pipeline_files import PipelineFileError, definition, load_file, load_stored, module_name
from headrace.pipeline import Pipeline
from headrace.recipe_digest import recipe_digest
from headrace.recipes import made_up_examples, try_recipe
from headrace.schemas.policies import Gates, Labels, Rollout, Slice, Success, Triggers
from headrace.services.validator.compiled import compile_contract

RAINFALL = Path(headrace.__file__).parent / "examples" / "rainfall.py"


class Weather(Contract):
    """One day."""

    temperature: float = feature(ge=-60, le=60)
    sky: Literal["clear", "cloudy"] | None


class Numbers(Contract):
    x: float = feature(ge=-1, le=1)
    y: float | None


def selecting(seed):
    from river import compose

    return compose.Select("x", "y") | linear(seed)


def linear(seed):
    from river import linear_model, preprocessing

    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def pipeline(**settings):
    return Pipeline(**{"name": "rain", "contract": Numbers, "label": bool, "recipe": linear} | settings)


def regression(recipe, **settings):
    return pipeline(label=float, recipe=recipe, **settings)


# --- settings -----------------------------------------------------------------------------------------------


def test_a_pipeline_needs_four_settings_and_every_policy_has_a_default():
    made = pipeline()
    assert (made.spec.name, made.spec.label.task, made.policies().learning) == ("Numbers", "binary", "online")
    assert made.policies().triggers == Triggers()
    assert made.policies().success is None


def test_settings_reach_the_policies_and_the_contract():
    made = pipeline(
        success=Success("logloss", at_most=0.5),
        triggers=Triggers(first_model_at=50),
        entity=True,
        extra="reject",
        seed=7,
    )
    assert (made.policies().success.at_most, made.policies().triggers.first_model_at) == (0.5, 50)
    assert (made.policies().seed, made.spec.entity, made.spec.extra) == (7, True, "reject")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"name": "Rain"}, "name"),
        ({"name": "r" * 42}, "name"),
        ({"name": ""}, "name"),
        ({"name": "rain.fall"}, "name"),
        ({"contract": dict}, "contract"),
        ({"label": int}, "label"),
        ({"label": Literal["one"]}, "label"),
        ({"recipe": linear(0)}, "recipe"),
        ({"recipe": lambda: None}, "recipe"),
        ({"recipe": lambda a, b: None}, "recipe"),
        ({"entity": "station"}, "entity"),
        ({"extra": "keep"}, "extra"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"learning": "batch"}, "learning"),
        ({"triggers": {"first_model_at": 5}}, "triggers"),
        ({"gates": Labels()}, "gates"),
        ({"success": Success("accuracy")}, "success"),
        ({"success": Success("mae", at_most=1)}, "success"),
        ({"success": Success("accuracy", at_most=0.5)}, "success"),
        ({"success": Success("logloss", at_least=1)}, "success"),
        ({"success": Success("accuracy", at_least=60)}, "success"),
        ({"success": Success("accuracy", at_least=0.7, at_most=0.6)}, "success"),
        ({"success": Success("accuracy", at_least=float("nan"))}, "success"),
        ({"label": float, "success": Success("accuracy", at_least=0.5)}, "success"),
        ({"label": Literal["a", "b", "c"], "success": Success("auc", at_least=0.5)}, "success"),
        ({"gates": Gates(min_labels=10, max_labels=9)}, "gates.min_labels"),
        ({"gates": Gates(slices=("y",))}, "gates.slices"),
        ({"rollout": Rollout(steps=(0.5, 0.1))}, "rollout.steps"),
        ({"rollout": Rollout(steps=(0.5, 1.0))}, "rollout.steps"),
        ({"labels": Labels(ttl_s=10, mature_after_s=11)}, "labels.mature_after_s"),
        ({"labels": Labels(on_timeout="no")}, "labels.on_timeout"),
        ({"labels": Labels(on_timeout=1.0)}, "labels.on_timeout"),
        ({"label": float, "labels": Labels(on_timeout=False)}, "labels.on_timeout"),
        ({"slices": "sky"}, "slices"),
        ({"slices": [1]}, "slices"),
        ({"slices": ["x"]}, "slices"),
        ({"slices": ["wind"]}, "slices"),
        ({"contract": Weather, "slices": ["sky", Slice("sky")]}, "slices"),
        ({"contract": Weather, "slices": [Slice("sky", edges=(1,))]}, "slices"),
        ({"slices": [Slice("x", edges=(5, 5))]}, "slices"),
        ({"slices": [Slice("x", edges=(5, 1))]}, "slices"),
        ({"slices": [Slice("x", edges=(float("nan"),))]}, "slices"),
        ({"slices": [Slice("x", edges=range(50))]}, "slices"),
        ({"slices": [Slice("x", edges=(n,)) for n in range(6)]}, "slices"),
        ({"triggers": Triggers(schedule="daily")}, "triggers.schedule"),
        ({"triggers": Triggers(schedule="0 3 * *")}, "triggers.schedule"),
    ],
)
def test_a_contradictory_setting_is_refused_by_its_name(settings, field):
    with pytest.raises(InvalidDefinition) as refusal:
        pipeline(**settings)
    assert refusal.value.field == field
    assert str(refusal.value).startswith(f"{field}: ")


@pytest.mark.parametrize(
    "settings",
    [
        {"labels": Labels(on_timeout=False)},
        {"labels": Labels(on_timeout="a"), "label": Literal["a", "b"]},
        {"labels": Labels(on_timeout=0.0), "label": float},
        {"gates": Gates(slices=("y",)), "slices": [Slice("y", edges=[1])]},
        {"slices": [Slice("x", edges=(0, 0.5)), Slice("y", edges=[1])]},
        {"contract": Weather, "slices": ["sky"]},
        {"rollout": Rollout(steps=())},
        {"triggers": Triggers(schedule="*/5 0-6 * JAN,FEB 1")},
        {"success": Success("mcc", at_least=-0.1)},
        {"success": Success("accuracy", at_least=0.6, at_most=0.99)},
    ],
)
def test_settings_that_agree_stand(settings):
    pipeline(**settings)


def test_an_unknown_setting_is_refused_by_its_name():
    with pytest.raises(TypeError, match="'retrain'"):
        pipeline(retrain=True)
    with pytest.raises(ValidationError, match="cooldown"):
        Triggers(cooldown=1)


# --- recipes ------------------------------------------------------------------------------------------------


def seeded(seed):
    from river import forest

    return forest.ARFClassifier(n_models=2, seed=seed)


def unseeded(seed):
    from river import forest

    return forest.ARFClassifier(n_models=2)


def without_probabilities(seed):
    from river import linear_model

    return linear_model.Perceptron()


def bare(seed):
    """A classifier that only names the class, as some of River's do."""
    from river import base, dummy

    class Bare(dummy.NoChangeClassifier):
        predict_proba_one = base.Classifier.predict_proba_one

    Bare.__qualname__ = "Bare"
    globals()["Bare"] = Bare
    return Bare()


def regressor(seed):
    from river import linear_model, preprocessing

    return preprocessing.StandardScaler() | linear_model.LinearRegression()


def diverging(seed):
    from river import linear_model, optim

    return linear_model.LinearRegression(optimizer=optim.SGD(1e300))


def test_a_stable_recipe_with_probabilities():
    report = try_recipe(pipeline())
    assert (report.stable, report.has_probabilities, report.problems) == (True, True, ())


def test_a_seed_makes_a_random_recipe_stable_and_without_one_it_is_not():
    assert try_recipe(pipeline(recipe=seeded)).stable
    report = try_recipe(pipeline(recipe=unseeded))
    assert (report.stable, report.problems) == (False, ())


def test_a_model_whose_state_is_never_the_same_twice_is_not_stable():
    report = try_recipe(pipeline(recipe=lambda seed: _Restless()))
    assert (report.stable, report.problems) == (False, ())


def test_a_model_that_loses_what_it_learned_when_saved_is_not_stable():
    report = try_recipe(pipeline(recipe=lambda seed: _Forgetful()))
    assert (report.stable, report.problems) == (False, ())


def test_a_model_that_cannot_learn_on_after_it_was_saved_is_refused():
    (told,) = try_recipe(pipeline(recipe=lambda seed: _Fragile())).problems
    assert told.startswith("learning on after the model was saved and loaded raised AttributeError: ")


def test_a_regression_has_no_probabilities():
    report = try_recipe(regression(regressor))
    assert (report.stable, report.has_probabilities, report.problems) == (True, False, ())


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (pipeline(recipe=lambda seed: 1 / 0), "building the model raised ZeroDivisionError"),
        (pipeline(recipe=lambda seed: None), "NoneType, which has no learn_one and no predict_one"),
        (pipeline(recipe=regressor), "LinearRegression predicts numbers"),
        (regression(linear), "LogisticRegression tells classes apart"),
        (pipeline(label=Literal["a", "b", "c"]), "OneVsRestClassifier"),
        (regression(diverging), "not finite"),
        (
            pipeline(contract=Weather),
            "unsupported operand type(s) for -: 'str' and 'float'. Text columns must be encoded",
        ),
        (
            pipeline(recipe=selecting),
            "raised KeyError: 'y', a column that a row need not have. river.compose.Select raises",
        ),
        (pipeline(recipe=lambda seed: _Failing()), "learning made-up example 3 raised ValueError: enough"),
        (pipeline(recipe=lambda seed: _Unpicklable()), "saving and loading the model raised"),
    ],
)
def test_what_a_recipe_does_wrong_is_said(made, words):
    (told,) = try_recipe(made).problems
    assert words in told


class _Restless:
    def __init__(self):
        self.noise = random.random()

    def predict_one(self, x):
        return False

    def learn_one(self, x, y): ...


class _Forgetful:
    def __init__(self):
        self.n, self.scratch = 0, 0

    def __getstate__(self):
        return {"n": self.n}

    def __setstate__(self, state):
        self.n = 0

    def predict_one(self, x):
        return False

    def learn_one(self, x, y):
        self.n += 1


class _Fragile(_Forgetful):
    def learn_one(self, x, y):
        self.n += 1
        self.scratch += 1


class _Failing:
    learned = 0

    def predict_one(self, x):
        return False

    def learn_one(self, x, y):
        self.learned += 1
        if self.learned > 3:
            raise ValueError("enough")


class _Unpicklable:
    def __init__(self):
        self.f = lambda: None

    def predict_one(self, x):
        return False

    def learn_one(self, x, y): ...


def test_a_metric_of_probabilities_is_refused_where_the_model_has_none():
    made = pipeline(recipe=bare, success=Success("logloss", at_most=0.6))
    with pytest.raises(InvalidDefinition, match=r"^success: logloss needs probabilities"):
        definition(made, b"", "uri")
    assert not definition(pipeline(recipe=bare), b"", "uri").has_probabilities


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("99 * * * *", "'99 * * * *' is no cron expression"),
        ("a b c d e", "is no cron expression"),
        ("*/0 * * * *", "is no cron expression"),
        ("0 0 31 2 *", "names no time that ever comes"),
    ],
)
def test_a_schedule_that_the_scheduler_could_not_follow_is_refused_at_the_release_by_its_name(schedule, words):
    made = pipeline(triggers=Triggers(schedule=schedule))
    with pytest.raises(InvalidDefinition, match=f"^triggers.schedule: .*{re.escape(words)}"):
        definition(made, b"", "uri")


def test_a_schedule_that_names_times_is_released():
    made = pipeline(triggers=Triggers(schedule="*/5 0-6 29 FEB 1-5"))
    assert definition(made, b"", "uri").policies.triggers.schedule == "*/5 0-6 29 FEB 1-5"


def test_made_up_examples_meet_their_contract_and_follow_the_seed():
    class All(Contract):
        a: float = feature(gt=0, lt=1)
        b: int = feature(gt=0, lt=2)
        c: int = feature(le=-5)
        d: float = feature(ge=-1.7e308, le=1.7e308)
        e: str = feature(max_length=2)
        f: Literal["x", "y"] | None
        g: bool
        h: float

    spec = pipeline(contract=All).spec
    decode = compile_contract(spec).features
    examples = list(made_up_examples(spec, 300, seed=1))
    import msgspec

    for features, label in examples:
        msgspec.convert(features, decode)
        assert isinstance(label, bool)
    assert {"f" in features for features, _ in examples} == {True, False}
    assert examples == list(made_up_examples(spec, 300, seed=1))
    assert examples != list(made_up_examples(spec, 300, seed=2))


# --- the recipe's digest ------------------------------------------------------------------------------------

SOURCE = '''
"""Rain."""
from river import linear_model, preprocessing
from headrace import Contract, Pipeline, Success, feature

RATE = 0.1

class Weather(Contract):
    x: float = feature(ge=0)

class Scaler(preprocessing.StandardScaler):
    """Ours."""

def recipe(seed):
    """A model."""
    return Scaler() | linear_model.LogisticRegression(l2=RATE)

pipeline = Pipeline(name="rain", contract=Weather, label=bool, recipe=recipe)
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ge=0", "ge=-1"),
        ('"""A model."""', '"""Other words."""'),
        ("label=bool", "label=bool, seed=3"),
        ("RATE = 0.1", "# why\nRATE  =  0.1"),
        ('"""Rain."""', ""),
        ("class Weather", "UNUSED = 1\nclass Weather"),
    ],
)
def test_the_digest_ignores_what_does_not_make_the_model(old, new):
    assert old in SOURCE
    assert recipe_digest(SOURCE.encode()) == recipe_digest(SOURCE.replace(old, new).encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 0.1", "RATE = 0.2"),
        ("RATE = 0.1", "RATE = 0.1\nRATE += 1"),
        ("RATE = 0.1", "RATE = 0.1\nprint(RATE)"),
        ('    """Ours."""', "    with_std = False"),
        ("l2=RATE", "l1=RATE"),
        ("import linear_model", "import linear_model as linear_model"),
        ("recipe=recipe", "recipe=lambda seed: recipe(seed + 1)"),
    ],
)
def test_the_digest_changes_with_what_makes_the_model(old, new):
    assert old in SOURCE
    assert recipe_digest(SOURCE.encode()) != recipe_digest(SOURCE.replace(old, new).encode())


def test_without_a_plain_call_the_whole_file_counts():
    hidden = SOURCE.replace("recipe=recipe)", "**{'recipe': recipe})")
    assert recipe_digest(hidden.encode()) != recipe_digest(hidden.replace("ge=0", "ge=-1").encode())


# --- files --------------------------------------------------------------------------------------------------


class Kept(dict):
    """Sources by URI."""

    def get_source(self, uri):
        return self[uri]


@pytest.fixture
def file(tmp_path):
    def write(source):
        path = tmp_path / "rain.py"
        path.write_text(source)
        return path

    return write


def test_a_file_becomes_a_pipeline_and_a_definition(file):
    path = file(SOURCE)
    source = path.read_bytes()
    made = load_file(path)
    found = definition(made, source, "sources/a")
    assert (found.contract, found.policies, found.source_uri) == (made.spec, made.policies(), "sources/a")
    assert found.source_digest == hashlib.sha256(source).hexdigest()
    assert found.contract_digest == digest(made.spec)
    assert found.recipe_digest == recipe_digest(source)
    assert (found.recipe_stable, found.has_probabilities, found.description) == (True, True, "Rain.")


def test_the_example_of_the_package_can_be_released():
    found = definition(load_file(RAINFALL), RAINFALL.read_bytes(), "uri")
    assert [f.name for f in found.contract.features][:2] == ["temperature", "dew_point"]


def test_only_what_changed_changes_its_digest(file):
    def digests(source):
        path = file(source)
        found = definition(load_file(path), path.read_bytes(), "uri")
        return found.contract_digest, found.policies_digest, found.recipe_digest

    base = digests(SOURCE)
    assert [a == b for a, b in zip(base, digests(SOURCE.replace("ge=0", "ge=-1")), strict=True)] == [False, True, True]
    assert [a == b for a, b in zip(base, digests(SOURCE.replace("label=bool", "label=bool, seed=3")), strict=True)] == [
        True,
        False,
        True,
    ]
    assert [a == b for a, b in zip(base, digests(SOURCE.replace("0.1", "0.2")), strict=True)] == [True, True, False]


def test_the_stored_source_is_the_same_module_and_its_models_can_be_pickled(file):
    path = file(SOURCE)
    made = load_file(path)
    found = definition(made, path.read_bytes(), "u")
    again = load_stored(Kept(u=path.read_bytes()), found)
    assert again is made
    model = again.recipe(0)
    assert type(pickle.loads(pickle.dumps(model))["Scaler"]) is type(model["Scaler"])
    assert type(model["Scaler"]).__module__ == f"headrace_pipeline_{found.source_digest[:16]}"


def test_another_process_finds_the_classes_of_a_pickled_model(file, tmp_path):
    path = file(SOURCE)
    found = definition(load_file(path), path.read_bytes(), "u")
    (tmp_path / "model").write_bytes(pickle.dumps(load_file(path).recipe(0)))
    (tmp_path / "definition").write_text(found.model_dump_json())
    program = """
import pickle, sys
from pathlib import Path
from headrace.infra.pipeline_files import load_stored
from headrace.schemas.control import ReleaseDefinition
here = Path(sys.argv[1])
class Kept:
    def get_source(self, uri): return (here / "rain.py").read_bytes()
load_stored(Kept(), ReleaseDefinition.model_validate_json((here / "definition").read_text()))
print(type(pickle.loads((here / "model").read_bytes())["Scaler"]).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Scaler"


def test_a_changed_source_is_refused(file, monkeypatch):
    path = file(SOURCE)
    found = definition(load_file(path), path.read_bytes(), "u")
    monkeypatch.delitem(sys.modules, module_name(found.source_digest))  # as in a process that never loaded it
    with pytest.raises(PipelineFileError, match="holds another source"):
        load_stored(Kept(u=path.read_bytes() + b"\n"), found)


def test_two_versions_of_a_file_live_side_by_side(file):
    first = load_file(file(SOURCE))
    second = load_file(file(SOURCE.replace("0.1", "0.2")))
    assert [p.recipe(0)["LogisticRegression"].l2 for p in (first, second)] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1\ny = x / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "line 1: not Python"),
        (
            "import weather_helpers\n",
            "line 1: ModuleNotFoundError: No module named 'weather_helpers'. A pipeline is one file",
        ),
        ("def f():\n    raise SystemExit(3)\n\nf()\n", "line 2: SystemExit: 3"),
        ("x = 1\n", "defines no pipeline; end it with `pipeline = Pipeline"),
        (
            SOURCE + "other = Pipeline(name='snow', contract=Weather, label=bool, recipe=recipe)\n",
            "2 pipelines (pipeline, other)",
        ),
        (SOURCE.replace('name="rain"', 'name="Rain"'), "line 18: name: a-z"),
        (SOURCE.replace("label=bool", "label=bool, retrain=1"), "line 18: TypeError: "),
        ("\0", "null bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(file, source, words):
    path = file(source)
    before = set(sys.modules)
    with pytest.raises(PipelineFileError) as refusal:
        load_file(path)
    assert str(refusal.value).startswith(str(path))
    assert words in str(refusal.value)
    if "pipelines (" not in words and "defines no" not in words:
        assert not {name for name in set(sys.modules) - before if name.startswith("headrace_pipeline_")}


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PipelineFileError, match=r"gone\.py: No such file"):
        load_file(tmp_path / "gone.py")


def test_one_pipeline_under_two_names_is_one(file):
    assert load_file(file(SOURCE + "\nagain = pipeline\n")).name == "rain"
