"""Each event as a sentence with its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from headrace.schemas.control import (
    AliasRemoved,
    AutomationPaused,
    AutomationResumed,
    ChallengerExpired,
    ChallengerSuperseded,
    DriftDetected,
    LabelsCounted,
    ModelUpdated,
    ModelValidated,
    PauseAsked,
    PinAsked,
    PipelineDegraded,
    PipelineReleased,
    PipelineRetired,
    PromotionAsked,
    RangeBarred,
    ReleaseAsked,
    RequestRefused,
    ResumeAsked,
    RetireAsked,
    RevisionPinned,
    RollbackAsked,
    RunEnded,
    RunStarted,
    SchemaSkewed,
    SnapshotTaken,
    TrainingAsked,
    TrainingCompleted,
    TrainingFailed,
    TrainingRequested,
    WindowValidated,
)
from headrace.schemas.stream import (
    SHED,
    ArmPrediction,
    ExampleArrived,
    ExampleLabelled,
    LabelArrived,
    PredictionMade,
    RecordRejected,
)
from headrace.why import alert_words

TRIGGERS = {
    "first_model": "its first model",
    "person": "a person's request",
    "schedule": "its schedule",
    "new_data": "new labels",
    "performance": "worse performance",
    "input": "a change of its input",
    "recipe": "another recipe",
    "rollback": "a rollback",
}


def sentence(event: Any) -> str:
    """What happened; the event's fields where no sentence is known."""
    says = _SAYS.get(type(event))
    if says is not None:
        return says(event)
    if event is None:
        return "A record as its producer wrote it: the validator says what it is."
    told = event.model_dump(mode="json") if hasattr(event, "model_dump") else {}
    return f"{type(event).__name__}: {pairs(told)}."


