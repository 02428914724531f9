// The figure of one's own noise: a canvas to paint on, and what the worker (theme/noise.js) draws from it with the network.
// Until it is asked for, and whenever something is missing, a picture stands there with one sentence.

const NoisePage = (() => {
  const {USUAL, STEPS, SIDE, BLANK, canvas: noise, moments, asked, grey, ink} = typeof Noise === 'undefined' ? require('./noise.js') : Noise
  const KEYS = Object.keys(USUAL), MOST = 9999, ROWS = ['noisy', 'none', 'label', 'difference', 'guided'], PATIENCE = 700

  const WHY = {
    folder: 'You can draw only where this page comes from a web server: opened from a folder, a browser lets it read no file.',
    old: 'This browser lacks what the network needs to run (WebAssembly, and a worker).',
    calm: 'You asked your system for less motion: nothing is drawn before you press the button, and then all at once.',
  }

  // Why the figure has to stay a picture, as a name in `WHY`; null where it can draw
  function hindrance(scope, protocol) {
    if (protocol === 'file:') return 'folder'
    const needed = ['Worker', 'fetch', 'Float64Array', 'BigInt64Array', 'ImageData', 'MessageChannel', 'Blob']
    return typeof scope.WebAssembly === 'object' && needed.every(k => typeof scope[k] === 'function') ? null : 'old'
  }

  // ---- Painting: a soft round brush on noise of unit size

  const BRUSH = {radius: 1.2, soft: 1, ink: 1.5}

  function dab(canvas, x, y, value) {  // at a point, in pixels
    const far = BRUSH.radius + BRUSH.soft
    for (let j = Math.max(0, Math.floor(y - far)); j <= Math.min(SIDE - 1, y + far); j++) for (let i = Math.max(0, Math.floor(x - far)); i <= Math.min(SIDE - 1, x + far); i++) {
      const share = Math.min(1, Math.max(0, (far - Math.hypot(i + .5 - x, j + .5 - y))/BRUSH.soft)), k = j*SIDE + i
      canvas[k] += share*(value - canvas[k])
    }
  }

  function stroke(canvas, from, to, value) {
    const parts = Math.max(1, Math.ceil(2*Math.hypot(to[0] - from[0], to[1] - from[1])))
    for (let i = 0; i <= parts; i++) dab(canvas, ...[0, 1].map(k => from[k] + i/parts*(to[k] - from[k])), value)
  }

  const size = canvas => Math.sqrt(canvas.reduce((sum, v) => sum + v*v, 0)/canvas.length)  // 1 for true noise

  // ---- Words

  const megabytes = bytes => (bytes/1e6).toFixed(1)
  const plus = o => o.rule === 'cfgpp', strength = o => plus(o) ? o.lambda : o.by

  function words(o) {  // what the slider says
    if (plus(o)) return `\u03BB = ${o.lambda}` + (o.lambda === 0 ? ', the label is ignored' : '')
    return `s = ${o.by}` + (o.by === 0 ? ', the label is ignored' : o.by === 1 ? ', no guidance' : o.by < 1 ? ', the label counts for less' : `, w = ${+(o.by - 1).toFixed(2)}`)
  }

  function sentence(o, took) { return `Drawn: a ${o.draw} was asked for, ${words(o)}; ${o.in} steps, the network was asked ${2*o.in} times, ${(took/1000).toFixed(took < 1000 ? 2 : 1)} s.` }

  function show(root, still) {
    const el = name => root.querySelector(`[data-own-part="${name}"]`), all = name => [...root.querySelectorAll(name)]
    let o = asked(location.hash), canvas = noise(o.from), worker = null, ready = false, busy = false, next = false, id = 0, since = 0, kept = []
    let value = BRUSH.ink, brush = null, spot = [SIDE/2, SIDE/2], focused = false

    function fail(text) {  // back to the picture, with a sentence and a button to try again
      if (worker) worker.terminate()
      worker = null; ready = busy = next = false
      Play.wake(root, false)
      el('why').textContent = `The figure stays a picture: ${text}.`
      el('wait').hidden = true
      el('wake').hidden = false; el('wake').textContent = 'Try again'
    }

    function ask() {  // while the worker is busy the newest wish waits, but not for long
      if (!ready) return
      if (busy && performance.now() - since < PATIENCE) { next = true; return }
      busy = true; next = false; since = performance.now(); kept = []
      root.dataset.busy = ++id
      worker.postMessage({id, draw: {canvas, digit: o.draw, strength: strength(o), rule: o.rule, steps: o.in}})
    }

    function put(name, fill, columns = 1, column = 0) {  // one picture, into its column of a strip
      const target = el(name), bytes = new Uint8ClampedArray(4*SIDE*SIDE)
      fill(bytes)
      if (target.width !== columns*SIDE || target.height !== SIDE) { target.width = columns*SIDE; target.height = SIDE }
      target.getContext('2d').putImageData(new ImageData(bytes, SIDE, SIDE), column*SIDE, 0)
    }

    function level(column, sigma) { el('levels').children[column].textContent = sigma.toFixed(1) }

    function moment({i, sigma, x, u, c, guided}) {
      const column = moments(o.in).indexOf(i), n = el('levels').children.length
      put('digit', b => grey(guided, b))
      if (column < 0) return
      level(column, sigma)
      const fills = [b => grey(x, b, 1/Math.sqrt(1 + sigma*sigma)), b => grey(u, b), b => grey(c, b), b => ink(c, u, b, strength(o), 0, 1), b => grey(guided, b)]
      ROWS.forEach((row, k) => put(row, fills[k], n, column))
    }

    function paper() {  // the noise, and where the brush is for those who paint by keys
      put('noise', b => grey(canvas, b, .5))
      if (focused) {
        const pen = el('noise').getContext('2d')
        pen.strokeStyle = '#ffb454'; pen.lineWidth = .6
        pen.beginPath(); pen.arc(...spot, BRUSH.radius + BRUSH.soft, 0, 7); pen.stroke()
      }
      el('size').textContent = size(canvas).toFixed(2)
    }

    function controls() {
      const slider = el('strength'), most = plus(o) ? 1 : 8
      slider.max = most; slider.step = most/160; slider.value = strength(o)
      el('strength-is').textContent = words(o)
      slider.setAttribute('aria-valuetext', words(o))
      el('factor').textContent = plus(o) ? '\u03BB' : 's'
      el('rule').value = o.rule; el('steps').value = o.in
      el('from-is').textContent = o.from === BLANK ? 'none' : o.from
      all('[data-own-figure]').forEach(b => b.setAttribute('aria-pressed', +b.dataset.ownFigure === o.draw))
      all('[data-own-brush]').forEach(b => b.setAttribute('aria-pressed', Math.sign(value) === +b.dataset.ownBrush))
    }

    function changed() { if (!still) ask() }  // whoever wants less motion presses the button

    function set(change, keep = true) {
      const other = 'from' in change
      Object.assign(o, change)
      if (other) canvas = noise(o.from)
      controls(); paper(); changed()
      if (keep) Play.remember(o)
    }

    function finish({x, took, done}) {
      kept.forEach(moment)
      put('digit', b => grey(x, b))
      el('says').textContent = sentence(o, took)
      Object.assign(root.dataset, {took: took.toFixed(1), shown: (performance.now() - since).toFixed(1), done})
      busy = false
      if (next) ask()
    }

    function begin({carried, took}) {
      ready = true
      el('wait').hidden = true
      el('carried').textContent = carried ? ` ${megabytes(carried)} MB came over the line.` : ''
      root.dataset.loaded = took.toFixed(0)
      Play.wake(root)
      controls(); paper(); ask()
    }

    function hear({data}) {
      if (data.failed) return fail(data.failed)
      if ('part' in data) { el('wait').value = data.part; return }
      if (data.ready) return begin(data)
      if (data.done ? data.done !== id : data.id !== id) return  // of a wish that is no more
      if (data.done) return finish(data)
      if (still) kept.push(data); else moment(data)
    }

    function load() {
      el('wake').hidden = true
      el('wait').hidden = false; el('wait').value = 0
      el('why').textContent = 'Loading the network and what runs it.'
      el('why').hidden = false
      try {
        worker = new Worker(root.dataset.worker)
        worker.onmessage = e => { try { hear(e) } catch { fail('this browser cannot show it') } }
        worker.onerror = e => { e.preventDefault(); fail('its worker did not start') }
        worker.postMessage({load: new URL(root.dataset.setting, document.baseURI).href})
      } catch { fail('this browser refused a worker') }
    }

    function place(e) {  // of a pointer, in pixels of the canvas
      const box = el('noise').getBoundingClientRect()
      return [(e.clientX - box.left)*SIDE/box.width, (e.clientY - box.top)*SIDE/box.height]
    }

    function paint(to) {
      stroke(canvas, brush || to, to, value)
      brush = to
      paper(); changed()
    }

    const pad = el('noise'), MOVES = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}
    pad.addEventListener('pointerdown', e => {
      if (e.button) return
      e.preventDefault()
      try { pad.setPointerCapture(e.pointerId) } catch { /* a pointer that is gone */ }
      brush = null; paint(place(e))
    })
    pad.addEventListener('pointermove', e => { if (brush) paint(place(e)) })
    for (const end of ['pointerup', 'pointercancel', 'lostpointercapture']) pad.addEventListener(end, () => { brush = null })
    pad.addEventListener('keydown', e => {
      const move = MOVES[e.key], dip = e.key === ' ' || e.key === 'Enter'
      if (e.ctrlKey || e.altKey || e.metaKey || !move && !dip) return
      e.preventDefault()
      const from = spot
      if (move) spot = spot.map((v, k) => Math.min(SIDE - .5, Math.max(.5, v + move[k])))
      if (dip) { stroke(canvas, spot, spot, value); changed() } else if (e.shiftKey) { stroke(canvas, from, spot, value); changed() }
      paper()
    })
    for (const [name, now] of [['focus', true], ['blur', false]]) pad.addEventListener(name, () => { focused = now && pad.matches(':focus-visible'); paper() })

    el('wake').addEventListener('click', load)
    el('draw').addEventListener('click', ask)
    el('new').addEventListener('click', () => set({from: o.from % MOST + 1}))
    el('clear').addEventListener('click', () => set({from: BLANK}))
    el('strength').addEventListener('input', e => set({[plus(o) ? 'lambda' : 'by']: +(+e.target.value).toFixed(2)}))
    el('rule').addEventListener('change', e => set({rule: e.target.value}))
    el('steps').addEventListener('change', e => set({in: +e.target.value}))
    all('[data-own-figure]').forEach(b => b.addEventListener('click', () => set({draw: +b.dataset.ownFigure})))
    all('[data-own-brush]').forEach(b => b.addEventListener('click', () => { value = BRUSH.ink*b.dataset.ownBrush; controls() }))
    addEventListener('hashchange', () => { if (Play.asks(location.hash, KEYS)) set(asked(location.hash), false) })
    el('wake').hidden = false
    el('why').hidden = !still
    if (still) el('why').textContent = WHY.calm
    if (Play.asks(location.hash, KEYS)) Play.remember(o)
  }

  function open(root) {
    const why = root.querySelector('[data-own-part="why"]'), reason = hindrance(window, location.protocol)
    try {
      if (!reason) return show(root, matchMedia('(prefers-reduced-motion: reduce)').matches)
    } catch { /* the picture stays */ }
    why.hidden = false
    why.textContent = WHY[reason || 'old']
  }

  return {hindrance, dab, stroke, size, words, sentence, open, WHY, BRUSH, ROWS, STEPS}
})()

if (typeof module !== 'undefined') module.exports = NoisePage
if (typeof document !== 'undefined') document.addEventListener('DOMContentLoaded', () => document.querySelectorAll('[data-own]').forEach(NoisePage.open))
