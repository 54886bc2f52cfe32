"""The pipeline `side`, whose label says on which side of zero a number lies, and a life of it without Kafka."""

import random
from datetime import UTC, datetime, timedelta

from headrace.infra import pipeline_files
from headrace.infra.system import CHAIN, System
from headrace.schemas.control import AliasRemoved, ModelUpdated
from headrace.schemas.stream import ExampleArrived, LabelArrived, PredictionMade

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = '''
import sys

from headrace import Alerts, Challenger, Contract, Drift, Gates, Pipeline, Rollout, Slice, Success, Triggers
from river import compose, naive_bayes


class Side(Contract):
    """Numbers, of which one decides."""

    {columns}


{recipes}

pipeline = Pipeline(
    name="side", contract=Side, label=bool, recipe=recipe, success=Success("accuracy", at_least=0.6),
    {policies}
)
'''
RECIPES = """def recipe(seed):
    return naive_bayes.GaussianNB()
"""


def source(policies, columns=("x", "y"), recipes=RECIPES):
    """The file with these policies."""
    listed = "\n    ".join(f"{name}: float" for name in columns)
    return SOURCE.format(columns=listed, policies=policies, recipes=recipes).encode()


class Life:
    """A system without a recorder, one row a second, and what was decided."""

    def __init__(self, home, source, begin=BEGIN):
        self.system = System(home, services=tuple(name for name in CHAIN if name != "recorder"))
        (home / "side.py").write_bytes(source)
        pipeline = pipeline_files.load_file(home / "side.py")
        _, uri = self.system.artifacts.put_source(source)
        self.system.release(pipeline, pipeline_files.definition(pipeline, source, uri))
        self.rng, self.row, self.begin = random.Random(7), 0, begin

    def time(self, row):
        """When a row comes."""
        return self.begin + timedelta(seconds=row)

    def events(self, *kinds):
        """What was decided, of these kinds."""
        return [r.event for r in self.system.records("control-log") if isinstance(r.event, kinds)]

    def predictions(self):
        """Every answer, in order."""
        records = self.system.records("<p>.predictions", "side")
        return [r.event for r in records if isinstance(r.event, PredictionMade)]

    def live(self, rows, *, turned=False, y=None, history=False):
        """Publish rows with their labels. Turned round: the other side is true. `y` is drawn where none is given."""
        for _ in range(rows):
            self.row += 1
            at, x = self.time(self.row), self.rng.gauss(0, 1)
            features = {"x": x, "y": self.rng.random() if y is None else y}
            self.system.publish("side", ExampleArrived(str(self.row), at, features, history=history))
            self.system.publish("side", LabelArrived(id=str(self.row), time=at, label=(x > 0) != turned))
        return self

    def moves(self):
        """Every move of an alias: its name, its version, "" where it was removed."""
        return [
            (event.alias, event.version if isinstance(event, ModelUpdated) else "")
            for event in self.events(ModelUpdated, AliasRemoved)
        ]

    def accuracy(self, last):
        """Of what was served, over the last rows."""
        records = self.system.records("<p>.predictions", "side")
        made = self.predictions()[-last:]
        labels = {r.event.id: r.event.label for r in records if isinstance(r.event, LabelArrived)}
        served = [(p.predictions[p.served].value > 0.5) == labels[p.id] for p in made if p.served]
        return sum(served) / len(served)


class TwoColumns(Life):
    """A life whose label needs both columns."""

    def live(self, rows):
        """Publish rows with their labels."""
        for _ in range(rows):
            self.row += 1
            at, x, y = self.time(self.row), self.rng.gauss(0, 1), self.rng.gauss(0, 1)
            self.system.publish("side", ExampleArrived(id=str(self.row), time=at, features={"x": x, "y": y}))
            self.system.publish("side", LabelArrived(id=str(self.row), time=at, label=x + 0.7 * y > 0))
        return self
