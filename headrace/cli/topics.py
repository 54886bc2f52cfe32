"""`topics` and `acls`: what stands on the broker, and who may do what there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import connect, output
from headrace.cli.app import RUNNING, Json, command
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.infra.bus import Bus
    from headrace.infra.create_topics import Problem
    from headrace.infra.settings import Settings
    from headrace.schemas.control import PipelineReleased


@command(RUNNING, "headrace topics --create")
def topics(
    create: Annotated[bool, typer.Option("--create", help="Create those that do not exist.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare them with what they must be.")] = False,
    as_json: Json = False,
) -> None:
    """List every topic with its events, writers and readers; create or check them on the broker.

    Exit status 1 with --check: a topic is not as it must be, with the command that mends it.
    """
    if not (create or check):
        _list(as_json)
        return
    from headrace.infra import create_topics

    with connect.bus() as (bus, settings):
        if create:
            create_topics.create(bus, settings.namespace)
            for name, found in released(bus, settings).items():
                policies = found.definition.policies
                create_topics.create_pipeline(bus, name, found.partitions, policies, settings.namespace)
        problems = check_all(bus, settings)
    if as_json:
        output.print_json({"problems": [vars(problem) for problem in problems]})
    else:
        for problem in problems:
            output.say(str(problem))
    if problems:
        raise HeadraceError(f"{len(problems)} settings of topics are not as they must be", problems[0].next)
    if not as_json:
        output.say("All topics are there and as they must be.")


@command(RUNNING, "headrace acls --json")
def acls(as_json: Json = False) -> None:
    """List the rights that each service, and users, need on a broker with authorization; `<p>.` is a prefix."""
    from headrace.infra import create_topics

    rows = create_topics.acls()
    if as_json:
        output.print_json(rows)
        return
    shown = [[row["principal"], row["operation"], row.get("topic") or f"group {row['group']}*"] for row in rows]
    output.out().print(output.table(("who", "may", "what"), shown))


def released(bus: Bus, settings: Settings) -> dict[str, PipelineReleased]:
    """The pipelines in force, by the `pipelines` topic; none before it exists."""
    from headrace.infra.follow import Follower
    from headrace.schemas.control import PipelineReleased, PipelineRetired
    from headrace.schemas.topics import full_name

    follower = Follower(bus, settings.namespace, [full_name("pipelines", namespace=settings.namespace)])
    found: dict[str, PipelineReleased] = {}
    try:
        for record in follower.read_to_end():
            if isinstance(record.event, PipelineReleased):
                found[record.event.pipeline] = record.event
            elif isinstance(record.event, PipelineRetired):
                found.pop(record.event.pipeline, None)
    finally:
        follower.close()
    return found


def check_all(bus: Bus, settings: Settings) -> list[Problem]:
    """What is wrong with the shared topics and those of every pipeline."""
    from headrace.infra import create_topics

    problems = create_topics.check(bus, settings.namespace)
    for name, found in released(bus, settings).items():
        policies = found.definition.policies
        problems += create_topics.check_pipeline(bus, name, found.partitions, policies, settings.namespace)
    return problems


def _list(as_json: bool) -> None:
    from headrace.schemas.topics import TOPICS

    if as_json:
        output.print_json([vars(topic) | {"per_pipeline": topic.per_pipeline} for topic in TOPICS.values()])
        return
    rows = [
        [topic.name, ", ".join(topic.producers), ", ".join(topic.consumers), topic.what] for topic in TOPICS.values()
    ]
    output.out().print(output.table(("topic", "written by", "read by", "what"), rows))
