"""Decides when to train: the first model of every pipeline, and trainings that a person asks for.

One slot per pipeline is held from the request to the verdict. A request's id follows from its trigger and cause,
so a request made twice is one request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from headrace.schemas.control import (
    ChallengerSuperseded,
    ControlEvent,
    ModelUpdated,
    PauseAsked,
    PipelineReleased,
    PipelineRetired,
    RequestRefused,
    ResumeAsked,
    RunEnded,
    RunStarted,
    TrainingAsked,
    TrainingFailed,
    TrainingRequested,
)
from headrace.schemas.record import Emit, Record

REMEMBERED_REQUESTS = 1_000  # a client repeats a request within seconds, not after a thousand others
NO_CHALLENGERS = "challengers are not part of this version yet"

World = type(None)


def example_world() -> None:
    """The orchestrator needs no world."""
    return


@dataclass(slots=True)
class Slot:
    """The one training that is under way: what it folds, and its run once it started."""

    request: str
    recipe: str
    seed: int
    start: int
    run: str | None = None


@dataclass(slots=True)
class Training:
    """What is known of one pipeline: its release, its champion's version, its slot, the requests answered."""

    release: int
    recipe: str
    contract: str
    seed: int
    first_model_at: int
    retired: bool = False
    champion: int | None = None
    slot: Slot | None = None
    answered: list[str] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """Every pipeline by its name."""

    pipelines: dict[str, Training] = field(default_factory=dict)


def step(state: State, record: Record, world: None) -> list[Emit]:
    """Fold one decision; what this version does not act upon passes without effect."""
    event = record.event
    if not isinstance(event, ControlEvent):
        return []  # a tick: nothing is due by time yet
    if isinstance(event, PipelineReleased):
        return _released(state, event)
    training = state.pipelines.get(event.pipeline)
    if isinstance(event, TrainingAsked | PauseAsked | ResumeAsked):
        return _asked(training, event)
    if training is None:
        return []
    slot = training.slot
    match event:
        case PipelineRetired():
            training.retired, training.slot = True, None
        case RunStarted() if slot is not None and slot.request == event.request and slot.run is None:
            slot.run = event.run
        case RunEnded() if slot is not None and slot.run == event.run:
            training.slot = None
        case TrainingFailed(run=None) if slot is not None and slot.request == event.request:
            training.slot = None
        case ModelUpdated(alias="champion"):
            training.champion, training.slot = event.version, None
        case _:
            pass
    return []


def _released(state: State, event: PipelineReleased) -> list[Emit]:
    definition, policies = event.definition, event.definition.policies
    known = state.pipelines.get(event.pipeline)
    if known is not None and event.release <= known.release:
        return []
    fresh = Training(
        event.release,
        definition.recipe_digest,
        definition.contract_digest,
        policies.seed,
        policies.triggers.first_model_at,
    )
    if known is None:
        state.pipelines[event.pipeline] = fresh
        cause = f"release {event.release}"
        return _request(event.pipeline, fresh, f"first-model-{event.release}", "first_model", cause)
    learns_otherwise = (fresh.recipe, fresh.contract) != (known.recipe, known.contract)
    fresh.champion, fresh.slot, fresh.answered = known.champion, known.slot, known.answered
    state.pipelines[event.pipeline] = fresh
    if not learns_otherwise:
        return []
    request, cause = f"recipe-{event.release}", f"release {event.release} changed the recipe or the contract"
    if fresh.champion is not None:
        reason = (
            f"{cause}; {NO_CHALLENGERS}: version {fresh.champion} goes on learning with the release it was made from. "
            "To serve the new recipe, release it under a new pipeline name"
        )
        return [_refusal(event.pipeline, request, "TrainingRequested", reason, None)]
    return _request(event.pipeline, fresh, request, "recipe", cause)


def _asked(training: Training | None, event: TrainingAsked | PauseAsked | ResumeAsked) -> list[Emit]:
    pipeline, kind = event.pipeline, type(event).__name__
    if training is None:
        reason = f"no pipeline is named {pipeline!r}"
        return [_refusal(pipeline, event.request, kind, reason, "headrace release pipelines/NAME.py")]
    if event.request in training.answered:
        return []
    training.answered = [*training.answered, event.request][-REMEMBERED_REQUESTS:]
    if training.retired:
        reason = f"{pipeline} was retired; a retired name is never used again"
        return [_refusal(pipeline, event.request, kind, reason, "headrace release pipelines/NEW_NAME.py")]
    if not isinstance(event, TrainingAsked):
        reason = (
            "nothing promotes a model by itself yet, so there is nothing to pause or resume: the first model serves "
            "after its gates, and no later one takes its place"
        )
        return [_refusal(pipeline, event.request, kind, reason, f"headrace status {pipeline}")]
    return _train(training, event)


def _train(training: Training, event: TrainingAsked) -> list[Emit]:
    pipeline = event.pipeline
    seed = training.seed if event.seed is None else event.seed
    start = event.start or 0
    status = f"headrace status {pipeline}"

    def refused(reason: str, **numbers: int | str | None) -> list[Emit]:
        return [_refusal(pipeline, event.request, "TrainingAsked", reason, status, numbers)]

    if training.champion is not None:
        return refused(
            f"{NO_CHALLENGERS}: version {training.champion} serves and goes on learning from every new label. "
            "To train from scratch, release the file under a new pipeline name",
            champion=training.champion,
        )
    if start < 0:
        return refused(f"a training starts at an offset of {pipeline}.labelled-examples, not at {start}", start=start)
    if event.recipe is not None:
        return refused(f"a pipeline has one recipe, its own; there is none named {event.recipe!r}")
    slot = training.slot
    if slot is not None and (slot.recipe, slot.seed, slot.start) == (training.recipe, seed, start):
        return refused(
            f"run {slot.run or '(starting)'} already learns with this recipe, seed {seed} and start {start}; "
            "a second one would be the same model bit for bit",
            run=slot.run,
            seed=seed,
            start=start,
        )
    cause = f"asked by {event.by}{f': {event.reason}' if event.reason else ''}"
    return _request(pipeline, training, event.request, "person", cause, seed, start)


def _request(
    pipeline: str,
    training: Training,
    request: str,
    trigger: Literal["first_model", "person", "recipe"],
    cause: str,
    seed: int | None = None,
    start: int = 0,
) -> list[Emit]:
    """Fill the slot; who held it is superseded."""
    emits: list[Emit] = []
    held = training.slot
    if held is not None and held.run is not None:
        superseded = ChallengerSuperseded(pipeline=pipeline, run=held.run, by_request=request, reason=cause)
        emits.append(Emit("decisions", superseded, pipeline.encode(), partition=0))
    seed = training.seed if seed is None else seed
    training.slot = Slot(request, training.recipe, seed, start)
    requested = TrainingRequested(
        pipeline=pipeline,
        request=request,
        trigger=trigger,
        cause=cause,
        release=training.release,
        seed=seed,
        start=start,
        end_at_labels=training.first_model_at,
    )
    return [*emits, Emit("training-requests", requested, pipeline.encode(), partition=0)]


def _refusal(
    pipeline: str,
    request: str,
    kind: str,
    reason: str,
    next_command: str | None,
    numbers: dict[str, int | str | None] | None = None,
) -> Emit:
    refused = RequestRefused(
        pipeline=pipeline, request=request, kind=kind, reason=reason, next=next_command, numbers=numbers or {}
    )
    return Emit("decisions", refused, pipeline.encode(), partition=0)
