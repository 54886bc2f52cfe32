"""A LogTable is a mapping in log order, in memory and over a store alike."""

import collections
import tempfile
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from draws import draws
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.infra import log_table
from headrace.infra.log_table import LogTable
from headrace.infra.store import Store

SAME_LENGTH_AS_A_DIGEST = b"0123456789abcdef"
KEYS = st.sampled_from(["a", "ü" * 40, "x" * 41, "y" * 400, b"a", SAME_LENGTH_AS_A_DIGEST, b"x" * 41, 0, 2**40])


class Row(msgspec.Struct, frozen=True):
    n: int
    text: str = ""


class AgainstDict(RuleBasedStateMachine):
    """Whatever is done, the table and a plain dict hold the same in the same order; commits and crashes included."""

    @initialize(page_bits=st.sampled_from([0, 1, 2, 5]))
    def begin(self, page_bits):
        self.kept = log_table._PAGE_BITS, log_table.PAGE, log_table._IN_PAGE
        log_table._PAGE_BITS, log_table.PAGE, log_table._IN_PAGE = page_bits, 1 << page_bits, (1 << page_bits) - 1
        self.folder = tempfile.TemporaryDirectory()
        self.rows, self.committed, self.number = {}, {}, 0
        self.open()

    def open(self):
        self.store = Store.open(Path(self.folder.name) / "s", b"k")
        self.table = self.store.table("t", Row)

    @rule(key=KEYS)
    def put(self, key):
        self.number += 1
        self.rows[key] = self.table[key] = Row(self.number, "v" * (self.number % 5))

    @rule(key=KEYS)
    def pop(self, key):
        assert self.table.pop(key, None) == self.rows.pop(key, None)
        with pytest.raises(KeyError):
            self.table.pop(key)

    @rule(key=KEYS)
    def delete(self, key):
        if key in self.rows:
            del self.rows[key], self.table[key]
        with pytest.raises(KeyError):
            del self.table[key]
        with pytest.raises(KeyError):
            self.table[key]

    @rule()
    def pop_newest(self):
        if self.rows:
            assert self.table.popitem() == self.rows.popitem()
        else:
            with pytest.raises(KeyError):
                self.table.popitem()

    @rule(count=st.integers(0, 3))
    def expire_the_oldest(self, count):
        for _ in range(min(count, len(self.rows))):
            oldest = next(iter(self.table))
            assert oldest == next(iter(self.rows))
            assert self.table[oldest] == self.rows.pop(oldest)
            del self.table[oldest]

    @rule()
    def clear(self):
        self.table.clear()
        self.rows.clear()

    @rule()
    def commit(self):
        self.number += 1
        self.store.commit(self.number, {}, {}, {})
        self.committed = dict(self.rows)

    @rule()
    def restart(self):
        self.commit()
        self.crash()

    @rule()
    def crash(self):
        self.store.close()
        self.rows = dict(self.committed)
        self.open()

    @invariant()
    def same(self):
        if not hasattr(self, "table"):
            return
        assert len(self.table) == len(self.rows)
        assert list(self.table.items()) == list(self.rows.items())
        assert list(reversed(self.table)) == list(reversed(self.rows))
        assert next(iter(self.table), None) == next(iter(self.rows), None)
        for key in ("a", b"a", 0, "y" * 400, SAME_LENGTH_AS_A_DIGEST):
            assert (key in self.table) == (key in self.rows)
            assert self.table.get(key) == self.rows.get(key)

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()
            log_table._PAGE_BITS, log_table.PAGE, log_table._IN_PAGE = self.kept


TestAgainstDict = AgainstDict.TestCase
TestAgainstDict.settings = settings(max_examples=draws(60), stateful_step_count=50, deadline=None)


@pytest.fixture(params=["memory", "store"])
def make(request, tmp_path):
    """A function that makes a table of a value type."""
    if request.param == "memory":
        yield lambda kind: LogTable("t", kind)
        return
    store = Store.open(tmp_path / "s", b"k")
    yield lambda kind: store.table("t", kind)
    store.close()


def test_keys_of_different_kinds_are_different_keys(make):
    table = make(bytes)
    table["a"], table[b"a"] = b"text", b"bytes"
    table["x" * 50], table[b"x" * 50] = b"long text", b"long bytes"
    assert [*table.values()] == [b"text", b"bytes", b"long text", b"long bytes"]


def test_bytes_that_look_like_the_digest_of_a_long_key_are_another_key(make):
    from headrace.infra.log_table import _slot

    table = make(bytes)
    table["x" * 50] = b"1"
    assert _slot("x" * 50) not in table
    table[_slot("x" * 50)] = b"2"
    assert len(table) == 2


