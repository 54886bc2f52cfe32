"""Every version of every family of recipes is folded again: the first, a challenger, and two forks that begin warm."""

import pytest

from headrace.cli import bad_range
from headrace.reproduce.model import reproduce
from headrace.schemas.control import ModelUpdated, PromotionAsked, RollbackAsked, RunStarted, TrainingAsked

TREE = "tree.HoeffdingTreeClassifier(grace_period=20)"
NUMBERS = ("scaled linear regression", "Hoeffding tree regressor")  # their labels are numbers
FAMILIES = {
    "scaled logistic regression": "preprocessing.StandardScaler() | linear_model.LogisticRegression()",
    "scaled linear regression": "preprocessing.StandardScaler() | linear_model.LinearRegression()",
    "Gaussian naive Bayes": "naive_bayes.GaussianNB()",
    "Hoeffding tree": TREE,
    "Hoeffding tree regressor": "tree.HoeffdingTreeRegressor(grace_period=20)",
    "Hoeffding adaptive tree": "tree.HoeffdingAdaptiveTreeClassifier(grace_period=20, seed=seed)",
    "adaptive random forest": "forest.ARFClassifier(n_models=3, grace_period=20, seed=seed)",
    "ADWIN bagging": f"ensemble.ADWINBaggingClassifier({TREE}, n_models=3, seed=seed)",
    "drift retraining": f"drift.DriftRetrainingClassifier({TREE}, drift.binary.DDM())",
}
VERSIONS = 4  # of each family


@pytest.fixture(params=FAMILIES)
def lived(request, history):
    """A first model, a person's challenger from an offset, promoted; a bad range taken back; version 1 asked back."""
    rain = history(recipe=FAMILIES[request.param], number=request.param in NUMBERS).live(90)
    who = {"pipeline": "rain", "by": "ann"}
    rain.system.ask(TrainingAsked(request="train", start=30, **who))
    rain.live(40)
    rain.system.ask(PromotionAsked(request="promote", version=2, forced=True, **who))
    rain.live(30)
    bad = bad_range.look_up("rain", rain.ms(135), rain.ms(150), rain.bus, rain.artifacts)
    rain.system.ask(RollbackAsked(request="bad", **who, **bad.fields()))
    rain.live(30)
    old = rain.roots("rain@1")
    rain.system.ask(RollbackAsked(request="old", version=1, uri=old.uri, snapshot_offset=old.offset, **who))
    return rain.live(30)


def test_each_version_and_kept_revision_is_folded_again_to_the_same_digest(lived):
    control = [record.event for record in lived.system.records("control-log")]
    versions = {event.version for event in control if isinstance(event, ModelUpdated)}
    assert versions == set(range(1, VERSIONS + 1))
    began = {event.run: event for event in control if isinstance(event, RunStarted)}
    named = {version: lived.roots(f"rain@{version}") for version in versions}
    assert len({roots.uri for roots in named.values()}) == VERSIONS
    starts = [began[named[version].started.run] for version in sorted(versions)]
    assert [start.start_offset > 0 for start in starts] == [False, True, True, True]
    assert [start.parent is not None for start in starts] == [False, False, True, True]
    for version, roots in named.items():
        for offset in ("", *(f"@{offset}" for offset in roots.kept)):
            done = reproduce(lived.roots(f"rain@{version}{offset}"), lived.bus, lived.artifacts)
            assert (done.outcome, done.evidence) == ("equal", "structural digest"), done.name
            assert done.n_learned > 0
    assert len(FAMILIES) * VERSIONS >= 20
