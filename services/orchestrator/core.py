"""Decides when to train: the first model, after alerts, on new labels, by schedule, for a new recipe, when asked.

One slot per pipeline is held from the request to the verdict, and one request waits for it. A request's id follows
from its trigger and cause, so a request made twice is one request.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.schemas.control import (
    AutomationPaused,
    ChallengerExpired,
    ControlEvent,
    DriftDetected,
    LabelsCounted,
    ModelUpdated,
    ModelValidated,
    PauseAsked,
    PipelineReleased,
    PipelineRetired,
    RangeBarred,
    ResumeAsked,
    RunEnded,
    RunStarted,
    TrainingAsked,
    TrainingCompleted,
    TrainingFailed,
    WindowValidated,
)
from headrace.schemas.record import Emit, Record
from headrace.schemas.stream import Tick
from headrace.services.orchestrator.agreement import on_signal
from headrace.services.orchestrator.asked import on_asked
from headrace.services.orchestrator.choice import forget_changed, of_champion
from headrace.services.orchestrator.condition import on_champion, on_day_and_pause, on_performance, on_window
from headrace.services.orchestrator.training import (
    DAY_MS,
    Training,
    next_in_line,
    started_too_late,
    take,
)
from headrace.services.orchestrator.triggers import (
    on_alert,
    on_barred,
    on_count,
    on_frozen,
    on_idle,
    on_minute,
    on_recipe,
    request,
)

FAILURES_IN_A_ROW = 3

World = type(None)


def example_world() -> None:
    """The orchestrator needs no world."""
    return


@dataclass(slots=True)
class State:
    """Every pipeline by its name."""

    pipelines: dict[str, Training] = field(default_factory=dict)


def step(state: State, record: Record, world: None) -> list[Emit]:
    """Fold one decision; what concerns no training passes without effect."""
    event, known_ms = record.event, record.known_ms
    if isinstance(event, Tick):
        if event.pipeline:
            return []  # a schedule's own tick: what is due follows from the minutes, also where a scheduler was away
        return [emit for training in state.pipelines.values() for emit in _minute(training, event, known_ms)]
    if not isinstance(event, ControlEvent):
        return []
    if isinstance(event, PipelineReleased):
        return _released(state, event, known_ms)
    training = state.pipelines.get(event.pipeline)
    if isinstance(event, TrainingAsked | PauseAsked | ResumeAsked):
        return on_asked(training, event, known_ms)
    if training is None:
        return []
    if isinstance(event, PipelineRetired):
        training.retired, training.slot, training.waiting = True, None, None
        training.live.clear()
        return []
    return _followed(training, event, known_ms, record.offset) + _next(training, known_ms)


def _next(training: Training, known_ms: int) -> list[Emit]:
    """Who waits, else a recipe that was not tried."""
    return next_in_line(training, known_ms) + on_idle(training, known_ms)


def _followed(training: Training, event: ControlEvent, known_ms: int, offset: int) -> list[Emit]:
    """What became of runs and models, and what was found out."""
    slot = training.slot
    match event:
        case RunStarted():
            training.live.setdefault(event.run, event)
            if event.recipe is not None:
                training.by_recipe[event.run] = event.recipe
            if slot is not None and slot.asked.request == event.request and slot.run is None:
                slot.run = event.run
            return started_too_late(training, event)
        case RunEnded():
            training.live.pop(event.run, None)
            if slot is not None and slot.run == event.run:
                training.slot = None
        case TrainingFailed(run=None):
            training.outrun.pop(event.request, None)
            if slot is not None and slot.asked.request == event.request:
                training.slot = None
        case ModelUpdated(alias="champion"):
            if training.champion is not None and training.champion.run != event.run:
                training.signals = {}
            training.champion = event
            unlearn_to = _unlearn_to(training, event)
            if slot is not None and slot.run == event.run:
                training.slot = None
            told = on_champion(training, event, known_ms)
            if training.policies.learning == "online" and not event.follows:
                told += _went_back(training, event, known_ms) if unlearn_to is not None else []
                return told + on_frozen(training, event, known_ms, unlearn_to)
            return told
        case ModelUpdated(alias="challenger") if slot is not None and slot.run == event.run:
            slot.in_canary = event.share is not None
        case ModelValidated():
            return _judged(training, event, known_ms)
        case TrainingCompleted() if event.end_offset > training.counted[1] and event.start_offset == 0:
            training.counted = event.n_labels, event.end_offset
        case LabelsCounted():
            return on_count(training, event, known_ms)
        case RangeBarred():
            return on_barred(training, event, known_ms)
        case DriftDetected():
            told = on_performance(training, event, known_ms) + on_alert(training, event, known_ms)
            return told + on_signal(training, event, known_ms, offset)
        case WindowValidated():
            return on_window(training, event, known_ms)
        case _:
            pass
    return []


def _released(state: State, event: PipelineReleased, known_ms: int) -> list[Emit]:
    known = state.pipelines.get(event.pipeline)
    definition = event.definition
    digests = {name: f"{one}/{definition.contract_digest}" for name, one in definition.recipe_digests().items()}
    if known is None:
        fresh = Training(event, recipes={event.release: digests}, schedule_ms=known_ms)
        state.pipelines[event.pipeline] = fresh
        cause = f"release {event.release}"
        return take(fresh, request(fresh, f"first-model-{event.release}", "first_model", cause), known_ms)
    if event.release <= known.released.release:
        return []
    before = known.recipes_in_force
    known.released = event
    known.recipes[event.release] = digests
    forget_changed(known, before, digests)
    return [] if digests[None] == before[None] else on_recipe(known, event, known_ms)


def _judged(training: Training, event: ModelValidated, known_ms: int) -> list[Emit]:
    """Count failures of challengers in a row: the third stops automatic promotion. A guard that passes ends the row."""
    if training.champion is None:
        return []
    if event.stage == "refresh":
        if event.verdict == "fail" and event.against is not None:
            training.unlearn = event.against, event.offset  # whether the anchor serves the registry says
        return []
    if event.stage == "guard" and event.verdict == "pass":
        training.failures = 0
        return []
    slot = training.slot
    is_of_slot = slot is not None and slot.run == event.run and not slot.failed
    is_bad = event.verdict in ("fail", "error")
    if not is_bad or not (is_of_slot or event.stage == "guard"):
        return []
    if slot is not None and is_of_slot:
        slot.failed = True
    training.cooled_ms = max(training.cooled_ms, known_ms + round(training.policies.triggers.cooldown_s * 1000))
    if is_of_slot and slot is not None and slot.asked.recipe != of_champion(training):
        return []  # that another recipe is no better does not say that trainings go wrong
    training.failures += 1
    if training.failures < FAILURES_IN_A_ROW or training.paused:
        return []
    training.paused = True
    reason = f"{training.failures} challengers failed in a row, the last one run {event.run} in its {event.stage} gate"
    paused = AutomationPaused(pipeline=event.pipeline, reason=reason, numbers={"failures": training.failures})
    return [Emit("decisions", paused, event.pipeline.encode(), partition=0)]


def _unlearn_to(training: Training, event: ModelUpdated) -> int | None:
    """Up to where the champion's revisions learned what made them worse, where this is the return to their anchor."""
    worse, training.unlearn = training.unlearn, None
    is_return = not event.follows and event.request is None and not event.barred
    is_named = worse is not None and worse[0] == f"{event.run}@{event.snapshot_offset}"
    return worse[1] if worse is not None and is_return and is_named else None


