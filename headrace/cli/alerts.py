"""`alerts`: what the monitor found."""

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
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="input, prediction, performance or labels.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many at most, the newest last.")] = 50,
    as_json: Json = False,
) -> None:
    """List what changed: inputs, predictions, performance, the flow of labels; since when, by how much, and why.

    Input and prediction drift are warnings. Each change is told once, until it is over or has doubled.
    """
    from headrace.errors import InvalidInput, Missing
    from headrace.infra.client_errors import check_released
    from headrace.schemas.control import DriftDetected

    kinds = DriftDetected.model_fields["kind"].annotation.__args__  # type: ignore[union-attr]
    if kind is not None and kind not in kinds:
        raise InvalidInput(f"--kind is {', '.join(kinds[:-1])} or {kinds[-1]}, not {kind!r}")
    with connect.client() as client:
        try:
            found = listed(client.subscribe("drift-alerts", name or "", start="earliest", follow=False))
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
    """The alerts among records, in order, as data with a sentence each."""
    from headrace.schemas.control import DriftDetected

    return [told(record) for record in records if isinstance(record.event, DriftDetected)]


def told(record: Record) -> dict[str, Any]:
    """One alert as data, with the place that `why` takes, when it was found, and a sentence."""
    from headrace.why import alert_words, chain

    alert: Any = record.event
    link = chain.link_of(record)
    place = {"place": link.origin or link.place, "found_at": _time(record.known_ms)}
    return {**alert.model_dump(mode="json"), **place, "says": alert_words.found(alert)}


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
