"""How fresh a stream is at 200 rows/s: publish → prediction visible, label → a model that learned it serves.

`python benchmarks/bench_fresh.py [--rate 200] [--seconds 6] [--rounds 5] [--json]`. The floor is the same publisher and
subscriber with two processes in between that only pass records on, as validator and predictor must at least; it is
measured in turns with the system. A label is served from the first visible prediction whose champion had learned it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain, pairwise
from typing import Any

from common import Child, Line, arguments, broker, made_up, note, quantile, tell
from stack import Encoded, Stack, broker_s, encoded, stack, wait

from headrace.infra.bus import TopicSpec
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.service import tidy_memory
from headrace.schemas.codec import decode

LATE_ROWS = 20  # a label comes a tenth of a second after its example
Seen = list[tuple[float, Any]]


def relay(address: str, source: str, target: str, pipe: Any) -> None:
    """A hop that does nothing: consume, produce the same bytes with the same headers, at once."""
    bus = KafkaBus(address, linger_ms=0)
    reader, producer = bus.reader(), bus.producer("bench-relay")
    reader.assign({(source, 0): 0})
    tidy_memory()
    pipe.send((True, "ready"))
    while not pipe.poll():
        for message in reader.poll(50, 0.1):
            headers: Any = message.headers() or []
            producer.produce(target, 0, message.key(), message.value(), headers, message.timestamp()[1])
        producer.poll()
    producer.flush()


def stream(
    address: str, rate: float, records: list[Encoded], to: str, read: str, until: Callable[[Seen], bool]
) -> tuple[dict[bytes, float], Seen]:
    """Publish examples at a rate (their labels between them) while reading a topic from its end.

    Returns when each record was published, by kind and key, and the messages with the time each became visible.
    """
    bus = KafkaBus(address, linger_ms=0)
    producer, reader = bus.producer("bench-publisher"), bus.reader()
    first, end = bus.offsets((read, 0))
    reader.assign({(read, 0): max(first, end - 1)})
    while end > first and not reader.poll(1, 0.5):
        pass  # a reader's first fetch may take a second; the last record says that it reads
    sent: dict[bytes, float] = {}
    seen: Seen = []
    begin, rows = time.time(), 0
    queue = iter(records)
    record = next(queue, None)
    deadline = begin + len(records) / rate + 30
    while time.time() < deadline:
        while record is not None and time.time() >= begin + rows / rate:
            kind, key, body, headers = record
            sent[kind.encode() + b" " + key] = time.time()
            producer.produce(to, None, key, body, headers, 0)
            rows += kind == "example"
            record = next(queue, None)
        producer.poll()
        due = begin + rows / rate - time.time() if record is not None else 0.05
        for message in reader.poll(100, min(max(due, 0.0), 0.05)):
            seen.append((time.time(), message))
        if record is None and until(seen):
            break
    producer.flush()
    reader.close()
    producer.close()
    bus.close()
    return sent, seen


def through(sent: dict[bytes, float], seen: Seen, kind: bytes = b"example ") -> list[float]:
    """Milliseconds from publish to visible, for every record seen that was published here."""
    return [(at - sent[kind + key]) * 1000 for at, message in seen if kind + (key := message.key() or b"") in sent]


def predictions(made: Stack, name: str, rate: float, records: list[Encoded]) -> tuple[list[float], list[float]]:
    """Delays of predictions and of labels, ms."""
    n_labels = sum(kind == "label" for kind, *_ in records)
    labelled = (made.topic("<p>.labelled-examples", name), 0)
    first = made.bus.offsets(labelled)[1]

    def learned_all(seen: Seen) -> bool:
        return bool(seen) and time.time() - seen[-1][0] > 0.5

    sent, seen = stream(
        made.settings.bootstrap_servers, rate, records, made.topic("<p>.data-arrived", name),
        made.topic("<p>.predictions", name), learned_all,
    )  # fmt: skip
    made_ones = [(at, m) for at, m in seen if m.headers()[3][1] == b"headrace.PredictionMade.v1"]
    offsets = offsets_of_labels(made, labelled, first, n_labels)
    served, waiting = [], sorted(offsets.items())
    for at, message in made_ones:
        champion = decode("headrace.PredictionMade.v1", message.value()).predictions.get("champion")
        while champion is not None and waiting and waiting[0][0] < champion.learned_to:
            _, key = waiting.pop(0)
            if b"label " + key in sent:
                served.append((at - sent[b"label " + key]) * 1000)
    return through(sent, made_ones), served


def offsets_of_labels(made: Stack, place: tuple[str, int], first: int, count: int) -> dict[int, bytes]:
    """Where each label was joined, by key."""
    wait(lambda: made.bus.offsets(place)[1] >= first + count, "the last join")
    reader, found = made.bus.reader(), {}
    reader.assign({place: first})
    while len(found) < count:
        found |= {message.offset(): message.key() or b"" for message in reader.poll(500, 0.2)}
    reader.close()
    return found


def main() -> None:
    asked = arguments(__doc__, rate=200, seconds=6)
    address = broker()
    rows = asked.rate * asked.seconds
    found: dict[str, list[list[float]]] = {
        name: [] for name in ("floor", "prediction", "fast", "slow", "services", "broker")
    }
    with stack() as made:
        hops = [made.namespace + name for name in ("hop-a", "hop-b", "hop-c")]
        made.bus.create_topics([TopicSpec(name, 1, {}) for name in hops])
        relays = [Child(relay, address, a, b) for a, b in pairwise(hops)]
        for one in relays:
            one.result()
        probe = [one for one in encoded(made_up(20), 0, "probe") if one[0] == "example"]
        stream(address, asked.rate, probe, hops[0], hops[2], lambda seen: len(seen) >= len(probe))
        for name, refresh_s in (("slow", 1.0), ("fast", 0.1)):
            made.release(name, refresh_s)
            warm_up(made, name, asked.rate)
        for number in range(asked.rounds):
            note(f"round {number + 1} of {asked.rounds}")
            examples = [one for one in encoded(made_up(rows, number), 0, f"f{number}") if one[0] == "example"]
            sent, seen = stream(address, asked.rate, examples, hops[0], hops[2], lambda s: len(s) >= rows)
            found["floor"].append(through(sent, seen))
            before, broker_before, began = sum(made.cpu_s().values()), broker_s(address), time.monotonic()
            for name in ("fast", "slow"):
                records = encoded(made_up(rows, number), LATE_ROWS, f"{name}{number}")
                delays, served = predictions(made, name, asked.rate, records)
                found[name].append(served)
                found["prediction"].append(delays)
            seconds = time.monotonic() - began
            found["services"].append([100 * (sum(made.cpu_s().values()) - before) / seconds])
            found["broker"].append([100 * (broker_s(address) - broker_before) / seconds])
        for one in relays:
            one.tell("stop")
            one.process.join(10)
    tell(f"Freshness at {asked.rate} rows/s", report(found), asked.json)


def warm_up(made: Stack, name: str, rate: int) -> None:
    """Labels until a champion serves."""
    records = encoded(made_up(600, 99), LATE_ROWS, f"w{name}")
    stream(
        made.settings.bootstrap_servers, 4 * rate, records, made.topic("<p>.data-arrived", name),
        made.topic("<p>.predictions", name), lambda seen: True,
    )  # fmt: skip
    wait(lambda: "champion" in made.health("predictor")[1].get(name, {}), f"a champion of {name}")


def report(found: dict[str, list[list[float]]]) -> list[Line]:
    floor, prediction, fast, slow = (list(chain(*found[name])) for name in ("floor", "prediction", "fast", "slow"))
    ratio = quantile(prediction, 0.99) / quantile(floor, 0.99)

    def spread(values: list[float]) -> str:
        return f"p50 {quantile(values, 0.5):.1f} ms, p99 {quantile(values, 0.99):.1f} ms, {len(values):,} rows"

    return [
        Line("publish → prediction visible, p99", round(ratio, 2), "× two hops", "<= 2", spread(prediction)),
        Line("publish → prediction visible, p50", round(quantile(prediction, 0.5) / quantile(floor, 0.5), 2),
             "× two hops", "", f"the floor: {spread(floor)}"),
        Line("label → served, refresh_s=1, p99", round(quantile(slow, 0.99) / 1000, 3), "s", "< 1.3", spread(slow)),
        Line("label → served, refresh_s=0.1, p99", round(quantile(fast, 0.99) / 1000, 3), "s", "< 0.3", spread(fast)),
        *(
            Line(f"{name} meanwhile, CPU", round(quantile([one for one, in found[name]], 0.5), 1), "% of a core")
            for name in ("services", "broker")
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
