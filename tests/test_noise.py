"The figure of one's own noise: its network, its sampler and its pages are those of the package, and its sentences hold."
import base64, hashlib, json, re, shutil, subprocess, sys, threading, time
from functools import partial
from http.server import ThreadingHTTPServer

import numpy as np, pytest, torch
from PIL import Image

from cfg_course.classifiers import load_classifier
from cfg_course.core import load_tensors
from cfg_course.denoisers import find_network, weights_folder
from notebooks import NBS_DIR, ROOT

sys.path.insert(0, str(ROOT/'tools'))
import noise, serve, visit

FILES, PAGE = NBS_DIR/'play', (NBS_DIR/'play.qmd').read_text(encoding='utf-8')
MADE, SETTING = json.loads((FILES/'noise.json').read_text()), json.loads((FILES/'runtime.json').read_text())
TRIED = MADE['values']['tried']
PART = PAGE[PAGE.index('## Your own noise'):PAGE.index('## Points')]
needs_node = pytest.mark.skipif(not shutil.which('node'), reason='no node here, which runs the page\'s JavaScript')


@pytest.fixture(scope='module')
def denoise(): return find_network(noise.SOURCE)[0]


def run_js(code, given=None):
    "What `code` prints as JSON, with the page's functions, and what is given in `given`."
    names = dict(Play='play', Digits='digits', Noise='noise', NoisePage='noise-page')
    files = {name: str(NBS_DIR/'theme'/f'{file}.js') for name, file in names.items()}
    script = f'''for (const [name, file] of Object.entries({json.dumps(files)})) globalThis[name] = require(file)
                 const given = {json.dumps(given)};
                 (async () => {{ {code} }})().then(o => console.log(JSON.stringify(o)))'''
    done = subprocess.run(['node', '-'], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def gap(a, b): return np.abs(np.asarray(a, float) - np.asarray(b, float)).max()


# The network's file

def test_file_has_the_weights_of_the_package():
    "Bit for bit, in half precision, as they are shipped; without a package that reads such files."
    data = (FILES/f'{noise.SOURCE}.onnx').read_bytes()
    tensors, _ = load_tensors(weights_folder()/f'{noise.SOURCE}.safetensors', 'denoiser')
    large = {k: t for k, t in tensors.items() if t.numel() > noise.FEW}
    assert len(large) > 50 and [k for k, t in large.items() if t.half().numpy().tobytes() not in data] == []
    assert len(data) == MADE['network']['bytes'] < 2.2*sum(t.numel() for t in tensors.values())


@pytest.mark.parametrize('sigma', [.002, .3, 5., 80.])
def test_file_answers_as_torch(denoise, sigma):
    ort = pytest.importorskip('onnxruntime')
    session = ort.InferenceSession(FILES/f'{noise.SOURCE}.onnx')
    x = sigma*torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(3))
    for labels in ([-1, 3], [-1, 0], [9, -1]):
        level, y = torch.full((2,), sigma).log()/4, torch.tensor(labels)
        found, = session.run(None, dict(z=x.numpy(), c_noise=level.numpy(), y=y.numpy()))
        with torch.no_grad(): assert gap(found, denoise.net(x, level, y)) < 2e-5


def test_setting_says_what_the_files_are():
    "Sizes and sums of the network here, and of the runtime where npm has installed it; one version everywhere."
    version = noise.wanted()
    assert SETTING['address'] == noise.ADDRESS.format(version=version) and f'@{version}/' in SETTING['address'] and SETTING['address'].startswith('https://')
    there = dict(network=FILES/SETTING['network']['name'], script=serve.RUNTIME/noise.SCRIPT, wasm=serve.RUNTIME/noise.WASM)
    for name, path in there.items():
        said = SETTING[name]
        assert said['name'] == path.name and re.fullmatch(r'sha384-[\w+/]{64}', said['integrity'])
        if path.is_file():
            assert said['bytes'] == path.stat().st_size
            assert said['integrity'][7:] == base64.b64encode(hashlib.sha384(path.read_bytes()).digest()).decode()
    assert there['network'].is_file() and MADE['runtime']['version'] == version
    where = [p for p in (*NBS_DIR.glob('*.qmd'), *(NBS_DIR/'theme').iterdir(), *FILES.iterdir()) if p.is_file() and b'cdn.jsdelivr.net/npm' in p.read_bytes()]
    assert where == [FILES/'runtime.json']  # one place


