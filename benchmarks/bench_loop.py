"""Each data service alone over Kafka with its real loop and store: CPU a record beside the pure River loop.

`python benchmarks/bench_loop.py [--rows 60000] [--rounds 5] [--json]`. The live system makes the records once, labels
5,000 rows behind. Then each service folds its topic anew, in a process of its own, with fresh state and a fresh
group: decode, drop repeats, step, publish, commit each second or 5,000 records. The CPU is the whole process', from a
full fetch queue to the last commit.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common import Clock, Cost, Line, arguments, beside, broker, in_child, interleaved, made_up, note, river, tell
from stack import KEY, Stack, encoded, publish, stack, wait

from headrace import fast_path
from headrace.infra.artifacts import Artifacts
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.service import Wiring, tidy_memory
from headrace.infra.settings import Settings
from headrace.infra.store import Store

LATE = 5_000
WARM = 12_000  # records before the clock starts: the fetch queue is full, labels have begun to come
AHEAD = 11_000  # records behind the last one measured, so that the fetch queue is full at the end as well


@dataclass(frozen=True)
class Task:
    """One service over what a stack's topics hold, from the record `first` to `last`."""

    service: str
    namespace: str
    artifacts: str
    first: int
    last: int
    fast: bool = True


class FreshGroups(KafkaBus):
    """A bus whose groups begin anew each time; whatever they are called, the loop is the same."""

    def group_consumer(self, group: str, instance: str, *callbacks: Any) -> Any:
        fresh = Path(tempfile.mktemp(dir="")).name
        return super().group_consumer(f"{group}-{fresh}", f"{instance}-{fresh}", *callbacks)


def serve(task: Task) -> Cost:
    """CPU and wall of a service's own parts, driven as `run_service` drives them."""
    home = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    settings = Settings(home=home, namespace=task.namespace, instance="bench", artifact_url=task.artifacts)
    bus = FreshGroups(settings.bootstrap_servers, linger_ms=settings.linger_ms)
    wiring = Wiring(
        settings, bus, Artifacts(task.artifacts, KEY.encode()), KEY.encode(),
        lambda fold, place: Store.open(home / "state" / fold / f"{place[0]}-{place[1]}", KEY.encode()),
        timing={"commit_s": settings.commit_s, "commit_records": settings.commit_records},
    )  # fmt: skip
    with nullcontext() if task.fast else without_fast_path():
        parts = parts_of(task.service, wiring)
        tidy_memory()
        drive(parts, task.first)
        clock, first = Clock(), place_of(parts)
        drive(parts, task.last)
        last = place_of(parts)
        parts[0].close()
        cost = clock.cost(last - first)
    for part in parts[1:]:
        part.close()
    bus.close()
    shutil.rmtree(home)
    return cost


def parts_of(service: str, wiring: Wiring) -> list[Any]:
    """What its `__main__` builds; of a service with two topics one fold, such as `evaluator.online`."""
    service, _, fold = service.partition(".")
    if fold:
        return [wiring.fold(service, importlib.import_module(f"headrace.services.{service}.{fold}"))]
    return list(importlib.import_module(f"headrace.services.{service}.__main__").build(wiring))


def drive(parts: list[Any], until: int) -> None:
    while place_of(parts) < until:
        for part in parts:
            part.tick(0.02 if part is parts[0] else 0.0)


def place_of(parts: list[Any]) -> int:
    return next((numbers["offset"] for numbers in parts[0].counts().values()), 0)


@contextmanager
def without_fast_path() -> Iterator[None]:
    """River's own methods, as for recipes whose shape is not known."""
    kept = fast_path._plain_steps, fast_path._is_plain_linear
    fast_path._plain_steps, fast_path._is_plain_linear = lambda model: None, lambda model: False
    try:
        yield
    finally:
        fast_path._plain_steps, fast_path._is_plain_linear = kept


def pure(rows: int) -> Cost:
    data = made_up(rows)
    tidy_memory()
    return river(data)


def prepare(made: Stack, rows: int, address: str) -> None:
    """Let the whole system fold the rows once: its topics are what the services are measured on."""
    made.release()
    late = min(LATE, rows // 4)
    stream = encoded(made_up(rows), late, "a")
    topic = made.topic("<p>.data-arrived")
    head = 2 * late  # a first part, so that a champion serves what is measured
    in_child(publish, address, topic, stream[:head])
    wait(lambda: served(made), "a champion")
    in_child(publish, address, topic, stream[head:])
    wait(lambda: made.end("<p>.labelled-examples") >= rows, "the last label")


def served(made: Stack) -> bool:
    return any("champion" in numbers for numbers in made.health("predictor")[1].values())


def main() -> None:
    asked = arguments(__doc__, rows=60_000)
    address = broker()
    with stack() as made:
        prepare(made, asked.rows, address)
        ends = {name: made.end(f"<p>.{name}") for name in
                ("data-arrived", "data-validated", "predictions", "labelled-examples")}  # fmt: skip
        from headrace.infra import processes

        processes.down(made.home)  # what is measured shares the machine with the broker alone
        task = partial(Task, namespace=made.namespace, artifacts=made.settings.artifact_url)
        note(f"topics hold {ends}")

        def one(service: str, topic: str, fast: bool = True) -> Callable[[], Cost]:
            last = ends[topic] - AHEAD
            return lambda: in_child(serve, task(service, first=WARM, last=last, fast=fast))

        costs = interleaved(
            {
                "river": lambda: in_child(pure, asked.rows // 2),
                "validator": one("validator", "data-arrived"),
                "predictor": one("predictor", "data-validated"),
                "joiner": one("joiner", "predictions"),
                "trainer": one("trainer", "labelled-examples"),
                "trainer, River's own methods": one("trainer", "labelled-examples", fast=False),
                "evaluator, scores": one("evaluator.online", "labelled-examples"),
                "monitor, inputs": one("monitor.inputs", "predictions"),
                "monitor, performance": one("monitor.performance", "labelled-examples"),
            },
            asked.rounds,
        )
    tell("Each data service alone over Kafka, beside the pure River loop", report(costs), asked.json)


def report(costs: dict[str, list[Cost]]) -> list[Line]:
    pairs = [Cost(2 * cpu, 2 * wall) for cpu, wall in costs["joiner"]]
    base = costs["river"]
    return [
        Line("pure River", round(sum(c.cpu for c in base) / len(base), 2), "µs CPU a row"),
        beside("validator, a record", base, costs["validator"], ">= 1.1"),
        beside("predictor (one arm), a record", base, costs["predictor"], ">= 1.05"),
        beside("joiner, a pair", base, pairs, ">= 0.85", "pair"),
        beside("trainer", base, costs["trainer, River's own methods"], ">= 0.78"),
        beside("trainer, fast path", base, costs["trainer"], ">= 0.90"),
        beside("evaluator, scores", base, costs["evaluator, scores"]),
        beside("monitor, inputs and predictions, a record", base, costs["monitor, inputs"]),
        beside("monitor, performance and labels, a row", base, costs["monitor, performance"]),
    ]


if __name__ == "__main__":
    main()
