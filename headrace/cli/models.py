"""`models`, `runs`, `train`, `query`: what was learned, and asking for more."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Annotated

import typer

from headrace.cli import connect, output
from headrace.cli.app import MODELS, AnyName, Json, Name, command, operator
from headrace.cli.releases import Wait


@command(MODELS, "headrace models rainfall")
def models(name: AnyName = None, as_json: Json = False) -> None:
    """List the versions of each pipeline, where the aliases point, and why.

    They are folded from `control-log` by the registry's own rules.
    """
    from headrace.cli import facts
    from headrace.services.registry import core as registry

    with connect.client() as client:
        found = facts.read(client, name)
    _known(name, list(found))
    state = registry.State({pipeline: one.models for pipeline, one in found.items()})
    listed = []
    for pipeline in found:
        versions, aliases = registry.models(state, pipeline)
        for version in versions:
            named = [alias for alias, update in aliases.items() if update.version == version.version]
            listed.append(
                {
                    "pipeline": pipeline,
                    "aliases": named,
                    **{
                        field: getattr(version, field)
                        for field in ("version", "run", "release", "snapshot_offset", "n_labels", "reason")
                    },
                }
            )
    if as_json:
        output.print_json(listed)
    elif listed:
        columns = ("pipeline", "version", "aliases", "release", "run", "reason")
        rows = [
            [m["pipeline"], m["version"], ", ".join(m["aliases"]), m["release"], m["run"], m["reason"]] for m in listed
        ]
        output.out().print(output.table(columns, rows, right=("version", "release")))
    else:
        output.say(f"No version yet. headrace status{f' {name}' if name else ''} says how far the first one is.")


@command(MODELS, "headrace runs rainfall")
def runs(name: AnyName = None, as_json: Json = False) -> None:
    """List the training runs of each pipeline: where they began, how far they came, why they ended."""
    from headrace.cli import facts

    with connect.client() as client:
        found = facts.read(client, name)
    _known(name, list(found))
    listed = [{"pipeline": pipeline, **asdict(run)} for pipeline, one in found.items() for run in one.runs.values()]
    if as_json:
        output.print_json(listed)
    elif listed:
        columns = ("pipeline", "run", "state", "release", "from", "judged at", "reason")
        rows = [
            [r["pipeline"], r["run"], r["state"], r["release"], r["start_offset"], r["labels"], r["reason"]]
            for r in listed
        ]
        output.out().print(output.table(columns, rows, right=("release", "from", "judged at")))
    else:
        output.say("No run yet: one starts at the first release.")


@command(MODELS, 'headrace train rainfall --reason "new sensor"')
def train(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "",
    seed: Annotated[int | None, typer.Option(help="Another seed than the pipeline's.")] = None,
    start: Annotated[
        int | None, typer.Option(min=0, metavar="OFFSET", help="Of labelled-examples; 0 is the oldest.")
    ] = None,
    timeout_s: Wait = 30.0,
    as_json: Json = False,
) -> None:
    """Ask for a training and say what the orchestrator answered. Exit status 3: refused, with the reason."""
    from headrace.schemas.control import TrainingAsked

    asked = TrainingAsked(
        pipeline=name, request=f"train-{uuid.uuid4().hex[:12]}", by=operator(), reason=reason, seed=seed, start=start
    )
    with connect.client() as client:
        _known(name, list(client.pipelines()))
        answer = client.request(asked, timeout_s=timeout_s)
    if as_json:
        output.print_json(answer)
    else:
        output.say(f"Training of {name} is requested ({asked.request}). headrace runs {name} shows how far it is.")


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

    answer = ask(connect.settings(), sql, limit)
    if as_json:
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        output.print_json({"columns": answer.columns, "rows": rows, "truncated": answer.truncated})
        return
    output.out().print(output.table(answer.columns, answer.rows))
    if answer.truncated:
        output.note(f"There are more than {limit:,} rows; --limit shows more.")


def _known(name: str | None, names: list[str]) -> None:
    if name is not None and name not in names:
        from headrace.infra.client_errors import not_released

        raise not_released(name, names)
