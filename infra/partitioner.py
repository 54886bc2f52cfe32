"""Which partition a key goes to: murmur2, as Java, kafka-python and librdkafka's `murmur2_random` compute it."""

from __future__ import annotations


def partition_of(key: bytes | None, partitions: int) -> int:
    """The partition of a key; without one the first."""
    if partitions == 1 or key is None:
        return 0
    from kafka.partitioner.default import murmur2  # with all of kafka-python, 0.1 s, which most have no need of

    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
