"""What services wrote, for tests of the recorder that reads it."""

from datetime import UTC, datetime, timedelta

from headrace.infra import create_topics
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.control import (
    PipelineReleased,
    ReleaseDefinition,
    SnapshotPublished,
)
from headrace.schemas.policies import Policies
from headrace.schemas.stream import (
    ArmPrediction,
    ExampleLabelled,
    PredictionMade,
)
from headrace.schemas.topics import full_name
from headrace.services.recorder.recorder import Recorder
from headrace.services.recorder.store import Store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
WEATHER = ContractSpec(
    name="Weather",
    label=LabelSpec(type="bool"),
    features=(
        FeatureSpec(name="temperature", type="float", unit="°C"),
        FeatureSpec(name="station", type="str", optional=True),
    ),
)


class World:
    """A bus with topics, and what services would write to it."""

    def __init__(self, bus, namespace="", partitions=1):
        self.bus, self.namespace, self.partitions = bus, namespace, partitions
        create_topics.create(bus, namespace)
        self.producer = bus.producer("test")
        self.sequences = {}

    def pipeline(self, name="rainfall", contract=WEATHER, release=1):
        create_topics.create_pipeline(self.bus, name, self.partitions, Policies(), self.namespace)
        return self.log(released(name, contract, release))

    def send(
        self,
        topic,
        event,
        pipeline="rainfall",
        partition=0,
        source="/s/x/0",
        sequence=None,
        body=None,
        more=(),
        ms=None,
    ):
        place = (topic, pipeline, partition, source)
        if sequence is None:
            sequence = self.sequences.get(place, 0) + 65_536
        self.sequences[place] = sequence
        headers = headers_of(TYPE_OF[type(event)], source, sequence) + list(more)
        self.producer.produce(
            full_name(topic, pipeline, self.namespace),
            partition,
            b"k",
            encode(event) if body is None else body,
            headers,
            int(NOON.timestamp() * 1000) if ms is None else ms,
        )
        return event

    def log(self, event):
        number = self.sequences["origin"] = self.sequences.get("origin", 0) + 1
        more = [("ce_correlationid", "c"), ("ce_causationid", ""), ("ce_origin", f"topic/id/0/{number}")]
        return self.send("control-log", event, pipeline="", more=more)

    def example(self, number, partition=0, pipeline="rainfall", served="champion", label=None, **features):
        event = PredictionMade(
            id=str(number),
            time=NOON + timedelta(seconds=number),
            served=served,
            release=1,
            epoch=1,
            features=features or {"temperature": number / 10},
            origin=(partition, number),
            cold=served is None,
            predictions={"champion": ArmPrediction(version=1, run="run-1", learned_to=number, value=0.75)}
            if served
            else {},
        )
        self.send("<p>.predictions", event, pipeline, partition)
        if label is not None:
            self.send(
                "<p>.labelled-examples",
                ExampleLabelled(
                    prediction=event,
                    label=label,
                    predicted_at_ms=0,
                    labelled_at_ms=1_500,
                    partition=partition,
                    number=number,
                    pending_from=number,
                    known_to=number,
                ),
                pipeline,
            )
        return event

    def flush(self):
        self.producer.flush()
        return self

    def recorder(self, path, **options):
        return Recorder(self.bus, Store(path), namespace=self.namespace, **options)


def released(name="rainfall", contract=WEATHER, release=1):
    definition = ReleaseDefinition(
        contract=contract,
        policies=Policies(),
        contract_digest="a",
        policies_digest="b",
        recipe_digest="c",
        source_digest="d",
        source_uri="e",
    )
    return PipelineReleased(
        pipeline=name, release=release, definition=definition, partitions=1, request=f"r{release}", by="ann"
    )


def rows(recorder, sql):
    with recorder.store.reading() as cursor:
        return cursor.sql(sql).fetchall()


def everything(recorder):
    """All rows of all tables but the positions, in their order."""
    names = [name for name in recorder.store.tables if name not in ("positions", "meta")]
    return {name: rows(recorder, f'FROM "{name}"') for name in names}


def long_log(world, examples=2_000):
    """Enough for a process to be killed in. Each record of `rainfall.predictions` makes an example or a dead letter."""
    world.pipeline()
    for number in range(examples):
        event = world.example(number, label=number % 2 == 0)
        if number % 100 == 0:
            world.send("<p>.predictions", event, source="/bad/x/0", body=b"{")
    return world


def published(bus, namespace=""):
    """What the recorder announced."""
    reader = bus.reader()
    topic = full_name("store-snapshots", namespace=namespace)
    reader.assign({(topic, 0): 0})
    found = []
    while len(found) < bus.offsets((topic, 0))[1]:
        found += reader.poll(10, 0.1)
    reader.close()
    return [SnapshotPublished.model_validate_json(message.value()) for message in found]