def moment(known_ms: int) -> str:
    """A known time, in UTC."""
    return (
        datetime.fromtimestamp(known_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
    )


def against(value: float | None, limit: float | None) -> str:
    """A value and its limit; nothing where there is none."""
    if value is None:
        return ""
    return f", {value:.6g}" + ("" if limit is None else f" against {limit:.6g}")


def pairs(fields: dict[str, Any]) -> str:
    """Names and values of what is not empty."""
    return ", ".join(f"{name} {_short(value)}" for name, value in fields.items() if value not in (None, "", (), [], {}))


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _numbers(event: Any) -> str:
    return f" ({pairs(event.numbers)})" if event.numbers else ""


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _released(event: PipelineReleased) -> str:
    many = "1 partition" if event.partitions == 1 else f"{event.partitions} partitions"
    return (
        f"Release {event.release} of {event.pipeline} came into force, asked by {event.by} (recipe "
        f"{event.definition.recipe_digest[:12]}, {many})."
    )


def _requested(event: TrainingRequested) -> str:
    parent = f", beginning with {event.parent}" if event.parent else ""
    until = "" if event.end_at_labels is None else f", to be judged at {event.end_at_labels:,} labels"
    return (
        f"A training of {event.pipeline} was requested for {TRIGGERS[event.trigger]}: {event.cause} "
        f"(request {event.request}; release {event.release}{_recipe(event)}, seed {event.seed}, from offset "
        f"{event.start:,}{until}{parent}{_excluded(event.excluded)})."
    )


def _recipe(event: TrainingRequested | RunStarted | TrainingAsked) -> str:
    return f", recipe {event.recipe}" if event.recipe else ""


def _begun(event: TrainingAsked) -> str:
    start = "" if event.start is None else f" from offset {event.start:,}"
    return start if event.version is None else f"{start}, beginning with the model of version {event.version}"


def _excluded(ranges: Sequence[tuple[int, int]]) -> str:
    return f", without offsets {_offsets(ranges)}" if ranges else ""


def _offsets(ranges: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{first:,} to {after:,}" for first, after in ranges)


def _validated(event: ModelValidated) -> str:
    verdict = {"pass": "passed", "fail": "failed", "inconclusive": "came to no verdict", "error": "broke"}
    gate = f"its {event.stage} gate" if event.share is None else f"its canary step of {event.share:.0%}"
    failed = [one.name for one in event.checks if one.verdict != "pass"]
    why = f"; not passed: {', '.join(failed)}" if failed else ""
    return (
        f"Run {event.run} {verdict[event.verdict]} in {gate} at {event.n_labels:,} labels, offset "
        f"{event.offset:,}, on {len(event.checks)} checks{why}."
    )


def _updated(event: ModelUpdated) -> str:
    before = "" if event.previous_version is None else f" instead of version {event.previous_version}"
    forced = f" Forced: {event.forced_by}." if event.forced_by else ""
    how = "and its run's newer revisions serve as they come" if event.follows else "and serves frozen"
    which = f"Version {event.version} (run {event.run}, snapshot at offset {event.snapshot_offset:,})"
    if event.share is not None:
        rest = "the champion the others"
        return f"{which} serves {event.share:.0%} of the units in its canary, {rest}, {how}: {event.reason}."
    return f"{which} became {event.alias}{before}, {how}: {event.reason}.{forced}"


def _taken(event: SnapshotTaken) -> str:
    runs = "; ".join(
        f"{run} with {one.n_learned:,} learned, {'fit to serve' if one.fit else 'NOT fit to serve'}"
        f"{_scores(one.metrics)}"
        for run, one in event.runs.items()
    )
    return f"A snapshot was taken at offset {event.offset:,}: {runs}."


def _scores(metrics: dict[str, float | None]) -> str:
    told = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None)
    return f" ({told} before learning)" if told else ""


def _made(event: PredictionMade) -> str:
    came = f"It came in as data-arrived/{event.origin[0]}/{event.origin[1]}"
    if not event.predictions:
        return f"Example {event.id} was answered by no model: none served yet. {came}."
    arms = "; ".join(_answered(alias, arm) for alias, arm in event.predictions.items())
    served = f"the answer of {event.served} was served" if event.served else "none was served"
    return f"Example {event.id}: {arms}; {served} (epoch {event.epoch}, release {event.release}). {came}."


def _answered(alias: str, arm: ArmPrediction) -> str:
    which = alias if arm.version is None else f"{alias} version {arm.version}"
    said = f"answered {arm.value}" if arm.error is None else f"raised: {arm.error}"
    said = f"was not asked ({SHED})" if arm.error == SHED else said
    return f"{which} (run {arm.run}), having learned up to offset {arm.learned_to:,}, {said}"


def _labelled(event: ExampleLabelled) -> str:
    waited = (event.labelled_at_ms - event.predicted_at_ms) / 1000
    return f"{_made(event.prediction)} Its label is {event.label}, known {waited:g} s later."


def _rejected(event: RecordRejected) -> str:
    came = f"It came in as {event.topic}/{event.partition}/{event.offset}"
    return f"Record {event.id} was rejected: {'; '.join(one.message for one in event.problems)}. {came}."


def _drift(event: DriftDetected) -> str:
    watched = "" if event.version is None else f" of version {event.version} (run {event.run})"
    return f"The monitor told a {event.level} of {event.kind}{watched}: {alert_words.found(event)}."


def _refused(event: RequestRefused) -> str:
    return f"Request {event.request} ({event.kind}) was refused: {event.reason}{_numbers(event)}."


def _completed(event: TrainingCompleted) -> str:
    return (
        f"Run {event.run} had learned {event.n_labels:,} labelled examples, offsets {event.start_offset:,} to "
        f"{event.end_offset:,}: there its gates judge it, unless it serves already."
    )


def _started(event: RunStarted) -> str:
    parent = f", beginning with the model {event.parent}" if event.parent else ""
    return (
        f"Run {event.run} started for request {event.request}: release {event.release}{_recipe(event)}, seed "
        f"{event.seed}, from offset {event.start_offset:,} of labelled-examples{parent}{_excluded(event.excluded)}."
    )


def _failed(event: TrainingFailed) -> str:
    if event.offset is not None:
        return f"Run {event.run} could not learn offset {event.offset:,}, twice, and left it out: {event.reason}."
    return f"{f'Run {event.run}' if event.run else f'Request {event.request}'} failed: {event.reason}."


def _rollback(event: RollbackAsked) -> str:
    to = "" if event.version is None else f" to version {event.version}"
    bad = ""
    if event.bad_from_ms is not None and event.bad_to_ms is not None:
        bad = f" to before the examples from {moment(event.bad_from_ms)} to {moment(event.bad_to_ms)}"
    elif event.bad_ranges:
        bad = f" to before the examples at offsets {_offsets(event.bad_ranges)}"
    if bad:
        to = "" if event.version is None else f", on version {event.version} at offset {event.snapshot_offset:,}"
        bad, to = bad + to, ""
    return f"{event.by} asked to roll {event.pipeline} back{to}{bad}{_because(event.reason)} (request {event.request})."


def _no_longer(event: PipelineDegraded | SchemaSkewed) -> str:
    return "no longer " if event.over else ""


def _barred(event: RangeBarred) -> str:
    """What no later run learns, and what is to learn again."""
    again = " What serves had not learned from them."
    if event.again_from is not None and event.parent is not None:
        again = f" A run that begins with the model of offset {event.again_from:,} learns again without them."
    elif event.again_from is not None:
        again = (
            f" No snapshot from before them is kept: a run from offset {event.again_from:,} learns again without them, "
            "and takes over when it has passed its gates."
        )
    return f"Offsets {_offsets(event.parts)} are barred from every later run{_because(event.reason)}.{again}"


_SAYS: dict[type, Callable[[Any], str]] = {
    ReleaseAsked: lambda e: (
        f"{e.by} asked to release {e.pipeline} (request {e.request}, source {e.definition.source_digest[:12]})."
    ),
    PipelineReleased: _released,
    RetireAsked: lambda e: f"{e.by} asked to retire {e.pipeline}{_because(e.reason)} (request {e.request}).",
    PipelineRetired: lambda e: f"{e.pipeline} was retired, asked by {e.by}{_because(e.reason)}.",
    TrainingAsked: lambda e: (
        f"{e.by} asked to train {e.pipeline}{_begun(e)}{_because(e.reason)} (request {e.request}{_recipe(e)})."
    ),
    PromotionAsked: lambda e: (
        f"{e.by} asked to promote version {e.version} of {e.pipeline}{' by force' if e.forced else ''}"
        f"{_because(e.reason)} (request {e.request})."
    ),
    RollbackAsked: _rollback,
    PauseAsked: lambda e: f"{e.by} asked to pause promotion{_because(e.reason)} (request {e.request}).",
    ResumeAsked: lambda e: f"{e.by} asked to resume promotion{_because(e.reason)} (request {e.request}).",
    PinAsked: lambda e: (
        f"{e.by} asked to keep the snapshot of run {e.run} at offset {e.snapshot_offset:,}"
        f"{'' if e.pinned else ' no longer'}{_because(e.reason)} (request {e.request})."
    ),
    TrainingRequested: _requested,
    RunStarted: _started,
    TrainingFailed: _failed,
    TrainingCompleted: _completed,
    ModelValidated: _validated,
    ModelUpdated: _updated,
    AliasRemoved: lambda e: f"Run {e.run} is no longer {e.alias}: {e.reason}.",
    RunEnded: lambda e: f"Run {e.run} ended: {e.reason}.",
    RequestRefused: _refused,
    ChallengerSuperseded: lambda e: f"Run {e.run} gave way to request {e.by_request}: {e.reason}{_numbers(e)}.",
    ChallengerExpired: lambda e: f"Run {e.run} expired: {e.reason}{_numbers(e)}.",
    AutomationPaused: lambda e: f"Automatic promotion was paused: {e.reason}{_numbers(e)}.",
    AutomationResumed: lambda e: f"{e.by} let automatic promotion go on{_because(e.reason)}.",
    PipelineDegraded: lambda e: f"{e.pipeline} is {_no_longer(e)}degraded: {e.reason}{_numbers(e)}.",
    SchemaSkewed: lambda e: f"The schema of {e.pipeline} is {_no_longer(e)}skewed: {e.reason}{_numbers(e)}.",
    RangeBarred: _barred,
    RevisionPinned: lambda e: (
        f"The snapshot of run {e.run} at offset {e.snapshot_offset:,} is "
        f"{'kept for ever' if e.pinned else 'pinned no longer'}, asked by {e.by}{_because(e.reason)}."
    ),
    LabelsCounted: lambda e: f"{e.n:,} labelled examples stood in the log, up to offset {e.offset:,}.",
    DriftDetected: _drift,
    WindowValidated: lambda e: (
        f"The window of partition {e.partition}, offsets {e.start_offset:,} to {e.end_offset:,}, is {e.verdict}: "
        f"{e.validated:,} validated, {e.rejected:,} rejected ({pairs(e.reasons) or 'none'})."
    ),
    SnapshotTaken: _taken,
    ExampleArrived: lambda e: f"Example {e.id} came in: {pairs(e.features)}.",
    LabelArrived: lambda e: f"The label of example {e.id} came: {e.label}.",
    RecordRejected: _rejected,
    PredictionMade: _made,
    ExampleLabelled: _labelled,
}
