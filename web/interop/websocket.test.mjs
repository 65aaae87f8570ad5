// Unmodified y-websocket clients at two servers.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import * as Y from 'yjs'
import { closeSockets, converged, eventually, Peer, state } from './peers.mjs'
import { room, start, TARGET } from './servers.mjs'

// Longer than the 30 s after which a client gives up a silent server.
const IDLE_MS = 35_000
// Far less than the 30 s after which clients drop by themselves who says nothing.
const VANISHED_WITHIN_MS = 15_000

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

/** Runs `body` with clients at both servers and closes them, whatever happens. */
const withPeers = async (label, body, { options = {} } = {}) => {
  const name = room(await servers.topic(label), 'document')
  const peers = []
  const join = (node, more = {}) => {
    const peer = new Peer(node, name, { ...options, ...more })
    peers.push(peer)
    return peer
  }
  try {
    await body(join, name)
  } finally {
    for (const peer of peers) peer.close()
  }
}

/** Edits everything that can be shared, in several transactions. */
const editAll = ({ doc, text, map, array, xml }, who) => {
  text.insert(0, `${who} says 👩‍🚀 hello. `)
  text.format(2, 6, { bold: true })
  text.delete(0, 1)
  map.set('same', who)
  map.set(who, { nested: [1, 2.5, null, true, { deep: 'x' }] })
  map.set('bytes', new Uint8Array([0, 127, 255]))
  doc.transact(() => {
    array.insert(0, [who, 1, new Y.Map([['in', who]])])
    array.push([new Y.Array(), 'last'])
    array.delete(1, 1)
  })
  const element = new Y.XmlElement('p')
  element.setAttribute('class', who)
  element.insert(0, [new Y.XmlText(`text of ${who}`), new Y.XmlElement('br')])
  xml.insert(0, [element])
}

describe('edits', () => {
  test('concurrent edits of all types converge', () => withPeers('edits', async join => {
    const [ana, bo] = [join(left), join(right)]
    await Promise.all([ana.synced(), bo.synced()])
    editAll(ana, 'ana')
    editAll(bo, 'bo')
    await converged([ana, bo])
    assert.equal(state(ana.doc).array.length, 8)
    assert.match(ana.text.toString(), /na says 👩‍🚀 hello/)
    assert.match(ana.text.toString(), /o says 👩‍🚀 hello/)
    editAll(ana, 'ana')
    editAll(bo, 'bo')
    await converged([ana, bo])
  }))

  test('who is synced has all that the server has', () => withPeers('synced', async join => {
    const ana = join(left)
    await ana.synced()
    editAll(ana, 'ana')
    const bo = join(right)
    await converged([ana, bo])
    for (const node of [left, right]) {
      const late = join(node)
      let seen
      late.provider.once('sync', () => { seen = state(late.doc) })
      await late.synced()
      assert.deepEqual(seen, state(ana.doc))
    }
  }))

  test('offline edits of both sides merge', () => withPeers('offline', async join => {
    const [ana, bo] = [join(left), join(right)]
    await Promise.all([ana.synced(), bo.synced()])
    editAll(ana, 'ana')
    await converged([ana, bo])
    for (const peer of [ana, bo]) peer.provider.disconnect()
    editAll(ana, 'ana offline')
    editAll(bo, 'bo offline')
    // Deletions do not show in state vectors: this must arrive all the same.
    ana.text.delete(0, 5)
    bo.map.delete('ana')
    ana.provider.connect()
    bo.provider.connect()
    await converged([ana, bo])
    assert.deepEqual(Object.keys(ana.map.toJSON()).sort(), ['ana offline', 'bo offline', 'bytes', 'same'])
  }))

  test('an offline deletion alone arrives', () => withPeers('deletion', async join => {
    const [ana, bo] = [join(left), join(right)]
    await Promise.all([ana.synced(), bo.synced()])
    ana.text.insert(0, 'abcdef')
    await converged([ana, bo])
    ana.provider.disconnect()
    ana.text.delete(1, 4)
    ana.provider.connect()
    await eventually('the deletion at the other', () => bo.text.toString() === 'af')
    await converged([ana, bo])
  }))

  test('a paste of 1 MiB arrives', () => withPeers('paste', async join => {
    const [ana, bo] = [join(left), join(right)]
    await Promise.all([ana.synced(), bo.synced()])
    ana.text.insert(0, 'ä'.repeat(1 << 19))
    await converged([ana, bo])
    assert.equal(bo.text.length, 1 << 19)
  }))

  test('2,000 single letters arrive in order', () => withPeers('letters', async join => {
    const [ana, bo] = [join(left), join(right)]
    await Promise.all([ana.synced(), bo.synced()])
    for (let index = 0; index < 2000; index++) ana.text.insert(index, String(index % 10))
    await converged([ana, bo])
    assert.equal(bo.text.toString(), '0123456789'.repeat(200))
  }))

  test('a subdocument and an undo are edits like others', () => withPeers('undo', async join => {
    const [ana, bo] = [join(left), join(right)]
    await Promise.all([ana.synced(), bo.synced()])
    ana.map.set('part', new Y.Doc({ guid: 'part-1' }))
    const undo = new Y.UndoManager(ana.text)
    ana.text.insert(0, 'wrong')
    await eventually('the text', () => bo.text.toString() === 'wrong')
    undo.undo()
    await eventually('the text undone', () => bo.text.toString() === '')
    undo.redo()
    await eventually('the text redone', () => bo.text.toString() === 'wrong')
    await eventually('the subdocument', () => bo.map.get('part')?.guid === 'part-1')
    undo.destroy()
  }))
})

