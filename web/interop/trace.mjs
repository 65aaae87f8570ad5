// How long a joiner takes to have a text that was typed in 260,000 operations.
//
//   node trace.mjs                    the servers of TARGET
//   node trace.mjs --url ws://… --room topic/document --token …    one server that runs
//
// The trace has the shape of one that a writer made: runs of typing, deletions backwards, the cursor
// elsewhere now and then. Each operation is one transaction, as an editor makes it. The joiner's
// time is from its construction until it has all, and apart from that what its own Yjs needs to take
// the same update from memory: no server can be faster than that.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import * as Y from 'yjs'
import { closeSockets, eventually, Peer, state } from './peers.mjs'
import { options, Random } from './random.mjs'
import { room, start, TARGET } from './servers.mjs'

const given = options({ ops: 260_000, seed: 1, joins: 5, url: '', room: '', token: '' })
// Operations between two looks at what the socket has not sent; and how much may wait there.
const BURST = 200
const WAITING_BYTES = 1 << 20

const LETTERS = 'eeeeetttaaooiinnsshhrrdlucmfwypvbgk      ,.\n'

/** Operations `{ at, insert }` and `{ at, remove }` of one unit each, as generated one by one. */
const trace = function * (random, count) {
  let length = 0
  let cursor = 0
  for (let made = 0; made < count;) {
    const kind = length === 0 ? 'type' : random.weighted({ type: 65, erase: 28, jump: 7 })
    if (kind === 'jump') {
      // Mostly near, at times anywhere.
      const near = Math.min(length, Math.max(0, cursor + random.below(200) - 100))
      cursor = random.chance(70) ? near : random.below(length + 1)
    }
    const run = kind === 'type' ? 1 + random.below(40) : kind === 'erase' ? 1 + random.below(40) : 0
    for (let i = 0; i < run && made < count; i++) {
      if (kind === 'type') {
        yield { at: cursor++, insert: random.of(LETTERS) }
        length++
      } else {
        if (cursor === 0) break
        yield { at: --cursor, remove: 1 }
        length--
      }
      made++
    }
  }
}

const apply = (text, { at, insert, remove }) => insert ? text.insert(at, insert) : text.delete(at, remove)

/** CPU seconds and resident bytes of a process, from /proc; null of one that is not known. */
const usage = pid => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    // Clock ticks are hundredths of a second on Linux.
    return { cpu_s: (Number(stat[11]) + Number(stat[12])) / 100, rss_mib: Number(/VmRSS:\s+(\d+)/.exec(status)[1]) / 1024 }
  } catch {
    return null
  }
}

const since = begin => performance.now() - begin
const median = values => values.toSorted((a, b) => a - b)[values.length >> 1]
const rounded = value => typeof value === 'number' ? Math.round(value * 100) / 100 : value

const join = async (node, name, complete) => {
  const begin = performance.now()
  const peer = new Peer(node, name, { connect: false })
  let bytes = 0
  let frames = 0
  peer.provider.on('status', ({ status }) => {
    if (status !== 'connecting') return
    peer.provider.ws.on('message', data => { bytes += data.byteLength; frames++ })
  })
  const has = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('the joiner has not all after 120 s')), 120_000).unref()
    peer.doc.on('update', () => {
      if (Buffer.compare(Y.encodeStateVector(peer.doc), complete.vector) === 0) resolve()
    })
  })
  peer.provider.connect()
  await has
  const ms = since(begin)
  // Deletions may come after the last insertion.
  await eventually('the whole text', () => peer.text.toString() === complete.text)
  const whole_ms = since(begin)
  const seen = state(peer.doc)
  peer.close()
  return { ms, whole_ms, bytes, frames, seen }
}

const measure = async (nodes, name) => {
  // Without a network: what plain Yjs needs.
  const alone = new Y.Doc()
  const begin = performance.now()
  for (const operation of trace(new Random(given.seed), given.ops)) apply(alone.getText('text'), operation)
  const alone_ms = since(begin)

  const writer = new Peer(nodes[0], name)
  await writer.synced()
  const before = nodes.map(node => usage(node.pid))
  const beginOfWriting = performance.now()
  let count = 0
  for (const operation of trace(new Random(given.seed), given.ops)) {
    apply(writer.text, operation)
    if (++count % BURST === 0) {
      do await sleep(0)
      while (writer.provider.ws?.bufferedAmount > WAITING_BYTES)
    }
  }
  const write_ms = since(beginOfWriting)
  assert.equal(writer.text.toString(), alone.getText('text').toString())
  const complete = { vector: Buffer.from(Y.encodeStateVector(writer.doc)), text: writer.text.toString() }
  // A first joiner at each server waits until the server has all.
  for (const node of nodes) await join(node, name, complete)
  const settled_ms = since(beginOfWriting)
  const used = nodes.map((node, index) => {
    const now = usage(node.pid)
    return now && { cpu_s: rounded(now.cpu_s - before[index].cpu_s), rss_mib: rounded(now.rss_mib) }
  })
  assert.deepEqual(writer.closes, [], 'the writer was never cut off')

  const snapshot = Y.encodeStateAsUpdate(writer.doc)
  const joiners = []
  for (const [index, node] of nodes.entries()) {
    const joins = []
    for (let i = 0; i < given.joins; i++) joins.push(await join(node, name, complete))
    for (const { seen } of joins) assert.deepEqual(seen, state(writer.doc))
    joiners.push({
      server: index,
      all_ms: rounded(median(joins.map(({ whole_ms }) => whole_ms))),
      all_ms_most: rounded(Math.max(...joins.map(({ whole_ms }) => whole_ms))),
      bytes: median(joins.map(({ bytes }) => bytes)),
      frames: median(joins.map(({ frames }) => frames))
    })
  }
  const takes = Array.from({ length: 5 }, () => {
    const begin = performance.now()
    Y.applyUpdate(new Y.Doc(), snapshot)
    return since(begin)
  })
  writer.close()
  return {
    target: given.url ? 'given' : TARGET,
    ops: given.ops,
    text_length: complete.text.length,
    update_bytes: snapshot.length,
    plain_yjs_ms: rounded(alone_ms),
    plain_apply_ms: rounded(median(takes)),
    write_ms: rounded(write_ms),
    settled_ms: rounded(settled_ms),
    servers: used,
    joiners
  }
}

let servers
try {
  if (given.url) {
    const params = given.token ? { token: given.token } : {}
    console.log(JSON.stringify(await measure([{ url: given.url, params }], given.room), null, 2))
  } else {
    servers = await start()
    const nodes = [...new Set(servers.nodes)]
    console.log(JSON.stringify(await measure(nodes, room(await servers.topic('trace'), 'document')), null, 2))
  }
} finally {
  closeSockets()
  await servers?.close()
}
process.exit(0)
