"""One process of a service: its real parts on watched wires, until it ends, is killed, or stands still."""

import importlib
import json
import os
import shutil
from functools import cache

from headrace.infra.checkpoints import ROOT as CHECKPOINTS
from headrace.infra.service import Wiring
from headrace.infra.settings import Settings
from headrace.schemas.record import SEQUENCES_PER_OFFSET
from tests.simulation.wires import WatchedArtifacts, WatchedBus, WatchedCheckpoints, WatchedStore

KEY = b"simulated"


@cache
def _settings():
    """Read once: reading takes longer than all else that a start does."""
    return Settings(artifact_key=KEY.decode(), namespace="")


def settings_of(plant, instance):
    """The settings of the processes of one instance."""
    home = plant.home
    folders = {"home": home, "state_dir": home / "state", "artifact_url": str(home / "artifacts")}
    more = {"instance": instance, "checkpoint_s": plant.chance.checkpoint_s}
    return _settings().model_copy(update=folders | more)


class Killed(BaseException):
    """kill -9; not an Exception, so that no code can survive it."""


class Process:
    """`service` as `instance`. Its parts may be ticked; it may be killed in the middle of anything."""

    def __init__(self, plant, service, instance, armed=()):
        self.plant, self.service, self.instance = plant, service, instance
        self.armed = [(fault, fault.nth) for fault in armed]
        self.producers, self.consumers, self.stores, self.parts = [], [], [], []
        self.frozen, self.fate = False, None
        settings = settings_of(plant, instance)
        self.home = settings.state_dir / instance / service
        checkpoints = WatchedCheckpoints(self, settings.artifact_url, KEY, self._folder_of)
        wiring = Wiring(
            settings,
            WatchedBus(self, plant.bus),
            WatchedArtifacts(self, settings.artifact_url, KEY),
            KEY,
            self._open_store,
            timing={"commit_s": plant.commit_s, "follow_s": 0.0, "clock": lambda: plant.now_ms / 1000},
            inline_jobs=True,
            clock_ms=lambda: plant.now_ms,
            checkpoints=checkpoints if plant.chance.checkpoint_s is not None else None,
        )
        self.parts += importlib.import_module(f"headrace.services.{service}.__main__").build(wiring)

    def tick(self):
        """One turn of all parts. Raises Killed."""
        self.reach("idle")
        return sum([part.tick(0.0) for part in self.parts])

    def reach(self, point):
        """The process comes to a point: it may die here (Killed is raised) or stand still for a while."""
        for position, (fault, left) in enumerate(self.armed):
            if fault.point == point:
                if left > 1:
                    self.armed[position] = (fault, left - 1)
                    return
                del self.armed[position]
                self.plant.fates.strike(self, fault)
                return

    def awaits(self, point):
        """Whether something is to happen at a point: then it is reached in small steps."""
        return any(fault.point == point for fault, _ in self.armed)

    def told(self, headers):
        """A record is published: nothing that the group's offset says was flushed is told again."""
        source, sequence = (v.decode() if isinstance(v, bytes) else v for v in (headers[2][1], headers[4][1]))
        _, service, pipeline, place = [*source.split("/", 3), "", "", ""][:4]
        if service != self.service or (service == "trainer" and pipeline != "-"):
            return  # a copy, or a run: its newest snapshot is its state, and it is never silent
        topic_id, _, partition = place.partition("/")
        for consumer in self.consumers:
            for (topic, number), end in consumer.silent_to.items():
                if (
                    partition == str(number)
                    and self.plant.bus.topic_id(topic).startswith(topic_id)
                    and int(sequence) // SEQUENCES_PER_OFFSET < end
                ):
                    self.plant.wrong(f"{source} tells {sequence} again, which was flushed up to offset {end}")

    def die(self):
        """What kill -9 leaves: files and what is under way. What waits in the producers may still arrive, or not."""
        for store in self.stores:
            store.die()
        if self.plant.chance.below(2):
            self.plant.fates.orphans += [producer.inner for producer in self.producers]
        self.parts, self.stores = [], []

    def stop(self):
        """A clean stop, as on SIGTERM."""
        for part in self.parts:
            part.close()
        self.parts, self.stores = [], []

    def end_sessions(self):
        """The broker heard nothing of it for too long."""
        for consumer in self.consumers:
            consumer.end_session()

    def be_deaf(self, deaf):
        """Whether it hears of its session's end."""
        for consumer in self.consumers:
            consumer.deaf = deaf

    def _folder_of(self, fold, place):
        return self.home / fold / f"{place[0]}-{place[1]}"

    def _open_store(self, fold, place):
        store = WatchedStore(self, fold, place, self._folder_of(fold, place), KEY)
        self.stores.append(store)
        return store


def spoil_disk(process, backup, disk):
    """What a new process finds: its own files, none, older ones; or none and the newest checkpoints torn."""
    home = process.home
    if disk != "kept":
        shutil.rmtree(home, ignore_errors=True)
    if disk == "older" and backup.exists():
        shutil.copytree(backup, home)
    if disk == "torn":
        artifacts = process.plant.home / "artifacts"
        for place in artifacts.glob(f"{CHECKPOINTS}/{process.service}-*/*"):
            for manifest in sorted(place.glob("*.json"))[-1:]:
                copy = artifacts / json.loads(manifest.read_bytes())["copy"]
                if copy.exists():
                    os.truncate(copy, copy.stat().st_size // 2)
