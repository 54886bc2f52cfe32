"""A small history on the in-process log, for the tests of `reproduce` and `why`."""

from datetime import UTC, datetime, timedelta

import pytest

from headrace.infra import pipeline_files
from headrace.infra.system import CHAIN, System
from headrace.reproduce import log
from headrace.schemas.stream import ExampleArrived, LabelArrived

START = datetime(2026, 3, 1, tzinfo=UTC)
SOURCE = '''
from headrace import Contract, Gates, Pipeline, Rollout, Success, Triggers
from river import drift, ensemble, forest, linear_model, naive_bayes, neighbors, preprocessing, tree


class Weather(Contract):
    """One number that tells the label."""

    x: float


{helper}
def recipe(seed: int):
    return {recipe}


pipeline = Pipeline(
    name="rain", contract=Weather, label={label}, recipe=recipe, success={success},
    triggers=Triggers(first_model_at=40), rollout=Rollout(refresh_s=60), {more}
)
'''
LINEAR = "preprocessing.StandardScaler() | linear_model.LogisticRegression()"


class History:
    """The system with a release; `live` lets it see rows and their labels (with `number`, numbers), one a second."""

    def __init__(self, home, recipe=LINEAR, helper="", more="", number=False):
        self.system = System(home, services=CHAIN[:-1], start_ms=int(START.timestamp() * 1000))
        file = home / "rain.py"
        label, success = (
            ("float", 'Success("mae", at_most=3)') if number else ("bool", 'Success("accuracy", at_least=0.6)')
        )
        file.write_text(SOURCE.format(recipe=recipe, helper=helper, more=more, label=label, success=success))
        pipeline = pipeline_files.load_file(file)
        code = file.read_bytes()
        _, uri = self.system.artifacts.put_source(code)
        self.system.release(pipeline, pipeline_files.definition(pipeline, code, uri), by="ann")
        self.rows, self.number = 0, number

    @property
    def bus(self):
        return self.system.bus

    @property
    def artifacts(self):
        return self.system.artifacts

    def live(self, rows, x=lambda n: (n * 37) % 11 - 5.0):
        for n in range(self.rows, self.rows + rows):
            at = START + timedelta(seconds=n)
            self.system.publish("rain", ExampleArrived(id=f"d{n}", time=at, features={"x": x(n)}))
            label = float((n * 37) % 11) if self.number else (n * 37) % 11 > 5
            self.system.publish("rain", LabelArrived(id=f"d{n}", time=at, label=label))
        self.rows += rows
        return self

    def ms(self, row):
        return int((START + timedelta(seconds=row)).timestamp() * 1000)

    def roots(self, name):
        return log.find(name, self.bus)


@pytest.fixture
def history(tmp_path):
    """Makes a History; its parts are closed at the end."""
    made = []

    def make(**how):
        made.append(History(tmp_path, **how))
        return made[-1]

    yield make
    for one in made:
        one.system.close()
