"""The store: what was committed is there, whole, after any crash; everything else is refused by name."""

import faulthandler
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import make_dataclass
from pathlib import Path

import msgspec
import pydantic
import pytest

from headrace.infra import state_rows
from headrace.infra import store as store_module
from headrace.infra.state_copy import CopyGivenUp
from headrace.infra.store import (
    Saved,
    StateBehind,
    StateCorrupt,
    StateDiskFull,
    StateForeign,
    StateLocked,
    StateRefused,
    Store,
)

KEY = b"k" * 32


class Pending(msgspec.Struct, frozen=True):
    known_ms: int
    body: bytes


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def reopen(folder):
    """Open the store again, as the next process would; what was not committed is lost."""
    opened = []

    def again():
        for store in opened:
            store.close()
        opened[:] = [Store.open(folder, KEY)]
        return opened[0]

    yield again
    for store in opened:
        store.close()


def run(program, *arguments, **more):
    """A program in a process of its own, with the usual imports."""
    head = "import sys; from pathlib import Path; from headrace.infra.store import Store\nKEY = b'k' * 32\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def test_before_the_first_commit_there_is_nothing(reopen):
    assert reopen().load() is None
    assert dict(reopen().table("pending", bytes)) == {}


def test_offset_sequences_fields_facts_and_rows_come_back_together(reopen):
    store = reopen()
    pending, seen = store.table("pending", Pending), store.table("seen", bytes)
    pending["a"], pending[("b" * 300)] = Pending(1, b"x"), Pending(2, b"y")
    seen[b"raw"], seen[7] = b"", b"\x00\xff"
    sequences = {"/validator/p/1f3a9c2e/0": 9, ("topic", 0, "/source"): 2**63}
    store.commit(42, sequences, {"clock_ms": 5, "last": {"a": [1, 2.5]}}, {"topic_id": "t"})

    store = reopen()
    assert store.load() == Saved(42, sequences, {"clock_ms": 5, "last": {"a": [1, 2.5]}}, {"topic_id": "t"})
    assert list(store.table("pending", Pending).items()) == [("a", Pending(1, b"x")), ("b" * 300, Pending(2, b"y"))]
    assert list(store.table("seen", bytes).items()) == [(b"raw", b""), (7, b"\x00\xff")]


def test_what_was_not_committed_is_gone_as_a_whole(reopen):
    store = reopen()
    table = store.table("t", bytes)
    table["kept"], table["deleted later"] = b"1", b"2"
    store.commit(1, {}, {"n": 1}, {})
    del table["deleted later"]
    table["kept"] = b"changed"
    table["new"] = b"3"

    store = reopen()
    assert store.load().fields == {"n": 1}
    assert list(store.table("t", bytes).items()) == [("kept", b"1"), ("deleted later", b"2")]


def test_a_row_is_read_as_it_was_last_put_whether_committed_or_not(reopen):
    store = reopen()
    table = store.table("t", Pending)
    for n in range(5):
        table["k"] = Pending(n, b"")
        assert table["k"].known_ms == n
        store.commit(n, {}, {}, {})
        assert table["k"].known_ms == n
        assert table.get("k").known_ms == n
    assert table.pop("k").known_ms == 4
    store.commit(9, {}, {}, {})
    assert dict(reopen().table("t", Pending)) == {}


def test_numbering_goes_on_after_the_newest_rows_were_deleted(reopen):
    store = reopen()
    table = store.table("t", bytes)
    table["old"], table["new"] = b"1", b"2"
    store.commit(1, {}, {}, {})
    del table["new"]
    store.commit(2, {}, {}, {})

    store = reopen()
    table = store.table("t", bytes)
    table["newer"] = b"3"
    store.commit(3, {}, {}, {})
    assert list(reopen().table("t", bytes)) == ["old", "newer"]


def test_a_table_that_was_not_opened_keeps_its_rows(reopen):
    store = reopen()
    store.table("a", bytes)["x"] = b"1"
    store.commit(1, {}, {}, {})
    reopen().commit(2, {}, {}, {})
    assert dict(reopen().table("a", bytes)) == {"x": b"1"}


