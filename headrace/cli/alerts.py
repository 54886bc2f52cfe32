"""`alerts`: what the monitor found, and the states that follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import connect, output
from headrace.cli.app import MODELS, AnyName, Json, command

if TYPE_CHECKING:
    from headrace.schemas.record import Record


@command(MODELS, "headrace alerts rainfall")
def alerts(
    name: AnyName = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="input, prediction, performance, labels, degraded or skewed.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, help="How many at most, the newest last.")] = 50,
    as_json: Json = False,
) -> None:
    """List what a person should look at: what changed, since when, by how much, and the states that follow from it.

    Alerts are about inputs, predictions, performance and the flow of labels; input and prediction drift are warnings.
    Each change is told once, until it is over or has doubled. A performance alert names the inputs that drifted in the
    same time. A pipeline is degraded while its champion's loss stays up; skewed while too many records are rejected,
    which holds up trainings. Both are told when they begin and when they are over.
    """
    from headrace.errors import InvalidInput, Missing
    from headrace.infra.client_errors import check_released
    from headrace.schemas.control import DriftDetected

    drifts = DriftDetected.model_fields["kind"].annotation.__args__  # type: ignore[union-attr]
    kinds = (*drifts, "degraded", "skewed")
    if kind is not None and kind not in kinds:
        raise InvalidInput(f"--kind is {', '.join(kinds[:-1])} or {kinds[-1]}, not {kind!r}")
    with connect.client() as client:
        try:
            records = client.subscribe(("drift-alerts", "decisions"), name or "", start="earliest", follow=False)
            found = listed(sorted(records, key=lambda record: record.known_ms))
        except Missing:
            found = []
        if not found:  # of a retired pipeline there is what was found
            check_released(name, client.pipelines())
    chosen = [one for one in found if kind in (None, one["kind"])][-last:]
    if as_json:
        output.print_json(chosen)
    elif chosen:
        names = ("place", "pipeline", "found_at", "kind", "level", "says")
        rows = [[one[name] for name in names] for one in chosen]
        output.out().print(output.table(("place", "pipeline", "found at", "kind", "level", "what changed"), rows))
        output.say(f"Closer: headrace why {chosen[-1]['place']}")
    else:
        output.say("No alert: nothing that is watched changed.")


def listed(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The alerts and states among records, in order, as data with a sentence each.

    `beside` names the alerts about inputs that belong to the time of one about performance.
    """
    from headrace.schemas.control import DriftDetected, PipelineDegraded, SchemaSkewed
    from headrace.why import alert_words

    found = [one for one in records if isinstance(one.event, DriftDetected | PipelineDegraded | SchemaSkewed)]
    rows = [told(record) for record in found]
    for record, row in zip(found, rows, strict=True):
        beside = [rows[at] for at, other in enumerate(found) if alert_words.is_beside(record, other)]
        if beside:
            columns = ", ".join(dict.fromkeys(column for one in beside for column in one["features"]))
            row["beside"] = [one["place"] for one in beside]
            row["says"] += f"; in the same time inputs drifted: {columns} ({', '.join(row['beside'])})"
    return rows


def told(record: Record) -> dict[str, Any]:
    """One of them as data, with the place that `why` takes, when it was found, and a sentence."""
    from headrace.schemas.control import DriftDetected, PipelineDegraded
    from headrace.why import alert_words, chain

    event: Any = record.event
    link = chain.link_of(record)
    row = {**event.model_dump(mode="json"), "place": link.origin or link.place, "found_at": _time(record.known_ms)}
    if isinstance(event, DriftDetected):
        return {**row, "says": alert_words.found(event)}
    state = "degraded" if isinstance(event, PipelineDegraded) else "skewed"
    level, says = ("over", f"no longer {state}: ") if event.over else ("state", "")
    return {**row, "kind": state, "level": level, "says": says + event.reason}


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
