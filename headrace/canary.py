"""Which units a challenger serves in its canary: a hash decides, so a unit stays with its arm.

A unit is what must not change sides from one request to the next: the entity where a pipeline has entities, else the
example. Its place depends on the rollout (the challenger's run) and on itself alone: who is served by the challenger at
a small share is at every larger one, and two rollouts draw anew.
"""

from __future__ import annotations

from hashlib import blake2b


def place_of(run: str, unit: str) -> float:
    """A unit's place in a run's rollout, uniform in [0, 1): the challenger serves it where this is below the share.

    >>> place_of("r1", "station 7") == place_of("r1", "station 7") != place_of("r2", "station 7")
    True
    """
    digest = blake2b(f"{len(run)} {run}{unit}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def unit_of(id: str, entity: str | None) -> str:
    """The unit of an example."""
    return id if entity is None else entity