def test_the_environment_grows_when_it_is_full(reopen, monkeypatch):
    monkeypatch.setattr(store_module, "MAP_BYTES", 1 << 20)
    store = reopen()
    table = store.table("t", bytes)
    for n in range(3):
        for m in range(1_000):
            table[f"{n} {m}"] = random.Random(m).randbytes(3_000)
        store.commit(n, {}, {"n": n}, {})
    store = reopen()
    assert store.load().fields == {"n": 2}
    assert store.table("t", bytes)["2 999"] == random.Random(999).randbytes(3_000)


def test_an_offset_that_falls_is_refused_and_nothing_is_written(reopen, folder):
    store = reopen()
    store.commit(10, {}, {"n": 1}, {})
    store.commit(10, {}, {"n": 2}, {})
    with pytest.raises(StateBehind, match=f"{folder}.*offset 10.*headrace reset"):
        store.commit(9, {}, {"n": 3}, {})
    assert reopen().load().fields == {"n": 2}
    with pytest.raises(StateBehind):
        reopen().commit(9, {}, {"n": 4}, {})


def test_whoever_was_overtaken_cannot_commit(reopen, folder):
    """Where a lock does not reach (a network file system), a stopped owner may wake up beside its successor."""
    store = reopen()
    table = store.table("t", bytes)
    table["mine"] = b"1"
    store.commit(1, {}, {}, {})
    successor = run(
        "from headrace.infra import store\n"
        "class NoLock:\n    def release(self): pass\n"
        "store.lock_folder = lambda folder: NoLock()\n"
        "s = Store.open(Path(sys.argv[1]), KEY); s.table('t', bytes)['theirs'] = b'2'; s.commit(5, {}, {'n': 5}, {})",
        folder,
    )
    assert successor.wait(20) == 0, successor.stderr.read()
    table["late"] = b"3"
    with pytest.raises(StateBehind, match="another process"):
        store.commit(7, {}, {}, {})
    store = reopen()
    assert store.load().fields == {"n": 5}
    assert list(store.table("t", bytes)) == ["mine", "theirs"]


def test_a_folder_has_one_owner(reopen, folder):
    reopen()
    with pytest.raises(StateLocked, match=f"{folder} belongs to process {os.getpid()}.*HEADRACE_INSTANCE"):
        Store.open(folder, KEY)


def test_the_lock_goes_with_its_process(folder):
    owner = run("s = Store.open(Path(sys.argv[1]), KEY); print('open', flush=True); sys.stdin.read()", folder,
                stdin=subprocess.PIPE)  # fmt: skip
    assert owner.stdout.readline() == "open\n"
    owner.send_signal(signal.SIGSTOP)
    with pytest.raises(StateLocked, match=f"process {owner.pid}"):
        Store.open(folder, KEY)
    owner.kill()
    owner.wait(20)
    Store.open(folder, KEY).close()


def test_a_child_process_does_not_hold_the_lock(folder):
    program = (
        "import os; s = Store.open(Path(sys.argv[1]), KEY)\n"
        "if os.fork() == 0: print('child', flush=True)\n"
        "sys.stdin.read()"
    )
    owner = run(program, folder, stdin=subprocess.PIPE)
    assert owner.stdout.readline() == "child\n"
    owner.kill()
    owner.wait(20)
    Store.open(folder, KEY).close()
    owner.stdin.close()  # the child ends


def test_another_key_is_refused(reopen, folder):
    reopen().commit(1, {}, {}, {})
    reopen().close()
    with pytest.raises(StateForeign, match=f"{folder}.*another HEADRACE_ARTIFACT_KEY: set that one"):
        Store.open(folder, b"another key")
    assert reopen().load().offset == 1


def test_another_format_is_refused(reopen, folder, monkeypatch):
    monkeypatch.setattr(state_rows, "FORMAT", b"headrace-state-9")
    reopen().commit(1, {}, {}, {})
    monkeypatch.undo()
    with pytest.raises(StateForeign, match="headrace-state-9"):
        reopen()


