"""What kafka-python's errors mean: an unknown user, a certificate that is not trusted, a right that is missing."""

import pytest
from kafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MetadataEmptyBrokerList,
    SaslAuthenticationFailedError,
    TopicAuthorizationFailedError,
)

from headrace.cli.errors import tell
from headrace.errors import NotAuthenticated, NotAuthorized, NotReleased, Unreachable
from headrace.infra.client_errors import asking, check_released, told, unconnected
from headrace.infra.settings import Settings

END = KafkaTimeoutError("Unable to bootstrap")
HUNG_UP = KafkaConnectionError("socket disconnected")
SASL = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "ann", "sasl_password": "p"}


@pytest.mark.parametrize(
    ("said", "security", "kind", "says"),
    [
        ([HUNG_UP, SaslAuthenticationFailedError("no"), END], SASL, NotAuthenticated, "does not know user ann"),
        ([HUNG_UP, HUNG_UP, END], SASL, NotAuthenticated, "does not know user ann"),
        ([HUNG_UP, HUNG_UP, END], {}, Unreachable, "no broker answers at k:1"),
        ([KafkaConnectionError("refused"), HUNG_UP, END], SASL, Unreachable, "no broker answers at k:1"),
        ([OSError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed")], SASL, NotAuthenticated, "HEADRACE_SSL_CA"),
        ([END], SASL, Unreachable, "no broker answers at k:1"),
    ],
)
def test_a_client_that_does_not_come_about_says_whose_fault_it_is(said, security, kind, says):
    error = unconnected(END, said, Settings(**security), "k:1")
    assert type(error) is kind
    assert says in str(error)


@pytest.mark.parametrize(
    "error",
    [
        TopicAuthorizationFailedError({"rain.data-arrived"}),
        KafkaError(f"Unexpected error in InitProducerIdResponse: {ClusterAuthorizationFailedError()}"),
    ],
)
def test_a_record_that_may_not_be_written_names_the_topic_and_the_right(error):
    found = told(error, "k:1", "rain.data-arrived")
    assert type(found) is NotAuthorized
    assert "Write topic rain.data-arrived" in str(found)
    assert found.next == "headrace acls"


@pytest.mark.parametrize(
    ("name", "says", "helps"),
    [
        ("gone", "'gone' was retired, and a retired name is never used again; released are rain", "NEW_NAME"),
        ("snow", "no pipeline 'snow' is released; released are rain", "pipelines/snow.py"),
    ],
)
def test_of_a_retired_name_no_command_releases_it_again(name, says, helps):
    with pytest.raises(NotReleased, match=says) as error:
        check_released(name, ["rain"], {"gone"})
    assert helps in error.value.next


def test_a_broker_that_serves_nothing_is_told_without_its_list_of_topics():
    wordy = MetadataEmptyBrokerList("MetadataResponse(" + 30_000 * "x")
    with (
        pytest.raises(Unreachable, match=r"serves nothing now \(topic rain.metrics\)"),
        asking("Read", "topic rain.metrics"),
    ):
        raise wordy
    assert len(tell(wordy).message) < 400
