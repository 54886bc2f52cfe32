"""Releases, versions and aliases: what is in force, and which model each alias names.

A release is written to `pipelines` and, signed, into every partition of the pipeline's `data-arrived`, where it
takes effect at one offset. The first run that passed both gates becomes version 1 and champion; later ones are
challengers, which take over when their online gate says so, with the old champion behind them until a guard's verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from headrace.schemas.control import (
    Alias,
    AutomationPaused,
    AutomationResumed,
    ChallengerExpired,
    ChallengerSuperseded,
    ControlEvent,
    ModelUpdated,
    ModelValidated,
    PinAsked,
    PipelineReleased,
    PipelineRetired,
    PromotionAsked,
    ReleaseAsked,
    RetireAsked,
    RollbackAsked,
    RunEnded,
    RunStarted,
    TrainingFailed,
    TrainingRequested,
)
from headrace.schemas.record import Emit, Record
from headrace.schemas.signing import sign
from headrace.services.registry.anchor import anchored
from headrace.services.registry.barring import asked_to_bar, is_about_a_range
from headrace.services.registry.models import Models, Run, Version, remove
from headrace.services.registry.moves import asked_to_pin, asked_to_promote, asked_to_roll_back
from headrace.services.registry.releases import UNCHANGED, refusal, why_not
from headrace.services.registry.verdicts import judged, take_over

REMEMBERED_REQUESTS = 1_000  # a client repeats a request within seconds, not after a thousand others


@dataclass(frozen=True)
class World:
    """The key that signs what stands among users' records."""

    key: bytes


def example_world() -> World:
    """A world for tests."""
    return World(b"example")


@dataclass(slots=True)
class State:
    """Every pipeline by its name."""

    pipelines: dict[str, Models] = field(default_factory=dict)


def models(state: State, pipeline: str) -> tuple[list[Version], dict[Alias, ModelUpdated]]:
    """The versions of a pipeline, oldest first, and where its aliases point; empty for an unknown one."""
    found = state.pipelines.get(pipeline)
    return (list(found.versions), dict(found.aliases)) if found else ([], {})


def step(state: State, record: Record, world: World) -> list[Emit]:
    """Fold one decision; what this version does not act upon passes without effect."""
    event = record.event
    if not isinstance(event, ControlEvent):
        return []
    found = state.pipelines.get(event.pipeline)
    told = _decided(state, found, event, record.known_ms, world)
    return told if found is None else [*told, *anchored(found, told)]


def _decided(state: State, found: Models | None, event: ControlEvent, known_ms: int, world: World) -> list[Emit]:
    match event:
        case ReleaseAsked():
            return _release(state, found, event, world)
        case RetireAsked():
            return _retire(found, event, world)
        case PromotionAsked() | RollbackAsked() | PinAsked():
            return _move(found, event)
        case _ if found is not None and not found.retired:
            return _followed(found, event, known_ms)
        case _:
            return []


def _followed(found: Models, event: ControlEvent, known_ms: int) -> list[Emit]:
    """What became of trainings, runs and gates."""
    match event:
        case TrainingRequested():
            found.requests[event.request] = event
        case TrainingFailed(run=None):
            found.requests.pop(event.request, None)
        case RunStarted() if event.run not in found.runs:
            found.runs = {name: run for name, run in found.runs.items() if run.version is not None}
            asked = found.requests.pop(event.request, None)
            run = Run(event.release, event.start_offset, event.excluded, event.parent, event.recipe)
            found.runs[event.run] = run if asked is None else replace(run, trigger=asked.trigger, alpha=asked.alpha)
        case RunEnded() | ChallengerSuperseded() | ChallengerExpired():
            return _ended(found, event)
        case AutomationPaused():
            found.paused = True
        case AutomationResumed():
            found.paused = False
            return take_over(found)
        case ModelValidated():
            return judged(found, event, known_ms)
        case _:
            pass
    return []


def _ended(found: Models, event: RunEnded | ChallengerSuperseded | ChallengerExpired) -> list[Emit]:
    """A run that has a version stays known; what followed it and learns no more is no challenger.

    One without gets none: the trainer ends it, though its gates may pass before it says so.
    """
    run = found.runs.get(event.run)
    if run is not None and run.version is None:
        del found.runs[event.run]
    return _lost(found, event.run, event.reason) if run is not None else []


def _lost(found: Models, run: str, reason: str) -> list[Emit]:
    challenger = found.aliases.get("challenger")
    if challenger is None or challenger.run != run or not challenger.follows:
        return []
    found.epoch += 1
    return remove(found, "challenger", reason)


def _move(found: Models | None, event: PromotionAsked | RollbackAsked | PinAsked) -> list[Emit]:
    if found is None:
        return [_unknown(event)]
    if _is_answered(found, event.request):
        return []
    if found.retired:
        return [refusal(event, f"{event.pipeline} was retired", "headrace release pipelines/NEW_NAME.py")]
    if isinstance(event, PromotionAsked):
        return asked_to_promote(found, event)
    if isinstance(event, PinAsked):
        return asked_to_pin(found, event)
    return asked_to_bar(found, event) if is_about_a_range(event) else asked_to_roll_back(found, event)


# --- releases ---------------------------------------------------------------------------------------------


def _release(state: State, found: Models | None, event: ReleaseAsked, world: World) -> list[Emit]:
    if found is not None and _is_answered(found, event.request):
        return []
    problem = why_not(found.released if found else None, event, retired=found is not None and found.retired)
    if problem is not None:
        return [problem]
    released = sign(
        world.key,
        PipelineReleased(
            pipeline=event.pipeline,
            release=found.released.release + 1 if found else 1,
            definition=event.definition,
            partitions=event.partitions,
            request=event.request,
            by=event.by,
        ),
    )
    if found is None:
        state.pipelines[event.pipeline] = Models(released, answered=[event.request])
    else:
        found.released = released
    return _tell(released, released.partitions)


def _retire(found: Models | None, event: RetireAsked, world: World) -> list[Emit]:
    if found is None:
        return [_unknown(event)]
    if _is_answered(found, event.request):
        return []
    if found.retired:
        return [refusal(event, f"{event.pipeline} was retired already", None, kind=UNCHANGED)]
    found.retired = True
    found.runs.clear()
    retired = PipelineRetired(pipeline=event.pipeline, request=event.request, by=event.by, reason=event.reason)
    return _tell(sign(world.key, retired), found.released.partitions)


def _tell(event: PipelineReleased | PipelineRetired, partitions: int) -> list[Emit]:
    """To `pipelines`, and in band to every partition."""
    key = event.pipeline.encode()
    marks = [
        Emit("<p>.data-arrived", event, key, partition=partition, pipeline=event.pipeline)
        for partition in range(partitions)
    ]
    return [Emit("pipelines", event, key, partition=0), *marks]


# --- answers ----------------------------------------------------------------------------------------------


def _is_answered(found: Models, request: str) -> bool:
    """Whether this request was answered before; notes it if not."""
    if request in found.answered:
        return True
    found.answered = [*found.answered, request][-REMEMBERED_REQUESTS:]
    return False


def _unknown(event: RetireAsked | PromotionAsked | RollbackAsked | PinAsked) -> Emit:
    return refusal(event, f"no pipeline is named {event.pipeline!r}", "headrace release pipelines/NAME.py")