def test_sizes_in_the_text():
    names = 'script', 'wasm', 'network'
    packed, raw = (sum(SETTING[n][k] for n in names)/1e6 for k in ('gzip', 'bytes'))
    assert packed < 6 and MADE['runtime']['gzip'] == sum(SETTING[n]['gzip'] for n in names)
    assert f'({packed:.1f} MB, or {raw:.1f} where the server does not compress)' in PART
    assert f'onnxruntime-web {noise.wanted()}' in PART and f'{SETTING["wasm"]["gzip"]/1e6:.1f} MB compressed' in PART and f'{SETTING["network"]["bytes"]/1e6:.1f} MB' in PART


def test_numbers_in_the_text(denoise):
    assert f'{sum(p.numel() for p in denoise.parameters())/1e6:.2f} million numbers' in PART and f'network {noise.SOURCE}' in PART
    assert f'compares {len(noise.TRIED)} digits' in PART
    assert f'from {noise.INSIDE[0]:g} to {noise.INSIDE[1]:g}' in PART and 'between 0.95 and 1.05' in PART
    sizes = torch.stack([noise.noise(i) for i in range(1, 201)]).square().mean((1, 2, 3, 4)).sqrt()
    assert ((sizes > .95) & (sizes < 1.05)).double().mean() > .93


# What Python draws

def test_stored_values_are_of_every_rule():
    assert [tuple(t[k] for k in ('label', 'noise', 'painted', 'strength', 'rule', 'steps')) for t in TRIED] == noise.TRIED
    assert {t['rule'] for t in TRIED} == {*noise.RULES, noise.PLUS}


@pytest.mark.parametrize('i', [1, 4, 7, 11])
def test_stored_values_are_those_of_the_package(denoise, i):
    got = noise.facts_of(denoise, *noise.TRIED[i])._asdict()
    for name in ('pixels', 'none', 'own', 'noisy'): assert gap(got[name], TRIED[i][name]) < 1e-4, name


def test_sentence_about_strokes(denoise):
    "At scale 0 the strokes decide, and guidance pulls the digit back to what the label asks for."
    read = load_classifier(weights_folder()/'mnist-classifier.safetensors')[0]
    def recognised(scale):
        found = []
        for label in (0, 3, 7, 8):
            for rows, columns in ((slice(4, 24), slice(13, 16)), (slice(13, 16), slice(4, 24))):
                canvas = noise.noise(2)
                canvas[..., rows, columns] = 1.5
                end = noise.walk(denoise, label, canvas, scale, 'plain')[0][-1]
                found.append(read(end.float()).argmax().item() == label)
        return sum(found)
    with torch.no_grad(): none, one, much = map(recognised, (0., 1., 8.))
    assert none <= 2 and none < much and one < much >= 5, (none, one, much)


