// A client of the protocol without a provider: what it is sent, frame by frame.
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import * as Y from 'yjs'
import { eventually, socketOf } from './peers.mjs'

/** Writes a message: numbers as var-uints, byte arrays with their length. */
export const message = (...parts) => encoding.encode(encoder => {
  for (const part of parts) {
    if (typeof part === 'number') encoding.writeVarUint(encoder, part)
    else encoding.writeVarUint8Array(encoder, part)
  }
})
export const step1 = doc => message(0, 0, Y.encodeStateVector(doc))
export const update = bytes => message(0, 2, bytes)
export const QUERY_AWARENESS = message(3)

/** The awareness update of one client, at a clock. */
export const presence = (clientID, clock, value) => message(1, encoding.encode(encoder => {
  encoding.writeVarUint(encoder, 1)
  encoding.writeVarUint(encoder, clientID)
  encoding.writeVarUint(encoder, clock)
  encoding.writeVarString(encoder, JSON.stringify(value))
}))

export class RawClient {
  /** Connects; `frames` are the messages taken apart: `{ kind, body }`, or `{ kind: 'text' }`. */
  static async open (node, room, options = {}) {
    const client = new RawClient()
    const query = new URLSearchParams(node.params).toString()
    const Socket = socketOf(options.origin)
    client.socket = new Socket(`${node.url}/${room}${query && '?' + query}`)
    client.frames = []
    client.socket.on('message', (data, isBinary) => client.frames.push(isBinary ? parse(data) : { kind: 'text' }))
    await new Promise((resolve, reject) => client.socket.once('open', resolve).once('error', reject))
    return client
  }

  send (bytes) { this.socket.send(bytes) }

  /** The first frame of a kind that satisfies. */
  frame (kind, isIt = () => true) {
    return eventually(`a frame ${kind}`, () => this.frames.find(f => f.kind === kind && isIt(f.body)))
  }

  close () { this.socket.terminate() }
}

const parse = data => {
  const bytes = new Uint8Array(data)
  const decoder = decoding.createDecoder(bytes)
  const kind = decoding.readVarUint(decoder)
  if (kind === 0) {
    const step = ['step1', 'step2', 'update'][decoding.readVarUint(decoder)]
    return whole(decoder, { kind: step, body: decoding.readVarUint8Array(decoder) })
  }
  if (kind === 1) return whole(decoder, { kind: 'awareness', body: states(decoding.readVarUint8Array(decoder)) })
  return { kind: kind === 2 ? 'auth' : `unknown ${kind}`, body: bytes }
}

// A provider reads one message a frame and drops what follows it.
const whole = (decoder, frame) => decoding.hasContent(decoder) ? { ...frame, kind: 'several' } : frame

const states = body => {
  const decoder = decoding.createDecoder(body)
  const count = decoding.readVarUint(decoder)
  return Array.from({ length: count }, () => ({
    client: decoding.readVarUint(decoder),
    clock: decoding.readVarUint(decoder),
    state: JSON.parse(decoding.readVarString(decoder))
  }))
}
