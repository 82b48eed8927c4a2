// BullMQ: the life of jobs, delays, retries, priorities, schedulers, flows, rate limits, a worker that dies. Driver: ioredis or node-redis.
'use strict';
const { Queue, Worker, QueueEvents, FlowProducer, UnrecoverableError } = require('bullmq');
const [host, port] = process.env.RESP_ADDR.split(':');
const driver = process.argv[2];

const step = (text, ...values) => {
  console.log(`> ${text}`);
  for (const value of values) console.log(JSON.stringify(value));
};
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const until = async (what, condition) => {
  for (let i = 0; i < 1000; i++) {
    const value = await condition();
    if (value) return value;
    await pause(10);
  }
  throw new Error(`never: ${what}`);
};

const open = [];
const kept = (thing) => { open.push(thing); thing.on('error', () => {}); return thing; };
async function connection() {
  if (driver === 'ioredis') return { host, port: Number(port), maxRetriesPerRequest: null };
  const client = require('redis').createClient({ url: `redis://${host}:${port}` });
  await client.connect();
  open.push({ close: () => client.isOpen && client.close() });
  return client;
}
const queue = async (name, options) => kept(new Queue(name, { connection: await connection(), ...options }));
const worker = async (name, work, options) => {
  const made = kept(new Worker(name, work, { connection: await connection(), ...options }));
  await made.waitUntilReady();
  return made;
};
const events = async (name) => {
  const made = kept(new QueueEvents(name, { connection: await connection() }));
  await made.waitUntilReady();
  return made;
};

async function lives() {
  const q = await queue('plain'), e = await events('plain'), seen = [];
  for (const name of ['added', 'waiting', 'active', 'progress', 'completed', 'failed', 'delayed', 'drained', 'deduplicated', 'removed', 'paused', 'resumed']) {
    e.on(name, ({ jobId, returnvalue, failedReason, data }) => seen.push([name, jobId, returnvalue ?? failedReason ?? data]));
  }
  await worker('plain', async (job) => {
    if (job.name === 'broken') throw new UnrecoverableError('never works');
    await job.updateProgress({ percent: 50 });
    await job.log(`row of ${job.data.n}`);
    return { doubled: job.data.n * 2 };
  }, { metrics: { maxDataPoints: 10 } });
  const job = await q.add('double', { n: 21 }, { jobId: 'one' });
  step('a job, and what it returned', await job.waitUntilFinished(e), await job.getState(), await q.getJobLogs('one'));
  await until('drained', () => seen.some(([name]) => name === 'drained'));
  step('its events', seen.splice(0));
  step('the same id again', (await q.add('double', { n: 99 }, { jobId: 'one' })).id, (await q.getJob('one')).data, await q.count());
  const broken = await q.add('broken', {}, { jobId: 'two' });
  step('a job that fails', await broken.waitUntilFinished(e).catch((error) => error.message), await broken.getState(), (await q.getFailed()).map((j) => [j.name, j.failedReason, j.attemptsMade]));
  await q.addBulk(Array.from({ length: 20 }, (_, n) => ({ name: 'double', data: { n } })));
  await until('21 completed', async () => await q.getCompletedCount() === 21);
  step('twenty at once', await q.getJobCounts('completed', 'failed', 'waiting', 'active', 'delayed'), (await q.getCompleted(0, 2)).map((j) => j.returnvalue));
  step('workers seen by the queue', (await q.getWorkersCount()) === 1);
  step('clean', (await q.clean(0, 5, 'completed')).length, await q.getCompletedCount());
  await q.pause();
  await q.add('double', { n: 1 }, { jobId: 'held' });
  step('paused', await q.isPaused(), await q.getJobCounts('paused', 'waiting', 'active'));
  await q.resume();
  step('resumed', (await (await q.getJob('held')).waitUntilFinished(e)));
  step('metrics', (await q.getMetrics('completed')).count);
  await q.obliterate({ force: true });
  step('obliterated', await q.getJobCounts('completed', 'failed', 'waiting'));
}

