"The page to play with: its mathematics in JavaScript is that of the package, and its sentences hold."
import json, re, shutil, subprocess

import pytest, torch

from cfg_course.guidance import guide
from cfg_course.mixtures import Mixture, fractal_tree, three_gaussians, unequal_modes
from cfg_course.samplers import make_sampler, trajectory
from notebooks import NBS_DIR

SCRIPT, PAGE = NBS_DIR/'theme'/'play.js', NBS_DIR/'play.qmd'
WORLDS = dict(threeGaussians=three_gaussians, unequalModes=unequal_modes, fractalTree=fractal_tree)
needs_node = pytest.mark.skipif(not shutil.which('node'), reason='no node here, which runs the page\'s JavaScript')


def run_js(code):
    "What `code` prints as JSON, with the page's functions in `Play`."
    script = f'const Play = require({json.dumps(str(SCRIPT))}); console.log(JSON.stringify((() => {{ {code} }})()))'
    return json.loads(subprocess.run(['node', '-e', script], capture_output=True, text=True, check=True).stdout)


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


def test_names():
    "Every control that the script looks for is on the page, and every preset has its button and its sentence."
    page, script = PAGE.read_text(encoding='utf-8'), SCRIPT.read_text(encoding='utf-8')
    asked = set(re.findall(r"\bel\('([\w-]+)'\)", script))
    assert len(asked) > 15 and asked <= set(re.findall(r'data-play="([\w-]+)"', page))
    presets = re.findall(r'^  (\w+): \{world', script, re.M)
    for kind in ('preset', 'about'): assert sorted(presets) == sorted(re.findall(rf'data-{kind}="(\w+)"', page)), kind
