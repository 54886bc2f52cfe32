"""`reset`: state that is refused is forgotten, so that a service folds it again from the log."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from headrace.cli import connect, output
from headrace.cli.app import RUNNING, Json, command
from headrace.cli.stack import shown
from headrace.errors import Refused, Unreachable

STORE = (
    "The store is filled again from the log: rows whose records are deleted there are lost, "
    "and so are the Parquet snapshots that were kept."
)


@command(RUNNING, "headrace reset recorder")
def reset(
    what: Annotated[str, typer.Argument(metavar="SERVICE|FOLDER", help="A service, or a folder that it named.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Forget state and its checkpoints, so that a service folds it again from the log. Nothing in the log changes.

    For state that a service refuses: written by another version, for a topic that was recreated, or where the log
    lost its start or its tail. It asks first, and says what the new state will not know.
    """
    from headrace.cli.starting import state_folder
    from headrace.infra import processes
    from headrace.infra.reset import again, forget

    settings = connect.settings()
    if any(state["alive"] for state in processes.states(settings.home).values()):
        raise Refused("services of this folder run; their state cannot be taken away under them", "headrace down")
    folder = state_folder(settings, what)
    is_of_folds = folder.is_relative_to(settings.state_dir)
    places = []
    if is_of_folds:
        try:
            with connect.bus() as (bus, _):
                places = again(settings, folder, bus)
        except Unreachable as error:
            output.note(f"{error}, so it is not known whether the log still begins at offset 0.")
            places = again(settings, folder, None)
    told = [place.says for place in places if place.says] if is_of_folds else [STORE]
    if not yes:
        for line in told:
            output.note(line)
        typer.confirm(f"Forget the state in {folder}?", abort=True, err=True)
    if is_of_folds:
        forget(settings, folder, places)
    else:
        shutil.rmtree(folder)
    if as_json:
        output.print_json({"forgotten": [folder], "notes": told})
    else:
        output.say(f"Forgot {shown(folder)}. Next: headrace up")
