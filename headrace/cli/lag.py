"""How far each fold is behind its topics."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from headrace.schemas.topics import full_name
from headrace.services import FOLDS, Fold

if TYPE_CHECKING:
    from headrace.infra.sdk import Client

TRAINER = "trainer-core"


def lags(client: Client, pipelines: Iterable[str], learning: Collection[str]) -> dict[str, int | None]:
    """How many records each fold's group is behind, over all its inputs; None where it has read nothing yet.

    Without a run that learns, the trainer stays where its last one ended and is behind nothing: `learning` have one.
    """
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
            topics = inputs(one, names, learning, namespace)
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


def inputs(fold: Fold, pipelines: Iterable[str], learning: Collection[str], namespace: str = "") -> list[str]:
    """The full names of the topics that a fold is to read to their ends."""
    if "<p>" not in fold.input:
        return [full_name(fold.input, namespace=namespace)]
    names = pipelines if fold.id != TRAINER else [name for name in pipelines if name in learning]
    return [full_name(fold.input, name, namespace) for name in names]
