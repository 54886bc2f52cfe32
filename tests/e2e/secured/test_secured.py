"""A run on a cluster with TLS, passwords and an authorizer: each service has its own user and only its own rights."""

import itertools
import json

import pytest

from headrace import Client
from headrace.errors import NotAuthorized, Refused, Rejected
from headrace.infra.bus import NotAuthorized as BusNotAuthorized
from headrace.infra.bus import WriteForbidden
from headrace.infra.follow import Follower
from headrace.infra.kafka_bus import KafkaBus
from headrace.schemas.control import ModelUpdated, PromotionAsked
from headrace.schemas.stream import ExampleLabelled
from headrace.schemas.topics import DLQ
from headrace.services import SERVICES

pytestmark = pytest.mark.kafka
ROWS = 400
NAMESPACE = "sec-"
FIRST = itertools.count(10_000, 100)


def test_with_one_user_for_each_service_a_pipeline_goes_from_release_to_a_served_model(secured, monkeypatch, until):
    settings = secured.settings(monkeypatch)
    with Client(settings=settings) as client:
        client.publish_many("rain", secured.rows(0, ROWS))
        updates = client.subscribe("model-updates", "rain", start="earliest")
        first = next(record.event for record in updates)
        assert isinstance(first, ModelUpdated)
        assert (first.alias, first.version) == ("champion", 1)
        answer = until(lambda: served(client), limit_s=30, says="a served prediction")
        assert answer.served == "champion"
        with pytest.raises(Rejected, match="temperature"):
            client.predict("rain", {"temperature": 900.0, "wind": 10.0}, timeout_s=30)
        with pytest.raises(Refused):
            client.request(PromotionAsked(pipeline="rain", request="p1", by="test", version=1))
    until(lambda: rows_in_store(secured) == ROWS, limit_s=30, says="every label in the store")
    status = until(lambda: status_once_all_committed(secured), says="a first commit of every fold")
    assert all(service["alive"] and not service["restarts"] for service in status["services"].values()), status
    for command in (("reproduce", "rain@1"), ("reproduce", "rain", "--decisions")):  # exit status 0: equal
        secured.run(*command, **secured.as_operators)
    told = json.loads(secured.run("why", "rain@1", "--json").stdout)
    assert told["story"][-1]["event"] == "ModelUpdated"


def status_once_all_committed(secured):
    """A fold has no lag before its first commit, five seconds after it began."""
    status = json.loads(secured.run("status", "rain", "--json", **secured.as_operators).stdout)
    return status if all(lag is not None for lag in status["lag"].values()) else None


def test_so_far_the_broker_denied_nothing_and_each_right_was_used_or_waits_for_what_did_not_happen(secured, until):
    unused, denied = secured.what_the_authorizer_said()
    assert not denied
    waiting = {
        ("joiner", "Write", "sec-rain.data-rejected"),  # for a label past its TTL
        ("orchestrator", "Write", "sec-decisions"),  # for a training that it refuses
        ("evaluator", "Write", "sec-metrics"),  # for the end of a window
        ("validator", "Write", "sec-validation-results"),  # likewise
        ("monitor", "Write", "sec-drift-alerts"),  # for something to change
        ("recorder", "Write", "sec-store-snapshots"),  # for ten minutes to pass
        ("recorder", "Write", "sec-lineage"),  # likewise
    }
    services = {(*right[:2], right.name) for right in unused if right.principal in SERVICES}
    assert {right for right in services if not right[2].endswith(DLQ)} <= waiting


def test_a_user_reads_and_writes_only_what_is_listed_and_is_told_the_topic_and_the_right(secured, monkeypatch, until):
    settings = secured.settings(monkeypatch)
    with Client(settings=settings) as client:
        with pytest.raises(NotAuthorized, match=r"Read topic sec-rain\.snapshots; `headrace acls` lists") as refused:
            client.subscribe("snapshots", "rain", start="earliest")
        assert refused.value.next == "headrace acls"
        client.publish("rain", {"temperature": 1.0, "wind": 1.0}, id="before")
        forbidden = pytest.raises(NotAuthorized, match=r"Write topic sec-rain\.data-arrived")
        with secured.without("users", "Write", "sec-rain.data-arrived"), forbidden:
            until(lambda: not client.publish("rain", {"temperature": 1.0, "wind": 1.0}))
    bus = KafkaBus(secured.address, security=settings.confluent_security())
    producer = bus.producer("intruder")
    producer.produce("sec-model-updates", 0, b"rain", b"{}", [], 0)
    with pytest.raises(WriteForbidden, match=r"Write topic sec-model-updates"):
        producer.flush()
    producer.close()
    with pytest.raises(BusNotAuthorized, match=r"Read topic sec-rain\.snapshots"):
        Follower(bus, NAMESPACE, ["sec-rain.snapshots"])
    bus.close()
    told = secured.run("watch", "rain", "--topic", "snapshots", "--json", status=3).stderr
    assert json.loads(told)["error"].startswith("the broker does not let this process Read topic sec-rain.snapshots")


