"""What a fold refuses to go on from: each names the place and the command, and nothing is written before it."""

import contextlib
import shutil

import pytest

from headrace.infra import continuity
from headrace.infra.beginning import Beginning
from headrace.infra.bus import TopicSpec
from headrace.infra.continuity import (
    BeyondLog,
    HistoryGone,
    LogDiverged,
    PartitionsChanged,
    StateNewer,
    StateUnclean,
    TopicRecreated,
)
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.store import StateForeign, StateRefused, Store
from headrace.infra.worker import Worker
from headrace.services import folds_of
from headrace.services.joiner import core
from headrace.services.joiner.rows import Done, Early, Waiting

PLACE, FOLD = ("rain.predictions", 0), "joiner-core"
THIS, NEXT, LAST = "1.2.0", "1.3.0", "1.1.9"


@pytest.fixture
def version(monkeypatch):
    """Be another version of the package, of Python or of River."""

    def be(package=THIS, python="3.12", river="0.25"):
        monkeypatch.setattr(continuity, "PACKAGE", package)
        monkeypatch.setattr(continuity, "versions", lambda: (python, river))

    be()
    return be


@pytest.fixture
def left(joiner, version):
    """A joiner that was killed after a commit at offset 4."""
    one = joiner().start()
    one.predict("a", "b", "c")
    one.label("a")
    return one.drain().commit().crash()


def refuses(one, kind, says):
    """The start is refused, and neither state, nor log, nor the group's offset, nor the artifact store is changed."""
    folder = one.folder_of()
    before = (folder / "data.mdb").read_bytes(), one.bus.appended, sorted(one.home.glob("artifacts/**/*"))
    with pytest.raises(kind, match=says) as caught:
        one.start()
    assert isinstance(caught.value, StateRefused)
    after = (folder / "data.mdb").read_bytes(), one.bus.appended, sorted(one.home.glob("artifacts/**/*"))
    assert after == before
    one.crash()
    return str(caught.value)


def test_records_that_are_deleted_before_they_were_folded_are_not_skipped(left, memory_bus):
    left.predict("d", "e")
    memory_bus.delete_records(PLACE, 6)
    said = refuses(left, HistoryGone, r"rain.predictions partition 0 stands at offset 4.*records 4 to 5 are deleted")
    assert said.endswith("headrace reset joiner")


def test_records_that_are_deleted_after_they_were_folded_do_no_harm(left, memory_bus):
    memory_bus.delete_records(PLACE, 4)
    left.start().label("b")
    assert left.drain().told() == (["a", "b"], 0)


def test_a_topic_that_was_created_anew_is_refused_though_it_is_as_long(left, memory_bus):
    memory_bus.delete_topic(PLACE[0])
    memory_bus.create_topics([TopicSpec(PLACE[0], 1, {})])
    left.predict("a", "b", "c", "d", "e")
    refuses(left, TopicRecreated, r"offset 4, but rain.predictions was created anew.*headrace reset joiner")


def test_a_topic_that_is_created_anew_under_a_running_fold_never_gets_into_its_state(left, memory_bus):
    left.start()
    memory_bus.delete_topic(PLACE[0])
    memory_bus.create_topics([TopicSpec(PLACE[0], 1, {})])
    left.predict("v", "w", "x", "y", "z")
    left.label("b")
    place = left.runner._consumer._positions.next
    place[PLACE] = 4  # as a client does that does not notice: it reads on at its offset
    left.runner._consumer._generation = left.runner._consumer._group.generation
    left.drain()
    assert left.worker.offset == 6
    with pytest.raises(TopicRecreated, match=r"created anew.*headrace reset joiner"):
        left.commit()
    left.crash()
    with contextlib.closing(Store.open(left.folder_of(), left.key)) as store:
        assert store.load().offset == 4


