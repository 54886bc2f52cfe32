"""What lies between clients and a genuine broker, and fails: requests refused, lost, answered into the void, late."""

import contextlib
import socket
import struct
import threading
import time
from typing import NamedTuple

PRODUCE, LIST_OFFSETS = 0, 2
NOT_LEADER = 6
LATE_S = 0.3
# what may become of a request: its broker refuses it (a produce request of one partition), it never arrives, its
# answer never comes; the connection breaks with the last two
REFUSED, LOST, UNANSWERED, LATE = "refused", "lost", "unanswered", "late"


class Request(NamedTuple):
    """A request of Kafka's protocol as far as it matters here; `socket` is the client's end."""

    api: int
    version: int
    correlation: int
    client: str
    socket: socket.socket
    frame: bytes


class Network:
    """A proxy at `address`; `fault(request)` says what becomes of a request, None for nothing, or is its answer.

    Many threads ask it.
    """

    def __init__(self, broker_port, fault=lambda request: None):
        self.fault, self._broker_port = fault, broker_port
        self._listener, self._open = socket.create_server(("127.0.0.1", 0)), set()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        for one in [self._listener, *self._open]:
            _hang_up(one)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                Connection(self, client, socket.create_connection(("127.0.0.1", self._broker_port)))

    def settings(self):
        """The broker's, so that clients come back to this address."""
        return {"advertised.listeners": f"PLAINTEXT://{self.address}"}


class Connection:
    """One client's, passed on in both directions until either ends it, or a fault does."""

    def __init__(self, network, client, broker):
        self._network, self._client, self._broker = network, client, broker
        self._unanswered, self._writing = set(), threading.Lock()
        network._open |= {client, broker}
        for work in (self._requests, self._answers):
            threading.Thread(target=self._until_it_ends, args=(work,), daemon=True).start()

    def _until_it_ends(self, work):
        with contextlib.suppress(OSError):
            work()
        for one in (self._client, self._broker):
            self._network._open.discard(one)
            _hang_up(one)

    def _requests(self):
        for frame in frames(self._client):
            request = parsed(frame, self._client)
            fault = self._network.fault(request)
            if fault == LOST:
                return
            if fault == REFUSED or isinstance(fault, bytes):
                self._answer(refusal(request) if fault == REFUSED else fault)
                continue
            if fault == LATE:
                time.sleep(LATE_S)  # it is the fault
            elif fault == UNANSWERED:
                self._unanswered.add(request.correlation)
            self._broker.sendall(struct.pack(">i", len(frame)) + frame)

    def _answers(self):
        for frame in frames(self._broker):
            if int.from_bytes(frame[:4], "big") in self._unanswered:
                return
            self._answer(frame)

    def _answer(self, frame):
        with self._writing:
            self._client.sendall(struct.pack(">i", len(frame)) + frame)


def frames(end):
    """What comes from a socket, message by message."""
    with end.makefile("rb") as incoming:
        while len(size := incoming.read(4)) == 4:
            frame = incoming.read(int.from_bytes(size, "big"))
            if len(frame) < int.from_bytes(size, "big"):
                return
            yield frame


def parsed(frame, client):
    api, version, correlation, length = struct.unpack(">hhih", frame[:10])
    return Request(api, version, correlation, frame[10 : 10 + max(0, length)].decode(), client, frame)


def place_of(request):
    """Topic and partition of a produce request (versions 9 to 12), None where it has several."""
    assert 9 <= request.version <= 12, f"a produce request of version {request.version}"
    at = 10 + len(request.client) + 1  # and no tags
    at += 1 + 2 + 4  # no transaction; acks, timeout
    topics, length = request.frame[at], request.frame[at + 1] - 1
    topic = request.frame[at + 2 : at + 2 + length]
    at += 2 + length
    partitions, partition = request.frame[at], int.from_bytes(request.frame[at + 1 : at + 5], "big")
    return (topic, partition) if (topics, partitions) == (2, 2) and length < 127 else None


def refusal(request):
    """The answer to a produce request that another broker leads the partition."""
    topic, partition = place_of(request)
    none = no_tags = b"\x00"
    told = struct.pack(">ihqqq", partition, NOT_LEADER, -1, -1, -1) + b"\x01" + none + no_tags
    body = b"\x02" + bytes([len(topic) + 1]) + topic + b"\x02" + told + no_tags + struct.pack(">i", 0) + no_tags
    return struct.pack(">i", request.correlation) + no_tags + body


def end_of_an_empty_log(request, topic):
    """The answer to a request for offsets (version 7): partition 0 of this topic holds nothing."""
    assert request.version == 7, f"a request for offsets of version {request.version}"
    no_tags = b"\x00"
    told = struct.pack(">ihqqi", 0, 0, -1, 0, 0) + no_tags
    body = struct.pack(">i", 0) + b"\x02" + bytes([len(topic) + 1]) + topic + b"\x02" + told + no_tags + no_tags
    return struct.pack(">i", request.correlation) + no_tags + body


def _hang_up(end):
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
