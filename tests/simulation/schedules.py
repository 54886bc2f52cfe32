"""Runs schedules, shrinks those that fail, and says how to see them again."""

import hashlib
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from structlog.testing import capture_logs

from headrace.schemas.codec import CONTROL_EVENTS, DECODERS, TYPE_OF
from headrace.schemas.control import PipelineReleased
from tests.simulation.faults import is_life, schedule
from tests.simulation.history import happened
from tests.simulation.life import short
from tests.simulation.log import logs_of
from tests.simulation.oracle import judged
from tests.simulation.plant import Plant

IN_MEMORY = Path("/dev/shm")


@dataclass
class Outcome:
    """What came of one schedule: what is wrong, a digest of the logs, how many records stand there twice, and how often
    which fault struck which service.
    """

    wrong: list[str]
    digest: str
    repeats: int
    struck: Counter = field(default_factory=Counter)


def run(seed, partitions, keep=None, mutant=None):
    """Let a seed's schedule happen and judge it. `keep`: only the faults of these numbers. `mutant`: one of
    `MUTANTS`; the judge sees the code as it is.
    """
    faults = [fault for fault in schedule(seed) if keep is None or fault.number in keep]
    home = new_home()
    plant = None
    with decoding_once(), short() if is_life(seed) else nullcontext():
        try:
            with capture_logs() as said, mutant() if mutant is not None else nullcontext():
                plant = Plant(home, seed, partitions, faults)
                plant.run()
            for line in said:  # of checkpoints: restored, refused, failed
                plant.struck[line["fold"].partition("-")[0], line["event"]] += 1
                if line["event"] == "checkpoint failed":
                    plant.wrong(f"{line['fold']}: {line['reason']}")
            logs = logs_of(plant.bus)
            repeats = sum(len(log.all) - len(log.kept) for log in logs.values())
            if is_life(seed):
                plant.struck.update(("life", what) for what in happened(logs))
            return Outcome(judged(plant, logs), digest_of(logs), repeats, plant.struck)
        finally:
            for process in plant.live if plant is not None else ():
                process.die()
            shutil.rmtree(home, ignore_errors=True)


@contextmanager
def decoding_once():
    """Each record's control event is decoded for its first reader; the others get the same one, which is frozen.

    Not a release: its markers share their bytes, and a state would share policies that a restart makes two of.
    """
    decoded = {}

    def once(decode):
        def decode_once(body):
            if id(body) not in decoded:
                decoded[id(body)] = body, decode(body)  # an id belongs to one object only while that lives
            return decoded[id(body)][1]

        return decode_once

    names = [TYPE_OF[kind] for kind in CONTROL_EVENTS.values() if kind is not PipelineReleased]
    with patch.dict(DECODERS, {name: once(DECODERS[name]) for name in names}):
        yield


def partitions_of(seed):
    """How many partitions a seed's pipeline has, unless asked otherwise: one and three in turn."""
    return (1, 3)[seed % 2]


def new_home():
    """An empty folder, in memory where the system has such a place."""
    return Path(tempfile.mkdtemp(prefix="simulated-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))


def digest_of(logs):
    """Of the bytes and known times in every topic but verdicts, which say how long judging took, and their copies."""
    told = hashlib.sha256()
    for topic, log in logs.items():
        if topic not in ("model-validations", "control-log"):
            for message in log.all:
                told.update(b"%b %d %b\n" % (topic.encode(), message.timestamp()[1], message.value()))
    return told.hexdigest()


def shrunk(seed, partitions, **broken):
    """The numbers of the faults that it takes to make the schedule fail; `broken` is passed on to `run`."""
    keep = [fault.number for fault in schedule(seed)]
    for number in list(keep):
        fewer = [n for n in keep if n != number]
        if run(seed, partitions, fewer, **broken).wrong:
            keep = fewer
    return keep


def report(seed, partitions, wrong, **broken):
    """A failed schedule in words: the faults that it takes, what was wrong, the line that replays it."""
    keep = shrunk(seed, partitions, **broken)
    lines = [f"seed {seed} with {partitions} partition(s) fails:"]
    lines += [f"  {fault}" for fault in schedule(seed) if fault.number in keep]
    lines += [f"  {what[:600]}" for what in run(seed, partitions, keep, **broken).wrong or wrong]
    numbers = ",".join(map(str, keep)) or "none"
    return "\n".join([*lines, f"replay: python -m tests.simulation --seed {seed} -p {partitions} --keep {numbers}"])
