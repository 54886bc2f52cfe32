"""What is known of one pipeline's trainings, and how one is asked for: at once, after the one at work, or not."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.ranges import Ranges, from_on
from headrace.schemas.control import (
    OWN_RECIPE,
    ChallengerSuperseded,
    DriftDetected,
    ModelUpdated,
    PipelineReleased,
    RequestRefused,
    RunStarted,
    TrainingRequested,
)
from headrace.schemas.policies import Policies
from headrace.schemas.record import BEFORE_ALL_MS, Emit
from headrace.services.orchestrator.twins import Numbers, is_twin, of_twin, twin
from headrace.statistics.alpha_spending import spent

AUTOMATIC = ("schedule", "new_data", "input", "performance")
DAY_MS = 86_400_000
RANK = ("schedule", "new_data", "input", "performance", "recipe", "person", "first_model", "rollback")


@dataclass(slots=True)
class Slot:
    """The one training that is under way, from its request to its verdict; in its canary it serves some units."""

    asked: TrainingRequested
    since_ms: int
    run: str | None = None
    failed: bool = False
    expired: bool = False
    in_canary: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """What takes the slot when it is free, not before a known time."""

    asked: TrainingRequested
    not_before_ms: int = BEFORE_ALL_MS


@dataclass(slots=True)
class Degraded:
    """The champion's loss rose and is up still: the newest alert, since when, when it was told and is tried again."""

    alert: DriftDetected
    since_ms: int
    told_ms: int
    pause_ms: int
    retry_ms: int
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Skewed:
    """The records of a partition are rejected, as told in words, since a known time."""

    says: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Signal:
    """An alert that counts beside others: when it was known, and where in `control-log` it stands."""

    alert: DriftDetected
    known_ms: int
    offset: int


@dataclass(slots=True)
class Training:
    """One pipeline: its release, the runs that live, its champion, its slot and who waits for it.

    `recipes` are each release's: name (None is the pipeline's own) and digest of recipe and contract. `by_recipe` are
    the runs of challengers' recipes, a few a week: a rollback may go back to any. `tried` are the recipes in the order
    of their last trainings.
    `counted` are the labelled examples known to stand in the log, and up to which offset; `newest` is the
    window of them that was told last, as LabelsCounted has it. `spent` counts the
    challengers since the last alert about performance, `failures` those that failed in a row. Before the time in
    `quiet_until_s` the schedule is not due again: a cron expression read at each tick is 40 s for a year of them.
    No run learns what is `barred`. `skewed` are the partitions of the data whose records are rejected,
    `signals` the newest alerts of which several together start a training. `unlearn` is an anchor that proved better
    than the champion's revisions, and up to where these learned what made them worse; `returned_ms` is when one last
    served again. `outrun` are requests that lost the slot before their run started, each with the one that took it.
    """

    released: PipelineReleased
    retired: bool = False
    paused: bool = False
    recipes: dict[int, dict[str | None, str]] = field(default_factory=dict)
    by_recipe: dict[str, str] = field(default_factory=dict)
    tried: list[str | None] = field(default_factory=list)
    live: dict[str, RunStarted] = field(default_factory=dict)
    champion: ModelUpdated | None = None
    slot: Slot | None = None
    waiting: Waiting | None = None
    counted: tuple[int, int] = (0, 0)
    newest: tuple[int, int] | None = None
    spent: int = 0
    failures: int = 0
    cooled_ms: int = BEFORE_ALL_MS
    schedule_ms: int = BEFORE_ALL_MS
    quiet_until_s: dict[str, float] = field(default_factory=dict)
    answered: list[str] = field(default_factory=list)
    barred: Ranges = ()
    degraded: Degraded | None = None
    skewed: dict[int, Skewed] = field(default_factory=dict)
    signals: dict[str, Signal] = field(default_factory=dict)
    unlearn: tuple[str, int] | None = None
    returned_ms: int = BEFORE_ALL_MS
    outrun: dict[str, str] = field(default_factory=dict)

    @property
    def policies(self) -> Policies:
        """Those of the release in force."""
        return self.released.definition.policies

    @property
    def recipes_in_force(self) -> dict[str | None, str]:
        """The recipes of the release in force, the pipeline's own first."""
        return self.recipes[self.released.release]

    @property
    def contenders(self) -> list[RunStarted]:
        """The runs that live, and the one that was asked for and did not start yet."""
        started = list(self.live.values())
        slot = self.slot
        if slot is not None and slot.run is None:
            asked = slot.asked
            run = RunStarted(
                pipeline=asked.pipeline, run="(starting)", request=asked.request, release=asked.release,
                seed=asked.seed, start_offset=asked.start, parent=asked.parent, excluded=asked.excluded,
                recipe=asked.recipe,
            )  # fmt: skip
            started.append(run)
        return started


def alpha(training: Training, trigger: str) -> float:
    """What a challenger may spend: all of it after an alert about performance, less for each later one, and for each
    that is tried again because that alert lasts.

    So a pipeline's challengers together are wrong no more often than one (`headrace.statistics.alpha_spending`).
    """
    whole = training.policies.gates.alpha
    if trigger == "performance" and (training.degraded is None or training.degraded.tries == 0):
        training.spent = 0
        return whole
    training.spent += 1
    return spent(whole, training.spent)


