"""What librdkafka tells a callback: a refusal ends the process, a broken connection does not."""

import pytest
from confluent_kafka import KafkaError

from headrace.infra.bus import NotAuthenticated, NotAuthorized
from headrace.infra.kafka_errors import Refusals, explained

REFUSED = [
    (KafkaError._AUTHENTICATION, "SASL authentication error: Authentication failed: Invalid username or password"),
    (KafkaError._AUTHENTICATION, "SASL X mechanism handshake failed: Broker: Unsupported SASL mechanism"),
    (KafkaError._SSL, "SSL handshake failed: certificate verify failed"),
]
PASSING = [
    (KafkaError._AUTHENTICATION, "SASL PLAIN mechanism handshake failed: Local: Broker transport failure"),
    (KafkaError._AUTHENTICATION, "SASL authentication error: Local: Timed out (after 3 ms in state AUTH_REQ)"),
    (KafkaError._SSL, "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"),
    (KafkaError.TOPIC_AUTHORIZATION_FAILED, "rain.snapshots [0]: of a topic that this process only writes"),
    (KafkaError._TRANSPORT, "Connect to ipv4#127.0.0.1:1 failed: Connection refused"),
]


@pytest.mark.parametrize(("code", "says"), REFUSED)
def test_what_a_broker_refuses_is_raised_once(code, says):
    refusals = Refusals("ann", "k:1")
    refusals.hear(KafkaError(code, says))
    with pytest.raises(NotAuthenticated, match="k:1"):
        refusals.raise_any()
    refusals.raise_any()


def test_a_right_to_read_that_is_lost_between_two_fetches_is_raised():
    lost = "rain.snapshots [0]: desired partition is no longer available (Broker: Topic authorization failed)"
    refusals = Refusals("ann", "k:1")
    refusals.hear(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, lost))
    with pytest.raises(NotAuthorized, match=r"does not let this process Read topic rain\.snapshots; `headrace acls`"):
        refusals.raise_any()
    refusals.raise_any()


@pytest.mark.parametrize(("code", "says"), PASSING)
def test_what_passes_by_itself_is_not_raised(code, says):
    refusals = Refusals("ann", "k:1")
    refusals.hear(KafkaError(code, says))
    refusals.raise_any()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "Read topic rain.snapshots"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "Read its consumer group"),
    ],
)
def test_a_missing_right_is_named(code, says):
    error = explained(KafkaError(code), "rain.snapshots", "k:1")
    assert type(error) is NotAuthorized
    assert f"does not let this process {says}" in str(error)
