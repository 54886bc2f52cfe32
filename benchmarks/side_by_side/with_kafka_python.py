# /// script
# requires-python = ">=3.11"
# dependencies = ["kafka-python==3.0.12", "lz4", "river==0.26.1", "msgspec"]
# ///
"""With kafka-python."""

from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata
from work import BROKER, GROUP, TOPIC, Learner

learner = Learner("kafka-python")
place = TopicPartition(TOPIC, 0)
consumer = KafkaConsumer(bootstrap_servers=BROKER, group_id=GROUP, enable_auto_commit=False)
consumer.assign([place])
consumer.seek(place, 0)
done = False
while not done:
    for messages in consumer.poll(timeout_ms=500, max_records=500).values():
        for message in messages:
            done = learner.take(message.value)
            if done:
                break
    if learner.commit_due() or done:
        consumer.commit({place: OffsetAndMetadata(learner.rows, "", -1)})
learner.report()
consumer.close()
