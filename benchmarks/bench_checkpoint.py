"""What a checkpoint of a full joiner costs its loop, and how fast a joiner that lost its state is back.

`python benchmarks/bench_checkpoint.py [--pending 1000000] [--rounds 5] [--json]`
The real loop, store and checkpoints on the in-process log. Waiting predictions fill the store first; then predictions
and labels come as fast as they are folded: in each round until a checkpoint in the background is done, and as many
again without one. A turn is a batch of 50 records and, where it is due (every second), the commit after it. Wall time:
the disk and whoever else works on the machine are in it, so turns without a checkpoint stand beside those with one.
What the hot path loses is how much slower a record is while a checkpoint is written, times how long that takes, as a
share of the time from one checkpoint to the next. A commit alone may wait for the disk longer than a checkpoint may
hold it up, so the longest turn of a round is held against the longest one of the same round without a checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import Line, tell

from headrace.infra.bus import Place, TopicSpec
from headrace.infra.checkpoints import Background, Checkpoints
from headrace.infra.memory_bus import MemoryBus
from headrace.infra.runtime import fold_runner
from headrace.infra.service import tidy_memory
from headrace.infra.settings import Settings
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
EVERY_S = Settings.model_fields["checkpoint_s"].default


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


class Rounds:
    """The turns of some rounds, in seconds, and how many records each round folded."""

    def __init__(self) -> None:
        self.turns: list[list[float]] = []
        self.records: list[int] = []
        self.cpu_s = 0.0

    def turn_ms(self) -> float:
        return statistics.median(turn for one in self.turns for turn in one) * 1e3

    def longest_ms(self) -> list[float]:
        """Of each round."""
        return [max(turns) * 1e3 for turns in self.turns]

    def record_us(self) -> list[float]:
        """Of each round."""
        return [sum(turns) / records * 1e6 for turns, records in zip(self.turns, self.records, strict=True)]

    def text(self) -> str:
        longest = ", ".join(f"{ms:.0f}" for ms in self.longest_ms())
        return f"median turn {self.turn_ms():.2f} ms, each round's longest {longest} ms"


def fold_chunks(joiner: Joiner, rounds: Rounds, chunks: int) -> int:
    """One round of so many chunks, or, where none are asked, until the checkpoint is done; how many it were."""
    turns, cpu, done = [], time.process_time(), 0
    while done < chunks or (not chunks and (not done or joiner.background.is_busy())):
        joiner.predict_and_label(CHUNK)
        turns += list(joiner.fold())
        done += 1
    rounds.turns.append(turns)
    rounds.records.append(done * CHUNK)
    rounds.cpu_s += time.process_time() - cpu
    return done


def measure(pending: int, rounds: int) -> list[Line]:
    """Fill, fold with and without checkpoints, lose the state, be back."""
    home = Path(tempfile.mkdtemp(prefix="bench-checkpoint-"))
    try:
        joiner = Joiner(home)
        joiner.start()
        for at in range(0, pending, CHUNK):
            joiner.predict(min(CHUNK, pending - at))
            list(joiner.fold())
        joiner.runner.commit()
        tidy_memory()
        without, beside = Rounds(), Rounds()
        taken_s = []
        for _ in range(rounds):
            joiner.now += 2.0
            begin = time.perf_counter()
            joiner.runner.commit()  # begins the checkpoint
            chunks = fold_chunks(joiner, beside, 0)
            taken_s.append(time.perf_counter() - begin)
            fold_chunks(joiner, without, chunks)
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
        slower = statistics.median(b / w - 1 for b, w in zip(beside.record_us(), without.record_us(), strict=True))
        wall_s, cpu_s = statistics.median(taken_s), (beside.cpu_s - without.cpu_s) / rounds
        share = slower * wall_s / EVERY_S
        size = f"{before:,} wait; a checkpoint has {newest.size_bytes / 1e6:.0f} MB"
        slowed = f"{slower:.0%} slower for {wall_s:.1f} s every {EVERY_S:g} s; {cpu_s:.2f} s CPU a checkpoint"
        added_ms = max(b - w for b, w in zip(beside.longest_ms(), without.longest_ms(), strict=True))
        return [
            Line("what the hot path loses by checkpoints", round(share * 100, 3), "%", "< 2", slowed),
            Line("longest turn, longer beside a checkpoint by", round(added_ms, 1), "ms", "<= 50", "the worst round"),
            Line(
                "a joiner that lost its state is back after", round(back_s, 1), "s", "< 20", f"{back_cpu_s:.1f} s CPU"
            ),
            Line(
                "a record beside a checkpoint",
                round(statistics.median(beside.record_us()), 1),
                "us",
                "",
                beside.text(),
            ),
            Line("a record without", round(statistics.median(without.record_us()), 1), "us", "", without.text()),
            Line("predictions that wait", before, "", "", size),
        ]
    finally:
        shutil.rmtree(home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    lines = measure(asked.pending, asked.rounds)
    tell("A checkpoint of a full joiner", lines, asked.json)
    sys.exit(int(any(line.met() is False for line in lines)))


if __name__ == "__main__":
    main()
