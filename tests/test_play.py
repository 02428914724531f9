"The page to play with: its mathematics in JavaScript is that of the package, and its sentences hold."
import json, re, shutil, subprocess, sys
from html.parser import HTMLParser

import numpy as np, pytest, torch
from PIL import Image

from cfg_course.core import NULL
from cfg_course.guidance import guide
from cfg_course.mixtures import Mixture, fractal_tree, three_gaussians, unequal_modes
from cfg_course.samplers import make_sampler, trajectory
from notebooks import NBS_DIR, ROOT

sys.path.insert(0, str(ROOT/'tools'))
import play

SCRIPT, PAGE, FILES = NBS_DIR/'theme'/'play.js', NBS_DIR/'play.qmd', NBS_DIR/'play'
TEXT, MADE = PAGE.read_text(encoding='utf-8'), json.loads((FILES/'play.json').read_text())
WORLDS = dict(threeGaussians=three_gaussians, unequalModes=unequal_modes, fractalTree=fractal_tree)
needs_node = pytest.mark.skipif(not shutil.which('node'), reason='no node here, which runs the page\'s JavaScript')


def run_js(code):
    "What `code` prints as JSON, with the page's functions in `Play`."
    files = json.dumps([str(SCRIPT.with_name(f'{name}.js')) for name in ('play', 'digits', 'digits-page')])
    script = f'''globalThis.Play = require({files}[0]); globalThis.Digits = require({files}[1]); const DigitsPage = require({files}[2])
                 const bytes = require('fs').readFileSync({json.dumps(str(FILES/'digits.bin'))}), file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length)
                 console.log(JSON.stringify((() => {{ {code} }})()))'''
    done = subprocess.run(['node', '-'], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def points(seed, n=6, spread=2.):
    return spread*torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@needs_node
@pytest.mark.parametrize('js, world', WORLDS.items(), ids=list(WORLDS))
@pytest.mark.parametrize('sigma', [1e-2, .5, 7.])
def test_worlds(js, world, sigma):
    "Denoiser and log density of every class, and of all."
    world, x = world(), points(1)
    for y in (-1, 0, 1):
        code = f'return {x.tolist()}.map(p => {{ const D = [0, 0], l = Play.look(Play.{js}(), ...p, {sigma}, {y}, D); return [...D, l] }})'
        found = torch.tensor(run_js(code), dtype=torch.float64)
        labels = torch.full((len(x),), y)
        torch.testing.assert_close(found[:, :2], world(x, sigma, labels), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found[:, 2], world.log_prob(x, sigma, labels), rtol=1e-8, atol=1e-8)


def draw_js(js, x, method, steps, o, weak='null', levels=(.02, 40.)):
    code = f'''const P = Play, model = P.{js}(), d = P.guided(model, {json.dumps(o)}, {weak}), levels = P.karras({steps}, {levels[0]}, {levels[1]})
               return {x.tolist()}.map(p => P.path(d, p, levels, '{method}', () => .5))'''
    return torch.tensor(run_js(code), dtype=torch.float64).transpose(0, 1)


@needs_node
@pytest.mark.parametrize('js, scale', [('threeGaussians', 0.), ('threeGaussians', 4.), ('unequalModes', 3.), ('fractalTree', 2.)])
@pytest.mark.parametrize('method, options', [('heun', {}), ('ddim', {}), ('ddpm', dict(v=0.))])
def test_paths(js, scale, method, options):
    "Guided in an interval, every position of every sample at every level; the fresh noise is a constant."
    world, x = WORLDS[js](), 40*points(2, spread=1.)
    step, sigmas = make_sampler(method, 9, 'karras', .02, 40., **options)
    guided, y = guide(world, scale=scale, interval=(.1, 5.)), torch.zeros(len(x), dtype=torch.long)
    ours = torch.stack([x] + [r.x for r in trajectory(guided, x, sigmas, y, step, noise=lambda: torch.full_like(x, .5))])
    found = draw_js(js, x, method, 9, dict(label=0, scale=scale, lo=.1, hi=5.))
    torch.testing.assert_close(found, ours, rtol=1e-6, atol=1e-6)
    everywhere = draw_js(js, x, method, 9, dict(label=0, scale=scale, lo=0, hi=100))
    assert (everywhere - ours).abs().max() > 1e-3


@needs_node
def test_worse_model():
    "Autoguidance: against the same class of a blurred world."
    world, x = three_gaussians(), 40*points(3, spread=1.)
    worse = Mixture(world.means, world.covs() + .25*torch.eye(2, dtype=torch.float64))
    step, sigmas = make_sampler('heun', 9, 'karras', .02, 40.)
    y = torch.ones(len(x), dtype=torch.long)
    *_, last = trajectory(guide(world, scale=3., weak=worse), x, sigmas, y, step)
    found = draw_js('threeGaussians', x, 'heun', 9, dict(label=1, scale=3, lo=0, hi=100), 'P.blurred(model, .5)')
    torch.testing.assert_close(found[-1], last.x, rtol=1e-6, atol=1e-6)


@needs_node
def test_yardstick():
    "True samples score as the truth does; spread and threshold are those of many samples of the package."
    code = '''const P = Play, w = P.unequalModes(), yard = P.yardstick(w, 0), m = P.measured(P.drawn(w, 0, 4000, P.stream(5)), yard)
              return [yard.spread, yard.cut, m.recognised, m.spread, m.outside]'''
    spread, cut, recognised, relative, outside = run_js(code)
    world = unequal_modes()
    x = world.sample(torch.zeros(100_000, dtype=torch.long), generator=torch.Generator().manual_seed(4))
    exact = world.moments(0)[1].trace().sqrt().item()
    assert abs(spread/exact - 1) < .02 and abs(relative - 1) < .02
    assert .0003 < (world.log_prob(x, 0., 0) < cut).double().mean() < .0025 and outside < .004
    assert abs(recognised - (world.posterior(x)[:, 0] > .5).double().mean().item()) < .005


def measure(*settings):
    "What is measured on 600 samples of each setting, and the share of them below the middle."
    return run_js(f'''return {json.dumps(settings)}.map(o => {{
          const ends = [...Array(600).keys()].map(Play.sampler({{...Play.USUAL, ...o}})).map(p => p.at(-1))
          return {{...Play.measured(ends, Play.yardstick(Play.WORLDS[o.world].parts, 0)), low: ends.filter(p => p[1] < 0).length/600}}
        }})''')


@needs_node
def test_sentences():
    "What the page says of its settings."
    three = measure(*(dict(world='three', scale=s, step=k, steps=n) for s in (1, 4) for k, n in (('heun', 18), ('ddim', 6))))
    heun1, long1, heun4, long4 = (o['spread'] for o in three)
    assert three[0]['recognised'] < .95 < .99 < three[2]['recognised']
    assert heun4 < .8*heun1 and long1 < .8*heun1 and long4 < .7*heun4
    modes = [o['low'] for o in measure(*(dict(world='modes', scale=s) for s in (1, 2, 4, 8)))]
    assert abs(modes[0] - .25) < .05 and modes == sorted(modes, reverse=True) and modes[3] < .7*modes[0]
    tree = measure(dict(world='tree', scale=1), *(run_js('return Play.PRESETS')[name] for name in ('tree', 'interval', 'auto')))
    none, plain, inside, auto = (o['outside'] for o in tree)
    assert auto < .3*none and inside < 1.3*none and plain > 1.5*none
    spreads = [o['spread'] for o in tree]
    assert spreads[1] < .9 < .95 < min(spreads[0], spreads[2], spreads[3])


@needs_node
@pytest.mark.parametrize('o', [dict(world='three', label=1, scale=3.), dict(world='modes', label=0, scale=0.), dict(world='tree', label=0, scale=2.),
                               dict(world='three', label=0, scale=3., weak='worse'), dict(world='three', label=0, scale=3., lo=5, hi=9)])
def test_arrow(o):
    "The two guesses of a dot and the guided one, which lies on the line through them; outside of the interval it is the one with the label."
    x, o = 2*points(5), dict(dict(weak='label', lo=0, hi=100), **o)
    found = run_js(f'return {x.tolist()}.map(p => Play.guesses({json.dumps(o)}, p, .8))')
    world = dict(three=three_gaussians, modes=unequal_modes, tree=fractal_tree)[o['world']]()
    wide = lambda w, blur: Mixture(w.means, w.covs() + blur**2*torch.eye(2, dtype=torch.float64), w.weights, w.labels)
    model = wide(world, .03) if o['world'] == 'tree' else world
    weak = wide(world, .5) if o['weak'] == 'worse' else model
    labels = torch.full((len(x),), o['label'])
    u, c = weak(x, .8, labels if o['weak'] == 'worse' else torch.full_like(labels, NULL)), model(x, .8, labels)
    for name, want in dict(u=u, c=c, guided=u + o['scale']*(c - u) if o['lo'] == 0 else c).items():
        torch.testing.assert_close(torch.tensor([f[name] for f in found], dtype=torch.float64), want, rtol=1e-7, atol=1e-7)


@needs_node
def test_arrow_is_shown_where_the_guesses_differ_and_in_view():
    code = '''return Object.values(Play.PRESETS).map(o => [...Array(20).keys()].map(k => {
              const path = Play.sampler(o)(k), sigmas = Play.karras(o.steps, ...Play.WORLDS[o.world].levels), i = Play.widest(o, path, sigmas)
              const {guided} = Play.guesses(o, path[i], sigmas[i]), [x, y, half] = Play.WORLDS[o.world].view
              return i >= 0 && i < o.steps && Math.max(Math.abs(guided[0] - x), Math.abs(guided[1] - y)) < half })).flat()'''
    assert sum(run_js(code)) >= 138  # of 140; a dot may be outside all the way


@needs_node
def test_the_ringed_dot_has_an_arrow_to_see():
    "In every setting that the page begins with, guidance acts there; and mostly the arrow crosses a tenth of the view."
    code = '''return Object.values(Play.PRESETS).map(o => {
              const draw = Play.sampler(o), paths = [...Array(30).keys()].map(draw), sigmas = Play.karras(o.steps, ...Play.WORLDS[o.world].levels)
              const k = Play.telling(o, paths, sigmas), i = Play.widest(o, paths[k], sigmas), {u, c, guided} = Play.guesses(o, paths[k][i], sigmas[i])
              return [o.lo < sigmas[i] && sigmas[i] <= o.hi, Math.hypot(guided[0] - u[0], guided[1] - u[1])/Play.WORLDS[o.world].view[2]/2] })'''
    inside, long = zip(*run_js(code))
    assert all(inside) and sum(v > .1 for v in long) >= len(long) - 2 and min(long) > .004, long


# Addresses

SENSE = ['#world=tree&scale=3', '#scale=0', '#world=modes&label=1&steps=64', '#lo=0.011220184543019634&hi=0.5011872336272722',
         '#label=0&lo=0&hi=100&weak=worse&step=ddpm&steps=4&world=three&scale=8', '#scale=2&digit=7']
NONSENSE = ['', '#', '#scale', '#scale=', '#scale=-1', '#scale=9', '#scale=1e0', '#scale=0x2', '#scale=NaN', '#scale=Infinity', '#scale=2&scale=3',
            '#scale= 2', '#scale=2%00', '#scale=٣', '#world=constructor', '#world=__proto__', '#world=toString&scale=2', '#step=valueOf', '#weak=none',
            '#label=7', '#label=0.5', '#label=2&world=tree', '#steps=3', '#steps=65', '#steps=4.5', '#lo=5&hi=1', '#hi=101', '#lo=', '#%E0%A4%A',
            '#points', '#scale=' + '9'*10000, '#world=<script>alert(1)</script>', '#__proto__=1&constructor=2']


@needs_node
def test_addresses_of_the_plane():
    sense, nonsense, usual = run_js(f'return [{json.dumps(SENSE)}.map(Play.asked), {json.dumps(NONSENSE)}.map(Play.asked), Play.PRESETS.paper]')
    assert [o for o in sense if o == usual] == [] and all(o == usual for o in nonsense)
    assert sense[3]['lo'] == 0.011220184543019634 and sense[4]['weak'] == 'worse'


BAD_DIGITS = ['', '#', '#digit', '#digit=', '#digit=10', '#digit=-1', '#digit=1.5', '#digit=3e0', '#digit=constructor', '#digit=%33', '#noise=10000',
              '#noise=1.0', '#strength=8.1', '#strength=NaN', '#strength=.5', '#strength=2.001', '#way=constructor', '#way=__proto__', '#way=', '#way=cfg',
              '#digit=5&way=nothing', '#digit=5&strength=99', '#digit=5&noise=x', '#digit=٣', '#%E0%A4%A', '#digit=' + '1'*10000, '#a=b=c', '#&&&=']


@needs_node
def test_addresses_of_the_digits():
    code = f'''const all = []
        for (const digit of [0, 9]) for (const noise of [0, 9999]) for (const strength of [0, 2.55, 8]) for (const way of Object.keys(Digits.RULES)) all.push({{digit, noise, strength, way}})
        const there = all.map(o => Digits.asked('#scale=4&' + new URLSearchParams(o)))
        return [JSON.stringify(all) === JSON.stringify(there), {json.dumps(BAD_DIGITS)}.map(Digits.asked), Digits.USUAL]'''
    same, bad, usual = run_js(code)
    assert same and all(o == usual for o in bad)


# The world of digits

@pytest.fixture(scope='module')
def digits(): return play.shipped()


def gap(a, b): return np.abs(np.subtract(a, b, dtype=float)).max()


@needs_node
def test_digits_are_those_of_the_package():
    "Every number of the figure, for every rule: digit, likelihood, mode, class posterior, and on the way both guesses and the guided one."
    code = f'''const w = Digits.build(file)
        return {json.dumps(MADE['values']['tried'])}.map(t => {{
          const f = Digits.draw(w, {{digit: t.label, noise: t.noise, scale: t.scale, rule: t.rule}}), few = x => [...Digits.picture(w, x, f.across)].filter((_, i) => i % 9 === 0)
          const sure = f.way.map(s => s.sure[t.label]), {{u, c, guided}} = f.way[4]
          return {{log_prob: f.logProb, log_class: f.logClass, mode: f.mode, share: f.share, pixels: few(f.x), sure, none: few(u), own: few(c), guided: few(guided)}}
        }})'''
    found = run_js(code)
    assert {t['rule'] for t in MADE['values']['tried']} == set(play.RULES) and len(found) == len(play.TRIED)
    for got, want in zip(found, MADE['values']['tried']):
        want = want | dict(sure=want['sure'][:-1])
        assert got['mode'] == want['mode']
        for name in got: assert gap(got[name], want[name]) < 1e-4, name


@pytest.mark.parametrize('i', [1, 4, 7, 8])
def test_stored_values_are_those_of_the_package(digits, i):
    got, want = play.facts_of(digits, *play.TRIED[i])._asdict(), MADE['values']['tried'][i]
    assert got['mode'] == want['mode'] and got['rule'] == want['rule']
    for name in ('log_prob', 'log_class', 'share', 'pixels', 'sure', 'none', 'own', 'guided'): assert gap(got[name], want[name]) < 1e-5, name


@needs_node
@pytest.mark.parametrize('sigma', [.01, .4, 3., 60.])
def test_digits_denoiser(digits, sigma):
    "At true digits with noise, for every label: the guess, and the shares of the classes."
    y = torch.arange(10)
    x = digits.sample(y, sigma, torch.Generator().manual_seed(3))
    code = f'''const w = Digits.build(file)
        return {x.flatten(1).tolist()}.map((p, i) => [-1, i].map(label => {{
          const [z, across] = Digits.inside(w, Float64Array.from(p))
          w.last = null
          Digits.look(w, z, {sigma**2}, i)
          return [...Digits.picture(w, Digits.denoised(w, z, {sigma**2}, label), across), Math.exp(Digits.sumOf(w, i) - Digits.sumOf(w, -1))]
        }}))'''
    found = torch.tensor(run_js(code), dtype=torch.float64)
    for k, labels in enumerate((torch.full((10,), NULL), y)):
        torch.testing.assert_close(found[:, k, :-1], digits(x, sigma, labels).flatten(1), rtol=0, atol=1e-7)
    torch.testing.assert_close(found[:, 0, -1], digits.posterior(x, sigma).diagonal(), rtol=0, atol=1e-9)


@needs_node
def test_modes_that_are_passed_over_do_not_matter():
    "A path with the bounds, and what all modes say at each of its points; and the work that this saves is what the page says."
    code = '''const w = Digits.build(file), far = []
        let passed = 0
        for (const [digit, noise, scale, rule] of [[3, 1, 3, 'plain'], [8, 4, 8, 'plain'], [1, 2, 0, 'plain'], [5, 6, 8, 'across'], [0, 3, 1, 'plain'], [7, 9, 8, 'interval']]) {
          const f = Digits.draw(w, {digit, noise, scale, rule})
          passed += f.passed/6
          for (const s of f.way) {
            Digits.look(w, s.x, s.sigma**2, digit, true)
            for (const [name, label] of [['u', -1], ['c', digit]]) { const D = Digits.denoised(w, s.x, s.sigma**2, label); far.push(Math.max(...D.map((v, k) => Math.abs(v - s[name][k])))) }
          }
        }
        return [Math.max(...far), passed]'''
    away, passed = run_js(code)
    said = int(re.search(r'saves about (\d+) % of the work', TEXT)[1])
    assert away < 1e-8 and abs(100*passed - said) < 5


@needs_node
def test_asking_twice_gives_the_same():
    "Whatever was drawn before, and whether the noise was kept or not."
    code = '''const w = Digits.build(file), o = {digit: 4, noise: 3, scale: 2.5, rule: 'plain'}, said = () => { const f = Digits.draw(w, o), {bytes, ...rest} = Digits.answer(w, f, o), all = {...bytes, ...Digits.strips(w, f, o).bytes}; return JSON.stringify([rest, Object.values(all).map(b => Digits.sum(b))]).replace(/"passed":[^,]*/, '') }
        const first = said(); const numbers = [first, said()]
        for (const change of [{digit: 9}, {noise: 8}, {scale: 8}, {rule: 'rescale'}]) { Digits.draw(w, {...o, ...change}); numbers.push(said()) }
        return numbers'''
    first, *others = run_js(code)
    assert all(o == first for o in others)


def test_file_is_small_and_close_to_the_shipped_world(digits):
    assert (FILES/'digits.bin').stat().st_size == MADE['world']['bytes'] < 2_500_000 and MADE['world']['coordinates'] == play.K
    full, _ = play.find_world(play.WORLD)
    assert digits.labels.tolist() == full.labels.tolist() and digits.floor == full.floor
    x = full.sample(torch.arange(10), generator=torch.Generator().manual_seed(5))
    away = 127.5*(digits(x, .3, torch.arange(10)) - full(x, .3, torch.arange(10)))
    assert away.square().mean().sqrt() < 8
    assert digits.posterior(x, .1).argmax(1).tolist() == full.posterior(x, .1).argmax(1).tolist()
    made = MADE['values']['effect']
    assert made['median'] < 8 and made['same_mode'] > .85 and made['same_class'] == 1


def test_file_is_what_the_tool_writes():
    "All but the rounding of a few numbers, which may depend on the machine."
    full, _ = play.find_world(play.WORLD)
    again = play.unpack(play.packed(play.to_file(full), full.floor))
    assert (again.means - play.shipped().means).abs().max() < .05
    assert (again.variances - play.shipped().variances).abs().max() < 1e-5


@needs_node
def test_damaged_files_are_refused_with_a_sentence():
    code = '''const bytes = new Uint8Array(file), changed = (at, v) => { const b = bytes.slice(); b[at] = v; return b.buffer }
        const text = String.fromCharCode(...bytes.subarray(0, 1200)), old = bytes.slice(), at = text.indexOf('digits 1') + 7
        old[at] = 48
        const cases = [new ArrayBuffer(0), new ArrayBuffer(5000), bytes.slice(0, 900000).buffer, bytes.slice(0, 300).buffer, changed(700000, bytes[700000] ^ 1), changed(1451000, bytes[1451000] ^ 128), changed(3, 0), changed(text.indexOf('floor') + 12, 53), old.buffer,
          new TextEncoder().encode('<!doctype html>\\n<title>not here</title>').buffer, new TextEncoder().encode('null\\n').buffer, new TextEncoder().encode('{}\\n').buffer]
        return cases.map(c => { try { Digits.build(c); return 'built' } catch (e) { return e.message } })'''
    for said in run_js(code): assert re.fullmatch(r'(this is not the file of digits|the file of digits (is of another version than this page|arrived damaged))', said), said


@needs_node
def test_sentences_of_the_digits():
    "What the page says of scale, likelihood and the small bars."
    code = '''const w = Digits.build(file)
        return [0, 1, 3, 8].map(scale => [...Array(40).keys()].map(i => { const f = Digits.draw(w, {digit: i % 10, noise: 20 + i, scale, rule: 'plain'}); return [f.logProb, f.way[5].sure[i % 10], Math.exp(f.logClass[i % 10])] }))'''
    none, one, three, eight = np.array(run_js(code)).transpose(0, 2, 1)
    low, high = MADE['values']['typical']
    assert np.median(none[0]) < -10_000 and (none[2] < .5).mean() > .75
    assert one[1].mean() < three[1].mean() < eight[1].mean() and (one[2] > .999).all() and (eight[2] > .999).all()
    assert low - 40 < one[0].mean() < high and one[0].mean() - 30 < three[0].mean() < one[0].mean() + 30 and one[0].mean() - 80 < eight[0].mean() < one[0].mean() + 20
    assert f'between {low:,.0f} and {high:,.0f}' in TEXT


def test_numbers_in_the_text():
    made, effect = MADE['world'], MADE['values']['effect']
    assert f'data-bytes="{made["bytes"]}"' in TEXT and f'(loads {made["bytes"]/1e6:.1f} MB)' in TEXT and f'{made["coordinates"]} coordinates instead of {play.SIDE**2} pixels' in TEXT
    assert f'by {effect["median"]:.0f} of 255 grey levels in the median' in TEXT and f'and {100*effect["same_mode"]:.0f} of 100 have the same mode' in TEXT
    assert f'largest difference is {effect["worst"]:.0f} grey levels' in TEXT and f'in {play.STEPS} steps' in TEXT
    assert f'from {play.INSIDE[0]:g} to {play.INSIDE[1]:g}' in TEXT and '300 *modes*, 30 for each digit' in TEXT


# The figures and what stands there when they cannot move

@needs_node
def test_what_hinders_the_digits():
    code = '''const all = {}, names = ['Worker', 'fetch', 'Float64Array', 'Int8Array', 'Uint8ClampedArray', 'ImageData', 'Map']
        for (const k of names) all[k] = class {}
        const said = names.map(k => { const {[k]: gone, ...rest} = all; return DigitsPage.hindrance(rest, 'https:') })
        return [DigitsPage.hindrance(all, 'https:'), DigitsPage.hindrance(all, 'http:'), DigitsPage.hindrance(all, 'file:'), ...said, Object.values(DigitsPage.WHY)]'''
    fine, plain, folder, *lacking, why = run_js(code)
    assert fine is plain is None and folder == 'folder' and set(lacking) == {'old'}
    assert all(re.fullmatch(r'[A-Z][^.]+\.', w) for w in why)


class Tags(HTMLParser):
    "All tags of a text with their attributes."
    def __init__(self, text): super().__init__(); self.found = []; self.feed(text)
    def handle_starttag(self, tag, attrs): self.found.append((tag, dict(attrs)))


RAW = ''.join(re.findall(r'^```\{=html\}\n(.*?)^```$', TEXT, re.M | re.S))
TAGS = Tags(RAW).found


def test_without_javascript_there_are_pictures_and_no_dead_control():
    "Each figure has a picture and a sentence that are seen from the start; what moves is hidden until it does."
    for name in ('still', 'why', 'live'): assert sum(f'data-{name}' in o for _, o in TAGS) >= 2
    assert all('hidden' in o for _, o in TAGS if 'data-live' in o) and not any('hidden' in o for _, o in TAGS if 'data-still' in o or 'data-why' in o)
    assert all('hidden' in o for _, o in TAGS if o.get('data-digit') in ('wake', 'wait'))


def test_pictures_and_controls_have_words():
    for tag, o in TAGS:
        if tag == 'img': assert len(o['alt']) > 40 and (int(o['width']), int(o['height'])) == Image.open(NBS_DIR/o['src']).size
        if tag == 'canvas': assert o['role'] == ('application' if 'tabindex' in o else 'img') and len(o['aria-label']) > 15
    inside = re.findall(r'<label(?:(?!</label>).)*<(?:input|select)', RAW, re.S)
    assert len(inside) + sum('aria-label' in o for tag, o in TAGS if tag == 'input') == sum(tag in ('input', 'select') for tag, _ in TAGS)


def test_files_of_the_page_are_there_and_go_with_the_site():
    asked = [o[k] for _, o in TAGS for k in ('src', 'href', 'data-worker', 'data-file') if k in o]
    assert len(asked) > 6 and [o for o in asked if not (NBS_DIR/o).is_file()] == []
    carried = re.search(r'resources: \[(.*)\]', (ROOT/'_quarto.yml').read_text(encoding='utf-8'))[1].split(', ')
    assert {o if o.startswith('theme') else 'play' for o in asked} <= set(carried)
    for name in ('digits', 'digits-page', 'play'): assert 'http' not in (NBS_DIR/'theme'/f'{name}.js').read_text(encoding='utf-8')


def test_command_names_its_parts(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['play.py', 'digit'])
    with pytest.raises(SystemExit): play.main()
    assert "no part 'digit'; there are world, values, digits, plane" in capsys.readouterr().err


def test_names_of_the_digits():
    "Every part that the script of the digits looks for is on the page, and every rule is in the list, with its sentence."
    script = (NBS_DIR/'theme'/'digits-page.js').read_text(encoding='utf-8')
    asked, there = set(re.findall(r"\bel\('([\w-]+)'\)", script)), set(re.findall(r'data-digit="([\w-]+)"', TEXT))
    assert len(asked) > 12 and asked <= there and {'digit', 'mean', 'noisy', 'none', 'label', 'difference', 'guided'} <= there
    rules = re.search(r'data-digit="rule">(.*?)</select>', TEXT)[1]
    assert re.findall(r'value="(\w+)"', rules) == list(play.RULES)
    assert re.findall(r'data-figure="(\d)"', TEXT) == list('0123456789')


def test_names():
    "Every control that the script looks for is on the page, and every preset has its button and its sentence."
    page, script = PAGE.read_text(encoding='utf-8'), SCRIPT.read_text(encoding='utf-8')
    asked = set(re.findall(r"\bel\('([\w-]+)'\)", script))
    assert len(asked) > 15 and asked <= set(re.findall(r'data-play="([\w-]+)"', page))
    presets = re.findall(r'^  (\w+): \{world', script, re.M)
    for kind in ('preset', 'about'): assert sorted(presets) == sorted(re.findall(rf'data-{kind}="(\w+)"', page)), kind