def test_a_log_that_lost_its_tail_is_refused(left, memory_bus):
    memory_bus.cut_back(PLACE, 3)
    refuses(left, BeyondLog, r"rain.predictions partition 0 folded up to offset 4, but the log ends at 3.*reset joiner")


def test_a_log_that_lost_its_tail_is_refused_also_where_the_state_is_lost(left, memory_bus):
    memory_bus.cut_back(PLACE, 3)
    shutil.rmtree(left.folder_of())
    with pytest.raises(BeyondLog, match="folded up to offset 4, but the log ends at 3"):
        left.start()


def test_a_log_that_lost_its_tail_and_was_written_on_is_refused_before_a_record_of_it_is_folded(left, memory_bus):
    memory_bus.cut_back(PLACE, 2)
    left.predict("x", "y", "z")
    refuses(left, LogDiverged, r"partition 0: the record at offset 3 is not the one.*reset joiner")
    assert left.told() == (["a"], 0)


def test_a_newer_epoch_after_the_last_record_is_only_another_leader(left, memory_bus):
    memory_bus.cut_back(PLACE, 4)  # nothing is lost
    left.label("b")
    assert left.start().drain().told() == (["a", "b"], 0)


def test_swapped_folders_are_refused(joiner, version, memory_bus):
    memory_bus.create_topics([TopicSpec("wind.predictions", 1, {})])
    one = joiner().start()
    one.predict("a")
    one.drain().stop()
    with pytest.raises(StateForeign, match=r"belongs to joiner-core for rain.predictions partition 0.*reset joiner"):
        Worker(
            folds_of("joiner")[0], core, ("wind.predictions", 0), bus=memory_bus,
            producer=memory_bus.producer("p"), namespace="",
            open_store=lambda fold, place: Store.open(one.folder_of(), one.key),  # whichever place it is asked for
        )  # fmt: skip


def test_state_of_another_topic_is_refused_though_there_is_a_newer_checkpoint(joiner, version, memory_bus):
    memory_bus.create_topics([TopicSpec("wind.predictions", 1, {})])
    one = joiner().start()
    one.predict("a", "b")
    one.drain().stop()
    store = Store.open(one.folder_of(), one.key)
    saved = store.load()
    store.close()
    shutil.rmtree(one.folder_of())
    wind = Store.open(one.folder_of(), one.key)
    wind.commit(1, {}, saved.fields, saved.meta | {"topic": "wind.predictions", "topic_id": "0" * 32})
    wind.close()
    refuses(one, StateForeign, "belongs to joiner-core for wind.predictions")


def test_another_partition_count_is_refused(left, memory_bus):
    memory_bus._topics.by_name[PLACE[0]].logs.append(type(memory_bus._topics.log(PLACE))())
    refuses(left, PartitionsChanged, r"offset 4 of 1 partitions, but rain.predictions has 2 now.*reset joiner")


@pytest.mark.parametrize(("lacks", "more"), [("known_to", {}), (None, {"old": 1}), ("counts", {"totals": {}})])
def test_a_state_with_other_fields_is_refused_also_where_a_default_would_fill_the_gap(left, lacks, more):
    store = Store.open(left.folder_of(), left.key)
    saved = store.load()
    fields = {name: value for name, value in saved.fields.items() if name != lacks} | more
    store.table("pending", Waiting), store.table("early", Early), store.table("done", Done)
    store.commit(saved.offset, saved.sequences, fields, saved.meta)
    store.close()
    named = ", ".join(sorted({lacks, *more} - {None}))
    said = refuses(left, StateForeign, rf"offset 4 has other fields than this version knows \({named}\)")
    assert said.endswith("headrace reset joiner")


def test_another_version_takes_up_a_state_that_was_left_cleanly(left, version):
    left.start().stop()
    version(NEXT, python="3.13")
    left.label("b")
    assert left.start().drain().told() == (["a", "b"], 0)


