"""Open every page of the built site in a headless browser, and fail on what a reader would stumble over.

Faults are errors in the console, missing or foreign resources, formulas that don't parse or are cut, links and anchors
that lead nowhere, raw Markdown, code that drowns a chapter, and pages that scroll sideways on a phone; what axe-core finds
on a desktop and on a phone, by day and by night; a question of theme/asked.json that search answers with another page; a
front page that is heavy or slow. The browser has no network: what loads is what the site ships, and what npm installed
to run the network of the page to play with; where that is not here, the page has to say so. It speaks to Chromium through
a pipe, so nothing but a browser is needed; and axe-core (npm install --no-save axe-core), without which its part is left
out.
"""
import argparse, base64, gzip, json, os, re, select, shutil, subprocess, sys, tempfile, threading
from configparser import ConfigParser
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import serve

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT/'_docs'
BROWSERS = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'
FLAGS = '''--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars
    --remote-debugging-pipe'''.split()
OFFLINE = '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'
PHONE, DESKTOP = (390, 844), (1440, 900)
MAIN = 'index', 'story', 'play', 'compare', 'guidance', 'comparison', 'choice', 'glossary', 'api', '404'
PATIENCE = 240  # seconds without a word from the browser
SHOT_HEIGHT = 5000  # pixels of a page that a screenshot shows
SHARE = .1  # of a chapter's height that may be code, as it opens
SCREENS = dict(rules=15, doses=15, damages=15)  # of a phone, that a chapter may be long
FRONT = 500_000, 1.5  # bytes of the front page, seconds until something is seen on a phone
SLOW = dict(offline=False, latency=150, downloadThroughput=1.6e6/8, uploadThroughput=750e3/8)  # a phone far from its mast
ZIPPED = '.html', '.css', '.js', '.json', '.svg', '.xml'
AXE = [Path(os.environ.get('AXE', '')), ROOT/'node_modules'/'axe-core'/'axe.min.js']
NO_AXE = 'no axe-core here: its part is left out; npm install --no-save axe-core'

