# /// script
# requires-python = ">=3.11"
# dependencies = ["aiokafka==0.14.0", "cramjam", "river==0.26.1", "msgspec"]
# ///
"""With aiokafka."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition
from work import BROKER, GROUP, TOPIC, Learner


async def main() -> None:
    learner = Learner("aiokafka")
    place = TopicPartition(TOPIC, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=BROKER, group_id=GROUP, enable_auto_commit=False)
    consumer.assign([place])
    await consumer.start()
    consumer.seek(place, 0)
    done = False
    while not done:
        for messages in (await consumer.getmany(timeout_ms=500, max_records=500)).values():
            for message in messages:
                done = learner.take(message.value)
                if done:
                    break
        if learner.commit_due() or done:
            await consumer.commit({place: learner.rows})
    learner.report()
    await consumer.stop()


asyncio.run(main())
