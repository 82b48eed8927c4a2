// TLS with Node's clients against the server that tls.py started: ioredis, amqplib with a password and with EXTERNAL, kafkajs with a
// certificate and with SCRAM. tls.py compares what this prints.
'use strict';
const fs = require('node:fs');
const amqp = require('amqplib');
const Redis = require('ioredis');
const { Kafka, logLevel } = require('kafkajs');

const { RESP, AMQP, KAFKA, USER, PASSWORD, FILES } = process.env;
const file = (name) => fs.readFileSync(`${FILES}/${name}`);
const ca = file('ca.crt');
const mine = { ca: [ca], cert: file('client.crt'), key: file('client.key') };

async function redis(what, tls, login) {
  const client = new Redis(`rediss://localhost:${RESP}`, { tls, ...login, maxRetriesPerRequest: 0, retryStrategy: null });
  client.on('error', () => {});
  await client.set('node', 'x'.repeat(1_000_000));
  console.log(`ioredis, ${what}: ${(await client.get('node')).length}`);
  client.disconnect();
}

async function rabbit(what, tls, credentials) {
  const connection = await amqp.connect(`amqps://${USER}:${PASSWORD}@localhost:${AMQP}`, { ...tls, credentials });
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue('node', { durable: true });
  channel.sendToQueue('node', Buffer.alloc(1_000_000, 'b'), { persistent: true });
  await channel.waitForConfirms();
  console.log(`amqplib, ${what}: ${(await channel.get('node', { noAck: true })).content.length}`);
  await connection.close();
}

async function kafka(what, ssl, sasl) {
  const client = new Kafka({ brokers: [`localhost:${KAFKA}`], ssl, sasl, logLevel: logLevel.NOTHING, retry: { retries: 3 } });
  const admin = client.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: `node-${what}`, numPartitions: 1 }], waitForLeaders: true });
  const producer = client.producer();
  await producer.connect();
  await producer.send({ topic: `node-${what}`, acks: -1, messages: Array.from({ length: 100 }, (_, i) => ({ value: `${i}` })) });
  const consumer = client.consumer({ groupId: `node-${what}` });
  await consumer.connect();
  await consumer.subscribe({ topic: `node-${what}`, fromBeginning: true });
  let seen = 0;
  await new Promise((resolve) => { consumer.run({ eachMessage: async () => { seen += 1; if (seen === 100) setImmediate(resolve); } }); });
  console.log(`kafkajs, ${what}: ${seen}`);
  await Promise.all([consumer.disconnect(), producer.disconnect(), admin.disconnect()]);
}

(async () => {
  await redis('certificate', mine, {});
  await redis('password', { ca: [ca] }, { username: USER, password: PASSWORD });
  await redis('neither', { ca: [ca] }, {}).catch((error) => console.log(`ioredis, neither: ${error.message.slice(0, 6)}`));
  await rabbit('PLAIN', { ca: [ca] });
  await rabbit('EXTERNAL', mine, amqp.credentials.external());
  await kafka('certificate', mine);
  await kafka('scram', { ca: [ca] }, { mechanism: 'scram-sha-512', username: USER, password: PASSWORD });
})().catch((error) => { console.error(error); process.exit(1); });
