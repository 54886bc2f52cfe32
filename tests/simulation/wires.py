"""What one process of the simulation is connected with: the in-process log, LMDB and a folder of artifacts, watched.

Nothing is replaced. Every wire tells its process which point it reaches, where the process may die or stand still.
"""

from headrace.infra.artifacts import Artifacts
from headrace.infra.checkpoints import Checkpoints
from headrace.infra.store import Store


class WatchedBus:
    """The in-process log as one process sees it."""

    def __init__(self, process, bus):
        self._process, self._bus = process, bus

    def __getattr__(self, name):
        return getattr(self._bus, name)

    def producer(self, name):
        made = WatchedProducer(self._process, self._bus.producer(name))
        self._process.producers.append(made)
        return made

    def group_consumer(self, group, instance, on_assign, on_revoke, on_lost):
        made = WatchedConsumer(self._process, self._bus, group, instance, on_assign, on_revoke, on_lost)
        self._process.consumers.append(made)
        return made


class WatchedProducer:
    """A producer; `inner` may hold records that wait to arrive when its process dies."""

    def __init__(self, process, inner):
        self._process, self.inner = process, inner
        self.poll, self.push, self.close = inner.poll, inner.push, inner.close

    def produce(self, topic, partition, key, value, headers, timestamp_ms):
        self._process.reach("publish")
        self._process.told(headers)
        self.inner.produce(topic, partition, key, value, headers, timestamp_ms)

    def flush(self):
        if any(self.inner._waiting.values()):
            self._process.reach("flush")
        self.inner.flush()


class WatchedConsumer:
    """A member of a group. `deaf`: it works on with what it was given, as one whose session ended and who did not
    hear of it yet.
    """

    def __init__(self, process, bus, group, instance, on_assign, on_revoke, on_lost):
        self._process, self.group, self.instance = process, group, instance
        self._on_assign, self._on_revoke = on_assign, on_revoke
        self.deaf = False
        self.silent_to = {}
        self.inner = bus.group_consumer(group, instance, self._assign, self._revoke, on_lost)
        self.subscribe, self.committed, self.seek = self.inner.subscribe, self.inner.committed, self.inner.seek
        self.close = self.inner.close

    def end_session(self):
        """The broker heard nothing of it for too long, or of one that was it before."""
        self._process.plant.bus.end_session(self.group, self.instance)

    def poll(self, limit, timeout_s):
        limit = 1 if self._process.awaits("catch-up") else self._process.plant.batch(limit)
        positions = self.inner._positions
        # the last record folded is read again, so a place may stand one before its state
        if any(positions.next.get(place, end) < end - 1 for place, end in self.silent_to.items()):
            self._process.reach("catch-up")
        return positions.take(limit) if self.deaf else self.inner.poll(limit, 0.0)

    def commit(self, offsets):
        self._process.reach("mirror")
        self.inner.commit(offsets)
        self._process.plant.sample(self, list(offsets))

    def _assign(self, places):
        self._process.reach("rebalance")
        starts = self._on_assign(places)
        committed = self.inner.committed(places)
        self.silent_to |= {place: committed.get(place, 0) for place in places}
        self._process.reach("rebalance")
        return starts

    def _revoke(self, places):
        self._process.reach("rebalance")
        self._on_revoke(places)
        self._process.reach("rebalance")


class WatchedStore:
    """A fold's LMDB."""

    def __init__(self, process, fold, place, folder, key):
        self._process, self._group, self._place = process, f"headrace-{fold}", place
        self.inner = Store.open(folder, key)
        self.folder, self.load, self.table, self.copy = folder, self.inner.load, self.inner.table, self.inner.copy

    def commit(self, offset, sequences, fields, meta):
        self._process.reach("commit")
        self.inner.commit(offset, sequences, fields, meta)
        self._process.plant.is_durable(self._group, self._place, offset)

    def close(self):
        self._process.stores.remove(self)
        self.inner.close()

    def die(self):
        """What the system does to a killed process's files: nothing is tidied up."""
        suspect = self.inner._suspect.exists()
        self.inner.close()
        if suspect:
            self.inner._suspect.touch()


class WatchedArtifacts(Artifacts):
    """The artifact store; a process may also die before an artifact is stored."""

    def __init__(self, process, url, key):
        super().__init__(url, key)
        self._process = process

    def put(self, data, manifest):
        self._process.reach("publish")
        return super().put(data, manifest)


class WatchedCheckpoints(Checkpoints):
    """The checkpoints of one process; it may die while it takes one or goes back to one."""

    def __init__(self, process, url, key, folder_of):
        super().__init__(url, key, folder_of)
        self._process, self._files = process, WatchedFiles(process, self._files)

    def save(self, store, fold, place, pause=None):
        if self._process.plant.is_settling:
            return None  # nothing befalls who comes to rest; a copy costs 2 ms
        return super().save(store, fold, place, pause)

    def restore(self, fold, place, topic_id):
        self._process.reach("rebalance")
        found = super().restore(fold, place, topic_id)
        self._process.reach("rebalance")
        return found


class WatchedFiles:
    """The files of the artifact store as checkpoints use them; who is killed in a copy leaves half of one."""

    def __init__(self, process, inner):
        self._process, self._inner = process, inner
        self.read, self.names, self.chunks, self.delete = inner.read, inner.names, inner.chunks, inner.delete

    def take(self, name, pieces, stage, pause=None):
        try:
            self._process.reach("upload")
        except BaseException:
            self._inner.write(f"{name}.0000.tmp", b"half of it")
            raise
        self._inner.take(name, pieces, stage, pause)

    def write(self, name, data):
        self._process.reach("upload")
        self._inner.write(name, data)
