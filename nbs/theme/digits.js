// The exact world of digits (chapter 8), guided and sampled in the reader's browser: formulas and typed arrays, no network.
// In a worker it answers messages; tests/test_play.py runs the same functions under node and compares them with the package.
// theme/digits-page.js is the figure that it draws for.

const Digits = (() => {
  if (typeof importScripts === 'function') importScripts('play.js')
  const {karras, stream, NULL} = typeof Play === 'undefined' ? require('./play.js') : Play

  // ---- The file: a line of JSON, the arrays that it names, and a sum of all that (tools/play.py)

  const FORMAT = 'cfg-course digits 1'

  function sum(bytes) {  // Fletcher's
    let a = 0, b = 0
    for (let i = 0; i < bytes.length; i++) { a = (a + bytes[i]) % 65535; b = (b + a) % 65535 }
    return b*65536 + a
  }

  function read(buffer) {  // facts and arrays; an error for a file that is cut short, mixed up or of another time
    const bytes = new Uint8Array(buffer), end = bytes.indexOf(10) + 1
    if (end < 1 || end > 4096) throw new Error('this is not the file of digits')
    let facts = null
    try { facts = JSON.parse(String.fromCharCode(...bytes.subarray(0, end))) } catch { throw new Error('this is not the file of digits') }
    if (!facts || facts.format !== FORMAT) throw new Error('the file of digits is of another version than this page')
    const last = bytes.length - 8, said = last > end ? new DataView(buffer).getFloat64(last, true) : NaN
    if (sum(bytes.subarray(0, last)) !== said) throw new Error('the file of digits arrived damaged')
    const arrays = {}, kinds = {f8: Float64Array, f4: Float32Array, i2: Int16Array, i1: Int8Array, u1: Uint8Array}
    let at = end
    for (const [name, [kind, shape]] of Object.entries(facts.arrays)) {
      const size = shape.reduce((a, b) => a*b, 1)
      arrays[name] = new kinds[kind](buffer, at, size)
      at += arrays[name].byteLength
    }
    return {...facts, ...arrays, M: facts.arrays.directions[1][0], R: facts.arrays.directions[1][1], K: facts.arrays.directions[1][2]}
  }

  // Rows of length one at right angles, each on the side where it was (Gram and Schmidt)
  function orthonormal(rows, n, d, at = 0) {
    for (let i = 0; i < n; i++) {
      const a = at + i*d
      for (let j = 0; j < i; j++) {
        const b = at + j*d, inner = dot(rows, a, rows, b, d)
        for (let k = 0; k < d; k++) rows[a + k] -= inner*rows[b + k]
      }
      const length = Math.sqrt(dot(rows, a, rows, a, d))
      for (let k = 0; k < d; k++) rows[a + k] /= length
    }
  }

  function dot(a, i, b, j, n) {
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0, k = 0
    for (; k + 3 < n; k += 4) {
      s0 += a[i + k]*b[j + k]; s1 += a[i + k + 1]*b[j + k + 1]; s2 += a[i + k + 2]*b[j + k + 2]; s3 += a[i + k + 3]*b[j + k + 3]
    }
    for (; k < n; k++) s0 += a[i + k]*b[j + k]
    return s0 + s1 + s2 + s3
  }

  // Products of `x` with up to four rows, into `out`
  function four(out, o, x, rows, at, count, n) {
    const b = at + (count > 1 ? n : 0), c = at + (count > 2 ? 2*n : 0), d = at + (count > 3 ? 3*n : 0)
    let p = 0, q = 0, s = 0, t = 0
    for (let k = 0; k < n; k++) { const v = x[k]; p += v*rows[at + k]; q += v*rows[b + k]; s += v*rows[c + k]; t += v*rows[d + k] }
    out[o] = p
    if (count > 1) out[o + 1] = q
    if (count > 2) out[o + 2] = s
    if (count > 3) out[o + 3] = t
  }

  // Add to `out` a sum of rows with weights, four rows at a time
  function gather(out, rows, at, weights, count, n) {
    for (let r = 0; r < count; r += 4) {
      const a = at + r*n, b = r + 1 < count ? a + n : a, c = r + 2 < count ? a + 2*n : a, d = r + 3 < count ? a + 3*n : a
      const p = weights[r], q = b > a ? weights[r + 1] : 0, s = c > a ? weights[r + 2] : 0, t = d > a ? weights[r + 3] : 0
      for (let k = 0; k < n; k++) out[k] += p*rows[a + k] + q*rows[b + k] + s*rows[c + k] + t*rows[d + k]
    }
  }

  // ---- The world. A picture is K coordinates along the rows of `basis`, and one more: its length across them all.
  // Noise across them looks alike to every mode, so along a path only its length changes.

  function build(buffer) {
    const {M, R, K, floor, side, basis, directions, means, unit, variances, weights, labels} = read(buffer), D = side*side
    const w = {M, R, K, D, side, floor, labels, classes: Math.max(...labels) + 1, calm: new Map(), passed: 0, asked: 0}
    w.basis = Float64Array.from(basis)
    orthonormal(w.basis, K, D)
    w.axes = Float64Array.from(directions)
    for (let m = 0; m < M; m++) orthonormal(w.axes, R, K, m*R*K)
    w.means = Float64Array.from(means, (v, k) => v*unit[Math.floor(k/K)])
    w.variances = Float64Array.from(variances)
    w.squares = new Float64Array(M)
    w.marks = new Float64Array(M*R)
    for (let m = 0; m < M; m++) {
      w.squares[m] = dot(w.means, m*K, w.means, m*K, K)
      for (let r = 0; r < R; r++) w.marks[m*R + r] = dot(w.axes, (m*R + r)*K, w.means, m*K, K)
    }
    const mass = new Float64Array(w.classes)
    weights.forEach((v, m) => { mass[labels[m]] += v })
    w.logs = Float64Array.from(weights, v => Math.log(v))
    w.own = Array.from(mass, v => Math.log(v))  // log weights of the classes
    w.order = Int32Array.from({length: M}, (_, m) => m)
    w.along = new Float64Array(M*R)
    w.likely = new Float64Array(M)
    w.off = new Float64Array(M)
    return w
  }

  // What a noise level makes of the variances: gains, and logs of weight over volume; kept, as a path's levels come again
  function level(w, v) {
    if (w.calm.has(v)) return w.calm.get(v)
    const wide = w.floor + v, gain = new Float64Array(w.M*w.R), base = Float64Array.from(w.logs)
    for (let k = 0; k < gain.length; k++) {
      const excess = w.variances[k] - w.floor
      gain[k] = excess/wide/(w.variances[k] + v)
      base[Math.floor(k/w.R)] -= Math.log1p(excess/wide)/2
    }
    if (w.calm.size > 64) w.calm.clear()
    w.calm.set(v, {wide, gain, base})
    return w.calm.get(v)
  }

  const FAR = 40  // nats below the likeliest mode of the label and of all, from which a mode is passed over: e^-40 is 4e-18

  // Logs of weight times density of every mode at `x`, into `w.likely`; -Infinity for modes that are too far to matter. Two bounds
  // tell that early. How far `x` is from a sheet changes by no more than `x` has moved since the last look. And what the directions
  // of a mode that were not tried yet can explain is at most the distance that is left, times the largest of their gains.
  function look(w, x, v, label = NULL, all = false) {
    const {M, R, K, axes, along, marks, likely, means, squares, order, off} = w, {wide, gain, base} = level(w, v)
    const length = dot(x, 0, x, 0, K + 1), moved = w.last ? Math.hypot(...x.map((a, k) => a - w.last[k])) : Infinity
    let top = -Infinity, best = -Infinity
    for (let i = 0; i < M; i++) {
      const m = order[i], own = w.labels[m] === label, far = all ? -Infinity : Math.min(own ? best : Infinity, top) - FAR
      w.asked += R + 1
      off[m] = Math.max(0, off[m] - moved)
      likely[m] = -Infinity
      if (base[m] - off[m]*off[m]/wide/2 < far) { w.passed += R + 1; continue }
      const distance = length - 2*dot(x, 0, means, m*K, K) + squares[m]
      let left = distance - x[K]*x[K], log = base[m] - distance/wide/2, r = 0
      while (r < R) {
        if (log + left*gain[m*R + r]/2 < far) break  // gains fall from one direction to the next
        const some = Math.min(4, R - r)
        four(along, m*R + r, x, axes, (m*R + r)*K, some, K)
        for (const end = r + some; r < end; r++) {
          const k = m*R + r, p = along[k] -= marks[k]
          left -= p*p
          log += p*p*gain[k]/2
        }
      }
      if (r < R) { w.passed += R - r; continue }
      off[m] = Math.sqrt(Math.max(0, left + x[K]*x[K]))
      likely[m] = log
      if (log > top) top = log
      if (own && log > best) best = log
    }
    w.last = x
    order.sort((a, b) => likely[b] - likely[a] || a - b)  // likely ones come first next time, so that the others are given up early
  }

  function sumOf(w, label) {  // log of the summed likelihoods of a class, or of all
    let top = -Infinity, total = 0
    for (let m = 0; m < w.M; m++) if ((label === NULL || w.labels[m] === label) && w.likely[m] > top) top = w.likely[m]
    for (let m = 0; m < w.M; m++) if (top > -Infinity && (label === NULL || w.labels[m] === label)) total += Math.exp(w.likely[m] - top)
    return top === -Infinity ? top : top + Math.log(total)
  }

  function posterior(w) {  // of the classes
    const all = sumOf(w, NULL)
    return w.own.map((_, k) => Math.exp(sumOf(w, k) - all))
  }

  // E[x0 | x, label] from what `look` has left. Steps that are shorter than 1e-9/M are left out: a picture's error is below 1e-9.
  function denoised(w, x, v, label) {
    const {M, R, K, axes, along, means, likely} = w, {wide, gain} = level(w, v), total = sumOf(w, label), D = new Float64Array(K + 1)
    const steps = new Float64Array(R), one = new Float64Array(1)
    for (let k = 0; k <= K; k++) D[k] = w.floor/wide*x[k]
    for (let m = 0; m < M; m++) {
      if (label !== NULL && w.labels[m] !== label) continue
      const share = v*Math.exp(likely[m] - total)
      if (share < 1e-16*v) continue
      one[0] = share/wide
      gather(D, means, m*K, one, 1, K)
      let length = 0
      for (let r = 0; r < R; r++) {
        steps[r] = share*gain[m*R + r]*along[m*R + r]
        length += steps[r]*steps[r]
      }
      if (length > 1e-18/M/M) gather(D, axes, m*R*K, steps, R, K)
    }
    return D
  }

  // ---- Rules: from D_u, D_c, the scale, the noisy picture and its level

  const straight = (u, c, s) => u.map((v, k) => v + s*(c[k] - v))
  const INSIDE = [.3, 5]

  const RULES = {
    plain: straight,
    interval: (u, c, s, x, sigma) => sigma > INSIDE[0] && sigma <= INSIDE[1] ? straight(u, c, s) : c,
    across(u, c, s) {  // only what of the difference is at right angles to D_c (APG without limit and memory)
      const d = c.map((v, k) => v - u[k]), n = c.length, share = dot(d, 0, c, 0, n)/dot(c, 0, c, 0, n)
      return c.map((v, k) => v + (s - 1)*(d[k] - share*v))
    },
    rescale(u, c, s, x, sigma, deviation) {  // the guided v gets the deviation of the conditional one, for 70 %
      const a = 1/Math.sqrt(1 + sigma*sigma), v = D => D.map((d, k) => a*((x[k] - d)/sigma - sigma*d))
      const g = straight(u, c, s), vg = v(g), change = .3 + .7*deviation(v(c))/deviation(vg)
      return vg.map((o, k) => a*a*x[k] - a*sigma*change*o)
    },
  }

  // ---- A digit: from noise by DPM-Solver++(2M)

  const STEPS = 12, LEVELS = karras(STEPS, .002, 80), COLUMNS = [2, 3, 4, 5, 6, 7], FIRST = 7000

  // Coordinates of a picture; what is across the basis, as a picture of length one
  function inside(w, picture) {
    const {K, D, basis} = w, x = new Float64Array(K + 1), rest = Float64Array.from(picture)
    for (let k = 0; k < K; k++) {
      x[k] = dot(basis, k*D, picture, 0, D)
      for (let d = 0; d < D; d++) rest[d] -= x[k]*basis[k*D + d]
    }
    x[K] = Math.sqrt(dot(rest, 0, rest, 0, D))
    return [x, rest.map(v => v/x[K])]
  }

  function picture(w, x, across) {
    const {K, D, basis} = w, p = across.map(v => v*x[K])
    gather(p, basis, 0, x, K, D)
    return p
  }

  function start(w, noise) {  // kept, as long as the noise is the same
    if (w.begun && w.begun.noise === noise) return w.begun
    const normal = stream(FIRST + noise), [x, across] = inside(w, Float64Array.from({length: w.D}, normal)), sums = new Float64Array(w.K + 1)
    for (let k = 0; k < w.K; k++) for (let d = 0; d < w.D; d++) sums[k] += w.basis[k*w.D + d]
    sums[w.K] = across.reduce((a, b) => a + b, 0)
    const deviation = o => Math.sqrt(dot(o, 0, o, 0, w.K + 1)/w.D - (dot(o, 0, sums, 0, w.K + 1)/w.D)**2)
    return w.begun = {noise, x: x.map(v => v*LEVELS[0]), across, deviation, first: []}
  }

  function both(w, x, v, digit) {  // the two guesses, and the posterior of the classes
    look(w, x, v, digit)
    return {u: denoised(w, x, v, NULL), c: denoised(w, x, v, digit), sure: posterior(w)}
  }

  // A digit and its way. Logs of the class posterior are exact for every class, however small
  function draw(w, o) {
    const begun = start(w, o.noise), way = []
    let x = begun.x, before = null
    w.asked = w.passed = 0
    w.last = null
    for (let i = 0; i < STEPS; i++) {
      const sigma = LEVELS[i], next = LEVELS[i + 1], v = sigma*sigma
      const {u, c, sure} = i ? both(w, x, v, o.digit) : begun.first[o.digit] ||= both(w, x, v, o.digit)  // noise alone is asked once
      const guided = RULES[o.rule](u, c, o.scale, x, sigma, begun.deviation)
      way.push({sigma, x, u, c, guided, sure})
      const half = before && next > 0 ? Math.log(sigma/next)/Math.log(LEVELS[i - 1]/sigma)/2 : 0
      const D = half ? guided.map((g, k) => g + half*(g - before[k])) : guided
      x = D.map((d, k) => d + next/sigma*(x[k] - d))
      before = guided
    }
    const passed = w.passed/w.asked
    look(w, x, 0, o.digit, true)
    const everything = sumOf(w, NULL), own = sumOf(w, o.digit), logClass = w.own.map((_, k) => sumOf(w, k) - everything)
    let mode = -1
    for (let m = 0; m < w.M; m++) if (w.labels[m] === o.digit && (mode < 0 || w.likely[m] > w.likely[mode])) mode = m
    const logProb = own - w.own[o.digit] - w.D/2*Math.log(2*Math.PI*w.floor)
    return {x, across: begun.across, way, logProb, logClass, mode, share: Math.exp(w.likely[mode] - own), passed}
  }

  // ---- Pictures for the page, in grey levels or colours

  const byte = v => Math.min(255, Math.max(0, Math.round(127.5*(v + 1))))
  const MORE = [255, 158, 41], LESS = [77, 158, 255]  // ink that is added, and taken away

  // One picture of a strip of them; `size` is by what it is multiplied
  function grey(p, out, size = 1, column = 0, columns = 1) {
    for (let d = 0; d < p.length; d++) {
      const at = spot(d, column, columns)
      out[at] = out[at + 1] = out[at + 2] = byte(p[d]*size)
      out[at + 3] = 255
    }
  }

  const spot = (d, column, columns, side = 28) => 4*((Math.floor(d/side)*columns + column)*side + d % side)

  function ink(p, q, out, size, column, columns) {  // a difference, as bright as it is: a change of 2 is from black to white
    for (let d = 0; d < p.length; d++) {
      const change = size*(p[d] - q[d]), most = Math.min(1, Math.abs(change)/2), colour = change > 0 ? MORE : LESS, at = spot(d, column, columns)
      for (let k = 0; k < 3; k++) out[at + k] = most*colour[k]
      out[at + 3] = 255
    }
  }

  const ROWS = ['noisy', 'none', 'label', 'difference', 'guided']

  const strip = (w, columns) => new Uint8ClampedArray(4*w.D*columns)

  function answer(w, found, o) {  // the digit, its mode's average, and numbers
    const {x, across, way, logProb, logClass, mode, share, passed} = found, bytes = {digit: strip(w, 1), mean: strip(w, 1)}, mean = new Float64Array(w.K + 1)
    mean.set(w.means.subarray(mode*w.K, (mode + 1)*w.K))
    grey(picture(w, x, across), bytes.digit)
    grey(picture(w, mean, across), bytes.mean)
    const count = labels => labels.reduce((total, k) => total + (k === o.digit), 0), seen = COLUMNS.map(i => way[i])
    return {bytes, logProb, logClass, mode: count(w.labels.subarray(0, mode)) + 1, modes: count(w.labels), share, passed, sure: seen.map(s => s.sure), levels: seen.map(s => s.sigma)}
  }

  function strips(w, {across, way}, o) {  // the way: a strip of pictures for each of `ROWS`
    const n = COLUMNS.length, bytes = Object.fromEntries(ROWS.map(row => [row, strip(w, n)]))
    COLUMNS.forEach((step, i) => {
      const {sigma, x, u, c, guided} = way[step], none = picture(w, u, across), label = picture(w, c, across)
      grey(picture(w, x, across), bytes.noisy, 1/Math.sqrt(1 + sigma*sigma), i, n)
      grey(none, bytes.none, 1, i, n)
      grey(label, bytes.label, 1, i, n)
      ink(label, none, bytes.difference, o.scale, i, n)
      grey(picture(w, guided, across), bytes.guided, 1, i, n)
    })
    return {bytes}
  }

  // ---- What an address asks for; the usual digit for whatever else stands there

  const USUAL = {digit: 3, noise: 1, strength: 3, way: 'plain'}, MOST = {digit: 9, noise: 9999, strength: 8}

  function asked(hash) {
    const words = new Map(String(hash).slice(1).split('&').map(o => o.split('='))), o = {...USUAL}
    for (const k of ['digit', 'noise', 'strength']) {
      if (!words.has(k)) continue
      const text = words.get(k) || ''
      if (!(k === 'strength' ? /^\d(\.\d{1,2})?$/ : /^\d{1,4}$/).test(text) || +text > MOST[k]) return {...USUAL}
      o[k] = +text
    }
    if (words.has('way')) { if (!Object.prototype.hasOwnProperty.call(RULES, words.get('way'))) return {...USUAL}; o.way = words.get('way') }
    return o
  }

  // ---- The worker: `{load}` answers with progress and then `ready`; `{draw, id}` with a digit and then with its way

  async function fetched(url, expected, tell) {
    const reply = await fetch(url)
    if (!reply.ok) throw new Error(`the file of digits is not there (${reply.status})`)
    if (!reply.body || !reply.body.getReader) return reply.arrayBuffer()
    const reader = reply.body.getReader(), parts = []
    let size = 0
    for (;;) {
      const {done, value} = await reader.read()
      if (done) break
      parts.push(value)
      size += value.length
      tell(Math.min(1, size/expected))
    }
    const whole = new Uint8Array(size)
    parts.reduce((at, p) => { whole.set(p, at); return at + p.length }, 0)
    return whole.buffer
  }

  function serve(scope) {
    let world = null
    scope.onmessage = async ({data}) => {
      try {
        if (data.load) {
          world = build(await fetched(data.load, data.bytes, part => scope.postMessage({part})))
          scope.postMessage({ready: true})
        } else {
          const begin = performance.now(), found = draw(world, data.draw)
          const tell = (said, more) => scope.postMessage({...said, ...more}, Object.values(said.bytes).map(b => b.buffer))
          tell(answer(world, found, data.draw), {id: data.id, took: performance.now() - begin})  // first what the slider is about
          tell(strips(world, found, data.draw), {done: data.id})
        }
      } catch (e) { scope.postMessage({failed: e && e.message || 'something unknown'}) }
    }
  }

  return {build, look, denoised, sumOf, level, inside, picture, start, draw, answer, strips, asked, serve, dot, grey, ink, RULES, ROWS, COLUMNS, LEVELS, INSIDE, USUAL, MOST, sum}
})()

if (typeof module !== 'undefined') module.exports = Digits
if (typeof WorkerGlobalScope !== 'undefined' && self.location.pathname.endsWith('/digits.js')) Digits.serve(self)  // theme/noise.js has it beside itself