def test_parts_that_need_a_package_say_so(monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(SystemExit, match='onnx: not installed.*pip install onnx onnxscript'): noise.reader()


def test_still_picture():
    assert Image.open(FILES/'noise.png').size == (7*28, 5*28) and MADE['still']['moments'] == noise.MOMENTS


# The sampler in JavaScript: it is told the network's answers, and has to be where Python is

@needs_node
@pytest.mark.parametrize('i', range(len(noise.TRIED)))
def test_sampler(denoise, i):
    label, number, stroke, strength, rule, steps = noise.TRIED[i]
    canvas = noise.painted(number, stroke)
    def twice(x, sigma, y):  # always both answers, so that the sampler and the test have the same ones
        return noise.guesses(denoise, x[:1], sigma, label)[(y == label).long()]
    with torch.no_grad():
        xs, _, sigmas = noise.walk(twice, label, canvas, strength, rule, steps)
        answers = [noise.guesses(denoise, x, s, label).flatten(1) for x, s in zip(xs, sigmas[:-1])]
    told = dict(canvas=canvas.flatten().tolist(), digit=label, strength=strength, rule=rule, steps=steps,
        way=[dict(x=x.flatten().tolist(), D=D.flatten().tolist(), sigma=s) for x, D, s in zip(xs, answers, sigmas)])
    code = '''let k = 0, off = 0
        const net = async (z, level, labels) => {
          const {x, D, sigma} = given.way[k++], c = Noise.scalings(sigma), at = i => x[i % 784]
          off = Math.max(off, Math.abs(level - Math.log(sigma)/4), ...z.map((v, i) => Math.abs(v - c.in*at(i))), Math.abs(labels[0] + 1), Math.abs(labels[1] - given.digit))
          return Float64Array.from(D, (d, i) => (d - c.skip*at(i))/c.out)
        }
        const seen = [], x = await Noise.draw(net, given, ({i, sigma, x, u, c, guided}) => { seen.push(Math.max(...x.map((v, k) => Math.abs(v - given.way[i].x[k])))); return true })
        return {x: [...x], off, seen}'''
    found = run_js(code, told)
    assert found['off'] < 1e-5 and len(found['seen']) == steps and max(found['seen']) < 1e-9
    assert gap(found['x'], xs[-1].flatten()) < 1e-9


@needs_node
def test_canvas_is_that_of_python():
    found = run_js('return [1, 5, 9999].map(n => [...Noise.canvas(n)])')
    for n, canvas in zip((1, 5, 9999), found): assert gap(canvas, noise.noise(n).flatten()) < 1e-12
    assert set(run_js('return [...Noise.canvas(Noise.BLANK)]')) == {0}


@needs_node
def test_constants():
    data, usual, steps, moments, rules, strength = run_js('return [Noise.DATA, Noise.USUAL, Noise.STEPS, Noise.moments(12), Object.keys(Noise.RULES), NoisePage.BRUSH.ink]')
    assert data == MADE['network']['sigma_data'] == find_network(noise.SOURCE)[0].sigma_data and usual['in'] == noise.STEPS
    assert moments == noise.MOMENTS and rules == [*noise.RULES, noise.PLUS] and strength > 1
    for n in steps:
        chosen = run_js(f'return Noise.moments({n})')
        assert len(set(chosen)) == 6 and chosen == sorted(chosen) and 0 <= chosen[0] and chosen[-1] < n
    assert re.findall(r'value="(\w+)"', re.search(r'data-own-part="rule">(.*?)</select>', PART)[1]) == rules
    assert [int(n) for n in re.findall(r'>(\d+)</option>', re.search(r'data-own-part="steps">(.*?)</select>', PART)[1])] == steps


@needs_node
def test_a_wish_that_is_no_more_ends():
    code = '''let asked = 0
        const net = async z => { asked++; return new Float32Array(1568) }
        return [await Noise.draw(net, {canvas: Noise.canvas(1), digit: 1, strength: 2, rule: 'plain', steps: 12}, ({i}) => i < 3), asked]'''
    assert run_js(code) == [None, 4]


# Painting

@needs_node
@pytest.mark.parametrize('from_, to', [((14, 14), (14, 14)), ((0, 0), (28, 28)), ((-50, 3), (90, 3)), ((27.9, .1), (27.9, .1)), ((1e4, 1e4), (1e4, 1e4))])
@pytest.mark.parametrize('value', [1.5, -1.5])
def test_strokes_stay_on_the_canvas_and_within_the_brush(from_, to, value):
    "Pixels go towards the brush's value and never beyond it; the others stay."
    code = '''const before = Noise.canvas(4), after = before.slice(); NoisePage.stroke(after, given.from, given.to, given.value); return [[...before], [...after]]'''
    before, after = map(np.array, run_js(code, {'from': from_, 'to': to, 'value': value}))
    assert len(after) == 784 and np.isfinite(after).all()
    assert (np.abs(after - value) <= np.abs(before - value) + 1e-12).all()
    inside = 0 <= from_[0] < 28 or from_[0]*to[0] < 0
    assert (before != after).any() == inside and (before != after).mean() < .5
    assert not inside or np.isclose(after, value).any()


# Addresses

SENSE = ['#draw=0', '#from=0', '#from=9999', '#by=2.55', '#by=8', '#lambda=1', '#rule=cfgpp&lambda=0', '#in=24', '#scale=4&draw=7&digit=2', '#draw=1&from=2&by=0&lambda=0.25&rule=apg&in=8']
NONSENSE = ['', '#', '#draw', '#draw=', '#draw=10', '#draw=-1', '#draw=1e0', '#draw=%33', '#draw=٣', '#draw=5&draw=6', '#draw=5=6', '#from=10000', '#from=1.5', '#by=8.1', '#by=NaN',
            '#by=.5', '#by=2.001', '#lambda=1.1', '#lambda=2', '#rule=', '#rule=constructor', '#rule=__proto__', '#rule=toString', '#rule=plain&in=13', '#in=0', '#in=1e9', '#in=999999999',
            '#draw=5&by=99', '#draw=' + '1'*10000, '#%E0%A4%A', '#a=b=c', '#&&&=', '#rule=<script>alert(1)</script>', '#__proto__=1&constructor=2']


@needs_node
def test_addresses():
    sense, nonsense, usual = run_js('return [given[0].map(Noise.asked), given[1].map(Noise.asked), Noise.USUAL]', [SENSE, NONSENSE])
    assert [o for o in sense if o == usual] == [] and all(o == usual for o in nonsense)
    assert sense[-1] == dict(draw=1, **{'from': 2}, by=0, **{'lambda': .25}, rule='apg') | {'in': 8}


@needs_node
def test_names_in_the_address_are_this_figure_s_alone():
    own, plane, digits = run_js('return [Noise.USUAL, Play.PRESETS.paper, Digits.USUAL].map(Object.keys)')
    assert not set(own) & (set(plane) | set(digits))


# What stands there when it cannot draw

@needs_node
def test_what_hinders_it():
    code = '''const all = {WebAssembly: {}}, names = ['Worker', 'fetch', 'Float64Array', 'BigInt64Array', 'ImageData', 'MessageChannel', 'Blob']
        for (const k of names) all[k] = class {}
        const said = [...names, 'WebAssembly'].map(k => { const {[k]: gone, ...rest} = all; return NoisePage.hindrance(rest, 'https:') })
        return [NoisePage.hindrance(all, 'https:'), NoisePage.hindrance(all, 'file:'), said, Object.values(NoisePage.WHY)]'''
    fine, folder, lacking, why = run_js(code)
    assert fine is None and folder == 'folder' and set(lacking) == {'old'} and all(re.fullmatch(r'[A-Z][^.]+\.', w) for w in why)


def test_names():
    "Every part that the script looks for is on the page, and nothing on the page is dead."
    script = (NBS_DIR/'theme'/'noise-page.js').read_text(encoding='utf-8')
    asked, there = set(re.findall(r"\bel\('([\w-]+)'\)", script)) | {'digit', 'noisy', 'none', 'label', 'difference', 'guided'}, set(re.findall(r'data-own-part="([\w-]+)"', PART))
    assert len(there) > 20 and asked == there
    assert re.findall(r'data-own-figure="(\d)"', PART) == list('0123456789') and re.findall(r'data-own-brush="(-?\d)"', PART) == ['1', '-1']
    for name in re.findall(r'(?:data-worker|data-setting|src)="([^"]+)"', PART): assert (NBS_DIR/name).is_file(), name
    carried = (ROOT/'_quarto.yml').read_text(encoding='utf-8')
    assert all(f'theme/{name}.js,' in carried for name in ('noise', 'noise-page'))
    for name in ('noise', 'noise-page'): assert 'http' not in (NBS_DIR/'theme'/f'{name}.js').read_text(encoding='utf-8')


@needs_node
@pytest.mark.parametrize('secure', [True, False])
def test_what_arrives_is_compared(secure):
    "By a sum of its own where the browser computes one, by the browser's own comparison elsewhere; never not at all."
    body = b'0123456789'
    mark = 'sha384-' + base64.b64encode(hashlib.sha384(body).digest()).decode()
    code = f'''const asked = []
        if (!{json.dumps(secure)}) Object.defineProperty(globalThis, 'crypto', {{value: undefined}})
        const get = async (text, facts, fetched) => {{
          globalThis.fetch = fetched || (async (url, o) => {{ asked.push(o.integrity || ''); return new Response(text) }})
          return Noise.arrived('x', facts, () => {{}}).then(b => new TextDecoder().decode(b), e => e.message)
        }}
        const fine = {{bytes: 10, integrity: given}}
        return [asked, [await get('0123456789', fine), await get('0123456789x', fine), await get('012', fine), await get('', fine), await get('0123456780', fine),
          await get('', fine, async () => {{ throw new TypeError('failed') }}), await get('', fine, async () => new Response('', {{status: 404}}))]]'''
    asked, said = run_js(code, mark)
    assert said[0] == body.decode() and all('not what was expected' in s for s in said[1:4]) and all('could not be loaded' in s for s in said[5:])
    assert asked == (['']*5 if secure else [mark]*5) and (not secure or 'not what was expected' in said[4])


# Serving: the runtime from node_modules where it is, and compressed

@pytest.mark.parametrize('there', ['nothing', 'another', 'one'])
def test_setting_that_is_served(tmp_path, monkeypatch, there):
    monkeypatch.setattr(serve, 'RUNTIME', tmp_path)
    if there != 'nothing':
        for name in ('script', 'wasm')[:1 if there == 'one' else 2]: (tmp_path/SETTING[name]['name']).write_bytes(b'old')
    assert json.loads(serve.setting()) == SETTING
    for name in ('script', 'wasm'):
        with open(tmp_path/SETTING[name]['name'], 'wb') as f: f.truncate(SETTING[name]['bytes'])
    assert json.loads(serve.setting()) == SETTING | dict(address='../runtime/')


# In a real browser

LACKS = [why for why, there in {'Chromium': any(map(shutil.which, visit.BROWSERS)), 'onnxruntime-web (npm install)': (serve.RUNTIME/noise.WASM).is_file()}.items() if not there]
needs_browser = pytest.mark.skipif(bool(LACKS), reason=f'no {" and no ".join(LACKS)} here')
FIGURE = "document.querySelector('[data-own]')"


class Wrong(serve.Handler):
    "Says what the tests ask it to, in place of a file."
    wrong = {}
    def log_message(self, *args): pass

    def do_GET(self):
        name = self.path.rpartition('/')[2]
        if name not in self.wrong: return super().do_GET()
        if self.wrong[name] is None: return self.send_error(404)
        self.answer(self.wrong[name], 'application/octet-stream')


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pages')/'site'
    folder.mkdir()
    try: serve.assemble(folder)
    except SystemExit as e: pytest.skip(str(e))
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Wrong, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = visit.Browser(str(tmp_path_factory.mktemp('profile')))
    found.attach(), found.dress(visit.DESKTOP)
    found.base = f'http://127.0.0.1:{server.server_port}/'
    yield found
    found.close(), server.shutdown()


@pytest.fixture
def wrong():
    yield Wrong.wrong
    Wrong.wrong.clear()


def until(browser, expression, patience=240):
    "The value of an expression, when it is something."
    end = time.monotonic() + patience
    while not (found := browser.value(expression)) and time.monotonic() < end: time.sleep(.1)
    assert found, (expression, browser.value(f'{FIGURE}.textContent'))
    return found


def load(browser, hash=''):
    browser.open('about:blank')
    browser.open(f'{browser.base}play.html{hash}')
    browser.value(f"{FIGURE}.querySelector('[data-own-part=wake]').click()")


WORKER = '''new Promise((done, failed) => {
  const worker = new Worker('theme/noise.js'), found = []
  let seen = null
  const ask = () => { const o = TRIED[found.length]; worker.postMessage({id: found.length + 1, draw: o}) }
  worker.onmessage = ({data}) => {
    if (data.failed) return done(data.failed)
    if (data.ready) return ask()
    if ('i' in data && data.i === LOOK) seen = data
    if (data.done) {
      const few = x => [...x].filter((_, k) => k % 5 === 0)
      found.push({pixels: few(data.x), none: few(seen.u), own: few(seen.c), noisy: few(seen.x)})
      if (found.length < TRIED.length) ask(); else { worker.terminate(); done(found) }
    }
  }
  worker.postMessage({load: new URL('play/runtime.json', document.baseURI).href})
})'''


@needs_browser
@pytest.mark.timeout(600)
def test_numbers_are_those_of_python(browser):
    "The page's own worker with onnxruntime-web, against what Python stored: the digit, both guesses and the noisy picture."
    browser.open(f'{browser.base}play.html')
    canvas = lambda t: noise.painted(t['noise'], t['painted']).flatten().tolist()
    told = [dict(canvas=canvas(t), digit=t['label'], strength=t['strength'], rule=t['rule'], steps=t['steps']) for t in TRIED]
    found = browser.value(WORKER.replace('TRIED', json.dumps(told)).replace('LOOK', str(noise.LOOK_AT)))
    assert len(found) == len(TRIED), found
    worst = {name: max(gap(f[name], t[name]) for f, t in zip(found, TRIED)) for name in ('pixels', 'none', 'own', 'noisy')}
    print(worst)
    assert max(worst.values()) < 1e-4, worst


@needs_browser
@pytest.mark.timeout(600)
def test_page_draws(browser):
    "Pressed once it loads under 6 MB and draws; each control draws again; what is on the canvas is what Python drew."
    load(browser, '#draw=3&from=1&by=4')
    until(browser, f'{FIGURE}.dataset.done')
    pixels = browser.value(f"[...{FIGURE}.querySelector('[data-own-part=digit]').getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, k) => k % 20 === 0)")
    assert gap(pixels, np.clip(127.5*(np.array(TRIED[1]['pixels']) + 1), 0, 255)) <= .51
    assert float(re.search(r'([\d.]+) MB came', browser.value(f'{FIGURE}.textContent'))[1]) < 6
    ink = f"Math.max(...{FIGURE}.querySelector('[data-own-part=NAME]').getContext('2d').getImageData(0, 0, 28, 28).data.filter((_, k) => k % 4 !== 3))"
    for name in ('noisy', 'none', 'label', 'difference', 'guided'): assert browser.value(ink.replace('NAME', name)) > 20
    assert 'a 3 was asked for, s = 4' in browser.value(f"{FIGURE}.querySelector('[data-own-part=says]').textContent")
    said = set()
    steps = ["querySelector('[data-own-figure=\"8\"]').click()", "querySelector('[data-own-part=new]').click()", "querySelector('[data-own-part=clear]').click()",
             *(f"querySelector('[data-own-part={n}]').value = '{v}'; {FIGURE}.querySelector('[data-own-part={n}]').dispatchEvent(new Event('{e}'))"
               for n, v, e in (('strength', 6, 'input'), ('rule', 'cfgpp', 'change'), ('steps', 8, 'change'))),
             "querySelector('[data-own-part=noise]').dispatchEvent(new KeyboardEvent('keydown', {key: ' '}))"]
    for step in steps:
        before = int(browser.value(f'{FIGURE}.dataset.done'))
        browser.value(f'{FIGURE}.{step}')
        until(browser, f'+{FIGURE}.dataset.done > {before}')
        said.add(browser.value(f"{FIGURE}.querySelector('[data-own-part=digit]').toDataURL()"))
    assert len(said) == len(steps)
    before = int(browser.value(f'{FIGURE}.dataset.done'))
    left, top, side = browser.value(f"(() => {{ const pad = {FIGURE}.querySelector('[data-own-part=noise]'); pad.scrollIntoView({{block: 'center'}}); const b = pad.getBoundingClientRect(); return [b.left, b.top, b.width] }})()")
    for kind, at in ('mousePressed', .2), ('mouseMoved', .8), ('mouseReleased', .8):
        browser.call('Input.dispatchMouseEvent', type=kind, button='left', buttons=1, clickCount=1, x=left + side*at, y=top + side/4)
    until(browser, f'+{FIGURE}.dataset.done > {before}')
    row = f"[...{FIGURE}.querySelector('[data-own-part=noise]').getContext('2d').getImageData(7, 7, 14, 1).data].filter((_, k) => k % 4 === 0)"
    assert min(browser.value(row)) > 200  # a bright line from the first point to the last
    faults = [visit.event_fault(e, browser.base, browser.base) for e in browser.events]
    assert [f for f in faults if f] == []


SENTENCES = {
    'the runtime is not there': ({noise.WASM: None}, 'could not be loaded'),
    'the network is not there': ({f'{noise.SOURCE}.onnx': None}, 'could not be loaded'),
    'the setting is not there': ({'runtime.json': None}, 'could not be loaded'),
    'the setting is no JSON': ({'runtime.json': b'<html>'}, 'could not be loaded'),
    'the script is another': ({noise.SCRIPT: b'alert(1)'}, 'not what was expected'),
    'the network is cut short': ({f'{noise.SOURCE}.onnx': b'x'*1000}, 'not what was expected'),
    'the network is longer': ({f'{noise.SOURCE}.onnx': b'x'*2_000_000}, 'not what was expected'),
    'the network is mixed up': ({f'{noise.SOURCE}.onnx': b'x'*SETTING['network']['bytes']}, 'not what was expected'),
    'the worker is not there': ({}, 'did not start')}


@needs_browser
@pytest.mark.timeout(600)
@pytest.mark.parametrize('kind', SENTENCES)
def test_a_sentence_and_the_picture_where_something_is_missing(browser, wrong, kind):
    answers, said = SENTENCES[kind]
    wrong.update(answers)
    browser.open('about:blank'), browser.open(f'{browser.base}play.html')
    if not answers: browser.value(f"{FIGURE}.dataset.worker = 'theme/nowhere.js'")
    browser.value(f"{FIGURE}.querySelector('[data-own-part=wake]').click()")
    sentence = until(browser, f"{FIGURE}.querySelector('[data-own-part=why]').textContent.includes('stays') && {FIGURE}.querySelector('[data-own-part=why]').textContent")
    assert said in sentence and re.fullmatch(r'[A-Z].+\.', sentence)
    assert browser.value(f"{FIGURE}.querySelector('img').checkVisibility() && {FIGURE}.querySelector('[data-own-part=wake]').checkVisibility()")
    wrong.clear()


BLOCKS = {
    'no WebAssembly': 'delete window.WebAssembly', 'no worker': 'delete window.Worker', 'worker refused': 'window.Worker = class { constructor() { throw new Error("no") } }',
    'storage blocked': "for (const k of ['localStorage', 'sessionStorage', 'caches', 'indexedDB']) Object.defineProperty(window, k, {get() { throw new Error('blocked') }})",
    'no history': "history.replaceState = () => { throw new Error('no') }"}


@needs_browser
@pytest.mark.timeout(600)
@pytest.mark.parametrize('kind', BLOCKS)
def test_browsers_that_lack_something(browser, kind):
    "A picture with a sentence where it cannot draw; where what is missing is not needed, the button stands there."
    script = browser.call('Page.addScriptToEvaluateOnNewDocument', source=BLOCKS[kind])['identifier']
    try:
        browser.open('about:blank'), browser.open(f'{browser.base}play.html#draw=2&from=3')
        wake = f"{FIGURE}.querySelector('[data-own-part=wake]')"
        if kind == 'worker refused': browser.value(f'{wake}.click()')
        assert browser.value(f"{FIGURE}.querySelector('img').checkVisibility()")
        assert browser.value(f'{wake}.checkVisibility()') == (kind not in ('no WebAssembly', 'no worker'))
        needed = kind in ('storage blocked', 'no history')
        assert needed or re.search(r'lacks|refused', browser.value(f"{FIGURE}.querySelector('[data-own-part=why]').textContent"))
    finally: browser.call('Page.removeScriptToEvaluateOnNewDocument', identifier=script)


@needs_browser
@pytest.mark.timeout(600)
def test_less_motion(browser):
    "Nothing is drawn at a change, only when the button is pressed."
    browser.call('Emulation.setEmulatedMedia', features=[dict(name='prefers-reduced-motion', value='reduce')])
    try:
        load(browser)
        assert until(browser, f'{FIGURE}.dataset.done') == '1'
        browser.value(f"{FIGURE}.querySelector('[data-own-figure=\"8\"]').click()")
        time.sleep(.5)
        assert browser.value(f'{FIGURE}.dataset.busy') == '1'
        browser.value(f"{FIGURE}.querySelector('[data-own-part=draw]').click()")
        assert until(browser, f"{FIGURE}.dataset.done === '2'")
    finally: browser.call('Emulation.setEmulatedMedia', features=[dict(name='prefers-reduced-motion', value='no-preference')])


@needs_browser
@pytest.mark.timeout(600)
def test_phone(browser):
    "Slider, label, noise and digit are seen together on a phone, and nothing scrolls sideways."
    parts = [f'[data-own-part={name}]' for name in ('noise', 'digit', 'strength', 'draw', 'new')] + ['[data-own-figure="9"]']
    try:
        load(browser)
        until(browser, f'{FIGURE}.dataset.done')
        for wide, high in (390, 844), (360, 740):
            browser.dress((wide, high))
            boxes = browser.value(f"{json.dumps(parts)}.map(p => {{ const b = {FIGURE}.querySelector(p).getBoundingClientRect(); return [b.top, b.bottom, b.left, b.right, b.height] }})")
            assert max(b[1] for b in boxes) - min(b[0] for b in boxes) < high - 200 and all(b[2] >= 0 and b[3] <= wide for b in boxes)
            assert browser.value('document.documentElement.scrollWidth <= innerWidth')
            assert boxes[0][4] > 140 and abs(boxes[0][4] - boxes[1][4]) < 1
    finally: browser.dress(visit.DESKTOP)
