"""A joiner as a process of its own on genuine Kafka, forked as `headrace up` forks it, and who writes its input."""

import json
import os
import signal
import subprocess
import sys
from contextlib import closing

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient
from joiner_input import labels, predictions

from headrace.infra.bus import TopicSpec
from headrace.infra.follow import Follower
from headrace.infra.kafka_bus import KafkaBus
from headrace.infra.pipeline_files import definition, load_file
from headrace.schemas.codec import TYPE_OF, encode, headers_of
from headrace.schemas.control import PipelineReleased
from headrace.schemas.stream import ExampleLabelled
from headrace.schemas.topics import full_name

CONFIG = {"message.timestamp.type": "CreateTime"}
SOURCE = '''
from headrace import Contract, Pipeline
from river import linear_model

class Row(Contract):
    """One number."""
    x: float

pipeline = Pipeline(name="{name}", contract=Row, label=bool, recipe=lambda seed: linear_model.LogisticRegression())
'''
NURSERY = """
import json, os, sys
from pathlib import Path
from headrace.infra import supervisor

supervisor._share(("joiner",))
for line in sys.stdin:
    what, pid = json.loads(line), 0
    if "home" in what:
        os.environ |= what["environment"]
        os.chdir(what["home"])
        sys.argv[1:] = what["arguments"]
        print(supervisor.start_service(Path(what["home"]), "joiner"), flush=True)
    else:
        pid, status = os.waitpid(what["pid"], os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
"""


class Nursery:
    """The parent of joiners: it imports their code once, half a second that each would take."""

    def __init__(self, **environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], env=kept | environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def fork(self, home, environment, arguments):
        """The id of a new joiner's process."""
        return self._ask(home=str(home), environment=environment, arguments=arguments)

    def exit_code(self, pid):
        """How a joiner ended, None while it runs; asked no more once it was told."""
        return self._ask(pid=pid)

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, **what):
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Joiner:
    """Its topics, its process, its state; two pipelines, of which one is written to."""

    def __init__(self, address, namespace, home, nursery, until):
        self.bus, self.namespace, self.home, self.until = KafkaBus(address), namespace, home, until
        self.admin = AdminClient({"bootstrap.servers": address})
        self.environment = {
            "KAFKA_BOOTSTRAP_SERVERS": address,
            "HEADRACE_HOME": str(home / ".headrace"),
            "HEADRACE_NAMESPACE": namespace,
            "HEADRACE_INSTANCE": "i",
            "HEADRACE_ARTIFACT_KEY": "a test's key",
            "HEADRACE_SESSION_TIMEOUT_S": "6",
            "HEADRACE_COMMIT_S": "0.1",
        }
        self.nursery, self.pid, self._code, self._log_from = nursery, 0, None, 0
        self.producer = self.bus.producer("test")
        self.input, self.output = self.topic("<p>.predictions", "rain"), self.topic("<p>.labelled-examples", "rain")
        per_pipeline = ("<p>.predictions", "<p>.labelled-examples", "<p>.data-rejected")
        topics = [self.topic(name, pipeline) for name in per_pipeline for pipeline in ("rain", "wind")]
        self.make(self.topic("pipelines"), self.input + "-dlq", *topics)
        for number, name in enumerate(("rain", "wind"), 1):
            (home / f"{name}.py").write_text(SOURCE.format(name=name))
            made = definition(load_file(home / f"{name}.py"), b"", "source/x")
            event = PipelineReleased(pipeline=name, release=1, definition=made, partitions=1, request="q", by="ann")
            headers = headers_of(TYPE_OF[PipelineReleased], "/registry/-/1234/0", number)
            self.producer.produce(self.topic("pipelines"), 0, name.encode(), encode(event), headers, 0)
        self.producer.flush()

    # --- its topics ---------------------------------------------------------------------------------------

    def topic(self, name, pipeline=""):
        return full_name(name, pipeline, self.namespace)

    def make(self, *topics):
        self.bus.create_topics([TopicSpec(topic, 1, CONFIG) for topic in topics])

    def make_input_anew(self):
        self.admin.delete_topics([self.input])[self.input].result(10)
        self.until(lambda: self.bus.partitions(self.input) is None)
        self.make(self.input)

    def end(self):
        return self.bus.offsets((self.input, 0))[1]

    def predict(self, *ids):
        for event in predictions(ids):
            self.put(event)

    def label(self, *ids):
        for event in labels(ids):
            self.put(event)

    def put(self, event):
        headers = headers_of(TYPE_OF[type(event)], "/predictor/rain/0/0", self.end() * 65_536)
        self.producer.produce(self.input, 0, event.id.encode(), encode(event), headers, 0)
        self.producer.flush()

    def told(self, count):
        """The ids of the joined examples, repeats dropped, once there are so many."""

        def ids():
            with closing(Follower(self.bus, self.namespace, [self.output])) as follower:
                events = [record.event for record in follower.read_to_end()]
            return [event.prediction.id for event in events if isinstance(event, ExampleLabelled)]

        self.until(lambda: len(ids()) >= count or self.code() is not None, limit_s=30, says=f"{count} joined examples")
        assert len(ids()) >= count, self.said()
        return ids()

    def committed(self):
        group = ConsumerGroupTopicPartitions(f"{self.namespace}headrace-joiner-core")
        found = self.admin.list_consumer_group_offsets([group])[group.group_id].result(20).topic_partitions
        return {(part.topic, part.partition): part.offset for part in found or ()}.get((self.input, 0))

    def folded(self):
        """Wait until all of its input is committed."""
        self.until(lambda: self.committed() == self.end(), limit_s=30, says="the group's offset at the end")

    # --- its process --------------------------------------------------------------------------------------

    def start(self, *arguments):
        log = self.home / "logs" / "joiner.log"
        self._log_from = log.stat().st_size if log.exists() else 0
        self.pid, self._code = self.nursery.fork(self.home, self.environment, arguments), None
        return self

    def code(self):
        """Its exit status, None while it runs."""
        if self._code is None:
            self._code = self.nursery.exit_code(self.pid)
        return self._code

    def said(self):
        return (self.home / "logs" / "joiner.log").read_text()[self._log_from :]

    def ended(self):
        """Its exit status and the last thing it said."""
        self.until(lambda: self.code() is not None, limit_s=60, says="the joiner's end")
        assert "Traceback" not in self.said(), self.said()
        return self.code(), json.loads(self.said().strip().splitlines()[-1])

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        code, last = self.ended()
        assert (code, last["event"]) == (0, "stopped")

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.until(lambda: self.code() is not None)

    def is_refused(self, *says):
        """Started it exits 3, naming all these; neither state, nor output, nor the group's offset changes."""
        before = self._durable()
        code, last = self.start().ended()
        assert (code, last["event"]) == (3, "refused"), last
        assert [part for part in says if part not in last["reason"]] == [], last["reason"]
        assert self._durable() == before

    def _durable(self):
        return (self.folder() / "data.mdb").read_bytes(), self.bus.offsets((self.output, 0)), self.committed()

    def close(self):
        if self.pid and self.code() is None:
            self.kill()
        self.producer.close()
        self.bus.close()

    # --- its state, and the commands of who looks after it ------------------------------------------------

    def folder(self, pipeline="rain"):
        topic = self.topic("<p>.predictions", pipeline)
        return self.home / ".headrace" / "state" / "i" / "joiner" / "joiner-core" / f"{topic}-0"

    def command(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "headrace", *arguments], cwd=self.home, env=os.environ | self.environment,
            timeout=180, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def reset(self):
        done = self.command("reset", "joiner", "--yes", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["notes"]
