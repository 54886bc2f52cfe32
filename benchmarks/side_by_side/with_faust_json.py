# /// script
# requires-python = ">=3.11"
# dependencies = ["faust-streaming==0.15.3", "cramjam", "lz4", "river==0.26.1", "msgspec"]
# ///
"""With Faust as its tutorials have it: the values are JSON, a dict comes in."""

import logging
import os
import sys
import tempfile

import faust
from work import BROKER, COMMIT_S, GROUP, TOPIC, Learner

learner = Learner("faust-streaming")
app = faust.App(
    GROUP, broker=f"kafka://{BROKER}", value_serializer="json", key_serializer="raw", store="memory://",
    broker_commit_interval=COMMIT_S, web_enabled=False, topic_disable_leader=True, datadir=tempfile.mkdtemp(),
    consumer_auto_offset_reset="earliest",
)  # fmt: skip
logging.getLogger().setLevel(logging.ERROR)


@app.agent(app.topic(TOPIC, key_type=bytes))
async def learn(values):
    async for value in values:
        if "prediction" not in value:
            learner.rows += 1  # an in-band event
        elif learner.learn(value["prediction"]["features"], value["label"]):
            learner.report()
            os._exit(0)


sys.argv = ["faust", "worker", "-l", "error", "--without-web"]
app.main()
