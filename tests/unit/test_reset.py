"""After each refusal the command that it names works: nothing that can still be told is lost, nothing counts twice."""

import pytest

from headrace.infra.bus import TopicSpec
from headrace.infra.continuity import BeyondLog, HistoryGone, LogDiverged, PartitionsChanged, TopicRecreated
from headrace.infra.reset import again, forget
from headrace.infra.settings import Settings
from headrace.infra.store import StateForeign, StateLocked, lock_folder

PLACE, FOLD = ("rain.predictions", 0), "joiner-core"


@pytest.fixture
def left(joiner):
    """A joiner that was stopped at offset 4: "a" is told, "b" and "c" wait."""
    one = joiner().start()
    one.predict("a", "b", "c")
    one.label("a")
    return one.drain().stop()


def refused(one, kind):
    with pytest.raises(kind, match="headrace reset joiner"):
        one.start()
    one.crash()


def reset(one, with_broker=True):
    """`headrace reset joiner --yes`; what it says."""
    settings = Settings(home=one.home, instance=one.instance, artifact_key=one.key.decode())
    folder = one.home / "state" / one.instance / "joiner"
    places = again(settings, folder, one.bus if with_broker else None)
    forget(settings, folder, places)
    return [place.says for place in places if place.says]


def test_state_that_is_whole_is_folded_again_silently(left):
    before = left.start().drain().state
    left.stop()
    assert reset(left) == []
    assert left.checkpoints.newest(FOLD, PLACE, "") is None
    left.start().drain()
    assert left.state == before
    assert left.told() == (["a"], 0)


def test_after_a_gap_it_begins_where_the_log_begins_and_says_what_it_will_not_know(left, memory_bus):
    left.predict("d", "e", "f")
    left.label("f")
    memory_bus.delete_records(PLACE, 5)
    refused(left, HistoryGone)
    (said,) = reset(left)
    assert said == "the records of rain.predictions partition 0 before offset 5 are deleted: unknown to it"
    assert left.start().drain().told() == (["a", "f"], 0)
    assert left.worker.state.pending.keys() == {"e"}
    left.stop()
    left.label("e")
    assert left.start().drain().told() == (["a", "f", "e"], 0)


def test_after_a_gap_that_was_folded_already_it_goes_on_with_what_the_log_still_has(left, memory_bus):
    memory_bus.delete_records(PLACE, 2)
    reset(left)
    left.label("b", "c")
    assert left.start().drain().told() == (["a", "c"], 0), "b's prediction is deleted"


def test_a_topic_that_was_created_anew_is_folded_from_its_start(left, memory_bus):
    memory_bus.delete_topic(PLACE[0])
    memory_bus.create_topics([TopicSpec(PLACE[0], 1, {})])
    left.predict("x")
    left.label("x")
    refused(left, TopicRecreated)
    assert reset(left) == []
    assert left.start().drain().told() == (["a", "x"], 0)


def test_after_a_lost_tail_what_is_written_in_its_place_is_told(left, memory_bus):
    memory_bus.cut_back(PLACE, 2)  # "c" and the label of "a" are lost
    refused(left, BeyondLog)
    (said,) = reset(left)
    assert "written anew from offset 2" in said
    left.label("b")
    assert left.start().drain().told() == (["a", "b"], 0)
    left.stop()
    left.predict("d")
    left.label("d")
    assert left.start().drain().told() == (["a", "b", "d"], 0)


def test_after_a_tail_that_was_lost_and_written_anew_it_finds_where_the_log_parts(left, memory_bus):
    left.start()
    memory_bus.cut_back(PLACE, 4)  # a new leader, nothing is lost
    left.predict("d", "e", "f")
    left.drain().stop()
    memory_bus.cut_back(PLACE, 5)
    left.label("b")
    left.predict("x", "y", "z")
    refused(left, LogDiverged)
    (said,) = reset(left)
    assert "written anew from offset 5" in said
    left.label("d", "x")
    assert left.start().drain().told() == (["a", "b", "d", "x"], 0)


def test_a_second_reset_keeps_what_the_first_one_found(left, memory_bus):
    memory_bus.cut_back(PLACE, 2)
    reset(left)
    left.label("b")
    left.start().drain().stop()
    assert reset(left) == []
    left.predict("d")
    left.label("d")
    kept, _ = left.start().drain().told()
    assert kept == ["a", "b", "d"]


def test_a_second_reset_without_a_broker_keeps_what_the_first_one_found(left, memory_bus):
    left.start().predict("e")
    left.label("c", "e")
    left.drain().stop()
    memory_bus.cut_back(PLACE, 2)
    reset(left)
    left.label("b")
    left.start().drain().stop()
    assert reset(left, with_broker=False) == []
    left.predict("d")
    left.label("d")
    kept, _ = left.start().drain().told()
    assert kept == ["a", "c", "e", "b", "d"]


def test_with_another_partition_count_it_can_go_on_if_one_wants_that(left, memory_bus):
    memory_bus._topics.by_name[PLACE[0]].logs.append(type(memory_bus._topics.log(PLACE))())
    refused(left, PartitionsChanged)
    reset(left)
    left.label("b")
    assert left.start().drain().told() == (["a", "b"], 0)


def test_state_of_another_key_is_forgotten_without_being_read(left):
    left.key = b"another key"
    with pytest.raises(StateForeign):
        left.start()
    left.crash()
    reset(left)
    left.label("b")
    assert left.start().drain().told() == (["a", "b"], 0)


def test_without_a_broker_only_the_state_is_forgotten(left):
    assert reset(left, with_broker=False) == []
    left.label("b")
    assert left.start().drain().told() == (["a", "b"], 0)


def test_state_that_a_process_owns_is_not_taken_away(left):
    lock = lock_folder(left.home / "state" / left.instance / "joiner")
    try:
        with pytest.raises(StateLocked, match="which is alive"):
            reset(left)
    finally:
        lock.release()
