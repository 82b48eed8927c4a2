// ioredis' Cluster against the server that cluster.py started; exits non-zero at the first answer that is not as it should be.
'use strict';
const assert = require('node:assert');
const { Cluster } = require('ioredis');

const [host, port] = process.env.RESP_ADDR.split(':');

(async () => {
  const cluster = new Cluster([{ host, port: Number(port) }], { redisOptions: { maxRetriesPerRequest: 1 } });
  await cluster.flushall();
  assert.equal(await cluster.set('k', 'v'), 'OK');
  assert.equal(await cluster.get('k'), 'v');
  for (let n = 0; n < 100; n += 1) await cluster.set(`k${n}`, n);
  assert.equal(await cluster.get('k57'), '57');
  assert.deepEqual(cluster.nodes('master').map((node) => `${node.options.host}:${node.options.port}`), [`${host}:${port}`]);
  const piped = await cluster.pipeline().set('{t}a', 1).incr('{t}a').get('{t}a').exec();
  assert.deepEqual(piped.map(([, value]) => value), ['OK', 2, '2']);
  const multi = await cluster.multi().set('{t}b', 1).incr('{t}b').exec();
  assert.deepEqual(multi.map(([, value]) => value), ['OK', 2]);
  await assert.rejects(cluster.mget('k1', 'k2'), /CROSSSLOT|same slot/);
  assert.deepEqual(await cluster.mget('{t}a', '{t}b'), ['2', '2']);
  cluster.defineCommand('put', { numberOfKeys: 1, lua: "return redis.call('set', KEYS[1], ARGV[1])" });
  assert.equal(await cluster.put('scripted', 'yes'), 'OK');
  const listener = new Cluster([{ host, port: Number(port) }]);
  const heard = new Promise((resolve) => { listener.on('message', (channel, text) => resolve(`${channel} ${text}`)); });
  await listener.subscribe('news');
  await cluster.publish('news', 'hello');
  assert.equal(await heard, 'news hello');
  console.log('ioredis Cluster: all as it should be');
  listener.disconnect();
  cluster.disconnect();
})().catch((error) => { console.error(error); process.exit(1); });