async function order() {
  const q = await queue('order'), done = [];
  await q.pause();
  for (const [name, opts] of [['low', { priority: 10 }], ['high', { priority: 1 }], ['first', {}], ['second', {}], ['middle', { priority: 5 }], ['jumps', { lifo: true }], ['low again', { priority: 10 }]]) {
    await q.add(name, {}, opts);
  }
  step('counts per priority', await q.getCountsPerPriority([1, 5, 10, 0]), (await q.getPrioritized()).map((j) => j.name));
  const moved = (await q.getPrioritized()).find((j) => j.name === 'low again');
  await moved.changePriority({ priority: 2 });
  await q.resume();
  await worker('order', async (job) => { done.push(job.name); });
  await until('all of them', () => done.length === 7);
  step('priorities, lifo and a changed priority', done);
}

async function delays() {
  const q = await queue('delays', { defaultJobOptions: { attempts: 3, backoff: { type: 'fixed', delay: 60 } } }), e = await events('delays'), tries = [];
  await worker('delays', async (job) => {
    tries.push([job.name, job.attemptsMade]);
    if (job.name === 'third time' && job.attemptsMade < 2) throw new Error('not yet');
    if (job.name === 'never') throw new Error('never');
    return Date.now() - job.timestamp;
  });
  const late = await q.add('late', {}, { delay: 150 });
  step('delayed', await late.getState(), await q.getDelayedCount(), (await late.waitUntilFinished(e)) >= 145);
  const promoted = await q.add('promoted', {}, { delay: 3600000 });
  await promoted.promote();
  step('promoted', (await promoted.waitUntilFinished(e)) < 60000);
  const moved = await q.add('sooner', {}, { delay: 3600000 });
  await moved.changeDelay(20);
  step('delay changed', (await moved.waitUntilFinished(e)) < 60000);
  tries.length = 0;
  await (await q.add('third time', {})).waitUntilFinished(e);
  step('fixed backoff', tries);
  tries.length = 0;
  const never = await q.add('never', {}, { backoff: { type: 'exponential', delay: 10 } });
  step('attempts used up', await never.waitUntilFinished(e).catch((error) => error.message), tries, await never.getState());
  await never.retry();
  await until('failed again', async () => (await never.isFailed()));
  step('retried by hand', tries.length > 3, (await q.getJob(never.id)).failedReason);
  const same = { deduplication: { id: 'd', ttl: 60000 } };
  const [a, b] = [await q.add('dedup', {}, { ...same, delay: 3600000 }), await q.add('dedup', {}, { ...same, delay: 3600000 })];
  step('deduplicated', a.id === b.id, (await q.getDeduplicationJobId('d')) === a.id, await q.getDelayedCount());
  await q.drain(true);
  step('drained with what is delayed', await q.getJobCounts('delayed', 'waiting', 'prioritized'));
}

async function schedulers() {
  const q = await queue('schedules'), ran = [];
  await worker('schedules', async (job) => { ran.push([job.name, job.data]); });
  await q.upsertJobScheduler('often', { every: 50, limit: 3 }, { name: 'tick', data: { a: 1 } });
  await q.upsertJobScheduler('yearly', { pattern: '0 0 1 1 *', tz: 'UTC' }, { name: 'new year', data: {} });
  step('schedulers', (await q.getJobSchedulers()).map((s) => [s.key, s.name, s.every, s.pattern]), await q.getJobSchedulersCount());
  await until('three ticks', () => ran.length >= 3);
  await pause(120);
  step('runs three times and no more', ran);
  await q.upsertJobScheduler('yearly', { pattern: '0 0 2 1 *', tz: 'UTC' }, { name: 'day after', data: { b: 2 } });
  const yearly = await q.getJobScheduler('yearly');
  step('changed', yearly.pattern, new Date(yearly.next).toISOString().slice(4), yearly.template.data, (await q.getDelayed()).map((j) => j.name));
  step('removed', await q.removeJobScheduler('yearly'), await q.removeJobScheduler('none'), await q.getDelayedCount());
}

