// Who may connect, who may write, and what a client makes of a refusal.
import assert from 'node:assert/strict'
import http from 'node:http'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import WebSocket, { WebSocketServer } from 'ws'
import { closeSockets, converged, eventually, Peer } from './peers.mjs'
import { presence, RawClient } from './raw.mjs'
import { ORIGIN, room, start, TARGET } from './servers.mjs'

// The providers here try again after 500 ms at most: after this they would have.
const NO_MORE_MS = 2_000

let servers
let left
let right
before(async () => {
  // The reference has no access control: its oracle is its own code behind a guard.
  servers = await start({ target: TARGET === 'reference' ? 'guarded' : TARGET })
  ;[left, right] = servers.nodes
})
after(async () => {
  closeSockets()
  await servers?.close()
})

describe('a client that is refused', () => {
  // Not the server under test, but what all servers must reckon with.
  const refusals = [
    ['closed with 4400', 4400, { 3: 'stops' }],
    ['closed with 4401', 4401, { 3: 'stops' }],
    ['closed with 4403', 4403, { 3: 'stops' }],
    ['closed with 4499', 4499, { 3: 'stops' }],
    ['closed with 4399', 4399, {}],
    ['closed with 4500', 4500, {}],
    ['closed with 1008', 1008, {}],
    ['closed with 1000', 1000, {}],
    ['answered 401 to the handshake', null, {}]
  ]
  for (const [what, code, does] of refusals) {
    test(`${what}: ${does[3] ?? 'all versions try again'}`, async () => {
      const sockets = new WebSocketServer({ noServer: true })
      const server = http.createServer().on('upgrade', (request, socket, head) => {
        if (code === null) socket.end('HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n')
        else sockets.handleUpgrade(request, socket, head, client => client.close(code, 'because'))
      })
      await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
      const node = { url: `ws://127.0.0.1:${server.address().port}`, params: {} }
      const peers = [1, 2, 3].map(version => new Peer(node, 'room', { version }))
      const closed = []
      peers[2].provider.on('closed', event => closed.push(event))
      try {
        await eventually('all were refused', () => peers.every(peer => peer.closes.length > 0))
        await sleep(NO_MORE_MS)
        for (const [index, peer] of peers.entries()) {
          const stops = does[index + 1] === 'stops'
          assert.equal(peer.attempts === 1, stops, `y-websocket ${index + 1} tried ${peer.attempts} times`)
          assert.equal(peer.closes[0], code ?? 1006)
        }
        assert.deepEqual(closed, does[3] ? [{ code, reason: 'because' }] : [])
      } finally {
        for (const peer of peers) peer.close()
        server.close()
      }
    })
  }
})

describe('tokens and origins', () => {
  const refused = async peer => {
    const closed = []
    peer.provider.on('closed', event => closed.push(event))
    try {
      await eventually('a final refusal', () => closed.length > 0)
      assert.ok(closed[0].code >= 4400 && closed[0].code <= 4499, `closed with ${closed[0].code}`)
      assert.ok(closed[0].reason.length > 0, 'a reason is given')
      await sleep(NO_MORE_MS)
      assert.equal(peer.attempts, 1)
      assert.ok(!peer.provider.synced)
    } finally {
      peer.close()
    }
  }

  test('a wrong token is refused for good', async () => {
    const name = room(await servers.topic('wrong'), 'document')
    await refused(new Peer(left, name, { params: { token: 'wrong' } }))
  })
  test('no token is refused for good', async () => {
    const name = room(await servers.topic('none'), 'document')
    await refused(new Peer(left, name, { params: {} }))
  })
  test('a topic that the server is not in is refused for good', {
    skip: TARGET === 'reference' && 'every room exists'
  }, () => refused(new Peer(left, room('nosuchtopic', 'document'))))
  test('a room without a document is refused for good', {
    skip: TARGET === 'reference' && 'every room exists'
  }, async () => refused(new Peer(left, await servers.topic('bare'))))

  for (const [what, origin] of [
    ['another', 'http://evil.example'], ['the null', 'null'], ['no', null],
    ['another port of the same', 'http://localhost:1'],
    ['a longer', `${ORIGIN}.evil.example`], ['the same, but secure,', ORIGIN.replace('http', 'https')]
  ]) {
    test(`${what} origin does not get in with the right token`, async () => {
      const name = room(await servers.topic('origin'), 'document')
      const peer = new Peer(left, name, { origin })
      try {
        await eventually('it was refused', () => peer.closes.length > 0)
        assert.ok(!peer.provider.synced)
      } finally {
        peer.close()
      }
    })
  }

  test('another host does not get in with the right token', {
    skip: TARGET === 'reference' && 'looks at no host'
  }, async () => {
    const name = room(await servers.topic('host'), 'document')
    const url = `${left.url}/${name}?${new URLSearchParams(left.params)}`
    const socket = new WebSocket(url, { origin: servers.origin, headers: { host: 'evil.example' } })
    let frames = 0
    socket.on('message', () => frames++)
    await new Promise(resolve => socket.once('close', resolve).once('error', () => {}))
    assert.equal(frames, 0)
  })

  test('a connection that has been refused says nothing of a room', async () => {
    const name = room(await servers.topic('secret'), 'document')
    const ana = new Peer(left, name)
    await ana.synced()
    ana.text.insert(0, 'secret')
    const client = await RawClient.open({ url: left.url, params: { token: 'wrong' } }, name).catch(() => null)
    await eventually('it was refused', () => !client || client.socket.readyState === WebSocket.CLOSED)
    assert.deepEqual(client?.frames ?? [], [])
    ana.close()
  })
})

describe('who may only read', () => {
  test('sees all, changes nothing, and is told so', async () => {
    const name = room(await servers.topic('reading', { may: 'read' }), 'document')
    const [writer, reader] = [new Peer(left, name), new Peer(right, name)]
    await Promise.all([writer.synced(), reader.synced()])
    writer.text.insert(0, 'written, and some more')
    writer.text.delete(7, 15)
    await converged([writer, reader])
    // The answer to the server's question names the deletions: it is no edit.
    reader.provider.disconnect()
    reader.provider.connect()
    await reader.synced()
    await writer.synced()
    assert.deepEqual(reader.denials, [])

    reader.text.insert(0, 'forged')
    reader.map.set('forged', true)
    await eventually('it was told', () => reader.denials.length > 0)
    writer.text.insert(7, ' more')
    await eventually('it reads on', () => reader.text.toString().includes('written more'))
    for (const node of [left, right]) {
      const late = new Peer(node, name)
      await eventually('the text', () => late.text.toString() === 'written more')
      assert.equal(late.map.size, 0)
      late.close()
    }
    assert.equal(writer.text.toString(), 'written more')

    // Offline edits come as the answer to sync step 1.
    reader.denials.length = 0
    reader.provider.disconnect()
    reader.text.insert(0, 'offline ')
    reader.provider.connect()
    await eventually('it was told again', () => reader.denials.length > 0)
    assert.equal(writer.text.toString(), 'written more')
    for (const peer of [writer, reader]) peer.close()
  })

  test('is seen all the same', async () => {
    const name = room(await servers.topic('seen', { may: 'read' }), 'document')
    const writer = new Peer(left, name)
    const reader = await RawClient.open(right, name)
    reader.send(presence(7, 1, { name: 'reader' }))
    await eventually('the reader', () => writer.others[7]?.name === 'reader')
    reader.close()
    writer.close()
  })
})
