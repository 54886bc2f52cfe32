"""A compact copy of one LMDB snapshot as a stream: nothing is written twice, and nobody waits for it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

import lmdb

PIECE_BYTES = 1 << 20
IN_MEMORY = hasattr(os, "memfd_create")  # on Linux


class CopyGivenUp(Exception):
    """Something more urgent wanted the environment."""


@contextlib.contextmanager
def pieces_of(
    env: lmdb.Environment, txn: lmdb.Transaction, is_given_up: Callable[[], bool]
) -> Iterator[Iterator[bytes]]:
    """The copy in pieces of a megabyte, as `txn` sees the environment. Raises lmdb.Error, CopyGivenUp.

    LMDB writes into a pipe in a thread of its own, without the interpreter's lock; who reads slowly slows it down.
    What is one piece is copied in memory at once: a thread and its heap would cost ten times as much.
    """
    if IN_MEMORY and (env.info()["last_pgno"] + 1) * env.stat()["psize"] <= PIECE_BYTES:
        yield iter([_in_memory(env, txn)])
        return
    reading, writing = os.pipe()
    failures: list[lmdb.Error] = []

    def copy() -> None:
        try:
            env.copyfd(writing, compact=True, txn=txn)
        except lmdb.Error as error:
            failures.append(error)
        finally:
            os.close(writing)

    thread = threading.Thread(target=copy, name="copy", daemon=True)
    with open(reading, "rb", PIECE_BYTES) as stream:
        thread.start()
        try:
            yield _pieces(stream, is_given_up, failures)
        finally:
            stream.close()  # the copy ends when nobody reads it
            thread.join()


def _in_memory(env: lmdb.Environment, txn: lmdb.Transaction) -> bytes:
    memory = os.memfd_create("copy")
    try:
        env.copyfd(memory, compact=True, txn=txn)
        return os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)


def _pieces(stream: BinaryIO, is_given_up: Callable[[], bool], failures: list[lmdb.Error]) -> Iterator[bytes]:
    while piece := stream.read(PIECE_BYTES):
        if is_given_up():
            raise CopyGivenUp("the store must grow first")
        yield piece
    if failures:
        raise failures[0]
