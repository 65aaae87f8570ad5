// The signalling of y-webrtc: first as a plain client speaks it, then with the client of the
// package itself. That two browsers find each other with it is in browser.test.mjs.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebsocketClient } from 'lib0/websocket'
import { closeSockets, eventually, socketOf } from './peers.mjs'
import { ORIGIN, room, start, TARGET } from './servers.mjs'

// The client gives up a server that is silent for 30 s; it pings every 15 s.
const IDLE_MS = 35_000
// Long enough for a message to cross, where a test is that it does not.
const QUIET_MS = 500

let servers
let left
let right
before(async () => {
  servers = await start()
  ;[left, right] = servers.nodes
})
after(async () => {
  closeSockets()
  await servers?.close()
})

const newRoom = async label => room(await servers.topic(label), 'document')

class Signaller {
  static async open (node, ...topics) {
    const client = new Signaller()
    client.socket = new (socketOf(ORIGIN))(node.signal)
    client.heard = []
    client.socket.on('message', (data, isBinary) => {
      assert.ok(!isBinary, 'a client parses text only')
      client.heard.push(JSON.parse(data))
    })
    await new Promise((resolve, reject) => client.socket.once('open', resolve).once('error', reject))
    if (topics.length > 0) await client.subscribe(...topics)
    return client
  }

  send (message) { this.socket.send(JSON.stringify(message)) }

  /** Sends, and waits until the server has read it: it answers in order. */
  async settled (message) {
    if (message) this.send(message)
    const pongs = () => this.heard.filter(({ type }) => type === 'pong').length
    const before = pongs()
    this.send({ type: 'ping' })
    await eventually('a pong', () => pongs() > before)
  }

  subscribe (...topics) { return this.settled({ type: 'subscribe', topics }) }
  unsubscribe (...topics) { return this.settled({ type: 'unsubscribe', topics }) }
  publish (topic, data) { this.send({ type: 'publish', topic, data }) }

  published (topic) {
    return this.heard.filter(message => message.type === 'publish' && message.topic === topic)
  }

  /** The first publication with these data. */
  hears (topic, data) {
    return eventually(`${JSON.stringify(data).slice(0, 80)} in ${topic}`, () =>
      this.published(topic).find(message => JSON.stringify(message.data) === JSON.stringify(data)))
  }

  close () { this.socket.terminate() }
}

/** Publishes again until it is heard: a subscription takes a while to be known elsewhere. */
const untilHeard = async (from, to, topic) => {
  let tries = 0
  await eventually('a publication at the other server', () => {
    if (tries++ % 10 === 0) from.publish(topic, 'are you there?')
    return to.published(topic).length > 0
  })
}

describe('at one server', () => {
  test('a publication reaches all subscribers, its sender too, with their number', async () => {
    const name = await newRoom('publish')
    const [ana, bo] = [await Signaller.open(left, name), await Signaller.open(left, name)]
    const data = { type: 'announce', from: 'ana', any: [1, null, { ü: '🦀' }] }
    ana.publish(name, data)
    for (const client of [ana, bo]) {
      assert.deepEqual(await client.hears(name, data), { type: 'publish', topic: name, data, clients: 2 })
    }
    for (const client of [ana, bo]) client.close()
  })

  test('an encrypted publication is a text like any', async () => {
    const name = await newRoom('encrypted')
    const ana = await Signaller.open(left, name)
    const data = Buffer.from(Array.from({ length: 16_384 }, (_, i) => i * 7)).toString('base64')
    ana.publish(name, data)
    await ana.hears(name, data)
    ana.close()
  })

  test('who has not subscribed may publish, and hears nothing', async () => {
    const name = await newRoom('outside')
    const [ana, bo] = [await Signaller.open(left), await Signaller.open(left, name)]
    ana.publish(name, 'hello')
    assert.equal((await bo.hears(name, 'hello')).clients, 1)
    await ana.settled()
    assert.deepEqual(ana.published(name), [])
    for (const client of [ana, bo]) client.close()
  })

  test('a topic without subscribers swallows what is said', async () => {
    const name = await newRoom('nobody')
    const ana = await Signaller.open(left)
    ana.publish(name, 'hello')
    await ana.settled()
    assert.deepEqual(ana.heard.filter(({ type }) => type !== 'pong'), [])
    ana.close()
  })

  test('who unsubscribed hears nothing more and is not counted', async () => {
    const name = await newRoom('unsubscribe')
    const [ana, bo] = [await Signaller.open(left, name), await Signaller.open(left, name)]
    await bo.unsubscribe(name)
    ana.publish(name, 'hello')
    assert.equal((await ana.hears(name, 'hello')).clients, 1)
    await bo.settled()
    assert.deepEqual(bo.published(name), [])
    await bo.subscribe(name)
    ana.publish(name, 'again')
    assert.equal((await bo.hears(name, 'again')).clients, 2)
    for (const client of [ana, bo]) client.close()
  })

  test('who vanished is not counted', async () => {
    const name = await newRoom('gone')
    const [ana, bo] = [await Signaller.open(left, name), await Signaller.open(left, name)]
    bo.close()
    let tries = 0
    await eventually('a count of 1', () => {
      if (tries++ % 10 === 0) ana.publish(name, 'who is there?')
      return ana.published(name).some(({ clients }) => clients === 1)
    })
    ana.close()
  })

  test('topics are subscribed in one message, and twice is once', async () => {
    const [one, two] = [await newRoom('one'), await newRoom('two')]
    const ana = await Signaller.open(left, one, two, one)
    await ana.subscribe(two)
    ana.publish(one, 'first')
    ana.publish(two, 'second')
    await ana.hears(one, 'first')
    await ana.hears(two, 'second')
    await ana.settled()
    assert.equal(ana.published(one).length, 1)
    assert.equal(ana.published(two).length, 1)
    ana.close()
  })

  test('publications keep their order', async () => {
    const name = await newRoom('order')
    const [ana, bo] = [await Signaller.open(left, name), await Signaller.open(left, name)]
    for (let index = 0; index < 100; index++) ana.publish(name, index)
    await bo.hears(name, 99)
    assert.deepEqual(bo.published(name).map(({ data }) => data), Array.from({ length: 100 }, (_, i) => i))
    for (const client of [ana, bo]) client.close()
  })

  test('what is no message of the protocol is skipped', async () => {
    const name = await newRoom('skipped')
    const ana = await Signaller.open(left, name)
    for (const message of [
      null, 7, {}, { type: 'unknown' }, { type: 'subscribe' }, { type: 'subscribe', topics: [1, null, {}] },
      { type: 'unsubscribe', topics: ['never subscribed'] }, { type: 'publish' }, { type: 'publish', topic: '' }
    ]) ana.send(message)
    await ana.settled()
    ana.publish(name, 'well')
    await ana.hears(name, 'well')
    ana.close()
  })

  test('what is no JSON harms nobody else', {
    skip: TARGET === 'reference' && 'its process dies of it'
  }, async () => {
    const name = await newRoom('json')
    const ana = await Signaller.open(left, name)
    for (const bytes of ['{', '', '"', new Uint8Array([255, 0]), `{"type":"publish","topic":"${name}"`]) {
      const bad = await Signaller.open(left, name)
      bad.socket.send(bytes)
    }
    ana.publish(name, 'well')
    await ana.hears(name, 'well')
    ana.close()
  })
})

