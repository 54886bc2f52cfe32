"""What commands reach the system through: settings, the SDK's client, the bus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.infra.bus import Bus
    from headrace.infra.sdk import Client
    from headrace.infra.settings import Settings


def settings() -> Settings:
    """The settings of this folder and environment. Raises SettingsError."""
    from headrace.infra.settings import Settings

    return Settings()


def store() -> Settings:
    """The settings by which this folder's recorder is asked.

    Raises StoreUnreachable where it is down while other services of the folder run: at its port may be another's.
    """
    from headrace.infra import processes
    from headrace.infra.query_client import StoreUnreachable

    found = settings()
    recorder = processes.states(found.home)["recorder"]
    if processes.is_running(found.home) and recorder.get("pid") is not None and not recorder["alive"]:
        raise StoreUnreachable(f"this folder's recorder does not run; {found.home}/logs/recorder.log says why")
    return found


@contextmanager
def client(timeout_s: float = 30.0) -> Iterator[Client]:
    """The SDK's client; `timeout_s` is how long the broker may take to acknowledge. Raises Unreachable."""
    from headrace.infra.sdk import Client

    with Client(timeout_s=timeout_s) as made:
        yield made


@contextmanager
def bus() -> Iterator[tuple[Bus, Settings]]:
    """The Kafka bus that services use, and the settings. Raises Unreachable where no broker answers."""
    from headrace.errors import Unreachable
    from headrace.infra.client_errors import NO_BROKER
    from headrace.infra.kafka_bus import KafkaBus
    from headrace.infra.settings import Settings
    from headrace.infra.subscription import broker_address, listens

    found = Settings()
    address = broker_address(found)
    if not listens(address):
        raise Unreachable(f"no broker answers at {address}", NO_BROKER)
    made = KafkaBus(
        address, linger_ms=0, security=found.confluent_security(), client_id=f"{found.namespace}headrace-cli"
    )
    try:
        yield made, found
    finally:
        made.close()
