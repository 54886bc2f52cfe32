"""A client that reaches nobody while brokers answer others says so; one whose broker is away waits for it."""

import socket

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
def test_only_a_client_that_reaches_nobody_while_the_broker_answers_is_lost(kafka, at_once):
    there = QUIET | {"bootstrap.servers": kafka}
    nobody = QUIET | {"bootstrap.servers": f"127.0.0.1:{local_broker.free_port()}"}
    lost = AdminClient(nobody)
    with pytest.raises(Unavailable, match=rf"reaches no broker, though {kafka} answers a new one: .* lost all of them"):
        Lifeline(there, lost).check()
    Lifeline(there, AdminClient(there)).check()
    Lifeline(nobody, lost).check()  # the broker is away: no client is to blame


@pytest.mark.kafka
def test_a_client_that_waits_for_a_broker_that_stands_still_is_not_said_to_have_lost_all(kafka, at_once):
    with socket.create_server(("127.0.0.1", 0)) as still:  # it takes connections, and answers nothing
        waits = AdminClient(QUIET | {"bootstrap.servers": f"127.0.0.1:{still.getsockname()[1]}"})
        with pytest.raises(Unavailable, match="it waits for one that stands still, or lost all"):
            Lifeline(QUIET | {"bootstrap.servers": kafka}, waits).check()


@pytest.mark.kafka
def test_the_bus_makes_a_new_admin_client_where_its_own_is_lost(kafka_bus):
    kafka_bus.create_topics([TopicSpec("lifeline", 1, {})])
    kafka_bus._admin_client = AdminClient(QUIET | {"bootstrap.servers": f"127.0.0.1:{local_broker.free_port()}"})
    assert "lifeline" in kafka_bus.topics()
