"""What users and the scheduler write into the log of a plant, item by item of a script."""

from datetime import UTC, datetime

from headrace.cli import bad_range
from headrace.errors import Missing
from headrace.schemas.codec import DECODERS, TYPE_OF, encode, headers_of
from headrace.schemas.control import ModelUpdated, PromotionAsked, ReleaseAsked, RollbackAsked, TrainingAsked
from headrace.schemas.signing import sign
from headrace.schemas.stream import ExampleArrived, Tick
from headrace.schemas.topics import full_name
from tests.simulation import life
from tests.simulation import pipeline_source as rain
from tests.simulation.log import type_of
from tests.simulation.process import KEY
from tests.simulation.script import NIGHT_MS, script

SNAPSHOTS = full_name("<p>.snapshots", rain.NAME)
WISHES = ("train", "promote", "roll back", "return", "bar", "bar beside", "break")


class Users:
    """They append to `plant.bus` at `plant.now_ms`; their records arrive at once."""

    def __init__(self, plant, seed):
        self._plant = plant
        write = life.script if plant.is_life else script
        self._left, self._released, self._asked, self._wishes = write(seed, plant.partitions)[::-1], 0, 0, []
        self._broke_ms = None

    def publish(self):
        """The next item, if any is left. Returns whether there was one."""
        self._wishes = [what for what in self._wishes if not self._ask(what)]
        if not self._left:
            return False
        item = self._left.pop()
        if item.what == "release":
            self.release()
        elif item.what == "record":
            self._say(rain.ARRIVED, item.partition, item.event)
            if self._broke_ms is None and getattr(item.event, "features", {}).get("wind") == rain.BREAKING:
                self._broke_ms = self._plant.now_ms
        elif item.what in WISHES:
            self._wishes.append(item.what)
        else:
            self._plant.now_ms += NIGHT_MS if item.what == "night" else 0
            self.tick()
        return True

    def release(self):
        """Ask for the next release."""
        self._released += 1
        asked = ReleaseAsked(
            pipeline=rain.NAME,
            request=f"release-{self._released}",
            by="ann",
            definition=rain.definition(self._released, self._plant.artifacts, self._plant.kind),
            partitions=self._plant.partitions,
            topic_id=self._plant.bus.topic_id(rain.ARRIVED),
        )
        self._say("operator-requests", 0, asked)

    def tick(self):
        """The minute's Tick into every partition, as the scheduler writes it."""
        due = datetime.fromtimestamp(self._plant.now_ms // 60_000 * 60, UTC)
        tick = sign(KEY, Tick(schedule="minute", due=due, pipeline=rain.NAME))
        for partition in range(self._plant.partitions):
            self._say(rain.ARRIVED, partition, tick)
        self._say("ticks", 0, Tick(schedule="minute", due=due))

    def _ask(self, what):
        """Ask for what a person wishes, once the log shows what it concerns. Returns whether it was asked for."""
        moves = self._events("model-updates")
        named = {}
        for move in moves:
            if isinstance(move, ModelUpdated):
                named[move.alias] = move
            else:
                named.pop(move.alias, None)
        concerned = {"promote": "challenger", "roll back": "previous"}.get(what, "champion")
        if concerned not in named:
            return False
        if what == "break":
            return self._break(named)
        if what.startswith("bar"):
            beside = named.keys() & {"challenger", "previous"}
            return False if what == "bar beside" and not beside else self._bar()
        if what == "return" and (named["champion"].version == 1 or "previous" in named):
            return False  # version 1 serves, or stands by
        self._asked += 1
        more = {"pipeline": rain.NAME, "request": f"{what}-{self._asked}", "by": "ann"}
        if what == "train":
            end = self._plant.bus.offsets((rain.LABELLED, 0))[1]
            asked = TrainingAsked(start=end, seed=self._asked, **more)
        elif what == "promote":
            asked = PromotionAsked(version=named["challenger"].version, forced=True, **more)
        elif what == "roll back":
            asked = RollbackAsked(**more)
        else:
            first = next(move for move in moves if isinstance(move, ModelUpdated))
            taken = [event for event in self._events(SNAPSHOTS) if first.run in event.runs][-1]
            uri = taken.runs[first.run].uri
            asked = RollbackAsked(version=first.version, uri=uri, snapshot_offset=taken.offset, **more)
        self._say("operator-requests", 0, asked)
        return True

    def _break(self, named):
        """A row that breaks what serves once more, where the first one led to another champion with an anchor."""
        if "anchor" not in named or named["champion"].version == 1:
            return False
        time = datetime.fromtimestamp(self._plant.now_ms / 1000, UTC)
        broken = ExampleArrived(id="again", time=time, features={"t": 1.0, "wind": rain.BREAKING}, label=True)
        self._say(rain.ARRIVED, 0, broken)
        return True

    def _bar(self):
        """Ask, as `headrace rollback --from --to` does, to go back to before all since what broke the model came."""
        since_ms = self._broke_ms
        if since_ms is None or not self._came(since_ms, since_ms + 1):
            return False
        found = self._came(since_ms, self._plant.now_ms + 1)
        self._asked += 1
        asked = RollbackAsked(pipeline=rain.NAME, request=f"bar-{self._asked}", by="ann", **found.fields())
        self._say("operator-requests", 0, asked)
        return True

    def _came(self, from_ms, to_ms):
        """What was joined of a time; None where nothing was yet."""
        try:
            return bad_range.look_up(rain.NAME, from_ms, to_ms, self._plant.bus, self._plant.artifacts)
        except Missing:
            return None

    def _events(self, topic):
        messages = self._plant.bus.read((topic, 0), 0, 1_000_000)
        return [DECODERS[type_of(message)](message.value()) for message in messages]

    def _say(self, topic, partition, event):
        key = getattr(event, "id", rain.NAME).encode()
        headers = headers_of(TYPE_OF[type(event)], "you", 0)
        self._plant.bus.append(topic, partition, key, encode(event), headers, self._plant.now_ms)
