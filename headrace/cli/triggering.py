"""`triggers`: what may start a training by itself, when it last did, and what holds it up."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.cli import connect, output
from headrace.cli.app import MODELS, AnyName, Json, command
from headrace.errors import Missing

if TYPE_CHECKING:
    from headrace.cli.facts import Facts
    from headrace.schemas.control import TrainingRequested
    from headrace.schemas.record import Record
    from headrace.services.orchestrator.training import Training


@command(MODELS, "headrace triggers rainfall")
def triggers(name: AnyName = None, as_json: Json = False) -> None:
    """List what may start a training, by the policies in force: whether it is armed, when it last fired, and why.

    Below it stand the training that has the slot, the one that waits, and what holds up the next.
    """
    from headrace.cli import facts
    from headrace.infra.client_errors import check_released

    with connect.client() as client:
        try:  # of all pipelines: the ticks by which the orchestrator goes name none
            records = list(client.subscribe("control-log", start="earliest", follow=False))
        except Missing:
            records = []
        found = {key: one for key, one in facts.fold(records).items() if name in (None, key)}
        check_released(name, found or client.pipelines())
    told = [of_pipeline(one, records, datetime.now(UTC)) for one in found.values()]
    if as_json:
        output.print_json(told)
        return
    for one in told:
        output.say(one["pipeline"], style="bold")
        rows = [[row["trigger"], "on" if row["armed"] else "off", row["when"], row["last"] or "", row["cause"] or ""]
                for row in one["triggers"]]  # fmt: skip
        output.out().print(output.table(("trigger", "", "when", "last fired", "because"), rows))
        for line in one["now"]:
            output.say(line)
    if not told:
        output.say("No pipeline is released: headrace release FILE.")


def of_pipeline(found: Facts, records: Iterable[Record], now: datetime) -> dict[str, Any]:
    """The triggers of one pipeline as data."""
    from headrace.schemas.control import TrainingRequested
    from headrace.why.sentences import moment

    last: dict[str, tuple[str, TrainingRequested]] = {}
    for record in records:
        event = record.event
        if isinstance(event, TrainingRequested) and event.pipeline == found.name:
            last["alerts" if event.alerts else event.trigger] = (moment(record.known_ms), event)
    rows = []
    for trigger, armed, when in _rules(found, now):
        at, fired = last.get(trigger, (None, None))
        cause = fired.cause if fired is not None else None
        rows.append({"trigger": trigger, "armed": armed, "when": when, "last": at, "cause": cause})
    return {"pipeline": found.name, "triggers": rows, "now": list(_now(found.training, now))}


def _rules(found: Facts, now: datetime) -> Iterable[tuple[str, bool, str]]:
    """Each trigger: whether it is armed, and when it fires."""
    from croniter import croniter

    policies, training = found.models.released.definition.policies, found.training
    own, serves = policies.triggers, "champion" in found.models.aliases
    labels = training.counted[0] if training is not None else 0
    yield "first_model", not serves, f"no champion yet, {own.first_model_at:,} labels"
    yield "performance", serves and own.on_performance_drift, "the champion's loss rises"
    yield "input", serves and own.on_input_drift, "its inputs drift (on_input_drift)"
    if own.alerts is not None:
        some = f"{own.alerts.enough} of {', '.join(own.alerts.of)} within {own.alerts.within_s:g} s"
        yield "alerts", serves, some
    every = own.every_labels
    if every is None:
        yield "new_data", False, "every_labels is not set"
    else:  # the count is not told label by label, so how many are left is not known here
        due_at = labels - labels % every + every
        yield "new_data", serves, f"every {every:,} labels, next at {due_at:,}; {labels:,} at the last count"
    if own.schedule is None:
        yield "schedule", False, "schedule is not set"
    else:
        due: datetime = croniter(own.schedule, now).get_next(datetime)
        yield "schedule", serves, f"{own.schedule} (UTC), next {due:%Y-%m-%d %H:%M}"
    yield "recipe", True, "a release with another recipe or contract"
    yield "rollback", serves, "a rollback, or a barred range"
    yield "person", True, f"headrace train {found.name}"


def _now(training: Training | None, now: datetime) -> Iterable[str]:
    """What has the slot, what waits for it, and what holds the next one up."""
    from headrace.why.sentences import moment

    if training is None:
        return
    slot, waiting = training.slot, training.waiting
    if slot is None:
        yield "No training is under way."
    else:
        run = slot.run or "which has not started"
        yield f"Under way since {moment(slot.since_ms)}: {run} ({slot.asked.trigger}: {slot.asked.cause})."
    if waiting is not None:
        after = "" if slot is not None else f", not before {moment(waiting.not_before_ms)}"
        yield f"Waiting{after}: {waiting.asked.trigger} ({waiting.asked.cause})."
    for partition, skewed in training.skewed.items():
        yield f"Nothing is trained by itself: partition {partition}, {skewed.says}."
    if training.cooled_ms > now.timestamp() * 1000:
        yield f"After a challenger that failed, nothing starts by itself before {moment(training.cooled_ms)}."
    if training.failures:
        many = "1 challenger" if training.failures == 1 else f"{training.failures} challengers"
        yield f"{many} failed in a row; after three, automation pauses."
    if training.paused:
        yield f"Automation is paused: headrace resume {training.released.pipeline}."
