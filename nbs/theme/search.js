// Search by words. Quarto looks for a query as one phrase, so "label dropout probability" finds nothing. Here a section is
// found by its words, in any order: the more of them it has, and the rarer they are, the earlier it stands; a word of a
// heading or a title counts more; the query as a phrase comes before its words. theme/search.lua puts this behind Quarto's
// own script, whose function `fuseSearch` answers each key. Where this one fails, that one answers as before.
const WordSearch = (() => {
  const LETTERS = 10000, WORDS = 40, LONG = 40 // letters, words, and letters of a word that are read of a query
  const KEPT = 400 // words whose places are remembered
  const BEFORE = 50, AFTER = 200 // letters of a text that are shown around a word
  const HEAD = 6, TITLE = 3, TEXT = 1 // what a word counts there
  const STOP = new Set(`a about an and any are as at be because been but by can could did do does for from get got had has
    have how i if im in into is it its just know like make me my need of on or our please shall should so some such than
    that the their them then there these they this to us use using versus vs want was we were what whats when where which
    who whose why will with would you your`.split(/\s+/))
  const LISTS = /^(api|ledger)\.html/ // pages of names, after prose
  const NOTHING = [['glossary.html', 'Nothing has these words. The words of the field are explained here'],
    ['choice.html', 'Or begin with the choice of a guidance']]

  // ---- Words

  // Small letters without accents or marks, divided by one space: "The U-Net's 7.5, CFG++" is " the u nets 7·5 cfg‡ ".
  function fold(text) {
    const bare = (text ?? '').replace(/&#39;|['’]/g, '').replace(/&#?\w+;/g, ' ').normalize('NFKD').replace(/\p{M}+/gu, '')
    const kept = bare.toLowerCase().replace(/(\d)\.(?=\d)/g, '$1·').replace(/\+\+/g, '‡')
    return ` ${kept.split(/[^\p{L}\p{N}·‡]+/u).join(' ').trim()} `
  }

  const split = folded => folded.trim().split(' ').filter(Boolean)
  // Without small words, if there are others
  function telling(words) {
    const some = words.filter(word => !STOP.has(word))
    return some.length ? some : words
  }

  // "U-Net" is one term, and so is "7.5".
  function terms(query) {
    const all = query.split(/\s+/).map(piece => fold(piece).trim()).filter(o => o && o.length <= LONG)
    return [...new Set(all)]
  }

  // samples, sampled and sampling are one word, and so are dropped and drop
  function stem(word) {
    const short = word.replace(/^(.{4,}?)(?:ing|ed|es|e|(?<!s)s)$/, '$1')
    return short == word ? word : short.replace(/([bdgmnprt])\1$/, '$1')
  }

  // What a term looks like in a folded text, best first: the word, with or without a space in it; its beginning; its letters
  function patterns(term) {
    const bare = term.replaceAll(' ', ''), few = bare.length < 4
    const spaced = word => few ? word : [...word.replaceAll(' ', '')].join(' ?')
    const ends = bare.length < 2 ? '' : few ? 's?' : '(?:[bdgmnprt]?(?:ed|ing)|e?s|e)?'
    const found = [` ${spaced(stem(term))}${ends}(?= )`, ` ${spaced(term)}`, ...(few ? [] : [bare])]
    return found.map(pattern => new RegExp(pattern, 'g'))
  }

  // Letters to change, to add, to leave out or to exchange with the next, for one word to become the other
  function apart(a, b) {
    let before = [], last = [...Array(b.length + 1).keys()]
    for (let i = 1; i <= a.length; i++) {
      const now = [i]
      for (let j = 1; j <= b.length; j++) {
        now[j] = Math.min(last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1]))
        if (a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) now[j] = Math.min(now[j], before[j - 2] + 1)
      }
      [before, last] = [last, now]
    }
    return last[b.length]
  }

  // ---- Places: of a folded index, those that have a term

  const indices = new WeakMap()
  function indexOf(docs) {
    if (indices.get(docs)?.size != docs.length) {
      const places = docs.map(({title, section, text}) => ({head: fold(section), title: fold(title), text: fold(text)}))
      for (const place of places) place.words = telling(split(place.head)).length || 1
      indices.set(docs, {places, size: docs.length, known: new Map()})
    }
    return indices.get(docs)
  }

  function search({places}, pattern) {
    const found = new Map(), count = text => text.match(pattern)?.length ?? 0
    places.forEach(({head, title, text}, i) => {
      const hit = {head: count(head), title: count(title), text: count(text)}
      if (hit.head || hit.title || hit.text) found.set(i, hit)
    })
    return found
  }

  const vocabulary = index => index.vocabulary ??= new Set(index.places.flatMap(({head, text}) => split(head + text)))

  // The word of the site that is meant by one that it has not
  function nearest(index, word) {
    const most = word.length < 4 ? 0 : word.length < 8 ? 1 : 2
    const close = [...vocabulary(index)].filter(o => o[0] == word[0] && Math.abs(o.length - word.length) <= most)
    const ways = close.map(o => [apart(o, word), o]).filter(([far]) => far <= most)
    return ways.sort(([a], [b]) => a - b)[0]?.[1]
  }

  function find(index, term) {
    for (const pattern of patterns(term)) {
      const found = search(index, pattern)
      if (found.size) return found
    }
    const meant = term.includes(' ') ? null : nearest(index, term)
    return meant ? search(index, patterns(meant)[0]) : new Map()
  }

  function placesOf(index, term) {
    if (index.known.size > KEPT) index.known.clear()
    if (!index.known.has(term)) index.known.set(term, find(index, term))
    return index.known.get(term)
  }

  // Terms with their places; "U-Net" is two words where no section has it as one
  function there(index, terms) {
    const parts = terms.slice(0, WORDS).flatMap(term => placesOf(index, term).size ? [term] : telling(split(term)))
    return [...new Set(parts)].map(term => [term, placesOf(index, term)]).filter(([, found]) => found.size)
  }

  // "auto guidance" is one term if the site has it as one word
  function joined(index, all) {
    const pair = i => i < all.length - 1 && vocabulary(index).has(all[i] + all[i + 1])
    return all.flatMap((term, i) => pair(i) ? [`${term} ${all[i + 1]}`] : pair(i - 1) ? [] : [term])
  }

  // Terms of a query; small words where there is nothing else
  function look(index, query) {
    const all = joined(index, terms(query)), some = there(index, telling(all))
    return some.length ? some : there(index, all)
  }

  // ---- Order: a heading that is the query, phrases in headings, phrases in texts, then by weight

  function orderOf({head, title, text}, phrase) {
    if (head.trim() == phrase.trim()) return 3
    if (!phrase.trim().includes(' ')) return 0
    return head.includes(phrase) || title.includes(phrase) ? 2 : text.includes(phrase) ? 1 : 0
  }

  function weightOf(place, hits, whole) { // hits are [rarity of a term, where it stands here]; whole is the sum over all terms
    const sum = of => hits.reduce((all, [rare, hit]) => all + rare*of(hit), 0)
    const asked = Math.min(1, hits.filter(([, {head}]) => head).length/place.words) // share of the heading
    const worth = ({head, title, text}) => (head && HEAD*(1 + asked)) + (title && TITLE) + TEXT*text/(text + 2)
    return sum(worth)*(sum(() => 1)/whole || 0)**2
  }

  function rank(docs, query) {
    const index = indexOf(docs), phrase = fold(query).trimEnd(), seen = new Set()
    const asked = look(index, query).map(([term, found]) => ({term, found, rare: Math.log(1 + docs.length/found.size)}))
    asked.sort((a, b) => b.rare - a.rare)
    const whole = asked.reduce((sum, {rare}) => sum + rare, 0)
    const ranked = index.places.map((place, i) => {
      const order = orderOf(place, phrase), has = asked.filter(({found}) => found.has(i))
      const weight = weightOf(place, has.map(({rare, found}) => [rare, found.get(i)]), whole)
      const counted = LISTS.test(docs[i].href) ? weight/2 : weight
      return {i, order, weight: order == 3 ? 0 : counted, has: has.map(({term}) => term)}
    }).filter(({order, has}) => order || has.length)
    ranked.sort((a, b) => b.order - a.order || b.weight - a.weight || a.i - b.i)
    return ranked.filter(({i}) => !seen.has(docs[i].href) && seen.add(docs[i].href)) // the questions of a page lead to its top
  }

  // ---- What the box shows. Texts of the index are HTML without tags: "x &lt; y".

  const LETTER = '[\\p{L}\\p{N}]', BEGIN = '(?<![&#\\p{L}\\p{N}])'
  const MARKS = {'‡': '\\+\\+', '·': '\\.'}
  const written = word => [...word.replaceAll(' ', '')].map(o => MARKS[o] ?? o).join("[-_ '’]?")
  const phrased = words => BEGIN + words.map(written).join('[^\\p{L}\\p{N}]+')
  const begun = term => BEGIN + written(stem(term)) + (term.length < 4 ? `s?(?!${LETTER})` : `${LETTER}*`)

  // The first of some patterns that a text has, as it stands there
  function first(text, patterns) {
    for (const pattern of patterns) {
      const found = new RegExp(pattern, 'iu').exec(text)
      if (found) return found
    }
  }

  // Some words around a place, cut at spaces, with all that was asked for marked
  function excerpt(text, found, patterns) {
    const at = found?.index ?? 0, from = at < BEFORE ? 0 : text.lastIndexOf(' ', at - BEFORE) + 1
    const end = text.indexOf(' ', at + AFTER), piece = end < 0 ? text.slice(from) : text.slice(from, end) + '…'
    if (!found) return piece
    return piece.replace(new RegExp(patterns.join('|'), 'giu'), "<mark class='search-match'>$&</mark>")
  }

  // All places of a page bear the same words for the page to mark, or Quarto lists the page twice.
  function answer(docs, query, limit) {
    const words = split(fold(query)), marked = new Map()
    return rank(docs, query).slice(0, limit).map(({i, order, has}) => {
      const {title, section, crumbs, href, text = ''} = docs[i], [page, place] = href.split('#')
      const patterns = [...(order ? [phrased(words)] : []), ...has.map(begun)], found = first(text, patterns)
      if (!marked.get(page)) marked.set(page, found ? '?q=' + encodeURIComponent(found[0]) : '')
      return {title, section, crumbs, page, place, text: excerpt(text, found, patterns)}
    }).map(({page, place, ...card}) => ({...card, href: page + marked.get(page) + (place ? '#' + place : '')}))
  }

  function suggest(docs) {
    const of = page => docs.find(({href}) => href.split('#')[0] == page)
    return NOTHING.filter(([page]) => of(page)).map(([page, section]) => ({...of(page), section}))
  }

  function wrap(original) {
    return async (query, fuse, options) => {
      const asked = String(query ?? '').trim().slice(0, LETTERS)
      if (!asked) return []
      try {
        const docs = fuse.getIndex().docs
        const limit = options?.limit ?? 50
        const found = terms(asked).length ? answer(docs, asked, limit) : await original(asked.slice(0, LONG), fuse, options)
        return found.length ? found : suggest(docs)
      } catch {
        return original(asked.slice(0, LONG), fuse, options)
      }
    }
  }

  return {fold, terms, stem, apart, rank, answer, suggest, wrap}
})()

if (typeof module !== 'undefined') module.exports = WordSearch
if (typeof fuseSearch == 'function') fuseSearch = WordSearch.wrap(fuseSearch)
