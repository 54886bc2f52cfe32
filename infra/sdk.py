"""What programs use: publish examples and labels, read every topic as typed events, ask, load the served model.

kafka-python, pure Python: `pip install headrace` brings it. Only `model` needs more: `headrace[services]`.
"""

from __future__ import annotations

import itertools
import time as clock
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from headrace.errors import InvalidInput, Missing, NoAnswer, Refused, Rejected
from headrace.infra.client_errors import not_released, told
from headrace.infra.settings import Settings
from headrace.infra.subscription import Start, Subscription, broker_address, connect, wait_for_markers
from headrace.infra.user_events import example, from_row, label_for
from headrace.schemas.codec import TYPE_OF, Event, encode, headers_of
from headrace.schemas.control import ControlEvent, LineageRecorded, PipelineReleased, PipelineRetired, RequestRefused
from headrace.schemas.record import Record
from headrace.schemas.stream import ExampleArrived, Label, LabelArrived, PredictionMade, RecordRejected
from headrace.schemas.topics import TOPICS, full_name

Row = ExampleArrived | LabelArrived | Mapping[str, Any]
PIPELINED = 5_000  # records on their way at once: enough to fill every request, little to send again after an error
ANSWERS = ("pipelines", "decisions", "training-requests", "model-updates")


class Client:
    """A connection to Headrace. Open it with `with`, or call `close` at the end.

    The broker is the one of `KAFKA_BOOTSTRAP_SERVERS`, else the one that `headrace up` runs in this folder. One
    client may publish from many threads; reading (`subscribe`, `predict`, `request`) is for one thread each.
    """

    def __init__(
        self, bootstrap_servers: str | None = None, *, settings: Settings | None = None, timeout_s: float = 30.0
    ) -> None:
        """Connect; `timeout_s` is how long the broker may take to acknowledge a record.

        Raises Unreachable, and SettingsError for a setting that does not exist.
        """
        from kafka import KafkaProducer

        self.settings = settings or Settings()
        self._timeout_s = timeout_s
        self.address = bootstrap_servers or broker_address(self.settings)
        self._source = f"/client/{uuid.uuid4().hex[:12]}"
        self._sequence = itertools.count(1)
        self._ready: set[str] = set()
        self.retired: set[str] = set()  # the names that `pipelines` left out as retired
        self._predictions: dict[str, Subscription] = {}
        self._producer = connect(
            KafkaProducer,
            self.settings,
            self.address,
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            linger_ms=2,
            batch_size=64 << 10,
            delivery_timeout_ms=int(timeout_s * 1000),
            request_timeout_ms=int(timeout_s * 500),
            max_block_ms=int(timeout_s * 1000),
            allow_auto_create_topics=False,
        )

    # --- publishing ---------------------------------------------------------------------------------------

    def publish(
        self,
        pipeline: str,
        features: Mapping[str, Any],
        *,
        id: str | None = None,
        time: datetime | None = None,
        entity: str | None = None,
        label: Label | None = None,
        history: bool = False,
    ) -> str:
        """Publish one example and return its id once the broker acknowledged it.

        `id` is made here where none is given, so that sending again is harmless; `time` is now. Columns may have
        their own names or their aliases; None and NaN count as absent. `history` is learned, never served, scored or
        alarmed about. Raises NotReleased, Unreachable, InvalidInput.
        """
        event = example(features, id=id, time=time, entity=entity, label=label, history=history)
        topic = self._topic(pipeline)
        self._acknowledged(self._send(topic, event), topic)
        return event.id

    def publish_label(
        self, pipeline: str, *, id: str, label: Label, entity: str | None = None, time: datetime | None = None
    ) -> None:
        """Publish the answer to an example; returns once the broker acknowledged it. Raises as `publish` does."""
        event = label_for(id, label, entity=entity, time=time)
        topic = self._topic(pipeline)
        self._acknowledged(self._send(topic, event), topic)

    def publish_many(self, pipeline: str, rows: Iterable[Row], *, progress: Callable[[int], None] | None = None) -> int:
        """Publish rows in order without waiting for each; returns how many the broker acknowledged: all.

        A row is an ExampleArrived, a LabelArrived, or a mapping with what `publish` takes (`features`, `id`, …;
        without `features` it is a label). `progress` gets the number acknowledged so far. Raises as `publish`
        does; what it had acknowledged by then is what `progress` said last.
        """
        topic = self._topic(pipeline)
        flying: deque[Any] = deque()
        done = 0
        for row in rows:
            flying.append(self._send(topic, row if isinstance(row, ExampleArrived | LabelArrived) else from_row(row)))
            before = done
            while flying and (flying[0].is_done or len(flying) > PIPELINED):
                self._acknowledged(flying.popleft(), topic)
                done += 1
            if progress is not None and done > before:
                progress(done)
        while flying:
            self._acknowledged(flying.popleft(), topic)
            done += 1
            if progress is not None and (done % 500 == 0 or not flying):
                progress(done)
        return done

    def record_lineage(self, event: LineageRecorded) -> None:
        """Publish an OpenLineage run event (`headrace.schemas.lineage`); returns once the broker acknowledged it."""
        run = event.run_event["run"]["runId"]
        topic = self._full("lineage", "")
        self._acknowledged(self._send(topic, event, run.encode()), topic)

    # --- reading ------------------------------------------------------------------------------------------

    def subscribe(
        self,
        topic: str | Sequence[str],
        pipeline: str = "",
        *,
        start: Start = "latest",
        types: Sequence[type] | None = None,
        follow: bool = True,
        last: int | None = None,
    ) -> Iterator[Record]:
        """The records of a topic (or several) as they come, each with `.event`, `.known_ms`, `.offset`; no repeats.

        `topic` is a name such as "predictions" or "model-updates"; of a shared topic, `pipeline` picks its part.
        The place is fixed before this returns. `follow=False` ends at the present end; `last` starts so many
        records before the ends. Raises Missing for a topic that does not exist, Unreachable.
        """
        subscription = self._subscription([topic] if isinstance(topic, str) else topic, pipeline, start, last)
        return subscription.chosen(pipeline, tuple(types or ()), follow)

    def pipelines(self) -> dict[str, PipelineReleased]:
        """The definitions in force by pipeline name; retired ones are left out, and there are none before `up`."""
        released: dict[str, PipelineReleased] = {}
        try:
            records = self.subscribe("pipelines", start="earliest", follow=False)
        except Missing:
            return released
        for record in records:
            if isinstance(record.event, PipelineReleased):
                released[record.event.pipeline] = record.event
            elif isinstance(record.event, PipelineRetired):
                released.pop(record.event.pipeline, None)
                self.retired.add(record.event.pipeline)
        return released

    def predict(
        self,
        pipeline: str,
        features: Mapping[str, Any],
        *,
        timeout_s: float = 10.0,
        id: str | None = None,
        time: datetime | None = None,
        entity: str | None = None,
    ) -> PredictionMade:
        """Publish an example and wait for its prediction. Raises Rejected with the reasons, NoAnswer, as `publish`."""
        topic = self._topic(pipeline)
        event = example(features, id=id, time=time, entity=entity)
        answers = self._predictions.get(pipeline)
        if answers is None:
            answers = self._subscription(["predictions", "data-rejected"], pipeline, "latest", None)
            self._predictions[pipeline] = answers
        answers.skip_to_end()
        written = self._acknowledged(self._send(topic, event), topic)
        place = f"{pipeline}.data-arrived", written.partition, written.offset
        body, deadline = encode(event), clock.monotonic() + timeout_s
        while (left := deadline - clock.monotonic()) > 0:
            for record in answers.poll(left):
                answer = record.event
                if isinstance(answer, PredictionMade) and (answer.id, answer.entity) == (event.id, event.entity):
                    return answer
                if isinstance(answer, RecordRejected):
                    # the id may be a label's too, or not have been read; the broker may not have told the place
                    is_body = answer.id == event.id and body.startswith(answer.value)
                    if is_body or (answer.topic, answer.partition, answer.offset) == place:
                        raise Rejected("; ".join(problem.message for problem in answer.problems))
        raise NoAnswer(
            f"no prediction for {event.id} within {timeout_s:g} s (was this id published before? a repeat gets none)",
            "headrace status",
        )

    def request(self, event: ControlEvent, *, timeout_s: float = 30.0) -> ControlEvent:
        """Publish an operator's request (TrainingAsked, RetireAsked, …) and return what answers it.

        Raises Refused with the reason, NoAnswer, Unreachable.
        """
        request = getattr(event, "request", None)
        if not request:
            raise ValueError(f"{type(event).__name__} carries no request id, so nothing could answer it")
        with self._subscription(ANSWERS, "", "latest", None) as answers:
            topic = self._full("operator-requests", "")
            self._acknowledged(self._send(topic, event, event.pipeline.encode()), topic)
            deadline = clock.monotonic() + timeout_s
            while (left := deadline - clock.monotonic()) > 0:
                for record in answers.poll(left):
                    answer = record.event
                    if getattr(answer, "request", None) != request:
                        continue
                    if isinstance(answer, RequestRefused):
                        raise Refused(answer.reason, answer.next, answer.kind)
                    if isinstance(answer, ControlEvent):
                        return answer
        raise NoAnswer(
            f"nobody answered {type(event).__name__} for {event.pipeline} within {timeout_s:g} s", "headrace status"
        )

    def model(self, name: str) -> Any:
        """The River model that an alias (`rainfall@champion`, the default) or a version (`rainfall@3`) names.

        An alias that follows its run gives the newest revision, a version the snapshot that passed its gates.
        Nothing is unpickled before its signature was checked. Raises Missing (no such model, or no River here) and
        ArtifactRefused.
        """
        from headrace.infra.served_model import load_served

        pipeline, _, alias = name.partition("@")
        return load_served(self, pipeline, alias or "champion")

    def close(self) -> None:
        """Release the connections; nothing is queued, as every call that publishes waits for its acknowledgements."""
        from kafka.errors import KafkaError

        for subscription in self._predictions.values():
            subscription.close()
        self._predictions.clear()
        try:
            self._producer.close(timeout=1.0)
        except KafkaError:  # records that a dead broker never took: kafka-python would keep its thread and try for ever
            self._producer._sender.force_close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _full(self, topic: str, pipeline: str) -> str:
        name = f"<p>.{topic}" if f"<p>.{topic}" in TOPICS else topic
        if name not in TOPICS:
            known = ", ".join(sorted(known.removeprefix("<p>.") for known in TOPICS))
            raise InvalidInput(f"no topic is named {topic!r}; there are {known}")
        if name.startswith("<p>.") and not pipeline:
            raise InvalidInput(f"every pipeline has its own {topic}; say which: pipeline=…")
        return full_name(name, pipeline, self.settings.namespace)

    def _subscription(self, topics: Sequence[str], pipeline: str, start: Start, last: int | None) -> Subscription:
        full = [self._full(topic, pipeline) for topic in topics]
        return Subscription(self.settings, self.address, full, start, last)

    def _topic(self, pipeline: str) -> str:
        """The topic to publish to, once the pipeline's release is in force in all of its partitions."""
        topic = self._full("data-arrived", pipeline)
        if pipeline not in self._ready:
            released = self.pipelines()
            if pipeline not in released:
                raise not_released(pipeline, released, retired=pipeline in self.retired)
            wait_for_markers(self.settings, self.address, topic)
            self._ready.add(pipeline)
        return topic

    def _send(self, topic: str, event: Event, key: bytes | None = None) -> Any:
        from kafka.errors import KafkaError

        if key is None and isinstance(event, ExampleArrived | LabelArrived):
            key = (event.entity or event.id).encode()
        headers = [
            (name, value.encode() if isinstance(value, str) else value)
            for name, value in headers_of(TYPE_OF[type(event)], self._source, next(self._sequence))
        ]
        try:
            return self._producer.send(topic, encode(event), key=key, headers=headers)
        except KafkaError as error:
            raise told(error, self.address, topic) from error

    def _acknowledged(self, future: Any, topic: str) -> Any:
        """Where the record stands: its partition and offset, -1 where the broker took it for a repeat."""
        from kafka.errors import KafkaError

        try:
            return future.get(timeout=self._timeout_s + 5)
        except KafkaError as error:
            raise told(error, self.address, topic) from error
