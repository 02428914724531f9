// Draw your own noise: the trained network of chapter 22, guided and sampled in the reader's browser by onnxruntime-web.
// In a worker it answers messages; tests/test_noise.py runs the same functions under node and in a browser and compares
// them with the package. theme/noise-page.js is the figure that it draws for; play/runtime.json says where the runtime is.

const Noise = (() => {
  const inWorker = typeof WorkerGlobalScope !== 'undefined'
  if (inWorker) importScripts('digits.js')
  const {RULES: EXACT, dot, grey, ink} = typeof Digits === 'undefined' ? require('./digits.js') : Digits
  const {karras, stream, NULL} = typeof Play === 'undefined' ? require('./play.js') : Play

  const SIDE = 28, D = SIDE*SIDE, LOW = .002, HIGH = 80, FIRST = 7000, BLANK = 0  // noise number 0 is none at all

  function canvas(number) {  // noise of unit size
    const normal = stream(FIRST + number)
    return Float64Array.from({length: D}, number === BLANK ? () => 0 : normal)
  }

  // ---- The denoiser: EDM's preconditioning around what the network answers for two pictures

  const DATA = .962  // root mean square of the data, as the network was trained with it

  function scalings(sigma) {
    const total = sigma*sigma + DATA*DATA
    return {skip: DATA*DATA/total, out: sigma*DATA/Math.sqrt(total), in: 1/Math.sqrt(total)}
  }

  // D_u and D_c, from `net(z, c_noise, labels)`: the same picture twice, without the label and with it
  async function both(net, x, sigma, label) {
    const c = scalings(sigma), z = new Float32Array(2*D)
    for (let k = 0; k < D; k++) z[k] = z[D + k] = c.in*x[k]
    const F = await net(z, Math.log(sigma)/4, [NULL, label]), clean = at => x.map((v, k) => c.skip*v + c.out*F[at + k])
    return {u: clean(0), c: clean(D)}
  }

  // ---- Rules: from D_u, D_c, the strength, the noisy picture, its level and what the path remembers

  const inner = (a, b) => dot(a, 0, b, 0, D)

  function deviation(a) {
    const mean = a.reduce((sum, v) => sum + v, 0)/a.length
    return Math.sqrt(a.reduce((sum, v) => sum + (v - mean)**2, 0)/a.length)
  }

  const LIMIT = 2.5, MOMENTUM = -.75  // of adaptive projected guidance, as its paper has them for the scale 4

  const RULES = {
    plain: EXACT.plain,
    interval: EXACT.interval,
    apg(u, c, s, x, sigma, memory) {  // the difference is remembered, limited, and turned to where it does not brighten the picture
      const before = memory.delta, delta = memory.delta = c.map((v, k) => v - u[k] + (before ? MOMENTUM*before[k] : 0))
      const short = Math.min(1, LIMIT/Math.sqrt(inner(delta, delta))), along = short*inner(delta, c)/inner(c, c)
      return c.map((v, k) => v + (s - 1)*(short*delta[k] - along*v))
    },
    rescale: (u, c, s, x, sigma) => EXACT.rescale(u, c, s, x, sigma, deviation),
    cfgpp: EXACT.plain,  // what differs is the step
  }

  // ---- Sampling by DPM-Solver++(2M)

  // What a step takes from here to the next level. CFG++ keeps the noise, and remembers the guess, of no label
  function step(rule, x, u, guided, sigma, next, before) {
    const plus = rule === 'cfgpp', from = plus ? u : guided, second = before && next > 0 ? Math.log(sigma/next)/Math.log(before.sigma/sigma)/2 : 0
    const bend = plus ? (1 - next/sigma)*second : second  // of the two guesses' difference
    const push = guided.map((g, k) => second ? bend*(g - before.guess[k]) : 0)
    const moved = plus ? guided.map((g, k) => g + push[k] + next/sigma*(x[k] - u[k])) : guided.map((g, k) => g + push[k] + next/sigma*(x[k] - g - push[k]))
    return {x: moved, before: {guess: from, sigma}}
  }

  // From a canvas to a digit. `seen` is told of each step, and says whether to go on
  async function draw(net, o, seen = () => true) {
    const levels = karras(o.steps, LOW, HIGH), memory = {}
    let x = Float64Array.from(o.canvas, v => HIGH*v), before = null
    for (let i = 0; i < o.steps; i++) {
      const sigma = levels[i], {u, c} = await both(net, x, sigma, o.digit), guided = RULES[o.rule](u, c, o.strength, x, sigma, memory)
      if (!await seen({i, sigma, x, u, c, guided})) return null
      const now = step(o.rule, x, u, guided, sigma, levels[i + 1], before)
      x = now.x
      before = now.before
    }
    return x
  }

  // ---- What the figure shows: six moments of the way

  const MOMENTS = 6, moments = steps => [...Array(MOMENTS).keys()].map(i => Math.round(steps*(.1 + .12*i)))

  // ---- What an address asks for; the usual setting for whatever else stands there

  const USUAL = {draw: 3, from: 1, by: 3, lambda: .6, rule: 'plain', in: 12}, STEPS = [8, 12, 18, 24]
  const FORMS = {draw: /^\d$/, from: /^\d{1,4}$/, by: /^\d(\.\d{1,2})?$/, lambda: /^[01](\.\d{1,2})?$/, in: /^\d{1,2}$/}

  function asked(hash) {
    const words = String(hash).slice(1).split('&').map(o => o.split('=')), o = {...USUAL}
    for (const k of Object.keys(USUAL)) {
      const found = words.filter(w => w[0] === k), text = found.length && found[0][1] || ''
      if (!found.length) continue
      if (found.length > 1 || found[0].length > 2 || (FORMS[k] ? !FORMS[k].test(text) : !Object.prototype.hasOwnProperty.call(RULES, text))) return {...USUAL}
      o[k] = FORMS[k] ? +text : text
    }
    return o.by <= 8 && o.lambda <= 1 && STEPS.includes(o.in) ? o : {...USUAL}
  }

  // ---- Loading: three files, each of which has to be what play/runtime.json says

  const OFFLINE = 'it could not be loaded, and there may be no connection', MIXED = 'what arrived is not what was expected', REFUSED = 'this browser refuses to run it'

  async function arrived(url, {bytes, integrity}, tell) {  // the file; an error for one that is another
    const secure = typeof crypto !== 'undefined' && crypto.subtle, reply = await fetch(url, secure ? {} : {integrity}).catch(() => { throw new Error(OFFLINE) })
    if (!reply.ok) throw new Error(`${OFFLINE} (${reply.status})`)
    const whole = new Uint8Array(bytes), reader = reply.body.getReader()
    let size = 0
    for (;;) {
      const {done, value} = await reader.read().catch(() => { throw new Error(OFFLINE) })
      if (done) break
      if (size + value.length > bytes) throw new Error(MIXED)
      whole.set(value, size)
      size += value.length
      tell(value.length)
    }
    const mark = secure && integrity.slice(7) !== btoa(String.fromCharCode(...new Uint8Array(await crypto.subtle.digest('SHA-384', whole))))
    if (size !== bytes || mark) throw new Error(MIXED)
    return whole
  }

  function carried(urls) {  // bytes that came over the wire, where the browser tells
    const found = urls.map(url => performance.getEntriesByName(url).pop())
    return found.every(o => o && o.encodedBodySize) ? found.reduce((sum, o) => sum + o.encodedBodySize, 0) : null
  }

  async function open(where, tell) {  // the network as a function of pictures, noise level and labels
    const said = await fetch(where).then(reply => reply.ok ? reply.json() : Promise.reject()).catch(() => { throw new Error(OFFLINE) })
    const base = new URL(said.address, where).href, names = ['script', 'wasm', 'network']
    const urls = names.map(name => new URL(said[name].name, name === 'network' ? where : base).href), total = names.reduce((sum, name) => sum + said[name].bytes, 0)
    let got = 0
    const [script, wasm, network] = await Promise.all(names.map((name, k) => arrived(urls[k], said[name], n => tell((got += n)/total))))
    const blob = URL.createObjectURL(new Blob([script], {type: 'text/javascript'})), ort = await import(blob).catch(() => { throw new Error(REFUSED) })
    URL.revokeObjectURL(blob)
    Object.assign(ort.env.wasm, {wasmBinary: wasm.buffer, numThreads: 1, proxy: false})
    ort.env.logLevel = 'error'
    const session = await ort.InferenceSession.create(network, {executionProviders: ['wasm']}).catch(() => { throw new Error(REFUSED) })
    const net = async (z, level, labels) => {
      const feeds = {z: new ort.Tensor('float32', z, [2, 1, SIDE, SIDE]), c_noise: new ort.Tensor('float32', Float32Array.of(level, level), [2]), y: new ort.Tensor('int64', BigInt64Array.from(labels, BigInt), [2])}
      return (await session.run(feeds)).F.data
    }
    await both(net, new Float64Array(D), 1, 0)  // the first run is slower
    return {net, carried: carried(urls)}
  }

  // ---- The worker: `{load}` answers with progress and then `ready`; `{draw, id}` with each step and then with the digit

  function serve(scope) {
    let net = null, newest = 0
    const line = new MessageChannel(), waiting = []
    line.port1.onmessage = () => waiting.shift()()
    const turn = () => new Promise(done => { waiting.push(done); line.port2.postMessage(0) })  // messages that came are read meanwhile

    async function answer({draw: o, id}) {
      const begin = performance.now()
      newest = id
      const x = await draw(net, o, async now => { scope.postMessage({...now, id}); await turn(); return newest === id })
      if (x) scope.postMessage({done: id, x, took: performance.now() - begin})
    }

    async function load(where) {
      const begin = performance.now(), opened = await open(where, part => scope.postMessage({part}))
      net = opened.net
      scope.postMessage({ready: true, carried: opened.carried, took: performance.now() - begin})
    }

    scope.onmessage = async ({data}) => {
      try { await (data.load ? load(data.load) : answer(data)) } catch (e) { scope.postMessage({failed: e && e.message || 'something unknown'}) }
    }
  }

  return {canvas, scalings, both, step, draw, moments, asked, arrived, serve, grey, ink, RULES, STEPS, USUAL, SIDE, DATA, BLANK}
})()

if (typeof module !== 'undefined') module.exports = Noise
if (typeof WorkerGlobalScope !== 'undefined') Noise.serve(self)
