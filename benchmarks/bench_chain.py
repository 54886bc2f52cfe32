"""The whole chain on genuine Kafka at full speed, every service a process, beside the pure River loop.

`python benchmarks/bench_chain.py [--rows 30000] [--rounds 5] [--json]`. A row is an example and a separate label,
5,000 rows behind. The wall time runs from the first record published to the last label learned; evaluator and
recorder run beside, and what they still lack then is told. CPU a row is that of each process until all have caught
up. For comparison one process that validates, predicts, scores and learns the same topic without a durable step.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import Any

from common import Child, Cost, Line, arguments, beside, broker, in_child, made_up, median, note, river, tell
from one_process import one_process
from stack import Stack, broker_s, encoded, publish, stack, wait

from headrace.infra.service import tidy_memory

LATE = 5_000
DATA = ("validator", "predictor", "joiner", "trainer", "evaluator", "recorder")


def publish_many(address: str, topic: str, rows: int, seed: int, late: int, pipe: Any) -> None:
    """Make a round's records, say so, publish them when told."""
    stream = encoded(made_up(rows, seed), late, f"{seed}")
    tidy_memory()
    pipe.send((True, "ready"))
    pipe.recv()
    pipe.send((True, publish(address, topic, stream)))


def pure(rows: int) -> Cost:
    data = made_up(rows)
    tidy_memory()
    return river(data)


def learned(made: Stack) -> int:
    return sum(numbers.get("learned", 0) for numbers in made.health("trainer")[0].values())


def folded(made: Stack, service: str, part: int) -> int:
    return sum(numbers.get("offset", 0) for numbers in made.health(service)[part].values() if isinstance(numbers, dict))


def recorded(made: Stack) -> int:
    """Labelled examples that the recorder has made durable."""
    place = f"{made.topic('<p>.labelled-examples')}-0"
    return int(made.health("recorder")[0].get(place, {}).get("offset", 0))


def one_round(made: Stack, address: str, rows: int, seed: int, late: int) -> dict[str, Any]:
    """Publish rows and follow them to the last label learned, then until everybody has caught up."""
    publisher = Child(publish_many, address, made.topic("<p>.data-arrived"), rows, seed, late)
    publisher.result()
    before, cpu, broker_cpu = learned(made), made.cpu_s(), broker_s(address)
    began = time.perf_counter()
    publisher.tell("go")
    wait(lambda: learned(made) >= before + rows, "the last label", every_s=0.02)
    wall = time.perf_counter() - began
    published_s = publisher.result()
    end = made.end("<p>.labelled-examples")
    lag = {"evaluator": end - folded(made, "evaluator", 0), "recorder": end - recorded(made)}
    wait(lambda: folded(made, "evaluator", 0) >= end and recorded(made) >= end, "evaluator and recorder")
    caught_up = time.perf_counter() - began - wall
    spent = Counter(made.cpu_s())
    spent.subtract(cpu)
    publisher.process.join()
    return {
        "cost": Cost(sum(spent.values()) / rows * 1e6, wall / rows * 1e6),
        "cpu": {name: seconds / rows * 1e6 for name, seconds in spent.items()},
        "broker": (broker_s(address) - broker_cpu) / rows * 1e6,
        "lag": lag,
        "caught_up": caught_up,
        "published_s": published_s,
    }


def main() -> None:
    asked = arguments(__doc__, rows=30_000)
    address = broker()
    late = min(LATE, asked.rows // 3)
    bases: list[Cost] = []
    alone: list[Cost] = []
    rounds: list[dict[str, Any]] = []
    with stack() as made:
        made.release()
        one_round(made, address, 4_000, 1_000, 1_000)  # the first model, and everything warm
        for number in range(asked.rounds):
            bases.append(in_child(pure, asked.rows))
            begin = made.end("<p>.data-arrived")
            rounds.append(one_round(made, address, asked.rows, number, late))
            alone.append(in_child(one_process, address, made.topic("<p>.data-arrived"), begin, asked.rows))
            note(f"round {number + 1}: {1e6 / rounds[-1]['cost'].wall:,.0f} rows/s, river {1e6 / bases[-1].wall:,.0f}")
    tell("The whole chain at full speed", report(bases, alone, rounds), asked.json)


def report(bases: list[Cost], alone: list[Cost], rounds: list[dict[str, Any]]) -> list[Line]:
    costs = [one["cost"] for one in rounds]
    wall = statistics.median(b.wall / c.wall for b, c in zip(bases, costs, strict=True))
    shares = ", ".join(f"{b.wall / c.wall:.2f}" for b, c in zip(bases, costs, strict=True))
    names = {name for one in rounds for name in one["cpu"]}
    services = {name: statistics.median(one["cpu"].get(name, 0) for one in rounds) for name in names}
    lags = {name: statistics.median(one["lag"][name] for one in rounds) for name in ("evaluator", "recorder")}
    rest = sum(cpu for name, cpu in services.items() if name not in DATA)
    chain = median(costs)
    return [
        Line("whole chain", round(wall, 3), "× pure River, wall", ">= 0.22", f"rounds {shares}"),
        Line("whole chain", round(1e6 / median(costs, "wall")), "rows/s", "", "first publish to last label learned"),
        Line("pure River", round(1e6 / median(bases, "wall")), "rows/s", "", f"{median(bases):.1f} µs CPU a row"),
        Line("chain, CPU", round(chain, 1), "µs a row", "", f"all services; the broker {broker_of(rounds):.1f} more"),
        *(Line(f"  {name}", round(services[name], 1), "µs a row") for name in DATA),
        Line("  everything else", round(rest, 1), "µs a row", "", "control services, supervisors"),
        beside("one process, nothing durable", bases, alone, per="row"),
        Line("chain beside that process, CPU", round(chain / median(alone), 2), "× its cost"),
        *(
            Line(
                f"  {name} behind at the last label", lags[name], "rows", "", f"caught up {caught(rounds):.2f} s later"
            )
            for name in lags
        ),
    ]


def broker_of(rounds: list[dict[str, Any]]) -> float:
    return statistics.median(one["broker"] for one in rounds)


def caught(rounds: list[dict[str, Any]]) -> float:
    return statistics.median(one["caught_up"] for one in rounds)


if __name__ == "__main__":
    main()
