"""The recorder's process: the store, its reader, its snapshots, its query server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from headrace.infra.service import Tickable, Wiring, run_service
from headrace.services.recorder.export import Exporter
from headrace.services.recorder.http import QueryServer
from headrace.services.recorder.queries import Queries
from headrace.services.recorder.recorder import Recorder
from headrace.services.recorder.store import Store


class Service:
    """The recorder with its query server."""

    def __init__(self, recorder: Recorder, server: QueryServer) -> None:
        self.tick, self.counts = recorder.tick, recorder.counts
        self._recorder, self._server = recorder, server

    def close(self) -> None:
        """Stop serving, then commit, publish a last snapshot and let go of the store."""
        self._server.close()
        self._recorder.close()


def build(wiring: Wiring) -> Sequence[Tickable]:
    """The parts; in one process with all others (`inline_jobs`) nothing runs in threads and nothing is served."""
    settings, inline = wiring.settings, wiring.inline_jobs
    pa.set_memory_pool(pa.system_memory_pool())  # 16 MB less than its own, which keeps what was freed
    store = Store(settings.store_path, memory_limit=settings.store_memory)
    clock: dict[str, Any] = {"clock_ms": wiring.clock_ms} if wiring.clock_ms else {}
    exporter = Exporter(
        store, settings.store_path.parent / "snapshots", wiring.bus, namespace=wiring.namespace, inline=inline, **clock
    )
    recorder = Recorder(wiring.bus, store, namespace=wiring.namespace, commit_s=settings.record_s, exporter=exporter)
    if inline:
        return [recorder]
    token = settings.query_token.get_secret_value() if settings.query_token else None
    server = QueryServer(Queries(store), settings.query_host, settings.query_port, token, recorder.health)
    return [Service(recorder, server)]


def main() -> None:
    run_service("recorder", build)


if __name__ == "__main__":
    main()
