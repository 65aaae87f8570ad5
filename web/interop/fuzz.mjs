// Random edits of Yjs peers at two servers that lose connections, are killed, and hear things twice
// and in the wrong order. At the end all peers, and one that comes then, must have the same state.
//
//   node fuzz.mjs --seeds 200       seeds 1 to 200
//   node fuzz.mjs --seed 17         this one; --trace shows what was done
import * as Y from 'yjs'
import { setTimeout as sleep } from 'node:timers/promises'
import { edit } from './edits.mjs'
import { closeSockets, converged, Peer } from './peers.mjs'
import { options, Random } from './random.mjs'
import { message, update } from './raw.mjs'
import { room, start, TARGET } from './servers.mjs'

const given = options({
  seeds: 20,
  seed: 0,
  steps: 120,
  trace: false
})

/** One world, all of it drawn from the seed but the times at which things arrive. */
const run = async (servers, topic, seed) => {
  const random = new Random(seed)
  const note = (...words) => given.trace && console.log(' ', ...words)
  const name = room(topic, `document-${seed}`)
  const peers = Array.from({ length: 2 + random.below(4) }, (_, index) =>
    new Peer(servers.nodes[index % 2], name, { clientID: 1 + random.below(0x7fffffff), maxBackoffTime: 200 }))
  // All updates that ever were, to be heard again.
  const updates = []
  for (const peer of peers) peer.doc.on('update', bytes => updates.push(bytes))
  const down = new Set()
  const willKill = random.chance(40)
  const steps = {
    async edits (peer) {
      const count = 1 + random.below(8)
      const together = random.chance(30)
      const all = () => {
        for (let i = 0; i < count; i++) edit(random, peer)
      }
      if (together) peer.doc.transact(all)
      else all()
      return together ? `${count} in one` : count
    },
    // A peer hears an old update of anybody, whether or not it has what was before it.
    async hears (peer) {
      if (updates.length > 0) Y.applyUpdate(peer.doc, random.of(updates))
    },
    // A peer hears all of another one without a server.
    async meets (peer) {
      Y.applyUpdate(peer.doc, Y.encodeStateAsUpdate(random.of(peers).doc))
    },
    // A server hears an old update again, as an update or as an answer, or two of them merged.
    async repeats (peer) {
      const { ws, wsconnected } = peer.provider
      if (!wsconnected || updates.length === 0) return 'no'
      const bytes = random.chance(30)
        ? Y.mergeUpdates([random.of(updates), random.of(updates)])
        : random.of(updates)
      ws.send(random.chance(70) ? update(bytes) : message(0, 1, bytes))
    },
    async leaves (peer) { peer.provider.disconnect() },
    async comes (peer) { peer.provider.connect() },
    async cut (peer) { peer.provider.ws?._socket?.destroy() },
    async waits () { await sleep(random.below(30)) },
    async kills () {
      const index = random.below(2)
      await servers.nodes[index].kill()
      down.add(index)
      return index
    },
    async starts () {
      for (const index of down) await servers.nodes[index].start()
      down.clear()
    }
  }
  const weights = {
    edits: 60, hears: 8, meets: 2, repeats: 8, leaves: 3, comes: 5, cut: 2, waits: 8, kills: willKill ? 1 : 0,
    starts: willKill ? 3 : 0
  }
  try {
    for (let count = 0; count < given.steps; count++) {
      const step = random.weighted(weights)
      const index = random.below(peers.length)
      note(count, step, index, await steps[step](peers[index]) ?? '')
    }
    await steps.starts()
    for (const peer of peers) peer.provider.connect()
    await converged(peers, { within: 60_000 })
    for (const node of servers.nodes) peers.push(new Peer(node, name))
    await converged(peers, { within: 60_000 })
    return { peers: peers.length, updates: updates.length }
  } finally {
    await steps.starts()
    for (const peer of peers) peer.close()
  }
}

const servers = await start()
// One topic for all: a node shares a limited number of them with a peer.
const topic = await servers.topic('fuzz')
const seeds = given.seed > 0 ? [given.seed] : Array.from({ length: given.seeds }, (_, i) => i + 1)
const failed = []
for (const seed of seeds) {
  try {
    const { peers, updates } = await run(servers, topic, seed)
    console.log(`seed ${seed}: ${peers} peers, ${updates} updates, all the same`)
  } catch (error) {
    failed.push(seed)
    console.log(`seed ${seed} FAILED: ${error.message}`)
    console.log(`  again: TARGET=${TARGET} node fuzz.mjs --seed ${seed} --steps ${given.steps} --trace`)
  }
}
closeSockets()
await servers.close()
console.log(failed.length > 0 ? `failed: seeds ${failed.join(', ')}` : `${seeds.length} seeds, all converged`)
process.exit(failed.length > 0 ? 1 : 0)
