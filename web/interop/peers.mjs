// Clients of the servers: a document with a provider, and what it takes to compare documents.
import assert from 'node:assert/strict'
import { isDeepStrictEqual } from 'node:util'
import { setTimeout as sleep } from 'node:timers/promises'
import WebSocket from 'ws'
import * as Y from 'yjs'
import { WebsocketProvider as Provider1 } from 'y-websocket-1'
import { WebsocketProvider as Provider2 } from 'y-websocket-2'
import { WebsocketProvider as Provider3 } from 'y-websocket'
import { ORIGIN } from './servers.mjs'

const PROVIDERS = { 1: Provider1, 2: Provider2, 3: Provider3 }
// Every provider listens for the end of the process.
process.setMaxListeners(0)

/** A WebSocket that names the page it comes from, as a browser does; null names none. */
export const socketOf = (origin = ORIGIN) => class extends WebSocket {
  constructor (url, protocols) {
    super(url, protocols, origin === null ? {} : { origin })
    openSockets.add(this)
    this.once('close', () => openSockets.delete(this))
  }
}

const openSockets = new Set()

/**
 * A document and its provider at `node`.
 *
 * Providers of one process would reach each other over a BroadcastChannel: that is always off here,
 * so what arrives came from a server.
 *
 * The first state of an awareness has clock 0, and y-protocols takes no state of clock 0 from anybody
 * else: a client is seen when it has set a state, as applications do, or 15 s later. So a peer sets
 * one, unless `quiet`.
 */
export class Peer {
  constructor (node, room, { version = 3, origin, clientID, connect = true, quiet = false, ...options } = {}) {
    this.doc = new Y.Doc()
    if (clientID !== undefined) this.doc.clientID = clientID
    this.closes = []
    this.denials = []
    this.attempts = 0
    const peer = this
    this.provider = new PROVIDERS[version](node.url, room, this.doc, {
      params: node.params,
      WebSocketPolyfill: class extends socketOf(origin) {
        constructor (...args) { super(...args); peer.attempts++ }
      },
      disableBc: true,
      maxBackoffTime: 500,
      connect: false,
      ...options
    })
    this.provider.on('connection-close', event => this.closes.push(event?.code ?? null))
    const deny = this.provider.messageHandlers[2]
    this.provider.messageHandlers[2] = (...args) => {
      this.denials.push(args)
      const { warn } = console
      console.warn = () => {}
      try { deny(...args) } finally { console.warn = warn }
    }
    this.text = this.doc.getText('text')
    this.map = this.doc.getMap('map')
    this.array = this.doc.getArray('array')
    this.xml = this.doc.getXmlFragment('xml')
    if (!quiet) this.awareness.setLocalState({})
    if (connect) this.provider.connect()
  }

  get awareness () { return this.provider.awareness }

  /** The states of the others that are there. */
  get others () {
    return Object.fromEntries([...this.awareness.getStates()].filter(([id]) => id !== this.doc.clientID))
  }

  synced (within) {
    return eventually('synced', () => this.provider.synced, { within })
  }

  /** Loses the connection as a cable does: nothing is said to the server. */
  vanish () {
    this.provider.shouldConnect = false
    this.provider.ws._socket.destroy()
  }

  close () {
    this.provider.destroy()
    this.doc.destroy()
  }
}

/**
 * What two documents must have in common: the state vector and the deletions byte for byte, and
 * what is in them.
 */
export const state = doc => {
  const deletions = Y.createSnapshot(Y.createDeleteSetFromStructStore(doc.store), new Map())
  return {
    vector: Buffer.from(Y.encodeStateVector(doc)).toString('hex'),
    deletions: Buffer.from(Y.encodeSnapshot(deletions)).toString('hex'),
    waiting: doc.store.pendingStructs !== null || doc.store.pendingDs !== null,
    text: doc.getText('text').toDelta(),
    map: doc.getMap('map').toJSON(),
    array: doc.getArray('array').toJSON(),
    xml: doc.getXmlFragment('xml').toString()
  }
}

/** Waits until all have the same state and wait for nothing, and shows the difference if not. */
export const converged = async (peers, { within = 30_000 } = {}) => {
  const vectors = () => new Set(peers.map(peer => Buffer.from(Y.encodeStateVector(peer.doc)).toString('hex')))
  const isSame = () => {
    if (vectors().size > 1) return false
    const [first, ...others] = peers.map(peer => state(peer.doc))
    return !first.waiting && others.every(other => isDeepStrictEqual(first, other))
  }
  const deadline = Date.now() + within
  while (!isSame()) {
    if (Date.now() > deadline) {
      const [first, ...others] = peers.map(peer => state(peer.doc))
      for (const [index, other] of others.entries()) {
        assert.deepEqual(other, first, `peer ${index + 1} differs from peer 0 after ${within} ms`)
      }
      assert.fail('all are the same, and wait for updates that did not come')
    }
    await sleep(20)
  }
}

/** Waits until `question` is true, and says what did not happen if it never is. */
export const eventually = async (what, question, { within = 20_000 } = {}) => {
  const deadline = Date.now() + within
  for (;;) {
    const answer = question()
    if (answer) return answer
    if (Date.now() > deadline) assert.fail(`not within ${within} ms: ${what}`)
    await sleep(20)
  }
}

/** Ends what a failed test left open, so that its process ends. */
export const closeSockets = () => { for (const socket of openSockets) socket.terminate() }
