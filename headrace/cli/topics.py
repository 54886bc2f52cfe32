"""`topics` and `acls`: what stands on the broker, and who may do what there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import connect, output
from headrace.cli.app import RUNNING, Json, command
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.infra.bus import Bus
    from headrace.infra.copies import Weakness
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

    Exit status 1 with --check: a topic is not as it must be, with the command that mends it. Where there are three
    brokers or more it warns of topics that one lost broker takes records of.
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
        problems, weak = check_all(bus, settings)
    if as_json:
        output.print_json(
            {"problems": [vars(problem) for problem in problems], "warnings": [vars(one) for one in weak]}
        )
    else:
        for problem in problems:
            output.say(str(problem))
        for one in weak:
            output.say(f"warning: {one}", "yellow")
    if problems:
        raise HeadraceError(f"{len(problems)} settings of topics are not as they must be", problems[0].next)
    if not as_json:
        output.say("All topics are there and as they must be.")


@command(RUNNING, "headrace acls rainfall --apply")
def acls(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[PIPELINE]…", help="Pipelines, also future ones.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Give these rights, as an administrator.")] = False,
    principal: Annotated[str, typer.Option(help="How the broker knows each name.")] = "User:{principal}",
    as_json: Json = False,
) -> None:
    """List the rights that each service, users and operators need on a broker with authorization; or give them.

    Without a pipeline's name, `<p>.` stands for it. --apply gives the rights on the shared topics and on those of the
    pipelines named; it takes none away. Give them before a pipeline is released.
    """
    from headrace.infra import acls

    settings = connect.settings()
    called = acls.named(principal)
    wanted = acls.rights(names or (), settings.namespace)
    if apply:
        wanted = [right for right in wanted if "<p>" not in right.name]
        acls.apply(settings, wanted, called)
    if as_json:
        output.print_json([right.row() for right in wanted])
        return
    if apply:
        output.say(f"{len(wanted)} rights are given to {called('*')}.")
        return
    shown = [[r.principal, r.operation, r.name if r.kind == "topic" else f"group {r.name}*"] for r in wanted]
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


def check_all(bus: Bus, settings: Settings) -> tuple[list[Problem], list[Weakness]]:
    """What is wrong with the shared topics and those of every pipeline, and which have too few copies."""
    from headrace.infra import create_topics
    from headrace.infra.copies import weak_copies

    problems = create_topics.check(bus, settings.namespace)
    pipelines = released(bus, settings)
    for name, found in pipelines.items():
        policies = found.definition.policies
        problems += create_topics.check_pipeline(bus, name, found.partitions, policies, settings.namespace)
    return problems, weak_copies(bus, create_topics.names(pipelines, settings.namespace))


def _list(as_json: bool) -> None:
    from headrace.schemas.topics import TOPICS

    if as_json:
        output.print_json([vars(topic) | {"per_pipeline": topic.per_pipeline} for topic in TOPICS.values()])
        return
    rows = [
        [topic.name, ", ".join(topic.producers), ", ".join(topic.consumers), topic.what] for topic in TOPICS.values()
    ]
    output.out().print(output.table(("topic", "written by", "read by", "what"), rows))
