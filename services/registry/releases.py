"""What speaks against a release, and how the registry refuses."""

from __future__ import annotations

from headrace.contract import incompatibilities
from headrace.schemas.control import (
    PinAsked,
    PipelineReleased,
    PromotionAsked,
    ReleaseAsked,
    RequestRefused,
    RetireAsked,
    RollbackAsked,
)
from headrace.schemas.record import OUTPUTS_PER_STEP, Emit
from headrace.schemas.topics import PIPELINE_NAME

UNCHANGED = "unchanged"  # the refusal's kind where a request would change nothing: no failure for a script


def why_not(now: PipelineReleased | None, event: ReleaseAsked, *, retired: bool) -> Emit | None:
    """The refusal of a release, None where nothing speaks against it."""
    if PIPELINE_NAME.fullmatch(event.pipeline) is None:
        reason = (
            f"{event.pipeline!r} is no name for a pipeline: a lower-case letter, then lower-case letters, digits and "
            "'-', at most 41 in all"
        )
        return refusal(event, reason, 'name="…" in the pipeline file')
    if not 1 <= event.partitions < OUTPUTS_PER_STEP:
        return refusal(event, f"{event.partitions} partitions: at least 1, at most {OUTPUTS_PER_STEP - 1}")
    if now is None and event.topic_id is None:
        reason = f"the request names no topic of {event.pipeline}, so nobody saw whether its topics are there"
        return refusal(event, reason, f"headrace release pipelines/{event.pipeline}.py, which makes them and asks")
    if now is None:
        return None
    if retired:
        return refusal(event, f"{event.pipeline} was retired; a retired name is never used again: use a new name")
    if _meaning(now) == _meaning(event):
        reason = f"release {now.release} of {event.pipeline} already is this definition: nothing to do"
        return refusal(event, reason, f"headrace status {event.pipeline}", {"release": now.release}, kind=UNCHANGED)
    if event.partitions != now.partitions:
        reason = (
            f"the data topics of {event.pipeline} have {now.partitions} partitions since their first release, "
            f"not {event.partitions}; the number never changes: use a new pipeline name"
        )
        return refusal(event, reason, None, {"partitions": now.partitions})
    problems = incompatibilities(now.definition.contract, event.definition.contract)
    if problems:
        reason = f"not compatible with release {now.release}: {'; '.join(problems)}. Use a new pipeline name"
        return refusal(event, reason, None, {"release": now.release})
    return None


def _meaning(of: PipelineReleased | ReleaseAsked) -> tuple[object, ...]:
    """All of a definition but where its source is stored."""
    return tuple(value for name, value in of.definition if name != "source_uri")


def refusal(
    event: ReleaseAsked | RetireAsked | PromotionAsked | RollbackAsked | PinAsked,
    reason: str,
    next_command: str | None = None,
    numbers: dict[str, int] | None = None,
    kind: str | None = None,
) -> Emit:
    """The answer to a request that is not carried out; `next_command` is what helps."""
    refused = RequestRefused(
        pipeline=event.pipeline,
        request=event.request,
        kind=kind or type(event).__name__,
        reason=reason,
        numbers=numbers or {},
        next=next_command,
    )
    return Emit("decisions", refused, event.pipeline.encode(), partition=0)
