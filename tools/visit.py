"""Open every page of the built site in a headless browser, and fail on what a reader would stumble over.

Faults are errors in the console, missing or foreign resources, formulas that don't parse, links and anchors that lead
nowhere, and pages that scroll sideways on a phone. The browser has no network: what loads is what the site ships.
It speaks to Chromium through a pipe, so nothing but a browser is needed.
"""
import argparse, base64, json, os, select, shutil, subprocess, sys, tempfile, threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT/'_docs'
BROWSERS = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'
FLAGS = '''--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars
    --remote-debugging-pipe'''.split()
OFFLINE = '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'
PHONE, DESKTOP = (380, 800), (1440, 900)
MAIN = 'index', 'play', 'guidance', 'samplers', 'mnist', 'choice', 'api', '404'
PATIENCE = 120  # seconds without a word from the browser
SHOT_HEIGHT = 5000  # pixels of a page that a screenshot shows

# A page is settled when its fonts are there and what it draws is drawn; a setting of the page to play with likewise.
SETTLE = """(async () => {
  const said = name => [...document.querySelectorAll(`[data-play="${name}"]`)].map(e => e.textContent)
  const busy = () => said('outside').some(t => !t.includes('%')) || said('level').some(t => t != 'samples')
  const start = performance.now()
  await document.fonts.ready
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
  const all = over > 0 ? [...document.querySelectorAll('main *')] : []
  return {over, culprits: all.filter(e => wide(e) && !inside(e)).slice(0, 3).map(name),
    formulas: [...document.querySelectorAll('.katex-error')].map(e => e.title || e.textContent),
    raw: document.querySelectorAll('.math:not(:has(.katex))').length,
    images: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
    unresolved: [...document.querySelectorAll('.quarto-unresolved-ref')].map(e => e.textContent),
    heads: [...document.querySelectorAll('main th')].filter(e => !e.textContent.trim()).length,
    code: [...document.querySelectorAll('details.exported[open]')].map(name),
    unreached: [...document.querySelectorAll('main :is(pre, table, .katex-display)')].filter(e => e.checkVisibility() && e.scrollWidth
      > e.clientWidth + 1 && getComputedStyle(e).overflowX == 'auto' && e.tabIndex < 0 && !e.closest('[tabindex="0"]')).map(name),
    ids: [...document.querySelectorAll('[id]')].map(e => e.id), links: [...document.links].map(a => a.href)}
})()"""


class Handler(SimpleHTTPRequestHandler):
    "Serve the site below its own path, and its own page for what is not there, as its host does."
    def __init__(self, *args, base, **kwargs): self.base = base; super().__init__(*args, **kwargs)
    def translate_path(self, path): return super().translate_path('/' + urlparse(path).path.removeprefix(self.base))
    def log_message(self, *args): pass

    def send_error(self, code, message=None, explain=None):
        "Answer with 404.html."
        body = (DOCS/'404.html').read_bytes() if (DOCS/'404.html').exists() else b''
        self.send_response(code)
        self.send_header('Content-Type', 'text/html')
        self.end_headers()
        self.wfile.write(body)


def site_path()->str: # '/name/', the path of the site on its host
    "Read from what nbdev writes about the site."
    lines = (ROOT/'settings.ini').read_text(encoding='utf-8').splitlines()
    repo = next(line.split('=')[1].strip() for line in lines if line.startswith('repo'))
    return f'/{repo}/'


def serve()->tuple: # server, address of the first page
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
                 code='exported code is open', unreached='scrolls, but not by keyboard')
    return side + raw + heads + [f'{what}: {x}' for key, what in lists.items() for x in seen.get(key, ())]


def visit(
    browser:Browser, # an open browser
    url:str, # address of the page
    base:str # address of the site
)->tuple: # faults, what was seen
    "Open one page as on a phone."
    faults = [] if browser.open(url) else ['does not settle']
    seen = browser.value(LOOK)
    faults += play_faults(browser) + page_faults(seen)
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


def link_faults(
    pages:dict, # address of a page -> what was seen there
    base:str # address of the site
)->dict: # address -> faults
    "Links within the site whose page or anchor does not exist."
    def lost(link):
        page, anchor = urldefrag(link)
        page = page + 'index.html' if page.endswith('/') else page
        if page in pages: return bool(anchor) and unquote(anchor) not in pages[page]['ids']
        return not (DOCS/unquote(page.removeprefix(base))).is_file()
    def bad(seen): return [x for x in dict.fromkeys(seen['links']) if x.startswith(base) and lost(x)]
    return {url: [f'link to nothing: {x.removeprefix(base)}' for x in bad(seen)] for url, seen in pages.items()}


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
    names:list # names of pages; none for every page
)->dict: # address -> faults
    "Every page, and an address that does not exist."
    found, pages = {}, {}
    names = names or [p.relative_to(DOCS).as_posix()[:-5] for p in sorted(DOCS.rglob('*.html'))]
    urls = [base + f'{name}.html' for name in names] + [base + 'no/such-page']
    for url in urls: found[url], pages[url] = visit(browser, url, base)
    lost = link_faults(pages, base)
    return {url: faults + lost[url] for url, faults in found.items()}


def main():
    "Visit, report, and fail if there is anything to report."
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('pages', nargs='*', help='names of pages, such as guidance; all if there are none')
    parser.add_argument('--shots', type=Path, metavar='DIR', help='write pictures: of the main pages, if none are named')
    args = parser.parse_args()
    if not (DOCS/'index.html').is_file(): sys.exit('No site in _docs. To build it: make site')
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        server, base = serve()
        try:
            browser.attach(), browser.dress(PHONE)
            found = visit_all(browser, base, args.pages)
            if args.shots: shoot_all(browser, base, args.shots, args.pages or MAIN)
        finally: browser.close(), server.shutdown()
    lines = [f'{url.removeprefix(base)}: {fault}' for url, faults in found.items() for fault in faults]
    print(*lines, f'{len(found)} pages visited, {len(lines)} faults', sep='\n')
    sys.exit(bool(lines))


if __name__ == '__main__': main()