def test_another_version_refuses_a_state_after_a_crash_and_the_old_one_with_drain_mends_it(left, version):
    left.label("b")
    left.start().drain().crash()  # told, not committed: only the same code tells the same
    version(NEXT)
    said = refuses(left, StateUnclean, r"offset 4 in a state of headrace 1.2.0 \(Python 3.12\).*this is headrace 1.3.0")
    assert "headrace up --drain" in said
    assert "headrace reset joiner" in said
    version(THIS)
    left.start()
    left.drain()
    assert left.runner.drained(0.0)
    left.stop()
    version(NEXT)
    left.label("c")
    assert left.start().drain().told() == (["a", "b", "c"], 1)


@pytest.mark.parametrize("other", [{"python": "3.13"}, {"package": "1.2.1"}, {"package": "1.2.0.post1"}])
def test_each_part_of_the_version_counts(left, version, other):
    version(**other)
    refuses(left, StateUnclean, "headrace up --drain")


def test_river_counts_only_for_who_has_it_in_the_state(left, version):
    version(river="0.99")
    assert left.start().worker.offset == 4


def test_a_newer_version_s_state_is_refused_even_if_it_was_left_cleanly(left, version):
    left.start().stop()
    version(LAST)
    refuses(left, StateNewer, r"headrace 1.2.0 .*newer than this, headrace 1.1.9.*Install that version.*reset joiner")


def test_a_clean_state_that_others_overtook_is_not_enough_for_another_version(joiner, version):
    a = joiner("a").start()
    a.predict("x")
    a.drain().stop()
    b = joiner("b").start()
    b.predict("y")
    b.label("x")
    b.drain().commit().crash()
    version(NEXT)
    refuses(a, StateUnclean, "which others overtook")


def test_a_begin_at_the_logs_start_is_taken_when_it_was_allowed(left, memory_bus):
    left.predict("d", "e")
    left.label("e")
    memory_bus.delete_records(PLACE, 5)
    topic_id = memory_bus.topic_id(PLACE[0])
    shutil.rmtree(left.folder_of())
    Beginning(topic_id=topic_id, offset=5).write(left.folder_of())
    assert left.start().drain().told() == (["a", "e"], 0)
    left.commit().crash()
    left.label("a")
    assert left.start().drain().told() == (["a", "e"], 0), "once there is state the beginning is past"


def test_a_beginning_of_a_topic_before_it_was_made_anew_is_void(left, memory_bus):
    shutil.rmtree(left.folder_of())
    Beginning(topic_id="0" * 32, offset=3).write(left.folder_of())
    assert left.start().drain().told() == (["a"], 0)
    assert left.worker.offset == 4


def test_after_a_cut_what_is_told_again_from_there_is_new_to_readers(left, memory_bus):
    memory_bus.cut_back(PLACE, 3)
    shutil.rmtree(left.folder_of())
    topic_id = memory_bus.topic_id(PLACE[0])
    Beginning(topic_id=topic_id, loud_from=3, incarnation="i2").write(left.folder_of())
    left.label("b")  # at offset 3, where a label told of "a"
    assert left.start().drain().told() == (["a", "b"], 0)
    left.commit().crash()
    left.label("c")  # at offset 4, still not beyond what the group had
    assert left.start().drain().told() == (["a", "b", "c"], 0)
    left.commit().crash()
    left.predict("d")
    left.label("d")
    left.start().drain().commit().crash()
    left.label("c")
    assert left.start().drain().told() == (["a", "b", "c", "d"], 0)


def test_the_bus_of_the_tests_cuts_back_as_a_broker_does():
    bus = MemoryBus()
    bus.create_topics([TopicSpec("t", 1, {})])
    for value in (b"1", b"2", b"3"):
        bus.append("t", 0, None, value, [], 1)
    bus.cut_back(("t", 0), 1)
    bus.append("t", 0, None, b"4", [], 1)
    assert [(m.offset(), m.leader_epoch(), m.value()) for m in bus.read(("t", 0), 0, 9)] == [(0, 0, b"1"), (1, 1, b"4")]
