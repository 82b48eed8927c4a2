<?php
// php-amqplib (Debian): confirms, returns, prefetch, dead letters, headers, priorities, transactions, errors.

require_once 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

[$host, $port] = explode(':', getenv('AMQP_ADDR'));
$connection = new AMQPStreamConnection($host, (int) $port, 'guest', 'guest');
$channel = $connection->channel();

function show(string $text, ...$values): void
{
    echo "> $text\n";
    foreach ($values as $value) {
        echo json_encode($value, JSON_UNESCAPED_SLASHES), "\n";
    }
}

function take($channel, string $queue, bool $noAck = true): ?AMQPMessage
{
    for ($i = 0; $i < 500; $i++) {
        if ($message = $channel->basic_get($queue, $noAck)) {
            return $message;
        }
        usleep(10000);
    }
    return null;
}

foreach (['php.q', 'php.dead', 'php.prio', 'php.delay'] as $queue) {
    $channel->queue_delete($queue);
}
$channel->exchange_declare('php.direct', 'direct', false, true, false);
$channel->queue_declare('php.dead', false, true, false, false);
$channel->queue_declare('php.q', false, true, false, false, false, new AMQPTable(['x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => 'php.dead']));
$channel->queue_bind('php.q', 'php.direct', 'k');

$acked = 0;
$returned = [];
$channel->set_ack_handler(function () use (&$acked) { $acked++; });
$channel->set_return_listener(function ($code, $text, $exchange, $key, $message) use (&$returned) { $returned[] = [$code, $text, $exchange, $key, $message->getBody()]; });
$channel->confirm_select();
for ($i = 0; $i < 10; $i++) {
    $channel->basic_publish(new AMQPMessage("m$i", ['delivery_mode' => 2, 'application_headers' => new AMQPTable(['n' => $i, 'nested' => ['a' => [1, 'two']]])]), 'php.direct', 'k');
}
$channel->basic_publish(new AMQPMessage('lost'), 'php.direct', 'nowhere', true);
$channel->wait_for_pending_acks_returns(10);
show('confirmed and returned', $acked, $returned);

$channel->basic_qos(0, 3, false);
$got = [];
$channel->basic_consume('php.q', 'tag', false, false, false, false, function (AMQPMessage $message) use (&$got) {
    $got[] = [$message->getBody(), $message->get('application_headers')->getNativeData()['n'], $message->isRedelivered()];
    $message->getBody() === 'm5' && !$message->isRedelivered() ? $message->nack(true) : ($message->getBody() === 'm7' ? $message->reject(false) : $message->ack());
});
while (count($got) < 11) {
    $channel->wait(null, false, 10);
}
$channel->basic_cancel('tag');
$bodies = array_column($got, 0);
sort($bodies);
show('consumed', $bodies, array_values(array_filter($got, fn ($one) => $one[2])));
$dead = take($channel, 'php.dead');
$death = $dead->get('application_headers')->getNativeData()['x-death'][0];
show('dead letter', $dead->getBody(), $death['reason'], $death['queue'], $death['count']);

$channel->queue_declare('php.delay', false, true, false, false, false, new AMQPTable(['x-message-ttl' => 100, 'x-expires' => 10100, 'x-dead-letter-exchange' => 'php.direct', 'x-dead-letter-routing-key' => 'k']));
$channel->basic_publish(new AMQPMessage('delayed'), '', 'php.delay');
$late = take($channel, 'php.q');
show('a queue as a delay', $late->getBody(), $late->get('application_headers')->getNativeData()['x-death'][0]['reason']);

$channel->queue_declare('php.prio', false, false, false, false, false, new AMQPTable(['x-max-priority' => 10]));
foreach ([1, 10, 5] as $priority) {
    $channel->basic_publish(new AMQPMessage("p$priority", ['priority' => $priority]), '', 'php.prio');
}
$channel->wait_for_pending_acks(10);
show('priorities', array_map(fn () => take($channel, 'php.prio')->getBody(), [0, 1, 2]));

$tx = $connection->channel();
$tx->tx_select();
$tx->basic_publish(new AMQPMessage('no'), '', 'php.prio');
$tx->tx_rollback();
$tx->basic_publish(new AMQPMessage('yes'), '', 'php.prio');
$tx->tx_commit();
show('transaction', take($channel, 'php.prio')->getBody(), $channel->basic_get('php.prio', true));

$large = str_repeat('0123456789', 60000);
$channel->basic_publish(new AMQPMessage($large), '', 'php.prio');
show('a large body', take($channel, 'php.prio')->getBody() === $large);
foreach ([
    'passive declare of a missing queue' => fn ($ch) => $ch->queue_declare('php.none', true),
    'another argument' => fn ($ch) => $ch->queue_declare('php.prio', false, false, false, false, false, new AMQPTable(['x-max-priority' => 5])),
] as $text => $action) {
    try {
        $action($connection->channel());
    } catch (AMQPProtocolChannelException $error) {
        show($text, $error->amqp_reply_code, $error->amqp_reply_text);
    }
}
foreach (['php.q', 'php.dead', 'php.prio', 'php.delay'] as $queue) {
    $channel->queue_delete($queue);
}
$channel->exchange_delete('php.direct');
$connection->close();
