"""Checkpoints: state that is lost comes back, byte for byte; a torn or foreign copy is passed over, never read."""

import json
import pickle
import random
import shutil
from contextlib import closing

import pytest

from headrace.infra.bus import TopicSpec
from headrace.infra.checkpoints import Background, CheckpointRefused
from headrace.infra.continuity import HistoryGone, TopicRecreated
from headrace.infra.store import StateCorrupt, Store

PLACE, FOLD, KEY = ("rain.predictions", 0), "joiner-core", b"k" * 32


@pytest.fixture
def files(tmp_path):
    """The files of the joiner's checkpoints, by their end, oldest first."""
    folder = tmp_path / "artifacts" / "checkpoints" / FOLD / "rain.predictions-0"
    return lambda end: sorted(folder.glob(f"*{end}"), key=lambda path: path.stat().st_mtime_ns)


def lose_state(one):
    shutil.rmtree(one.crash().folder_of())


def test_state_that_was_lost_comes_back_byte_for_byte(joiner):
    one = joiner(checkpoint_s=10.0).start()
    one.predict(*(f"p{n}" for n in range(50)))
    one.label("p3", "p7", "early")
    one.drain().now = 11.0
    one.commit()
    one.predict("after")
    one.label("p9")
    undisturbed = one.drain().commit().state
    lose_state(one)
    one.start()
    assert one.worker.counts()["checkpoint"] == 53, "it did not begin with the checkpoint"
    assert one.drain().state == undisturbed
    assert one.told() == (["p3", "p7", "p9"], 0), "what the group had told already was told again"


def test_with_the_log_before_it_deleted_a_checkpoint_is_enough(joiner, memory_bus):
    one = joiner().start()
    one.predict("a", "b")
    one.drain().stop()
    memory_bus.delete_records(PLACE, 2)
    shutil.rmtree(one.folder_of())
    one.start().label("a")
    assert one.drain().told() == (["a"], 0)


def test_without_checkpoint_and_log_nothing_is_made_up(joiner, memory_bus, files):
    one = joiner().start()
    one.predict("a", "b")
    one.drain().commit()
    memory_bus.delete_records(PLACE, 1)
    lose_state(one)
    assert files(".json") == []
    with pytest.raises(HistoryGone, match=r"predictions partition 0 stands at offset 0.*begins at 1.*reset joiner"):
        one.start()


def test_a_checkpoint_is_taken_when_it_is_due_and_not_again_before_something_happened(joiner, files):
    one = joiner(checkpoint_s=600.0).start()
    one.predict("a")
    one.drain().commit()
    assert files(".json") == []
    one.now = 601.0
    one.predict("b")
    one.drain().commit()
    assert len(files(".json")) == 1
    one.now = 1_300.0
    one.commit()
    assert len(files(".json")) == 1


def test_the_newest_two_are_kept(joiner, files):
    one = joiner(checkpoint_s=10.0).start()
    for number in range(5):
        one.predict(f"p{number}")
        one.now += 11.0
        one.drain().commit()
    assert [int(path.name[:20]) for path in files(".json")] == [4, 5]
    assert [json.loads(path.read_text())["copy"].rpartition("/")[2] for path in files(".json")] == [
        path.name for path in files(".mdb")
    ]


def test_a_clean_stop_leaves_a_clean_checkpoint_and_the_first_record_after_it_ends_that(joiner):
    one = joiner().start()
    one.predict("a")
    one.drain().stop()
    assert one.checkpoints.newest(FOLD, PLACE, "").clean
    one.start()
    assert one.worker.clean
    one.label("a")
    one.drain().crash()
    one.start()
    assert not one.worker.clean


def test_a_partition_that_is_taken_away_goes_on_elsewhere_from_its_checkpoint(joiner, memory_bus):
    one = joiner("a").start()
    one.predict("x", "y")
    one.drain()
    memory_bus.delete_records(PLACE, 0)
    one.runner._consumer._revoke([PLACE])  # as a rebalance does
    before = one.checkpoints.newest(FOLD, PLACE, "")
    assert (before.offset, before.clean) == (2, True)
    memory_bus.end_session("headrace-joiner-core", "a-joiner-core")
    other = joiner("b").start()
    other.label("y")
    assert other.drain().told() == (["y"], 0)
    assert other.worker.counts()["checkpoint"] == 2


def test_a_partition_that_comes_back_is_not_folded_from_what_was_left_here_long_ago(joiner):
    a = joiner("a").start()
    a.predict("x")
    a.drain().stop()
    b = joiner("b").start()
    b.predict("y", "z")
    b.label("x")
    undisturbed = b.drain().state
    b.stop()
    a.start()
    assert a.state == undisturbed
    a.label("z")
    assert a.drain().told() == (["x", "z"], 0)


def test_local_state_that_is_ahead_goes_on(joiner):
    one = joiner(checkpoint_s=10.0).start()
    one.predict("a")
    one.drain().now = 11.0
    one.commit()
    one.predict("b")
    one.drain().commit().crash()
    one.start()
    assert one.worker.offset == 2


