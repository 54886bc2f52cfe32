"""A schedule: numbered faults, drawn from a seed. Each strikes on its own, so any of them can be left out."""

import random
from dataclasses import dataclass

SERVICES = (
    "validator", "predictor", "joiner", "trainer", "evaluator", "monitor", "sequencer", "orchestrator", "registry",
)  # fmt: skip
TURNS = dict(zip(SERVICES, (4, 4, 4, 4, 2, 2, 3, 1, 1), strict=True))  # how often each is ticked
POINTS = {
    "publish": "before a record is handed to the producer",
    "flush": "after publishing, before the flush of what still waits: it may be lost",
    "commit": "after the flush, before the state is committed",
    "mirror": "after the commit, before the group's offset follows",
    "idle": "between two ticks",
    "catch-up": "silent behind the group's offset, its state lost or stale",
    "rebalance": "while places are taken up or given away",
    "upload": "while a checkpoint is stored, and before its manifest makes it one",
}
READERS = {
    "validator": ("predictor",),
    "predictor": ("joiner",),
    "joiner": ("trainer", "evaluator", "monitor"),
    "monitor": ("sequencer",),
    "sequencer": ("orchestrator", "registry", "trainer", "evaluator"),
    "orchestrator": ("sequencer",),
    "registry": ("sequencer",),
    "trainer": ("sequencer",),
}
KINDS = {"kill": 12, "freeze": 3, "deaf": 2, "expire": 2, "join": 2, "stop": 2, "backup": 3, "stumble": 1}
DATA = ("validator", "predictor", "joiner", "trainer")
UNSEEN = {("monitor", "publish"), ("monitor", "flush")}  # 200 rows are its least reference: here it tells nothing
CRASHES = [(service, point) for service in SERVICES for point in POINTS if (service, point) not in UNSEEN]
OFTEN_FIRST = (1, 1, 1, 2, 3, 5)
DELAYS = (0, 5, 15, 40)
STEPS = 420  # twice as many in a life


def is_life(seed):
    """Whether a seed's schedule is a life of models (life.py): one in nine."""
    return seed % 9 == 7


def has_anchor(seed):
    """Whether the pipeline of a life has an anchor: in every second one, with one and with three partitions."""
    return is_life(seed) and seed // 9 % 4 in (1, 2)


def steps(seed):
    """How long a seed's schedule is."""
    return 2 * STEPS if is_life(seed) else STEPS


@dataclass(frozen=True)
class Fault:
    """What happens from `step` on.

    `kill`: the service dies when it reaches `point` the `nth` time. Its `disk` is kept, lost, an older one (the last
    `backup`), or torn: lost, and its newest checkpoints cut in half. After `delay` steps it starts again, or the other
    instance takes over. `freeze`: it stands still at the point for `delay` steps, its session ends, another takes over,
    then it goes on in the middle of its work. `deaf`: its session ends and it works on for `delay` steps without
    knowing. `expire`: a second instance comes, and one group gives the first one's places away. `join`: a second
    instance comes. `stop`: a clean stop, the other instance takes over. `stumble`: the next learn raises once.
    """

    number: int
    step: int
    kind: str
    service: str = ""
    point: str = "idle"
    nth: int = 1
    delay: int = 0
    disk: str = "kept"
    takeover: bool = False


def schedule(seed):
    """The faults of a seed, in the order of their steps. Who reads what a victim tells twice often falls with it."""
    chance = random.Random(f"faults {seed}")
    count = chance.choice((1, 2, 3, 5, 8, 12))
    service, point = crash_of(seed)
    surely = {"nth": 1} | ({"disk": "lost"} if point == "catch-up" else {})
    drawn = [_kill(chance, service, point) | surely, *(_draw(chance) for _ in range(count - 1))]
    for fault in list(drawn):
        if fault.get("disk") == "older":
            step = max(5, fault["step"] - chance.randrange(10, 120))
            drawn.append({"step": step, "kind": "backup", "service": fault["service"]})
        if fault["kind"] == "kill" and fault["service"] in READERS and chance.random() < 0.5:
            step = fault["step"] + chance.randrange(fault["delay"] + 20)
            reader = chance.choice(READERS[fault["service"]])
            drawn.append({"step": step, "kind": "kill", "service": reader, "delay": chance.choice((0, 5))})
    if is_life(seed):
        drawn = [fault | {"step": 2 * fault["step"]} for fault in drawn]
    drawn.sort(key=lambda fault: fault["step"])
    return [Fault(number, **fault) for number, fault in enumerate(drawn)]


def crash_of(seed):
    """The service and point that a seed's first kill is for: each of them in turn, whatever chance says."""
    return CRASHES[seed // 2 % len(CRASHES)]


def _draw(chance):
    step = chance.randrange(5, STEPS - 40)
    service = chance.choices(SERVICES, (4, 4, 4, 5, 2, 2, 2, 2, 2))[0]
    kind = chance.choices(tuple(KINDS), KINDS.values())[0]
    if kind == "kill":
        return _kill(chance, service, chance.choice(tuple(POINTS)))
    fault = {"step": step, "kind": kind, "service": service, "delay": chance.choice(DELAYS)}
    if kind == "expire":
        fault["nth"] = chance.randrange(2)
    if kind == "freeze":
        fault["point"] = chance.choice(("publish", "flush", "commit", "mirror", "rebalance", "upload"))
        fault["nth"] = chance.choice(OFTEN_FIRST)
    return fault


def _kill(chance, service, point):
    spoiled = ("lost", "older") if point == "catch-up" else ("kept", "kept", "kept", "kept", "lost", "older", "torn")
    return {
        "step": chance.randrange(5, STEPS - 40) if service in DATA else chance.randrange(5, STEPS // 2),
        "kind": "kill",
        "service": service,
        "point": point,
        "nth": chance.choice(OFTEN_FIRST) if service in DATA else 1,
        "delay": chance.choice(DELAYS),
        "disk": chance.choice(spoiled),
        "takeover": chance.random() < 0.25,
    }
