// The exact worlds of chapter 3, guided and sampled in the reader's browser.
// The first half is the mathematics, which tests/test_play.py compares with the package; the second half is the page.

// ---- Worlds: Gaussian parts in the plane, each with a class

function part(m0, m1, a, b, c, weight, label) { return {m0, m1, a, b, c, weight, label} }  // covariance (a b; b c)

function threeGaussians(radius = 1.5, variance = .5) {
  return [90, 210, 330].map((angle, k) => {
    const t = angle*Math.PI/180
    return part(radius*Math.cos(t), radius*Math.sin(t), variance, 0, variance, 1/3, k)
  })
}

function unequalModes(share = .25, variance = .05) {
  const means = [[1, 1], [1, -1], [-1, 0]], weights = [(1 - share)/2, share/2, .5]
  return means.map((m, k) => part(m[0], m[1], variance, 0, variance, weights[k], k === 2 ? 1 : 0))
}

function branch(x, y, angle, length, depth, beads, found) {
  const c = Math.cos(angle), s = Math.sin(angle), step = length/beads, width = .05*length
  const along = (.4*step)**2, across = width**2
  for (let i = 0; i < beads; i++) {
    const t = (i + .5)*step
    found.push(part(x + t*c, y + t*s, along*c*c + across*s*s, (along - across)*c*s, along*s*s + across*c*c, length*width/beads, 0))
  }
  if (depth > 1) for (const [turn, shrink] of [[.55, .72], [-.75, .62]])
    branch(x + length*c, y + length*s, angle + turn, shrink*length, depth - 1, beads, found)
  return found
}

function fractalTree(depth = 6, beads = 4) {
  const tree = branch(0, 0, .98, 1, depth, beads, []), total = 2*tree.reduce((t, p) => t + p.weight, 0)
  return [1, -1].flatMap((side, k) => tree.map(p => part(side*p.m0, p.m1, p.a, side*p.b, p.c, p.weight/total, k)))
}

function blurred(parts, blur) { return parts.map(p => ({...p, a: p.a + blur**2, c: p.c + blur**2})) }

// What is drawn from (the truth), with what model (blur added to each part) and what worse one, where, from which noise
function makeWorld(parts, blur, worse, view, levels) {
  return {parts, model: blurred(parts, blur), weak: blurred(parts, worse), view, levels}
}

const WORLDS = {
  three: makeWorld(threeGaussians(), 0, .5, [0, 0, 4.2], [.02, 40]),
  modes: makeWorld(unequalModes(), 0, .3, [0, 0, 2.6], [.005, 40]),
  tree: makeWorld(fractalTree(), .03, .06, [0, 1.35, 2.5], [.002, 20]),
}

// ---- Denoiser: what a world knows of a noisy point

const NULL = -1

// E[x0 | x, sigma, label] and the log density; the parts of one class, or all of them for NULL
function look(parts, x, y, sigma, label, D) {
  let top = -Infinity, mass = 0, sum = 0, s0 = 0, s1 = 0
  for (const p of parts) {
    if (label !== NULL && p.label !== label) continue
    const a = p.a + sigma*sigma, c = p.c + sigma*sigma, det = a*c - p.b*p.b, r0 = x - p.m0, r1 = y - p.m1
    const q0 = (c*r0 - p.b*r1)/det, q1 = (a*r1 - p.b*r0)/det
    const log = Math.log(p.weight/Math.sqrt(det)) - (r0*q0 + r1*q1)/2
    if (log > top) { const fade = Math.exp(top - log); sum *= fade; s0 *= fade; s1 *= fade; top = log }
    const e = Math.exp(log - top)
    sum += e; s0 += e*q0; s1 += e*q1; mass += p.weight
  }
  D[0] = x - sigma*sigma*s0/sum
  D[1] = y - sigma*sigma*s1/sum
  return top + Math.log(sum/mass) - Math.log(2*Math.PI)
}

// D_w + s (D_c - D_w) for lo < sigma <= hi, D_c elsewhere; the weak prediction has no label, or is a worse model's.
// The level at which a step begins decides for the whole step.
function guided(model, o, weak = null) {
  const W = [0, 0]
  return (x, y, sigma, D, begin = sigma) => {
    look(model, x, y, sigma, o.label, D)
    if (o.scale === 1 || begin <= o.lo || begin > o.hi) return
    look(weak || model, x, y, sigma, weak ? o.label : NULL, W)
    D[0] = W[0] + o.scale*(D[0] - W[0])
    D[1] = W[1] + o.scale*(D[1] - W[1])
  }
}

