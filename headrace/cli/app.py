"""The application that the commands register with, and the options that several of them share."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from headrace.cli.errors import Commands

START, PIPELINES, DATA, MODELS, RUNNING = PANELS = ("Start", "Pipelines", "Data", "Models", "Running")
Command = TypeVar("Command", bound=Callable[..., Any])


class Ordered(Commands):
    """Lists the headings in the order in which a newcomer needs them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands."""
        panels = {name: getattr(command, "rich_help_panel", None) for name, command in self.commands.items()}
        return sorted(panels, key=lambda name: PANELS.index(panels[name]) if panels[name] in PANELS else len(PANELS))


app = typer.Typer(
    name="headrace",
    cls=Ordered,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: headrace demo, or headrace init NAME --csv FILE --label COLUMN",
)


def command(panel: str, example: str, name: str | None = None) -> Callable[[Command], Command]:
    """Register a command under a heading, with an example that its help shows."""

    def register(function: Command) -> Command:
        shown = f"Example: [bold]{example}[/]"
        return app.command(name, rich_help_panel=panel, epilog=shown, no_args_is_help=False)(function)

    return register


def known_pipelines(incomplete: str) -> list[str]:
    """Names to complete: the pipeline files of this folder."""
    names = (path.stem.replace("_", "-") for path in Path("pipelines").glob("*.py"))
    return sorted(name for name in names if name.startswith(incomplete))


def known_topics(incomplete: str) -> list[str]:
    """Names to complete: the topics of the table."""
    from headrace.schemas.topics import TOPICS

    names = (name.removeprefix("<p>.") for name in TOPICS)
    return sorted(name for name in names if name.startswith(incomplete))


def operator() -> str:
    """Who asks: the name of the user, as it stands in the log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The pipeline's name.", autocompletion=known_pipelines)]
AnyName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="One pipeline; all of them without it.", autocompletion=known_pipelines),
]
