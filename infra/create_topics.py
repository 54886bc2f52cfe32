"""Topics as `schemas.topics` says: made where they are missing, checked where they exist."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.errors import TopicsWrong
from headrace.infra.bus import Bus, TopicSpec
from headrace.schemas.policies import Policies
from headrace.schemas.topics import DAY_S, DLQ, TOPICS, Topic, control_topics, full_name, pipeline_topics
from headrace.services import FOLDS, SERVICES

OUTAGE_S = 2 * DAY_S
FOR_EVER = -1
CREATE = "headrace topics --create"


@dataclass(frozen=True)
class Problem:
    """A topic that is not as it must be: what is, what should be, and the command that mends it."""

    topic: str
    setting: str
    found: str
    wanted: str
    next: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.found}, must be {self.wanted}; {self.next}"


def create(bus: Bus, namespace: str = "") -> None:
    """Create the control topics that do not exist."""
    bus.create_topics([
        spec for topic in control_topics() for spec in _specs(topic, full_name(topic.name, namespace=namespace), 1, None)
    ])


def create_pipeline(bus: Bus, pipeline: str, partitions: int, policies: Policies, namespace: str = "") -> None:
    """Create the topics of one pipeline that do not exist. Raises TopicsWrong where those that exist are not right."""
    bus.create_topics([
        spec
        for topic in pipeline_topics()
        for spec in _specs(topic, full_name(topic.name, pipeline, namespace), partitions, policies)
    ])
    require_pipeline(bus, pipeline, partitions, policies, namespace)


def require_pipeline(bus: Bus, pipeline: str, partitions: int, policies: Policies, namespace: str = "") -> None:
    """Raise TopicsWrong where the topics of one pipeline are not there or not right."""
    problems = check_pipeline(bus, pipeline, partitions, policies, namespace)
    if problems:
        raise TopicsWrong("; ".join(str(problem) for problem in problems), "headrace topics --check")


def check(bus: Bus, namespace: str = "") -> list[Problem]:
    """What is wrong with the control topics."""
    return [
        problem
        for topic in control_topics()
        for problem in _check(bus, topic, full_name(topic.name, namespace=namespace), 1, None)
    ]


def check_pipeline(
    bus: Bus, pipeline: str, partitions: int, policies: Policies | None = None, namespace: str = ""
) -> list[Problem]:
    """What is wrong with one pipeline's topics."""
    return [
        problem
        for topic in pipeline_topics()
        for problem in _check(bus, topic, full_name(topic.name, pipeline, namespace), partitions, policies)
    ]


def retention_ms(topic: Topic, policies: Policies | None) -> int:
    """How long a topic keeps a record, -1 for ever.

    Derived topics carry copied timestamps, so they keep at least as long as their input, an outage and the label
    TTL: what was not read yet must not be deleted as old.
    """
    if topic.retention_s is None:
        return FOR_EVER
    if topic.retention_s:
        return topic.retention_s * 1000
    policies = policies or Policies()
    seconds = policies.retention.data_s
    if topic.name != "<p>.data-arrived":
        seconds += OUTAGE_S + policies.labels.ttl_s + policies.labels.grace_s
    return int(seconds * 1000)


def acls() -> list[dict[str, str]]:
    """Who may do what: one row a service (or `users`), operation and topic or group; `<p>` stands for a prefix."""
    rows = []
    for topic in TOPICS.values():
        for service in topic.producers:
            rows.append({"principal": service, "operation": "Write", "topic": topic.name})
        for service in topic.consumers:
            rows.append({"principal": service, "operation": "Read", "topic": topic.name})
        for service in sorted({fold.service for fold in FOLDS if fold.input == topic.name}):
            rows.append({"principal": service, "operation": "Write", "topic": topic.name + DLQ})
    for service in SERVICES:
        rows.append({"principal": service, "operation": "Read", "group": f"headrace-{service}-"})
    return rows


def _specs(topic: Topic, name: str, partitions: int, policies: Policies | None) -> Iterable[TopicSpec]:
    count = partitions if topic.partitions == "pipeline" else topic.partitions
    yield TopicSpec(name, count, _config(topic, policies))
    if any(fold.input == topic.name for fold in FOLDS):
        yield TopicSpec(name + DLQ, 1, {"retention.ms": str(FOR_EVER), "cleanup.policy": "delete"})


def _config(topic: Topic, policies: Policies | None) -> dict[str, str]:
    config = {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms(topic, policies)),
        "message.timestamp.type": "LogAppendTime" if topic.append_time else "CreateTime",
        # copied timestamps may be years old; segments that roll in record time would be hundreds
        "segment.ms": str(365 * DAY_S * 1000),
    }
    if topic.retention_bytes is not None:
        config["retention.bytes"] = str(topic.retention_bytes)
        config["segment.bytes"] = str(topic.retention_bytes // 4)
    return config


def _check(bus: Bus, topic: Topic, name: str, partitions: int, policies: Policies | None) -> Iterable[Problem]:
    count = partitions if topic.partitions == "pipeline" else topic.partitions
    found = bus.partitions(name)
    if found is None:
        yield Problem(name, "the topic", "missing", "there", CREATE)
        return
    if found != count:
        yield Problem(name, "the partition count", str(found), str(count), "a count never changes: use a new pipeline name")
    config = bus.topic_config(name)
    wanted_type = "LogAppendTime" if topic.append_time else "CreateTime"
    setting = config.get("message.timestamp.type", "CreateTime")
    if setting != wanted_type:
        yield Problem(name, "message.timestamp.type", setting, wanted_type, _alter(name, "message.timestamp.type", wanted_type))
    if "compact" in config.get("cleanup.policy", "delete"):
        yield Problem(name, "cleanup.policy", config["cleanup.policy"], "delete", _alter(name, "cleanup.policy", "delete"))
    wanted = retention_ms(topic, policies)
    keeps = int(config.get("retention.ms", "604800000"))
    if keeps != FOR_EVER and (wanted == FOR_EVER or keeps < wanted):
        says = "-1 (for ever)" if wanted == FOR_EVER else f"at least {wanted}"
        yield Problem(name, "retention.ms", str(keeps), says, _alter(name, "retention.ms", str(wanted)))


def _alter(topic: str, name: str, value: str) -> str:
    return f"kafka-configs.sh --alter --topic {topic} --add-config {name}={value}"
