"""Other recipes in a pipeline's file: what may be written, what becomes of it in a release, which code it is."""

import pytest

import headrace
from headrace.contract import Contract, InvalidDefinition
from headrace.infra import pipeline_files
from headrace.pipeline import Pipeline
from headrace.recipe_digest import challenger_digest, recipe_digest

SOURCE = '''
from headrace import Challenger, Contract, Pipeline
from river import ensemble, linear_model, optim, tree

RATE = 0.5
DEPTH = 4


class Rain(Contract):
    """Rain."""

    x: float


def recipe(seed, rate=0.01):
    return linear_model.LogisticRegression(optimizer=optim.SGD(rate))


def forest(seed, depth):
    return tree.HoeffdingTreeClassifier(max_depth=depth)


SLOW = Challenger(name="slow", recipe=recipe, rate=0.001)
pipeline = Pipeline(
    name="rain",
    contract=Rain,
    label=bool,
    recipe=recipe,
    challengers=[Challenger("fast", recipe, rate=RATE), Challenger("tree", forest, depth=DEPTH), SLOW],
)
'''

MAKES_A_TREE = "tree.HoeffdingTreeClassifier(max_depth=depth)"


@pytest.fixture
def release(tmp_path):
    def made(source=SOURCE):
        (tmp_path / "rain.py").write_text(source)
        return pipeline_files.definition(pipeline_files.load_file(tmp_path / "rain.py"), source.encode(), "u")

    return made


def recipe(seed, rate=0.1):
    raise AssertionError("no model is built where a pipeline is only made")


def pipeline(*challengers):
    class Rain(Contract):
        """Rain."""

        x: float

    return Pipeline(name="rain", contract=Rain, label=bool, recipe=recipe, challengers=challengers)


def test_a_challenger_is_a_recipe_with_a_name_and_the_settings_that_it_is_called_with():
    found = {}

    def made(seed, rate):
        found.update(seed=seed, rate=rate)
        return "a model"

    one = headrace.Challenger("fast", made, rate=0.1)
    assert pipeline(one).recipe_named("fast")(7) == "a model"
    assert found == {"seed": 7, "rate": 0.1}
    assert repr(one) == "Challenger('fast', made, rate=0.1)"
    assert pipeline(one).recipe_named(None) is recipe


@pytest.mark.parametrize("name", ["", "Fast", "own", "a b", "9", 7, "x" * 42])
def test_a_name_that_cannot_stand_in_a_command_is_refused(name):
    with pytest.raises(InvalidDefinition, match="challengers: a name is a-z"):
        headrace.Challenger(name, recipe)


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        ((42,), {}, "needs a function of the seed, not 42"),
        ((recipe,), {"speed": 1}, "unexpected keyword argument 'speed'"),
        ((lambda: None,), {}, "too many positional arguments"),
        ((lambda seed, *, rate: None,), {}, "missing a required"),
    ],
)
def test_a_recipe_that_is_not_called_like_that_is_refused_with_the_challenger_s_name(arguments, settings, says):
    with pytest.raises(InvalidDefinition, match=rf"challengers\.fast: .*{says}"):
        headrace.Challenger("fast", *arguments, **settings)


def test_names_are_unique_and_every_challenger_is_one():
    with pytest.raises(InvalidDefinition, match="fast is named twice"):
        pipeline(headrace.Challenger("fast", recipe), headrace.Challenger("fast", recipe, rate=0.2))
    with pytest.raises(InvalidDefinition, match=r"each a headrace\.Challenger"):
        pipeline(recipe)
    with pytest.raises(InvalidDefinition, match="at most 20"):
        pipeline(*(headrace.Challenger(f"c{n}", recipe) for n in range(21)))


def test_a_release_names_each_challenger_in_the_order_of_the_file(release):
    found = release()
    assert [one.name for one in found.challengers] == ["fast", "tree", "slow"]
    assert all(one.stable for one in found.challengers)
    assert list(found.recipe_digests()) == [None, "fast", "tree", "slow"]
    assert len(set(found.recipe_digests().values())) == 4
    assert found.is_stable("fast")


def test_a_challenger_whose_models_cannot_be_made_again_is_told_apart(release):
    random = SOURCE.replace("def forest(seed, depth):", "import random\n\n\ndef forest(seed, depth):").replace(
        "max_depth=depth)", "max_depth=depth, grace_period=random.randrange(1, 100000000))"
    )
    found = release(random)
    assert [found.is_stable(name) for name in found.recipe_digests()] == [True, True, False, True]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            MAKES_A_TREE,
            "1 / 0",
            r"challengers\.tree: building the model raised Zero",
        ),
        (MAKES_A_TREE, "tree.HoeffdingTreeRegressor()", "predicts numbers"),
        (
            MAKES_A_TREE,
            "ensemble.VotingClassifier([tree.HoeffdingTreeClassifier() for _ in range(2)])",
            "gives no probabilities and that of the pipeline's own recipe gives probabilities: the two could not be",
        ),
    ],
)
def test_a_challenger_that_could_not_compete_is_refused_at_the_release(release, old, new, says):
    with pytest.raises(InvalidDefinition, match=says):
        release(SOURCE.replace(old, new))


def digests(source):
    own = recipe_digest(source.encode())
    return [own, *(challenger_digest(source.encode(), name) for name in ("fast", "tree", "slow"))]


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("DEPTH = 4", "DEPTH = 5", ["tree"]),
        ("RATE = 0.5", "RATE = 0.6", ["fast"]),
        ("rate=0.001", "rate=0.002", ["slow"]),
        ("max_depth=depth", "max_depth=depth + 1", ["tree"]),
        ("optim.SGD(rate)", "optim.SGD(rate * 2)", ["own", "fast", "slow"]),
        ("x: float", "x: float\n    y: float", []),
        ('Challenger("tree", forest, depth=DEPTH), ', "", ["tree"]),
        ("depth=DEPTH)", "depth=DEPTH  # as before\n)", []),
    ],
)
def test_the_digest_of_a_recipe_changes_with_what_makes_its_model_and_with_nothing_else(old, new, changes):
    before, after = digests(SOURCE), digests(SOURCE.replace(old, new))
    names = ("own", "fast", "tree", "slow")
    assert [name for name, a, b in zip(names, before, after, strict=True) if a != b] == changes


def test_the_own_recipe_s_digest_does_not_know_of_challengers():
    without = SOURCE[: SOURCE.index("SLOW =")] + (
        'pipeline = Pipeline(name="rain", contract=Rain, label=bool, recipe=recipe)\n'
    )
    assert recipe_digest(without.encode()) == recipe_digest(SOURCE.encode())


@pytest.mark.parametrize(
    "made",
    ['[Challenger(f"fast{n}", recipe, rate=n) for n in (1, 2)]', '[(lambda r: Challenger("fast1", recipe))(RATE)]'],
)
def test_where_a_challenger_is_made_by_a_loop_or_a_function_the_whole_file_counts(made):
    source = SOURCE[: SOURCE.index("    challengers=")] + f"    challengers={made},\n)\n"
    changed = source.replace("x: float", "x: float\n    y: float")
    assert challenger_digest(source.encode(), "fast1") != challenger_digest(source.encode(), "fast2")
    assert challenger_digest(source.encode(), "fast1") != challenger_digest(changed.encode(), "fast1")