# A page is settled when its fonts are there and what it draws is drawn; a setting of the page to play with likewise.
SETTLE = """(async () => {
  const said = name => [...document.querySelectorAll(`[data-play="${name}"]`)].map(e => e.textContent)
  const busy = () => said('outside').some(t => !t.includes('%')) || said('level').some(t => t != 'samples')
  const start = performance.now()
  await document.fonts.ready
  for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame)
  do await new Promise(done => setTimeout(done, 120)); while (busy() && performance.now() - start < 30000)
  return !busy()
})()"""
PRESETS = "[...document.querySelectorAll('[data-preset]')].map(e => e.dataset.preset)"
PRESS = "document.querySelector('[data-preset=\"NAME\"]').click()"
SAID = "[...document.querySelectorAll('.play dd')].map(e => e.textContent).join(', ')"
LOOK = """(() => {
  const wide = e => e.getBoundingClientRect().right > innerWidth + 1
  function* parents(e) { for (e = e.parentElement; e && e != document.body; e = e.parentElement) yield e }
  const inside = e => [...parents(e)].some(p => getComputedStyle(p).overflowX != 'visible')
  const name = e => (e.tagName + '.' + e.className).slice(0, 60) + ' ' + e.textContent.trim().slice(0, 50)
  const over = document.documentElement.scrollWidth - innerWidth
  const cue = e => getComputedStyle(e).backgroundAttachment.includes('local') && getComputedStyle(e).overflowX == 'auto'
  const cut = e => e.scrollWidth > e.clientWidth + 1
  const plain = e => !e.closest('code, pre, .katex, .math, script, style, textarea, noscript, .sourceCode, [hidden]')
  const texts = function*(root) { const w = document.createTreeWalker(root, NodeFilter.SHOW_TEXT); while (w.nextNode()) yield w.currentNode }
  const raw = t => /\\*\\*|\\$[^\\s$][^$\\n]*\\$|\\]\\([^)]*\\)|(^|\\s)(\\{#|#\\|)/.test(t.textContent)
  const main = document.querySelector('main') ?? document.body
  const tall = list => list.reduce((sum, e) => sum + e.getBoundingClientRect().height, 0)
  const shown = e => e.checkVisibility()
  const source = [...main.querySelectorAll('div.sourceCode')].filter(e => shown(e) && !e.parentElement.closest('div.sourceCode'))
  const folds = [...main.querySelectorAll('details.exported > summary')].filter(shown)
  const all = over > 0 ? [...document.querySelectorAll('main *')] : []
  return {over, culprits: all.filter(e => wide(e) && !inside(e)).slice(0, 3).map(name),
    formulas: [...document.querySelectorAll('.katex-error')].map(e => e.title || e.textContent),
    raw: document.querySelectorAll('.math:not(:has(.katex))').length,
    images: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
    unresolved: [...document.querySelectorAll('.quarto-unresolved-ref')].map(e => e.textContent),
    cut: [...document.querySelectorAll('.katex-display')].filter(e => cut(e) && (innerWidth > 1000 || !cue(e))).map(e => e.textContent.slice(0, 70)),
    markdown: [...texts(main)].filter(t => plain(t.parentElement) && raw(t)).slice(0, 5).map(t => t.textContent.trim().slice(0, 80)),
    shut: [...document.querySelectorAll('[data-bs-toggle="collapse"]')].filter(e => e.id != 'quarto-sidebar-glass' && shown(e) && e.tabIndex < 0).map(name),
    height: main.getBoundingClientRect().height, page: document.documentElement.scrollHeight, code_height: tall(source), fold_height: tall(folds),
    colour: [...main.querySelectorAll('p a[href], li a[href]')].filter(a => shown(a) && a.textContent.trim() && getComputedStyle(a).textDecorationLine == 'none'
      && getComputedStyle(a).borderTopStyle == 'none' && a.parentElement.textContent.trim() != a.textContent.trim() && !a.closest('nav, .api, .breadcrumb, [role="doc-toc"]')).slice(0, 3).map(name),
    heads: [...document.querySelectorAll('main th')].filter(e => !e.textContent.trim()).length,
    open: [...document.querySelectorAll('details.exported[open]')].map(name),
    unreached: [...document.querySelectorAll('main :is(pre, table, .katex-display)')].filter(e => e.checkVisibility() && e.scrollWidth
      > e.clientWidth + 1 && getComputedStyle(e).overflowX == 'auto' && e.tabIndex < 0 && !e.closest('[tabindex="0"]')).map(name),
    ids: [...document.querySelectorAll('[id]')].map(e => e.id), links: [...document.links].map(a => a.href)}
})()"""
# The style of the night is there: it is loaded when it is first asked for, and colours change over some time.
NIGHT = """(async () => {
  const wait = ms => new Promise(done => setTimeout(done, ms))
  const light = () => getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0)
  for (let i = 0; i < 200 && light() > 200; i++) await wait(100)
  await wait(600)
  return light() < 200
})()"""
# The figure of one's own noise: press its button, and wait for a digit or for the button to come back.
OWN = """(async () => {
  const root = document.querySelector('[data-own]'), part = name => root.querySelector(`[data-own-part="${name}"]`)
  if (!root) return null
  if (part('wake').hidden) return 'no button to press'
  part('wake').click()
  for (let i = 0; i < 2000 && !root.dataset.done && part('wake').hidden; i++) await new Promise(done => setTimeout(done, 100))
  return root.dataset.done ? part('says').textContent : part('why').textContent
})()"""
COLOURS = 'color-contrast', 'link-in-text-block'  # rules of axe-core about colours
AXE_RUN = """axe.run(document, {resultTypes: ['violations'], ...(RULES.length ? {runOnly: {type: 'rule', values: RULES}} : {})})
  .then(found => found.violations.map(v => [v.id, v.nodes.length, v.nodes[0].target.join(' ').slice(0, 90)]))"""
SEARCH = """readSearchData().then(index => fuseSearch(QUESTION, index, {isCaseSensitive: false, shouldSort: true, minMatchCharLength: 2, limit: 50}))
  .then(found => (found[0]?.href ?? '').split('/').pop())"""
