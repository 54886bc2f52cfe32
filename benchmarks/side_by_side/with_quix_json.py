# /// script
# requires-python = ">=3.11"
# dependencies = ["quixstreams==3.28.1", "river==0.26.1", "msgspec"]
# ///
"""With Quix Streams as its tutorials have it: the topic's values are JSON, a dict comes in."""

import logging

from quixstreams import Application
from work import BROKER, COMMIT_S, GROUP, TOPIC, Learner

learner = Learner("quixstreams")
app = Application(
    broker_address=BROKER, consumer_group=GROUP, auto_offset_reset="earliest", commit_interval=COMMIT_S,
    auto_create_topics=False, loglevel=logging.ERROR,
)  # fmt: skip


def learn(value: dict) -> None:
    if learner.rows == -1:
        return
    if "prediction" not in value:
        learner.rows += 1  # an in-band event
    elif learner.learn(value["prediction"]["features"], value["label"]):
        learner.report()
        learner.rows = -1
        app.stop()


app.dataframe(app.topic(TOPIC, value_deserializer="json", key_deserializer="bytes")).update(learn)
app.run()
