"""A pipeline's monitor of losses, and labelled predictions for it."""

import random

from definitions import definition_of

from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import PipelineReleased
from headrace.schemas.policies import Drift, Labels, Policies, Success
from headrace.schemas.record import Record
from headrace.schemas.stream import Baselines
from headrace.services.monitor.lean import Answer, Answered, Labelled
from headrace.services.monitor.performance import State, step


def record(event, offset=0, known_ms=None):
    known_ms = 1_000 * offset if known_ms is None else known_ms
    return Record(event, known_ms, "<p>.labelled-examples", "rain", 0, offset, source="/joiner/rain/t/0")


def released(label="bool", metric="accuracy", release=1, labels=None, success=None, **drift):
    definition = definition_of(
        contract=ContractSpec(
            name="R", features=(FeatureSpec(name="x", type="float"),), label=LabelSpec(type=label, values=None)
        ),
        policies=Policies(drift=Drift(**drift), success=success or Success(metric), labels=labels or Labels()),
    )
    return PipelineReleased(pipeline="rain", release=release, definition=definition, partitions=1, request="q", by="a")


class Watch:
    """A pipeline's monitor: each row is an answer of a run and its label, a second after the one before."""

    def __init__(self, seed=1, every_ms=1_000, **policy):
        self.state, self.offset, self.rng, self.every_ms = State(), 0, random.Random(seed), every_ms
        self.tell(released(**policy))

    def tell(self, event, known_ms=None):
        known_ms = self.offset * self.every_ms if known_ms is None else known_ms
        emits = step(self.state, record(event, self.offset, known_ms), None)
        self.offset += 1
        return [emit.event for emit in emits]

    def row(self, value, label, run="r1", epoch=1, version=1, delay_ms=0, mean=None, history=False):
        now = self.offset * self.every_ms
        answer = Answered(
            predictions={"champion": Answer(run=run, version=version, value=value)},
            epoch=epoch,
            history=history,
            baselines=Baselines(mean=mean),
        )
        return self.tell(
            Labelled(
                prediction=answer,
                label=label,
                predicted_at_ms=now - delay_ms,
                labelled_at_ms=now,
                partition=0,
                number=self.offset,
            )
        )

    def rows(self, n, error, **more):
        """Rows of which a share is answered wrongly; `error` may be a function of the row's number."""
        told = []
        for number in range(n):
            share = error(number) if callable(error) else error
            told += self.row(1.0 if self.rng.random() >= share else 0.0, True, **more)
        return told
