// The story page: a strip of digits under a slider, one digit's way from noise, and the arrows of a point in the plane.
// Every figure stands on the page as a picture. It comes to life when all that it needs is there, and else stays as it is.
// The first half is what tests/test_story.py compares with the pictures and with the package; the second half is the page.

const Story = (() => {
  // ---- The strip: story/strip.png has one frame for each scale, from the top; a frame has a row for each noise

  const SCALES = [...Array(16).keys()].map(i => i/4).concat([...Array(9).keys()].map(i => 4 + i/2))
  const NOISES = 5, SIDE = 28, USUAL = SCALES.indexOf(1)

  function frame(index) { return {y: index*NOISES*SIDE, width: 10*SIDE, height: NOISES*SIDE} }

  // The scale that an address asks for, as a number of `SCALES`; the usual one for whatever else stands there
  function asked(hash) {
    const match = /^#scale=(\d(?:\.\d{1,2})?)$/.exec(hash), index = match ? SCALES.indexOf(+match[1]) : -1
    return index < 0 ? USUAL : index
  }

  function address(index) { return `#scale=${SCALES[index]}` }

  function words(scale) {
    return `${scale}` + (scale === 0 ? ', the label is ignored' : scale === 1 ? ', no guidance' : scale < 1 ? ', the label counts for less' : `, w = ${+(scale - 1).toFixed(2)}`)
  }

  // ---- One digit's way: the guided guess from the two others, as numbers of pixels from 0 to 255

  function guess(u, c, scale) { return Math.min(255, Math.max(0, Math.round(u + scale*(c - u)))) }

  // ---- The plane: the guesses at a noisy point, by the exact denoiser of theme/play.js

  function guesses(play, o) {
    const u = [0, 0], c = [0, 0], parts = play.WORLDS.three.parts
    play.look(parts, o.x, o.y, o.sigma, play.NULL, u)
    play.look(parts, o.x, o.y, o.sigma, o.label, c)
    return {u, c, guided: u.map((v, k) => v + o.scale*(c[k] - v))}
  }

  function place(p) { return `(${p.map(v => v.toFixed(1).replace('-', '\u2212').replace(/^\u22120\.0$/, '0.0')).join(', ')})` }

  // ---- The page

  const el = (root, name) => root.querySelector(`[data-part="${name}"]`)
  const still = () => matchMedia('(prefers-reduced-motion: reduce)').matches

  function loaded(src) {
    return new Promise((done, failed) => { const i = new Image(); i.onload = () => done(i); i.onerror = failed; i.src = src })
  }

  function wake(root, lives = true) {  // the controls come, the picture goes; or the other way round
    for (const e of root.querySelectorAll('[data-live]')) e.hidden = !lives
    for (const e of root.querySelectorAll('[data-still]')) e.hidden = lives
    for (const e of root.querySelectorAll('[data-why]')) e.hidden = lives
  }

  async function strip(root) {
    const sheet = await loaded('story/strip.png'), canvas = el(root, 'digits'), pen = canvas.getContext('2d')
    const slider = el(root, 'scale'), sweep = el(root, 'sweep')
    let film = 0
    function show(index, keep = true) {
      const {y, width, height} = frame(index)
      pen.drawImage(sheet, 0, y, width, height, 0, 0, width, height)
      slider.value = index
      slider.setAttribute('aria-valuetext', 'scale ' + words(SCALES[index]))
      el(root, 'scale-is').textContent = words(SCALES[index])
      if (keep) history.replaceState(null, '', address(index))
    }
    function stop() { clearInterval(film); film = 0; sweep.textContent = '\u25B6 from 0 to 8' }
    function start() {
      let index = 0
      sweep.textContent = '\u25A0 stop'
      show(0, false)
      film = setInterval(() => ++index < SCALES.length ? show(index, false) : stop(), 180)
    }
    canvas.width = 10*SIDE; canvas.height = NOISES*SIDE
    slider.max = SCALES.length - 1
    slider.addEventListener('input', () => { stop(); show(+slider.value) })
    sweep.addEventListener('click', () => film ? stop() : start())
    sweep.hidden = still()
    addEventListener('hashchange', () => { if (/^#scale=/.test(location.hash)) { stop(); show(asked(location.hash), false) } })
    show(asked(location.hash), false)
    wake(root)
    if (still()) sweep.hidden = true
  }

  async function path(root) {
    const images = await Promise.all(['none', 'label'].map(name => loaded(`story/path-${name}.png`))), {width, height} = images[0]
    const [u, c] = images.map(image => {
      const pen = Object.assign(document.createElement('canvas'), {width, height}).getContext('2d')
      pen.drawImage(image, 0, 0)
      return pen.getImageData(0, 0, width, height).data  // refused where the page was opened from a folder
    })
    const canvas = el(root, 'guided'), slider = el(root, 'guided-scale')
    canvas.width = width; canvas.height = height
    function show() {
      const image = new ImageData(width, height), scale = +slider.value
      for (let k = 0; k < u.length; k += 4) {
        image.data.fill(guess(u[k], c[k], scale), k, k + 3)
        image.data[k + 3] = 255
      }
      canvas.getContext('2d').putImageData(image, 0, 0)
      el(root, 'guided-is').textContent = words(scale)
      slider.setAttribute('aria-valuetext', 'scale ' + words(scale))
    }
    slider.addEventListener('input', show)
    show()
    wake(root)
  }

  const VIEW = {x: 0, y: .35, half: 4.2}, COLOURS = ['--story-own', '--story-any', '--story-any']

  function plane(root, play) {
    const canvas = el(root, 'plane'), o = {x: 2.6, y: -.6, sigma: 1.5, scale: 2, label: 0}
    const dots = [0, 1, 2].map(k => play.drawn(play.WORLDS.three.parts, k, 260, play.stream(k + 1)))
    const colour = name => getComputedStyle(root).getPropertyValue(name).trim()

    function arrow(pen, from, to, side) {
      const spot = p => [side*((p[0] - VIEW.x)/VIEW.half + 1)/2, side*(1 - (p[1] - VIEW.y)/VIEW.half)/2]
      const [a, b] = [spot(from), spot(to)], way = Math.hypot(b[0] - a[0], b[1] - a[1]), turn = Math.atan2(b[1] - a[1], b[0] - a[0])
      const head = Math.min(11, way*.6)
      pen.beginPath(); pen.moveTo(...a); pen.lineTo(...b); pen.stroke()
      pen.beginPath(); pen.moveTo(...b)
      for (const side of [.42, -.42]) pen.lineTo(b[0] - head*Math.cos(turn + side), b[1] - head*Math.sin(turn + side))
      pen.closePath(); pen.fill()
      return b
    }

    function show() {
      const ratio = devicePixelRatio || 1, side = canvas.clientWidth, pen = canvas.getContext('2d'), {u, c, guided} = guesses(play, o)
      const spot = p => [side*((p[0] - VIEW.x)/VIEW.half + 1)/2, side*(1 - (p[1] - VIEW.y)/VIEW.half)/2]
      canvas.width = canvas.height = Math.round(side*ratio)
      pen.scale(ratio, ratio)
      pen.globalAlpha = .45
      dots.forEach((points, k) => { pen.fillStyle = colour(COLOURS[k]); for (const p of points) pen.fillRect(...spot(p).map(v => v - 1), 2.2, 2.2) })
      pen.globalAlpha = 1
      pen.lineWidth = 2.4
      pen.font = `600 13px ${getComputedStyle(root).fontFamily}`
      const at = [o.x, o.y]
      for (const [from, to, name, text] of [[at, u, '--story-ink', 'no label'], [at, c, '--story-own', 'label'], [u, guided, '--story-guided', 'guided']]) {
        pen.strokeStyle = pen.fillStyle = colour(name)
        pen.setLineDash(from === at ? [] : [6, 3])
        const end = arrow(pen, from, to, side)
        pen.setLineDash([])
        const left = Math.min(side - 64, Math.max(4, end[0] + (to[0] < o.x ? -58 : 10)))
        const low = Math.min(side - 6, Math.max(14, end[1] + (text === 'no label' ? 18 : -8))), fill = pen.strokeStyle
        pen.strokeStyle = colour('--story-paper'); pen.lineWidth = 4; pen.lineJoin = 'round'  // a rim of paper, so that dots do not hide the word
        pen.strokeText(text, left, low); pen.fillText(text, left, low)
        pen.strokeStyle = fill; pen.lineWidth = 2.4
      }
      pen.fillStyle = colour('--story-ink')
      pen.beginPath(); pen.arc(...spot(at), 6, 0, 7); pen.fill()
      for (const [name, text] of [['sigma', o.sigma.toFixed(1)], ['arrow-scale', words(o.scale)]]) el(root, `${name}-is`).textContent = text
      for (const k of ['x', 'y', 'sigma']) el(root, k).value = o[k]
      el(root, 'arrow-scale').value = o.scale
      el(root, 'says').textContent = `From ${place(at)}: without the label ${place(u)}, with it ${place(c)}, guided ${place(guided)}.`
    }

    for (const k of ['x', 'y', 'sigma']) el(root, k).addEventListener('input', e => { o[k] = +e.target.value; show() })
    el(root, 'arrow-scale').addEventListener('input', e => { o.scale = +e.target.value; show() })
    const move = e => {
      const side = canvas.clientWidth, within = v => Math.round(10*Math.min(4, Math.max(-4, v)))/10
      o.x = within(VIEW.x + VIEW.half*(2*e.offsetX/side - 1)); o.y = within(VIEW.y - VIEW.half*(2*e.offsetY/side - 1))
      show()
    }
    canvas.addEventListener('pointerdown', e => { canvas.setPointerCapture(e.pointerId); move(e) })
    canvas.addEventListener('pointermove', e => { if (e.buttons) move(e) })
    addEventListener('resize', show)
    new MutationObserver(show).observe(document.body, {attributes: true, attributeFilter: ['class']})
    wake(root)
    show()
  }

  // One figure that cannot live does not take the others with it, and its picture stays
  async function open(page, play) {
    const figures = {strip, path, plane: root => plane(root, play)}
    for (const root of page.querySelectorAll('[data-story]')) {
      try { await figures[root.dataset.story](root) } catch { wake(root, false) }
    }
  }

  return {SCALES, NOISES, SIDE, USUAL, frame, asked, address, words, guess, guesses, place, open}
})()

if (typeof module !== 'undefined') module.exports = Story
if (typeof document !== 'undefined') document.addEventListener('DOMContentLoaded', () => Story.open(document, typeof Play === 'undefined' ? null : Play))
