"""What only the in-process log can show: shares, the end of a session, late acknowledgements."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.infra.bus import ProducerFailed, TopicSpec
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.memory_groups import shares

HEADERS = [("ce_id", "1")]


def member(bus, instance, topics, told):
    def assigned(places):
        told.append((instance, "assigned", places))
        return dict.fromkeys(places, 0)

    consumer = bus.group_consumer(
        "g", instance, assigned,
        lambda places: told.append((instance, "revoked", places)),
        lambda places: told.append((instance, "lost", places)),
    )  # fmt: skip
    consumer.subscribe(topics)
    return consumer


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), max_size=4),
)
def test_every_place_has_one_reader_shares_differ_by_one_at_most_and_few_places_move(partitions, now, before):
    counts = {f"t{number}": count for number, count in enumerate(partitions)}
    names = {f"m{number}": list(counts) for number in now}
    earlier = shares({f"m{number}": list(counts) for number in before}, counts, {}) if before else {}
    share = shares(names, counts, earlier)
    given_out = [place for places in share.values() for place in places]
    assert sorted(given_out) == sorted((topic, p) for topic, count in counts.items() for p in range(count))
    sizes = sorted(len(places) for places in share.values())
    assert sizes[-1] - sizes[0] <= 1
    for name, places in earlier.items():
        if name in share:
            assert len(set(places) & set(share[name])) == min(len(places), len(share[name]))


def test_a_place_goes_only_to_members_that_subscribe_to_its_topic():
    share = shares({"old": ["a"], "new": ["a", "b"]}, {"a": 1, "b": 3}, {"old": [("a", 0)]})
    assert share == {"old": [("a", 0)], "new": [("b", 0), ("b", 1), ("b", 2)]}


def test_a_place_is_given_on_only_after_its_owner_let_go():
    bus, told = MemoryBus(), []
    bus.create_topics([TopicSpec("t", 2, {})])
    one = member(bus, "i1", ["t"], told)
    one.poll(10, 0)
    two = member(bus, "i2", ["t"], told)
    assert two.poll(10, 0) == []
    assert told == [("i1", "assigned", [("t", 0), ("t", 1)])]
    one.poll(10, 0)
    two.poll(10, 0)
    [moved] = told[1][2]
    assert told[1:] == [("i1", "revoked", [moved]), ("i2", "assigned", [moved])]


def test_a_member_whose_session_ended_loses_its_places_commits_nothing_and_joins_again():
    bus, told = MemoryBus(), []
    bus.create_topics([TopicSpec("t", 2, {})])
    one, two = member(bus, "i1", ["t"], told), member(bus, "i2", ["t"], told)
    for consumer in (one, two, one, two):
        consumer.poll(10, 0)
    [place] = told[-1][2]
    bus.end_session("g", "i2")
    one.poll(10, 0)
    assert told[-1] == ("i1", "assigned", [place]), "the other has it, while the frozen one still thinks it is its own"
    two.commit({place: 5})
    assert two.committed([place]) == {}
    two.poll(10, 0)
    assert ("i2", "lost", [place]) in told
    one.poll(10, 0)
    two.poll(10, 0)
    assert told[-1][:2] == ("i2", "assigned")


def test_topics_made_in_the_same_order_have_the_same_ids_in_every_run():
    ids = []
    for _ in range(2):
        bus = MemoryBus()
        bus.create_topics([TopicSpec("a", 1, {}), TopicSpec("b", 1, {})])
        ids.append([bus.topic_id("a"), bus.topic_id("b")])
    assert ids[0] == ids[1]
    assert ids[0][0] != ids[0][1]
    bus.delete_topic("a")
    bus.create_topics([TopicSpec("a", 1, {})])
    assert bus.topic_id("a") not in ids[0]


def test_the_clock_is_the_one_that_is_given():
    now = [1_000]
    bus = MemoryBus(clock=lambda: now[0])
    bus.create_topics([TopicSpec("own", 1, {"message.timestamp.type": "LogAppendTime"}), TopicSpec("given", 1, {})])
    producer = bus.producer("p")
    for topic, stamp in (("own", 7), ("given", 7), ("given", 0)):
        producer.produce(topic, 0, None, b"v", [], stamp)
    now[0] = 2_000
    producer.produce("own", 0, None, b"v", [], 7)
    assert [message.timestamp() for message in bus.read(("own", 0), 0, 9)] == [(2, 1_000), (2, 2_000)]
    assert [message.timestamp() for message in bus.read(("given", 0), 0, 9)] == [(1, 7), (1, 1_000)]


def late(seed):
    """What stood in the log after each step of a producer whose acknowledgements come late."""
    choice = random.Random(seed)
    bus = MemoryBus(clock=lambda: 0, choose=lambda waiting: choice.randint(0, waiting))
    bus.create_topics([TopicSpec("t", 2, {})])
    producer, ends = bus.producer("p"), []
    for number in range(40):
        producer.produce("t", number % 2, b"k", b"%d" % number, HEADERS, 0)
        producer.poll()
        ends.append((bus.offsets(("t", 0))[1], bus.offsets(("t", 1))[1]))
    return bus, producer, ends


def test_late_acknowledgements_keep_the_order_of_each_partition_and_flush_waits_for_all():
    bus, producer, ends = late(seed=3)
    assert ends == late(seed=3)[2], "a seeded choice is repeatable"
    assert ends != late(seed=4)[2]
    assert ends[-1] != (20, 20), "some are still on their way"
    producer.flush()
    for partition in (0, 1):
        values = [int(message.value()) for message in bus.read(("t", partition), 0, 99)]
        assert values == list(range(partition, 40, 2))


def test_what_was_not_acknowledged_is_lost_with_its_maker():
    bus, producer, ends = late(seed=3)
    producer.close()
    producer.flush()
    assert (bus.offsets(("t", 0))[1], bus.offsets(("t", 1))[1]) == ends[-1]


def test_a_topic_that_is_deleted_meanwhile_fails_the_producer():
    bus, producer, _ = late(seed=3)
    bus.delete_topic("t")
    with pytest.raises(ProducerFailed, match="there is no topic t"):
        producer.flush()
