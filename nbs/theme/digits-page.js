// The figure of exact digits: it asks the worker (theme/digits.js) for a digit and shows what comes.
// Until a first digit has come, and whenever something is missing, a picture stands there with one sentence.

const DigitsPage = (() => {
  const {USUAL, asked} = typeof Digits === 'undefined' ? require('./digits.js') : Digits, SIDE = 28, KEYS = Object.keys(USUAL)

  const WHY = {
    folder: 'The digits move only where this page comes from a web server: opened from a folder, a browser lets it read no file.',
    old: 'This browser lacks what the digits need to move (a worker and arrays of numbers).',
    calm: 'You asked your system for less motion, so nothing here moves by itself; the digits wait for the button.',
  }

  // Why the figure has to stay a picture, as a name in `WHY`; null where it can move
  function hindrance(scope, protocol) {
    if (protocol === 'file:') return 'folder'
    const needed = ['Worker', 'fetch', 'Float64Array', 'Int8Array', 'Uint8ClampedArray', 'ImageData', 'Map']
    return needed.every(k => typeof scope[k] === 'function') ? null : 'old'
  }

  const minus = text => text.replace('-', '\u2212'), number = v => minus(Math.round(v).toLocaleString('en'))

  function percent(v) { return v > .9995 ? 'over 99.9 %' : v < .0005 ? 'under 0.1 %' : `${(100*v).toFixed(1)} %` }

  function words(s) { return `${s}` + (s === 0 ? ', the label is ignored' : s === 1 ? ', no guidance' : s < 1 ? ', the label counts for less' : `, w = ${+(s - 1).toFixed(2)}`) }

  function sentence(o, a) {  // what a reader who sees no picture is told
    return `A ${o.digit} at scale ${o.strength}: log-likelihood ${number(a.logProb)} nats, mode ${a.mode} of ${a.modes}, it is a ${o.digit} with probability ${percent(Math.exp(a.logClass[o.digit]))}.`
  }

  function show(root, still) {
    const el = name => root.querySelector(`[data-digit="${name}"]`), all = name => [...root.querySelectorAll(name)]
    const asks = hash => Play.asks(hash, KEYS)
    let o = asked(location.hash), worker = null, busy = false, next = null, id = 0, since = 0, answer = null, film = 0, told = 0

    function fail(text) {  // back to the picture, with a sentence and a button to try again
      if (worker) worker.terminate()
      worker = null; busy = false; next = null; stop()
      Play.wake(root, false)
      el('why').textContent = text
      el('wait').hidden = true
      el('wake').hidden = false; el('wake').textContent = 'Try again'
    }

    function ask() {  // one question at a time: while the worker is busy only the newest one waits
      if (!worker) return
      if (busy) { next = true; return }
      busy = true; next = null; since = performance.now()
      worker.postMessage({id: ++id, draw: {digit: o.digit, noise: o.noise, scale: o.strength, rule: o.way}})
    }

    function put(name, bytes) {
      const canvas = el(name), columns = bytes.length/4/SIDE/SIDE
      if (canvas.width !== columns*SIDE || canvas.height !== SIDE) { canvas.width = columns*SIDE; canvas.height = SIDE }
      canvas.getContext('2d').putImageData(new ImageData(bytes, columns*SIDE, SIDE), 0, 0)
    }

    function bars(canvas, groups) {  // ten small bars for each group, from 0 to 1
      const ratio = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight, pen = canvas.getContext('2d')
      const [wide, high] = [w, h].map(v => Math.round(v*ratio))
      if (canvas.width !== wide || canvas.height !== high) { canvas.width = wide; canvas.height = high }
      pen.setTransform(ratio, 0, 0, ratio, 0, 0); pen.clearRect(0, 0, w, h)
      const style = getComputedStyle(root), colour = name => style.getPropertyValue(name).trim(), room = w/groups.length, foot = groups.length === 1 ? 16 : 1
      pen.font = `11px ${style.fontFamily}`; pen.textAlign = 'center'
      groups.forEach((shares, g) => {
        const gap = groups.length === 1 ? 0 : room*.12, step = (room - gap)/10, left = g*room + gap/2
        pen.fillStyle = colour('--digits-rule'); pen.fillRect(left, h - foot, room - gap, 1)
        shares.forEach((v, k) => {
          pen.fillStyle = colour(k === o.digit ? '--digits-own' : '--digits-any')
          pen.fillRect(left + k*step + step*.15, h - foot - v*(h - foot - 1), step*.7, Math.max(v*(h - foot - 1), v > 0 ? .5 : 0))
          if (groups.length === 1) { pen.fillStyle = colour('--digits-ink'); pen.fillText(k, left + (k + .5)*step, h - 4) }
        })
      })
    }

    function draw() {
      if (!answer) return
      const a = answer
      for (const [name, bytes] of Object.entries(a.bytes)) put(name, bytes)
      bars(el('classes'), [a.logClass.map(Math.exp)])
      bars(el('sure'), a.sure)
      el('nats').textContent = `${number(a.logProb)} nats`
      el('mode').textContent = `${a.mode} of ${a.modes}`
      el('class').textContent = percent(Math.exp(a.logClass[o.digit]))
      const heads = a.levels.map(v => `<span>${v.toFixed(1)}</span>`).join('')
      if (el('levels').innerHTML !== heads) el('levels').innerHTML = heads
      clearTimeout(told)
      told = setTimeout(() => { el('says').textContent = sentence(o, a) }, 400)
    }

    function controls() {
      el('scale').value = o.strength; el('rule').value = o.way
      el('scale-is').textContent = words(o.strength)
      el('scale').setAttribute('aria-valuetext', 'scale ' + words(o.strength))
      el('noise-is').textContent = o.noise
      all('[data-figure]').forEach(b => b.setAttribute('aria-pressed', +b.dataset.figure === o.digit))
    }

    function set(change, keep = true) {
      Object.assign(o, change)
      controls(); ask()
      if (keep) Play.remember(o)
    }

    function hear({data}) {
      if (data.failed) return fail(`The digits stay a picture: ${data.failed}.`)
      if ('part' in data) { el('wait').value = data.part; return }
      if (data.ready) { busy = false; return ask() }
      if ('done' in data) {
        busy = false
        for (const [name, bytes] of Object.entries(data.bytes)) put(name, bytes)
        return next && ask()
      }
      answer = data
      if (root.querySelector('[data-live]').hidden) { el('wait').hidden = true; Play.wake(root); controls() }
      draw()
      root.dataset.took = Math.round(data.took*10)/10
      root.dataset.shown = Math.round((performance.now() - since)*10)/10
      root.dataset.id = data.id
    }

    function load() {
      el('wake').hidden = true
      el('wait').hidden = false; el('wait').value = 0
      busy = true  // until it is ready
      try {
        worker = new Worker(root.dataset.worker)
        worker.onmessage = e => { try { hear(e) } catch { fail('The digits stay a picture: this browser cannot draw them.') } }
        worker.onerror = e => { e.preventDefault(); fail('The digits stay a picture: their worker did not start.') }
        worker.postMessage({load: new URL(root.dataset.file, document.baseURI).href, bytes: +root.dataset.bytes})
      } catch { fail('The digits stay a picture: this browser refused a worker.') }
    }

    function stop() { clearInterval(film); film = 0; el('sweep').textContent = '\u25B6 from 0 to 8' }

    el('wake').addEventListener('click', load)
    el('scale').addEventListener('input', e => { stop(); set({strength: +e.target.value}) })
    el('rule').addEventListener('change', e => set({way: e.target.value}))
    el('noise').addEventListener('click', () => set({noise: o.noise % Digits.MOST.noise + 1}))
    all('[data-figure]').forEach(b => b.addEventListener('click', () => set({digit: +b.dataset.figure})))
    el('sweep').hidden = still
    el('sweep').addEventListener('click', () => {
      if (film) return stop()
      let at = 0
      el('sweep').textContent = '\u25A0 stop'
      film = setInterval(() => { if (at > 32) stop(); else if (!busy) set({strength: at++/4}, false) }, 120)
    })
    addEventListener('resize', draw)
    new MutationObserver(draw).observe(document.body, {attributes: true, attributeFilter: ['class']})
    addEventListener('hashchange', () => { if (asks(location.hash)) set(asked(location.hash), false) })
    controls()
    el('why').hidden = !still
    if (still) el('why').textContent = WHY.calm
    if (asks(location.hash)) { Play.remember(o); load() } else el('wake').hidden = false
  }

  function open(root) {
    const why = root.querySelector('[data-digit="why"]'), reason = hindrance(window, location.protocol)
    try {
      if (!reason) return show(root, matchMedia('(prefers-reduced-motion: reduce)').matches)
    } catch { /* the picture stays */ }
    why.hidden = false
    why.textContent = WHY[reason || 'old']
  }

  return {hindrance, percent, words, sentence, open, WHY}
})()

if (typeof module !== 'undefined') module.exports = DigitsPage
if (typeof document !== 'undefined') document.addEventListener('DOMContentLoaded', () => document.querySelectorAll('[data-digits]').forEach(DigitsPage.open))
