"""Tables follow their topics, also one that a broker hears of later than who asks it."""

from datetime import UTC, datetime

from headrace.infra import follow
from headrace.infra.bus import TopicSpec
from headrace.infra.follow import Follower
from headrace.infra.memory_bus import MemoryBus
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.stream import Tick


def test_a_topic_that_is_not_known_yet_is_followed_once_it_is(monkeypatch):
    monkeypatch.setattr(follow, "MISSING_S", 0.0)
    bus, tick = MemoryBus(), Tick(schedule="minute", due=datetime(2026, 3, 1, tzinfo=UTC))
    follower = Follower(bus, topics=["ticks"])
    assert follower.read_to_end() == []
    bus.create_topics([TopicSpec("ticks", 1, {})])
    producer = bus.producer("test")
    producer.produce("ticks", 0, None, encode(tick), headers_of(TYPE_OF[Tick], "/scheduler/minute", 0), 1)
    assert [record.event for record in follower.poll()] == [tick]
