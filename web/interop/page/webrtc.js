// Two pages that find each other over the signalling and then talk without a server. What the test
// looks at is in `window.peer`.
import { WebrtcProvider } from 'y-webrtc'
import * as Y from 'yjs'

const { signal, room, password } = Object.fromEntries(new URLSearchParams(location.search))
const doc = new Y.Doc()
const provider = new WebrtcProvider(room, doc, {
  signaling: [signal], password: password ?? null, peerOpts: { config: { iceServers: [] } }
})
provider.awareness.setLocalState({})
window.peer = { doc, provider, text: doc.getText('text') }
