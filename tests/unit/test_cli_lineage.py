"""A command as a run in lineage: given how it ended, then these run events."""

import pytest

from headrace.cli.lineage import file, recorded, writer
from headrace.errors import Missing, Refused, Unreachable
from headrace.infra.bus import BusError, TopicSpec
from headrace.infra.follow import Follower
from headrace.infra.memory_bus import MemoryBus
from headrace.schemas.lineage import topic


@pytest.fixture
def bus():
    bus = MemoryBus()
    bus.create_topics([TopicSpec("t-lineage", 1, {})])
    return bus


def told(bus):
    return [record.event.run_event for record in Follower(bus, "t-", ["t-lineage"]).read_to_end()]


def release(bus, tmp_path, error=None, before=lambda: None):
    """A command that ends with this error, or well."""
    (tmp_path / "rain.py").write_text("pipeline = …")
    inputs, outputs = [file(tmp_path / "rain.py", sha256="ab")], [topic("pipelines")]
    with recorded(writer(bus, "t-"), "release", "rain", inputs, outputs) as facts:
        before()
        if error is not None:
            raise error
        facts["release"] = 3


def test_a_command_that_ends_well_has_started_and_completed(bus, tmp_path, valid_lineage):
    release(bus, tmp_path)
    start, end = map(valid_lineage, told(bus))
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == end["run"]["runId"]
    assert end["run"]["facets"]["headrace"]["release"] == 3
    assert (end["inputs"][0]["namespace"], end["inputs"][0]["name"]) == ("file", str(tmp_path / "rain.py"))
    assert end["inputs"][0]["facets"]["headrace"]["sha256"] == "ab"


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (Refused("no"), "FAIL", "no"),
        (Missing(""), "FAIL", "Missing"),
        (KeyboardInterrupt(), "ABORT", None),
        (Unreachable("gone"), None, None),
    ],
)
def test_how_it_failed_is_told_and_rises(bus, tmp_path, valid_lineage, error, state, message):
    with pytest.raises(type(error)):
        release(bus, tmp_path, error)
    _start, *ends = map(valid_lineage, told(bus))
    assert [end["eventType"] for end in ends] == ([state] if state else [])
    assert message is None or ends[0]["run"]["facets"]["errorMessage"]["message"] == message


def test_where_the_command_makes_the_topic_its_start_is_told_with_its_end(tmp_path):
    bus = MemoryBus()
    release(bus, tmp_path, before=lambda: bus.create_topics([TopicSpec("t-lineage", 1, {})]))
    start, end = told(bus)
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert start["eventTime"] <= end["eventTime"]


def test_lineage_that_cannot_be_written_is_a_note_and_no_error(capsys):
    def write(event):
        raise BusError("not allowed")

    with recorded(write, "publish", "rain", [], []):
        pass
    assert "The lineage of this publish is not recorded: not allowed" in capsys.readouterr().err
