"""`models`, `runs`, `query`: what was learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import connect, output
from headrace.cli.app import MODELS, AnyName, Json, command
from headrace.errors import Missing

if TYPE_CHECKING:
    from headrace.cli.facts import Facts


@command(MODELS, "headrace models rainfall --at 2026-01-31T12:00Z")
def models(
    name: AnyName = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="As it was then (UTC); now without it.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Instead: every move of an alias, from which version to which.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the versions of each pipeline, where the aliases point, and why.

    They are folded from `control-log` by the registry's own rules; with --at as far as it stood at that known time. A
    move's place in --history is what `headrace why` takes.
    """
    from headrace.cli import facts
    from headrace.cli.cells import to_time
    from headrace.cli.history import moves
    from headrace.infra.client_errors import check_released

    until_ms = None if at is None else round(to_time(at, "--at").timestamp() * 1000)
    with connect.client() as client:
        records = facts.decided(client, name, until_ms)
        found = {} if history else facts.of(records, name)
        listed = moves(records, name) if history else versions(found)
        released = found or {one["pipeline"] for one in listed} or client.pipelines()
    if at is not None and not found and not history:
        what = f"{name} was not released yet" if name else "nothing was released yet"
        raise Missing(f"{what} at {at}", f"headrace models{f' {name}' if name else ''}")
    check_released(name, released)
    if as_json:
        output.print_json(listed)
    elif listed:
        _show_moves(listed) if history else _show_versions(listed)
    else:
        when = "yet" if at is None else f"at {at}"
        output.say(f"No version {when}. headrace status{f' {name}' if name else ''} says how far the first one is.")


def _show_versions(listed: list[dict[str, Any]]) -> None:
    columns = ("pipeline", "version", "aliases", "release", "recipe", "run", "reason")
    rows = [[m["pipeline"], m["version"], _named(m), m["release"], m["recipe"], m["run"], _why(m)] for m in listed]
    output.out().print(output.table(columns, rows, right=("version", "release")))


def _show_moves(listed: list[dict[str, Any]]) -> None:
    from headrace.cli.history import row

    columns = ("at", "pipeline", "alias", "version", "why", "place")
    output.out().print(output.table(columns, [row(move) for move in listed]))
    output.say(f"Closer: headrace why {listed[-1]['place']}")


def versions(found: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """Every version of these pipelines, oldest first, with the aliases that name it and what they serve of its run."""
    listed = []
    for pipeline, one in found.items():
        aliases = one.models.aliases
        for version in one.models.versions:
            named = {alias: update for alias, update in aliases.items() if update.version == version.version}
            fields = ("version", "run", "release", "snapshot_offset", "n_labels", "reason")
            listed.append(
                {
                    "pipeline": pipeline,
                    "aliases": list(named),
                    **{field: getattr(version, field) for field in fields},
                    "recipe": one.recipe_of(version.run),
                    "pinned": sorted(offset for run, offset in one.models.pinned.values() if run == version.run),
                    "serves": {
                        alias: {
                            "snapshot_offset": update.snapshot_offset,
                            "follows": update.follows,
                            "share": update.share,
                            "reason": update.reason,
                        }
                        for alias, update in named.items()
                    },
                }
            )
    return listed


def _named(version: dict[str, Any]) -> str:
    """A version's aliases, what a challenger serves in its canary, and the snapshots that are kept for ever."""
    shares = {alias: served["share"] for alias, served in version["serves"].items()}
    aliases = [alias if share is None else f"{alias} (serves {share:.0%})" for alias, share in shares.items()]
    return ", ".join([*aliases, *(f"pinned @{offset}" for offset in version["pinned"])])


def _why(version: dict[str, Any]) -> str:
    """Why its aliases point to it, else why it became a version."""
    return "; ".join(dict.fromkeys(served["reason"] for served in version["serves"].values())) or version["reason"]


@command(MODELS, "headrace runs rainfall")
def runs(name: AnyName = None, as_json: Json = False) -> None:
    """List the training runs of each pipeline: where they began, how far they came, why they ended."""
    from headrace.cli import facts
    from headrace.infra.client_errors import check_released

    with connect.client() as client:
        found = facts.read(client, name)
        check_released(name, found or client.pipelines())
        listed = [{"pipeline": n, **asdict(run)} for n, one in found.items() for run in facts.newest_runs(client, one)]
    if as_json:
        output.print_json(listed)
    elif listed:
        columns = ("pipeline", "run", "state", "release", "recipe", "from", "labels", "reason")
        fields = ("pipeline", "run", "state", "release", "recipe", "start_offset", "labels", "reason")
        rows = [[r[field] for field in fields] for r in listed]
        output.out().print(output.table(columns, rows, right=("release", "from", "labels")))
    else:
        output.say("No run yet: one starts at the first release.")


@command(MODELS, 'headrace query "SELECT code, count(*) FROM rejects GROUP BY ALL"')
def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One statement that reads.")],
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 1_000,
    as_json: Json = False,
) -> None:
    """Ask the recorder's DuckDB: examples, rejects, predictions, outcomes, metrics, slices, validations, models …

    outcomes has each labelled example with its newest label, labelled_examples with the one that was learned.
    "SHOW TABLES" and "DESCRIBE TABLE" work; nothing can be changed.
    """
    from headrace.infra.query_client import query as ask

    answer = ask(connect.store(), sql, limit)
    if as_json:
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        output.print_json({"columns": answer.columns, "rows": rows, "truncated": answer.truncated})
        return
    output.out().print(output.table(answer.columns, answer.rows))
    if answer.truncated:
        output.note(f"There are more than {limit:,} rows; --limit shows more.")
