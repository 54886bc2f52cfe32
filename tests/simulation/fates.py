"""What befalls the processes of a plant: who lives, who comes back when, what still arrives of the dead."""

import shutil
import traceback

from tests.simulation import pipeline_source as rain
from tests.simulation.process import Killed, Process, spoil_disk

DEEPEST = 2  # how many may stand still at once


class Fates:
    """Lets the faults of a schedule strike. `live` are the processes of now, `orphans` producers of the dead."""

    def __init__(self, plant, faults):
        self._plant = plant
        self._at = {step: [fault for fault in faults if fault.step == step] for step in {f.step for f in faults}}
        self.live, self.orphans = [], []
        self._coming, self._later = [], []
        self._frozen = 0

    def unfold(self, step):
        """What a step brings: faults, what arrives of the dead, who starts, what was put off until now."""
        for fault in self._at.get(step, ()):
            self._arm(fault)
        for orphan in list(self.orphans):
            if self._plant.chance.below(3):
                orphan.poll()
            else:
                self.orphans.remove(orphan)  # what has not arrived by now never will
        for entry in [entry for entry in self._coming if entry[0] <= step]:
            self._coming.remove(entry)
            self.start(*entry[1:])
        for entry in [entry for entry in self._later if entry[0] <= step]:
            self._later.remove(entry)
            entry[1]()

    def heal(self):
        """No faults any more: everybody lives and hears, everything arrives."""
        rain.walk_steadily()
        self.start_all()
        for process in self.live:
            process.armed.clear()
            process.be_deaf(False)
        for orphan in self.orphans:
            orphan.poll()
        self.orphans.clear()
        self._later.clear()

    def start(self, service, instance, armed=()):
        """A process begins, unless this instance lives."""
        if any(process.instance == instance for process in self._of(service)):
            return
        try:
            self.live.append(Process(self._plant, service, instance, armed))
        except Exception:
            self._plant.wrong(f"{service} {instance} does not start:\n{traceback.format_exc()}")

    def start_all(self):
        """Whoever is to come comes now."""
        for entry in self._coming:
            self.start(*entry[1:3])
        self._coming.clear()

    def start_later(self, delay, process, armed=()):
        """The same instance comes again."""
        self._coming.append((self._plant.step + delay, process.service, process.instance, armed))

    def strike(self, process, fault):
        """The process came to the point. Raises Killed; or lets the others go on, then returns."""
        plant = self._plant
        if fault.kind != "kill" and (self._frozen >= DEEPEST or plant.at_rest):
            return
        plant.struck[process.service, f"{fault.kind} {fault.point}"] += 1
        if fault.kind == "kill":
            process.fate = fault
            raise Killed
        self._frozen += 1
        process.frozen = True
        process.end_sessions()
        self._replace(process, 0)
        for _ in range(fault.delay):
            if plant.step < plant.steps:
                plant.go_on()
        process.frozen = False
        self._frozen -= 1

    def bury(self, process, fault=None):
        """A process is gone, and what it held; sooner or later another one takes its place."""
        armed = (fault,) if fault is not None else ()
        fault = fault or process.fate
        process.die()
        if process in self.live:
            self.live.remove(process)
        if fault is None:
            return
        spoil_disk(process, self._backup_of(process.home), fault.disk)
        if fault.takeover:
            process.end_sessions()
            self._replace(process, fault.delay, armed)
        else:
            self.start_later(fault.delay, process, armed)

    def _arm(self, fault):
        """A fault begins: it strikes at once, or when its process comes to the point."""
        victims = [process for process in self._of(fault.service) if not process.frozen]
        if fault.kind == "stumble":
            self._plant.struck["trainer", "stumble"] += 1
            rain.stumble()
        elif fault.kind == "join":
            self.start(fault.service, "b" if any(p.instance == "a" for p in victims) else "a")
            self._plant.struck[fault.service, "join"] += 1
        elif not victims:
            return
        elif fault.kind == "backup":
            for process in victims:
                self._backup(process)
        elif fault.kind in ("deaf", "expire", "stop"):
            self._plant.struck[fault.service, fault.kind] += 1
            {"deaf": self._deafen, "expire": self._expire, "stop": self._stop}[fault.kind](victims[0], fault)
        elif fault.point in ("catch-up", "rebalance"):
            self.bury(victims[0], fault)  # the one that starts then comes to that point
        else:
            victims[0].armed.append((fault, fault.nth))

    def _of(self, service):
        return [process for process in self.live if process.service == service]

    def _replace(self, process, delay, armed=()):
        """The other instance is there, or comes."""
        other = "b" if process.instance == "a" else "a"
        if not any(entry[1:3] == (process.service, other) for entry in self._coming):
            self._coming.append((self._plant.step + delay, process.service, other, armed))

    def _deafen(self, process, fault):
        process.end_sessions()
        process.be_deaf(True)
        self._replace(process, 0)
        self._later.append((self._plant.step + fault.delay, lambda: process.be_deaf(False)))

    def _expire(self, process, fault):
        """One group gives the process's places away and leaves it its others; it hears so at its next poll."""
        consumer = process.consumers[fault.nth % len(process.consumers)]
        self._replace(process, 0)
        self._later.append((self._plant.step + fault.delay, consumer.end_session))

    def _stop(self, process, fault):
        try:
            process.stop()
        except Killed:
            process.die()  # while it wanted to end cleanly
        self.live.remove(process)
        process.end_sessions()
        self._replace(process, fault.delay)

    def _backup(self, process):
        to = self._backup_of(process.home)
        shutil.rmtree(to, ignore_errors=True)
        if process.home.exists():
            shutil.copytree(process.home, to)

    def _backup_of(self, home):
        return self._plant.home / "backups" / home.parent.name / home.name
