// Random edits of everything that Yjs shares.
import * as Y from 'yjs'

const WORDS = [
  'a', 'word', 'ü', '日本', '👩‍🚀', '🦀🦀', '\u{1F1E9}\u{1F1EA}', 'e\u0301', ' ', '\n', 'مرحبا', '\u200d',
  'longer text that is typed at once. '
]
const KEYS = ['a', 'b', 'ü', '', 'constructor', '0', '🔑']
const TAGS = ['p', 'h1', 'li']
const FORMATS = [{ bold: true }, { bold: null }, { link: { href: '#ü' } }, { link: null }, { color: 'red' }, { size: 1.5 }]

const value = (random, depth = 0) => {
  switch (random.below(depth > 2 ? 6 : 10)) {
    case 0: return random.below(1000)
    case 1: return -random.below(1e9) / 7
    case 2: return random.of(WORDS)
    case 3: return random.of([null, true, false])
    case 4: return { k: random.below(9), '🔑': [random.of(WORDS)] }
    case 5: return new Uint8Array([random.below(256), 0, 255])
    case 6: return new Y.Map([[random.of(KEYS), value(random, depth + 1)]])
    case 7: return Y.Array.from([value(random, depth + 1), value(random, depth + 1)])
    case 8: return new Y.Text(random.of(WORDS))
    default: return new Y.Map()
  }
}

/**
 * An index from `from` to `to` that does not cut a surrogate pair. No editor cuts one, and documents
 * in which one was cut differ between peers of Yjs alone: what is left of it becomes U+FFFD at who
 * had the pair in one item then, and stays at others.
 */
const index = (random, string, from = 0, to = string.length) => {
  const at = from + random.below(Math.min(to, string.length) - from + 1)
  const isInside = at > from && /[\ud800-\udbff]/.test(string[at - 1]) && /[\udc00-\udfff]/.test(string[at] ?? '')
  return isInside ? at - 1 : at
}

// The text as indices count it: an embedded value is one unit, and not a surrogate.
const units = text => text.toDelta().map(({ insert }) => typeof insert === 'string' ? insert : '*').join('')

const editText = (random, text) => {
  const now = units(text)
  const at = index(random, now)
  const to = index(random, now, at, at + 12)
  switch (random.weighted({ insert: 6, remove: 3, format: 2, embed: 1, formatted: 1 })) {
    case 'insert': return text.insert(at, random.of(WORDS))
    case 'remove': return to > at && text.delete(at, to - at)
    case 'format': return to > at && text.format(at, to - at, random.of(FORMATS))
    case 'embed': return text.insertEmbed(at, { image: random.below(9) })
    case 'formatted': return text.insert(at, random.of(WORDS), random.of(FORMATS))
  }
}

const editMap = (random, map) => {
  const key = random.of(KEYS)
  if (random.chance(25)) map.delete(key)
  else map.set(key, value(random))
}

const editArray = (random, array) => {
  const at = random.below(array.length + 1)
  if (at < array.length && random.chance(30)) array.delete(at, 1 + random.below(Math.min(3, array.length - at)))
  else array.insert(at, Array.from({ length: 1 + random.below(3) }, () => value(random)))
}

const editXml = (random, parent) => {
  const children = parent.toArray()
  const child = children.length > 0 ? random.of(children) : null
  if (child && random.chance(50)) {
    if (child instanceof Y.XmlText) return editText(random, child)
    if (random.chance(40)) {
      return random.chance(30)
        ? child.removeAttribute(random.of(['class', 'id']))
        : child.setAttribute(random.of(['class', 'id']), random.of(WORDS))
    }
    return editXml(random, child)
  }
  const at = random.below(children.length + 1)
  if (at < children.length && random.chance(25)) return parent.delete(at, 1)
  const made = random.chance(50) ? new Y.XmlElement(random.of(TAGS)) : new Y.XmlText(random.of(WORDS))
  parent.insert(at, [made])
}

/** A shared type somewhere below, or this one. */
const below = (random, type) => {
  const inside = (type instanceof Y.Map ? [...type.values()] : type.toArray()).filter(v => v instanceof Y.AbstractType)
  if (inside.length === 0 || random.chance(40)) return type
  const chosen = random.of(inside)
  return chosen instanceof Y.Text ? chosen : below(random, chosen)
}

/** One edit of one of the types of a peer. */
export const edit = (random, { text, map, array, xml }) => {
  const kind = random.weighted({ text: 5, map: 2, array: 3, xml: 3 })
  if (kind === 'text') return editText(random, text)
  if (kind === 'xml') return editXml(random, xml)
  const type = below(random, kind === 'map' ? map : array)
  if (type instanceof Y.Text) editText(random, type)
  else if (type instanceof Y.Map) editMap(random, type)
  else editArray(random, type)
}