describe('servers that are killed', () => {
  for (const [index, side] of ['left', 'right'].entries()) {
    test(`the ${side} one, and both clients go on`, () => withPeers(`kill-${side}`, async join => {
      const [ana, bo] = [join(left), join(right)]
      await Promise.all([ana.synced(), bo.synced()])
      editAll(ana, 'ana')
      await converged([ana, bo])
      await servers.nodes[index].kill()
      const cut = [ana, bo][index]
      await eventually('the client knows', () => !cut.provider.wsconnected)
      editAll(ana, 'ana meanwhile')
      editAll(bo, 'bo meanwhile')
      await servers.nodes[index].start()
      await converged([ana, bo])
      editAll(ana, 'ana after')
      editAll(bo, 'bo after')
      await converged([ana, bo])
    }))
  }

  test('both, and no client is left to tell them', () => withPeers('both', async join => {
    const [ana, bo] = [join(left), join(right)]
    await Promise.all([ana.synced(), bo.synced()])
    editAll(ana, 'ana')
    await converged([ana, bo])
    const before = state(ana.doc)
    ana.close()
    bo.close()
    // The reference says nothing of what is on disk; give it time to write.
    await sleep(500)
    await Promise.all(servers.nodes.map(node => node.kill()))
    await Promise.all(servers.nodes.map(node => node.start()))
    for (const node of [left, right]) {
      const late = join(node)
      await eventually('the state of before', () => state(late.doc).vector === before.vector)
      assert.deepEqual(state(late.doc), before)
    }
  }))
})

describe('awareness', () => {
  test('who comes, changes and leaves is seen', () => withPeers('presence', async join => {
    const [ana, bo] = [join(left), join(right)]
    const changes = []
    bo.awareness.on('change', ({ added, updated, removed }) => {
      const isAna = ids => ids.includes(ana.doc.clientID)
      changes.push(...[isAna(added) && 'added', isAna(updated) && 'updated', isAna(removed) && 'removed']
        .filter(Boolean))
    })
    ana.awareness.setLocalState({ user: { name: 'ana', color: '#f00' } })
    bo.awareness.setLocalState({ user: { name: 'bo ☃' } })
    await eventually('ana at bo', () => bo.others[ana.doc.clientID]?.user?.name === 'ana')
    await eventually('bo at ana', () => ana.others[bo.doc.clientID]?.user?.name === 'bo ☃')
    ana.awareness.setLocalStateField('cursor', { anchor: 3 })
    await eventually('the cursor', () => bo.others[ana.doc.clientID]?.cursor?.anchor === 3)
    const late = join(right)
    await eventually('both at who comes later', () => Object.keys(late.others).length === 2)
    ana.awareness.setLocalState(null)
    await eventually('ana gone', () => !(ana.doc.clientID in bo.others) && !(ana.doc.clientID in late.others))
    ana.awareness.setLocalState({ user: { name: 'ana again' } })
    await eventually('ana back', () => bo.others[ana.doc.clientID]?.user.name === 'ana again')
    ana.provider.disconnect()
    await eventually('ana gone again', () => !(ana.doc.clientID in bo.others))
    assert.equal(changes[0], 'added')
    assert.equal(changes.at(-1), 'removed')
  }))

  test('a client that vanished is cleared', () => withPeers('vanished', async join => {
    const [ana, bo] = [join(left), join(right)]
    ana.awareness.setLocalState({ name: 'ana' })
    await eventually('ana at bo', () => bo.others[ana.doc.clientID]?.name === 'ana')
    ana.vanish()
    await eventually('ana cleared', () => !(ana.doc.clientID in bo.others), { within: VANISHED_WITHIN_MS })
    const late = join(right)
    await late.synced()
    await eventually('bo at who comes later', () => bo.doc.clientID in late.others)
    assert.ok(!(ana.doc.clientID in late.others))
  }))

  test('one of two clients of a server vanishes, the other stays', () => withPeers('stays', async join => {
    const [ana, bo, cy] = [join(left), join(right), join(left)]
    await eventually('both at bo', () => Object.keys(bo.others).length === 2)
    ana.vanish()
    await eventually('cy alone', () => Object.keys(bo.others).join() === String(cy.doc.clientID), {
      within: VANISHED_WITHIN_MS
    })
  }))
})

