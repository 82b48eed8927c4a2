<?php
// Laravel's queue over phpredis (both Debian's): push, delay, release, reserved jobs that come back, its worker, limiters.

error_reporting(E_ALL & ~E_DEPRECATED);  // this Laravel is older than this PHP
foreach (['Container', 'Queue', 'Redis'] as $part) {
    require_once "Illuminate/$part/autoload.php";
}

use Illuminate\Container\Container;
use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Contracts\Events\Dispatcher;
use Illuminate\Queue\Capsule\Manager;
use Illuminate\Queue\Worker;
use Illuminate\Queue\WorkerOptions;
use Illuminate\Redis\RedisManager;

[$host, $port] = explode(':', getenv('RESP_ADDR'));

function show(string $text, ...$values): void
{
    echo "> $text\n";
    foreach ($values as $value) {
        echo json_encode($value), "\n";
    }
}

/** What a worker tells while it works: only failures are noted. */
class Events implements Dispatcher
{
    public array $seen = [];
    public function listen($events, $listener = null) {}
    public function hasListeners($eventName) { return false; }
    public function subscribe($subscriber) {}
    public function until($event, $payload = []) {}
    public function dispatch($event, $payload = [], $halt = false) { $this->seen[] = is_object($event) ? class_basename($event) : $event; }
    public function push($event, $payload = []) {}
    public function flush($event) {}
    public function forget($event) {}
    public function forgetPushed() {}
}

class Handler implements ExceptionHandler
{
    public function report(Throwable $e) {}
    public function shouldReport(Throwable $e) { return false; }
    public function render($request, Throwable $e) {}
    public function renderForConsole($output, Throwable $e) {}
}

class Mark
{
    public function fire($job, $data): void
    {
        Container::getInstance()['redis']->connection()->rpush('marks', $data['name'] . ' at try ' . $job->attempts());
        if (($data['fails'] ?? 0) >= $job->attempts()) {
            throw new RuntimeException('on purpose');
        }
        $job->delete();
    }
    public function failed($data, $error): void
    {
        Container::getInstance()['redis']->connection()->rpush('failed', $data['name'] . ': ' . $error->getMessage());
    }
}

$app = new Container;
Container::setInstance($app);
$events = new Events;
$server = ['host' => $host, 'port' => (int) $port, 'database' => 10];
$redis = new RedisManager($app, 'phpredis', ['default' => $server, 'options' => ['prefix' => 'app_']]);
$app->instance('redis', $redis);
$app->instance('events', $events);
$app->instance(Dispatcher::class, $events);
$queues = new Manager($app);
$queues->addConnection(['driver' => 'redis', 'connection' => 'default', 'queue' => 'default', 'retry_after' => 1, 'block_for' => 1]);
$queue = $queues->getConnection();
$r = $redis->connection();
$r->flushall();
$marks = function () use ($r) {
    $all = $r->lrange('marks', 0, -1);
    $r->del('marks');
    return $all;
};

$queue->push('Mark', ['name' => 'one']);
$queue->push('Mark', ['name' => 'two']);
$queue->push('Mark', ['name' => 'other'], 'other');
$queue->bulk(['Mark', 'Mark'], ['name' => 'bulk']);
show('pushed', $queue->size(), $queue->size('other'));
$job = $queue->pop();
show('popped', $job->getName(), $job->payload()['data'], $job->attempts(), $queue->size(), $r->zcard('queues:default:reserved'));
$job->fire();
show('done', $job->isDeleted(), $queue->size(), $marks());
$job = $queue->pop();
$job->release(0);
show('released', $job->isReleased(), $r->zcard('queues:default:delayed'), $queue->size());
$job = $queue->pop();
show('and popped again', $job->payload()['data']['name'], $job->attempts());
while ($job) {
    $job->fire();
    $job = $queue->size() ? $queue->pop() : null;
}
show('emptied', $marks(), $queue->size());

$queue->later(1, 'Mark', ['name' => 'later']);
$start = microtime(true);
show('not yet', $queue->size(), $r->llen('queues:default'));
while (!($job = $queue->pop())) {
}
$job->fire();
show('when due', $marks(), microtime(true) - $start < 5);

$queue->push('Mark', ['name' => 'lost']);
$lost = $queue->pop();
while (!($job = $queue->pop())) {
}
show('a reserved job comes back', $job->payload()['data']['name'], $job->attempts(), $r->zcard('queues:default:reserved'));
$job->delete();
$lost->delete();
show('cleared', $queue->push('Mark', ['name' => 'x']) !== null, $queue->clear('default'), $queue->size());

$queue->push('Mark', ['name' => 'works at the third try', 'fails' => 2]);
$queue->push('Mark', ['name' => 'never works', 'fails' => 99]);
$worker = new Worker($queues->getQueueManager(), $events, new Handler, fn () => false);
$options = new WorkerOptions('default', 0, 128, 60, 0, 3);
for ($i = 0; $i < 6; $i++) {
    $worker->runNextJob('default', 'default', $options);
}
$seen = array_count_values($events->seen);
ksort($seen);
show('the worker', $marks(), $r->lrange('failed', 0, -1), $queue->size(), $seen);
$worker->runNextJob('default', 'default,other', $options);
show('the other queue', $marks(), $queue->size('other'));

$limit = fn ($name) => $r->funnel($name)->limit(1)->releaseAfter(60)->block(0);
show('funnel', $limit('f')->then(fn () => $limit('f')->then(fn () => 'both', fn () => 'second kept out'), fn () => 'first kept out'), $limit('f')->then(fn () => 'free again'));
$throttled = [];
for ($i = 0; $i < 4; $i++) {
    $throttled[] = $r->throttle('t')->allow(2)->every(60)->block(0)->then(fn () => 'ran', fn () => 'kept out');
}
show('throttle', $throttled);
show('transaction and pipeline', $r->transaction(function ($tx) {
    $tx->set('a', 1);
    $tx->incr('a');
}), $r->pipeline(function ($pipe) {
    $pipe->get('a');
    $pipe->ttl('a');
}));
$keys = array_map(fn ($key) => preg_replace('/^(app_f1).*/', '$1', $key), $r->keys('*'));
sort($keys);
show('keys left', $keys);
