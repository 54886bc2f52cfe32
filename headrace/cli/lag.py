"""How far each fold is behind its topics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from headrace.schemas.topics import full_name
from headrace.services import FOLDS

if TYPE_CHECKING:
    from headrace.infra.sdk import Client


def lags(client: Client, pipelines: Iterable[str]) -> dict[str, int | None]:
    """How many records each fold's group is behind, over all its inputs; None where it has read nothing yet."""
    from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

    from headrace.infra.subscription import connect

    namespace, names = client.settings.namespace, list(pipelines)
    groups = {fold.id: f"{namespace}headrace-{fold.id}" for fold in FOLDS}
    admin = connect(KafkaAdminClient, client.settings, client.address)
    consumer = connect(KafkaConsumer, client.settings, client.address, enable_auto_commit=False)
    try:
        committed = {
            group: offsets
            for group, offsets in admin.list_group_offsets(sorted(set(groups.values()))).items()
            if offsets
        }
        found: dict[str, int | None] = {}
        for one in FOLDS:
            topics = [full_name(one.input, name, namespace) for name in (names if "<p>" in one.input else [""])]
            places = [
                TopicPartition(topic, partition)
                for topic in topics
                for partition in consumer.partitions_for_topic(topic) or ()
            ]
            offsets = committed.get(groups[one.id])
            if offsets is None or not places:
                found.setdefault(one.id, None)
                continue
            ends, starts = consumer.end_offsets(places), consumer.beginning_offsets(places)
            behind = sum(
                max(0, ends[place] - (offsets[place].offset if place in offsets else starts[place])) for place in places
            )
            found[one.id] = (found.get(one.id) or 0) + behind
        return found
    finally:
        admin.close()
        consumer.close()
