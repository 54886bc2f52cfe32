"""An orchestrator folded by hand, with a trainer that starts what it asks for: for tests that tell its histories."""

from datetime import UTC, datetime

from definitions import definition_of

from headrace.schemas.control import (
    DriftDetected,
    LabelsCounted,
    ModelUpdated,
    ModelValidated,
    PipelineReleased,
    RunEnded,
    RunStarted,
    TrainingAsked,
    TrainingRequested,
)
from headrace.schemas.policies import Policies, Triggers
from headrace.schemas.record import Record
from headrace.schemas.stream import Tick
from headrace.services.orchestrator.core import State, step

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000


class Told:
    """An orchestrator, what it answered, and a trainer that starts what is asked for."""

    def __init__(self, challengers=("forest", "slow"), learning="online", **triggers):
        self.state, self.offset, self.now_ms, self.answers = State(), 0, int(BEGIN.timestamp() * 1000), []
        self.policies = Policies(triggers=Triggers(**{"cooldown_s": 0, **triggers}), learning=learning)
        self(self.released(1, dict.fromkeys(challengers, "d")))

    def released(self, number, challengers, recipe="r"):
        """A release with these challengers, each with its digest."""
        definition = definition_of(policies=self.policies, recipe=recipe, challengers=challengers)
        return PipelineReleased(pipeline="rain", release=number, definition=definition, partitions=1, request="", by="")

    def __call__(self, *events):
        """Fold events, and the start of each run that they ask for; returns what was answered to them."""
        answers, todo = [], list(events)
        while todo:
            event = todo.pop(0)
            self.offset += 1
            record = Record(event, self.now_ms, "control-log", "", 0, self.offset)
            told = [emit.event for emit in step(self.state, record, None)]
            answers += told
            todo += [self.started(one) for one in told if isinstance(one, TrainingRequested)]
        self.answers += answers
        return answers

    def started(self, asked):
        """The start of a run."""
        return RunStarted(
            pipeline="rain", run=f"run-{asked.request}", request=asked.request, release=asked.release, seed=asked.seed,
            start_offset=asked.start, excluded=asked.excluded, parent=asked.parent, recipe=asked.recipe,
        )  # fmt: skip

    @property
    def run(self):
        """The run in the slot."""
        return self.state.pipelines["rain"].slot.run

    def lose(self, verdict="fail"):
        """The run in the slot loses."""
        failed = ModelValidated(
            pipeline="rain", run=self.run, request="", stage="online", verdict=verdict, checks=(), n_labels=9, offset=9
        )
        return self(failed, RunEnded(pipeline="rain", run=self.run, reason="it lost"))

    def win(self, version, run=None, *, follows=True):
        """The run in the slot becomes champion."""
        return self(
            ModelUpdated(
                pipeline="rain", alias="champion", version=version, run=run or self.run, release=1,
                snapshot_offset=200, uri=f"model/{version}", follows=follows, epoch=version, reason="",
            )
        )  # fmt: skip

    def count(self, n):
        """So many labels stand in the log."""
        return self(LabelsCounted(pipeline="rain", n=n, offset=n))

    def wait(self, hours):
        """So many hours pass, then a minute is told."""
        self.now_ms += hours * HOUR_MS
        return self(Tick(schedule="minute", due=datetime.fromtimestamp(self.now_ms / 1000, UTC)))


def drift(run, since=12_122, **changes):
    """The loss of a run rose."""
    evidence = {"reference_loss": 0.22, "recent_loss": 0.41, "rows_since": 184}
    told = {"kind": "performance", "level": "drift", "detector": "ADWIN", "evidence": evidence, "features": ("x",)}
    return DriftDetected(pipeline="rain", since=since, run=run, **told | changes)


def recipes(answers):
    """Trigger and recipe of each training asked for."""
    return [(one.trigger, one.recipe) for one in answers if isinstance(one, TrainingRequested)]


def asked(recipe, request="q", **changes):
    """A person asks for a training."""
    return TrainingAsked(pipeline="rain", request=request, by="ann", recipe=recipe, **changes)
