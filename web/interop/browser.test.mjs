// Two pages in Chromium, one per server.
import assert from 'node:assert/strict'
import { mkdtemp } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { openBrowser, servePages } from './browser.mjs'
import { room, start, TARGET } from './servers.mjs'

let browser
let pages
let servers
let screenshots
before(async () => {
  pages = await servePages()
  servers = await start({ origin: pages.origin })
  browser = await openBrowser()
  screenshots = await mkdtemp(path.join(os.tmpdir(), 'interop-screenshots-'))
})
after(async () => {
  await browser?.close()
  await servers?.close()
  pages?.close()
})

const address = (file, query) => `${pages.origin}/${file}?${new URLSearchParams(query)}`

describe('CodeMirror', () => {
  const open = (node, room, name, params = node.params) =>
    browser.open(address('', { server: node.url, room, name, ...params }))
  const shows = (page, text) => page.waitForFunction(text =>
    [...document.querySelectorAll('.cm-line')].map(line => {
      const copy = line.cloneNode(true)
      // The other's cursor stands in the line, with a name.
      copy.querySelectorAll('.cm-ySelectionCaret').forEach(caret => caret.remove())
      return copy.textContent
    }).join('\n') === text, text)
  const status = (page, text) => page.waitForFunction(text =>
    document.getElementById('status').textContent.startsWith(text), text)

  test('what is typed in one is seen in the other, cursor and name too', async () => {
    const name = room(await servers.topic('editor'), 'document')
    const [ana, bo] = [await open(servers.nodes[0], name, 'ana'), await open(servers.nodes[1], name, 'bo')]
    await Promise.all([ana, bo].map(page => status(page, 'connected')))
    await ana.locator('.cm-content').click()
    await ana.keyboard.type('Hello, ')
    await shows(bo, 'Hello, ')
    await bo.locator('.cm-content').click()
    await bo.keyboard.press('Control+End')
    await bo.keyboard.type('wörld')
    await bo.keyboard.press('Enter')
    await bo.keyboard.insertText('👩‍🚀🦀')
    await shows(ana, 'Hello, wörld\n👩‍🚀🦀')
    for (const page of [ana, bo]) {
      await page.waitForFunction(() => document.getElementById('here').textContent === 'ana, bo')
    }
    await ana.waitForFunction(() => document.querySelector('.cm-ySelectionInfo')?.textContent === 'bo')

    // Undo takes back what was typed here, and nothing of the other's.
    // A pause while typing makes two steps of it.
    for (let letter = 0; letter < 'Hello, '.length; letter++) await ana.keyboard.press('Control+z')
    await shows(bo, 'wörld\n👩‍🚀🦀')
    for (const [index, page] of [ana, bo].entries()) {
      const file = path.join(screenshots, `editor-${index}.png`)
      await page.screenshot({ path: file })
      console.log(`screenshot: ${file}`)
      assert.deepEqual(page.problems, [])
    }

    // A page that is closed is gone at the other server.
    await bo.context().close()
    await ana.waitForFunction(() => document.getElementById('here').textContent === 'ana')
    await ana.context().close()
  })

  test('the server is killed, both go on typing, and all is there afterwards', async () => {
    const name = room(await servers.topic('restart'), 'document')
    const [ana, bo] = [await open(servers.nodes[0], name, 'ana'), await open(servers.nodes[1], name, 'bo')]
    await Promise.all([ana, bo].map(page => status(page, 'connected')))
    await ana.locator('.cm-content').click()
    await ana.keyboard.type('one ')
    await shows(bo, 'one ')
    await servers.nodes[1].kill()
    await bo.waitForFunction(() => document.getElementById('status').textContent !== 'connected')
    await bo.locator('.cm-content').click()
    await bo.keyboard.press('Control+End')
    await bo.keyboard.type('two')
    await shows(bo, 'one two')
    await servers.nodes[1].start()
    await shows(ana, 'one two')
    for (const page of [ana, bo]) await page.context().close()
  })

  test('a page with a wrong token says that it was refused', {
    skip: TARGET === 'reference' && 'asks for none'
  }, async () => {
    const name = room(await servers.topic('refused'), 'document')
    const page = await open(servers.nodes[0], name, 'eve', { token: 'wrong' })
    await status(page, 'refused: ')
    await page.context().close()
  })
})

describe('y-webrtc', () => {
  for (const password of [undefined, 'secret']) {
    test(`two pages find each other${password ? ', encrypted' : ''}, and talk without a server`, async () => {
      const name = room(await servers.topic('webrtc'), 'document')
      const open = ({ signal }) =>
        browser.open(address('webrtc.html', { signal, room: name, ...(password && { password }) }))
      // One after the other: of two that announce themselves at once both make an offer, which is a
      // race in the clients, and what is tested is the server.
      const two = [await open(servers.nodes[0])]
      await two[0].waitForFunction(() => window.peer?.provider.signalingConns[0]?.connected)
      two.push(await open(servers.nodes[1]))
      for (const page of two) {
        await page.waitForFunction(() => window.peer?.provider.room?.webrtcConns.size === 1 &&
          [...window.peer.provider.room.webrtcConns.values()][0].connected)
      }
      await two[0].evaluate(() => window.peer.text.insert(0, 'from ana 🦀 '))
      await two[1].waitForFunction(() => window.peer.text.toString() === 'from ana 🦀 ')
      // What follows goes from page to page: there is no signalling for it.
      for (const server of new Set(servers.signallers)) await server.kill()
      await two[1].evaluate(() => window.peer.text.insert(0, 'from bo '))
      await two[0].waitForFunction(() => window.peer.text.toString() === 'from bo from ana 🦀 ')
      await two[0].waitForFunction(() => window.peer.provider.awareness.getStates().size === 2)
      for (const server of new Set(servers.signallers)) await server.start()
      for (const page of two) await page.context().close()
    })
  }
})
