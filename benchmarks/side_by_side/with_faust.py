# /// script
# requires-python = ">=3.11"
# dependencies = ["faust-streaming==0.15.3", "cramjam", "lz4", "river==0.26.1", "msgspec"]
# ///
"""With Faust: an agent over a stream of raw bytes."""

import logging
import os
import sys
import tempfile

import faust
from work import BROKER, COMMIT_S, GROUP, TOPIC, Learner

learner = Learner("faust-streaming")
app = faust.App(
    GROUP, broker=f"kafka://{BROKER}", value_serializer="raw", key_serializer="raw", store="memory://",
    broker_commit_interval=COMMIT_S, broker_commit_every=1_000_000, web_enabled=False, topic_disable_leader=True,
    datadir=tempfile.mkdtemp(), consumer_auto_offset_reset="earliest", stream_publish_on_commit=False,
)  # fmt: skip
logging.getLogger().setLevel(logging.ERROR)


@app.agent(app.topic(TOPIC, value_type=bytes, key_type=bytes))
async def learn(values):
    async for value in values:
        if learner.take(value):
            learner.report()
            os._exit(0)


sys.argv = ["faust", "worker", "-l", "error", "--without-web"]
app.main()