class Touches:
    """A pickle with a side effect."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_fields_are_authenticated_before_they_are_unpickled(folder, tmp_path):
    def forge(key, **changed):
        store = Store.open(folder, key)
        store.commit(1, {}, {"x": Touches(tmp_path / "owned")}, {})
        store.close()

    forge(b"an attacker's key")
    with pytest.raises(StateForeign):
        Store.open(folder, KEY).load()
    assert not (tmp_path / "owned").exists()
    assert not list(folder.glob("opening"))  # refused, not crashed
    good = tmp_path / "good"
    store = Store.open(good, KEY)
    store.commit(1, {}, {"x": Touches(tmp_path / "owned")}, {})
    store.close()
    Store.open(good, KEY).load()
    assert (tmp_path / "owned").exists()  # so the check above could have failed


def test_fields_of_a_class_that_is_gone_are_refused(reopen, monkeypatch):
    monkeypatch.setattr(pickle, "dumps", lambda fields, protocol: b"cno_such_module\nGone\n.")
    reopen().commit(1, {}, {}, {})
    monkeypatch.undo()
    with pytest.raises(StateForeign, match=r"no_such_module.*headrace reset"):
        reopen().load()


@pytest.mark.parametrize(
    "make",
    [
        lambda names: make_dataclass("Training", names, slots=True),
        lambda names: make_dataclass("Training", names, slots=True, frozen=True),
        lambda names: pydantic.create_model("Training", **dict.fromkeys(names, int)),
    ],
    ids=["dataclass", "frozen dataclass", "pydantic"],
)
def test_fields_of_objects_that_an_older_version_knew_less_of_are_refused_with_the_command(
    reopen, folder, monkeypatch, make
):
    older, newer = make(["labels"]), make(["labels", "counted"])
    older.__module__ = newer.__module__ = __name__
    monkeypatch.setattr(sys.modules[__name__], "Training", older, raising=False)
    store = reopen()
    store.commit(1, {}, {"pipelines": {"rain": [older(labels=7)]}}, {})
    assert reopen().load().fields["pipelines"]["rain"][0].labels == 7
    monkeypatch.setattr(sys.modules[__name__], "Training", newer)
    with pytest.raises(StateForeign, match=rf"by another version .*no Training.counted\).* headrace reset {folder}"):
        reopen().load()


def test_rows_that_an_older_version_knew_less_of_are_refused_when_their_table_is_opened(reopen, folder):
    store = reopen()
    store.table("pending", int)["a"] = 7
    store.commit(1, {}, {}, {})
    with pytest.raises(StateForeign, match=rf"by another version .*\(table pending: .* headrace reset {folder}"):
        reopen().table("pending", Pending)


def test_a_file_that_is_no_store_is_refused(folder):
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"not LMDB" * 10_000)
    with pytest.raises(StateCorrupt, match="headrace reset"):
        Store.open(folder, KEY)


def test_rows_that_are_missing_are_noticed(reopen):
    store = reopen()
    table = store.table("t", bytes)
    table["a"], table["b"] = b"1", b"2"
    store.commit(1, {}, {}, {})
    with store._env.begin(write=True, db=store._env.open_db(b"table-t")) as txn:
        txn.delete((0).to_bytes(8, "big"))
    with pytest.raises(StateCorrupt, match="lacks page 0"):
        table["a"]
    with pytest.raises(StateCorrupt, match="0 rows in table t, the last commit had 2"):
        reopen().table("t", bytes)


def filled(folder):
    store = Store.open(folder, KEY)
    pending, seen = store.table("pending", bytes), store.table("seen", bytes)
    for n in range(6):
        for m in range(200):
            pending[f"{n} {m}"], seen[f"{n} {m}"] = bytes([m]) * 150, b""
        for key in list(pending)[:150]:
            del pending[key]
        store.commit(n, {"s": n}, {"n": n, "large": "x" * 3_000}, {"topic_id": "t"})
    store.close()


def everything(folder):
    """All a store holds, after it was opened, read, and committed to."""
    store = Store.open(folder, KEY)
    saved = store.load()
    pending, seen = store.table("pending", bytes), store.table("seen", bytes)
    rows = list(pending.items()), list(seen.items())
    pending["more"] = b"."
    for later in (10, 11):
        store.commit(later, {}, {}, {})
    store.close()
    return saved, rows


def told_by_child(folder, good):
    """How a child ends that reads all: LMDB may abort it."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            os._exit(0 if everything(folder) == good else 2)
        except StateRefused:
            os._exit(3)
        except BaseException:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.long
