// An editor of one text that all who have the page open write in. The server, the room and the token
// stand behind the page's address: ?server=ws://127.0.0.1:1234&room=topic/document&token=…&name=ana
import { keymap } from '@codemirror/view'
import { basicSetup, EditorView } from 'codemirror'
import { yCollab, yUndoManagerKeymap } from 'y-codemirror.next'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'

const { server, room, token, name = 'anonymous' } = Object.fromEntries(new URLSearchParams(location.search))
const show = (id, text) => { document.getElementById(id).textContent = text }

const doc = new Y.Doc()
const provider = new WebsocketProvider(server, room, doc, { params: token ? { token } : {} })
provider.on('status', ({ status }) => show('status', status))
provider.on('closed', ({ reason }) => show('status', `refused: ${reason}`))

const { awareness } = provider
awareness.on('change', () => {
  const names = [...awareness.getStates().values()].map(({ user }) => user?.name).filter(Boolean)
  show('here', names.sort().join(', '))
})
const hue = awareness.clientID % 360
awareness.setLocalStateField('user', {
  name, color: `hsl(${hue} 70% 40%)`, colorLight: `hsl(${hue} 70% 40% / 0.2)`
})

const text = doc.getText('text')
new EditorView({
  doc: text.toString(),
  // Its undo stands before that of the editor, which would take back what others typed.
  extensions: [keymap.of(yUndoManagerKeymap), basicSetup, EditorView.lineWrapping, yCollab(text, awareness)],
  parent: document.getElementById('editor')
})
