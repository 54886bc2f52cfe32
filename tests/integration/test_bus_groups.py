"""What `infra.bus` promises of consumer groups, on both sides: Apache Kafka and the in-process log."""

import subprocess
import sys
import time

import pytest

from headrace.infra.bus import BusError, Fenced
from headrace.infra.kafka_bus import KafkaBus


def numbers(count):
    return [b"%d" % number for number in range(count)]


def test_a_member_starts_where_it_says_and_the_group_remembers_where_it_stood(side, until):
    topic = side.topic(partitions=2)
    side.write(topic, numbers(10), 0)
    side.write(topic, numbers(10), 1)
    member = side.member(start=4)
    member.consumer.subscribe([topic])
    side.polled(member, has=lambda: len(member.messages) >= 12)
    assert member.places() == {(topic, 0), (topic, 1)}
    assert sorted((m.partition(), m.offset()) for m in member.messages) == [
        (p, o) for p in (0, 1) for o in range(4, 10)
    ]
    assert member.consumer.committed([(topic, 0), (topic, 1)]) == {}
    member.consumer.commit({(topic, 0): 7})
    until(lambda: member.poll() or member.consumer.committed([(topic, 0), (topic, 1)]) == {(topic, 0): 7})
    member.close()
    again = side.member()
    again.consumer.subscribe([topic])
    side.polled(again, has=lambda: len(again.messages) >= 13)
    assert sorted((m.partition(), m.offset()) for m in again.messages) == [
        *((0, offset) for offset in range(7, 10)),
        *((1, offset) for offset in range(10)),
    ]


def test_the_group_never_goes_back(side, until):
    topic = side.topic()
    side.write(topic, numbers(10))
    member = side.member()
    member.consumer.subscribe([topic])
    side.polled(member, has=lambda: len(member.messages) >= 10)
    member.consumer.commit({(topic, 0): 8})
    until(lambda: member.poll() or member.consumer.committed([(topic, 0)]) == {(topic, 0): 8})
    member.close()
    behind = side.member(start=2)
    behind.consumer.subscribe([topic])
    side.polled(behind, has=lambda: behind.messages)
    behind.consumer.committed([(topic, 0)])
    behind.consumer.commit({(topic, 0): 3})
    behind.consumer.commit({(topic, 0): 9})
    until(lambda: behind.poll() or behind.consumer.committed([(topic, 0)]) == {(topic, 0): 9})
    behind.consumer.commit({(topic, 0): 3})
    side.write(topic, [b"more"])
    side.polled(behind, has=lambda: b"more" in behind.values())
    assert behind.consumer.committed([(topic, 0)]) == {(topic, 0): 9}


def test_seek_reads_on_from_another_offset(side, until):
    topic = side.topic()
    side.write(topic, numbers(10))
    member = side.member()
    member.consumer.subscribe([topic])
    side.polled(member, has=lambda: len(member.messages) >= 10)
    member.consumer.seek((topic, 0), 8)
    side.polled(member, has=lambda: len(member.messages) >= 12)
    assert member.values() == [*numbers(10), b"8", b"9"]
    with pytest.raises(BusError, match="not assigned"):
        member.consumer.seek((topic, 5), 0)


def test_a_live_member_takes_up_more_topics_and_keeps_what_it_has(side, until):
    first, second = side.topic("a"), side.topic("b")
    member = side.member()
    member.consumer.subscribe([first])
    side.polled(member, has=lambda: member.assigned)
    member.consumer.subscribe([first, second])
    side.polled(member, has=lambda: len(member.places()) == 2)
    assert [places for places in member.assigned if places] == [[(first, 0)], [(second, 0)]]
    assert member.revoked == []


def test_two_members_share_the_places_and_only_what_moves_is_taken_away(side, until):
    topic = side.topic(partitions=4)
    one, two = side.member("i1"), side.member("i2")
    one.consumer.subscribe([topic])
    side.polled(one, has=lambda: len(one.places()) == 4)
    two.consumer.subscribe([topic])
    side.polled(one, two, has=lambda: len(one.places()) == len(two.places()) == 2)
    assert not one.places() & two.places()
    assert sum(len(places) for places in one.revoked) == 2
    for partition in range(4):
        side.write(topic, numbers(5), partition)
    side.polled(one, two, has=lambda: len(one.messages) + len(two.messages) >= 20)
    assert {(m.topic(), m.partition()) for m in one.messages} == one.places()
    assert {(m.topic(), m.partition()) for m in two.messages} == two.places()


def test_the_places_of_a_member_that_is_gone_go_to_another_when_its_session_ends(side, until):
    bus = side.bus if side.is_memory else KafkaBus(side.bus.bootstrap, session_timeout_s=2)
    topic = side.topic(partitions=2)
    one, two = side.member("i1", on=bus), side.member("i2", on=bus)
    one.consumer.subscribe([topic])
    two.consumer.subscribe([topic])
    side.polled(one, two, has=lambda: len(one.places()) == len(two.places()) == 1)
    [place] = two.places()
    side.write(topic, numbers(5), place[1])
    side.polled(one, two, has=lambda: len(two.messages) >= 5)
    two.consumer.commit({place: 3})
    until(lambda: two.poll() or two.consumer.committed([place]) == {place: 3})
    two.close()
    assert one.poll() == [], "a clean stop keeps the place of a static member"
    side.operator.end_session(two.group, two.instance)
    side.polled(one, has=lambda: place in one.places() and len(one.messages) >= 2)
    assert [(m.partition(), m.offset()) for m in one.messages] == [(place[1], 3), (place[1], 4)]


