"""`train`: a person asks for a training, and says where it begins and with which model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import connect, output
from headrace.cli.app import MODELS, Json, Name, command, operator
from headrace.cli.releases import Wait
from headrace.errors import InvalidInput

if TYPE_CHECKING:
    from headrace.infra.bus import Bus
    from headrace.infra.settings import Settings


@command(MODELS, 'headrace train rainfall --reason "new sensor"')
def train(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "",
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME", help="A challenger's; without it the pipeline's own, or VERSION's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the pipeline's.")] = None,
    last: Annotated[int | None, typer.Option(min=1, metavar="N", help="Learn the newest N labelled examples.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Learn from the first labelled example that came then (UTC).")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="OFFSET", help="Learn from this offset of labelled-examples, or `earliest`.")
    ] = None,
    parent: Annotated[
        int | None, typer.Option("--from", metavar="VERSION", min=1, help="Begin with that version's model.")
    ] = None,
    timeout_s: Wait = 30.0,
    as_json: Json = False,
) -> None:
    """Ask for a training beside the champion and say what the orchestrator answered.

    It learns from --last, --since or --start on, and then what comes. Without them from the newest window of labels
    (`Triggers(window_labels=2000)`), and of fewer than two windows from their newer half: what learned all of them
    would be the first model again. With --from it begins with a version's model, as that was when it passed its gates,
    and learns what came since then, or what --last, --since or --start say.

    It is judged like every challenger. Exit status 3: refused, with the reason.
    """
    from headrace.infra.client_errors import check_released
    from headrace.infra.user_events import new_request
    from headrace.schemas.control import TrainingAsked

    if sum(one is not None for one in (last, since, start)) > 1:
        raise InvalidInput(
            "a training begins at one place: --last, --since or --start", f"headrace train {name} --help"
        )
    if parent is not None and seed is not None:
        raise InvalidInput("a seed says how a model begins; with --from it begins as that version", "leave --seed out")
    with connect.client() as client:
        released = client.pipelines()
        check_released(name, released, client.retired)
        window = released[name].definition.policies.triggers.window_labels
        with connect.bus() as (bus, settings):
            begun = _begun(name, last, since, start, recipe, parent, window, bus, settings)
        asked = TrainingAsked(
            pipeline=name, request=new_request("train"), by=operator(), reason=reason, seed=seed, **begun
        )
        answer = client.request(asked, timeout_s=timeout_s)
    if as_json:
        output.print_json(answer)
    else:
        model = "" if parent is None else f", beginning with the model of version {parent}"
        where = f"from offset {asked.start or 0:,} of labelled-examples{model}"
        output.say(f"Training of {name} is requested ({asked.request}), {where}. headrace runs {name} shows its state.")


def _begun(
    name: str,
    last: int | None,
    since: str | None,
    start: str | None,
    recipe: str | None,
    parent: int | None,
    window: int,
    bus: Bus,
    settings: Settings,
) -> dict[str, Any]:
    """The fields of a TrainingAsked that say where it begins, and with which recipe and model.

    Raises InvalidInput, Missing, ArtifactRefused.
    """
    from headrace.cli import offsets, parents
    from headrace.cli.cells import to_time
    from headrace.infra.artifacts import Artifacts

    space = settings.namespace
    offset: int | None = None
    if last is not None:
        offset = offsets.of_the_newest(name, last, bus, space)
    elif since is not None:
        offset = offsets.since(name, round(to_time(since, "--since").timestamp() * 1000), bus, space)
    elif start is not None:
        offset = offsets.given(name, start, bus, space)
    if parent is None:
        return {"start": offsets.of_a_window(name, window, bus, space) if offset is None else offset, "recipe": recipe}
    artifacts = Artifacts(settings.artifact_url, settings.key())
    found = parents.look_up(name, parent, recipe, offset, bus, artifacts, space)
    named = found.recipe if recipe is None else recipe
    return {"start": found.offset if offset is None else offset, "recipe": named, **found.fields()}