// The guesses at a noisy point: weak, strong, and what guidance makes of them
function guesses(o, p, sigma) {
  const {model, weak} = WORLDS[o.world], u = [0, 0], c = [0, 0], g = [0, 0], worse = o.weak === 'worse'
  look(worse ? weak : model, p[0], p[1], sigma, worse ? o.label : NULL, u)
  look(model, p[0], p[1], sigma, o.label, c)
  guided(model, o, worse ? weak : null)(p[0], p[1], sigma, g)
  return {u, c, guided: g}
}

// How far apart the two guesses are at each step of a path; -1 where guidance does not act, or where the guided point is out of view
function apart(o, points, sigmas) {
  const [x, y, half] = WORLDS[o.world].view
  return sigmas.slice(0, -1).map((sigma, i) => {
    if (sigma <= o.lo || sigma > o.hi) return -1
    const {u, c, guided} = guesses(o, points[i], sigma), seen = Math.max(Math.abs(guided[0] - x), Math.abs(guided[1] - y)) < .9*half
    return seen ? Math.hypot(c[0] - u[0], c[1] - u[1]) : -1
  })
}

// The step at which they are farthest apart
function widest(o, points, sigmas) {
  const far = apart(o, points, sigmas)
  return far.indexOf(Math.max(...far))
}

// The number of a path with an arrow that is easy to see: of a middling length, since the longest leave the view
function telling(o, paths, sigmas) {
  const most = paths.map(points => Math.max(...apart(o, points, sigmas))), order = most.map((_, k) => k).sort((a, b) => most[a] - most[b])
  return order[Math.floor(.8*order.length)]
}

// ---- Samplers: noise levels, and three steps from one to the next

function karras(steps, low = .002, high = 80, rho = 7) {
  const a = high**(1/rho), b = low**(1/rho)
  return [...Array(steps).keys()].map(i => (a + (steps > 1 ? i/(steps - 1) : 0)*(b - a))**rho).concat(0)
}

const STEPS = {
  heun(denoise, p, s, t, D) {
    denoise(p[0], p[1], s, D)
    const d0 = (p[0] - D[0])/s, d1 = (p[1] - D[1])/s
    if (t === 0) { p[0] = D[0]; p[1] = D[1]; return }
    const g0 = p[0] + (t - s)*d0, g1 = p[1] + (t - s)*d1
    denoise(g0, g1, t, D, s)
    p[0] += (t - s)*(d0 + (g0 - D[0])/t)/2
    p[1] += (t - s)*(d1 + (g1 - D[1])/t)/2
  },
  ddim(denoise, p, s, t, D) {
    denoise(p[0], p[1], s, D)
    p[0] = D[0] + t/s*(p[0] - D[0])
    p[1] = D[1] + t/s*(p[1] - D[1])
  },
  ddpm(denoise, p, s, t, D, normal) {  // the smaller variance, v = 0
    denoise(p[0], p[1], s, D)
    const keep = (t/s)**2, std = t > 0 ? t*Math.sqrt(1 - keep) : 0
    p[0] = D[0] + (t > 0 ? keep*(p[0] - D[0]) + std*normal() : 0)
    p[1] = D[1] + (t > 0 ? keep*(p[1] - D[1]) + std*normal() : 0)
  },
}

function stream(seed) {  // standard normal numbers (mulberry32, Box and Muller)
  let a = seed >>> 0
  const uniform = () => {
    a = (a + 0x6D2B79F5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0)/4294967296
  }
  return () => Math.sqrt(-2*Math.log(1 - uniform()))*Math.cos(2*Math.PI*uniform())
}

// Positions of one sample at every level, the first at sigmas[0]
function path(denoise, start, sigmas, step, normal) {
  const p = [...start], D = [0, 0], found = [[...p]]
  for (let i = 0; i + 1 < sigmas.length; i++) { STEPS[step](denoise, p, sigmas[i], sigmas[i + 1], D, normal); found.push([...p]) }
  return found
}

// Sample number i of a setting. Starting noise and fresh noise belong to the sample: what moves is what the setting changed
function sampler(o, seed = 1) {
  const {model, weak, levels} = WORLDS[o.world], sigmas = karras(o.steps, ...levels), denoise = guided(model, o, o.weak === 'worse' ? weak : null)
  return i => {
    const normal = stream(1000*seed + i)
    return path(denoise, [normal()*sigmas[0], normal()*sigmas[0]], sigmas, o.step, normal)
  }
}

