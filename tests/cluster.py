"""Three brokers of genuine Kafka on this machine, each a controller too, that a test kills, freezes and restarts."""

import contextlib
import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor

from chaos import FREEZE_S, SEED
from confluent_kafka import ElectionType, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from headrace.infra import local_broker

NODES = (1, 2, 3)
# as in production: what two of three have is written
REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    # three on a small machine may be late
    "broker.session.timeout.ms": "6000",
    "initial.broker.registration.timeout.ms": "300000",
}
SOON_S, PAST_SESSION_S = 1.0, 8.0  # when one that was killed is started again; a session lasts 6 s


class Cluster:
    """What is done to a node at once is done here; what must follow is returned as (seconds from now, what to do)."""

    def __init__(self, folder):
        self._homes = {node: folder / f"node-{node}" for node in NODES}
        self._ports = {node: (local_broker.free_port(), local_broker.free_port()) for node in NODES}
        self._chance = random.Random(SEED)
        self._pids, self._frozen = {}, set()
        self._work, self._under_way = ThreadPoolExecutor(len(NODES)), []
        self.address = ",".join(self.address_of(node) for node in NODES)
        self.done = []

    def address_of(self, node):
        return f"127.0.0.1:{self._ports[node][0]}"

    def start(self, *nodes):
        """Start these and wait until they answer; the first ones only do when there are two of them."""
        list(self._work.map(self._start, nodes))

    def close(self):
        self._work.shutdown()
        for node in self._frozen:
            os.kill(self._pids[node], signal.SIGCONT)
        for node in NODES:
            self._kill(node)
            local_broker.stop_local_broker(self._homes[node])

    def kill(self, *nodes, after_s=SOON_S):
        """With -9, and start them again some time after."""
        self.done.append(f"kill {nodes}")
        for node in nodes:
            self._kill(node)
        return [(after_s, lambda: self._begin(self.start, *nodes))]

    def restart(self):
        """Kill any one."""
        return self.kill(self._chance.choice(NODES), after_s=self._chance.choice((SOON_S, PAST_SESSION_S)))

    def stop_and_start(self, node):
        """As in a rolling restart: the node hands over what it leads, ends by itself and comes back."""
        self.done.append(f"stop {node}")
        self._begin(self._stop_and_start, node)
        return []

    def freeze(self, node):
        """It stands still until all others take it for dead, and then goes on as if nothing had been."""
        self.done.append(f"freeze {node}")
        self._frozen.add(node)
        os.kill(self._pids[node], signal.SIGSTOP)
        return [(FREEZE_S, lambda: self._go_on(node))]

    def elect_preferred(self):
        """Leaders move though nobody is gone: each partition goes back to the first of its replicas."""
        self.done.append("elect")
        with contextlib.suppress(KafkaException):  # none has to move
            self._admin().elect_leaders(ElectionType.PREFERRED, None).result(30)
        return []

    def leader(self, topic, partition=0):
        return self._admin().list_topics(topic, timeout=10).topics[topic].partitions[partition].leader

    def leader_moves(self, topics):
        """How often a partition of these topics got a new leader, or the same one anew, since it was made."""
        admin = self._admin()
        known = admin.list_topics(timeout=10).topics
        places = [TopicPartition(topic, number) for topic in topics for number in known[topic].partitions]
        found = admin.list_offsets({place: OffsetSpec.latest() for place in places})
        return sum(future.result(10).leader_epoch for future in found.values())

    def is_whole(self):
        """Whether every partition has its leader, and all of its replicas are in sync."""
        self._under_way = [work for work in self._under_way if not work.done() or work.result()]
        if self._under_way or self._frozen:
            return False
        try:
            found = self._admin().list_topics(timeout=2).topics.values()
        except KafkaException:
            return False
        parts = [part for topic in found for part in topic.partitions.values()]
        return all(part.leader > 0 and len(part.isrs) == len(part.replicas) for part in parts)

    def replicas(self):
        """How many replicas each topic has, at least."""
        found = self._admin().list_topics(timeout=10).topics
        return {name: min(len(p.replicas) for p in topic.partitions.values()) for name, topic in found.items()}

    def _admin(self):
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def _begin(self, work, *nodes):
        self._under_way.append(self._work.submit(work, *nodes))

    def _start(self, node):
        port, controller_port = self._ports[node]
        quorum = ",".join(f"{one}@127.0.0.1:{controller}" for one, (_, controller) in self._ports.items())
        settings = REPLICATED | {
            "node.id": str(node),
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "controller.quorum.voters": quorum,
        }
        started = local_broker.start(self._homes[node], port, say=lambda text: None, settings=settings)
        self._pids[node] = started.pid

    def _stop_and_start(self, node):
        local_broker.stop_local_broker(self._homes[node])
        self._start(node)

    def _kill(self, node):
        with contextlib.suppress(ProcessLookupError, ChildProcessError, KeyError):
            os.kill(self._pids[node], signal.SIGKILL)
            os.waitpid(self._pids[node], 0)

    def _go_on(self, node):
        os.kill(self._pids[node], signal.SIGCONT)
        self._frozen.discard(node)
