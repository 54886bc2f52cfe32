"""Writes due ticks to Kafka with Faust: one leader among all schedulers, timers, nothing kept.

Faust has an event loop of its own, so it runs in a thread; the service's loop only watches over it. What was due
while no scheduler led is not made up for: who folds the ticks derives what was missed from the next one.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import faust
from aiokafka.errors import TopicAuthorizationFailedError
from faust.tables import TableManager

from headrace.infra import words
from headrace.infra.acls import LEADER
from headrace.infra.bus import BusError, NotAuthorized, TopicSpec
from headrace.infra.follow import Pipelines
from headrace.infra.service import Wiring
from headrace.infra.settings import Settings
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.stream import Tick
from headrace.schemas.topics import full_name
from headrace.services.scheduler.schedule import Due, due_at, due_ticks

LOOKS_A_TICK = 4  # how often a leader looks whether a tick is due, at most once a second
LONGEST_LOOK_S = 1.0
SESSION_S, HEARTBEAT_S = 6, 1  # a killed leader is replaced after 6 s
SEND_S, STOP_S = 10.0, 10.0


class Ticker:
    """The scheduler's one part: ticks while it leads."""

    def __init__(self, wiring: Wiring) -> None:
        """Start Faust in a thread of its own; it stops with `close`."""
        for name in ("faust", "mode", "aiokafka"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._settings, self._key = wiring.settings, wiring.key
        # Faust would make it with one copy, and without the broker that has this nobody would lead
        wiring.bus.create_topics([TopicSpec(wiring.namespace + LEADER, 1, {})])
        self._pipelines = Pipelines(wiring.bus, wiring.namespace)
        self._app: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_asked: asyncio.Event
        self._last: float = 0.0
        self._failure: BaseException | None = None
        self.ticks = 0
        self.leads = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faust", daemon=True)
        self._thread.start()

    def tick(self, timeout_s: float = 0.0) -> int:
        """Watch over Faust. Raises BusError where it failed."""
        if self._ended.wait(timeout_s):
            raise BusError(f"the scheduler's Faust app ended: {self._failure or 'without a reason'}") from self._failure
        return 0

    def close(self) -> None:
        """Leave the group and stop."""
        if self._loop is not None and not self._ended.is_set():
            self._loop.call_soon_threadsafe(self._stop_asked.set)
        self._thread.join(STOP_S)
        self._pipelines.close()

    def counts(self) -> dict[str, Any]:
        """Numbers for /metrics."""
        return {"scheduler": {"leads": int(self.leads), "ticks": self.ticks}}

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._ended.set()

    async def _serve(self) -> None:
        self._loop, self._stop_asked = asyncio.get_running_loop(), asyncio.Event()
        self._app = app = faust_app(self._settings)
        look_s = min(self._settings.tick_s / LOOKS_A_TICK, LONGEST_LOOK_S)

        async def look() -> None:
            self.leads = bool(app.is_leader())
            self._pipelines.poll()  # also while another one leads: the table is at hand when the lead changes
            due = due_at(time.time(), self._settings.tick_s)
            if self.leads and due.timestamp() > self._last:
                self._last = due.timestamp()
                retired = self._pipelines.retired
                in_force = [event for name, event in self._pipelines.released.items() if name not in retired]
                for one in due_ticks(due, in_force, self._key):
                    await self._send(one)

        app.timer(interval=look_s)(look)
        app.on_rebalance_complete.connect(lambda app, **_: look())  # a timer's first turn is one interval later
        await app.start()
        asked = asyncio.ensure_future(self._stop_asked.wait())
        crashed = asyncio.ensure_future(app.wait_until_stopped())
        await asyncio.wait({asked, crashed}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        await app.stop()
        if app.crash_reason is not None:
            raise app.crash_reason

    async def _send(self, due: Due) -> None:
        at_s = due.tick.due.timestamp()
        topic = full_name(due.topic, due.pipeline, self._settings.namespace)
        producer = await self._app.maybe_start_producer()
        sent = producer.send_and_wait(
            topic,
            due.pipeline.encode(),
            encode(due.tick),
            due.partition,
            at_s,
            [
                (name, value if isinstance(value, bytes) else value.encode())
                for name, value in headers_of(TYPE_OF[Tick], f"/scheduler/{due.tick.schedule}", int(at_s * 1000))
            ],
        )
        try:
            await asyncio.wait_for(sent, SEND_S)
        except TopicAuthorizationFailedError as error:
            raise NotAuthorized(words.not_authorized("Write", f"topic {topic}")) from error
        except TimeoutError as error:
            raise BusError(
                f"no tick could be written to {topic} within {SEND_S:g} s; `headrace topics --check` looks at it"
            ) from error
        self.ticks += 1


class NoTables(TableManager):
    """Faust waits a second at its start for tables to be declared. There are none, and ticks wait for a new leader."""

    async def sleep(self, n: Any, **more: Any) -> None:
        """Not at all."""


def faust_app(settings: Settings) -> Any:
    """A Faust app for timers only: no tables, no web server; the leader's topic is the only one it makes."""
    folder: Path = settings.state_dir / settings.instance / "scheduler" / "faust"
    folder.mkdir(parents=True, exist_ok=True)
    return faust.App(
        f"{settings.namespace}headrace-scheduler",
        broker=[f"kafka://{server}" for server in settings.bootstrap_servers.split(",")],
        broker_credentials=_credentials(settings),
        consumer_group_instance_id=settings.instance,  # a killed one leads again at once, not after its session
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_request_timeout=30,
        producer_acks=-1,
        web_enabled=False,
        datadir=str(folder),
        store="memory://",
        TableManager=NoTables,
        logging_config={"version": 1, "disable_existing_loggers": False},
    )


def _credentials(settings: Settings) -> Any:
    if settings.security_protocol == "PLAINTEXT":
        return None
    context = None
    if settings.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=str(settings.ssl_ca) if settings.ssl_ca else None)
        if settings.ssl_cert is not None:
            secret = settings.ssl_key_password
            context.load_cert_chain(
                str(settings.ssl_cert),
                str(settings.ssl_key) if settings.ssl_key else None,
                secret.get_secret_value() if secret else None,
            )
    if settings.security_protocol == "SSL":
        return faust.SSLCredentials(context)
    password = settings.sasl_password.get_secret_value() if settings.sasl_password else None
    return faust.SASLCredentials(
        username=settings.sasl_username, password=password, mechanism=settings.sasl_mechanism, ssl_context=context
    )
