// Debian's Chromium without a window, and a server of the pages.
import { build } from 'esbuild'
import http from 'node:http'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'

const page = name => fileURLToPath(new URL(`page/${name}`, import.meta.url))

/** Serves the pages at a port of `localhost`, whose origin it gives. */
export const servePages = async () => {
  const bundle = async name => {
    const { outputFiles } = await build({
      entryPoints: [page(name)], bundle: true, format: 'esm', write: false, logLevel: 'error'
    })
    return outputFiles[0].text
  }
  const files = new Map([
    ['/', ['text/html', await readFile(page('index.html'))]],
    ['/webrtc.html', ['text/html', '<!doctype html><script type="module" src="webrtc.js"></script>']],
    ['/favicon.ico', ['image/x-icon', '']],
    ['/editor.js', ['text/javascript', await bundle('editor.js')]],
    ['/webrtc.js', ['text/javascript', await bundle('webrtc.js')]]
  ])
  const server = http.createServer(({ url }, response) => {
    const file = files.get(url.split('?')[0])
    if (!file) return response.writeHead(404).end()
    response.writeHead(200, { 'content-type': `${file[0]}; charset=utf-8` }).end(file[1])
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return {
    origin: `http://localhost:${server.address().port}`,
    close: () => { server.closeAllConnections(); server.close() }
  }
}

/** A browser in which each page is one of its own: pages share no BroadcastChannel and no storage. */
export const openBrowser = async () => {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      // Addresses of WebRTC are names of mDNS otherwise, which nobody answers here, and never loopback.
      '--disable-features=WebRtcHideLocalIpsWithMdns',
      '--allow-loopback-in-peer-connection'
    ]
  })
  return {
    async open (url) {
      const page = await (await browser.newContext()).newPage()
      page.problems = []
      page.on('pageerror', error => page.problems.push(String(error)))
      page.on('console', message => { if (message.type() === 'error') page.problems.push(message.text()) })
      await page.goto(url)
      return page
    },
    close: () => browser.close()
  }
}
