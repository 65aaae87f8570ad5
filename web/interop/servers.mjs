// Two servers that share rooms, whichever they are: everything that a test must know of a server
// stands here, so that the tests are the same against all of them.
//
//   reference  one process of @y/websocket-server, unmodified, which both ends use. It persists
//              with LevelDB, without fsync, and after a restart lets a client be synced before it
//              has read its file. It asks for no token. Signalling is y-webrtc's own server.
//   guarded    the same code behind a check of origin and token (guard.mjs): an oracle for what
//              the reference leaves to its user.
//   baran      two daemons of $BARAN_BIN, connected to each other over loopback.
import { execFile, spawn } from 'node:child_process'
import { mkdtemp, mkdir, rm } from 'node:fs/promises'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

export const TARGET = process.env.TARGET ?? 'reference'
// The origin that clients in node claim to come from.
export const ORIGIN = 'http://localhost:5173'

/** The room of a document, as it is given to a provider. */
export const room = (topic, document) => `${topic}/${document}`

/** The URL of the signalling of a node, as it is given to `WebrtcProvider`. */
const signalUrl = ({ url, token }) => {
  const signal = new URL('/signal', url)
  signal.searchParams.set('token', token)
  return signal.href
}

/**
 * Starts the servers. `origin` is where the pages or clients come from.
 *
 * Of what it gives, `nodes` are the two ends, `signallers` the processes of their signalling,
 * `processes` all that run, and `topic(label)` makes a topic that both ends are in.
 */
export const start = async ({ origin = ORIGIN, target = TARGET } = {}) => {
  const build = { reference, guarded, baran }[target]
  if (!build) throw new Error(`TARGET is reference, guarded or baran, not ${target}`)
  const directory = await mkdtemp(path.join(os.tmpdir(), 'interop-'))
  const servers = await build(directory, origin)
  return {
    target,
    origin,
    ...servers,
    async close () {
      await Promise.all(servers.processes.map(process => process.kill()))
      await rm(directory, { recursive: true, force: true })
    }
  }
}

/**
 * A server's process. `url` and `params` are for `WebsocketProvider`, `signal` for
 * `WebrtcProvider`.
 */
class Server {
  constructor (command, args, { env = {}, isReady }) {
    Object.assign(this, { command, args, env, isReady, child: null, said: [] })
  }

  get pid () { return this.child?.pid }

  /** Starts it, or starts it again, and waits until it answers. */
  async start () {
    if (this.child) return
    const child = spawn(this.command, this.args, { env: { ...process.env, ...this.env } })
    this.child = child
    running.add(child)
    this.said = []
    this.exited = new Promise(resolve => child.once('close', (code, signal) => {
      running.delete(child)
      if (this.child === child) this.child = null
      resolve(code ?? signal)
    }))
    await new Promise((resolve, reject) => {
      const fail = why => reject(new Error(`${this.command}: ${why}\n${this.said.join('\n')}`))
      const patience = setTimeout(() => fail('not ready within 60 s'), 60_000)
      patience.unref()
      child.once('error', fail)
      this.exited.then(code => fail(`ended with ${code} before it was ready`))
      const ready = this.isReady()
      const hear = (line, isOutput) => {
        this.said = [...this.said.slice(-40), line]
        if (isOutput && ready(line)) { clearTimeout(patience); resolve() }
      }
      createInterface(child.stdout).on('line', line => hear(line, true))
      createInterface(child.stderr).on('line', line => hear(line, false))
    })
  }

  /** Ends it as a power cut would. */
  async kill () {
    this.child?.kill('SIGKILL')
    await this.exited
  }
}

const running = new Set()
process.on('exit', () => { for (const child of running) child.kill('SIGKILL') })

const saysOnce = text => () => line => line.includes(text)
const inPackage = name => fileURLToPath(new URL(`node_modules/${name}`, import.meta.url))