// ---- What is measured on samples, with the exact densities

function drawn(parts, label, n, normal) {  // true samples of a class; parts by stratified weight
  const own = parts.filter(p => p.label === label), total = own.reduce((t, p) => t + p.weight, 0), found = []
  let k = 0, edge = own[0].weight/total
  for (let i = 0; i < n; i++) {
    while ((i + .5)/n > edge && k < own.length - 1) edge += own[++k].weight/total
    const p = own[k], l = Math.sqrt(p.a), m = p.b/l, z = normal()
    found.push([p.m0 + l*z, p.m1 + m*z + Math.sqrt(p.c - m*m)*normal()])
  }
  return found
}

function spread(points) {
  const mean = [0, 1].map(k => points.reduce((t, p) => t + p[k], 0)/points.length)
  return Math.sqrt(points.reduce((t, p) => t + (p[0] - mean[0])**2 + (p[1] - mean[1])**2, 0)/points.length)
}

function yardstick(parts, label) {  // spread of the class, and the log density that one in a thousand lies below
  const points = drawn(parts, label, 10000, stream(99)), D = [0, 0]
  const logs = points.map(p => look(parts, p[0], p[1], 0, label, D)).sort((a, b) => a - b)
  return {label, parts, spread: spread(points), cut: logs[10]}
}

function measured(points, yard) {
  const D = [0, 0], own = yard.parts.reduce((t, p) => t + (p.label === yard.label ? p.weight : 0), 0)
  let known = 0, out = 0
  const outside = points.map(p => {
    const log = look(yard.parts, p[0], p[1], 0, yard.label, D)
    known += own*Math.exp(log - look(yard.parts, p[0], p[1], 0, NULL, D)) > .5
    out += log < yard.cut
    return log < yard.cut
  })
  return {recognised: known/points.length, spread: spread(points)/yard.spread, outside: out/points.length, which: outside}
}

// ---- The page

const USUAL = {label: 0, lo: 0, hi: 100, weak: 'label', step: 'heun', steps: 18}
const PRESETS = {
  none: {world: 'three', scale: 1},
  paper: {world: 'three', scale: 4},
  few: {world: 'three', scale: 4, step: 'ddim', steps: 6},
  modes: {world: 'modes', scale: 4},
  tree: {world: 'tree', scale: 3},
  interval: {world: 'tree', scale: 3, lo: .1, hi: .5},
  auto: {world: 'tree', scale: 3, weak: 'worse'},
}
for (const name in PRESETS) PRESETS[name] = {...USUAL, ...PRESETS[name]}
const SCALES = [0, .5, 1, 1.5, 2, 3, 4, 6, 8], SAMPLES = 400, GRID = 140

// ---- The address: what it asks of the plane, and the usual setting for whatever else stands there

const NUMBER = /^\d{1,3}(\.\d{1,20})?$/, has = (o, k) => Object.prototype.hasOwnProperty.call(o, k)

function asked(hash) {
  const usual = {...PRESETS.paper}, found = {...usual}
  let words
  try { words = new URLSearchParams(String(hash).slice(1)) } catch { return usual }
  for (const k of Object.keys(usual)) {
    if (!words.has(k)) continue
    const text = words.get(k)
    if (words.getAll(k).length > 1 || typeof usual[k] === 'number' && !NUMBER.test(text)) return usual
    found[k] = typeof usual[k] === 'number' ? +text : text
  }
  const fine = has(WORLDS, found.world) && has(STEPS, found.step) && ['label', 'worse'].includes(found.weak) && found.scale <= 8
    && found.lo < found.hi && found.hi <= 100 && Number.isInteger(found.steps) && found.steps >= 4 && found.steps <= 64
    && WORLDS[found.world].parts.some(p => p.label === found.label)
  return fine ? found : usual
}

// What the figures of the page have to say in the address, written at leisure: browsers refuse a hundred changes in half a minute
const said = {}
let late = 0
function remember(o) {
  Object.assign(said, o)
  clearTimeout(late)
  late = setTimeout(() => { try { history.replaceState(null, '', '#' + new URLSearchParams(said)) } catch { /* not in every frame */ } }, 250)
}