async function flows() {
  const parents = await queue('parents'), e = await events('parents'), producer = kept(new FlowProducer({ connection: await connection() }));
  await worker('children', async (job) => {
    if (job.data.fail) throw new Error('child failed');
    return job.name;
  }, { concurrency: 4 });
  await worker('parents', async (job) => Object.values(await job.getChildrenValues()).sort());
  const tree = await producer.add({ name: 'root', queueName: 'parents', children: [
    { name: 'leaf 1', queueName: 'children' }, { name: 'leaf 2', queueName: 'children', opts: { priority: 3, delay: 30 } },
    { name: 'branch', queueName: 'parents', children: [{ name: 'leaf 3', queueName: 'children' }] }] });
  step('a tree', tree.children.map((c) => [c.job.name, (c.children || []).length]), await tree.job.waitUntilFinished(e));
  const dependencies = await tree.job.getDependencies();
  step('its dependencies', Object.keys(dependencies.processed).length, await tree.job.getDependenciesCount());
  const failing = await producer.add({ name: 'fails', queueName: 'parents', children: [{ name: 'bad', queueName: 'children', data: { fail: 1 }, opts: { failParentOnFailure: true } }, { name: 'good', queueName: 'children' }] });
  step('a child that fails its parent', await failing.job.waitUntilFinished(e).catch((error) => error.message.replace(/bull:children:\S+/, 'ID')), await failing.job.getState());
  const ignoring = await producer.add({ name: 'goes on', queueName: 'parents', children: [{ name: 'bad', queueName: 'children', data: { fail: 1 }, opts: { ignoreDependencyOnFailure: true } }, { name: 'good', queueName: 'children' }] });
  step('a child whose failure is ignored', await ignoring.job.waitUntilFinished(e), Object.values(await ignoring.job.getIgnoredChildrenFailures()));
  const bulk = await producer.addBulk([1, 2, 3].map((n) => ({ name: `bulk ${n}`, queueName: 'parents', children: [{ name: `leaf of ${n}`, queueName: 'children' }] })));
  step('many trees', await Promise.all(bulk.map((t) => t.job.waitUntilFinished(e))));
  const waits = await producer.add({ name: 'waits', queueName: 'parents', children: [{ name: 'far', queueName: 'children', opts: { delay: 3600000 } }] });
  step('a parent that waits', await waits.job.getState(), await parents.getJobCounts('waiting-children', 'active'));
  await waits.job.remove();
  step('removed with its child', await parents.getJobCounts('waiting-children'), await (await queue('children')).getDelayedCount());
}

async function rates() {
  const q = await queue('rates'), times = [];
  await worker('rates', async () => { times.push(performance.now()); }, { limiter: { max: 2, duration: 200 }, concurrency: 5 });
  await q.addBulk(Array.from({ length: 6 }, () => ({ name: 'x' })));
  await until('six', async () => times.length === 6);
  // A window opens with its first start; two starts later the next one must be a whole window away, less the clock's grain.
  step('two in each window', times.slice(2).map((t, i) => t - times[i] > 150), (await q.getRateLimitTtl()) > 0);
  const g = await queue('global'), running = [0, 0];
  await g.setGlobalConcurrency(1);
  const run = async () => { running[1] = Math.max(running[1], ++running[0]); await pause(15); running[0]--; };
  await worker('global', run, { concurrency: 3 });
  await worker('global', run, { concurrency: 3 });
  await g.addBulk(Array.from({ length: 6 }, () => ({ name: 'x' })));
  await until('six', async () => await g.getCompletedCount() === 6);
  step('one at a time among two workers', running[1], await g.getGlobalConcurrency());
}

async function stalls() {
  const q = await queue('stalls'), e = await events('stalls'), stalled = [];
  e.on('stalled', ({ jobId }) => stalled.push(jobId));
  let started;
  const first = new Promise((resolve) => { started = resolve; });
  const dies = await worker('stalls', () => { started(); return new Promise(() => {}); }, { lockDuration: 200, stalledInterval: 100, skipStalledCheck: true });
  const job = await q.add('survives', {}, { jobId: 'survivor' });
  await first;
  await dies.close(true);
  await worker('stalls', async (j) => `done at start ${j.attemptsStarted}, stalled ${j.stalledCounter}`, { lockDuration: 200, stalledInterval: 100 });
  step('a job of a dead worker', await job.waitUntilFinished(e), stalled);
}

async function main() {
  const raw = new (require('ioredis').Redis)({ host, port: Number(port) });
  await raw.flushall();
  const parts = { lives, order, delays, schedulers, flows, rates, stalls };
  for (const [name, part] of Object.entries(parts)) {
    step(`-- ${name}`);
    await part();
  }
  await Promise.all(open.splice(0).map((thing) => thing.close()));
  step('keys left, by queue', [...new Set((await raw.keys('*')).map((key) => key.split(':').slice(0, 2).join(':')))].sort());
  await raw.quit();
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
