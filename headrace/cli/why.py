"""`why`: the chain of events behind a model, a run, a training, a verdict, an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import connect, output
from headrace.cli.app import MODELS, Json, command
from headrace.errors import Missing

if TYPE_CHECKING:
    from headrace.infra.sdk import Client
    from headrace.schemas.record import Record


@command(MODELS, "headrace why rainfall@champion")
def why(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="rainfall@1, a run, a request, RUN/offline, control-log/0/17 …")
    ],
    as_json: Json = False,
) -> None:
    """Tell what something follows from, from the first event on: who asked, what was learned, which numbers decided.

    WHAT is a model (rainfall@1, rainfall@champion, rainfall@1@1204), a pipeline, a run, a request, a run's gate
    (RUN/offline), the newest alert of a kind (rainfall/performance), why a pipeline is in a bad state
    (rainfall/degraded, rainfall/skewed), or the place of an event: control-log/0/17, or rainfall.predictions/0/3 for an
    answer. Each event has its time, its place in the log, and every check with value, limit and number of rows.
    """
    from headrace.why import chain, words

    with connect.client() as client:
        log = chain.Log.of(_read(client, "control-log", ""), _beside(client, what))
    story = chain.story(log, what)
    closer = words.commands(story)
    if as_json:
        output.print_json({"what": what, "story": [words.as_data(link) for link in story], "closer": closer})
        return
    for line in words.lines(story):
        output.say(line)
    if closer:
        output.say(f"Closer: {'; '.join(closer)}")


def _beside(client: Client, what: str) -> Iterable[Record]:
    """The snapshots, and the one event of a pipeline's own topic that is asked about."""
    from headrace.why import chain

    pipeline = chain.snapshots_of(what)
    if not pipeline:
        return
    yield from _read(client, "snapshots", pipeline)
    place = chain.data_place(what)
    if place is not None and place[0] != "<p>.snapshots":
        yield _one(*place)


def _read(client: Client, topic: str, pipeline: str) -> Iterator[Record]:
    return client.subscribe(topic, pipeline, start="earliest", follow=False)


def _one(topic: str, pipeline: str, partition: int, offset: int) -> Record:
    """One record; kafka-python would read the topic from its start. Raises Missing."""
    from headrace.infra.follow import read_range
    from headrace.schemas.topics import full_name

    with connect.bus() as (bus, settings):
        place = (full_name(topic, pipeline, settings.namespace), partition)
        first, end = bus.offsets(place)
        found = list(read_range(bus, place, offset, offset + 1, settings.namespace)) if first <= offset < end else []
    if not found:
        raise Missing(f"{place[0]} holds offsets {first:,} to {end:,} in partition {partition}, not {offset:,}")
    return found[0]
