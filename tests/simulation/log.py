"""A topic of the in-process log as a reader sees it. Knows nothing of the code that drops repeats."""

from headrace.schemas.codec import DECODERS, ORIGIN, TYPE_OF, header
from headrace.schemas.control import ModelValidated, SnapshotTaken
from headrace.schemas.stream import PredictionMade
from tests.simulation import pipeline_source as rain

FIRST_ONE_WINS = {TYPE_OF[kind] for kind in (PredictionMade, SnapshotTaken, ModelValidated)}
NUMBERED_BY_OFFSET = (rain.ARRIVED, "operator-requests", "ticks")


def logs_of(bus):
    """Every topic by its name."""
    return {topic: Log(bus, topic) for topic in bus.topics()}


class Log:
    """A topic without its repeats: of each place, source and sequence the first. Knows nothing of `Incoming`."""

    def __init__(self, bus, topic):
        self.topic, self.all, self.kept, self.unequal = topic, [], [], []
        first_of = {}
        for partition in range(bus.partitions(topic)):
            self.all += bus.read((topic, partition), 0, 1_000_000)
        for message in self.all:
            first = first_of.setdefault(_written(message), message)
            if first is message:
                self.kept.append(message)
            elif type_of(message) not in FIRST_ONE_WINS and comparable(first) != comparable(message):
                self.unequal.append(f"{topic}: a repeat says {says(message)}, the first one {says(first)}")

    def read(self, partition):
        """The messages of one partition that count for a reader."""
        messages = self.all if self.topic in NUMBERED_BY_OFFSET else self.kept
        return [message for message in messages if message.partition() == partition]


def heard(messages, start, sequences):
    """What a reader hears that begins at an offset and has seen these sequences: of each source only larger ones."""
    seen, found = dict(sequences), []
    for message in messages:
        source, sequence = header(message.headers(), "ce_source", 2), sequence_of(message)
        if message.offset() >= start and sequence > seen.get(source, -1):
            seen[source] = sequence
            found.append(message)
    return found


def events_of(log):
    """The events of a topic that count, in order."""
    return [DECODERS[type_of(message)](message.value()) for message in log.kept]


def _written(message):
    """What makes a repeat a repeat; users' records have none of it but their place."""
    headers = dict(message.headers())
    if headers["ce_source"] == b"you" and ORIGIN not in headers:
        return message.partition(), message.offset()
    place = headers.get(ORIGIN, b"").rpartition(b"/")[0]
    return message.partition(), place, headers["ce_source"], headers["ce_sequence"]


def sequence_of(message):
    """The envelope's sequence."""
    return int(header(message.headers(), "ce_sequence", 4))


def type_of(message):
    """The event's type."""
    return header(message.headers(), "ce_type", 3)


def says(message):
    """Key, body and known time."""
    return message.key(), message.value(), message.timestamp()[1]


def comparable(message):
    """What must be equal when made again; of a prediction all but what the arms say."""
    if message.topic() == rain.ARRIVED:
        return message.key(), message.value()  # it has the broker's time
    if type_of(message) != TYPE_OF[PredictionMade]:
        return says(message)
    made = DECODERS[TYPE_OF[PredictionMade]](message.value())
    return (
        message.key(), message.timestamp()[1], made.id, made.time, made.features, made.release, made.origin,
        made.entity, made.baselines,
    )  # fmt: skip
