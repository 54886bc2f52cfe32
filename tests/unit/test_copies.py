"""On three brokers, topics that one of them may take records of are named, with the command that mends it."""

import json
from contextlib import nullcontext

import pytest
from typer.testing import CliRunner

from headrace.cli import app, checks, connect
from headrace.infra import create_topics
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.settings import Settings


class Cluster(MemoryBus):
    """A log that says of itself what a cluster of several brokers would."""

    def __init__(self, brokers, copies=3, acknowledging="2", **other_copies):
        super().__init__()
        self._brokers, self._copies, self._acknowledging, self._other = brokers, copies, acknowledging, other_copies
        create_topics.create(self)

    def copies(self):
        return self._brokers, {name: self._other.get(name, self._copies) for name in self.topics()}

    def topic_config(self, topic):
        return super().topic_config(topic) | {"min.insync.replicas": self._acknowledging}


@pytest.fixture
def check(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(bus, *more):
        monkeypatch.setattr(connect, "bus", lambda: nullcontext((bus, Settings())))
        done = CliRunner().invoke(app, ["topics", "--check", *more])
        assert done.exit_code == 0
        return done.stdout

    return run


def test_a_topic_with_one_copy_on_three_brokers_is_named_and_is_no_failure(check):
    told = check(Cluster(3, decisions=1))
    assert "warning: one copy on 3 brokers, so a broker that is lost takes the records with it: decisions; " in told
    assert "kafka-reassign-partitions.sh" in told
    assert "All topics are there and as they must be." in told


def test_three_copies_of_which_one_acknowledges_are_named(check):
    (warning,) = json.loads(check(Cluster(3, acknowledging="1"), "--json"))["warnings"]
    assert warning["topics"] == create_topics.names(())
    assert "one copy is enough to acknowledge" in warning["what"]
    assert f"--topic {warning['topics'][0]} --add-config min.insync.replicas=2" in warning["next"]


def test_a_long_list_is_cut_short(check):
    more = len(create_topics.names(())) - 5
    assert f" and {more} more; kafka-reassign-partitions.sh" in check(Cluster(3, copies=1))


@pytest.mark.parametrize(("brokers", "copies"), [(1, 1), (2, 1), (3, 3), (4, 2)])
def test_nothing_is_said_where_copies_are_enough_or_brokers_too_few(check, brokers, copies):
    assert "warning" not in check(Cluster(brokers, copies))
    assert json.loads(check(Cluster(brokers, copies), "--json")) == {"problems": [], "warnings": []}


def test_doctor_warns_of_it_as_well(monkeypatch):
    monkeypatch.setattr(connect, "bus", lambda: nullcontext((Cluster(3, decisions=1), Settings())))
    good, weak = checks.topics()
    assert (good.level, weak.level) == ("ok", "warn")
    assert weak.what.endswith("takes the records with it: decisions")
    assert weak.next.startswith("kafka-reassign-partitions.sh")
