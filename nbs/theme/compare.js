// The comparison as a tool: one table of all techniques, two of them side by side, and the trade-off between two measures.
// The page has a table that stands without any of this; it goes away when compare.json is there and has been read.
// The first half is what tests/test_compare_page.py tries without a browser; the second half is the page.

const Compare = (() => {
  // ---- What is shown: a state, which an address can say

  const ORDER = ['better', 'undecided', 'worse']
  const SHARES = new Set(['precision', 'recall', 'coverage', 'accuracy'])
  const TUNED = ['fid', 'accuracy', 'class_std']  // measured at every strength
  const OTHERS = {cost: 'evaluations per step', effective: 'mean effective scale'}  // axes that no judge measures
  const COLUMNS = ['title', 'kind', 'year', 'cost', 'needs', 'strength', 'judge0', 'judge1', 'judge2', 'verdict', 'steps']
  const AGAINST = {verdict: 'evaluations', steps: 'steps'}  // column of a verdict -> what is equal in plain guidance
  const LONG = 40  // letters of a search
  const NOTHING = 'nothing more'
  const FEW = 24  // rows that are shown at first

  const nameOf = o => o.name
  const setOf = (data, state) => data.sets.find(o => o.name === state.data)
  const techniqueOf = (data, name) => data.techniques.find(o => o.name === name)
  const resultOf = (technique, state) => Object.hasOwn(technique.results, state.data) ? technique.results[state.data] : {}

  const isCompared = (data, state, column) => setOf(data, state).compared[AGAINST[column]]
  const verdictOf = (result, column) => result.against?.[AGAINST[column]]?.verdict

  function usual(data) {
    const names = data.techniques.map(nameOf), second = names.includes('autoguidance') ? 'autoguidance' : names[1]
    return {data: data.sets[0].name, measure: 'fid', kind: 'all', needs: 'all', verdict: 'all', steps: 'all', search: '', sort: '',
      a: names[0], b: second, across: '', up: '', judge: '0'}
  }

  // What each part of a state may be
  function allowed(data) {
    const names = data.techniques.map(nameOf), measures = data.measures.map(nameOf), axes = [...measures, ...Object.keys(OTHERS), '']
    return {data: data.sets.map(nameOf), measure: measures, kind: ['all', ...data.kinds.map(nameOf)], needs: ['all', ...data.needs.map(nameOf)],
      verdict: ['all', ...ORDER], steps: ['all', ...ORDER], sort: ['', ...COLUMNS, ...COLUMNS.map(c => '-' + c)], a: names, b: names, across: axes, up: axes, judge: ['0', '1', '2']}
  }

  function isSearch(text) { return text.length <= LONG && !/[\p{C}]/u.test(text) }

  // The state that an address asks for; the usual one for whatever else stands there, a stale or a hostile address
  function asked(hash, data) {
    const state = usual(data), may = allowed(data), seen = new Set()
    if (!/^#[a-z]+=/.test(hash) || hash.length > 2000) return state
    for (const part of hash.slice(1).split('&')) {
      const [key, typed, more] = part.split('=')
      let value
      try { value = decodeURIComponent(typed) } catch { return usual(data) }
      const good = Object.hasOwn(may, key) ? may[key].includes(value) : key === 'search' && isSearch(value)
      if (!good || typed === undefined || more !== undefined || seen.has(key)) return usual(data)
      seen.add(key)
      state[key] = value
    }
    return Object.keys(AGAINST).every(c => state[c] === 'all' || isCompared(data, state, c)) ? state : usual(data)
  }

  function address(state, data) {
    const plain = usual(data)
    return '#' + Object.keys(plain).filter(k => state[k] !== plain[k]).map(k => `${k}=${encodeURIComponent(state[k])}`).join('&')
  }

  // ---- The table: who is left, in which order

  function measured(technique, state, judges, index, measure = state.measure) {
    const judge = judges[index], found = resultOf(technique, state).judges
    const own = judge && found && Object.hasOwn(found, judge.name) ? found[judge.name] : {}
    return Object.hasOwn(own, measure) ? own[measure] : null
  }

  // What a column sorts by: a number, a text, or null, which stands last in both directions
  function sortKey(technique, column, state, data) {
    const result = resultOf(technique, state)
    if (column.startsWith('judge')) return (measured(technique, state, setOf(data, state).judges, +column.slice(5)) || [null])[0]
    if (column === 'kind') return data.kinds.find(k => k.name === technique.kind).title
    if (column === 'needs') return technique.needs || NOTHING
    if (column === 'strength') return result.strength ?? null
    if (column in AGAINST) return verdictOf(result, column) ? ORDER.indexOf(verdictOf(result, column)) : null
    return technique[column] ?? null
  }

  function before(p, q, down) {
    if (p === null || q === null) return (p === null) - (q === null)
    const way = typeof p === 'number' ? p - q : String(p).localeCompare(String(q), 'en')
    return down ? -way : way
  }

  function fits(technique, state, data) {
    const kind = data.kinds.find(k => k.name === technique.kind).title
    const text = [technique.title, technique.name, technique.method, technique.year, kind, technique.needs, ...technique.paper.map(o => o.text)].join(' ').toLowerCase()
    return (state.kind === 'all' || technique.kind === state.kind) && (state.needs === 'all' || technique.tags.includes(state.needs))
      && Object.keys(AGAINST).every(c => state[c] === 'all' || verdictOf(resultOf(technique, state), c) === state[c])
      && state.search.toLowerCase().split(/\s+/).every(word => text.includes(word))
  }

  // Plain guidance, the first technique of the data, and below it those that are left
  function chosen(data, state) {
    const [plain, ...others] = data.techniques, column = state.sort.replace('-', ''), left = others.filter(o => fits(o, state, data))
    if (!column) return [plain, ...left]
    const keyed = left.map(o => [sortKey(o, column, state, data), o])
    return [plain, ...keyed.sort(([p], [q]) => before(p, q, state.sort.startsWith('-'))).map(([, o]) => o)]
  }

  function turned(sort, column) { return sort === column ? '-' + column : sort === '-' + column ? '' : column }

  // ---- Words

  function spelled(value, measure) {
    if (value === null || value === undefined) return ''
    const shown = SHARES.has(measure) ? `${(100*value).toFixed(1)} %` : Math.abs(value) >= 100 ? value.toFixed(0) : `${+value.toPrecision(3)}`
    return shown.replace('-', '\u2212')
  }

  function tick(value, measure) { return SHARES.has(measure) ? `${+(100*value).toPrecision(3)} %` : spelled(value, measure) }

  function between(estimate, measure) {
    return estimate && estimate[1] !== null && estimate[2] !== null ? `${spelled(estimate[1], measure).replace(' %', '')} to ${spelled(estimate[2], measure)}` : ''
  }

  const HEADS = {title: 'technique', kind: 'family', year: 'year', cost: 'cost', needs: 'needs', strength: 'tuned to', verdict: 'verdict, equal evaluations', steps: 'verdict, equal steps'}
  function headOf(column, data, state) {
    if (!column.startsWith('judge')) return HEADS[column]
    const judge = setOf(data, state).judges[+column.slice(5)]
    return `${data.measures.find(o => o.name === state.measure).title}, ${judge.title}`
  }

  function says(data, state, left) {
    const count = left.length - 1, all = data.techniques.length - 1, down = state.sort.startsWith('-'), column = state.sort.replace('-', '')
    const sorted = column ? `, sorted by ${headOf(column, data, state)}, ${down ? 'falling' : 'rising'}` : ''
    const who = count === 0 ? `None of ${all} techniques is left` : count === all ? `All ${all} techniques` : `${count} of ${all} techniques ${count === 1 ? 'is' : 'are'} left`
    return `${who}${sorted}. Plain guidance stands first.`
  }

  function tuning(technique, result) {  // the number by which a technique is tuned
    return result.strength === undefined ? '' : `${technique.knob} ${spelled(result.strength)}`
  }

  function standing(result) {
    return {failed: 'could not be drawn', refused: 'not for this model'}[result.state] || ''
  }

  // ---- The trade-off

  const better = (data, name) => name === 'cost' ? 'lower' : (data.measures.find(o => o.name === name) || {better: 'real'}).better

  function along(technique, axis, state, data) {  // value, low, high, or null
    if (axis === 'cost') return [technique.cost, technique.cost, technique.cost]
    if (axis === 'effective') return resultOf(technique, state).effective || null
    return measured(technique, state, setOf(data, state).judges, +state.judge, axis)
  }

  function dots(data, state, axes) {
    const all = data.techniques.map(o => ({name: o.name, title: o.title, x: along(o, axes[0], state, data), y: along(o, axes[1], state, data)}))
    return resultless(all).map(o => ({...o, several: techniqueOf(data, o.name).league === 'several'}))
  }
  const resultless = all => all.filter(o => o.x && o.y && Number.isFinite(o.x[0]) && Number.isFinite(o.y[0]))

  // Names of the dots that no other dot beats, from left to right; none where better has no direction
  function front(points, ways) {
    if (ways.includes('real')) return []
    const sign = ways.map(w => w === 'lower' ? 1 : -1), cost = o => [sign[0]*o.x[0], sign[1]*o.y[0]]
    const beaten = (o, p) => { const [a, b] = [cost(o), cost(p)]; return b[0] <= a[0] && b[1] <= a[1] && (b[0] < a[0] || b[1] < a[1]) }
    const own = points.filter(o => !o.several)
    return own.filter(o => !own.some(p => beaten(o, p))).sort((p, q) => p.x[0] - q.x[0]).map(nameOf)
  }

  // Names of the dots that are not far from the rest: on both axes between the quartiles, widened by three times their distance
  function near(points) {
    const inside = ['x', 'y'].map(axis => {
      const values = points.map(o => o[axis][0]).sort((p, q) => p - q), at = share => values[Math.round(share*(values.length - 1))]
      const [low, high] = [at(.25), at(.75)], more = high > low ? 3*(high - low) : Infinity
      return o => o[axis][0] >= low - more && o[axis][0] <= high + more
    })
    return points.filter(o => inside.every(holds => holds(o))).map(nameOf)
  }

  // Measures that anybody has under the judge, and the two that are shown when nothing else was asked for
  function axesOf(data, state) {
    const known = data.measures.map(nameOf).filter(m => data.techniques.some(o => measured(o, state, setOf(data, state).judges, +state.judge, m)))
    const choice = known.length ? [...known, ...Object.keys(OTHERS)] : []
    const usually = ['recall', 'precision'].every(m => known.includes(m)) ? ['recall', 'precision'] : ['cost', 'fid']
    return {choice, now: [state.across, state.up].map((axis, k) => choice.includes(axis) ? axis : usually[k])}
  }

  function isLog(values) { const low = Math.min(...values), high = Math.max(...values); return low > 0 && high/low > 12 }

  // From numbers to pixels: `at(value)`, and numbers to write beside the axis
  function axis(values, from, to) {
    const log = isLog(values), f = log ? Math.log10 : v => v
    const [low, high] = [Math.min(...values), Math.max(...values)].map(f), pad = (high - low || Math.abs(high) || 1)*.06
    const a = low - pad, b = high + pad, at = v => from + (to - from)*(f(v) - a)/(b - a)
    const step = niceStep((b - a)/4), marks = []
    if (log) { for (let k = Math.floor(a); k <= b; k++) for (const m of b - a > 1.5 ? [1] : [1, 2, 5]) if (f(m*10**k) >= a && f(m*10**k) <= b) marks.push(m*10**k) }
    if (marks.length < 2) { marks.length = 0; for (let k = Math.ceil(a/step); k*step <= b; k++) marks.push(log ? 10**(k*step) : k*step) }
    return {at, log, marks: marks.map(v => +v.toPrecision(3))}
  }
  function niceStep(v) { const p = 10**Math.floor(Math.log10(v)); return p*[1, 2, 5, 10].find(m => m*p >= v) }

  function nearest(places, x, y, reach) {  // the place that a finger meant, or null
    let best = null, way = reach
    for (const p of places) { const d = Math.hypot(p.x - x, p.y - y); if (d <= way) { way = d; best = p } }
    return best
  }

  // ---- The page

  const SVG = 'http://www.w3.org/2000/svg'

  function make(tag, more = {}, ...inside) {
    const {text, on, ...attributes} = more, e = document.createElement(tag)
    for (const [k, v] of Object.entries(attributes)) if (v !== false && v !== null && v !== undefined) e.setAttribute(k, v === true ? '' : v)
    if (text !== undefined) e.textContent = text
    for (const [event, f] of Object.entries(on || {})) e.addEventListener(event, f)
    e.append(...inside)
    return e
  }
  function draw(tag, attributes, text) {
    const e = document.createElementNS(SVG, tag)
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v)
    if (text !== undefined) e.textContent = text
    return e
  }

  function build(root, data) {
    const el = name => root.querySelector(`[data-part="${name}"]`), titleOf = name => data.measures.find(o => o.name === name)?.title || OTHERS[name]
    let state = asked(location.hash, data), places = [], tapped = null, waiting = 0, all = false

    function fill(select, options) { select.replaceChildren(...options.map(([value, text]) => make('option', {value, text}))) }
    function say(text, soon = 0) { clearTimeout(waiting); waiting = setTimeout(() => { el('says').textContent = text }, soon) }
    function keep() { const wanted = address(state, data); if (wanted !== location.hash) history.replaceState(null, '', wanted === '#' ? location.pathname + location.search : wanted) }

    // The table
    function heads() {
      const row = COLUMNS.map(column => {
        const on = state.sort.replace('-', '') === column, down = state.sort.startsWith('-')
        const button = make('button', {type: 'button', text: headOf(column, data, state), on: {click: () => { state.sort = turned(state.sort, column); table(); el('heads').querySelector(`[data-column="${column}"] button`).focus() }}})
        button.append(make('span', {'aria-hidden': 'true', class: 'way', text: on ? down ? ' \u25BC' : ' \u25B2' : ''}))
        return make('th', {role: 'columnheader', scope: 'col', 'data-column': column, 'aria-sort': on ? down ? 'descending' : 'ascending' : 'none'}, button)
      })
      el('heads').replaceChildren(...row, make('th', {role: 'columnheader', scope: 'col', text: 'side by side'}))
    }

    function number(technique, index, label) {
      const estimate = measured(technique, state, setOf(data, state).judges, index)
      const cell = make('td', {role: 'cell', class: 'number', 'data-label': label})
      if (!estimate) return cell.append(make('span', {class: 'visually-hidden', text: 'not measured'})), cell
      cell.append(spelled(estimate[0], state.measure), make('small', {text: between(estimate, state.measure)}))
      return cell
    }

    function line(technique, first) {
      const result = resultOf(technique, state), kind = data.kinds.find(k => k.name === technique.kind)
      const papers = technique.paper.map(o => make('a', {href: o.url, text: o.text}))
      const head = make('th', {role: 'rowheader', scope: 'row'}, make('span', {class: 'title', text: technique.title}), ' ', make('code', {text: technique.name}), make('span', {class: 'papers'}, ...papers.flatMap((a, k) => k ? ['; ', a] : [a])), technique.note ? make('small', {text: technique.note}) : '')
      const needs = technique.needs || NOTHING
      const cells = [['family', kind.title, kind.words], ['year', technique.year], ['cost', technique.cost], ['needs', needs], ['tuned to', tuning(technique, result)]]
      const plain = cells.map(([label, text, title]) => make('td', {role: 'cell', 'data-label': label, title, text: text ?? ''}))
      const numbers = setOf(data, state).judges.map((_, k) => number(technique, k, headOf(`judge${k}`, data, state)))
      const verdicts = Object.keys(AGAINST).map(c => make('td', {role: 'cell', 'data-label': HEADS[c], class: `verdict ${verdictOf(result, c) || ''}`, text: first ? 'the baseline' : verdictOf(result, c) || standing(result), title: result.why}))
      const pick = (side, word) => make('button', {type: 'button', text: side === 'a' ? '1' : '2', 'aria-pressed': state[side] === technique.name ? 'true' : 'false', 'aria-label': `${side === 'a' ? '1' : '2'}: show ${technique.title} as ${word}`,
        on: {click: () => { choose(side, technique.name, `${technique.title} is ${word} of the two below.`) }}})
      const tools = make('td', {role: 'cell', class: 'pick', 'data-label': 'side by side'}, pick('a', 'first'), ' ', pick('b', 'second'))
      return make('tr', {role: 'row', class: first ? 'plain' : null, 'data-name': technique.name}, head, ...plain, ...numbers, ...verdicts, tools)
    }

    function table(soon = 0) {
      const left = chosen(data, state)
      heads()
      const shown = all ? left : left.slice(0, FEW + 1)
      el('rows').replaceChildren(...shown.map((o, k) => line(o, k === 0)))
      el('more').hidden = shown.length === left.length
      el('more').textContent = `show all ${left.length - 1} rows`
      const set = setOf(data, state), measure = data.measures.find(o => o.name === state.measure), nothing = left.every(o => !measured(o, state, set.judges, 0))
      el('caption').textContent = `${set.title}. ${measure.title}: ${measure.words}. ` + (measure.better === 'real' ? 'Best is what real pictures have. ' : `The ${measure.better}, the better. `) + (nothing ? 'Not measured yet.' : 'With 95 % intervals.')
      el('sort').value = state.sort
      say(says(data, state, left), soon)
      keep()
    }

    function choose(side, name, words) {
      state[side] = name
      for (const e of el('rows').children) e.querySelectorAll('.pick button')[side === 'a' ? 0 : 1].setAttribute('aria-pressed', e.dataset.name === name)
      pair(); plot(); keep()
      if (words) say(words)
    }

    // Two side by side
    function side(which) {
      const technique = techniqueOf(data, state[which]), result = resultOf(technique, state), set = setOf(data, state), known = set.pictures || {}
      const figure = el(`side-${which}`), parts = [], where = `compare/${set.name}/${technique.file}.png`
      if (result.picture) {
        const short = set.classes.every(c => c.length < 3)
        if (short) parts.push(make('div', {class: 'compare-heads', 'aria-hidden': 'true'}, ...set.classes.map(c => make('span', {text: c}))))
        parts.push(make('img', {src: where, width: set.side*set.classes.length, height: set.side*known.noises, alt: `Pictures drawn by ${technique.title}: a column for each of ${set.classes.join(', ')}, ${known.noises} of each.`}))
      } else parts.push(make('p', {class: 'compare-nothing', text: standing(result) || 'No pictures yet.'}))
      const setting = result.strength === undefined ? '' : ` Tuned to ${tuning(technique, result)}, ${result.steps} steps.`
      const columns = result.picture && !set.classes.every(c => c.length < 3) ? ` Columns: ${set.classes.join(', ')}.` : ''
      parts.push(make('figcaption', {}, make('b', {text: technique.title}), setting + columns, result.command ? make('code', {text: result.command}) : ''))
      figure.replaceChildren(...parts)
      el(`pick-${which}`).value = technique.name
    }

    function rowOf(label, cells, words) { return make('tr', {}, make('th', {scope: 'row'}, label, words ? make('small', {text: words}) : ''), ...cells.map(([text, small]) => make('td', {text}, small ? make('small', {text: small}) : ''))) }

    function pair() {
      side('a'); side('b')
      const two = ['a', 'b'].map(k => techniqueOf(data, state[k])), set = setOf(data, state), judge = set.judges[+state.judge]
      const head = make('tr', {}, make('th', {scope: 'col', text: `under ${judge.name}`}), ...two.map(o => make('th', {scope: 'col', text: o.title})))
      const rows = [rowOf('family', two.map(o => [data.kinds.find(k => k.name === o.kind).title])), rowOf('year', two.map(o => [o.year ?? ''])), rowOf('evaluations per step', two.map(o => [o.cost])), rowOf('needs', two.map(o => [o.needs || NOTHING]))]
      const known = two.map(o => resultOf(o, state))
      if (known.some(r => r.effective)) rows.push(rowOf('mean effective scale', known.map(r => r.effective ? [spelled(r.effective[0]), between(r.effective)] : [''])))
      for (const m of data.measures) {
        const found = two.map(o => measured(o, state, set.judges, +state.judge, m.name))
        if (found.some(Boolean)) rows.push(rowOf(m.title, found.map(v => v ? [spelled(v[0], m.name), between(v, m.name)] : [''])))
      }
      for (const rival of data.rivals) {
        const away = known.map(r => r.against?.[rival.name]?.differences?.[judge.name]?.fid), said = known.map(r => r.against?.[rival.name]?.verdict)
        if (away.some(Boolean)) rows.push(rowOf(`FID minus that of plain guidance ${rival.title}`, away.map(v => v ? [spelled(v[0]), between(v)] : [''])))
        if (set.compared[rival.name]) rows.push(rowOf(`verdict of all judges ${rival.title}`, known.map((r, k) => [two[k] === data.techniques[0] ? 'the baseline' : said[k] || standing(r)]), rival.words))
      }
      el('numbers-says').textContent = known.some(r => r.judges) ? `${set.title}: the numbers of both, with 95 % intervals.` : `${set.title}: not measured yet.`
      el('numbers-head').replaceChildren(head)
      el('numbers').replaceChildren(...rows)
      exact(two, known, set)
    }

    function exact(two, known, set) {  // what a formula says of the pictures of both, and of real images
      const all = [...known.map(r => r.exact || {}), set.real], measures = data.exact.filter(m => known.some(r => r.exact && Object.hasOwn(r.exact, m.name)))
      el('exact').hidden = !measures.length
      el('exact-says').textContent = `${set.title}: exact measures, from a world whose density is known by a formula. Beside them those of as many real images.`
      el('exact-head').replaceChildren(make('tr', {}, make('th', {scope: 'col', text: 'exact measure'}), ...[...two.map(o => o.title), 'real images'].map(text => make('th', {scope: 'col', text}))))
      el('exact-rows').replaceChildren(...measures.map(m => rowOf(m.name.replaceAll('_', ' '), all.map(o => [Object.hasOwn(o, m.name) ? spelled(o[m.name]) : 'not measured']), m.words)))
    }

    // The trade-off
    function plot() {
      const {choice, now} = axesOf(data, state), whole = choice.length ? dots(data, state, now) : [], svg = el('svg')
      el('plot').hidden = whole.length < 2
      if (whole.length < 2) return
      const close = new Set([...near(whole), data.techniques[0].name, state.a, state.b, tapped]), points = el('far').checked ? whole : whole.filter(o => close.has(o.name))
      const away = whole.filter(o => !close.has(o.name)).length
      el('far').parentElement.hidden = !away
      el('away').textContent = `(${away})`
      for (const [k, part] of ['across', 'up'].entries()) { fill(el(part), choice.map(a => [a, titleOf(a)])); el(part).value = now[k] }
      const width = Math.max(280, svg.clientWidth || 700), height = Math.round(Math.min(460, Math.max(300, .62*width))), box = {left: 68, right: width - 14, top: 12, bottom: height - 42}
      const values = k => points.map(o => o[k][0])
      const across = axis(values('x'), box.left, box.right), up = axis(values('y'), box.bottom, box.top)
      const scales = {x: across, y: up}, best = front(whole, now.map(a => better(data, a))).filter(n => points.some(p => p.name === n))
      const parts = []
      for (const v of across.marks) parts.push(draw('line', {class: 'grid', x1: across.at(v), x2: across.at(v), y1: box.top, y2: box.bottom}), draw('text', {x: across.at(v), y: box.bottom + 16, 'text-anchor': 'middle'}, tick(v, now[0])))
      for (const v of up.marks) parts.push(draw('line', {class: 'grid', x1: box.left, x2: box.right, y1: up.at(v), y2: up.at(v)}), draw('text', {x: box.left - 6, y: up.at(v) + 4, 'text-anchor': 'end'}, tick(v, now[1])))
      parts.push(draw('text', {class: 'name', x: (box.left + box.right)/2, y: height - 6, 'text-anchor': 'middle'}, titleOf(now[0]) + way(now[0])), draw('text', {class: 'name', x: 0, y: 0, 'text-anchor': 'middle', transform: `translate(11 ${(box.top + box.bottom)/2}) rotate(-90)`}, titleOf(now[1]) + way(now[1])))
      const spot = name => { const o = points.find(p => p.name === name); return o && {x: across.at(o.x[0]), y: up.at(o.y[0])} }
      if (best.length > 1) parts.push(draw('polyline', {class: 'front', points: best.map(n => { const p = spot(n); return `${p.x},${p.y}` }).join(' ')}))
      for (const [name, kind] of [[data.techniques[0].name, 'plain'], [state.b, 'b'], [state.a, 'a']]) parts.push(...trace(name, now, scales, kind))
      places = points.map(o => ({...spot(o.name), name: o.name, o})).sort((p, q) => p.x - q.x || p.y - q.y)
      const focus = places.some(p => p.name === tapped) ? tapped : places[0].name
      for (const p of places) {
        const kind = p.name === data.techniques[0].name ? 'plain' : p.name === state.a ? 'a' : p.name === state.b ? 'b' : best.includes(p.name) ? 'best' : p.o.several ? 'several' : ''
        const dot = draw('circle', {class: `dot ${kind}`, cx: p.x, cy: p.y, r: kind && kind !== 'several' ? 6 : 4.5, role: 'button', tabindex: p.name === focus ? 0 : -1, 'aria-pressed': p.name === tapped, 'aria-label': sentence(p.o, now), 'data-name': p.name})
        dot.addEventListener('focus', () => tap(p.name))
        parts.push(dot)
      }
      for (const name of new Set([data.techniques[0].name, state.a, state.b, tapped])) { const p = places.find(q => q.name === name); if (p) parts.push(label(p, box)) }
      svg.setAttribute('viewBox', `0 0 ${width} ${height}`)
      svg.style.height = `${height}px`
      svg.replaceChildren(...parts)
      mark()
    }

    function way(name) { return {lower: ', lower is better', higher: ', higher is better'}[better(data, name)] || '' }
    function label(p, box) {
      const left = p.x > (box.left + box.right)/2
      return draw('text', {class: 'label', 'aria-hidden': 'true', x: p.x + (left ? -9 : 9), y: Math.max(box.top + 8, p.y - 7), 'text-anchor': left ? 'end' : 'start'}, p.name === data.techniques[0].name ? 'plain guidance' : p.name)
    }
    function trace(name, now, scales, kind) {  // what other strengths gave, where both measures were taken at every strength
      const curve = resultOf(techniqueOf(data, name), state).curve, own = curve?.judges?.[setOf(data, state).judges[+state.judge].name]
      if (!own || !now.every(a => TUNED.includes(a) && own[a])) return []
      const ends = {x: scales.x, y: scales.y}, inside = own[now[0]].map((x, k) => [ends.x.at(x), ends.y.at(own[now[1]][k])]).filter(p => p.every(v => Number.isFinite(v) && v > -50 && v < 2000))
      return [draw('polyline', {class: `trace ${kind}`, points: inside.map(p => p.join(',')).join(' ')})]
    }
    function sentence(o, now) { return `${o.title}: ${titleOf(now[0])} ${spelled(o.x[0], now[0])}, ${titleOf(now[1])} ${spelled(o.y[0], now[1])}` }

    function mark() {
      const p = places.find(q => q.name === tapped), {now} = axesOf(data, state)
      for (const dot of el('svg').querySelectorAll('.dot')) { const on = dot.dataset.name === tapped; dot.setAttribute('aria-pressed', on); dot.classList.toggle('tapped', on); if (p) dot.setAttribute('tabindex', on ? 0 : -1) }
      const result = p ? resultOf(techniqueOf(data, tapped), state) : {}
      const x = p && between(p.o.x, now[0]), y = p && between(p.o.y, now[1])
      el('tapped').textContent = p ? `${sentence(p.o, now)}.` + (x || y ? ` Intervals: ${[x, y].filter(Boolean).join('; ')}.` : '') + verdictWords(result) : 'No dot is chosen.'
      el('to-a').hidden = el('to-b').hidden = !p
    }
    function verdictWords(result) { return data.rivals.map(r => [r.title, result?.against?.[r.name]?.verdict]).map(([title, word]) => word ? ` ${title[0].toUpperCase()}${title.slice(1)}: ${word}.` : '').join('') }
    function tap(name) {
      if (tapped === name) return
      tapped = name
      const held = document.activeElement?.dataset?.name === name
      plot()
      if (held) el('svg').querySelector(`.dot[data-name="${CSS.escape(name)}"]`)?.focus()
    }

    el('far').addEventListener('change', plot)
    el('svg').addEventListener('click', e => {
      const frame = el('svg').getBoundingClientRect(), p = nearest(places, e.clientX - frame.left, e.clientY - frame.top, 28)
      if (p) tap(p.name)
    })
    el('svg').addEventListener('keydown', e => {
      const at = places.findIndex(p => p.name === e.target.dataset?.name), move = {ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, Home: 0, End: places.length - 1}[e.key]
      if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); choose('b', e.target.dataset.name) ; el('svg').querySelector('.tapped')?.focus() }
      if (move === undefined || at < 0) return
      e.preventDefault()
      const name = places[Math.min(places.length - 1, Math.max(0, move))].name
      el('svg').querySelector(`.dot[data-name="${CSS.escape(name)}"]`).focus()
    })
    for (const which of ['a', 'b']) el(`to-${which}`).addEventListener('click', () => tapped && choose(which, tapped, `${techniqueOf(data, tapped).title} is ${which === 'a' ? 'first' : 'second'} of the two above.`))

    // Everything
    function show() {
      const set = setOf(data, state)
      for (const c of Object.keys(AGAINST)) if (!isCompared(data, state, c)) state[c] = 'all'
      fill(el('judge'), set.judges.map((j, k) => [k, `${j.name} (${j.title})`]))
      fill(el('sort'), [['', 'as in the catalogue'], ...COLUMNS.flatMap(c => [[c, `${headOf(c, data, state)}, rising`], ['-' + c, `${headOf(c, data, state)}, falling`]])])
      el('verdicts').hidden = !isCompared(data, state, 'verdict')
      el('verdicts-steps').hidden = !isCompared(data, state, 'steps')
      for (const part of ['data', 'measure', 'kind', 'needs', 'verdict', 'steps', 'search', 'judge']) el(part).value = state[part]
      table(); pair(); plot()
    }

    fill(el('data'), data.sets.map(o => [o.name, o.title]))
    fill(el('measure'), data.measures.map(o => [o.name, o.title]))
    fill(el('kind'), [['all', 'all'], ...data.kinds.map(o => [o.name, o.title])])
    fill(el('needs'), [['all', 'anything'], ...data.needs.map(o => [o.name, o.title])])
    for (const side of ['a', 'b']) {
      fill(el(`pick-${side}`), data.techniques.map(o => [o.name, `${o.title} (${o.name})`]))
      el(`pick-${side}`).addEventListener('change', e => choose(side, e.target.value))
    }
    el('swap').addEventListener('click', () => { [state.a, state.b] = [state.b, state.a]; show() })
    el('search').addEventListener('input', e => { if (isSearch(e.target.value)) { state.search = e.target.value; table(300) } })
    for (const part of ['kind', 'needs', 'verdict', 'steps', 'sort']) el(part).addEventListener('change', e => { state[part] = e.target.value; table() })
    for (const part of ['data', 'measure', 'judge']) el(part).addEventListener('change', e => { state[part] = e.target.value; show(); el(part).focus() })
    for (const part of ['across', 'up']) el(part).addEventListener('change', e => { state[part] = e.target.value; plot(); keep(); el(part).focus() })
    el('more').addEventListener('click', () => { const next = el('rows').children.length; all = true; table(); el('rows').children[next]?.querySelector('button').focus() })
    el('reset').addEventListener('click', () => { const {data: set, measure, a, b} = state; state = {...usual(data), data: set, measure, a, b}; show() })
    addEventListener('hashchange', () => { if (/^#[a-z]+=/.test(location.hash)) { state = asked(location.hash, data); show() } })
    let width = innerWidth
    addEventListener('resize', () => { if (innerWidth !== width) { width = innerWidth; plot() } })
    for (const e of root.querySelectorAll('[data-live]')) e.hidden = false
    show()
    for (const e of root.querySelectorAll('[data-still]')) e.hidden = true
  }

  // The table of the page stays where anything is missing: the file, a part of it, a browser that knows enough
  async function open(root) {
    try {
      const answer = await fetch(root.dataset.compare)
      if (!answer.ok) throw new Error(answer.status)
      build(root, await answer.json())
    } catch (error) {
      for (const e of root.querySelectorAll('[data-live]')) e.hidden = true
      for (const e of root.querySelectorAll('[data-still]')) e.hidden = false
      console.warn('The table stands still:', error)
    }
  }

  return {COLUMNS, usual, asked, address, chosen, turned, spelled, between, says, headOf, front, near, dots, axesOf, axis, nearest, measured, open}
})()

if (typeof module !== 'undefined') module.exports = Compare
if (typeof document !== 'undefined') document.addEventListener('DOMContentLoaded', () => { for (const root of document.querySelectorAll('[data-compare]')) Compare.open(root) })