// Where on its page an address begins: settings leave no room for the name of a place, so `at=points` is one of them
const place = hash => (/[#&]at=(digits|your-own-noise|points)(?=&|$)/.exec(hash) || [])[1]

const asks = (hash, names) => names.some(k => new RegExp(`[#&]${k}=`).test(hash))

function wake(root, lives = true) {  // the controls come, the picture goes; or the other way round
  for (const e of root.querySelectorAll('[data-live]')) e.hidden = !lives
  for (const e of root.querySelectorAll('[data-still]')) e.hidden = lives
  for (const e of root.querySelectorAll('[data-why]')) e.hidden = lives
}

function show(root) {
  const el = name => root.querySelector(`[data-play="${name}"]`), all = name => [...root.querySelectorAll(name)]
  const canvas = el('plane'), chart = el('chart'), still = matchMedia('(prefers-reduced-motion: reduce)').matches
  const yards = {}, grids = {}
  let o = {...PRESETS.paper}, seed = 1, samples = [], facts = null, curve = [], shown = 1, job = 0, film = 0, ground = {}, marked = 0, chosen = false

  const world = () => WORLDS[o.world]
  const color = name => getComputedStyle(root).getPropertyValue(name).trim()
  const yard = () => yards[o.world + o.label] ??= yardstick(world().parts, o.label)

  // Log densities of the class and of everything on a grid over the view, once for a class of a world
  function grid() {
    const key = o.world + o.label
    if (grids[key]) return grids[key]
    const [x, y, half] = world().view, D = [0, 0], own = [], any = []
    for (let j = 0; j < GRID; j++) for (let i = 0; i < GRID; i++) {
      const p = [x + half*(2*(i + .5)/GRID - 1), y - half*(2*(j + .5)/GRID - 1)]
      own.push(look(world().parts, ...p, 0, o.label, D)); any.push(look(world().parts, ...p, 0, NULL, D))
    }
    return grids[key] = {own, any}
  }

  // The level above which a density on the grid has the given share of its mass
  function level(logs, share) {
    const top = logs.reduce((a, b) => Math.max(a, b), -Infinity), mass = logs.map(l => Math.exp(l - top))
    const order = [...mass].sort((a, b) => b - a), total = order.reduce((a, b) => a + b, 0)
    let sum = 0
    for (const m of order) { sum += m; if (sum >= share*total) return Math.log(m) + top }
    return -Infinity
  }

  function contour(pen, logs, at, side) {  // marching squares
    const cell = side/GRID, cross = (a, b) => (at - a)/(b - a)
    pen.beginPath()
    for (let j = 0; j + 1 < GRID; j++) for (let i = 0; i + 1 < GRID; i++) {
      const [a, b, c, d] = [logs[j*GRID + i], logs[j*GRID + i + 1], logs[(j + 1)*GRID + i + 1], logs[(j + 1)*GRID + i]]
      const ends = []
      if (a > at !== b > at) ends.push([i + cross(a, b), j])
      if (b > at !== c > at) ends.push([i + 1, j + cross(b, c)])
      if (d > at !== c > at) ends.push([i + cross(d, c), j + 1])
      if (a > at !== d > at) ends.push([i, j + cross(a, d)])
      for (let k = 0; k + 1 < ends.length; k += 2) {
        pen.moveTo((ends[k][0] + .5)*cell, (ends[k][1] + .5)*cell)
        pen.lineTo((ends[k + 1][0] + .5)*cell, (ends[k + 1][1] + .5)*cell)
      }
    }
    pen.stroke()
  }

  function shade(pen, logs, rgb, most, side) {  // a density as a colour of growing opacity
    const top = level(logs, .02), image = new ImageData(GRID, GRID), spare = document.createElement('canvas')
    logs.forEach((l, k) => image.data.set([...rgb, 255*most*Math.min(1, Math.exp(l - top))**.5], 4*k))
    spare.width = spare.height = GRID
    spare.getContext('2d').putImageData(image, 0, 0)
    pen.drawImage(spare, 0, 0, side, side)
  }

  function sized(c) {  // a canvas whose pixels are those of the screen
    const ratio = devicePixelRatio || 1, w = c.clientWidth, h = c.clientHeight
    if (c.width !== Math.round(w*ratio)) { c.width = Math.round(w*ratio); c.height = Math.round(h*ratio) }
    const pen = c.getContext('2d')
    pen.setTransform(ratio, 0, 0, ratio, 0, 0)
    pen.clearRect(0, 0, w, h)
    return [pen, w, h]
  }

  // Densities and contours, drawn once for a setting
  function backdrop(side) {
    const tilted = el('tilted').checked, ratio = devicePixelRatio || 1, key = [o.world, o.label, o.scale, tilted, side, ratio, color('--own')].join()
    if (ground.key === key) return ground
    ground = Object.assign(document.createElement('canvas'), {key, width: side*ratio, height: side*ratio})
    const pen = ground.getContext('2d'), {own, any} = grid(), rgb = name => color(name).match(/\w\w/g).map(h => parseInt(h, 16))
    pen.scale(ratio, ratio)
    shade(pen, any, rgb('--any'), .35, side)
    shade(pen, own, rgb('--own'), .5, side)
    if (!tilted) return ground
    const tilt = own.map((l, k) => o.scale*l + (1 - o.scale)*any[k])
    pen.strokeStyle = color('--tilted')
    for (const [share, width] of [[.5, 1.6], [.95, .8]]) { pen.lineWidth = width; contour(pen, tilt, level(tilt, share), side) }
    return ground
  }

  const shrink = s => 1/Math.sqrt(1 + s*s), signed = v => v.toFixed(1).replace('-', '\u2212').replace(/^\u22120\.0$/, '0.0')
  const place = p => `(${p.map(signed).join(', ')})`

  // Where dot k stands at a moment of the film, in the paper's coordinates, in which noise has unit size
  function stands(k, i, f, sigmas) {
    const y = world().view[1], [a, b] = [samples[k][i], samples[k][i + 1]].map((q, j) => [q[0]*shrink(sigmas[i + j]), (q[1] - y)*shrink(sigmas[i + j]) + y])
    return [a[0] + f*(b[0] - a[0]), a[1] + f*(b[1] - a[1])]
  }

  function moment(sigmas) {  // step and share of it
    const at = shown*(sigmas.length - 1), i = Math.min(Math.floor(at), sigmas.length - 2)
    return [i, at - i]
  }

  function axes(pen, side, spot) {
    const [x, y, half] = world().view, unit = half > 3 ? 2 : 1
    pen.fillStyle = pen.strokeStyle = color('--muted'); pen.lineWidth = 1
    pen.font = `11px ${getComputedStyle(root).fontFamily}`
    pen.textAlign = 'center'
    for (let v = Math.ceil((x - half)/unit)*unit; v <= x + half; v += unit) {
      const [u] = spot(v, 0)
      pen.beginPath(); pen.moveTo(u, side); pen.lineTo(u, side - 4); pen.stroke()
      if (u > 34 && u < side - 12) pen.fillText(`${v}`.replace('-', '\u2212'), u, side - 7)
    }
    for (let v = Math.ceil((y - half)/unit)*unit; v <= y + half; v += unit) {
      const [, u] = spot(0, v)
      pen.beginPath(); pen.moveTo(0, u); pen.lineTo(4, u); pen.stroke()
      if (u > 12 && u < side - 34) { pen.textAlign = 'left'; pen.fillText(`${v}`.replace('-', '\u2212'), 7, u + 4); pen.textAlign = 'center' }
    }
    pen.textAlign = 'right'
    pen.fillText('first coordinate', side - 8, side - 21)
    pen.save(); pen.translate(30, 8); pen.rotate(-Math.PI/2); pen.fillText('second coordinate', 0, 0); pen.restore()
  }

  // The marked dot: its way so far, its two guesses, and the arrow from one through the other to the guided point
  function arrow(pen, spot, sigmas) {
    const path = samples[marked], [now, share] = moment(sigmas), i = shown === 1 ? widest(o, path, sigmas) : now, {u, c, guided} = guesses(o, path[i], sigmas[i])
    const way = [...Array(now + 1).keys()].map(k => stands(marked, k, 0, sigmas)).concat([stands(marked, now, share, sigmas)]).map(p => spot(...p))
    const from = spot(...stands(marked, i, 0, sigmas)), [a, b, end] = [u, c, guided].map(p => spot(...p)), ink = color('--ink'), rim = color('--paper')
    pen.lineJoin = 'round'
    pen.strokeStyle = ink; pen.lineWidth = 1; pen.globalAlpha = .6
    pen.beginPath(); way.forEach((p, k) => k ? pen.lineTo(...p) : pen.moveTo(...p)); pen.stroke()
    pen.setLineDash([3, 3])
    for (const p of [a, b]) { pen.beginPath(); pen.moveTo(...from); pen.lineTo(...p); pen.stroke() }
    pen.setLineDash([]); pen.globalAlpha = 1
    const long = Math.hypot(end[0] - a[0], end[1] - a[1]), turn = Math.atan2(end[1] - a[1], end[0] - a[0]), head = Math.min(11, .6*long)
    for (const [paint, width] of [[rim, 5], [ink, 2.2]]) {
      pen.strokeStyle = pen.fillStyle = paint; pen.lineWidth = width
      pen.beginPath(); pen.moveTo(...a); pen.lineTo(...end); pen.stroke()
      pen.beginPath(); pen.moveTo(...end)
      for (const side of [.42, -.42]) pen.lineTo(end[0] - head*Math.cos(turn + side), end[1] - head*Math.sin(turn + side))
      pen.closePath(); pen.fill()
    }
    const disc = (p, fill, r) => { pen.beginPath(); pen.arc(...p, r, 0, 7); pen.fillStyle = fill; pen.fill(); pen.strokeStyle = rim; pen.lineWidth = 1.5; pen.stroke() }
    disc(a, color('--any'), 5); disc(b, color('--own-line'), 5)
    pen.font = `600 12px ${getComputedStyle(root).fontFamily}`; pen.textAlign = 'left'
    const side = canvas.clientWidth, words = o.weak === 'worse' ? 'worse' : 'no label'
    if (long > 24) for (const [p, text, fill, low] of [[a, words, '--any', 16], [b, o.weak === 'worse' ? 'better' : 'label', '--own-line', -9], [end, 'guided', '--ink', 16]]) {
      if (text === 'guided' && Math.hypot(p[0] - b[0], p[1] - b[1]) < 12) continue
      const at = [Math.min(side - 54, Math.max(4, p[0] + 7)), Math.min(side - 6, Math.max(14, p[1] + low))]
      pen.strokeStyle = rim; pen.lineWidth = 4; pen.strokeText(text, ...at); pen.fillStyle = color(fill); pen.fillText(text, ...at)
    }
    pen.beginPath(); pen.arc(...way.at(-1), 6, 0, 7); pen.strokeStyle = rim; pen.lineWidth = 4; pen.stroke(); pen.strokeStyle = ink; pen.lineWidth = 2; pen.stroke()
    const sigma = sigmas[i], names = o.weak === 'worse' ? ['the worse model guesses', 'the better one'] : ['without the label the guess is', 'with it']
    el('says').textContent = `The ringed dot at noise level ${sigma < .1 ? sigma.toPrecision(1) : sigma.toPrecision(2)}: ${names[0]} ${place(u)}, ${names[1]} ${place(c)}, guided ${place(guided)}.`
  }

  // `shown` runs from 0 (noise) to 1 (samples)
  function plane() {
    const [pen, side] = sized(canvas), [x, y, half] = world().view
    const spot = (a, b) => [side*((a - x)/half + 1)/2, side*(1 - (b - y)/half)/2]
    pen.drawImage(backdrop(side), 0, 0, side, side)
    axes(pen, side, spot)
    const sigmas = karras(o.steps, ...world().levels), [i, f] = moment(sigmas), [dot, out] = ['--dot', '--out'].map(color)
    pen.globalAlpha = .8
    samples.forEach((p, k) => {
      pen.fillStyle = shown === 1 && facts && facts.which[k] ? out : dot
      pen.beginPath(); pen.arc(...spot(...stands(k, i, f, sigmas)), 2, 0, 7); pen.fill()
    })
    pen.globalAlpha = 1
    if (el('arrow').checked) arrow(pen, spot, sigmas); else el('says').textContent = ''
    const sigma = sigmas[Math.round(i + f)]
    el('level').textContent = shown === 1 ? 'samples' : `noise level ${sigma < .1 ? sigma.toPrecision(1) : sigma.toPrecision(2)}`
    el('time').value = shown
  }

  const EDGE = [46, 8, 10, 38]  // left, right, top and bottom of the chart

  function curves() {
    const [pen, w, h] = sized(chart), [l, r, t, b] = EDGE, most = Math.max(1, ...curve.map(c => c.spread))
    const spot = (s, v) => [l + (w - l - r)*s/8, h - b - (h - t - b)*v/most]
    pen.strokeStyle = pen.fillStyle = color('--rule'); pen.lineWidth = 1
    pen.beginPath(); pen.moveTo(l, t); pen.lineTo(l, h - b); pen.lineTo(w - r, h - b); pen.stroke()
    pen.fillStyle = color('--muted'); pen.font = `11px ${getComputedStyle(root).fontFamily}`
    pen.textAlign = 'center'
    for (const s of [0, 1, 2, 3, 4, 6, 8]) pen.fillText(s, spot(s, 0)[0], h - b + 14)
    pen.fillText('guidance scale s', l + (w - l - r)/2, h - 6)
    pen.save(); pen.translate(12, t + (h - t - b)/2); pen.rotate(-Math.PI/2); pen.fillText('share', 0, 0); pen.restore()
    pen.textAlign = 'right'
    for (const v of [0, .5, 1]) pen.fillText(v, l - 5, spot(0, v)[1] + 4)
    pen.strokeStyle = color('--muted'); pen.setLineDash([3, 3])
    pen.beginPath(); pen.moveTo(...spot(o.scale, 0)); pen.lineTo(...spot(o.scale, most)); pen.stroke(); pen.setLineDash([])
    for (const [name, line] of [['recognised', '--own-line'], ['spread', '--dot'], ['outside', '--out']]) {
      pen.strokeStyle = pen.fillStyle = color(line); pen.lineWidth = 1.8
      pen.beginPath()
      curve.forEach((c, k) => k ? pen.lineTo(...spot(c.scale, c[name])) : pen.moveTo(...spot(c.scale, c[name])))
      pen.stroke()
      for (const c of curve) { pen.beginPath(); pen.arc(...spot(c.scale, c[name]), 2.3, 0, 7); pen.fill() }
    }
  }

  function report() {
    const percent = v => `${(100*v).toFixed(v < .1 || (v > .99 && v < 1) ? 1 : 0)} %`
    el('recognised').textContent = facts ? percent(facts.recognised) : '…'
    el('spread').textContent = facts ? percent(facts.spread) : '…'
    el('outside').textContent = facts ? percent(facts.outside) : '…'
  }

  // Long work in slices of a few milliseconds; a newer job ends an older one
  function slices(work, done, mine = job) {
    const start = performance.now()
    try {
      while (performance.now() - start < 12) if (!work.length) return done(); else work.shift()()
    } catch { job++; return wake(root, false) }
    setTimeout(() => mine === job && slices(work, done, mine))
  }

  function redraw(moving, fresh) {
    job++; film++
    el('level').textContent = '…'
    const numbers = n => [...Array(n).keys()], drawing = [], draw = sampler(o, seed), mine = job
    slices(numbers(SAMPLES).map(i => () => drawing.push(draw(i))), () => {
      samples = drawing
      if (fresh && !chosen) marked = telling(o, samples.slice(0, 30), karras(o.steps, ...world().levels))
      facts = measured(samples.map(p => p.at(-1)), yard())
      report()
      if (moving && !still) play(); else { shown = 1; plane() }
      if (curve.length) return
      const found = []
      slices(SCALES.flatMap(scale => {
        const ends = [], draw = sampler({...o, scale}, seed)
        return [...numbers(SAMPLES/4).map(i => () => ends.push(draw(i).at(-1))), () => found.push({scale, ...measured(ends, yard())})]
      }), () => { curve = found; curves() }, mine)
    })
  }

  function play(start = performance.now(), mine = ++film) {  // from noise to samples; a newer film ends an older one
    shown = Math.min(1, (performance.now() - start)/1600)
    plane()
    if (shown < 1) requestAnimationFrame(() => mine === film && play(start, mine))
  }

  function controls() {  // the controls say what the setting is, and so does the address
    el('world').value = o.world; el('weak').value = o.weak; el('step').value = o.step
    el('scale').value = o.scale; el('steps').value = Math.log2(o.steps)
    el('lo').value = o.lo > 0 ? Math.log10(o.lo) : -2; el('hi').value = Math.log10(o.hi)
    el('scale-is').textContent = `${o.scale}` + (o.scale === 0 ? ', the label is ignored' : o.scale === 1 ? ', no guidance' : `, w = ${+(o.scale - 1).toFixed(1)}`)
    el('steps-is').textContent = o.steps
    el('interval-is').textContent = o.lo === 0 && o.hi === 100 ? 'all' : `from ${+o.lo.toPrecision(2)} to ${+o.hi.toPrecision(2)}`
    const classes = Math.max(...world().parts.map(p => p.label)) + 1
    all('[data-class]').forEach(b => { b.hidden = +b.dataset.class >= classes; b.setAttribute('aria-pressed', +b.dataset.class === o.label) })
    const chosen = name => Object.entries(PRESETS[name]).every(([k, v]) => o[k] === v)
    all('[data-preset]').forEach(b => b.setAttribute('aria-pressed', chosen(b.dataset.preset)))
    all('[data-about]').forEach(p => { p.hidden = !chosen(p.dataset.about) })
  }

  function set(change, moving = false, first = false) {
    if (change.world && change.world !== o.world && !('label' in change)) o.label = 0
    const other = Object.keys(change).some(k => k !== 'scale' && change[k] !== o[k]) || !Object.keys(change).length
    Object.assign(o, change)
    facts = null
    if (other) curve = []; else if (curve.length) curves()  // the curves have all scales, so only their mark moves
    controls(); redraw(moving, other)
    if (!first) remember(o)
  }

  for (const name of ['world', 'weak', 'step']) el(name).addEventListener('change', e => set({[name]: e.target.value}, name !== 'weak'))
  el('scale').addEventListener('input', e => set({scale: +e.target.value}))
  el('steps').addEventListener('input', e => set({steps: Math.round(2**e.target.value)}))
  const low = v => v <= -2 ? 0 : 10**v
  el('lo').addEventListener('input', e => set({lo: Math.min(low(+e.target.value), o.hi*.8)}))
  el('hi').addEventListener('input', e => set({hi: Math.max(10**e.target.value, o.lo*1.25)}))
  el('time').addEventListener('input', e => { film++; shown = +e.target.value; plane() })
  el('again').addEventListener('click', () => samples.length && play())
  el('noise').addEventListener('click', () => { seed++; set({}, true) })
  for (const name of ['tilted', 'arrow']) el(name).addEventListener('change', () => samples.length && plane())
  el('other').addEventListener('click', () => { marked = (marked + 1) % SAMPLES; chosen = true; if (samples.length) plane() })
  canvas.addEventListener('click', e => {  // the nearest dot is marked
    if (!samples.length) return
    const side = canvas.clientWidth, [x, y, half] = world().view, sigmas = karras(o.steps, ...world().levels), [i, f] = moment(sigmas)
    const at = [x + half*(2*e.offsetX/side - 1), y + half*(1 - 2*e.offsetY/side)]
    const far = samples.map((_, k) => { const p = stands(k, i, f, sigmas); return Math.hypot(p[0] - at[0], p[1] - at[1]) })
    marked = far.indexOf(Math.min(...far)); chosen = true
    plane()
  })
  all('[data-class]').forEach(b => b.addEventListener('click', () => set({label: +b.dataset.class}, true)))
  all('[data-preset]').forEach(b => b.addEventListener('click', () => set(PRESETS[b.dataset.preset], true)))
  chart.addEventListener('click', e => set({scale: Math.round(10*Math.min(8, Math.max(0, 8*(e.offsetX - EDGE[0])/(chart.clientWidth - EDGE[0] - EDGE[1]))))/10}))
  const again = () => { if (samples.length) { plane(); curves() } }
  addEventListener('resize', again)
  new MutationObserver(again).observe(document.body, {attributes: true, attributeFilter: ['class']})
  addEventListener('hashchange', () => { if (asks(location.hash, Object.keys(USUAL).concat('world', 'scale'))) set(asked(location.hash), true, true) })
  if (asks(location.hash, Object.keys(USUAL).concat('world', 'scale'))) remember(asked(location.hash))
  if (![canvas, chart].every(c => c.getContext('2d'))) throw new Error('nothing to draw on')
  wake(root)
  set(asked(location.hash), true, true)
}

function arrive() {
  const e = document.getElementById(place(location.hash) || '')
  if (!e) return
  e.style.scrollMarginTop = '5rem'  // below the bar of the site
  e.scrollIntoView()
}

function enliven(root) { try { show(root) } catch { wake(root, false) } }

const Play = {NULL, PRESETS, USUAL, threeGaussians, unequalModes, fractalTree, WORLDS, blurred, look, guided, guesses, widest, telling, asked, remember, asks, place, wake, karras, path, stream, sampler, drawn, spread, yardstick, measured}
if (typeof module !== 'undefined') module.exports = Play
if (typeof document !== 'undefined') document.addEventListener('DOMContentLoaded', () => { document.querySelectorAll('.play').forEach(enliven); arrive(); addEventListener('hashchange', arrive) })
