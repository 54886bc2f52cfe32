"""The trainer's work in other libraries and in Headrace over one topic: consume, decode, predict, score, learn, commit.

`python benchmarks/bench_side_by_side.py [--rounds 5] [--json]`. The programs in `side_by_side/` name their libraries
themselves and run each in an environment that uv makes for it (some pin versions that exclude each other). All decode
with msgspec and commit each second; the programs drop no repeats, keep no state, take no snapshots and write nothing,
as Headrace's trainer does beside. One that cannot be installed or run is named with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from bench_loop import Task, prepare, serve
from common import Cost, Line, arguments, broker, in_child, median, note, ratio, tell
from stack import stack

from headrace.infra import processes

FOLDER = Path(__file__).parent / "side_by_side"
FIRST, LAST, LAST_OF_SLOW = 4_000, 20_000, 10_000
LIMIT_S = 180
PROGRAMS = {  # what stands on the report's line, whether it is slow, what Headrace must reach beside it
    "by_hand": ("by hand, confluent-kafka", False, ">= 1"),
    "with_kafka_python": ("kafka-python", True, ">= 1"),
    "with_aiokafka": ("aiokafka", False, ">= 1"),
    "with_quix": ("Quix Streams, bytes", False, ">= 3"),
    "with_quix_json": ("Quix Streams, JSON", False, ">= 3"),
    "with_faust": ("Faust, bytes", True, ">= 15"),
    "with_faust_json": ("Faust, JSON", True, ">= 15"),
    "with_bytewax": ("Bytewax", False, ">= 1"),
}


class NotRun(RuntimeError):
    """A program could not be installed or did not end with its report."""


def program(name: str, topic: str) -> tuple[Cost, dict[str, str]]:
    """Run one program; its cost and the versions of its libraries. Raises NotRun."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    last = LAST_OF_SLOW if PROGRAMS[name][1] else LAST
    given = {"BENCH_BROKER": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "BENCH_TOPIC": topic, "BENCH_FIRST": str(FIRST)}
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    command = [uv, "run", "--quiet", "--no-project", "--python", python, "--script", str(FOLDER / f"{name}.py")]
    try:
        done = subprocess.run(
            command, env=os.environ | given | {"BENCH_LAST": str(last)}, capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotRun(str(error)) from error
    for line in reversed(done.stdout.splitlines()):
        if line.startswith('{"rows"'):
            told = json.loads(line)
            return Cost(told["cpu"], told["wall"]), told["versions"]
    words = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
    raise NotRun(words[-1][:160])


def main() -> None:
    asked = arguments(__doc__)
    address = broker()
    costs: dict[str, list[Cost]] = {name: [] for name in ("headrace", *PROGRAMS)}
    versions: dict[str, str] = {}
    skipped: dict[str, str] = {}
    with stack() as made:
        prepare(made, LAST + 15_000, address)
        processes.down(made.home)
        topic = made.topic("<p>.labelled-examples")
        task = Task("trainer", made.namespace, made.settings.artifact_url, FIRST, LAST)
        ways = {name: partial(program, name, topic) for name in PROGRAMS}
        for number in range(-1, asked.rounds):  # the first time uv makes the environments
            ours = in_child(serve, task)
            for name, run in ways.items():
                if name in skipped:
                    continue
                try:
                    cost, used = run()
                except NotRun as why:
                    skipped[name] = str(why)
                    continue
                versions[name] = ", ".join(f"{package} {version}" for package, version in used.items())
                if number >= 0:
                    costs[name].append(cost)
                note(f"round {number + 1} of {asked.rounds}: {name} {cost.cpu:.1f} µs CPU (Headrace {ours.cpu:.1f})")
            if number >= 0:
                costs["headrace"].append(ours)
    tell("The trainer's work, side by side", report(costs, versions, skipped), asked.json)


def report(costs: dict[str, list[Cost]], versions: dict[str, str], skipped: dict[str, str]) -> list[Line]:
    ours = costs["headrace"]
    lines = [
        Line("Headrace's trainer", round(1e6 / median(ours, "wall")), "rows/s", "", f"{median(ours):.1f} µs CPU a row")
    ]
    for name, (what, _, must) in PROGRAMS.items():
        if name in skipped:
            lines.append(Line(what, 0, "skipped", "", skipped[name]))
            continue
        theirs = costs[name]
        detail = (
            f"{median(theirs):.1f} µs CPU a row, {1e6 / median(theirs, 'wall'):,.0f} rows/s "
            f"(wall {ratio(theirs, ours, 'wall'):.2f}); {versions[name]}"
        )
        lines.append(Line(f"Headrace beside {what}", round(ratio(theirs, ours), 2), "× faster, CPU", must, detail))
    return lines


if __name__ == "__main__":
    main()
