// rabbitmq-client: publisher with confirms and returns, consumers, RPC over direct reply-to, dead letters, priorities, reconnection.
const { Connection } = require('rabbitmq-client')

const show = (text, ...values) => {
  console.log(`> ${text}`)
  for (const value of values) console.log(JSON.stringify(value))
}
const until = async (condition, seconds = 10) => {
  for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
    const value = await condition()
    if (value) return value
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  throw new Error(`never: ${condition}`)
}

async function main () {
  const rabbit = new Connection({ url: `amqp://guest:guest@${process.env.AMQP_ADDR}`, retryLow: 50 })
  rabbit.on('error', () => {})
  await rabbit.onConnect()
  const names = ['rc.q', 'rc.dead', 'rc.prio', 'rc.rpc']
  for (const name of names) await rabbit.queueDelete(name)
  const take = name => until(() => rabbit.basicGet({ queue: name, noAck: true }))

  const returned = []
  const publisher = rabbit.createPublisher({
    confirm: true,
    maxAttempts: 2,
    exchanges: [{ exchange: 'rc.topic', type: 'topic', durable: true }],
    queues: [{ queue: 'rc.dead', durable: true }, { queue: 'rc.q', durable: true, arguments: { 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'rc.dead' } }],
    queueBindings: [{ queue: 'rc.q', exchange: 'rc.topic', routingKey: 'a.#' }]
  })
  publisher.on('basic.return', message => returned.push([message.replyCode, message.replyText, message.routingKey]))
  for (let n = 0; n < 10; n++) await publisher.send({ exchange: 'rc.topic', routingKey: `a.${n}`, durable: true, headers: { n, list: [1, 'two', { three: null }] } }, { n })
  await publisher.send({ exchange: 'rc.topic', routingKey: 'nowhere', mandatory: true }, 'lost')
  show('confirmed and returned', await until(() => returned.length && returned))

  const got = []
  const consumer = rabbit.createConsumer({ queue: 'rc.q', queueOptions: { passive: true }, qos: { prefetchCount: 1 }, concurrency: 1, requeue: true }, async message => {
    got.push([message.body.n, message.redelivered])
    if (message.body.n === 5 && !message.redelivered) throw new Error('once more')
    if (message.body.n === 7) return 2 // drop
  })
  consumer.on('error', () => {})
  await until(() => got.length === 11)
  await consumer.close()
  show('consumed', got.map(([n]) => n).sort((a, b) => a - b), got.filter(([, again]) => again))
  const dead = await take('rc.dead')
  show('dead letter', dead.body, dead.headers['x-death'][0].reason, dead.headers['x-first-death-queue'])

  await rabbit.queueDeclare({ queue: 'rc.prio', arguments: { 'x-max-priority': 9 } })
  for (const priority of [1, 9, 5]) await publisher.send({ routingKey: 'rc.prio', priority }, `p${priority}`)
  show('priorities', [(await take('rc.prio')).body, (await take('rc.prio')).body, (await take('rc.prio')).body])

  const server = rabbit.createConsumer({ queue: 'rc.rpc', queueOptions: { queue: 'rc.rpc' } }, async (asked, reply) => reply(`you said ${asked.body}`))
  const client = rabbit.createRPCClient({ confirm: true })
  show('rpc', (await client.send('rc.rpc', 'this')).body, (await client.send('rc.rpc', 'that')).body)
  await client.close()
  await server.close()

  for (const [text, options] of [['passive declare of a missing queue', { queue: 'rc.none', passive: true }], ['another argument', { queue: 'rc.prio', arguments: { 'x-max-priority': 3 } }]]) {
    const probe = await rabbit.acquire()
    await probe.queueDeclare(options).then(() => show(text, 'accepted'), error => show(text, error.code, error.message))
  }
  const after = []
  const watching = rabbit.createConsumer({ queue: 'rc.q', queueOptions: { passive: true }, noAck: true }, async message => { after.push(message.body) })
  watching.on('error', () => {})
  await new Promise(resolve => watching.once('ready', resolve))
  rabbit._socket.destroy()
  await until(() => publisher.send({ exchange: 'rc.topic', routingKey: 'a.b' }, 'after').then(() => true, () => false))
  show('reconnected, with its consumers', (await until(() => after.length && after))[0])
  await watching.close()
  for (const name of names) await rabbit.queueDelete(name)
  await rabbit.exchangeDelete({ exchange: 'rc.topic' })
  await publisher.close()
  await rabbit.close()
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
