# /// script
# requires-python = ">=3.11"
# dependencies = ["confluent-kafka==2.16.1", "river==0.26.1", "msgspec"]
# ///
"""By hand with confluent-kafka, as an expert would: batches, no headers read, nothing dropped, nothing kept."""

from confluent_kafka import Consumer, TopicPartition
from work import BROKER, GROUP, TOPIC, Learner

learner = Learner("confluent-kafka")
consumer = Consumer({"bootstrap.servers": BROKER, "group.id": GROUP, "enable.auto.commit": False})
consumer.assign([TopicPartition(TOPIC, 0, 0)])
done = False
while not done:
    messages = consumer.consume(50, 0.5)
    for message in messages:
        done = learner.take(message.value())
        if done:
            break
    if messages and (learner.commit_due() or done):
        consumer.commit(offsets=[TopicPartition(TOPIC, 0, learner.rows)], asynchronous=False)
learner.report()
consumer.close()
