# /// script
# requires-python = ">=3.11"
# dependencies = ["bytewax[kafka]==0.21.1", "river==0.26.1", "msgspec"]
# ///
"""With Bytewax: a Kafka source, a stateful step over one key; its recovery store, not Kafka, keeps the offsets."""

import os
import tempfile
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main
from work import BROKER, COMMIT_S, TOPIC, Learner

learner = Learner("bytewax", "confluent-kafka")


def learn(item):
    if learner.take(item.value):
        learner.report()
        os._exit(0)


flow = Dataflow("learn")
records = op.input("records", flow, KafkaSource([BROKER], [TOPIC], batch_size=500))
op.output("out", op.filter_map("learn", records, learn), StdOutSink())
folder = Path(tempfile.mkdtemp())
init_db_dir(folder, 1)
cluster_main(flow, [], 0, recovery_config=RecoveryConfig(str(folder)), epoch_interval=timedelta(seconds=COMMIT_S))
