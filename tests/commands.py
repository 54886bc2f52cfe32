"""The command line over a system in this process: what a person types, and what is printed."""

from contextlib import contextmanager
from types import SimpleNamespace

from typer.testing import CliRunner

from headrace.cli import app, connect
from headrace.errors import Refused
from headrace.schemas.control import PipelineReleased, RequestRefused, TrainingRequested


class Client:
    """As much of the SDK's client as these commands use."""

    retired = frozenset()

    def __init__(self, system):
        self._system = system

    def pipelines(self):
        """The definitions in force."""
        events = [record.event for record in self._system.records("pipelines")]
        return {event.pipeline: event for event in events if isinstance(event, PipelineReleased)}

    def subscribe(self, topics, pipeline="", **where):
        """All that stands in topics of one partition, of one pipeline or of all."""
        topics = (topics,) if isinstance(topics, str) else topics
        records = [record for topic in topics for record in self._system.records(topic)]
        return [record for record in records if pipeline in ("", getattr(record.event, "pipeline", pipeline))]

    def request(self, event, timeout_s):
        """What answers a request. Raises Refused."""
        self._system.ask(event)
        answers = [record.event for record in self._system.records("control-log")]
        for answer in answers:
            if isinstance(answer, TrainingRequested | RequestRefused) and answer.request == event.request:
                if isinstance(answer, RequestRefused):
                    raise Refused(answer.reason, answer.next)
                return answer
        raise AssertionError(f"nothing answers {event.request}")


def over(system, monkeypatch):
    """Runs a command over a system: its arguments in, its result out."""

    @contextmanager
    def client(timeout_s=30.0):
        yield Client(system)

    @contextmanager
    def bus():
        yield (
            system.bus,
            SimpleNamespace(namespace="", artifact_url=system.settings.artifact_url, key=lambda: system.key),
        )

    monkeypatch.setattr(connect, "client", client)
    monkeypatch.setattr(connect, "bus", bus)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))
