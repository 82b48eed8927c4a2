// kafkajs: only non-flexible versions of each API: the oldest encodings in wide use.
'use strict';
const { Kafka, logLevel, CompressionTypes } = require('kafkajs');

const step = (text, ...values) => {
  console.log(`> ${text}`);
  for (const value of values) console.log(JSON.stringify(value));
};

async function main() {
  const kafka = new Kafka({ brokers: [process.env.KAFKA_ADDR], logLevel: logLevel.NOTHING, retry: { retries: 5 } });
  const admin = kafka.admin();
  await admin.connect();
  step('create', await admin.createTopics({ topics: [{ topic: 'js.topic', numPartitions: 2 }], waitForLeaders: true }), await admin.createTopics({ topics: [{ topic: 'js.topic' }] }),
    await admin.createTopics({ topics: [{ topic: 'js.default' }] }), (await admin.fetchTopicMetadata({ topics: ['js.default'] })).topics[0].partitions.length);
  const producer = kafka.producer({ idempotent: false });
  await producer.connect();
  const sent = await producer.send({ topic: 'js.topic', acks: -1, compression: CompressionTypes.GZIP, messages: Array.from({ length: 100 }, (_, i) => ({ key: `k${i}`, value: `v${i}`, partition: i % 2, headers: { n: String(i) } })) });
  step('send', sent.map(({ topicName, partition, errorCode, baseOffset }) => ({ topicName, partition, errorCode, baseOffset })).sort((a, b) => a.partition - b.partition));
  const consumer = kafka.consumer({ groupId: 'js.group', sessionTimeout: 10000 });
  await consumer.connect();
  await consumer.subscribe({ topic: 'js.topic', fromBeginning: true });
  const seen = [];
  await new Promise((resolve) => consumer.run({ autoCommit: true, eachMessage: async ({ partition, message }) => {
    seen.push([partition, Number(message.offset), message.key.toString(), message.value.toString(), message.headers.n.toString()]);
    if (seen.length === 100) setImmediate(resolve);
  } }));
  await consumer.stop();
  await consumer.disconnect();
  step('consumed', seen.length, [0, 1].map((p) => seen.filter((m) => m[0] === p).every((m, i) => m[1] === i)), seen.find((m) => m[0] === 1 && m[1] === 7));
  step('committed', (await admin.fetchOffsets({ groupId: 'js.group', topics: ['js.topic'] }))[0].partitions.map((p) => [p.partition, p.offset]).sort());
  step('offsets', (await admin.fetchTopicOffsets('js.topic')).map((o) => [o.partition, o.low, o.high]).sort());
  step('group', (await admin.describeGroups(['js.group'])).groups.map((g) => [g.groupId, g.state, g.protocolType]));
  await producer.disconnect();
  await admin.deleteTopics({ topics: ['js.topic'] });
  await admin.disconnect();
}

main().catch((error) => { console.error(error); process.exit(1); });
