"""A release is told when it stands in band, so that what is published next is not before it."""

import pytest
from definitions import definition_of

from headrace.errors import NoAnswer
from headrace.infra.bus import TopicSpec
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.release import await_markers
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import PipelineReleased

TOPIC = "rain.data-arrived"
DEFINITION = definition_of()


def released(release=2, request="q"):
    return PipelineReleased(
        pipeline="rain", release=release, definition=DEFINITION, partitions=2, request=request, by="ann"
    )


@pytest.fixture
def bus():
    bus = MemoryBus()
    bus.create_topics([TopicSpec(TOPIC, 2, {})])
    return bus


def write(bus, partition, event=None, body=b"{"):
    headers = headers_of(TYPE_OF[PipelineReleased], "/registry", 0)
    bus.append(TOPIC, partition, b"rain", encode(event) if event else body, headers, 0)


def test_it_returns_when_every_partition_has_the_marker(bus):
    write(bus, 0, released())
    write(bus, 1, released())
    await_markers(bus, {(TOPIC, 0): 0, (TOPIC, 1): 0}, released(), 5)


@pytest.mark.parametrize("other", [None, released(request="another"), released(release=1)])
def test_a_partition_without_it_is_named_and_what_others_wrote_there_is_no_marker(bus, other):
    write(bus, 0, released())
    write(bus, 1, other)
    with pytest.raises(NoAnswer, match=r"did not come to 1 partitions of rain\.data-arrived") as error:
        await_markers(bus, {(TOPIC, 0): 0, (TOPIC, 1): 0}, released(), 0.05)
    assert error.value.next == "headrace status"
