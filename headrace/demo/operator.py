"""What a person would do in the demo: when bad data is over and an alert told of it, take that time back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.demo.observe import Observed
from headrace.demo.stories import Story
from headrace.schemas.control import DriftDetected, RollbackAsked

if TYPE_CHECKING:
    from headrace.demo.run import Progress

LOOKS_ROWS = 200  # a person looks for a moment
WAITS_ROWS = 500  # and does without an alert in the end


def is_due(story: Story, seen: Observed) -> bool:
    """Whether to ask now: the bad rows are over for a while, and an alert came or none will."""
    if story.bad is None:
        return False
    rows = seen.counts["labelled"] + len({reject["id"] for reject in seen.rejects})
    over = rows - story.bad.stop
    return over >= (LOOKS_ROWS if _is_alarmed(story.bad, seen) else WAITS_ROWS)


def roll_back(story: Story, seen: Observed, progress: Progress, bus: Any) -> None:
    """Ask as `headrace rollback --from --to` does, and note it as a decision. Raises Missing, Refused, NoAnswer."""
    from headrace.cli import bad_range, connect
    from headrace.infra.artifacts import Artifacts
    from headrace.infra.settings import Settings
    from headrace.infra.user_events import new_request
    from headrace.why.sentences import moment

    settings, (from_ms, to_ms) = Settings(), progress.bad_ms
    artifacts = Artifacts(settings.artifact_url, settings.key())
    found = bad_range.look_up(story.name, from_ms, to_ms, bus, artifacts, settings.namespace)
    assert story.bad is not None
    reason = "an alert told of a bad hour" if _is_alarmed(story.bad, seen) else "a bad hour that no alert told of"
    asked = RollbackAsked(
        pipeline=story.name,
        request=new_request("rollback"),
        by="demo",
        reason=reason,
        **found.fields(),
    )
    back = "no snapshot from before is kept" if found.good is None else f"back to {found.good.name}"
    times = f"--from {moment(from_ms)} --to {moment(to_ms)}"
    seen.decide(asked, f"a person typed: headrace rollback {story.name} {times} ({found.examples:,} examples; {back})")
    with connect.client() as client:
        client.request(asked)


def _is_alarmed(bad: range, seen: Observed) -> bool:
    return any(one.event == DriftDetected.__name__ and one.row >= bad.start for one in seen.decisions)