@pytest.mark.parametrize("change", [
    lambda table: table.pop("a"), lambda table: table.update({str(len(table)): b""}),
])  # fmt: skip
@pytest.mark.parametrize("direction", [iter, reversed])
def test_a_change_while_iterating_is_an_error(make, change, direction):
    table = make(bytes)
    table["a"], table["b"] = b"", b""
    with pytest.raises(RuntimeError, match="table t changed during iteration"):
        [change(table) for _ in direction(table)]


def test_a_key_put_again_keeps_its_place_and_one_deleted_before_goes_to_the_end(make):
    table = make(bytes)
    table["a"], table["b"], table["c"] = b"1", b"2", b"3"
    for key in table:
        table[key] = b"4"  # no new key: allowed while iterating
    del table["a"]
    table["a"] = b"5"
    assert list(table.items()) == [("b", b"4"), ("c", b"4"), ("a", b"5")]


def test_deleting_what_a_list_of_the_keys_names_is_allowed(make):
    table = make(bytes)
    table.update(dict.fromkeys(range(10_000), b""))
    for key in list(table)[:9_000]:
        del table[key]
    assert list(table) == list(range(9_000, 10_000))


def test_tables_compare_as_mappings_do(make):
    table = make(bytes)
    table["a"] = b"1"
    assert table == {"a": b"1"}
    assert table != {"a": b"2"}
    assert table.setdefault("a", b"9") == b"1"
    assert table.setdefault("b", b"9") == b"9"


def test_rows_put_and_deleted_between_two_commits_are_never_written(tmp_path):
    store = Store.open(tmp_path / "s", b"k")
    table = store.table("t", bytes)
    table["stays"] = b""
    for n in range(1_000):
        table[n] = bytes(100)
        del table[n]
    added, replaced, deleted = table.changes()
    assert (len(added), replaced, deleted) == (1, [], [])
    store.commit(1, {}, {}, {})
    assert table.changes() == ([], [], [])
    table["stays"] = b"other"
    table["new"] = b""
    assert [len(part) for part in table.changes()] == [0, 2, 2]  # one page each, and their marks if there are any
    del table["stays"], table["new"]
    assert [len(part) for part in table.changes()] == [0, 0, 2]  # the page and its marks, if there are any
    store.close()


@pytest.mark.parametrize(
    "remove", [lambda table: table.pop("a"), lambda table: table.__delitem__("a"), lambda table: table.clear()]
)
def test_a_committed_row_that_was_replaced_and_removed_is_gone(tmp_path, remove):
    store = Store.open(tmp_path / "s", b"k")
    table = store.table("t", bytes)
    table["a"] = b"1"
    store.commit(1, {}, {}, {})
    table["a"] = b"2"
    remove(table)
    store.commit(2, {}, {}, {})
    store.close()
    store = Store.open(tmp_path / "s", b"k")
    assert dict(store.table("t", bytes)) == {}
    store.close()


def test_a_row_looked_at_replaced_and_committed_is_the_new_one(tmp_path):
    store = Store.open(tmp_path / "s", b"k")
    table = store.table("t", bytes)
    for n, value in enumerate((b"1", b"2", b"3")):
        table["a"] = value
        store.commit(n, {}, {}, {})
        assert next(iter(table)) == "a"  # the oldest is remembered
        assert table["a"] == value
    store.close()


def test_the_oldest_is_found_fast_after_many_deletions(make):
    table = make(bytes)
    table.update(dict.fromkeys(range(200_000), b""))
    for n in range(199_999):
        del table[n]
    begin = time.process_time()
    for _ in range(1_000):
        assert next(iter(table)) == 199_999
    assert time.process_time() - begin < 1  # 20 ms when the machine is free; a scan of the dead takes 10 s


def test_one_row_that_stays_costs_no_memory_for_all_that_pass(tmp_path):
    store = Store.open(tmp_path / "s", b"k")
    table = store.table("t", bytes)
    table["stays"] = b""
    for n in range(100_000):
        table[n] = b""
        del table[n]
    store.commit(1, {}, {}, {})
    assert len(table._chunks) == 2  # the one with the row that stays, and the newest
    table["new"] = b""
    assert list(table) == ["stays", "new"]
    store.close()


def test_long_keys_do_not_stand_in_the_index(make):
    table = make(bytes)
    table.update({"x" * 300 + str(n): b"" for n in range(10)})
    assert max(len(slot) for slot in table._index) == 16


def test_times_come_back_in_utc(tmp_path):
    class Timed(msgspec.Struct):
        at: datetime

    store = Store.open(tmp_path / "s", b"k")
    table = store.table("t", Timed)
    at = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    table["a"] = Timed(at)
    store.commit(1, {}, {}, {})
    assert table["a"].at == at
    assert table["a"].at.tzinfo is UTC
    store.close()


def test_a_table_in_memory_has_the_methods_of_a_mapping():
    assert isinstance(LogTable("t", bytes), collections.abc.MutableMapping)