# What the box shows for words that are typed: its lines, or what it says where there are none.
BOX = """(async () => {
  const wait = ms => new Promise(done => setTimeout(done, ms)), lines = () => [...document.querySelectorAll('.aa-Panel .aa-Item')]
  const all = () => document.querySelector('.aa-Panel')?.textContent ?? ''
  quartoOpenSearch()
  for (let i = 0; i < 100 && !document.querySelector('.aa-Input'); i++) await wait(50)
  const box = document.querySelector('.aa-Input'), before = all()
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(box, WORDS)
  box.dispatchEvent(new Event('input', {bubbles: true}))
  for (let i = 0; i < 200 && all() == before; i++) await wait(50)
  await wait(100)
  return lines().map(e => e.textContent)
})()"""
UNASKED = {'probability that a label gets dropped': 'drop', 'U-Net of mine': 'U-Net', 'qqzzxx': 'Glossary'}  # words -> what the box shows
PAINT = "(performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 60000)/1000"


class Handler(SimpleHTTPRequestHandler):
    "Serve the site below its own path, and its own page for what is not there, as its host does."
    def __init__(self, *args, base, **kwargs): self.base = base; super().__init__(*args, **kwargs)
    def log_message(self, *args): pass

    def translate_path(self, path):
        "Below its own path is the site, and there what npm installed."
        path = '/' + urlparse(path).path.removeprefix(self.base)
        name = re.fullmatch(r'/runtime/([\w.-]+)', path)
        return str(serve.RUNTIME/name[1]) if name else super().translate_path(path)

    def do_GET(self):
        "Text goes compressed, as its host sends it."
        path = Path(self.translate_path(self.path))
        if path.is_dir(): path = path/'index.html'
        if path.suffix not in ZIPPED or not path.is_file(): return super().do_GET()
        body = gzip.compress(serve.setting() if path.name == serve.SETTING.name else path.read_bytes(), 6)
        self.send_response(200)
        for name, value in {'Content-Type': self.guess_type(str(path)), 'Content-Encoding': 'gzip', 'Content-Length': len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        with suppress(ConnectionError): self.wfile.write(body) # the browser may have gone on to another page

    def send_error(self, code, message=None, explain=None):
        "Answer with 404.html."
        body = (DOCS/'404.html').read_bytes() if (DOCS/'404.html').exists() else b''
        self.send_response(code)
        self.send_header('Content-Type', 'text/html')
        self.end_headers()
        self.wfile.write(body)


def read_settings(): # names and their values
    "What settings.ini says."
    parser = ConfigParser()
    parser.read(ROOT/'settings.ini', encoding='utf-8')
    return parser['DEFAULT']


def site_path()->str: # '/name/', the path of the site on its host
    "Where the site lies."
    return f'/{read_settings()["repo"]}/'


def nowhere()->tuple: # beginnings of addresses
    "Addresses at which nothing is before the course is published."
    says = read_settings()
    if says.getboolean('published'): return ()
    return says['git_url'], says['doc_host'], f'https://colab.research.google.com/github/{says["user"]}/'


def start()->tuple: # server, address of the first page
    "Serve the built site on a free port."
    handler = partial(Handler, directory=str(DOCS), base=site_path())
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f'http://127.0.0.1:{server.server_port}{site_path()}'


def find_browser()->str: # path of the program
    "The first browser of its kind, or `$BROWSER_BIN`."
    found = os.environ.get('BROWSER_BIN') or next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or sys.exit('No Chromium here: install the package chromium, or name a browser in BROWSER_BIN.')


class Browser:
    "A headless Chromium, spoken to in JSON through two pipes."
    def __init__(
        self,
        profile:str # empty folder for what the browser keeps
    ):
        (r_in, self.w), (self.r, w_out) = os.pipe(), os.pipe()
        def wire(): os.dup2(r_in, 63); os.dup2(w_out, 64); os.dup2(63, 3); os.dup2(64, 4)
        args = [find_browser(), *FLAGS, OFFLINE, f'--user-data-dir={profile}', 'about:blank']
        self.process = subprocess.Popen(args, preexec_fn=wire, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(r_in), os.close(w_out)
        self.count, self.buffer, self.session, self.events = 0, b'', None, []

    def read(self):
        "The next message."
        while b'\0' not in self.buffer:
            ready = select.select([self.r], [], [], PATIENCE)[0]
            chunk = os.read(self.r, 1 << 20) if ready else b''
            if not chunk: sys.exit('The browser ended.' if ready else f'The browser said nothing for {PATIENCE} s.')
            self.buffer += chunk
        head, self.buffer = self.buffer.split(b'\0', 1)
        return json.loads(head)

    def call(
        self,
        method:str, # command of the DevTools protocol
        **params # its parameters
    )->dict: # its result
        "Send a command, keep the events that arrive meanwhile, return the result."
        self.count += 1
        message = dict(id=self.count, method=method, params=params)
        if self.session: message['sessionId'] = self.session
        os.write(self.w, json.dumps(message).encode() + b'\0')
        while (got := self.read()).get('id') != self.count: self.events.append(got)
        if 'error' in got: raise RuntimeError(f'{method}: {got["error"]["message"]}')
        return got['result']

    def wait(
        self,
        method:str # name of the event
    ):
        "Wait for an event."
        while not any(e.get('method') == method for e in self.events): self.events.append(self.read())

    def value(
        self,
        expression:str # JavaScript
    ): # what JSON can say
        "The value of a JavaScript expression, awaited."
        got = self.call('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True)
        return got['result'].get('value')

    def attach(self):
        "Take the first tab and listen to all that it says."
        target = next(t for t in self.call('Target.getTargets')['targetInfos'] if t['type'] == 'page')
        self.session = self.call('Target.attachToTarget', targetId=target['targetId'], flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log'): self.call(f'{domain}.enable')

    def dress(
        self,
        size:tuple, # width and height of the window
        dark:bool=False # whether the reader prefers dark pages
    ):
        "Set the size of the window and the reader's taste in colours."
        screen = dict(width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
        self.call('Emulation.setDeviceMetricsOverride', **screen)
        scheme = dict(name='prefers-color-scheme', value='dark' if dark else 'light')
        self.call('Emulation.setEmulatedMedia', features=[scheme])

    def open(
        self,
        url:str # address
    )->bool: # whether it has settled
        "Load a page, and wait until it has settled."
        self.events = []
        self.call('Page.navigate', url=url)
        self.wait('Page.loadEventFired')
        return self.value(SETTLE)

    def shoot(
        self,
        path:Path # a PNG file
    ):
        "Write a picture of the page, from its top."
        size = self.call('Page.getLayoutMetrics')['cssContentSize']
        clip = dict(x=0, y=0, width=size['width'], height=min(size['height'], SHOT_HEIGHT), scale=1)
        shot = self.call('Page.captureScreenshot', clip=clip, captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(shot['data']))

    def close(self):
        "End the browser."
        self.process.terminate()
        self.process.wait(10)


def text_of(
    params:dict # of an event about the console
)->str: # what the console says
    "The message of an event, whichever kind it is."
    thrown = params.get('exceptionDetails', {})
    if thrown: return thrown.get('exception', {}).get('description', thrown.get('text', 'exception'))
    if 'entry' in params: return params['entry']['text'] + ' ' + params['entry'].get('url', '')
    return ' '.join(str(a.get('value', a.get('description', ''))) for a in params.get('args', []))


def event_fault(
    event:dict, # one message of the browser
    url:str, # address of the page
    base:str # address of the site
)->str: # what is wrong, or ''
    "Judge an event: errors, missing files, requests to other sites."
    kind, params = event.get('method'), event.get('params', {})
    if kind == 'Runtime.exceptionThrown': return f'error: {text_of(params)}'
    if kind == 'Runtime.consoleAPICalled':
        return f'console: {text_of(params)}' if params['type'] in ('error', 'assert') else ''
    if kind == 'Log.entryAdded' and params['entry']['level'] == 'error' and params['entry'].get('source') != 'network':
        return f'console: {text_of(params)}'
    if kind == 'Network.requestWillBeSent':
        asked = params['request']['url']
        return '' if asked.startswith((base, 'data:', 'blob:', 'about:')) else f'asks another site: {asked}'
    if kind != 'Network.responseReceived': return ''
    got = params['response']
    missing = got['status'] >= 400 and urldefrag(got['url'])[0] != url
    return f'missing ({got["status"]}): {got["url"]}' if missing else ''


def page_faults(
    seen:dict # what LOOK returned
)->list: # one line for each fault
    "Judge what is on the page."
    side = [f'scrolls sideways by {seen["over"]} px: ' + '; '.join(seen['culprits'])] if seen['over'] > 0 else []
    raw = [f'{seen["raw"]} formulas are not set'] if seen['raw'] else []
    heads = [f'{seen["heads"]} heads of tables are empty'] if seen.get('heads') else []
    lists = dict(formulas='formula', images='image does not load', unresolved='reference to nothing',
                 open='exported code is open', cut='formula is cut', markdown='raw Markdown', shut='opens by mouse alone', colour='a link by its colour alone', unreached='scrolls, but not by keyboard')
    return side + raw + heads + [f'{what}: {x}' for key, what in lists.items() for x in seen.get(key, ())]


def length_faults(
    name:str, # of the page
    seen:dict # what LOOK returned, on a phone
)->list: # one line for each fault
    "Too much code as a chapter opens, or too many screens."
    if not chapter(name): return []
    share = (seen['code_height'] + seen['fold_height'])/max(seen['height'], 1)
    drowned = [f'code takes {share:.0%} of its height'] if share > SHARE else []
    screens = seen['page']/PHONE[1]
    return drowned + ([f'is {screens:.1f} screens of a phone long'] if screens > SCREENS.get(name, 1e9) else [])


def chapter(
    name:str # of a page
)->bool: # whether a notebook with a number makes it
    "Chapters, and not the pages that list things."
    return any(re.fullmatch(rf'\d+[a-z]?_{re.escape(name)}', p.stem) for p in (ROOT/'nbs').glob('*.ipynb'))


def find_axe()->str: # the program's text, or ''
    "axe-core, where it is installed."
    return next((p.read_text(encoding='utf-8') for p in AXE if p.is_file()), '')


def axe_faults(
    browser:Browser, # at a page
    axe:str, # axe-core, or ''
    look:str, # words for the window's size and colours
    rules:tuple=() # names of rules; none for all
)->list: # one line for each rule that is broken
    "What axe-core finds."
    if not axe: return []
    if not browser.value("typeof axe != 'undefined'"): browser.value(axe)
    found = browser.value(AXE_RUN.replace('RULES', json.dumps(rules)))
    if found is None: return [f'axe does not answer, {look}']
    return [f'axe, {look}: {rule}, {count} times, {where}' for rule, count, where in found]


def look_again(
    browser:Browser, # at a page, dressed as a phone by day
    axe:str # axe-core, or ''
)->list: # one line for each fault
    "The same page on a desktop, and by night."
    faults = axe_faults(browser, axe, 'phone')
    browser.dress(DESKTOP)
    browser.value(SETTLE)
    faults += [f'desktop: {o}' for o in page_faults(browser.value(LOOK))] + axe_faults(browser, axe, 'desktop')
    for size, word in (DESKTOP, 'desktop'), (PHONE, 'phone'):
        browser.dress(size, dark=True)
        browser.value(NIGHT)
        faults += axe_faults(browser, axe, f'{word}, dark', COLOURS)
    browser.dress(PHONE)
    return faults


def visit(
    browser:Browser, # an open browser, dressed as a phone
    url:str, # address of the page
    base:str, # address of the site
    axe:str='' # axe-core
)->tuple: # faults, what was seen
    "Open one page, on a phone and on a desktop, by day and by night."
    faults = [] if browser.open(url) else ['does not settle']
    seen = browser.value(LOOK)
    name = url.removeprefix(base).removesuffix('.html')
    faults += play_faults(browser) + own_faults(browser) + page_faults(seen) + length_faults(name, seen) + look_again(browser, axe)
    events = [event_fault(e, url, base) for e in browser.events]
    return faults + list(dict.fromkeys(filter(None, events))), seen


def play_faults(
    browser:Browser # at a page
)->list: # one line for each fault
    "Press every button that chooses a setting to play with: each has to draw and measure, and no two alike."
    said = {}
    for name in browser.value(PRESETS):
        browser.value(PRESS.replace('NAME', name))
        said[name] = browser.value(SAID) if browser.value(SETTLE) else ''
    return [f'setting {k}: measures {v or "nothing"}' for k, v in said.items() if not v or list(said.values()).count(v) > 1]


def own_faults(
    browser:Browser # at a page
)->list: # one line for each fault
    "Press the button of one's own noise: a digit is drawn, or the page says that it could not load what draws it."
    said = browser.value(OWN)
    here = json.loads(serve.setting())['address'].startswith('../')
    expected = r'Drawn: a \d was asked for' if here else 'The figure stays a picture: it could not be loaded'
    return [] if said is None or re.match(expected, said) else [f'own noise: says {said or "nothing"}']


def link_faults(
    pages:dict, # address of a page -> what was seen there
    base:str # address of the site
)->dict: # address -> faults
    "Links within the site whose page or anchor does not exist."
    def lost(link):
        page, anchor = urldefrag(link)
        page = page + 'index.html' if page.endswith('/') else page
        if page in pages: return bool(anchor) and '=' not in anchor and unquote(anchor) not in pages[page]['ids'] # with = a setting
        return not (DOCS/unquote(page.removeprefix(base))).is_file()
    early = nowhere()
    def bad(seen): return [x for x in dict.fromkeys(seen['links']) if x.startswith(base) and lost(x) or x.startswith(early)]
    return {url: [f'link to nothing: {x.removeprefix(base)}' for x in bad(seen)] for url, seen in pages.items()}


def leads_to(
    at:str, # address that search answers with: page.html?q=words#place
    key:str # of theme/asked.json: a page, or a page#place
)->bool: # whether it is there
    "A page is reached at any of its places, a place only itself."
    page, _, place = key.partition('#')
    return at.startswith(f'{page}.html') and (not place or at.partition('#')[2] == place)


def search_faults(
    browser:Browser, # an open browser
    base:str # address of the site
)->list: # one line for each question that another page, or another section than it names, answers
    "Ask each question of theme/asked.json, where its page is built: it has to come first. And type words into the box."
    asked = json.loads((ROOT/'nbs'/'theme'/'asked.json').read_text(encoding='utf-8'))
    browser.open(base + 'index.html')
    def first(question): return browser.value(SEARCH.replace('QUESTION', json.dumps(question)))
    built = {key: questions for key, questions in asked.items() if (DOCS/f'{key.partition("#")[0]}.html').is_file()}
    found = {(key, q): first(q) or '' for key, questions in built.items() for q in questions}
    elsewhere = [f'search for "{q}" leads to {at}, not to {key}' for (key, q), at in found.items() if not leads_to(at, key)]
    return elsewhere + box_faults(browser)


def box_faults(
    browser:Browser # at a page
)->list: # one line for each fault
    "Words that no section has as a phrase, typed into the box: it shows where they stand, or where to look instead."
    shown = {words: browser.value(BOX.replace('WORDS', json.dumps(words))) or [] for words in UNASKED}
    return [f'the box shows no "{part}" for "{words}"' for words, part in UNASKED.items() if not any(part in line for line in shown[words])]


def load_from_afar(
    browser:Browser, # an open browser
    base:str # address of the site
)->tuple[int, float]: # bytes, seconds until something is seen
    "The front page, with nothing kept from before."
    browser.open(base + 'index.html')
    size = sum(e['params']['encodedDataLength'] for e in browser.events if e.get('method') == 'Network.loadingFinished')
    return size, browser.value(PAINT)


def front_faults(
    browser:Browser, # an open browser, dressed as a phone
    base:str # address of the site
)->list: # one line for each fault
    "Load the front page as a slow phone does: how much, and how soon at best of three times, since machines are busy."
    browser.call('Network.setCacheDisabled', cacheDisabled=True)
    browser.call('Network.emulateNetworkConditions', **SLOW)
    sizes, times = zip(*(load_from_afar(browser, base) for _ in range(3)))
    size, soon = max(sizes), min(times)
    browser.call('Network.emulateNetworkConditions', **SLOW | dict(latency=0, downloadThroughput=-1, uploadThroughput=-1))
    browser.call('Network.setCacheDisabled', cacheDisabled=False)
    print(f'front page: {size/1000:.0f} kB, seen after {soon:.2f} s on a slow phone')
    heavy = [f'weighs {size/1000:.0f} kB'] if size > FRONT[0] else []
    return heavy + ([f'shows nothing for {soon:.2f} s on a slow phone'] if soon > FRONT[1] else [])


def told_faults(
    path:Path # an HTML file
)->list: # one line for each fault
    "What a page has to say of itself to those who collect pages or share them."
    html = path.read_text(encoding='utf-8')
    wanted = {'a description': '<meta name="description" content="[^"]+', 'a card': '<meta property="og:image" content="https://[^"]+',
              'a title for cards': '<meta property="og:title" content="[^"]+', 'structured data': '<script type="application/ld\\+json">{'}
    return [f'has not {what}' for what, pattern in wanted.items() if not re.search(pattern, html)]


def map_faults(
    names:list # of all pages
)->list: # one line for each fault
    "Pages that the map of the site leaves out."
    path = DOCS/'sitemap.xml'
    listed = re.findall(r'<loc>[^<]*/([\w-]+)\.html</loc>', path.read_text(encoding='utf-8')) if path.is_file() else []
    return [f'not in sitemap.xml: {name}' for name in names if name not in (*listed, '404')]


def shoot_all(
    browser:Browser, # an open browser
    base:str, # address of the site
    folder:Path, # where the pictures go
    names:list # names of pages
):
    "Pictures of pages: two sizes, two themes."
    folder.mkdir(parents=True, exist_ok=True)
    looks = [(size, word, dark) for size, word in ((DESKTOP, 'desktop'), (PHONE, 'phone')) for dark in (False, True)]
    for size, word, dark in looks:
        browser.dress(size, dark)
        for name in names:
            browser.open(base + f'{name}.html')
            browser.shoot(folder/f'{name}-{word}-{"dark" if dark else "light"}.png')


def visit_all(
    browser:Browser, # an open browser
    base:str, # address of the site
    names:list, # names of pages; none for every page
    json_to:Path|None=None # a file for what was measured
)->dict: # address -> faults
    "Every page, and an address that does not exist."
    found, pages = {}, {}
    names = names or [p.relative_to(DOCS).as_posix()[:-5] for p in sorted(DOCS.rglob('*.html'))]
    urls, axe = [base + f'{name}.html' for name in names] + [base + 'no/such-page'], find_axe()
    if not axe: print(NO_AXE)
    for url in urls:
        found[url], pages[url] = visit(browser, url, base, axe)
        print(f'{url.removeprefix(base)}: {len(found[url]) or "no"} faults', file=sys.stderr, flush=True)
    lost = link_faults(pages, base)
    found = {url: faults + lost[url] for url, faults in found.items()}
    if json_to: json_to.write_text(json.dumps({u.removeprefix(base): {k: v for k, v in p.items() if k != 'links'} for u, p in pages.items()}), encoding='utf-8')
    for name in names: found[base + f'{name}.html'] += told_faults(DOCS/f'{name}.html') if name != '404' else []
    return found


def whole_faults(
    browser:Browser, # an open browser
    base:str # address of the site
)->list: # one line for each fault
    "What is looked at once, of the site as a whole."
    names = [p.relative_to(DOCS).as_posix()[:-5] for p in sorted(DOCS.rglob('*.html'))]
    return front_faults(browser, base) + search_faults(browser, base) + map_faults(names)


def main():
    "Visit, report, and fail if there is anything to report."
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('pages', nargs='*', help='names of pages, such as guidance; all if there are none')
    parser.add_argument('--shots', type=Path, metavar='DIR', help='write pictures: of the main pages, if none are named')
    parser.add_argument('--whole', action='store_true', help='only the front page, search and the map of the site')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write what was measured on each page')
    args = parser.parse_args()
    if not (DOCS/'index.html').is_file(): sys.exit('No site in _docs. To build it: make site')
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        server, base = start()
        try:
            browser.attach(), browser.dress(PHONE)
            found = {} if args.whole else visit_all(browser, base, args.pages, args.json)
            if args.whole or not args.pages: found[base + 'site'] = whole_faults(browser, base)
            if args.shots: shoot_all(browser, base, args.shots, args.pages or [o for o in MAIN if (DOCS/f'{o}.html').is_file()])
        finally: browser.close(), server.shutdown()
    lines = [f'{url.removeprefix(base)}: {fault}' for url, faults in found.items() for fault in faults]
    print(*lines, f'{len(found)} pages visited, {len(lines)} faults', sep='\n')
    sys.exit(bool(lines))


if __name__ == '__main__': main()
