"""`publish`, `predict`, `watch`: what goes in and what comes out."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import connect, output
from headrace.cli.app import DATA, Json, Name, command, known_topics
from headrace.errors import InvalidInput

if TYPE_CHECKING:
    from headrace.infra.sdk import Client
    from headrace.schemas.control import PipelineReleased
    from headrace.schemas.stream import PredictionMade

Values = Annotated[list[str], typer.Argument(metavar="COLUMN=VALUE…", help="The columns, by name or alias.")]


@command(DATA, "headrace publish rainfall days.csv --label rain --id day --rate 400")
def publish(
    name: Name,
    what: Annotated[
        list[str] | None, typer.Argument(metavar="FILE | COLUMN=VALUE…", help="A file, or one row.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="With a file: the label's column. With one row: the label.")] = None,
    id: Annotated[str | None, typer.Option(help="With a file: the id's column. With one row: its id.")] = None,
    time: Annotated[str | None, typer.Option(help="With a file: the time's column. With one row: its time.")] = None,
    entity: Annotated[
        str | None, typer.Option(help="With a file: the entity's column. With one row: its entity.")
    ] = None,
    rate: Annotated[str, typer.Option(metavar="N|max", help="Rows a second.")] = "max",
    label_delay: Annotated[int, typer.Option(min=0, metavar="ROWS", help="Labels go so many rows later.")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="Begin a file again instead of going on.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out a file's rows whose time cannot be read, and list them.")
    ] = False,
    history: Annotated[
        bool,
        typer.Option("--history", help="What was before the pipeline: learned, never served, scored or alarmed about."),
    ] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="To wait for the broker.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Publish the rows of a file (CSV, JSON lines, Parquet), one row, or the label of a row published before.

    Rows without an id column get ids that follow from the file, so publishing it again is counted as repeats. A file
    that was interrupted goes on where it stopped. With only --id and --label, the label of that row is published.
    A value that does not fit its column is sent and rejected with the reason; a time that is none ends the command at
    its row, unless --skip-bad leaves such rows out.
    """
    from headrace.cli.publishing import How, publish_file
    from headrace.cli.rows import Roles
    from headrace.cli.start import parse_rate

    words, how = what or [], How(parse_rate(rate), label_delay, restart, skip_bad, history)
    with connect.client(timeout_s) as client:
        released = _released(client, name)
        if len(words) == 1 and ("=" not in words[0] or Path(words[0]).is_file()):
            roles = Roles(id=id, time=time, entity=entity, label=label)
            done = publish_file(client, released, Path(words[0]), roles, how)
            if as_json:
                output.print_json(done)
            else:
                output.say(
                    f"Published {done['rows']:,} rows, {done['labels']:,} labels to {name} in {done['seconds']:.1f} s "
                    f"({done['rows_per_s']:,.0f} rows/s). Next: headrace watch {name}"
                )
                if done["bad_rows"]:
                    _list_bad(done["bad_rows"], done["bad"])
            return
        published = publish_one(client, released, words, label, id, time, entity, history)
    if as_json:
        output.print_json(published)
    else:
        output.say(f"Published {published['what']} {published['id']} to {name}.")


def _list_bad(count: int, first: list[str]) -> None:
    more = f"; the first {len(first)}" if count > len(first) else ""
    output.say(f"{count:,} row{'s were' if count > 1 else ' was'} left out{more}:", "yellow")
    for row in first:
        output.say(f"  {row}")


@command(DATA, "headrace predict rainfall temperature=3.5 'pressure (hPa)=1002.1'")
def predict(
    name: Name,
    values: Values,
    id: Annotated[str | None, typer.Option(help="The row's id; made up without it.")] = None,
    entity: Annotated[str | None, typer.Option(help="Whose row it is.")] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Publish one row and print its prediction. It stands in the log like any other: a label for it may follow.

    Exit status 3: the validator rejected the row, with the reasons.
    """
    from headrace.cli.publishing import features_of

    with connect.client() as client:
        released = _released(client, name)
        features = features_of(released.definition.contract, values)
        made = client.predict(name, features, id=id, entity=entity, timeout_s=timeout_s)
    if as_json:
        output.print_json(made)
    else:
        output.say(told_answer(made))


@command(DATA, "headrace watch rainfall --rejected")
def watch(
    name: Name,
    rejected: Annotated[bool, typer.Option("--rejected", help="Only what was rejected, and why.")] = False,
    topic: Annotated[
        str | None,
        typer.Option(help="One topic instead, such as labelled-examples or metrics.", autocompletion=known_topics),
    ] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the oldest that is kept.")] = False,
    count: Annotated[int | None, typer.Option("-n", "--count", min=1, help="Stop after so many lines.")] = None,
    as_json: Json = False,
) -> None:
    """Print what happens to a pipeline as it happens: predictions, labels joined, rejects, verdicts, models.

    With --json each line is one event with its topic, place and known time. Ctrl-C ends it.
    """
    from headrace.cli.watching import watch_lines

    with connect.client() as client:
        _released(client, name)
        lines = watch_lines(client, name, rejected=rejected, topic=topic, from_start=from_start)
        for number, (text, record) in enumerate(lines, 1):
            if as_json:
                output.print_json_line(record)
            else:
                output.say(text)
            if number == count:
                break


def publish_one(
    client: Client,
    released: PipelineReleased,
    words: list[str],
    label: str | None,
    id: str | None,
    time: str | None,
    entity: str | None,
    history: bool,
) -> dict[str, Any]:
    """Publish one row given as `column=value`, or a label alone. Raises InvalidInput."""
    from headrace.cli.cells import to_label, to_time
    from headrace.cli.publishing import features_of

    name, spec = released.pipeline, released.definition.contract
    moment: datetime | None = to_time(time, "--time") if time is not None else None
    answer = to_label(label, spec) if label is not None else None
    if words:
        features = features_of(spec, words)
        return {
            "what": "row",
            "id": client.publish(name, features, id=id, time=moment, entity=entity, label=answer, history=history),
            "features": features,
        }
    if id is None or answer is None:
        raise InvalidInput(
            "name a file, or COLUMN=VALUE of one row, or --id and --label of a row published before",
            "headrace publish --help",
        )
    client.publish_label(name, id=id, label=answer, entity=entity, time=moment)
    return {"what": "the label of", "id": id, "label": answer}


def told_answer(made: PredictionMade) -> str:
    """What was served, or why nothing was."""
    from headrace.cli.watching import unserved

    served = made.predictions.get(made.served or "")
    if served is None:
        return f"{made.id}: {unserved(made)}. headrace status says more."
    return f"{made.id}: {told_value(served.value)}  (version {served.version}, learned to {served.learned_to:,})"


def told_value(value: Any) -> str:
    """A prediction in a few words."""
    if isinstance(value, dict):
        best = sorted(value.items(), key=lambda item: -item[1])[:3]
        return ", ".join(f"{name} {share:.3f}" for name, share in best)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _released(client: Client, name: str) -> PipelineReleased:
    from headrace.infra.client_errors import check_released

    released = client.pipelines()
    check_released(name, released, client.retired)
    return released[name]
