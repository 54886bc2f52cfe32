"""The rights on a broker with authorization follow from the tables: all that is needed, and nothing more."""

import pytest

from headrace.errors import HeadraceError
from headrace.infra.acls import PRINCIPALS, Right, named, readers, rights
from headrace.schemas.topics import DLQ, TOPICS, full_name
from headrace.services import FOLDS, SERVICES

ROWS = rights(["rain", "snow"], "t-")


def may(principal, operation):
    return {right.name for right in ROWS if right[:3] == (principal, operation, "topic")}


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: f"{fold.id}:{fold.input}")
def test_each_fold_may_read_what_it_folds_and_write_what_it_emits_and_what_it_cannot_read(fold):
    for pipeline in ("rain", "snow"):
        assert full_name(fold.input, pipeline, "t-") in may(fold.service, "Read")
        assert full_name(fold.input, pipeline, "t-") + DLQ in may(fold.service, "Write")
        assert {full_name(table, pipeline, "t-") for table in fold.tables} <= may(fold.service, "Read")
        assert {full_name(output, pipeline, "t-") for output in fold.outputs} <= may(fold.service, "Write")


def test_a_service_writes_what_its_folds_emit_and_nothing_else():
    for service in {fold.service for fold in FOLDS}:
        folds = [fold for fold in FOLDS if fold.service == service]
        written = {output for fold in folds for output in fold.outputs} | {fold.input + DLQ for fold in folds}
        if service == "trainer":
            written |= {"<p>.snapshots"}  # its shell writes them
        assert may(service, "Write") == {full_name(name, p, "t-") for name in written for p in ("rain", "snow")}


ASKED = {"t-operator-requests", "t-lineage"}


def test_users_publish_and_ask_and_never_write_what_decides():
    assert may("users", "Write") == {"t-rain.data-arrived", "t-snow.data-arrived", *ASKED}
    assert not {name for name in may("users", "Read") if "snapshots" in name} - {"t-store-snapshots"}
    assert {name for name in may("operators", "Write") if "." not in name} == ASKED


def test_groups_are_prefixes_within_the_namespace_and_only_ones_own():
    groups = {(right.principal, right.operation, right.name) for right in ROWS if right.kind == "group"}
    assert groups == {(service, "Read", f"t-headrace-{service}") for service in SERVICES if service != "recorder"} | {
        ("recorder", "Describe", "t-headrace-recorder"),
        ("operators", "Describe", "t-headrace-"),
    }
    assert not [(a, b) for a in SERVICES for b in SERVICES if a != b and a.startswith(b)]


def test_no_right_reaches_beyond_the_namespace_and_none_is_listed_twice():
    assert all(right.name.startswith("t-") for right in ROWS)
    assert len(ROWS) == len(set(ROWS))
    assert {right.principal for right in ROWS} == set(PRINCIPALS)
    assert Right("users", "Write", "topic", "<p>.data-arrived") in rights()


def test_the_recorder_may_read_every_dead_letter_topic_and_people_make_them():
    dead = {
        full_name(name, p, "t-") + DLQ for name, topic in TOPICS.items() if readers(topic) for p in ("rain", "snow")
    }
    assert dead == {name for name in may("recorder", "Read") if name.endswith(DLQ)}
    assert dead <= may("operators", "Create")
    assert not {name for service in SERVICES for name in may(service, "Create")} - {
        "t-headrace-scheduler-__assignor-__leader"
    }


def test_a_principal_is_named_as_the_broker_knows_it_and_a_name_for_nobody_is_refused():
    assert named("User:CN={principal},O=acme")("validator") == "User:CN=validator,O=acme"
    for template in ("validator", "User:validator", "{principal}"):
        with pytest.raises(HeadraceError, match="names nobody"):
            named(template)
