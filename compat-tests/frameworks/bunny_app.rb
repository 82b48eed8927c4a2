# Bunny (Debian): confirms, returns, consumers, dead letters, priorities, RPC, errors, a broken connection.

require "bunny"

host, port = ENV["AMQP_ADDR"].split(":")
connection = Bunny.new(host: host, port: port.to_i, user: "guest", pass: "guest", network_recovery_interval: 0.1, recover_from_connection_close: true, logger: Logger.new(File::NULL))
connection.start
channel = connection.create_channel

def show(text, *values)
  puts "> #{text}"
  values.each { |value| puts value.inspect }
end

def wait_until(seconds = 10)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
  until (value = yield)
    raise "never" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    sleep 0.01
  end
  value
end

names = %w[bunny.q bunny.dead bunny.prio bunny.rpc]
names.each { |name| channel.queue_delete(name) }
dead = channel.queue("bunny.dead", durable: true)
queue = channel.queue("bunny.q", durable: true, arguments: { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "bunny.dead" })
topic = channel.topic("bunny.topic", durable: true)
queue.bind(topic, routing_key: "a.#")
channel.confirm_select
returned = Queue.new
topic.on_return { |info, _, body| returned << [info.reply_code, info.reply_text, info.routing_key, body] }
10.times { |i| topic.publish("m#{i}", routing_key: "a.#{i}", persistent: true, headers: { "n" => i, "list" => [1, "two"] }) }
topic.publish("lost", routing_key: "nowhere", mandatory: true)
show "confirmed", channel.wait_for_confirms, returned.pop
show "counts", wait_until { queue.message_count == 10 }, queue.consumer_count

channel.prefetch(3)
got = Queue.new
consumer = queue.subscribe(manual_ack: true) do |info, properties, body|
  got << [body, properties.headers["n"], info.redelivered?]
  if body == "m5" && !info.redelivered?
    channel.nack(info.delivery_tag, false, true)
  elsif body == "m7"
    channel.reject(info.delivery_tag, false)
  else
    channel.ack(info.delivery_tag)
  end
end
all = Array.new(11) { got.pop }
consumer.cancel
show "consumed", all.map(&:first).sort, all.select(&:last)
_, properties, body = wait_until { (found = dead.pop)[0] && found }
show "dead letter", body, properties.headers["x-death"][0].values_at("reason", "queue", "count")

prio = channel.queue("bunny.prio", arguments: { "x-max-priority" => 5 })
[1, 5, 3].each { |priority| prio.publish("p#{priority}", priority: priority) }
channel.wait_for_confirms
show "priorities", Array.new(3) { prio.pop[2] }

server = connection.create_channel
server.queue("bunny.rpc").subscribe { |_, asked, body| server.default_exchange.publish(body.upcase, routing_key: asked.reply_to, correlation_id: asked.correlation_id) }
client = connection.create_channel
answers = Queue.new
client.basic_consume("amq.rabbitmq.reply-to", "", true) { |_, answer, body| answers << [answer.correlation_id, body] }
client.default_exchange.publish("question", routing_key: "bunny.rpc", reply_to: "amq.rabbitmq.reply-to", correlation_id: "c1")
show "direct reply-to", answers.pop

[["passive declare of a missing queue", -> (ch) { ch.queue_declare("bunny.none", passive: true) }],
 ["another argument", -> (ch) { ch.queue("bunny.prio", arguments: { "x-max-priority" => 6 }) }]].each do |text, action|
  action.call(connection.create_channel)
rescue Bunny::ChannelLevelException => error
  show text, error.class, error.message
end

got.clear
queue.subscribe { |_, _, body| got << body }
connection.transport.socket.shutdown
wait_until do
  topic.publish("after", routing_key: "a.b") rescue nil
  !got.empty?
end
show "recovered, with its consumers", got.pop
names.each { |name| channel.queue_delete(name) }
channel.exchange_delete("bunny.topic")
connection.close