def _went_back(training: Training, event: ModelUpdated, known_ms: int) -> list[Emit]:
    """The anchor serves, and a run is to go on from it; where that happens again soon, a person looks first."""
    since_s, cooldown_s = (known_ms - training.returned_ms) / 1000, training.policies.triggers.cooldown_s
    training.returned_ms = known_ms
    if since_s >= cooldown_s or training.paused:
        return []
    training.paused = True
    paused = AutomationPaused(
        pipeline=event.pipeline,
        reason=f"revisions were worse than their anchor twice within {cooldown_s:g} s, the last time those of run "
        f"{event.run}: the anchor serves until `headrace resume` and `headrace train {event.pipeline}`",
        numbers={"since_s": since_s, "cooldown_s": cooldown_s},
    )
    return [Emit("decisions", paused, event.pipeline.encode(), partition=0)]


def _minute(training: Training, tick: Tick, known_ms: int) -> list[Emit]:
    """A minute passed: a schedule may be due, a challenger too old, a cool-down over."""
    if training.retired:
        return []
    emits = on_minute(training, tick.due, known_ms) + on_day_and_pause(training, known_ms)
    slot = training.slot
    limit_ms = training.policies.gates.max_age_s * 1000
    if (
        slot is not None
        and slot.run is not None
        and training.champion is not None
        and not slot.expired
        and known_ms - slot.since_ms > limit_ms
    ):
        slot.expired = True
        days = (known_ms - slot.since_ms) / DAY_MS
        expired = ChallengerExpired(
            pipeline=training.released.pipeline,
            run=slot.run,
            reason=f"no verdict within {limit_ms / DAY_MS:g} days",
            numbers={"days": round(days, 3)},
        )
        emits.append(Emit("decisions", expired, expired.pipeline.encode(), partition=0))
    return emits + _next(training, known_ms)
