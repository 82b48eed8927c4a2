// ioredis: ready check, auto-pipelining, transactions, pub/sub, blocking calls, scan streams.
'use strict';
const Redis = require('ioredis');
const RedisClass = Redis.Redis || Redis;
const [host, port] = process.env.RESP_ADDR.split(':');

const step = (text, ...values) => {
  console.log(`> ${text}`);
  for (const value of values) console.log(JSON.stringify(value));
};
const attempt = async (promise) => {
  try { return await promise; } catch (error) { return `${error.name}: ${error.message}`; }
};

async function main() {
  const client = new RedisClass({ host, port: Number(port), enableAutoPipelining: true, maxRetriesPerRequest: 1 });
  await new Promise((resolve, reject) => { client.once('ready', resolve); client.once('error', reject); });
  await client.flushall();
  step('ready after INFO', client.status);
  step('set and get', await client.set('k', 'v', 'EX', 60), await client.get('k'), await client.get('none'));
  step('hash', await client.hset('h', { a: 1, b: 'two' }), await client.hgetall('h'), await client.hgetall('none'));
  step('auto-pipelined', (await Promise.all(Array.from({ length: 500 }, (_, i) => client.incr(`n:${i % 5}`)))).slice(-5));
  step('list', await client.rpush('l', 1, 2, 3), await client.lrange('l', 0, -1), await client.blpop('none', 'l', 1));
  step('sorted set', await client.zadd('z', 1.5, 'a', 2, 'b'), await client.zrange('z', 0, -1, 'WITHSCORES'), await client.zscore('z', 'a'));
  step('stream', await client.xadd('st', '1-1', 'f', 1), await client.xadd('st', 'MAXLEN', '~', 100, '1-*', 'f', 2), await client.xread('STREAMS', 'st', 0), await client.xread('STREAMS', 'st', '9'));
  step('consumer group', await client.xgroup('CREATE', 'st', 'g', '$'), await client.xreadgroup('GROUP', 'g', 'me', 'STREAMS', 'st', '>'), await client.xadd('st', '2-0', 'f', 3),
    await client.xreadgroup('GROUP', 'g', 'me', 'COUNT', 1, 'BLOCK', 10, 'STREAMS', 'st', '>'), await client.xpending('st', 'g'), await client.xack('st', 'g', '2-0'));
  step('multi', await client.multi().set('m', 1).incr('m').lpush('m', 'x').exec());
  step('wrong type', await attempt(client.lpush('k', 1)));
  const watcher = client.duplicate({ enableAutoPipelining: false });
  await watcher.watch('k');
  await client.set('k', 'changed');
  step('watched key changed', await watcher.multi().set('k', 'never').exec(), await client.get('k'));
  const subscriber = client.duplicate({ enableAutoPipelining: false });
  const messages = [];
  const both = new Promise((resolve) => {
    const add = (...m) => { messages.push(m); if (messages.length === 2) resolve(); };
    subscriber.on('message', add);
    subscriber.on('pmessage', add);
  });
  step('subscribe', await subscriber.subscribe('ch'), await subscriber.psubscribe('p*'));
  step('publish', await client.publish('ch', 'one'), await client.publish('pch', 'two'));
  await both;
  step('messages', messages);
  for (let i = 0; i < 1000; i++) client.set(`scan:${i}`, i);
  await client.ping();
  const seen = new Set();
  for await (const keys of client.scanStream({ match: 'scan:*', count: 50 })) keys.forEach((key) => seen.add(key));
  step('scanStream', seen.size);
  const blocked = watcher.brpop('wait', 10);
  await client.lpush('wait', 'served');
  step('blocked client is served', await blocked);
  step('buffers', await client.set(Buffer.from([0, 255]), Buffer.from([1, 0, 2])), [...await client.getBuffer(Buffer.from([0, 255]))]);
  await Promise.all([client.quit(), watcher.quit(), subscriber.quit()]);
}

main().catch((error) => { console.error(error); process.exit(1); });