def test_a_killed_member_is_back_at_once_and_nobody_else_notices(side, until):
    topic = side.topic(partitions=4)
    one, two = side.member("i1"), side.member("i2")
    one.consumer.subscribe([topic])
    two.consumer.subscribe([topic])
    side.polled(one, two, has=lambda: len(one.places()) == len(two.places()) == 2)
    until(lambda: one.poll() or two.poll() or True)
    told = (len(one.assigned), len(one.revoked), one.places())
    places = two.places()
    began = time.monotonic()
    back = side.member("i2")
    back.consumer.subscribe([topic])
    side.polled(one, back, has=lambda: back.places() == places)
    assert time.monotonic() - began < 3
    side.polled(one, back, has=lambda: time.monotonic() - began > 0.5)
    assert (len([p for p in one.assigned if p]), len(one.revoked), one.places()) == (
        len([p for p in one.assigned[: told[0]] if p]),
        told[1],
        told[2],
    )


def test_an_instance_that_another_process_took_over_is_fenced(side, until):
    topic = side.topic()
    old = side.member("i1")
    old.consumer.subscribe([topic])
    side.polled(old, has=lambda: old.places())
    new = side.member("i1")
    new.consumer.subscribe([topic])
    side.polled(new, has=lambda: new.places())
    with pytest.raises(Fenced, match="another process"):
        until(lambda: old.poll() or old.consumer.commit({(topic, 0): 1}))
    old.closed = True
    side.write(topic, [b"v"])
    side.polled(new, has=lambda: new.values() == [b"v"])


def test_a_member_that_restarts_with_a_longer_list_of_topics_gets_them_all(side, until):
    topics = [side.topic("a", partitions=2), side.topic("b", partitions=2)]
    leader, member = side.member("i1"), side.member("i2")
    leader.consumer.subscribe(topics[:1])
    side.polled(leader, has=lambda: leader.places())
    member.consumer.subscribe(topics[:1])
    side.polled(leader, member, has=lambda: len(leader.places()) == len(member.places()) == 1)
    member.close()
    again = side.member("i2")
    again.consumer.subscribe(topics)
    side.polled(leader, again, has=lambda: {(topics[1], 0), (topics[1], 1)} <= again.places())
    for topic in topics:
        for partition in (0, 1):
            side.write(topic, numbers(5), partition)
    side.polled(leader, again, has=lambda: len(leader.messages) + len(again.messages) >= 20)
    assert sorted((m.topic(), m.partition(), m.offset()) for m in leader.messages + again.messages) == [
        (topic, partition, offset) for topic in topics for partition in (0, 1) for offset in range(5)
    ]


def test_places_are_taken_back_at_a_clean_stop(side, until):
    topic = side.topic()
    member = side.member()
    member.consumer.subscribe([topic])
    side.polled(member, has=lambda: member.places())
    member.close()
    assert member.revoked == [[(topic, 0)]]
    assert member.lost == []


def test_a_member_may_stop_before_it_took_up_what_it_was_given(side, until):
    first, second = side.topic("a"), side.topic("b")
    member = side.member()
    member.consumer.subscribe([first])
    side.polled(member, has=lambda: member.places())
    member.consumer.subscribe([first, second])
    until(lambda: side.operator.has_given(member.group, second))
    began = time.monotonic()
    member.close()
    assert time.monotonic() - began < 5
    assert member.places() == set()


JOINERS = """
import sys, time
from headrace.infra.bus import TopicSpec
from headrace.infra.kafka_bus import KafkaBus

bus, namespace = KafkaBus(sys.argv[1], session_timeout_s=6), sys.argv[2]
bus.create_topics([TopicSpec(namespace + "t", 1, {})])
for number in range(80):
    group = f"{namespace}{number}"
    member = bus.group_consumer(group, group, lambda places: dict.fromkeys(places, 0), print, print)
    member.subscribe([namespace + "t"])
    member.poll(1, 0.001)
    time.sleep(number / 1000)
    member.close()
"""


@pytest.mark.kafka
def test_a_member_may_stop_at_any_moment_of_its_join(kafka, namespace):
    """In a process of its own: librdkafka can hang with the interpreter in hand, where no deadline strikes."""
    subprocess.run([sys.executable, "-c", JOINERS, kafka, namespace], check=True, timeout=300)


@pytest.mark.parametrize("offset", [50, -1])
def test_an_offset_out_of_range_is_an_error_never_skipped(side, until, offset):
    topic = side.topic()
    side.write(topic, numbers(10))
    start = 50
    if offset < 0:
        start = 2
        side.operator.delete_records((topic, 0), 5)
        assert side.bus.offsets((topic, 0)) == (5, 10)
    member = side.member(start=start)
    member.consumer.subscribe([topic])
    with pytest.raises(BusError, match=f"partition 0: offset {start} is out of range"):
        until(member.poll)
    reader = side.reader()
    reader.assign({(topic, 0): start})
    with pytest.raises(BusError, match=f"partition 0: offset {start} is out of range"):
        until(lambda: reader.poll(50, 0.1))


def test_what_a_callback_raises_comes_out_of_poll(side, until):
    topic = side.topic()
    side.write(topic, numbers(3))

    def broken(places):
        raise LookupError("no state for this partition")

    consumer = side.bus.group_consumer(side.namespace + "g", side.namespace + "i", broken, broken, broken)
    consumer.subscribe([topic])
    with pytest.raises(LookupError, match="no state"):
        until(lambda: consumer.poll(50, 0.02) and pytest.fail("a record came without an assignment"))
    consumer.close()
