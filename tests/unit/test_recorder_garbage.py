"""Whatever stands in a topic, the recorder keeps it as a fault with its place and goes on."""

import garbage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.infra.memory_bus import MemoryMessage
from headrace.schemas.contract import ContractSpec, FeatureSpec, LabelSpec
from headrace.schemas.topics import full_name
from headrace.services.recorder.batch import Made
from headrace.services.recorder.recorder import CONTROL_TOPICS, DATA_TOPICS, SNAPSHOTS
from headrace.services.recorder.rows import PipelineRows
from headrace.services.recorder.source import NO_ROWS, Source
from headrace.services.recorder.store import Position

CONTRACT = ContractSpec(name="C", features=(FeatureSpec(name="x", type="float"),), label=LabelSpec(type="bool"))


@pytest.mark.parametrize("topic", [*CONTROL_TOPICS, *DATA_TOPICS, SNAPSHOTS])
@given(records=st.lists(st.tuples(garbage.unreadable, garbage.times_ms), min_size=1, max_size=6), at_once=st.booleans())
def test_no_garbage_stops_the_recorder_and_each_record_of_it_is_a_fault(topic, records, at_once):
    rows = PipelineRows("rain", [CONTRACT]) if topic in DATA_TOPICS else None
    source = Source(topic, 0, Position("id", 0), rows, lambda event, known_ms: None)
    messages = [
        MemoryMessage(full_name(topic, "rain"), 0, offset, *record, (1, at_ms))
        for offset, (record, at_ms) in enumerate(records)
    ]
    for some in [messages] if at_once else [[message] for message in messages]:
        source.take(some)
    made = Made()
    faults = source.make(made)
    assert source.next_offset == len(messages)
    no_rows = sum(dict(m.headers() or ()).get("ce_type") in NO_ROWS for m in messages)
    assert len(messages) - no_rows - source.repeats <= len(faults) <= len(messages)
    assert all(fault.reason for fault in faults)
    source.position()