@pytest.mark.parametrize("harm", ["truncated", "flipped", "zeroed", "missing"])
@pytest.mark.parametrize("end", [".mdb", ".json"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_taken(joiner, files, harm, end):
    one = joiner(checkpoint_s=10.0).start()
    one.predict("a")
    one.drain().now = 11.0
    one.commit()
    one.predict("b", "c")
    one.drain().now = 22.0
    one.commit()
    undisturbed = one.state
    newest = files(end)[-1]
    content = bytearray(newest.read_bytes())
    where = random.Random(harm + end).choice([at for at, byte in enumerate(content) if byte])
    if harm == "missing":
        newest.unlink()
    elif harm == "truncated":
        newest.write_bytes(content[:where])
    else:
        content[where] = 0 if harm == "zeroed" else content[where] ^ 1
        newest.write_bytes(content)
    lose_state(one)
    one.start()
    assert one.worker.counts()["checkpoint"] == 1
    assert one.drain().state == undisturbed


def test_damaged_local_state_is_replaced_by_the_checkpoint(joiner):
    one = joiner(checkpoint_s=10.0).start()
    one.predict(*(f"p{n}" for n in range(300)))
    one.drain().now = 11.0
    one.commit()
    undisturbed = one.state
    one.crash()
    data = one.folder_of() / "data.mdb"
    data.write_bytes(data.read_bytes()[:8192] + b"\xff" * 8192 + data.read_bytes()[16384:])
    with pytest.raises(StateCorrupt), closing(Store.open(one.folder_of(), KEY)) as store:
        store.table("pending", bytes)
    assert one.start().drain().state == undisturbed


def test_a_manifest_of_another_place_is_refused(joiner, files):
    one = joiner().start()
    one.predict("a")
    one.drain().stop()
    (name,) = files(".json")
    elsewhere = name.parent.with_name("rain.predictions-1")
    shutil.copytree(name.parent, elsewhere)
    assert one.checkpoints.newest(FOLD, ("rain.predictions", 1), "") is None
    with pytest.raises(CheckpointRefused, match="manifest of"):
        one.checkpoints._read(f"checkpoints/{FOLD}/rain.predictions-1/{name.name}", FOLD, ("rain.predictions", 1))


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_copy_with_a_pickle_of_anothers_making_is_never_read(joiner, files, tmp_path):
    """One who can write to the artifact store, but has not the key."""
    one = joiner(checkpoint_s=10.0).start()
    one.predict("a")
    one.drain().now = 11.0
    one.commit()
    stranger = Store.open(tmp_path / "stranger", b"another key" * 3)
    stranger.commit(1, {}, {"attack": Attack(str(tmp_path / "proof"))}, {})
    with stranger.copy() as (_, pieces):
        made = b"".join(pieces)
    stranger.close()
    (data,) = files(".mdb")
    data.write_bytes(made)
    lose_state(one)
    assert one.start().drain().told() == ([], 0)
    assert not (tmp_path / "proof").exists()
    pickle.loads(pickle.dumps(Attack(str(tmp_path / "proof"))))
    assert (tmp_path / "proof").exists(), "the attack would not have worked anyway"


def test_checkpoints_of_another_key_are_passed_over(joiner, files):
    one = joiner(key=b"a" * 32).start()
    one.predict("a")
    one.drain().stop()
    assert joiner(key=b"b" * 32).checkpoints.newest(FOLD, PLACE, "") is None
    assert len(files(".json")) == 1


def test_a_kill_between_copy_and_manifest_leaves_the_one_before_it(joiner, files, monkeypatch):
    one = joiner(checkpoint_s=10.0).start()
    one.predict("a")
    one.drain().now = 11.0
    one.commit()

    def killed(*arguments):
        raise OSError("killed")

    monkeypatch.setattr("headrace.infra.checkpoints.sign_line", killed)
    one.predict("b")
    one.drain().now = 22.0
    one.commit()
    assert (len(files(".mdb")), len(files(".json"))) == (2, 1)
    assert one.checkpoints.newest(FOLD, PLACE, "").offset == 1
    monkeypatch.undo()
    one.predict("c")
    one.drain().now = 33.0
    one.commit()
    assert [int(path.name[:20]) for path in files(".json")] == [1, 3]
    assert len(files("")) == 4, "what was half made is cleared away"


def test_a_store_that_cannot_be_written_costs_no_record(joiner, tmp_path):
    one = joiner(checkpoint_s=10.0)
    (tmp_path / "artifacts").write_text("no folder")
    one.start().predict("a")
    one.label("a")
    one.drain().now = 11.0
    one.commit().stop()
    assert one.told() == (["a"], 0)


def test_the_state_may_lie_at_a_url(memory_bus, joiner, tmp_path):
    from headrace.infra.checkpoints import Checkpoints

    one = joiner()
    one.checkpoints = Checkpoints(f"memory://checkpoints-{tmp_path.name}", KEY, one.folder_of)
    one.start().predict("a")
    undisturbed = one.drain().state
    one.stop()
    shutil.rmtree(one.folder_of())
    assert one.start().state == undisturbed


def test_a_checkpoint_of_a_topic_that_was_created_anew_is_refused_though_the_state_is_lost(joiner, memory_bus):
    one = joiner().start()
    one.predict("a")
    one.drain().stop()
    memory_bus.delete_topic(PLACE[0])
    memory_bus.create_topics([TopicSpec(PLACE[0], 1, {})])
    shutil.rmtree(one.folder_of())
    with pytest.raises(TopicRecreated, match=r"offset 1, but rain.predictions was created anew.*headrace reset joiner"):
        one.start()


def test_checkpoints_may_be_taken_in_the_loop_itself():
    now, taken = [0.0], []
    background = Background(10.0, lambda: now[0], inline=True)
    for now[0] in (5.0, 10.0, 19.0, 20.0):
        background.take([lambda pause: taken.append((now[0], pause))])
    assert taken == [(10.0, None), (20.0, None)]
