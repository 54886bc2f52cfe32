"""Lines of what happens to one pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.schemas.control import (
    AliasRemoved,
    ControlEvent,
    DriftDetected,
    LabelsCounted,
    MetricsUpdated,
    ModelUpdated,
    ModelValidated,
    PipelineDegraded,
    PipelineReleased,
    RequestRefused,
    RunEnded,
    RunStarted,
    SchemaSkewed,
    SnapshotTaken,
    TrainingCompleted,
    TrainingFailed,
    TrainingRequested,
    WindowValidated,
)
from headrace.schemas.record import Record
from headrace.schemas.stream import ExampleLabelled, LabelArrived, PredictionMade, RecordRejected, Tick
from headrace.why import alert_words

if TYPE_CHECKING:
    from headrace.infra.sdk import Client

LONGEST = 100  # of one field on a line
WATCHED = ("predictions", "labelled-examples", "data-rejected", "control-log", "metrics")


def watch_lines(
    client: Client, pipeline: str, *, rejected: bool = False, topic: str | None = None, from_start: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each event as a line for people and as data for programs; never ends."""
    topics = [topic] if topic else ["data-rejected"] if rejected else list(WATCHED)
    for record in client.subscribe(topics, pipeline, start="earliest" if from_start else "latest"):
        event = record.event
        if topic is None and (isinstance(event, Tick | LabelArrived) or _is_in_band(record)):
            continue
        yield line(record), data(record)


def line(record: Record) -> str:
    """One event as a line."""
    at = datetime.fromtimestamp(record.known_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    event = record.event
    name = "record" if event is None else type(event).__name__
    says = _SAYS.get(type(event))
    told = says(event) if says is not None else _fields(event)
    return f"{at}  {name:<17} {told}"


def data(record: Record) -> dict[str, Any]:
    """One event with its topic, place and known time."""
    return {
        "topic": record.topic.removeprefix("<p>."),
        "partition": record.partition,
        "offset": record.offset,
        "known_ms": record.known_ms,
        "type": type(record.event).__name__ if record.event is not None else None,
        "event": record.event if record.event is not None else record.body,
    }


def _is_in_band(record: Record) -> bool:
    return record.topic.startswith("<p>.") and isinstance(record.event, ControlEvent)


def _prediction(event: PredictionMade) -> str:
    arm = event.predictions.get(event.served or "")
    if arm is None:
        return f"{event.id}  {unserved(event)}"
    return f"{event.id}  {short(arm.value)}  (version {arm.version}, learned to {arm.learned_to:,})"


def _labelled(event: ExampleLabelled) -> str:
    arm = event.prediction.predictions.get(event.prediction.served or "")
    told = "" if arm is None else f", predicted {short(arm.value)}"
    delay_s = (event.labelled_at_ms - event.predicted_at_ms) / 1000
    return f"{event.prediction.id}  is {event.label}{told}, after {delay_s:g} s"


def _rejected(event: RecordRejected) -> str:
    place = f"{event.topic} {event.partition}/{event.offset}"
    return f"{event.id}  {'; '.join(f'{p.code}: {p.message}' for p in event.problems)}  ({place})"


def _metrics(event: MetricsUpdated) -> str:
    scores = "  ".join(f"{name} {value:.4f}" for name, value in event.metrics.items() if value is not None)
    where = f" of {event.slice}" if event.slice is not None else ""
    return f"{event.alias} {event.scope} over {event.n:,} rows{where}: {scores}"


def _validated(event: ModelValidated) -> str:
    from headrace.cli.trial import told_check

    checks = "; ".join(told_check(check.model_dump()) for check in event.checks)
    return f"{event.stage} gate of {event.run} at {event.n_labels:,} labels: {event.verdict.upper()}  {checks}"


def _drift(event: DriftDetected) -> str:
    return f"{event.kind} {event.level}: {alert_words.found(event)}"


def _window(event: WindowValidated) -> str:
    return (
        f"partition {event.partition}: {event.validated:,} validated, {event.labels:,} labels, "
        f"{event.rejected:,} rejected, {event.duplicates:,} repeats: {event.verdict}"
    )


def _numbers(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in numbers.items() if not isinstance(value, dict))


def _recipe(event: TrainingRequested | RunStarted) -> str:
    return f", recipe {event.recipe}" if event.recipe else ""


_SAYS: dict[type, Callable[[Any], str]] = {
    PredictionMade: _prediction,
    ExampleLabelled: _labelled,
    RecordRejected: _rejected,
    MetricsUpdated: _metrics,
    ModelValidated: _validated,
    WindowValidated: _window,
    ModelUpdated: lambda e: f"{e.alias} is version {e.version}: {e.reason}",
    AliasRemoved: lambda e: f"run {e.run} is no longer {e.alias}: {e.reason}",
    PipelineReleased: lambda e: f"release {e.release}, asked by {e.by}",
    RequestRefused: lambda e: f"{e.kind} refused: {e.reason}",
    TrainingRequested: lambda e: f"{e.trigger} ({e.cause}), release {e.release}{_recipe(e)}",
    RunStarted: lambda e: f"{e.run} from offset {e.start_offset:,}, release {e.release}{_recipe(e)}",
    RunEnded: lambda e: f"{e.run}: {e.reason}",
    TrainingCompleted: lambda e: f"{e.run} learned {e.n_labels:,} labels",
    TrainingFailed: lambda e: f"{e.run or e.request}: {e.reason}",
    SnapshotTaken: lambda e: f"offset {e.offset:,}: {', '.join(f'{r} {s.digest[:8]}' for r, s in e.runs.items())}",
    LabelsCounted: lambda e: f"{e.n:,} labelled examples up to offset {e.offset:,}",
    DriftDetected: _drift,
    PipelineDegraded: lambda e: f"{'over' if e.over else 'degraded'}: {e.reason}  {_numbers(e.numbers)}",
    SchemaSkewed: lambda e: f"{'over' if e.over else 'skewed'}: {e.reason}  {_numbers(e.numbers)}",
}


def unserved(made: PredictionMade) -> str:
    """Why nothing was served: there is no champion, or it had no answer."""
    champion = made.predictions.get("champion")
    if champion is None:
        return "published as history, which is never served" if made.history else "no model serves yet"
    why = "has no answer yet" if champion.error is None else f"could not answer: {champion.error}"
    return f"version {champion.version} {why}"


def short(value: Any) -> str:
    """A predicted value in a few characters."""
    if isinstance(value, dict):
        name = max(value, key=value.get)  # type: ignore[arg-type]
        return f"{name} ({value[name]:.3f})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _fields(event: Any) -> str:
    if event is None:
        return "written by a user in a form that is not canonical"
    names = type(event).model_fields if isinstance(event, ControlEvent) else event.__struct_fields__
    values = {name: getattr(event, name) for name in names if name != "pipeline"}
    told = [f"{name} {value}" for name, value in values.items() if value not in (None, "", (), [], {})]
    return ", ".join(text for text in told if len(text) <= LONGEST)
