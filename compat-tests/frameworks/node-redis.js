// node-redis with its defaults (RESP3, maps as objects): commands, transactions, iterators, pools, scripts, pub/sub, streams.
'use strict';
const { createClient, createClientPool, defineScript, RESP_TYPES, WatchError } = require('redis');
const url = `redis://${process.env.RESP_ADDR}`;

const step = (text, ...values) => {
  console.log(`> ${text}`);
  for (const value of values) console.log(JSON.stringify(value, (_, v) => (v instanceof Map ? { map: [...v] } : v instanceof Set ? { set: [...v] } : v instanceof Error ? `${v.constructor.name}: ${v.message}` : v)));
};
const attempt = (promise) => promise.catch((error) => error);
const until = async (condition) => {
  for (let i = 0; i < 1000; i++) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`never: ${condition}`);
};

async function main() {
  const scripts = { due: defineScript({ NUMBER_OF_KEYS: 1, SCRIPT: "local v = redis.call('zrangebyscore', KEYS[1], '-inf', ARGV[1]) for _, m in ipairs(v) do redis.call('zrem', KEYS[1], m) end return v",
    parseCommand(parser, key, now) { parser.pushKey(key); parser.push(String(now)); }, transformReply: (reply) => reply }) };
  const client = createClient({ url: `${url}/0`, name: 'node-redis', scripts });
  client.on('error', () => {});
  await client.connect();
  await client.flushAll();
  step('connected', client.isReady, await client.ping(), await client.clientGetName());
  step('strings', await client.set('k', 'v', { expiration: { type: 'EX', value: 60 } }), await client.get('k'), await client.get('none'), await client.set('k', 'w', { condition: 'NX' }), await client.getEx('k', { type: 'PERSIST' }), await client.ttl('k'), await client.incrByFloat('f', 1.5), await client.mGet(['k', 'none']), await client.getDel('f'));
  step('hash', await client.hSet('h', { a: 1, b: 'two' }), await client.hGetAll('h'), await client.hGetAll('none'), await client.hmGet('h', ['a', 'none']), await client.hIncrBy('h', 'a', 4), (await client.hRandFieldCountWithValues('h', 5)).length);
  step('list', await client.rPush('l', ['1', '2', '3']), await client.lRange('l', 0, -1), await client.lPos('l', '2'), await client.lMove('l', 'l2', 'LEFT', 'RIGHT'), await client.lmPop('l', 'RIGHT', { COUNT: 2 }), await client.blPop('l2', 1), await client.blPop('l2', 0.01));
  step('set', await client.sAdd('s', ['a', 'b', 'c']), (await client.sMembers('s')).sort(), await client.smIsMember('s', ['a', 'x']), await client.sInterCard(['s', 's']), await client.sIsMember('s', 'a'));
  step('sorted set', await client.zAdd('z', [{ score: 1.5, value: 'a' }, { score: Infinity, value: 'b' }]), await client.zRangeWithScores('z', 0, -1), await client.zScore('z', 'a'), await client.zmScore('z', ['a', 'x']), await client.zIncrBy('z', 2, 'a'), await client.zPopMin('z'), await client.zRankWithScore('z', 'b'), await client.bzPopMax('z', 1));
  step('ranges', await client.zAdd('r', Array.from({ length: 9 }, (_, i) => ({ score: i, value: `m${i}` }))), await client.zRange('r', 2, 4, { BY: 'SCORE', REV: false }), await client.zRangeStore('r2', 'r', 0, 2), await client.zUnionWithScores(['r', 'r2']).then((all) => all.length), await client.zDiff(['r', 'r2']).then((all) => all.length));
  step('multi', await client.multi().set('m', 1).incr('m').hGetAll('h').exec(), await client.multi().get('m').exec());
  step('multi as pipeline', await client.multi().get('m').zRangeWithScores('r', 0, 0).execAsPipeline());
  step('errors', await attempt(client.lPush('k', '1')), await attempt(client.sendCommand(['NOPE'])), await attempt(client.multi().set('m', 2).lPush('m', '1').exec()).then((error) => error.constructor.name));
  step('script', await client.zAdd('due', [{ score: 1, value: 'now' }, { score: 9, value: 'later' }]), await client.due('due', 5), await client.due('due', 5), await client.eval('return {1, ARGV[1], KEYS[1]}', { keys: ['x'], arguments: ['y'] }));
  step('types', await client.withTypeMapping({ [RESP_TYPES.MAP]: Map, [RESP_TYPES.DOUBLE]: String }).hGetAll('h'), await client.withTypeMapping({ [RESP_TYPES.DOUBLE]: String }).zScore('r', 'm3'), await client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer }).get('k'));
  step('expiry', await client.expire('k', 100, 'NX'), await client.expire('k', 50, 'GT'), await client.pExpireTime('none'), await client.expireTime('k') > Date.now() / 1000);
  await Promise.all(Array.from({ length: 2000 }, (_, i) => client.set(`scan:${i}`, i)));
  let found = 0;
  for await (const keys of client.scanIterator({ MATCH: 'scan:*', COUNT: 200 })) found += keys.length;
  step('two thousand at once, then a scan', found >= 2000);
  let fields = 0;
  await client.hSet('bigh', Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`f${i}`, i])));
  for await (const entries of client.hScanIterator('bigh', { COUNT: 100 })) fields += entries.length;
  step('hash scan', fields);

  const pool = await createClientPool({ url: `${url}/0` }, { minimum: 1, maximum: 4 }).connect();
  const waits = [1, 2, 3].map((i) => pool.blPop(`wait:${i}`, 10));
  await until(async () => (await client.info('clients')).includes('blocked_clients:3'));
  for (const i of [1, 2, 3]) await client.rPush(`wait:${i}`, `served ${i}`);
  step('pool of blocked clients', await Promise.all(waits));
  step('watch', await attempt(pool.execute(async (one) => {
    await one.watch('k');
    await client.set('k', 'changed');
    return one.multi().set('k', 'never').exec();
  })).then((error) => error instanceof WatchError), await client.get('k'));
  await pool.close();

  const subscriber = client.duplicate(), got = [];
  subscriber.on('error', () => {});
  await subscriber.connect();
  await subscriber.subscribe('news', (message, channel) => got.push([channel, message]));
  await subscriber.pSubscribe('n*', (message, channel) => got.push(['pattern', channel, message]));
  await subscriber.sSubscribe('shard', (message, channel) => got.push(['shard', channel, message]));
  step('published', await client.publish('news', 'hello'), await client.sPublish('shard', 'there'), await client.pubSubChannels(), await client.pubSubNumSub(['news', 'none']), await client.pubSubNumPat(), await client.pubSubShardChannels());
  await until(() => got.length === 3);
  step('received', got.sort(), await subscriber.ping());
  await subscriber.unsubscribe('news');
  step('unsubscribed', await client.publish('news', 'again'), await subscriber.get('k'));

  step('stream', await client.xAdd('st', '1-1', { a: '1' }), await client.xAdd('st', '1-*', { a: '2' }), await client.xAdd('st', '*', { a: '3' }, { TRIM: { strategy: 'MAXLEN', strategyModifier: '=', threshold: 2 } }).then((id) => id > '1-2'), await client.xLen('st'), await client.xRange('st', '-', '1-9'), await client.xRead({ key: 'st', id: '1-9' }).then((all) => all[0].messages.map((m) => m.message)), await client.xRead({ key: 'st', id: '$' }, { BLOCK: 5 }));
  step('group', await client.xGroupCreate('st', 'g', '0'), await client.xReadGroup('g', 'me', { key: 'st', id: '>' }, { COUNT: 1 }), await client.xPending('st', 'g'), await client.xAutoClaim('st', 'g', 'you', 0, '0').then((r) => [r.nextId, r.messages.length, r.deletedMessages]), await client.xAck('st', 'g', '1-2'), await client.xInfoGroups('st').then((all) => all.map((g) => [g.name, g.pending, g['entries-read'], g.lag])), await client.xInfoStream('st').then((i) => [i.length, i.groups, i['first-entry'].id]));
  step('server', (await client.info('server')).includes('redis_version'), (await client.time()).length > 0, (await client.commandInfo(['get']))[0].arity, (await client.clientInfo()).resp, await client.dbSize() > 2000, await client.objectEncoding('s'), await client.type('st'));
  step('other database', await client.select(3), await client.dbSize(), await client.select(0));
  await subscriber.close();
  await client.close();
  step('closed', client.isOpen);
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
