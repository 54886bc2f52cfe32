"""What starts a training by itself: an alert, so many new labels, a schedule, another recipe."""

from __future__ import annotations

from datetime import UTC, datetime

from croniter import croniter

from headrace.ranges import from_on, union
from headrace.schemas.control import (
    DriftDetected,
    LabelsCounted,
    ModelUpdated,
    PipelineReleased,
    RangeBarred,
    TrainingRequested,
)
from headrace.schemas.record import Emit
from headrace.services.orchestrator.choice import in_turn, of_champion, untried
from headrace.services.orchestrator.training import (
    Training,
    refused,
    superseded,
    take,
    take_or_wait,
)
from headrace.services.orchestrator.twins import Numbers, is_twin, of_twin, twin
from headrace.why.alert_words import found


def request(
    training: Training,
    name: str,
    trigger: str,
    cause: str,
    *,
    start: int = 0,
    end: int | None = None,
    recipe: str | None = None,
) -> TrainingRequested:
    """A training of the release in force, with the pipeline's own seed; by its own recipe unless another is named."""
    released, policies = training.released, training.policies
    return TrainingRequested(
        pipeline=released.pipeline,
        request=name,
        trigger=trigger,
        cause=cause,
        release=released.release,
        seed=policies.seed,
        start=start,
        end_at_labels=policies.triggers.first_model_at if end is None else end,
        excluded=from_on(start, training.barred),
        alpha=policies.gates.alpha,
        recipe=recipe,
    )


def until_now(training: Training, start: int) -> int:
    """The labels at which a run from `start` is judged: those known to stand in the log, at least as many as for a
    first model. Offsets count labels and, once a minute, a tick: of the newest window its labels are known.
    """
    n, end = training.counted
    if training.newest is None:
        end = n
    elif start and start == training.newest[0]:
        n = start + training.newest[1]
    parts = ((max(first, start), min(after, end)) for first, after in training.barred)
    left_out = sum(after - first for first, after in parts if first < after)
    return max(n - start - left_out, training.policies.triggers.first_model_at, 1)


def since_change(training: Training, alert: DriftDetected) -> int:
    """The labels at which a run from an alert's change point is judged: those since then, so that it is soon found.

    Such a run learns on beside the champion. A frozen one has learned half of them when it is judged, and learns no
    more: it waits for as many as a first model.
    """
    least = training.policies.triggers.first_model_at if training.policies.learning == "frozen" else 1
    return max(int(alert.evidence.get("rows_since") or 0), least, 1)


def on_alert(training: Training, event: DriftDetected, known_ms: int) -> list[Emit]:
    """A performance that fell trains from the change point; inputs that moved only where the policy says so."""
    triggers, champion = training.policies.triggers, training.champion
    if champion is None or training.retired:
        return []
    if event.kind == "performance" and event.level == "drift" and triggers.on_performance_drift:
        if event.run not in (None, champion.run):
            return []  # of a champion that serves no longer
        start = max(event.since or 0, 0)
        asked = request(
            training, f"performance-{event.run}-{start}", "performance", found(event),
            start=start, end=since_change(training, event), recipe=of_champion(training),
        )  # fmt: skip
    elif event.kind == "input" and triggers.on_input_drift:
        start = newest(training)
        which = ", ".join(event.features)
        cause = f"{event.detector}: {which or 'inputs'} drifted"
        asked = request(
            training, f"input-{event.since}-{which}", "input", cause,
            start=start, end=until_now(training, start), recipe=of_champion(training),
        )  # fmt: skip
    else:
        return []
    return automatic(training, asked, known_ms)


def on_count(training: Training, event: LabelsCounted, known_ms: int) -> list[Emit]:
    """So many labels more: train on the newest window."""
    every = training.policies.triggers.every_labels
    training.counted, training.newest = (event.n, event.offset), event.newest
    if every is None or event.n % every or training.champion is None:
        return []
    cause = f"{event.n:,} labelled examples, {every:,} more"
    start = newest(training)
    end = max(event.offset - start, 1) if event.newest is None else event.newest[1]
    asked = request(training, f"new-data-{event.n}", "new_data", cause, start=start, end=end)
    return automatic(training, in_turn(training, asked), known_ms)


