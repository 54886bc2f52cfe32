"""A client that reaches nobody while brokers answer others says so; one whose broker is away waits for it."""

import json
import socket
import time

import pytest
from confluent_kafka.admin import AdminClient

from headrace.infra import kafka_lifeline, local_broker
from headrace.infra.bus import TopicSpec, Unavailable
from headrace.infra.kafka_lifeline import Lifeline

QUIET = {"log_level": 0}


@pytest.fixture
def at_once(monkeypatch):
    """Any silence is long enough to ask."""
    monkeypatch.setattr(kafka_lifeline, "SILENT_S", 0.0)
    monkeypatch.setattr(kafka_lifeline, "ASK_S", 0.5)


@pytest.mark.kafka
def test_a_quiet_reader_whose_broker_answers_is_asked_nothing_as_its_loop_would_stand_meanwhile(
    kafka_bus, namespace, monkeypatch
):
    monkeypatch.setattr(kafka_lifeline, "SILENT_S", 2.0)  # its fetches come back empty each half second
    monkeypatch.setattr(kafka_lifeline, "TOLD_S", 0.1)
    asked = []
    monkeypatch.setattr(kafka_lifeline, "_reaches", lambda client, topic=None: asked.append(topic) or True)
    topic = f"{namespace}quiet"
    kafka_bus.create_topics([TopicSpec(topic, 1, {})])
    reader = kafka_bus.reader()
    reader.assign({(topic, 0): 0})
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        assert reader.poll(10, 0.05) == []
    reader.close()
    assert asked == []


@pytest.mark.parametrize(
    ("broker", "is_heard"),
    [
        ({"state": "UP", "rxidle": 400_000}, True),
        ({"state": "UP", "rxidle": 9_000_000}, False),  # it stands still
        ({"state": "DOWN", "rxidle": 400_000}, False),
        ({"state": "UP", "rxidle": -1}, False),  # nothing came yet
        ({"state": "UP", "rxidle": 400_000, "source": "logical"}, False),  # heartbeats, which no record comes by
        (None, False),
    ],
)
def test_whether_a_client_hears_of_a_broker_is_read_from_its_statistics(broker, is_heard, monkeypatch):
    monkeypatch.setattr(kafka_lifeline, "AdminClient", lambda config: None)
    monkeypatch.setattr(kafka_lifeline, "_reaches", lambda client, topic=None: client is None)
    lifeline = Lifeline({"bootstrap.servers": "here"})
    lifeline._silent_since -= 60
    lifeline.settings["stats_cb"](json.dumps({"name": "x", "brokers": {} if broker is None else {"1": broker}}))
    if is_heard:
        lifeline.check("lost")
    else:
        with pytest.raises(Unavailable, match="reaches no broker, though here answers"):
            lifeline.check("lost")


@pytest.mark.kafka
def test_only_a_client_that_reaches_nobody_while_the_broker_answers_is_lost(kafka, at_once):
    there = QUIET | {"bootstrap.servers": kafka}
    nobody = QUIET | {"bootstrap.servers": f"127.0.0.1:{local_broker.free_port()}"}
    lost = AdminClient(nobody)
    with pytest.raises(Unavailable, match=rf"reaches no broker, though {kafka} answers a new one: .* lost all of them"):
        Lifeline(there).check(lost)
    Lifeline(there).check(AdminClient(there))
    Lifeline(nobody).check(lost)  # the broker is away: no client is to blame


@pytest.mark.kafka
def test_a_client_that_waits_for_a_broker_that_stands_still_is_not_said_to_have_lost_all(kafka, at_once):
    with socket.create_server(("127.0.0.1", 0)) as still:  # it takes connections, and answers nothing
        waits = AdminClient(QUIET | {"bootstrap.servers": f"127.0.0.1:{still.getsockname()[1]}"})
        with pytest.raises(Unavailable, match="it waits for one that stands still, or lost all"):
            Lifeline(QUIET | {"bootstrap.servers": kafka}).check(waits)


@pytest.mark.kafka
def test_the_bus_makes_a_new_admin_client_where_its_own_is_lost(kafka_bus):
    kafka_bus.create_topics([TopicSpec("lifeline", 1, {})])
    kafka_bus._admin_client = AdminClient(QUIET | {"bootstrap.servers": f"127.0.0.1:{local_broker.free_port()}"})
    assert "lifeline" in kafka_bus.topics()
