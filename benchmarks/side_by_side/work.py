"""The trainer's work on one labelled example, the same for every program: decode, predict, score, learn.

Each program brings the record's bytes its own way, calls `Learner.take`, and commits its offsets each second. The clock
runs from the record `FIRST` to the record `LAST` of the topic, so that start-up is not counted.
"""

import json
import math
import os
import time
from collections import deque
from importlib.metadata import PackageNotFoundError, version

import msgspec
from river import linear_model, preprocessing

BROKER, TOPIC = os.environ["BENCH_BROKER"], os.environ["BENCH_TOPIC"]
FIRST, LAST = int(os.environ["BENCH_FIRST"]), int(os.environ["BENCH_LAST"])
GROUP = f"side-by-side-{os.getpid()}-{time.time_ns()}"
WINDOW, COMMIT_S = 1_000, 1.0


class Prediction(msgspec.Struct):
    features: dict[str, float]


class Labelled(msgspec.Struct):
    prediction: Prediction
    label: bool


class Learner:
    """Predicts, scores over a window and learns each example; says what it took when the last one came."""

    def __init__(self, *packages: str) -> None:
        self.model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
        self.decode = msgspec.json.Decoder(Labelled).decode
        self.window: deque[tuple[bool, float]] = deque()
        self.hits, self.loss, self.rows = 0, 0.0, 0
        self.next_commit = time.monotonic() + COMMIT_S
        self.packages = packages
        self.began = (0.0, 0.0)

    def take(self, value: bytes) -> bool:
        """Learn one record; True after the last."""
        if b'"prediction"' not in value[:14]:
            self.rows += 1  # an in-band event
            return self.rows >= LAST
        example = self.decode(value)
        return self.learn(example.prediction.features, example.label)

    def learn(self, x: dict[str, float], y: bool) -> bool:
        """Predict, score and learn one example; True after the last."""
        p = self.model.predict_proba_one(x).get(True, 0.5)
        score = (p >= 0.5) is y, -math.log(max(p if y else 1 - p, 1e-15))
        self.window.append(score)
        self.hits += score[0]
        self.loss += score[1]
        if len(self.window) > WINDOW:
            old = self.window.popleft()
            self.hits -= old[0]
            self.loss -= old[1]
        self.model.learn_one(x, y)
        self.rows += 1
        if self.rows == FIRST:
            self.began = time.process_time(), time.perf_counter()
        return self.rows >= LAST

    def commit_due(self) -> bool:
        """Whether a second passed since the last commit."""
        if time.monotonic() < self.next_commit:
            return False
        self.next_commit = time.monotonic() + COMMIT_S
        return True

    def report(self) -> None:
        """Print what it took, as JSON, on the last line of the output."""
        rows = self.rows - FIRST
        cpu, wall = time.process_time() - self.began[0], time.perf_counter() - self.began[1]
        versions = {}
        for name in self.packages:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                versions[name] = "?"
        told = {"rows": rows, "cpu": cpu / rows * 1e6, "wall": wall / rows * 1e6, "versions": versions}
        os.write(1, f"\n{json.dumps(told)}\n".encode())  # Faust takes sys.stdout away