@pytest.mark.parametrize("damage", ["flip", "zero", "page", "cut"])
def test_damage_anywhere_is_refused_or_does_not_matter(folder, tmp_path, damage):
    filled(folder)
    data = (folder / "data.mdb").read_bytes()
    ends, rng = [], random.Random(damage)
    good = everything(folder)
    for number in range(40):
        damaged, at = bytearray(data), rng.randrange(len(data))
        if damage == "flip":
            damaged[at] ^= 1 << rng.randrange(8)
        elif damage == "zero":
            damaged[at : at + 64] = bytes(len(damaged[at : at + 64]))
        elif damage == "page":
            at = at // 4096 * 4096
            damaged[at : at + 4096] = bytes(len(damaged[at : at + 4096]))
        else:
            del damaged[at:]
        place = tmp_path / str(number)
        place.mkdir()
        (place / "data.mdb").write_bytes(damaged)
        end = told_by_child(place, good)
        if end == -signal.SIGABRT:  # LMDB's own assertion; the next start knows better
            end = told_by_child(place, good)
            assert end == 3, (damage, at)
        assert end in (0, 3), (damage, at)
        ends.append(end)
    assert 3 in ends


def test_a_damaged_meta_page_is_refused(folder):
    filled(folder)
    data = bytearray((folder / "data.mdb").read_bytes())
    newest = max((0, 1), key=lambda page: int.from_bytes(data[page * 4096 + 144 :][:8], sys.byteorder))
    data[newest * 4096 + 16] ^= 0xFF  # its magic number
    (folder / "data.mdb").write_bytes(data)
    with pytest.raises(StateCorrupt):
        Store.open(folder, KEY)


def test_a_writer_killed_at_any_moment_leaves_a_whole_commit(folder):
    program = (
        "s = Store.open(Path(sys.argv[1]), KEY); saved = s.load(); n = saved.offset if saved else 0\n"
        "t = s.table('t', bytes)\n"
        "while True:\n"
        "    n += 1\n"
        "    for i in range(200): t[f'{n} {i}'] = b'%d' % n\n"
        "    for key in list(t)[:-600]: del t[key]\n"
        "    s.commit(n, {'s': n}, {'n': n}, {}); print(n, flush=True)"
    )
    acknowledged = 0
    for round_ in range(6):
        writer = run(program, folder)
        for _ in range(3 + round_):
            acknowledged = int(writer.stdout.readline())
        writer.kill()
        rest = writer.communicate()[0].split()
        acknowledged = int(rest[-1]) if rest else acknowledged
        store = Store.open(folder, KEY)
        saved, rows = store.load(), dict(store.table("t", bytes))
        store.close()
        assert saved.offset >= acknowledged
        assert saved.sequences == {"s": saved.offset}
        assert saved.fields == {"n": saved.offset}
        newest = [f"{n} {i}" for n in range(max(1, saved.offset - 2), saved.offset + 1) for i in range(200)]
        assert list(rows) == newest
        assert all(value == key.split()[0].encode() for key, value in rows.items())


def test_a_disk_that_refuses_a_write_is_named_and_the_last_commit_stands(folder):
    """A limit on the size of files stands for the disk's refusal."""
    program = (
        "import resource; from headrace.infra.store import StateDiskFailed\n"
        "s = Store.open(Path(sys.argv[1]), KEY); t = s.table('t', bytes); t['a'] = b'1'\n"
        "s.commit(1, {}, {'n': 1}, {})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, -1))\n"
        "for n in range(1000): t[f'big {n}'] = bytes(2000)\n"
        "try: s.commit(2, {}, {'n': 2}, {})\n"
        "except StateDiskFailed as error: print(error)\n"
        "for n in range(1000): del t[f'big {n}']\n"
        "s.commit(3, {}, {'n': 3}, {}); print('went on')"
    )
    child = run(program, folder)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 0, err
    assert re.fullmatch(rf"the state in {folder} cannot be written.*The last commit stands.*\nwent on\n", out)
    store = Store.open(folder, KEY)
    assert store.load().fields == {"n": 3}
    assert dict(store.table("t", bytes)) == {"a": b"1"}
    store.close()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux" or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True
    ).returncode:  # fmt: skip
        pytest.skip("mounting a tmpfs needs root on Linux")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_file_system_is_refused_and_the_last_commit_stands(small_disk):
    store = Store.open(small_disk / "state", KEY)
    table = store.table("t", bytes)
    table["a"] = b"1"
    store.commit(1, {}, {"n": 1}, {})
    for n in range(2_000):
        table[f"big {n}"] = bytes(2_000)
    for _ in range(2):
        with pytest.raises(StateDiskFull, match="disk is full"):
            store.commit(2, {}, {"n": 2}, {})
    store.close()
    store = Store.open(small_disk / "state", KEY)
    assert store.load().fields == {"n": 1}
    assert dict(store.table("t", bytes)) == {"a": b"1"}
    store.close()


