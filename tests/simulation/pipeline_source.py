"""The pipeline that is simulated: a model that fails on some inputs, and two releases of its contract.

In a life its gates are quick, so that 150 rows see a challenger promoted, guarded and rolled back. Some lives have an
anchor as well. A wind breaks the model: from then on it says the opposite of what it learned.
"""

import sys
from functools import cache

from headrace.infra import pipeline_files

NAME = "rain"
ARRIVED, LABELLED = f"{NAME}.data-arrived", f"{NAME}.labelled-examples"
STRONGEST_WIND = {1: 100, 2: 200, 3: 250}  # by release: the second one takes what the first rejects
UNLEARNABLE, UNANSWERABLE = 7.0, 13.0  # winds at which the model raises; learning, it is half changed by then
BREAKING = 17.0  # who learned it says the opposite from then on
TTL_S, GRACE_S = 60, 7_200  # no outage of a schedule is as long as the grace

SOURCE = f'''
from headrace import Contract, Gates, Labels, Pipeline, Rollout, Triggers, feature
from river import base, linear_model, preprocessing

stumbles = []  # each one lets a learn raise that would not raise again


class Weather(Contract):
    """One hour."""

    t: float = feature(ge=-60, le=60)
    wind: float = feature(ge=0, le=STRONGEST)


class Careless(base.Classifier):
    """A model whose author did not think of every input."""

    def __init__(self):
        self.model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
        self.broken = False

    def learn_one(self, x, y):
        self.model.learn_one(x, y)
        self.broken = self.broken or x["wind"] == {BREAKING}
        if x["wind"] == {UNLEARNABLE} or (stumbles and stumbles.pop()):
            raise ValueError(f"no idea what to make of {{x}}")

    def predict_proba_one(self, x):
        if x["wind"] == {UNANSWERABLE}:
            raise ValueError(f"no answer to {{x}}")
        found = self.model.predict_proba_one(x)
        return {{True: found[False], False: found[True]}} if self.broken else found


def recipe(seed):
    return Careless()


pipeline = Pipeline(
    name="{NAME}", contract=Weather, label=bool, recipe=recipe, triggers=Triggers(first_model_at=16),
    gates=Gates(first="off", quick="off"), rollout=Rollout(refresh_s=2, steps=()),
    labels=Labels(ttl_s={TTL_S}, grace_s={GRACE_S}),
)
'''


LIFE, ANCHORED = "life", "anchored life"  # what a pipeline is for; "" where rows alone matter
STRICT, QUICK = (
    'Gates(first="off", quick="off")',
    'Gates(first="off", quick="off", alpha=0.65, min_labels=8, max_labels=90, guard_alpha=0.6, guard_labels=30)',
)


def source(release, kind=""):
    """The pipeline's file at a release."""
    text = SOURCE.replace("STRONGEST", str(STRONGEST_WIND[release]))
    if kind:
        text = text.replace(STRICT, QUICK).replace("first_model_at=16", "first_model_at=8")
    if kind == ANCHORED:
        text = text.replace("steps=()", "steps=(), anchor=0.8, anchor_s=8").replace(
            "guard_alpha=0.6", "guard_alpha=0.9"
        )
    return text.encode()


@cache
def pipeline_and_definition(release, kind=""):
    """The recipe is tried once a process."""
    pipeline = pipeline_files.pipeline_of(source(release, kind), f"<{NAME}, release {release}>")
    return pipeline, pipeline_files.definition(pipeline, source(release, kind), "")


def definition(release, artifacts, kind=""):
    """The definition of a release, with its source in the artifact store."""
    _, uri = artifacts.put_source(source(release, kind))
    return pipeline_and_definition(release, kind)[1].model_copy(update={"source_uri": uri})


def stumble():
    """Let the next learn raise, once: twice in a row would be poison, and rightly skipped."""
    for stumbles in _stumbles():
        stumbles[:] = [True]


def walk_steadily():
    """No learn raises that would not raise again."""
    for stumbles in _stumbles():
        stumbles.clear()


def _stumbles():
    for release in STRONGEST_WIND:
        for kind in ("", LIFE, ANCHORED):
            _, loaded = pipeline_and_definition(release, kind)
            yield sys.modules[pipeline_files.module_name(loaded.source_digest)].stumbles
