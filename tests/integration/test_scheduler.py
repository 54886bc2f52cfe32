"""Schedulers on genuine Kafka: one leads, each due time is told once, another takes over."""

import contextlib
import itertools

import pytest
from definitions import definition_of

from headrace.infra import create_topics
from headrace.infra.bus import BusError
from headrace.infra.follow import Follower
from headrace.infra.service import Wiring
from headrace.infra.settings import Settings
from headrace.schemas.codec import TYPE_OF, decode, encode, headers_of
from headrace.schemas.control import PipelineReleased, PipelineRetired
from headrace.schemas.policies import Policies
from headrace.schemas.signing import is_signed
from headrace.schemas.stream import Tick
from headrace.schemas.topics import full_name
from headrace.services.scheduler import ticker as scheduler
from headrace.services.scheduler.ticker import Ticker
from headrace.services.sequencer import core as sequencer

KEY = b"test"
pytestmark = pytest.mark.kafka


@pytest.fixture
def start(kafka, kafka_bus, namespace, tmp_path):
    """Start a scheduler that ticks each second; all are stopped at the end."""
    started = []

    def make(instance):
        settings = Settings(
            bootstrap_servers=kafka,
            namespace=namespace,
            home=tmp_path,
            instance=instance,
            artifact_key=KEY.decode(),
            tick_s=1,
        )
        ticker = Ticker(Wiring(settings, kafka_bus, None, KEY, None))
        started.append(ticker)
        return ticker

    yield make
    for ticker in started:
        ticker.close()


@pytest.fixture
def plant(kafka_bus, namespace, until):
    """Control topics and the topics of a pipeline with two partitions."""
    create_topics.create(kafka_bus, namespace)
    create_topics.create_pipeline(kafka_bus, "rain", 2, Policies(), namespace)

    def is_there():
        with contextlib.suppress(BusError):
            return [kafka_bus.offsets((topic, 0)) for topic in kafka_bus.topics() if topic.startswith(namespace)]

    until(is_there, says="a leader for every topic")
    definition = definition_of()
    released = PipelineReleased(pipeline="rain", release=1, definition=definition, partitions=2, request="q", by="ann")
    say(kafka_bus, namespace, released, 0)


def say(bus, namespace, event, sequence):
    producer = bus.producer("test")
    producer.produce(
        full_name("pipelines", namespace=namespace),
        0,
        b"rain",
        encode(event),
        headers_of(TYPE_OF[type(event)], "/registry", sequence),
        1,
    )
    producer.flush()
    producer.close()


def follow(bus, namespace, *topics):
    """A function that returns everything heard so far in these topics."""
    follower = Follower(bus, namespace, [full_name(topic, "rain", namespace) for topic in topics])
    heard = []

    def records():
        heard.extend(follower.poll(0.05))
        return heard

    return records


def minutes(records):
    return [record.event.due for record in records if record.event.schedule == "minute"]


def copied(records):
    """The due times that the sequencer lets into `control-log`."""
    state = sequencer.State()
    return [emit.event.due for record in records for emit in sequencer.step(state, record, None)]


def test_two_schedulers_tick_once_for_each_due_time_and_one_takes_over(plant, start, kafka_bus, namespace, until):
    ticks = follow(kafka_bus, namespace, "ticks")
    pair = [start("one"), start("two")]
    until(lambda: len(ticks()) >= 3, limit_s=60, says="three ticks")
    assert sorted(scheduler.leads for scheduler in pair) == [False, True]
    due = minutes(ticks())
    assert len(set(due)) == len(due)
    assert all(later > earlier for earlier, later in itertools.pairwise(due))

    leader = next(scheduler for scheduler in pair if scheduler.leads)
    other = next(scheduler for scheduler in pair if not scheduler.leads)
    leader.close()
    last = minutes(ticks())[-1]
    until(lambda: other.leads and minutes(ticks())[-1] > last, limit_s=60, says="a tick of the second scheduler")
    due = minutes(ticks())
    assert len(due) - len(set(due)) <= 1  # the due time of the handover may be told by both, under one id
    assert copied(ticks()) == sorted(set(due))


def test_every_data_partition_gets_signed_ticks_until_its_pipeline_is_retired(
    plant, start, kafka_bus, namespace, until
):
    data, ticks = follow(kafka_bus, namespace, "<p>.data-arrived"), follow(kafka_bus, namespace, "ticks")
    start("one")
    until(lambda: {record.partition for record in data()} == {0, 1}, limit_s=60, says="a tick in both partitions")
    for record in data():
        tick = decode(TYPE_OF[Tick], record.body)
        assert (tick.schedule, tick.pipeline) == ("minute", "rain")
        assert is_signed(KEY, tick)
    say(kafka_bus, namespace, PipelineRetired(pipeline="rain", request="q", by="ann"), 1)
    seen = len(ticks())
    until(lambda: len(ticks()) >= seen + 2, says="two more ticks")  # the retirement is known by the second one
    before = len(data())
    seen = len(ticks())
    until(lambda: len(ticks()) >= seen + 2, says="two more ticks")
    assert len(data()) == before


def test_a_scheduler_whose_topic_is_missing_fails_and_says_why(start, kafka_bus, namespace, until, plant, monkeypatch):
    from confluent_kafka.admin import AdminClient

    monkeypatch.setattr(scheduler, "SEND_S", 2.0)

    admin = AdminClient({"bootstrap.servers": kafka_bus.bootstrap})
    for future in admin.delete_topics([full_name("ticks", namespace=namespace)]).values():
        future.result()
    ticker = start("one")

    def why():
        try:
            ticker.tick(0.1)
        except BusError as error:
            return str(error)

    assert f"no tick could be written to {namespace}ticks" in until(why, limit_s=60, says="the failure")
