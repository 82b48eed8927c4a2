// amqplib: confirm channels, returns, consumers, channel errors as events.
'use strict';
const amqp = require('amqplib');

const step = (text, ...values) => {
  console.log(`> ${text}`);
  for (const value of values) console.log(JSON.stringify(value));
};

async function main() {
  const connection = await amqp.connect(`amqp://guest:guest@${process.env.AMQP_ADDR}`);
  const channel = await connection.createConfirmChannel();
  step('assert', await channel.assertExchange('js.topic', 'topic'), await channel.assertQueue('js.q', { durable: true }));
  await channel.bindQueue('js.q', 'js.topic', 'a.#');
  for (let i = 0; i < 200; i++) channel.publish('js.topic', `a.${i}`, Buffer.from(String(i)), { persistent: true, headers: { i, nested: { ok: true } } });
  await channel.waitForConfirms();
  step('200 confirmed', (await channel.checkQueue('js.q')).messageCount);

  const returned = new Promise((resolve) => channel.once('return', resolve));
  channel.publish('js.topic', 'unrouted', Buffer.from('back'), { mandatory: true });
  const message = await returned;
  step('returned', message.fields, message.content.toString());
  await channel.waitForConfirms();

  await channel.prefetch(10);
  const seen = [];
  await new Promise((resolve) => {
    channel.consume('js.q', (delivery) => {
      seen.push([delivery.fields.routingKey, delivery.properties.headers.i, delivery.fields.redelivered]);
      channel.ack(delivery);
      if (seen.length === 200) resolve();
    }, { consumerTag: 'js-consumer' });
  });
  step('consumed in order', seen.length, seen.every(([key, i], at) => key === `a.${at}` && i === at), seen[199]);
  step('cancel', await channel.cancel('js-consumer'));
  step('get from an empty queue', await channel.get('js.q'));

  const broken = await connection.createChannel();
  const error = await new Promise((resolve) => { broken.on('error', resolve); broken.checkQueue('js.missing').catch(() => {}); });
  step('channel error', error.code, error.message);
  const conflicting = await connection.createChannel();
  const conflict = await new Promise((resolve) => { conflicting.on('error', resolve); conflicting.assertQueue('js.q', { durable: false }).catch(() => {}); });
  step('conflict', conflict.code, conflict.message);
  step('delete', await channel.deleteQueue('js.q'), await channel.deleteExchange('js.topic'));
  await channel.close();
  await connection.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