describe('at two servers', () => {
  test('a publication at one reaches the subscribers of the other', async () => {
    const name = await newRoom('across')
    const [ana, bo] = [await Signaller.open(left, name), await Signaller.open(right, name)]
    await untilHeard(ana, bo, name)
    await untilHeard(bo, ana, name)
    const offer = { type: 'signal', from: 'ana', to: 'bo', signal: { type: 'offer', sdp: 'v=0 '.repeat(4096) } }
    ana.publish(name, offer)
    for (const client of [ana, bo]) assert.ok((await client.hears(name, offer)).clients >= 1)
    assert.equal(bo.published(name).filter(({ data }) => data.type === 'signal').length, 1)
    for (const client of [ana, bo]) client.close()
  })

  test('all of many publications cross', async () => {
    const name = await newRoom('many')
    const [ana, bo] = [await Signaller.open(left, name), await Signaller.open(right, name)]
    await untilHeard(ana, bo, name)
    for (let index = 0; index < 50; index++) ana.publish(name, { index })
    await eventually('all of them', () =>
      new Set(bo.published(name).map(({ data }) => data.index).filter(index => index !== undefined)).size === 50)
    for (const client of [ana, bo]) client.close()
  })

  test('a publication stays in its topic', async () => {
    const [one, two] = [await newRoom('here'), await newRoom('there')]
    const [ana, bo] = [await Signaller.open(left, one, two), await Signaller.open(right, two)]
    await untilHeard(ana, bo, two)
    ana.publish(one, 'for here')
    await ana.hears(one, 'for here')
    await sleep(QUIET_MS)
    assert.deepEqual(bo.published(one), [])
    for (const client of [ana, bo]) client.close()
  })
})

describe('the client of the package', { concurrency: true }, () => {
  before(() => { globalThis.WebSocket = socketOf(ORIGIN) })

  test('is connected once in 35 s of idle', async () => {
    const client = new WebsocketClient(left.signal)
    let connects = 0
    let pongs = 0
    client.on('connect', () => connects++)
    client.on('message', message => { if (message.type === 'pong') pongs++ })
    await sleep(IDLE_MS)
    client.destroy()
    assert.equal(connects, 1)
    assert.ok(pongs >= 1)
  })

  test('comes back when its server does', async () => {
    // A server of its own: the idle one of the other test must not be cut off.
    const own = await start()
    const client = new WebsocketClient(own.nodes[0].signal)
    let connects = 0
    client.on('connect', () => connects++)
    try {
      await eventually('the first connection', () => connects === 1)
      await own.signallers[0].kill()
      await eventually('the loss', () => !client.connected)
      await own.signallers[0].start()
      await eventually('the second connection', () => connects === 2)
    } finally {
      client.destroy()
      await own.close()
    }
  })

  test('a wrong token gets nobody in', { skip: TARGET === 'reference' && 'asks for none' }, async () => {
    const url = new URL(left.signal)
    url.searchParams.set('token', 'wrong')
    const name = await newRoom('token')
    const client = await Signaller.open({ signal: url.href }).catch(() => null)
    client?.send({ type: 'subscribe', topics: [name] })
    await eventually('it was refused', () => !client || client.socket.readyState === client.socket.CLOSED)
    assert.deepEqual(client?.heard ?? [], [])
  })
})
