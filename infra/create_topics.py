"""Topics as `schemas.topics` says: made where they are missing, checked where they exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from headrace.errors import TopicsWrong
from headrace.infra.acls import readers
from headrace.infra.bus import MAX_REQUEST_BYTES, Bus, TopicSpec
from headrace.schemas.policies import Policies
from headrace.schemas.topics import DAY_S, DLQ, Topic, control_topics, full_name, pipeline_topics

OUTAGE_S = 2 * DAY_S
FOR_EVER = -1
CREATE = "headrace topics --create"
LONG_MAX = 2**63 - 1


@dataclass(frozen=True)
class Problem:
    """A topic that is not as it must be: what is, what should be, and the command that mends it."""

    topic: str
    setting: str
    found: str
    wanted: str
    next: str

    def __str__(self) -> str:
        return f"{self.says}; {self.next}"

    @property
    def says(self) -> str:
        """What is wrong, without what mends it."""
        return f"{self.topic}: {self.setting} is {self.found}, must be {self.wanted}"


def create(bus: Bus, namespace: str = "") -> None:
    """Create the control topics that do not exist."""
    bus.create_topics(list(_specs(control_topics(), "", 1, None, namespace)))


def create_pipeline(bus: Bus, pipeline: str, partitions: int, policies: Policies, namespace: str = "") -> None:
    """Create the topics of one pipeline that do not exist. Raises TopicsWrong where those that exist are not right."""
    bus.create_topics(list(_specs(pipeline_topics(), pipeline, partitions, policies, namespace)))
    require_pipeline(bus, pipeline, partitions, policies, namespace)


def require_pipeline(bus: Bus, pipeline: str, partitions: int, policies: Policies, namespace: str = "") -> None:
    """Raise TopicsWrong where the topics of one pipeline are not there or not right."""
    problems = check_pipeline(bus, pipeline, partitions, policies, namespace)
    if problems:
        first, more = problems[0], len(problems) - 1
        raise TopicsWrong(f"{first.says}{f' (and {more} more settings of its topics)' if more else ''}", first.next)


def check(bus: Bus, namespace: str = "") -> list[Problem]:
    """What is wrong with the control topics."""
    return _problems(bus, _specs(control_topics(), "", 1, None, namespace))


def check_pipeline(
    bus: Bus, pipeline: str, partitions: int, policies: Policies | None = None, namespace: str = ""
) -> list[Problem]:
    """What is wrong with one pipeline's topics."""
    return _problems(bus, _specs(pipeline_topics(), pipeline, partitions, policies, namespace))


def names(pipelines: Iterable[str], namespace: str = "") -> list[str]:
    """The shared topics and those of these pipelines, as the broker knows them."""
    specs = [*_specs(control_topics(), "", 1, None, namespace)]
    for pipeline in pipelines:
        specs += _specs(pipeline_topics(), pipeline, 1, None, namespace)
    return [spec.name for spec in specs]


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


def _specs(
    topics: list[Topic], pipeline: str, partitions: int, policies: Policies | None, namespace: str
) -> Iterator[TopicSpec]:
    for topic in topics:
        name = full_name(topic.name, pipeline, namespace)
        yield TopicSpec(
            name, partitions if topic.partitions == "pipeline" else topic.partitions, _config(topic, policies)
        )
        if readers(topic):
            yield TopicSpec(name + DLQ, 1, _kept(FOR_EVER, append_time=False))


def _config(topic: Topic, policies: Policies | None) -> dict[str, str]:
    config = _kept(retention_ms(topic, policies), topic.append_time)
    if topic.retention_bytes is not None:
        config["retention.bytes"] = str(topic.retention_bytes)
        config["segment.bytes"] = str(topic.retention_bytes // 4)
    return config


def _kept(keep_ms: int, append_time: bool) -> dict[str, str]:
    config = {
        "cleanup.policy": "delete",
        "retention.ms": str(keep_ms),
        "message.timestamp.type": "LogAppendTime" if append_time else "CreateTime",
        # copied timestamps may be years old; segments that roll in record time would be hundreds
        "segment.ms": str(365 * DAY_S * 1000),
    }
    if not append_time:
        # a refused timestamp refuses its whole batch, and with it the producer; a broker's clock may run ahead
        config["message.timestamp.after.max.ms"] = str(LONG_MAX)
    return config


def _problems(bus: Bus, specs: Iterable[TopicSpec]) -> list[Problem]:
    existing = set(bus.topics())
    return [
        problem
        for spec in specs
        for problem in (
            _differences(bus, spec)
            if spec.name in existing
            else [Problem(spec.name, "the topic", "missing", "there", CREATE)]
        )
    ]


def _differences(bus: Bus, spec: TopicSpec) -> Iterator[Problem]:
    """What would lose, refuse or misplace records; what only costs space is the operator's own affair."""
    count = bus.partitions(spec.name)
    if count != spec.partitions:
        cure = "the count of a topic with records never changes: use a new pipeline name"
        yield Problem(spec.name, "the partition count", str(count), str(spec.partitions), cure)
    config = bus.topic_config(spec.name)

    def wrong(name: str, wanted: str, says: str = "") -> Problem:
        command = f"kafka-configs.sh --bootstrap-server … --alter --topic {spec.name} --add-config {name}={wanted}"
        return Problem(spec.name, name, config[name], says or wanted, command)

    if config["message.timestamp.type"] != spec.config["message.timestamp.type"]:
        yield wrong("message.timestamp.type", spec.config["message.timestamp.type"])
    if config["cleanup.policy"] != "delete":
        yield wrong("cleanup.policy", "delete")
    for name in ("retention.ms", "retention.bytes"):
        wanted, found = int(spec.config.get(name, FOR_EVER)), int(config[name])
        if found != FOR_EVER and (wanted == FOR_EVER or found < wanted):
            yield wrong(name, str(wanted), "-1 (for ever)" if wanted == FOR_EVER else f"at least {wanted}")
    if int(config["max.message.bytes"]) < MAX_REQUEST_BYTES:
        yield wrong("max.message.bytes", str(MAX_REQUEST_BYTES), f"at least {MAX_REQUEST_BYTES}")
