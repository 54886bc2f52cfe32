"""Who may do what on a broker with authorization: the rights of each service and of people, as the tables say.

Principals are the services by their names, `users` (programs that publish, read and ask through the SDK) and
`operators` (people who make topics, release pipelines and load models from a command line).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from headrace.errors import HeadraceError
from headrace.schemas.topics import DLQ, TOPICS, Topic, full_name
from headrace.services import FOLDS, SERVICES

if TYPE_CHECKING:
    from headrace.infra.settings import Settings

USERS, OPERATORS = "users", "operators"
PRINCIPALS = (*SERVICES, USERS, OPERATORS)
LEADER = "headrace-scheduler-__assignor-__leader"  # schedulers; who has the one partition of this topic leads
AT_ONCE = 200  # rights in one request to the broker


class Right(NamedTuple):
    """One principal may do one thing to one topic, or to every group whose name begins so."""

    principal: str
    operation: str
    kind: str  # topic or group
    name: str

    def row(self) -> dict[str, str]:
        """As `headrace acls --json` shows it."""
        return {"principal": self.principal, "operation": self.operation, self.kind: self.name}


def rights(pipelines: Sequence[str] = (), namespace: str = "") -> list[Right]:
    """Every right that is needed, none beyond; those on data topics for each of the pipelines.

    Without pipelines they are given once, with `<p>` in the place of a pipeline's name.
    """
    found: list[Right] = []
    for topic in TOPICS.values():
        for name in _names(topic, pipelines, namespace):
            found += _of_topic(topic, name)
    found += [Right("scheduler", operation, "topic", namespace + LEADER) for operation in ("Create", "Read")]
    members = {fold.service for fold in FOLDS} | {"scheduler"}
    for service in SERVICES:  # the recorder joins no group, but its client looks for the one that it is named after
        operation = "Read" if service in members else "Describe"
        found.append(Right(service, operation, "group", f"{namespace}headrace-{service}"))
    found.append(Right(OPERATORS, "Describe", "group", f"{namespace}headrace-"))
    return list(dict.fromkeys(found))


def readers(topic: Topic) -> list[str]:
    """The services whose folds read this topic: they need a place for what cannot be read."""
    return sorted({fold.service for fold in FOLDS if fold.input == topic.name})


def apply(settings: Settings, wanted: Iterable[Right], principal: Callable[[str], str]) -> int:
    """Give the rights, as the settings' user; `principal` says how the broker knows a name. Returns how many.

    A right that exists already is given again without effect; none is ever taken away.
    """
    from kafka import KafkaAdminClient
    from kafka.admin import (
        ACL,
        ACLOperation,
        ACLPermissionType,
        ACLResourcePatternType,
        ResourcePattern,
        ResourceType,
    )

    from headrace.infra.client_errors import asking
    from headrace.infra.subscription import broker_address, connect

    operations = {"DescribeConfigs": "DESCRIBE_CONFIGS"}
    acls = [
        ACL(
            principal(right.principal),
            "*",
            ACLOperation[operations.get(right.operation, right.operation.upper())],
            ACLPermissionType.ALLOW,
            ResourcePattern(
                ResourceType[right.kind.upper()],
                right.name,
                ACLResourcePatternType.PREFIXED if right.kind == "group" else ACLResourcePatternType.LITERAL,
            ),
        )
        for right in wanted
    ]
    address = broker_address(settings)
    admin = connect(KafkaAdminClient, settings, address)
    try:
        with asking("Alter", "the cluster"), _authorizing(address):
            for first in range(0, len(acls), AT_ONCE):
                failed = admin.create_acls(acls[first : first + AT_ONCE])["failed"]
                if failed:
                    raise failed[0]()
    finally:
        admin.close()
    return len(acls)


@contextmanager
def _authorizing(address: str) -> Iterator[None]:
    """Raise HeadraceError where the broker has no authorizer: everyone may do everything there."""
    from kafka.errors import SecurityDisabledError

    try:
        yield
    except SecurityDisabledError as error:
        what = f"the broker at {address} has no authorizer: everyone may do everything, so there are no rights to give"
        raise HeadraceError(what, "docs/security.md says how a broker with rights is set up") from error


def named(template: str) -> Callable[[str], str]:
    """How the broker knows a principal: `User:{principal}`, or a certificate's `User:CN={principal},O=…`."""
    if "{principal}" not in template or ":" not in template:
        raise HeadraceError(f"{template!r} names nobody: it must be like User:{{principal}}", "headrace acls --help")
    return lambda name: template.replace("{principal}", name)


def _names(topic: Topic, pipelines: Sequence[str], namespace: str) -> list[str]:
    if topic.per_pipeline and pipelines:
        return [full_name(topic.name, pipeline, namespace) for pipeline in pipelines]
    return [namespace + topic.name]


def _of_topic(topic: Topic, name: str) -> Iterator[Right]:
    """The rights on one topic and its dead-letter topic. Read and Write hold Describe."""
    folded_by = readers(topic)
    for service in topic.producers if _is_alive(topic) else ():
        if service in PRINCIPALS:
            yield Right(service, "Write", "topic", name)
    for service in topic.consumers if _is_alive(topic) else ():
        if service in PRINCIPALS:
            yield Right(service, "Read", "topic", name)
        if service == USERS:
            yield Right(OPERATORS, "Read", "topic", name)
    if topic.by_users:
        yield Right(OPERATORS, "Write", "topic", name)
    if topic.per_pipeline:
        yield Right("sequencer", "Describe", "topic", name)  # it looks whether a release's topics are there
    for service in folded_by:
        yield Right(service, "Write", "topic", name + DLQ)
    if folded_by:
        yield Right("recorder", "Read", "topic", name + DLQ)
    for made in (name, name + DLQ) if folded_by else (name,):
        for operation in ("Create", "Describe", "DescribeConfigs"):  # the last two are how `topics --check` looks
            yield Right(OPERATORS, operation, "topic", made)


def _is_alive(topic: Topic) -> bool:
    """Whether something that exists writes this topic or folds it: some parts of the table come later."""
    return bool(readers(topic)) or any(service in PRINCIPALS for service in topic.producers)
