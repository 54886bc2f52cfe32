"""`init`, `try`, `demo`: the first ten minutes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import output
from headrace.cli.app import START, Json, command
from headrace.cli.files import open_source
from headrace.errors import InvalidInput, Refused

if TYPE_CHECKING:
    from headrace.cli.infer import LabelColumn

IdColumn = Annotated[str | None, typer.Option("--id", metavar="COLUMN", help="The column that names a row.")]
TimeColumn = Annotated[str | None, typer.Option("--time", metavar="COLUMN", help="The column with the event time.")]
EntityColumn = Annotated[
    str | None, typer.Option("--entity", metavar="COLUMN", help="The column that says whose row it is.")
]


@command(START, "headrace init rainfall --csv days.csv --label rain --time day")
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for the pipeline: a-z, 0-9 and -.")],
    csv: Annotated[Path, typer.Option("--csv", metavar="FILE", help="Rows to learn the contract from.")],
    label: Annotated[str, typer.Option("--label", metavar="COLUMN", help="The column to predict.")],
    id: IdColumn = None,
    time: TimeColumn = None,
    entity: EntityColumn = None,
) -> None:
    """Write a pipeline for the rows of a file: contract, recipe, limits, settings. Nothing is overwritten.

    Types, bounds, optional columns and listed values are inferred from the file (CSV, JSON lines or Parquet).
    """
    from importlib import metadata

    from headrace.cli.infer import infer
    from headrace.cli.rows import Roles
    from headrace.cli.scaffold import compose_file, pipeline_file, template
    from headrace.infra.settings import make_key
    from headrace.schemas.topics import PIPELINE_NAME

    if not PIPELINE_NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no name for a pipeline: a-z, 0-9 and -, at most 41, a letter first")
    path = Path("pipelines") / f"{name}.py"
    if path.exists():
        raise Refused(f"{path} exists already; nothing was written", f"edit it, or headrace try {path} {csv}")
    source = open_source(csv)
    roles = Roles(id=id, time=time, entity=entity, label=label)
    for option, column in vars(roles).items():
        if column is not None and column not in source.columns:
            raise InvalidInput(f"{csv} has no column {column!r} (--{option}); it has {', '.join(source.columns)}")
    columns, found, rows = infer(source, [id, time, entity], label)
    options = [
        part
        for option, column in vars(roles).items()
        if column is not None and column != option and not (option == "label" and not (id or time or entity))
        for part in (f"--{option}", column)
    ]
    file = shlex.join([str(csv), *options])
    text = pipeline_file(name, csv.name, rows, columns, found, entity is not None, f"headrace try {path} {file}")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    settings = {
        ".env": template("env.txt"),
        ".gitignore": template("gitignore.txt"),
        "docker-compose.yml": compose_file(metadata.version("headrace")),
    }
    written = [str(path), *(to for to, text in settings.items() if _write_new(Path(to), text))]
    make_key(Path())
    output.say(f"Wrote {', '.join(written)}.")
    output.say(f"{path}: {len(columns)} columns from {rows:,} rows; the label is {told_label(found)}.")
    if (stays := told_no_change(found)) is not None:
        output.note(
            f"{stays}, and no model serves before it beats that. Where rows of many things mix, this says little."
        )
    if Path(".gitignore").exists() and ".env" not in Path(".gitignore").read_text(encoding="utf-8").split():
        output.note("Add .env and .headrace/ to .gitignore: .env holds the key that signs your models.")
    output.say("Next:")
    for line in (f"try {path} {file}", "up", f"release {path} && headrace publish {name} {file}"):
        output.say(f"  headrace {line}")


def told_label(label: LabelColumn) -> str:
    """What the label was taken for."""
    kinds = {"bool": "true or false", "float": "a number", "str": "one of open classes"}
    return kinds.get(label.kind) or f"one of {len(label.values)} classes"


def told_no_change(label: LabelColumn) -> str | None:
    """That the row's before is the better of the two simplest answers; None where it is not by a tenth."""
    simplest, no_change = label.simplest, label.no_change
    if label.kind == "float":
        return f"To say the label before again is off by {no_change:.4g}" if no_change < 0.9 * simplest else None
    return f"To say the label before again is right {no_change:.1%}" if no_change > simplest + 0.1 else None


def _write_new(path: Path, text: str) -> bool:
    """Write a file unless it exists; whether it was written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            if path.name == ".env":
                path.chmod(0o600)
            file.write(text)
    except FileExistsError:
        return False
    return True


@command(START, "headrace try pipelines/rainfall.py days.csv --rows 5000", name="try")
def try_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The pipeline file.", exists=True, dir_okay=False)],
    rows_file: Annotated[Path, typer.Argument(metavar="ROWS", help="CSV, JSON lines or Parquet.")],
    label: Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="The column to predict.")] = None,
    id: IdColumn = None,
    time: TimeColumn = None,
    entity: EntityColumn = None,
    label_delay: Annotated[int, typer.Option(min=0, metavar="ROWS", help="Labels come so many rows later.")] = 0,
    rows: Annotated[int | None, typer.Option(min=1, help="Use only the first rows.")] = None,
    as_json: Json = False,
) -> None:
    """Run the whole system on a file in one process, without Kafka: scores, gates, rejects. Every run is the same.

    The event time of each row is the clock, so what goes by time (windows, labels that expire) happens as live.
    """
    from headrace.cli.rows import Roles
    from headrace.cli.trial import run_trial, show_trial

    given = Roles(id=id, time=time, entity=entity, label=label)
    report = run_trial(file, open_source(rows_file), given, label_delay, rows)
    if as_json:
        output.print_json(report)
    else:
        show_trial(report)


@command(START, "headrace demo --story flip")
def demo(
    story: Annotated[str, typer.Option(metavar="NAME", help="rainfall, flip, regression or poison.")] = "rainfall",
    rate: Annotated[
        str | None,
        typer.Option(metavar="N|max", help="Rows a second.", show_default="fast, slow through the change, fast again"),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=100, help="How many rows.", show_default="all")] = None,
    label_delay: Annotated[
        int | None,
        typer.Option(min=0, metavar="ROWS", help="Labels come so many rows later.", show_default="the story's"),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the services running.")] = False,
    as_json: Json = False,
) -> None:
    """Stream 18,159 days of weather (or a made-up stream) through the whole system and show what happens.

    rainfall: a published file whose columns shift. flip: a rule that changes. regression: numbers, and another rule.
    poison: a bad hour that is learned, told of by an alert, and taken back by a rollback of that time.

    It uses Apache Kafka: that of KAFKA_BOOTSTRAP_SERVERS, else one in Docker, else one from Kafka's own jars.
    """
    from headrace.demo import STORIES, Choices, run

    if story not in STORIES:
        raise InvalidInput(f"--story is {' or '.join(STORIES)}, not {story!r}", "headrace demo --story flip")
    told = STORIES[story]
    chosen = Choices(
        story=told,
        rate=None if rate is None else parse_rate(rate) or float("inf"),
        rows=min(rows or told.rows, told.rows),
        label_delay_rows=told.label_delay_rows if label_delay is None else label_delay,
        keep=keep,
    )
    report = run(chosen, output.stage(to_error=as_json))
    if as_json:
        output.print_json(report)


def parse_rate(text: str) -> float | None:
    """Rows a second; None for max. Raises InvalidInput."""
    if text == "max":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise InvalidInput(f'--rate is a number of rows a second, or "max"; not {text!r}')
    return rate
