"""What people ask of the orchestrator: a training, and that automatic promotion stops or goes on."""

from __future__ import annotations

from headrace.ranges import from_on
from headrace.schemas.control import (
    OWN_RECIPE,
    AutomationPaused,
    AutomationResumed,
    PauseAsked,
    ResumeAsked,
    RunStarted,
    TrainingAsked,
    TrainingRequested,
)
from headrace.schemas.record import Emit
from headrace.services.orchestrator.training import (
    Training,
    no_recipe,
    refused,
    take_or_wait,
)
from headrace.services.orchestrator.triggers import request, until_now
from headrace.services.orchestrator.twins import is_twin, of_twin, twin

REMEMBERED_REQUESTS = 1_000  # a client repeats a request within seconds, not after a thousand others


def on_asked(training: Training | None, event: TrainingAsked | PauseAsked | ResumeAsked, known_ms: int) -> list[Emit]:
    """Answer a request once; what is not carried out is refused with the reason."""
    pipeline, kind = event.pipeline, type(event).__name__
    if training is None:
        reason = f"no pipeline is named {pipeline!r}"
        return [refused(pipeline, event.request, kind, reason, "headrace release pipelines/NAME.py")]
    if event.request in training.answered:
        return []
    training.answered = [*training.answered, event.request][-REMEMBERED_REQUESTS:]
    if training.retired:
        reason = f"{pipeline} was retired; a retired name is never used again"
        return [refused(pipeline, event.request, kind, reason, "headrace release pipelines/NEW_NAME.py")]
    if isinstance(event, TrainingAsked):
        return _train(training, event, known_ms)
    return _pause(training, event)


def _pause(training: Training, event: PauseAsked | ResumeAsked) -> list[Emit]:
    pauses = isinstance(event, PauseAsked)
    if training.paused == pauses:
        reason = f"automatic promotion of {event.pipeline} is {'paused' if pauses else 'on'} already"
        return [
            refused(event.pipeline, event.request, type(event).__name__, reason, f"headrace status {event.pipeline}")
        ]
    training.paused = pauses
    if not pauses:
        training.failures = 0
    told = (
        AutomationPaused(
            pipeline=event.pipeline, by=event.by, reason=event.reason or f"asked by {event.by}", request=event.request
        )
        if pauses
        else AutomationResumed(pipeline=event.pipeline, by=event.by, reason=event.reason, request=event.request)
    )
    return [Emit("decisions", told, event.pipeline.encode(), partition=0)]


def _train(training: Training, event: TrainingAsked, known_ms: int) -> list[Emit]:
    pipeline, start = event.pipeline, event.start or 0
    recipe = None if event.recipe == OWN_RECIPE else event.recipe
    problem = no_recipe(training, recipe)
    if start < 0:
        problem = f"a training starts at an offset of {pipeline}.labelled-examples, not at {start}"
    if event.parent is not None and start < (event.parent_offset or 0):
        problem = (
            f"version {event.version} has learned up to offset {event.parent_offset}; a run that begins with it cannot "
            f"start at {start}, or it would learn twice"
        )
    if problem is not None:
        return [refused(pipeline, event.request, "TrainingAsked", problem, f"headrace status {pipeline}")]
    cause = f"asked by {event.by}{f': {event.reason}' if event.reason else ''}"
    end = None if training.champion is None else until_now(training, start)
    asked = request(training, event.request, "person", cause, start=start, end=end, recipe=recipe)
    asked = asked.model_copy(update={"seed": asked.seed if event.seed is None else event.seed, "parent": event.parent})
    same = twin(training, asked)
    run = same or _goes_on(training, event, asked)
    if run is not None:
        reason = is_twin(run, asked) if run is same else _no_fork(run, event)
        show = f"headrace status {pipeline}"
        return [refused(pipeline, event.request, "TrainingAsked", reason, show, of_twin(run, asked))]
    return take_or_wait(training, asked, known_ms, known_ms)


def _goes_on(training: Training, event: TrainingAsked, asked: TrainingRequested) -> RunStarted | None:
    """The live run from which a fork would differ in nothing: it begins with that run's model, where that one went on.

    One that leaves out what was barred since is another; a frozen run goes on from no model.
    """
    run = training.live.get(event.parent_run or "")
    if run is None or training.policies.learning == "frozen" or asked.start != event.parent_offset:
        return None
    return run if from_on(asked.start, run.excluded) == asked.excluded else None


def _no_fork(run: RunStarted, event: TrainingAsked) -> str:
    return (
        f"run {run.run} goes on from the model of version {event.version} already, and learns all that came since; a "
        "second one would be the same model: name a later start"
    )