def take_or_wait(training: Training, asked: TrainingRequested, known_ms: int, not_before_ms: int) -> list[Emit]:
    """Take the slot, push out who may be pushed out, or wait; whoever loses its place is told."""
    slot, may_begin = training.slot, known_ms >= not_before_ms and not is_held(training, asked)
    if slot is None and may_begin:
        return take(training, asked, known_ms)
    if slot is not None and may_begin and _gives_way(training, slot, asked):
        numbers = _beside(asked, slot.asked) | {"held_s": (known_ms - slot.since_ms) / 1000}
        return [*superseded(training, slot, asked.request, asked.cause, numbers), *take(training, asked, known_ms)]
    before = training.waiting
    if before is not None and RANK.index(before.asked.trigger) > RANK.index(asked.trigger):
        return [_displaced(asked, before.asked)]
    training.waiting = Waiting(asked, not_before_ms)
    return [] if before is None else [_displaced(before.asked, asked)]


def take(training: Training, asked: TrainingRequested, known_ms: int) -> list[Emit]:
    """Fill the slot and ask the trainer. A challenger gets its share of alpha here."""
    if training.champion is not None:
        asked = asked.model_copy(update={"alpha": alpha(training, asked.trigger)})
    training.slot = Slot(asked, known_ms)
    training.tried = [*(name for name in training.tried if name != asked.recipe), asked.recipe]
    return [Emit("training-requests", asked, asked.pipeline.encode(), partition=0)]


def is_held(training: Training, asked: TrainingRequested) -> bool:
    """Whether the schema must be right first: what was learned of late lacks the records that were rejected.

    A release may be the cure, and a rollback mends what serves.
    """
    return bool(training.skewed) and asked.trigger in AUTOMATIC


def superseded(training: Training, slot: Slot, request: str, reason: str, numbers: Numbers) -> list[Emit]:
    """What a run that loses the slot is told; one that did not start yet, when it does."""
    if slot.run is None:
        training.outrun[slot.asked.request] = request
        return []
    return [_told_superseded(training, slot.run, request, reason, numbers)]


def started_too_late(training: Training, event: RunStarted) -> list[Emit]:
    """A run whose place was taken before it started: its gates may pass before its successor starts."""
    request = training.outrun.pop(event.request, None)
    if request is None:
        return []
    reason = f"{request} took its place before it started"
    return [_told_superseded(training, event.run, request, reason, {"gave_way_start": event.start_offset})]


def _told_superseded(training: Training, run: str, request: str, reason: str, numbers: Numbers) -> Emit:
    pipeline = training.released.pipeline
    event = ChallengerSuperseded(pipeline=pipeline, run=run, by_request=request, reason=reason, numbers=numbers)
    return Emit("decisions", event, pipeline.encode(), partition=0)


def next_in_line(training: Training, known_ms: int) -> list[Emit]:
    """Let who waits take a free slot, once its time has come and where it still makes sense."""
    waiting = training.waiting
    if waiting is None or training.slot is not None or known_ms < waiting.not_before_ms or training.retired:
        return []
    if is_held(training, waiting.asked):
        return []
    training.waiting = None
    now = {"release": training.released.release, "excluded": from_on(waiting.asked.start, training.barred)}
    asked = waiting.asked.model_copy(update=now)
    same = twin(training, asked)
    problem = is_twin(same, asked) if same is not None else no_recipe(training, asked.recipe)
    if problem is not None:
        numbers = None if same is None else of_twin(same, asked)
        return [refused(asked.pipeline, asked.request, "TrainingRequested", problem, None, numbers)]
    return take(training, asked, known_ms)


def no_recipe(training: Training, recipe: str | None) -> str | None:
    """Why the release in force cannot train a recipe; None where it can."""
    known = training.recipes_in_force
    if recipe in known:
        return None
    names = ", ".join(name or OWN_RECIPE for name in known)
    return (
        f"release {training.released.release} of {training.released.pipeline} has no recipe {recipe!r}; it has {names}"
    )


def refused(
    pipeline: str,
    request: str,
    kind: str,
    reason: str,
    next_command: str | None,
    numbers: Numbers | None = None,
) -> Emit:
    """The answer to what is not carried out; `next_command` is what helps."""
    event = RequestRefused(
        pipeline=pipeline, request=request, kind=kind, reason=reason, next=next_command, numbers=numbers or {}
    )
    return Emit("decisions", event, pipeline.encode(), partition=0)


def _gives_way(training: Training, slot: Slot, asked: TrainingRequested) -> bool:
    """To what a person asks for, to the newest before the first champion, to an alert with a later change point.

    In its canary a challenger has won already, and its steps are short: an alert waits for them. After a rollback a
    model serves that learns no more: the run that is to follow it goes before every other.
    """
    if training.champion is None or asked.trigger == "rollback":
        return True
    if slot.asked.trigger == "rollback":
        return False
    if asked.trigger == "person":
        return True
    return asked.trigger == "performance" and asked.start > slot.asked.start and not slot.in_canary


def _displaced(loser: TrainingRequested, winner: TrainingRequested) -> Emit:
    reason = f"one training waits at a time, and {winner.trigger} ({winner.cause}) has the place"
    command, numbers = f"headrace runs {loser.pipeline}", _beside(winner, loser)
    return refused(loser.pipeline, loser.request, "TrainingRequested", reason, command, numbers)


def _beside(winner: TrainingRequested, loser: TrainingRequested) -> Numbers:
    """By what one training goes before another: how urgent each is, and from where on each would learn."""
    return {
        "trigger": winner.trigger,
        "start": winner.start,
        "gave_way_trigger": loser.trigger,
        "gave_way_start": loser.start,
    }
