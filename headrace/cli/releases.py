"""`release` and `retire`: which definitions are in force."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import connect, output
from headrace.cli.app import PIPELINES, Json, Name, command, operator
from headrace.errors import Refused

Wait = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait for the answer.")]


@command(PIPELINES, "headrace release pipelines/rainfall.py")
def release(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The pipeline file.", exists=True, dir_okay=False)],
    partitions: Annotated[
        int | None, typer.Option(min=1, max=999, help="Of the data topics; fixed at the first release (default 1).")
    ] = None,
    timeout_s: Wait = 30.0,
    as_json: Json = False,
) -> None:
    """Put a pipeline file in force, or say why not.

    It checks the file, makes or checks its topics, stores its source, asks the registry and waits for the answer. The
    file is imported once and its recipe tried. Exit status 3: refused, with the reason.
    """
    from headrace.cli import lineage
    from headrace.infra.pipeline_files import load_file
    from headrace.infra.release import release_file
    from headrace.schemas.lineage import topic as dataset

    name, unchanged = load_file(file).name, ""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with connect.bus() as (bus, settings):
        source, topic = lineage.file(file, sha256=digest), dataset("pipelines")
        write = lineage.writer(bus, settings.namespace)
        with lineage.recorded(write, "release", name, [source], [topic]) as facts:
            try:
                released = release_file(file, settings, bus, operator(), partitions, timeout_s)
                facts["release"] = released.release
            except Refused as refusal:
                if refusal.kind != "unchanged":
                    raise
                unchanged = facts["unchanged"] = str(refusal)
    if unchanged:
        if as_json:
            output.print_json({"pipeline": name, "released": False, "reason": unchanged})
        else:
            output.say(unchanged)
        return
    definition = released.definition
    if as_json:
        output.print_json({"pipeline": name, "released": True, **released.model_dump(mode="json")})
        return
    output.say(
        f"Release {released.release} of {name} is in force: {len(definition.contract.features)} columns, "
        f"label {definition.contract.label.type}, {released.partitions} partition{'s' * (released.partitions != 1)}."
    )
    recipes = definition.recipe_digests()
    if len(recipes) > 1:
        names = ", ".join(name for name in recipes if name is not None)
        output.say(f"Challengers: {names}. Each is tried once a model serves; headrace runs {name} shows them.")
    for recipe in recipes:
        if not definition.is_stable(recipe):
            which = "recipe" if recipe is None else f"recipe {recipe}"
            output.note(
                f"The {which}'s models have no stable digest: they serve, but `headrace reproduce` will refuse them."
            )
    if released.release == 1:
        at = definition.policies.triggers.first_model_at
        output.say(
            f"The first model is judged at {at:,} labels. Next: headrace publish {name} FILE, headrace watch {name}"
        )


@command(PIPELINES, 'headrace retire rainfall --reason "the station closed"')
def retire(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout_s: Wait = 30.0,
    as_json: Json = False,
) -> None:
    """End a pipeline for good: its records are refused from now on, and its name is never used again."""
    from headrace.infra.user_events import new_request
    from headrace.schemas.control import RetireAsked

    if not yes:
        typer.confirm(f"Retire {name}? Its name can never be released again", abort=True, err=True)
    asked = RetireAsked(pipeline=name, request=new_request("retire"), by=operator(), reason=reason)
    with connect.client() as client:
        retired = client.request(asked, timeout_s=timeout_s)
    if as_json:
        output.print_json(retired)
    else:
        output.say(f"{name} is retired. Its topics and models stay until you delete them.")
