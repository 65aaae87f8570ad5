// The reference's code behind a guard: what its author says to do at "you may check auth of
// request here". Wrong tokens are refused after the handshake, because a refused handshake shows a
// client no code, and y-websocket would retry for ever. Edits of the token `read` are refused with
// the message of y-protocols/auth.
import http from 'node:http'
import { WebSocketServer } from 'ws'
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import * as Y from 'yjs'
import { writePermissionDenied } from 'y-protocols/auth'
import { getYDoc, setupWSConnection } from '@y/websocket-server/utils'

const { PORT: port, ORIGIN: origin } = process.env
const MESSAGE_SYNC = 0
const MESSAGE_AUTH = 2
const SYNC_STEP_1 = 0

/** The update in a message that would change the document, or null. */
const edit = (message, doc) => {
  const decoder = decoding.createDecoder(message)
  if (decoding.readVarUint(decoder) !== MESSAGE_SYNC) return null
  if (decoding.readVarUint(decoder) === SYNC_STEP_1) return null
  // A reader answers sync step 1 too, and its answer lists all deletions that it knows: what
  // changes nothing is no edit.
  const update = decoding.readVarUint8Array(decoder)
  const copy = new Y.Doc()
  Y.applyUpdate(copy, Y.encodeStateAsUpdate(doc))
  let changes = false
  copy.on('update', () => { changes = true })
  Y.applyUpdate(copy, update)
  return changes || copy.store.pendingStructs || copy.store.pendingDs ? update : null
}

const readOnly = (socket, doc) => {
  const encoder = encoding.createEncoder()
  encoding.writeVarUint(encoder, MESSAGE_AUTH)
  writePermissionDenied(encoder, 'this client may only read')
  const denied = encoding.toUint8Array(encoder)
  const on = socket.on.bind(socket)
  socket.on = (event, listener) => event !== 'message'
    ? on(event, listener)
    : on(event, message => edit(new Uint8Array(message), doc) ? socket.send(denied) : listener(message))
}

const sockets = new WebSocketServer({ noServer: true })
const server = http.createServer((_request, response) => response.end('okay'))
server.on('upgrade', (request, socket, head) => {
  if (request.headers.origin !== origin) {
    socket.end('HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n')
    return
  }
  const token = new URL(request.url, 'http://localhost').searchParams.get('token')
  sockets.handleUpgrade(request, socket, head, client => {
    if (token !== 'write' && token !== 'read') return client.close(4401, 'no such token')
    if (token === 'read') readOnly(client, getYDoc(request.url.slice(1).split('?')[0]))
    setupWSConnection(client, request)
  })
})
server.listen(Number(port), '127.0.0.1', () => console.log(`running at ${port}`))
