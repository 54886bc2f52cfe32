"""What a checkpoint of a full joiner costs its loop, and how fast a joiner that lost its state is back.

`python benchmarks/bench_checkpoint.py [--pending 1000000] [--records 200000] [--json]`
The real loop, store and checkpoints on the in-process log. Waiting predictions fill the store first; then predictions
and labels come as fast as they are folded, without and with checkpoints in the background. A turn is a batch of 50
records and, where it is due (every second), the commit after it. Wall time: the disk and whoever else works on the
machine are in it, so turns without a checkpoint stand beside those with one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace.infra.bus import Place, TopicSpec
from headrace.infra.checkpoints import Background, Checkpoints
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.runtime import fold_runner
from headrace.infra.service import tidy_memory
from headrace.infra.store import Store
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.record import SEQUENCES_PER_OFFSET
from headrace.schemas.stream import ArmPrediction, Baselines, LabelArrived, PredictionMade
from headrace.services import folds_of
from headrace.services.joiner import core

KEY = b"k" * 32
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KNOWN_MS = int(NOON.timestamp() * 1000)
PLACE = ("bench.predictions", 0)
OUTPUTS = ("bench.labelled-examples", "bench.data-rejected")
CHUNK = 20_000  # records on the log at a time
AIM_MS, AIM_S = 50, 20


class Joiner:
    """The joiner's loop over an in-process log that forgets what was folded, so that memory holds only the state."""

    def __init__(self, home: Path) -> None:
        self.home, self.now = home, 0.0
        self.bus = MemoryBus(clock=lambda: KNOWN_MS)
        self.bus.create_topics([TopicSpec(topic, 1, {}) for topic in (PLACE[0], *OUTPUTS, "pipelines")])
        self.predicted = self.labelled = 0
        arms = {"champion": ArmPrediction(version=1, run="a", learned_to=1_000, value=0.5)}
        self.body = encode(
            PredictionMade(
                id="@" * 36,
                time=NOON,
                features={f"column_{n}": 0.1234 * n for n in range(8)},
                predictions=arms,
                served="champion",
                release=1,
                epoch=1,
                origin=(0, 0),
                baselines=Baselines(majority=True, mean=0.5, last=True),
            )
        )

    def start(self) -> None:
        def folder_of(fold: str, place: Place) -> Path:
            return self.home / "state" / fold / f"{place[0]}-{place[1]}"

        self.background = Background(1.0, lambda: self.now)
        self.checkpoints = Checkpoints(str(self.home / "artifacts"), KEY, folder_of)
        self.runner = fold_runner(
            folds_of("joiner"),
            core,
            self.bus,
            namespace="",
            instance="bench",
            open_store=lambda fold, place: Store.open(folder_of(fold, place), KEY),
            checkpoints=self.checkpoints,
            background=self.background,
        )
        assert self.runner.pipelines is not None
        self.runner.pipelines.released["bench"] = None  # type: ignore[assignment]
        self.runner.tick()

    def worker(self) -> Any:
        return self.runner.workers[PLACE]

    def predict(self, count: int) -> None:
        kind = TYPE_OF[PredictionMade]
        for number in range(self.predicted, self.predicted + count):
            id = f"{number:036d}".encode()
            self._append(id, self.body.replace(b"@" * 36, id), kind)
        self.predicted += count

    def predict_and_label(self, count: int) -> None:
        """A prediction, and a label of the oldest one that waits."""
        for _ in range(count // 2):
            self.predict(1)
            id = f"{self.labelled:036d}"
            self._append(id.encode(), encode(LabelArrived(id=id, time=NOON, label=True)), TYPE_OF[LabelArrived])
            self.labelled += 1

    def _append(self, key: bytes, body: bytes, kind: str) -> None:
        sequence = self.bus.offsets(PLACE)[1] * SEQUENCES_PER_OFFSET
        self.bus.append(*PLACE, key, body, headers_of(kind, "/predictor/bench/0a1b2c3d/0", sequence), KNOWN_MS)

    def fold(self) -> Iterator[float]:
        """Seconds of each turn until all is folded; then the log forgets it."""
        while True:
            begin = time.perf_counter()
            done = self.runner.tick()
            if not done:
                break
            yield time.perf_counter() - begin
        self.bus.delete_records(PLACE, self.worker().offset)
        for topic in OUTPUTS:
            self.bus.delete_records((topic, 0), self.bus.offsets((topic, 0))[1])


def told(rounds: list[list[float]]) -> dict[str, float]:
    """The median turn, each round's longest one (their median, and the longest of all), and µs a record."""
    turns = [turn for one in rounds for turn in one]
    return {
        "turn_ms": statistics.median(turns) * 1e3,
        "longest_ms": statistics.median(map(max, rounds)) * 1e3,
        "worst_ms": max(turns) * 1e3,
        "record_us": sum(turns) / len(rounds) / CHUNK * 1e6,
    }


def measure(pending: int, records: int) -> dict[str, Any]:
    """Fill, fold without and with checkpoints, lose the state, be back."""
    home = Path(tempfile.mkdtemp(prefix="bench-checkpoint-"))
    try:
        joiner = Joiner(home)
        joiner.start()
        for at in range(0, pending, CHUNK):
            joiner.predict(min(CHUNK, pending - at))
            list(joiner.fold())
        joiner.runner.commit()
        tidy_memory()
        turns: dict[str, list[list[float]]] = {"without": [], "with": []}
        spent = {"without": 0.0, "with": 0.0}
        taken_s = []
        for _ in range(max(1, records // CHUNK)):
            for name in turns:
                joiner.predict_and_label(CHUNK)
                if name == "with":
                    joiner.now += 2.0
                    joiner.runner.commit()  # begins the checkpoint
                cpu, begin = time.process_time(), time.perf_counter()
                turns[name].append(list(joiner.fold()))
                joiner.background.wait()
                taken_s += [time.perf_counter() - begin] * (name == "with")
                spent[name] += time.process_time() - cpu
        joiner.now += 2.0
        joiner.runner.commit()
        joiner.background.wait()
        offset, before = joiner.worker().offset, len(joiner.worker().state.pending)
        newest = joiner.checkpoints.newest("joiner-core", PLACE, joiner.bus.topic_id(PLACE[0]))
        assert newest is not None
        assert newest.offset == offset
        joiner.worker().close()
        joiner.bus.end_session("headrace-joiner-core", "bench-joiner-core")
        shutil.rmtree(home / "state")
        cpu, begin = time.process_time(), time.perf_counter()
        joiner.start()
        back_s, back_cpu_s = time.perf_counter() - begin, time.process_time() - cpu
        assert (joiner.worker().offset, len(joiner.worker().state.pending)) == (offset, before)
        return {
            "pending": before,
            "checkpoint_mb": newest.size_bytes / 1e6,
            "without": told(turns["without"]),
            "with": told(turns["with"]),
            "checkpoint_cpu_s": (spent["with"] - spent["without"]) / max(1, records // CHUNK),
            "checkpoint_wall_s": max(taken_s),
            "back_s": back_s,
            "back_cpu_s": back_cpu_s,
        }
    finally:
        shutil.rmtree(home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--records", type=int, default=200_000, help="folded with, and as many without checkpoints")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.pending, asked.records)
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{found['pending']:,} waiting predictions; a checkpoint has {found['checkpoint_mb']:.0f} MB")
    print("turns of 50 records    median ms  longest ms    worst ms  us a record")
    for name in ("without", "with"):
        row = found[name]
        print(
            f"{name + ' a checkpoint':<22} {row['turn_ms']:>9.2f} {row['longest_ms']:>11.1f} {row['worst_ms']:>11.1f} "
            f"{row['record_us']:>12.1f}"
        )
    cpu_s, wall_s = found["checkpoint_cpu_s"], found["checkpoint_wall_s"]
    print(f"a checkpoint: {cpu_s:.2f} s CPU beside the loop, done after {wall_s:.1f} s")
    back_s, back_cpu_s = found["back_s"], found["back_cpu_s"]
    print(f"a joiner without state is back after {back_s:.1f} s ({back_cpu_s:.1f} s CPU); the aim is {AIM_S}")
    added_ms = found["with"]["longest_ms"] - found["without"]["longest_ms"]
    print(f"the longest turn is {added_ms:.0f} ms longer with a checkpoint; the aim is {AIM_MS}")
    sys.exit(int(back_s > AIM_S or added_ms > AIM_MS))


if __name__ == "__main__":
    main()
