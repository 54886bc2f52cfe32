"""Fixtures: a genuine Apache Kafka for the session, a namespace for each test, and both sides of the bus."""

import itertools
import os
import shutil
import time
import uuid
from datetime import datetime
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from headrace.infra import local_broker
from headrace.infra.memory_bus import MemoryBus

_numbers = itertools.count()

# a busy machine must not fail a property: what is slow shows in the benchmarks
settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few", parent=settings.get_profile("headrace"), max_examples=25)
settings.load_profile("headrace")


class ByFile(LoadScopeScheduling):
    """Tests of one file run in one worker, as their fixtures are shared; each round of the simulation where there is
    room.
    """

    def _split_scope(self, nodeid):
        is_round = "::test_after_any_schedule" in nodeid or "::test_code_without_one" in nodeid
        return nodeid if is_round else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """By file, and not by `xdist_group`: pytest 9.2 hides those from pytest-xdist 3.8."""
    return ByFile(config, log)


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch):
    """Tests see no setting of the person who runs them, only those they set."""
    for name in list(os.environ):
        if name.startswith("HEADRACE_") or name == "KAFKA_BOOTSTRAP_SERVERS":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """The address of a genuine Kafka broker of this session, on a free loopback port."""
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("needs Java 17 and Maven for a genuine Kafka broker")
    home = tmp_path_factory.mktemp("broker")
    yield local_broker.start(home, local_broker.free_port()).address
    local_broker.stop_local_broker(home)


@pytest.fixture
def namespace():
    """A prefix for topics, groups and instances that no other test has."""
    return f"t{next(_numbers)}-{uuid.uuid4().hex[:6]}-"


@pytest.fixture
def kafka_bus(kafka):
    """The genuine side of the bus."""
    from headrace.infra.kafka_bus import KafkaBus

    bus = KafkaBus(kafka, session_timeout_s=6)
    yield bus
    bus.close()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def bus(request):
    """Both sides of the bus, one after the other."""
    if request.param == "memory":
        return MemoryBus()
    return request.getfixturevalue("kafka_bus")


@pytest.fixture
def until():
    """Wait for a condition: `until(lambda: …)` returns its first true value, or fails at the deadline."""

    def wait(condition, limit_s=20.0, says="the condition"):
        deadline = time.monotonic() + limit_s
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"{says} did not come true within {limit_s:g} s"
            time.sleep(0.01)

    return wait


@pytest.fixture
def valid_lineage():
    """Holds a run event to what https://openlineage.io/spec/2-0-2/OpenLineage.json requires, and returns it."""
    return _valid_lineage


def _valid_lineage(event):
    assert {"eventTime", "producer", "schemaURL", "run", "job"} <= event.keys()
    assert event["eventType"] in ("START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER")
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    assert str(uuid.UUID(event["run"]["runId"])) == event["run"]["runId"]
    datasets = [*event["inputs"], *event["outputs"]]
    for named in (event["job"], *datasets):
        assert all(isinstance(named[key], str) and named[key] for key in ("namespace", "name"))
    producers = [event["producer"]]
    for facet in (facet for one in (event["run"], *datasets) for facet in one.get("facets", {}).values()):
        producers.append(facet["_producer"])
        assert urlsplit(facet["_schemaURL"]).fragment.startswith("/$defs/")
    assert all(urlsplit(producer).scheme == "https" for producer in producers)
    error = event["run"].get("facets", {}).get("errorMessage")
    assert (error is not None) == (event["eventType"] == "FAIL")
    assert error is None or (error["message"] and error["programmingLanguage"])
    return event