const reference = async directory => {
  const [port, signalPort] = await freePorts(2)
  const server = new Server(process.execPath, [inPackage('@y/websocket-server/src/server.js')], {
    env: { HOST: '127.0.0.1', PORT: port, YPERSISTENCE: path.join(directory, 'documents') },
    isReady: saysOnce('running at')
  })
  const signalling = new Server(process.execPath, [inPackage('y-webrtc/bin/server.js')], {
    env: { PORT: signalPort },
    isReady: saysOnce('running on')
  })
  await Promise.all([server.start(), signalling.start()])
  Object.assign(server, {
    url: `ws://127.0.0.1:${port}`, params: {}, signal: `ws://127.0.0.1:${signalPort}`
  })
  let topics = 0
  return {
    nodes: [server, server],
    processes: [server, signalling],
    signallers: [signalling, signalling],
    topic: async label => `${label}-${topics++}`
  }
}

const guarded = async (directory, origin) => {
  const [port] = await freePorts(1)
  const guard = fileURLToPath(new URL('guard.mjs', import.meta.url))
  const server = new Server(process.execPath, [guard], {
    env: { PORT: port, ORIGIN: origin, YPERSISTENCE: path.join(directory, 'documents') },
    isReady: saysOnce('running at')
  })
  await server.start()
  const node = token => ({
    url: `ws://127.0.0.1:${port}`,
    params: { token },
    start: () => server.start(),
    kill: () => server.kill()
  })
  const servers = { nodes: [node('write'), node('write')], processes: [server] }
  let topics = 0
  servers.topic = async (label, { may = 'write' } = {}) => {
    servers.nodes[1].params.token = may
    return `${label}-${topics++}`
  }
  return servers
}

const baran = async (directory, origin) => {
  const program = process.env.BARAN_BIN
  if (!program) throw new Error('TARGET=baran needs the program in BARAN_BIN')
  const network = `interop-${process.pid}`
  const node = async (name, peers) => {
    const data = path.join(directory, name)
    await mkdir(data, { mode: 0o700 })
    const [api, udp] = await freePorts(2)
    const server = new Server(program, [
      '--data', data, '--json', 'up', '--network', network, '--no-lan',
      '--bind', `127.0.0.1:${udp}`, '--allow-net', '127.0.0.0/8', '--api', `127.0.0.1:${api}`,
      ...peers.flatMap(invite => ['--peer', invite])
    ], {
      isReady: () => {
        const wanted = new Set(['listening', 'api'])
        return line => {
          const event = JSON.parse(line)
          if (event.event === 'listening') server.invite = event.invite
          wanted.delete(event.event)
          return wanted.size === 0
        }
      }
    })
    await server.start()
    server.run = async (...args) => {
      const all = ['--data', data, '--json', ...args]
      const { stdout } = await promisify(execFile)(program, all, { timeout: 60_000 })
      return JSON.parse(stdout.trim().split('\n').at(-1))
    }
    const { url, token } = await server.run('app', 'allow', origin)
    Object.assign(server, { url, params: { token }, signal: signalUrl({ url, token }) })
    return server
  }
  const first = await node('a', [])
  const second = await node('b', [first.invite])
  return {
    nodes: [first, second],
    processes: [first, second],
    signallers: [first, second],
    /** A topic that both are in, in which the second may do what `may` says. */
    topic: async (label, { may = 'write' } = {}) => {
      const { id, invite } = await first.run('topic', 'create', '--title', label)
      const lesser = ['topic', 'invite', id, '--may', may]
      await second.run('topic', 'join', may === 'write' ? invite : (await first.run(...lesser)).invite)
      return id
    }
  }
}

/** Ports of 127.0.0.1 that nobody listens at, TCP. They differ from each other. */
export const freePorts = async count => {
  const listeners = await Promise.all(Array.from({ length: count }, () => new Promise((resolve, reject) => {
    const listener = net.createServer().once('error', reject)
    listener.listen(0, '127.0.0.1', () => resolve(listener))
  })))
  const ports = listeners.map(listener => listener.address().port)
  await Promise.all(listeners.map(listener => new Promise(resolve => listener.close(resolve))))
  return ports
}