describe('time', { concurrency: true }, () => {
  test('idle for 35 s, nobody connects again', () => withPeers('idle', async join => {
    const pair = [join(left), join(right)]
    await Promise.all(pair.map(peer => peer.synced()))
    await sleep(IDLE_MS)
    for (const peer of pair) {
      assert.deepEqual(peer.closes, [])
      assert.equal(peer.attempts, 1)
      assert.ok(peer.provider.synced)
    }
    assert.equal(Object.keys(pair[0].others).length, 1, 'the other is still there')
  }))

  test('idle for 35 s, alone in a room', () => withPeers('alone', async join => {
    const lone = join(left, { quiet: true })
    await lone.synced()
    await sleep(IDLE_MS)
    assert.deepEqual(lone.closes, [])
  }))

  // The clock of its awareness stands where it stood when the server cleared it, so the others
  // take it for old until it says more, within 15 s.
  test('a client that vanished and came back is seen again', () => withPeers('back', async join => {
    const [ana, bo] = [join(left), join(right)]
    await eventually('ana at bo', () => ana.doc.clientID in bo.others)
    ana.vanish()
    await eventually('ana cleared', () => !(ana.doc.clientID in bo.others), { within: VANISHED_WITHIN_MS })
    ana.provider.connect()
    await eventually('ana back', () => ana.doc.clientID in bo.others, { within: 25_000 })
  }))
})

describe('rooms', () => {
  const NAMES = [
    'a/b', 'a/b/', 'a//b', 'a', '100%', '%41', 'A', '%2F', 'ü', '日本/語', '🦀', 'a b', 'a+b', 'a&b=c', "~!$'()*,;:@",
    '%c3%bd', '%C3%BD'
  ]

  test('names that a path can hold are rooms of their own', async () => {
    const topic = await servers.topic('rooms')
    const writers = NAMES.map(name => new Peer(left, room(topic, name)))
    const readers = NAMES.map(name => new Peer(right, room(topic, name)))
    try {
      await Promise.all([...writers, ...readers].map(peer => peer.synced()))
      for (const [index, name] of NAMES.entries()) writers[index].text.insert(0, name)
      for (const [index, name] of NAMES.entries()) {
        await eventually(`the text of ${name}`, () => readers[index].text.length > 0)
      }
      for (const [index, name] of NAMES.entries()) assert.equal(readers[index].text.toString(), name)
    } finally {
      for (const peer of [...writers, ...readers]) peer.close()
    }
  })

  test('a name and its percent-encoded form are one room, for a client encodes it', async () => {
    const topic = await servers.topic('encoded')
    const [ana, bo] = [new Peer(left, room(topic, 'ü')), new Peer(right, room(topic, '%C3%BC'))]
    try {
      ana.text.insert(0, 'umlaut')
      await eventually('the text', () => bo.text.toString() === 'umlaut')
    } finally {
      for (const peer of [ana, bo]) peer.close()
    }
  })

  test('parameters are no part of the name', async () => {
    const name = room(await servers.topic('parameters'), 'document')
    const more = { params: { ...right.params, other: 'a/b?c' } }
    const [ana, bo] = [new Peer(left, name), new Peer(right, name, more)]
    try {
      ana.text.insert(0, 'same room')
      await eventually('the text', () => bo.text.toString() === 'same room')
    } finally {
      for (const peer of [ana, bo]) peer.close()
    }
  })

  test('a room of two topics is two rooms', { skip: TARGET === 'reference' && 'knows no topics' }, async () => {
    const topics = [await servers.topic('one'), await servers.topic('two')]
    const peers = topics.flatMap(topic => [left, right].map(node => new Peer(node, room(topic, 'same'))))
    try {
      await Promise.all(peers.map(peer => peer.synced()))
      peers[0].text.insert(0, 'one')
      peers[2].text.insert(0, 'two')
      await eventually('both', () => peers[1].text.length === 3 && peers[3].text.length === 3)
      assert.deepEqual(peers.map(peer => peer.text.toString()), ['one', 'one', 'two', 'two'])
    } finally {
      for (const peer of peers) peer.close()
    }
  })
})

describe('versions of the client', () => {
  for (const version of [1, 2, 3]) {
    test(`y-websocket ${version} edits, goes on after a restart, is seen`, () => withPeers(`v${version}`, async join => {
      const [ana, bo] = [join(left), join(right)]
      await Promise.all([ana.synced(), bo.synced()])
      await eventually('both there', () => ana.doc.clientID in bo.others && bo.doc.clientID in ana.others)
      editAll(ana, 'ana')
      editAll(bo, 'bo')
      await converged([ana, bo])
      await right.kill()
      editAll(bo, 'bo meanwhile')
      await right.start()
      await converged([ana, bo])
    }, { options: { version } }))
  }

  test('all of them in one room', () => withPeers('versions', async join => {
    const peers = [left, right].flatMap(node => [1, 2, 3].map(version => join(node, { version })))
    await Promise.all(peers.map(peer => peer.synced()))
    for (const [index, peer] of peers.entries()) editAll(peer, `peer ${index}`)
    await converged(peers)
    await eventually('all see all', () => peers.every(peer => Object.keys(peer.others).length === 5))
  }))
})