def test_a_wrong_password_or_an_unknown_certificate_is_one_clear_message_and_an_exit_status(secured, monkeypatch):
    wrong = {"HEADRACE_SASL_PASSWORD_FILE": "", "HEADRACE_SASL_PASSWORD": "guessed"}
    told = json.loads(secured.run("predict", "rain", "temperature=1", "wind=1", "--json", status=3, **wrong).stderr)
    assert told["error"].startswith(f"the broker at {secured.address} does not know user users, or the password")
    told = json.loads(secured.run("topics", "--check", "--json", status=3, **wrong).stderr)
    assert "does not know user users" in told["error"]
    elsewhere = wrong | {"HEADRACE_HOME": str(secured.folder / "elsewhere"), "HEADRACE_INSTANCE": "elsewhere"}
    lines = secured.run("-m", "headrace.services.validator", status=1, **elsewhere, HEADRACE_LOG_FORMAT="json").stderr
    (said,) = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    assert said["event"] == "failed"
    assert "does not know user validator" in said["reason"]
    assert "guessed" not in lines
    (secured.folder / "other").mkdir()
    secured.certificates(secured.folder / "other")
    other = {"HEADRACE_SSL_CA": str(secured.folder / "other" / "ca.pem")}
    for command in (("status", "--json"), ("topics", "--check", "--json")):
        told = json.loads(secured.run(*command, status=3, **other).stderr)
        assert "HEADRACE_SSL_CA names the certificates to trust" in told["error"]


def test_by_certificate_both_clients_are_who_it_says_and_have_the_rights_of_that_name(secured, monkeypatch, until):
    settings = secured.settings(monkeypatch, **secured.by_certificate)
    assert settings.ssl_cert == secured.folder / "users.pem"
    bus = KafkaBus(settings.bootstrap_servers, security=settings.confluent_security())
    with pytest.raises(BusNotAuthorized, match=r"Read topic sec-pipelines"):
        bus.offsets(("sec-pipelines", 0))
    secured.run("acls", "rain", "--apply", "--principal", "User:CN={principal},O=headrace", **secured.as_admin)
    assert until(lambda: topic_is_seen(bus, "sec-pipelines"), says="the right")
    bus.close()
    with Client(settings=settings) as client:
        assert client.predict("rain", {"temperature": 25.0, "wind": 10.0}, timeout_s=30).id
        with pytest.raises(NotAuthorized, match=r"Read topic sec-rain\.snapshots"):
            client.subscribe("snapshots", "rain")


def test_a_right_withdrawn_in_flight_ends_the_validator_before_it_commits_and_no_row_is_lost(
    secured, monkeypatch, until
):
    settings = secured.settings(monkeypatch, **secured.as_admin)
    bus = KafkaBus(secured.address, security=settings.confluent_security())
    before, given = secured.restarts("validator"), list(secured.rows(2_000, 600))

    def joined():
        records = secured.records(bus, "sec-rain.labelled-examples")
        return [r.event.prediction.id for r in records if isinstance(r.event, ExampleLabelled)]

    with Client(settings=settings) as client:
        start = secured.end(bus, "sec-rain.data-arrived")
        client.publish_many("rain", given[:400])
        with secured.without("validator", "Write", "sec-rain.data-validated"):
            client.publish_many("rain", given[400:])
            until(lambda: secured.restarts("validator") > before + 1, limit_s=60, says="its end, and again")
            assert "Write topic sec-rain.data-validated" in secured.log("validator")
            committed = secured.committed("validator-core", "sec-rain.data-arrived")
            written = {r.event.id for r in secured.records(bus, "sec-rain.data-validated") if hasattr(r.event, "id")}
            missing = [row["id"] for row in given if row["id"] not in written]
            assert missing, "the right was withdrawn too late to prove anything"
            arrived = secured.records(bus, "sec-rain.data-arrived")
            early = {r.event.id for r in arrived if start <= r.offset < committed and hasattr(r.event, "id")}
            assert not early & set(missing), "committed, though not written"
        until(lambda: set(joined()) >= {row["id"] for row in given}, limit_s=60, says="every row joined")
    bus.close()
    ours = [id for id in joined() if id in {row["id"] for row in given}]
    assert ours == [row["id"] for row in given if "label" in row], "each once, in the order published"


@pytest.mark.parametrize(
    ("service", "operation", "name"),
    [
        ("predictor", "Read", "sec-rain.data-validated"),
        ("joiner", "Write", "sec-rain.labelled-examples"),
        ("trainer", "Write", "sec-rain.snapshots"),
        ("sequencer", "Write", "sec-control-log"),
        ("recorder", "Read", "sec-rain.labelled-examples"),
        ("scheduler", "Write", "sec-rain.data-arrived"),
    ],
)
def test_a_service_without_one_of_its_rights_ends_says_which_and_goes_on_when_it_is_back(
    secured, monkeypatch, until, service, operation, name
):
    said, before = f"{operation} topic {name}", secured.restarts(service)
    assert said not in secured.log(service)
    client = Client(settings=secured.settings(monkeypatch))
    with client, secured.without(service, operation, name):
        client.publish_many("rain", secured.rows(next(FIRST), 20))
        until(lambda: secured.restarts(service) > before, limit_s=60, says=f"the end of {service}")
        until(lambda: said in secured.log(service), says=f"{said!r} in its log: {secured.log(service)[-1_500:]}")
    until(lambda: secured.is_steady(service), limit_s=90, says=f"{service} up again")


def served(client):
    answer = client.predict("rain", {"temperature": 25.0, "wind": 10.0}, timeout_s=30)
    return answer if answer.served else None


def rows_in_store(secured):
    (row,) = json.loads(secured.run("query", "SELECT count(*) AS n FROM labels", "--json").stdout)["rows"]
    return row["n"] if isinstance(row, dict) else row[0]


def topic_is_seen(bus, topic):
    try:
        return bus.partitions(topic) == 1
    except BusNotAuthorized:
        return False
