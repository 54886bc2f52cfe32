"""Which partition a key goes to: murmur2, as Java, kafka-python and librdkafka's `murmur2_random` compute it."""

from __future__ import annotations

from kafka.partitioner.default import murmur2


def partition_of(key: bytes | None, partitions: int) -> int:
    """The partition of a key; without one the first."""
    if partitions == 1 or key is None:
        return 0
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
