// Random choices that a seed repeats.

/** mulberry32: 32 bits of state, good enough to draw tests from. */
export class Random {
  constructor (seed) { this.state = seed >>> 0 }

  /** A number from 0 up to and without `below`. */
  below (below) {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let t = this.state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return Math.floor(((t ^ (t >>> 14)) >>> 0) / 4294967296 * below)
  }

  of (list) { return list[this.below(list.length)] }
  chance (percent) { return this.below(100) < percent }

  /** The name of one of the weighted choices, `{ name: weight }`. */
  weighted (choices) {
    const total = Object.values(choices).reduce((sum, weight) => sum + weight, 0)
    let at = this.below(total)
    for (const [name, weight] of Object.entries(choices)) {
      if (at < weight) return name
      at -= weight
    }
  }
}

/** Reads `--name value` and `--name` from the command line into `defaults`, and knows no others. */
export const options = defaults => {
  const read = { ...defaults }
  const given = process.argv.slice(2)
  while (given.length > 0) {
    const name = given.shift().replace(/^--/, '')
    if (!(name in defaults)) {
      console.error(`unknown option --${name}; there are: ${Object.keys(defaults).map(n => `--${n}`).join(', ')}`)
      process.exit(2)
    }
    if (typeof defaults[name] === 'boolean') read[name] = true
    else read[name] = typeof defaults[name] === 'number' ? Number(given.shift()) : given.shift()
  }
  return read
}