def on_minute(training: Training, due: datetime, known_ms: int) -> list[Emit]:
    """The newest time that the schedule was due, if none has been asked for it yet: one training for all missed."""
    schedule = training.policies.triggers.schedule
    if schedule is None or training.champion is None:
        return []
    due_s = due.timestamp()
    if training.quiet_until_s.get(schedule, due_s) > due_s:
        return []
    cron = croniter(schedule, datetime.fromtimestamp(due_s + 0.001, UTC))  # get_prev is exclusive of its start
    last: datetime = cron.get_prev(datetime)
    training.quiet_until_s = {schedule: cron.get_next(datetime).timestamp()}
    last_ms = int(last.timestamp() * 1000)
    if last_ms <= training.schedule_ms:
        return []
    training.schedule_ms = last_ms
    start = newest(training)
    moment = last.astimezone(UTC).isoformat(timespec="minutes").removesuffix("+00:00")
    asked = request(
        training, f"schedule-{moment}", "schedule", f"schedule {schedule}, due {moment} UTC",
        start=start, end=until_now(training, start),
    )  # fmt: skip
    return automatic(training, in_turn(training, asked), known_ms)


def on_idle(training: Training, known_ms: int) -> list[Emit]:
    """Nothing is trained and nothing waits: a recipe that was not tried yet learns the whole log."""
    is_idle = training.slot is None and training.waiting is None and not (training.retired or training.skewed)
    if not is_idle or training.champion is None or known_ms < training.cooled_ms:
        return []
    recipe = untried(training)
    if recipe is None:
        return []
    release = training.released.release
    asked = request(
        training, f"recipe-{release}-{recipe}", "recipe", f"release {release} brought the recipe {recipe}",
        end=until_now(training, 0), recipe=recipe,
    )  # fmt: skip
    return take(training, asked, known_ms)


def on_recipe(training: Training, event: PipelineReleased, known_ms: int) -> list[Emit]:
    """Another recipe or contract learns the whole log, beside a champion that goes on with its own."""
    cause = f"release {event.release} changed the recipe or the contract"
    end = None if training.champion is None else until_now(training, 0)
    return take_or_wait(
        training, request(training, f"recipe-{event.release}", "recipe", cause, end=end), known_ms, known_ms
    )


def on_frozen(training: Training, event: ModelUpdated, known_ms: int, unlearn_to: int | None) -> list[Emit]:
    """A version whose run ended serves again, as its newest snapshot: a run that begins with it is to follow.

    Where a bad range was the reason, RangeBarred says so itself, which is read before or after this. Where its own
    newer revisions were worse (`unlearn_to`), the run leaves out what made them so: with it, it would be they again;
    while automatic promotion is paused there is none.
    """
    if event.barred or (unlearn_to is not None and training.paused):
        return []
    asked = request(
        training, f"rollback-{event.epoch}", "rollback", f"version {event.version} serves frozen: {event.reason}",
        start=max(event.snapshot_offset, unlearn_to or 0),
        recipe=training.by_recipe.get(event.run),
    ).model_copy(update={"release": event.release, "parent": event.uri})  # fmt: skip
    return take_or_wait(training, asked, known_ms, known_ms)


def on_barred(training: Training, event: RangeBarred, known_ms: int) -> list[Emit]:
    """A range was barred: what is to learn again without it goes first; what is at work and learns it ends."""
    training.barred = union(training.barred, event.parts)
    slot = training.slot
    if event.again_from is None:
        if slot is None or not from_on(slot.asked.start, event.parts):
            return []
        training.slot = None
        barred = from_on(slot.asked.start, event.parts)
        numbers: Numbers = {"gave_way_start": slot.asked.start, "barred_from": barred[0][0], "barred_to": barred[-1][1]}
        return superseded(training, slot, event.request, "it learns a range that was barred", numbers)
    start = event.again_from
    asked = request(
        training, f"without-{event.request}", "rollback", f"a range was barred: {event.reason}",
        start=start, end=until_now(training, start),
        recipe=of_champion(training) if event.parent is None else event.recipe,
    ).model_copy(update={"release": event.release or training.released.release, "parent": event.parent})  # fmt: skip
    return take_or_wait(training, asked, known_ms, known_ms)


def newest(training: Training) -> int:
    """Where the newest window begins, as far as labels were counted."""
    if training.newest is not None:
        return training.newest[0]
    return max(training.counted[1] - training.policies.triggers.window_labels, 0)


def automatic(training: Training, asked: TrainingRequested, known_ms: int) -> list[Emit]:
    """What no person asked for waits until the cool-down after a failed challenger is over."""
    same = twin(training, asked)
    if same is not None:
        reason, show = is_twin(same, asked), f"headrace runs {asked.pipeline}"
        return [refused(asked.pipeline, asked.request, "TrainingRequested", reason, show, of_twin(same, asked))]
    return take_or_wait(training, asked, known_ms, max(training.cooled_ms, known_ms))