@pytest.mark.parametrize("size", [100, 500])  # in one piece, and through a pipe
def test_a_copy_holds_the_commit_at_its_beginning_and_nothing_newer(reopen, tmp_path, size):
    store = reopen()
    table = store.table("t", bytes)
    for n in range(2_000):
        table[n] = bytes(size)
    store.commit(1, {"s": 1}, {"n": 1}, {"m": "x"})
    for n in range(1_990):
        del table[n]
    store.commit(2, {"s": 2}, {"n": 2}, {"m": "y"})
    table["newer"] = b""
    (tmp_path / "copy").mkdir()
    with store.copy() as (head, pieces):
        store.commit(3, {}, {"n": 3}, {})
        assert (head.offset, head.meta) == (2, {"m": "y"})
        (tmp_path / "copy" / "data.mdb").write_bytes(b"".join(pieces))
    assert (tmp_path / "copy" / "data.mdb").stat().st_size < store._env.info()["last_pgno"] * 4096 / 4  # compacted
    copy = Store.open(tmp_path / "copy", KEY)
    assert copy.load() == Saved(2, {"s": 2}, {"n": 2}, {"m": "y"})
    assert list(copy.table("t", bytes)) == list(range(1_990, 2_000))
    copy.commit(3, {}, {"n": 33}, {})
    copy.close()
    assert reopen().load().fields == {"n": 3}


def test_without_a_commit_there_is_nothing_to_copy(reopen):
    with pytest.raises(StateRefused, match="holds no commit"), reopen().copy():
        pass


def test_who_copies_may_stop_in_the_middle(reopen):
    store = reopen()
    table = store.table("t", bytes)
    for n in range(10_000):
        table[n] = bytes(1_000)
    store.commit(1, {}, {}, {})
    with store.copy() as (_, pieces):
        next(pieces)
    with store.copy() as (_, pieces):
        assert sum(map(len, pieces)) > 10_000_000


def test_commits_go_on_beside_a_copy_and_one_that_needs_a_larger_map_ends_it(reopen, monkeypatch, until):
    monkeypatch.setattr(store_module, "MAP_BYTES", 24 << 20)
    store = reopen()
    table = store.table("t", bytes)
    for n in range(5_000):
        table[n] = bytes(1_000)
    store.commit(1, {}, {}, {})
    begun, ended = threading.Event(), []

    def copy_until_a_commit_needs_more():
        try:
            with store.copy() as (_, pieces):
                next(pieces)
                begun.set()
                until(lambda: store._needs_map)
                ended.append(sum(map(len, pieces)))
        except CopyGivenUp as end:
            ended.append(end)

    def grow(rows):
        for n in range(rows):
            table[f"{store._head.offset} {n}"] = bytes(1_000)
        store.commit(store._head.offset + 1, {}, {}, {})

    thread = threading.Thread(target=copy_until_a_commit_needs_more)
    thread.start()
    assert begun.wait(10)
    grow(10)  # not held up
    assert ended == []
    grow(30_000)
    thread.join()
    assert isinstance(ended[0], CopyGivenUp)
    assert len(table) == 35_010
    store.close()
    assert len(reopen().table("t", bytes)) == 35_010


def test_a_commit_is_synced_before_it_returns(reopen):
    flags = reopen()._env.flags()
    assert flags["sync"]
    assert flags["metasync"]
    assert not flags["writemap"]


def test_opening_a_hundred_thousand_rows_takes_well_under_seconds(folder):
    store = Store.open(folder, KEY)
    table = store.table("t", bytes)
    for n in range(100_000):
        table[f"{n:036d}"] = b"x" * 100
    store.commit(1, {}, {}, {})
    store.close()
    begin = time.process_time()
    store = Store.open(folder, KEY)
    assert len(store.table("t", bytes)) == 100_000
    assert time.process_time() - begin < 1.5  # 0.1 s when the machine is free
    store.close()
