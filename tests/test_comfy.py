"""ComfyUI's call, its nodes, and five research codes.

Nothing of those codes is in here: `Sampling`, `Patcher` and the networks below are written after what they call, in our words.
Where k-diffusion and denoising-diffusion-pytorch are installed, they themselves are asked, too.
"""
import ast, inspect, itertools, json, math, os, re, shutil, subprocess, sys
from types import SimpleNamespace

import pytest, torch
from setuptools import find_packages

import comfy
from cfg_course.adapters import step_to_sigma
from cfg_course.branches import Label
from cfg_course.catalogue import SHELVES
from cfg_course.classifiers import classifier_guidance
from cfg_course.comfy import (from_edm, from_guided_classifier, from_guided_diffusion, from_kdiffusion, from_lucidrains, from_sit,
    to_comfy, to_edm, to_sit)
from cfg_course.core import NULL, InputError, follow, rng
from cfg_course.denoisers import Counted, known_classes
from cfg_course.guidance import LINEAR, Rule, Term, guide, interval, make_method
from cfg_course.histories import momentum
from cfg_course.rules import apg, tcfg
from cfg_course.samplers import heun_step, trajectory
from cfg_course.schedules import karras_grid
from cfg_course.scores import FROM_X0, z_to_x
from notebooks import ROOT, cells, src

SHAPE, K = (3, 3, 16, 16), 6
Y, MIXED = torch.tensor([0, 4, 1]), torch.tensor([2, NULL, 5])
TWO = [name for name, method in SHELVES['rule'].items() if 'asks again' not in method.traits]  # rules of two predictions
REMEMBER = [name for name in TWO if 'remembers' in SHELVES['rule'][name].traits]


def randn(*key, shape=SHAPE): return torch.randn(shape, generator=rng(*key), dtype=torch.float64)
def rule_of(name): return make_method(SHELVES['rule'], name)
def gap(a, b): return ((a.double() - b.double()).abs().max()/b.double().abs().max()).item()


def world(x, sigma, y):
    "Something like a denoiser, lively in all it is told; in the type of `x`."
    s = torch.as_tensor(sigma, dtype=torch.float64).expand(len(x)).reshape(-1, 1, 1, 1)
    y = y.double().reshape(-1, 1, 1, 1)
    wide = x.double()
    flat = (wide/(1 + s) + .7*y).sin() + .3*wide.flip(-1)/(1 + s)
    return (wide/(1 + s**2) + s/(1 + s)*flat).to(x.dtype)


# A stand-in of ComfyUI

class EPS:
    "How its samplers keep the sample, and what a network's output means: noise here."
    flow, data = False, 1.
    def read(self, z, level, out): return z - level*out
    def output(self, z, level, D): return (z - D)/level

class V_PREDICTION(EPS):
    def read(self, z, level, out): return z*self.data**2/(level**2 + self.data**2) - out*level*self.data/(level**2 + self.data**2)**.5
    def output(self, z, level, D): return (z*self.data**2/(level**2 + self.data**2) - D)*(level**2 + self.data**2)**.5/(level*self.data)

class EDM(V_PREDICTION):
    data = .5
    def read(self, z, level, out): return z*self.data**2/(level**2 + self.data**2) + out*level*self.data/(level**2 + self.data**2)**.5
    def output(self, z, level, D): return (D - z*self.data**2/(level**2 + self.data**2))*(level**2 + self.data**2)**.5/(level*self.data)

class X0(EPS):
    def read(self, z, level, out): return out
    def output(self, z, level, D): return D

class CONST:
    "A model of flows: the level is the time."
    flow = True
    def read(self, z, level, out): return z - level*out
    def output(self, z, level, D): return (z - D)/level

class IMG_TO_IMG(X0): "A model that takes a picture for noise."

KINDS = dict(eps=EPS, v=V_PREDICTION, edm=EDM, x0=X0, flow=CONST)


class Patcher:
    "A model of ComfyUI with its options; only what nodes touch."
    def __init__(self, kind='eps', options=None):
        self.sampling = type('ModelSamplingOfIts', (KINDS.get(kind, IMG_TO_IMG),), {})()  # made on the spot, as it does
        self.model = SimpleNamespace(model_sampling=self.sampling)
        self.options = dict(options or {})

    def clone(self): return Patcher.__new__(Patcher)._take(self)
    def _take(self, other):
        self.sampling, self.model, self.options = other.sampling, other.model, dict(other.options)
        return self

    def set_model_sampler_cfg_function(self, function, disable_cfg1_optimization=False):
        if len(inspect.signature(function).parameters) == 3: self.options['function'] = lambda args: function(args['cond'], args['uncond'], args['cond_scale'])
        else: self.options['function'] = function
        if disable_cfg1_optimization: self.options['always'] = True

    def predict(self, z, level, y):
        "A network's output, read as the model reads it."
        at = level.reshape(-1, 1, 1, 1)
        sigma = level/(1 - level) if self.sampling.flow else level
        x = z/(1 - at) if self.sampling.flow else z
        D = world(x, sigma, y)
        return self.sampling.read(z, at, self.sampling.output(z, at, D))

    def ask(self, z, level, cfg, y=Y):
        "What a sampler gets; without a negative prompt its prediction is nought."
        level = torch.as_tensor(level, dtype=z.dtype).expand(len(z))
        c, u = self.predict(z, level, y), torch.zeros_like(z)
        if not (math.isclose(cfg, 1.) and 'always' not in self.options): u = self.predict(z, level, torch.full_like(y, NULL))
        if 'function' not in self.options: return u + (c - u)*cfg
        return z - self.options['function'](dict(cond=z - c, uncond=z - u, cond_scale=cfg, timestep=level, input=z, sigma=level,
            cond_denoised=c, uncond_denoised=u, model=self.model, model_options=self.options))


def patched(kind, rule, scale=None, looks=1):
    patcher = Patcher(kind)
    patcher.set_model_sampler_cfg_function(to_comfy(rule, scale, looks), disable_cfg1_optimization=scale is not None)
    return patcher


def own_level(kind, level): return level/(1 + level) if kind == 'flow' else level
def own_sample(kind, x, level): return x/(1 + level) if kind == 'flow' else x


def euler(patcher, kind, levels, cfg, x, y=Y):
    "Euler's method in ComfyUI's coordinates; every guided image."
    z, seen, own = own_sample(kind, x, levels[0]), [], [own_level(kind, o) for o in levels]
    for a, b in zip(own, own[1:]):
        D = patcher.ask(z, a, cfg, y)
        seen.append(D)
        z = z + (b - a)*(z - D)/a
    return torch.stack(seen)


def ours(rule, levels, s, x, y=Y, looks=1):
    "The same in ours."
    guided, seen = follow(guide(world, scale=s, rule=rule), looks=looks), []
    for a, b in zip(levels, levels[1:]):
        D = guided(x, a, y)
        seen.append(D)
        x = x + (b - a)*(x - D)/a
    return torch.stack(seen)


LEVELS = [80., 14., 3., 1., .3, .05, 0.]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', TWO)
def test_it_is_what_guide_gives(name, kind):
    "Every rule of two predictions, on every kind of model, over a run."
    start = 80*randn(1)
    assert gap(euler(patched(kind, rule_of(name)), kind, LEVELS, 4., start), ours(rule_of(name), LEVELS, 4., start)) < 1e-9


@pytest.mark.parametrize('kind', KINDS)
def test_in_single_precision(kind):
    "As ComfyUI computes: what is lost is what subtracting from the noisy sample loses."
    for name, level in itertools.product(TWO, (.05, 1., 14.)):
        x = randn(2) + level*randn(3)
        z = own_sample(kind, x, level).float()
        D = patched(kind, rule_of(name)).ask(z, own_level(kind, level), 4.)
        guided = follow(guide(world, scale=4., rule=rule_of(name)))
        wanted = guided(x, level, Y)
        assert D.dtype == torch.float32 and (D - wanted).abs().max() < 1e-5*max(1, z.abs().max(), wanted.abs().max()), (name, level)


def test_without_a_function_it_is_plain():
    "The stand-in is what we think it is."
    for kind in KINDS:
        z = own_sample(kind, 3*randn(4), 2.)
        assert gap(patched(kind, LINEAR).ask(z, own_level(kind, 2.), 3.), Patcher(kind).ask(z, own_level(kind, 2.), 3.)) < 1e-12


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize('kind', ['eps', 'flow'])
def test_types_stay(kind, dtype):
    z = own_sample(kind, 3*randn(4), 2.).to(dtype)
    D = patched(kind, apg()).ask(z, own_level(kind, 2.), 3.)
    assert D.dtype == dtype and gap(D, follow(guide(world, scale=3., rule=apg()))(z.double()*(3 if kind == 'flow' else 1), 2., Y)) < .05


# Its traps

def test_it_returns_a_difference():
    z = 3*randn(4)
    args = dict(cond_scale=3., input=z, sigma=torch.full((3,), 2.), cond_denoised=z/2, uncond_denoised=z/4, model=Patcher().model)
    assert to_comfy(LINEAR)(args).abs().max() < 1e-12
    assert gap(to_comfy(LINEAR)(dict(args, cond_scale=2.)), z/4) < 1e-12


def test_it_takes_one_argument(): assert len(inspect.signature(to_comfy(LINEAR)).parameters) == 1


@pytest.mark.parametrize('name', ['tcfg', 'rescale', 'cfg_zero', 'power', 'vags', 'tsr', 'adamag'])
def test_time_is_no_noise_level(name):
    "Read as a noise level, a time gives another image."
    z, t = 3*randn(4)/3, 2/3
    right, wrong = (patched(kind, rule_of(name)) for kind in ('flow', 'flow'))
    wrong.model = None
    assert gap(right.ask(z, t, 4.), follow(guide(world, scale=4., rule=rule_of(name)))(3*z, 2., Y)) < 1e-12
    assert gap(wrong.ask(z, t, 4.), right.ask(z, t, 4.)) > 1e-3


@pytest.mark.parametrize('name', TWO)
def test_noise_alone(name):
    "A model of flows starts at t = 1, where there is no image; its prediction is finite, and so is ours."
    z = randn(1)
    c, u = randn(2), randn(3)
    args = dict(cond_scale=3., input=z, sigma=torch.ones(3), cond_denoised=c, uncond_denoised=u, model=Patcher('flow').model)
    D = z - to_comfy(rule_of(name))(args)
    last = z - to_comfy(rule_of(name))(dict(args, sigma=torch.full((3,), 1 - 1e-7, dtype=torch.float64)))
    assert D.isfinite().all() and gap(D, last) < 1e-4


def test_zero_terminal_snr():
    "The noisiest level of such a model is 4,518, in single precision."
    z = (4518*randn(1)).float()
    D = patched('v', tcfg()).ask(z, 4518., 3.)
    assert (D - guide(world, scale=3., rule=tcfg())(z.double(), 4518., Y)).abs().max() < 1e-6*z.abs().max()


@pytest.mark.parametrize('kind', ['eps', 'flow'])
@pytest.mark.parametrize('name', REMEMBER)
def test_the_second_picture_knows_nothing_of_the_first(name, kind):
    patcher, start = patched(kind, rule_of(name)), 80*randn(1)
    first, second = (euler(patcher, kind, LEVELS, 4., start) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize('levels', [LEVELS[:1], LEVELS[:2], LEVELS[:5]])
@pytest.mark.parametrize('looks', [1, 2])
def test_an_interrupted_run_is_forgotten(levels, looks):
    patcher, start = patched('eps', momentum(), looks=looks), 80*randn(1)
    fresh = patched('eps', momentum(), looks=looks)
    for a in levels: patcher.ask(start/80*a, a, 4.)
    assert torch.equal(euler(patcher, 'eps', LEVELS, 4., start), euler(fresh, 'eps', LEVELS, 4., start))


def test_a_run_of_another_size_is_another_run():
    patcher, low = patched('eps', momentum()), LEVELS[3:]
    euler(patcher, 'eps', LEVELS[:3], 4., 80*randn(1))
    small, y = randn(2, shape=(2, 3, 8, 8)), Y[:2]
    assert gap(euler(patcher, 'eps', low, 4., small, y), ours(momentum(), low, 4., small, y)) < 1e-12


def test_a_run_in_two_parts_goes_on():
    "KSampler (Advanced) gives the end of one to the next; noise falls all the while."
    start, patcher = 80*randn(1), patched('eps', momentum())
    whole = ours(momentum(), LEVELS, 4., start)
    first = euler(patcher, 'eps', LEVELS[:4], 4., start)
    x = start
    for a, b, D in zip(LEVELS, LEVELS[1:4], first): x = x + (b - a)*(x - D)/a
    assert gap(torch.cat([first, euler(patcher, 'eps', LEVELS[3:], 4., x)]), whole) < 1e-12


def heun(patcher, kind, levels, cfg, x, churn=0.):
    "Heun's method in ComfyUI's coordinates."
    z, own = own_sample(kind, x, levels[0]), [own_level(kind, o) for o in levels]
    for a, b in zip(own, own[1:]):
        a = a*(1 + churn)
        d = (z - patcher.ask(z, a, cfg))/a
        step = z + (b - a)*d
        if b: step = z + (b - a)*(d + (step - patcher.ask(step, b, cfg))/b)/2
        z = step
    return z


@pytest.mark.parametrize('name', TWO)
def test_heun(name):
    "A sampler that asks twice, when it is said; memory moves once a step, and a second picture is the first one again."
    start = 80*randn(1)
    for kind in ('eps', 'flow'):
        guided, patcher = follow(guide(world, scale=4., rule=rule_of(name)), looks=2), patched(kind, rule_of(name), looks=2)
        def ask(z, level, cfg, guided=guided, flow=kind == 'flow'):
            return guided(z/(1 - level), level/(1 - level), Y) if flow else guided(z, level, Y)
        wanted = heun(SimpleNamespace(ask=ask), kind, LEVELS, 4., start)
        for _ in range(2): assert gap(heun(patcher, kind, LEVELS, 4., start), wanted) < 1e-7


def counting(counts):
    "A rule that counts, in its memory, the steps of which it knows."
    def count(u, c, s, look):
        look.memory['n'] = look.memory.get('n', 0*c) + 1
        counts.append(look.memory['n'].max().item())
        return c
    return Rule(count)


def test_heun_with_churn_is_one_run():
    "Noise that is added within a run does not end it."
    counts, patcher = [], Patcher()
    patcher.set_model_sampler_cfg_function(to_comfy(counting(counts), looks=2))
    heun(patcher, 'eps', [10., 9., 8., 7., 0.], 4., 10*randn(1), churn=.3)
    assert counts == [1, 2, 2, 3, 3, 4, 4]


def test_heun_unsaid_counts_levels():
    "A level that is asked about twice is one step; only its last answer is remembered."
    counts, patcher = [], Patcher()
    patcher.set_model_sampler_cfg_function(to_comfy(counting(counts)))
    heun(patcher, 'eps', [10., 9., 8., 0.], 4., 10*randn(1))
    assert counts == [1, 2, 2, 3, 3]


def test_cfg_of_one_without_a_negative():
    "ComfyUI passes zeros then. A strength of one's own must not guide against them."
    z = 3*randn(4)
    alone = Patcher()
    alone.set_model_sampler_cfg_function(to_comfy(tcfg(), 3.))
    with pytest.raises(InputError, match='disable_cfg1_optimization=True'): alone.ask(z, 2., 1.)
    assert gap(patched('eps', tcfg(), 3.).ask(z, 2., 1.), guide(world, scale=3., rule=tcfg())(z, 2., Y)) < 1e-12
    assert gap(patched('eps', tcfg()).ask(z, 2., 1.), world(z, 2., Y)) < 1e-12


@pytest.mark.parametrize('name', TWO)
def test_scale_one_is_the_strong_prediction(name):
    z = 3*randn(4)
    assert gap(patched('eps', rule_of(name)).ask(z, 2., 1.), world(z, 2., Y)) < 1e-12


def test_scales_of_ones_own():
    "A schedule of noise levels, in our coordinates for flows too, and a scale for each sample."
    x = 3*randn(4)
    for kind, level in itertools.product(KINDS, (.2, 2.)):
        z, at = own_sample(kind, x, level), own_level(kind, level)
        schedule, each = interval(5., .5, 3.), torch.tensor([1., 2., 6.])
        assert gap(patched(kind, apg(), schedule).ask(z, at, 9.), follow(guide(world, scale=schedule, rule=apg()))(x, level, Y)) < 1e-12
        guided = follow(guide(world, scale=each, rule=apg()), rows=range(3))
        assert gap(patched(kind, apg(), each).ask(z, at, 9.), guided(x, level, Y)) < 1e-12


@pytest.mark.parametrize('call', [
    lambda: to_comfy(world), lambda: to_comfy(Label(3)), lambda: to_comfy(apg), lambda: to_comfy(LINEAR, math.nan), lambda: to_comfy(LINEAR, looks=3),
    lambda: to_comfy(LINEAR, torch.tensor([1., math.inf])), lambda: patched('odd', LINEAR).ask(randn(1), 2., 3.),
    *[lambda name=name: patched('eps', rule_of(name)).ask(randn(1), 2., 3.) for name in SHELVES['rule'] if name not in TWO]])
def test_what_is_refused(call):
    with pytest.raises(InputError) as e: call()
    assert '\n' not in str(e.value) and 'allowed' in str(e.value)


# Its nodes

NODES = comfy.NODE_CLASS_MAPPINGS
OWN = {name: NODES[key] for key, name in comfy.OWN.items()}


def defaults(node):
    "What ComfyUI would pass for a node that nobody has touched."
    return {k: about.get('default') for group in node.INPUT_TYPES().values() for k, (kind, about) in group.items() if kind != 'MODEL'}


def test_nodes_are_in_comfyuis_conventions():
    assert NODES.keys() == comfy.NODE_DISPLAY_NAME_MAPPINGS.keys() and len(set(comfy.NODE_DISPLAY_NAME_MAPPINGS.values())) == len(NODES)
    for node in NODES.values():
        assert node.RETURN_TYPES == ('MODEL',) and callable(getattr(node(), node.FUNCTION)) and node.CATEGORY and node.DESCRIPTION
        for group, inputs in node.INPUT_TYPES().items():
            assert group in ('required', 'optional') and all(about['tooltip'] for _, about in inputs.values())
        for kind, about in [o for group in node.INPUT_TYPES().values() for o in group.values()]:
            if kind in ('INT', 'FLOAT'): assert about['min'] <= about['default'] <= about['max']
            if isinstance(kind, list): assert about['default'] in kind


def test_the_list_is_the_register():
    listed, _ = NODES['CfgCourseRule'].INPUT_TYPES()['required']['rule']
    assert listed == TWO and {name for name in TWO if SHELVES['rule'][name].options} == OWN.keys()
    for name, node in OWN.items(): assert SHELVES['rule'][name].options.keys() <= defaults(node).keys()


def test_rules_for_pixels_say_so():
    for name in ('threshold', 'static_threshold'): assert 'latents' in OWN[name].DESCRIPTION


@pytest.mark.parametrize('name', TWO)
def test_nodes_guide(name):
    "At their defaults and with a scale, they are what the rule is; the model that is patched stays as it was."
    z, before = 3*randn(4), Patcher()
    wanted = patched('eps', rule_of(name), 3.).ask(z, 2., 7.)
    model, = NODES['CfgCourseRule']().patch(before, name, 3.)
    assert 'function' not in before.options and torch.equal(model.ask(z, 2., 7.), wanted)
    if name in OWN:
        model, = OWN[name]().patch(before, **{**defaults(OWN[name]), 'scale': 3.})
        assert torch.equal(model.ask(z, 2., 7.), wanted)
        assert OWN[name].VALIDATE_INPUTS(model=None, **defaults(OWN[name])) is True


def test_a_scale_of_zero_is_that_of_the_sampler():
    z = 3*randn(4)
    model, = NODES['CfgCourseRule']().patch(Patcher(), 'apg')
    assert torch.equal(model.ask(z, 2., 7.), patched('eps', apg()).ask(z, 2., 7.)) and 'always' not in model.options
    model, = NODES['CfgCourseRule']().patch(Patcher(), 'apg', 3.)
    assert torch.equal(model.ask(z, 2., 1.), patched('eps', apg(), 3.).ask(z, 2., 1.))


def test_asking_twice_is_passed_on():
    start = 80*randn(1)
    model, = OWN['momentum']().patch(Patcher(), **{**defaults(OWN['momentum']), 'scale': 4., 'asks_twice': True})
    assert torch.equal(heun(model, 'eps', LEVELS, 9., start), heun(patched('eps', momentum(), 4., 2), 'eps', LEVELS, 9., start))


@pytest.mark.parametrize('text,options', [
    ('', {}), ('  ', {}), ('eta=0.2', dict(eta=.2)), ('eta=0.2 momentum=-0.5', dict(eta=.2, momentum=-.5)), ('eta=.2;momentum=-.5', dict(eta=.2, momentum=-.5)),
    ('gains=(1, .5) parallel=0', dict(gains=(1, .5), parallel=0)), ('gains=(1,.5), parallel=0', dict(gains=(1, .5), parallel=0)),
    ('space=flow lengthen=true', dict(space='flow', lengthen=True)), ('window=none', dict(window=None)), ('cutoff=none\nlow=2', dict(cutoff=None, low=2))])
def test_options_as_typed(text, options): assert comfy.read_options(text) == options


@pytest.mark.parametrize('rule,text', [
    ('apg', 'eta'), ('apg', 'eta=soon'), ('apg', 'phi=1'), ('apg', 'momentum=3'), ('apgg', ''), ('reg', ''), ('ep_cfg', 'low=.9 high=.1'), ('apg', '=3'), ('apg', '0=3')])
def test_wrong_options_are_said_before_anything_runs(rule, text):
    said = NODES['CfgCourseRule'].VALIDATE_INPUTS(rule, text)
    assert isinstance(said, str) and '\n' not in said and 'allowed' in said
    with pytest.raises(InputError): NODES['CfgCourseRule']().patch(Patcher(), rule, 3., False, text)


def test_a_wrong_widget_is_said():
    node = OWN['fdg']
    assert 'gains' in node.VALIDATE_INPUTS(**{**defaults(node), 'gains': 'many'}) and 'gains' in node.VALIDATE_INPUTS(**{**defaults(node), 'gains': '()'})


def test_nodes_are_one_file_and_need_little():
    "ComfyUI brings PyTorch, NumPy, safetensors, tqdm and Pillow; nothing else may be asked for."
    assert [p.name for p in (ROOT/'comfy').iterdir() if p.name != '__pycache__'] and {p.name for p in (ROOT/'comfy').glob('*.*')} == {'__init__.py', 'README.md', 'workflow.json'}
    tree = ast.parse((ROOT/'comfy'/'__init__.py').read_text(encoding='utf-8'))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names} | {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {n.split('.')[0] for n in names} <= {'cfg_course', *sys.stdlib_module_names}
    block = 'pandas matplotlib seaborn scipy torchvision diffusers transformers accelerate torch_fidelity k_diffusion'.split()
    code = f'import sys; sys.modules.update(dict.fromkeys({block})); import comfy; print(len(comfy.NODE_CLASS_MAPPINGS))'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.stdout.strip() == str(len(NODES)), done.stderr


def test_the_package_does_not_bring_a_module_called_comfy():
    "It would stand in the way of ComfyUI's own."
    assert find_packages(str(ROOT), include=['cfg_course']) == ['cfg_course']
    assert "include=[cfg['lib_path']]" in (ROOT/'setup.py').read_text(encoding='utf-8')
    assert 'recursive-include comfy *.py *.md *.json' in (ROOT/'MANIFEST.in').read_text(encoding='utf-8').splitlines()


# What the page tells a user

PAGE = '\n'.join(src(c) for c in cells(ROOT/'nbs'/'41c_comfy.ipynb') if c['cell_type'] == 'markdown')
WINS = re.findall(r'^\| `([\d.]+)` \| `([\d.]+)` \| (?:(\d+)|nothing)', PAGE, re.M)


def nodes_of(rule):
    "Every node that guides by a rule, as a function of its scale."
    yield lambda scale: NODES['CfgCourseRule']().patch(Patcher(), rule, scale)[0]
    if rule in OWN: yield lambda scale: OWN[rule]().patch(Patcher(), **{**defaults(OWN[rule]), 'scale': scale})[0]


@pytest.mark.parametrize('rule', ['cfg', 'apg', 'rescale', 'fresca'])
@pytest.mark.parametrize('scale,cfg,wins', WINS)
def test_which_number_wins(scale, cfg, wins, rule):
    "Each row of the page's table: the node's scale, where it has one; and whether the negative prompt is asked."
    z, asked = 3*randn(4), []
    for node in nodes_of(rule):
        model = node(float(scale))
        predict = model.predict
        model.predict = lambda z, level, y: asked.append(bool((y == NULL).all())) or predict(z, level, y)
        got, wanted = model.ask(z, 2., float(cfg)), patched('eps', rule_of(rule), float(wins or 1)).ask(z, 2., 7.)
        assert torch.equal(got, wanted) and any(asked) == (float(scale) != 0 or cfg != '1')
        asked.clear()


def test_the_table_of_numbers_has_all_cases(): assert len(WINS) == 5 and {(s == '0', c == '1') for s, c, _ in WINS} == set(itertools.product([True, False], repeat=2))


# What stands in the example besides our nodes: its inputs that are links, with their types, its other inputs, what it gives
CORE = dict(
    CheckpointLoaderSimple=({}, {'ckpt_name'}, ['MODEL', 'CLIP', 'VAE']), CLIPTextEncode=({'clip': 'CLIP'}, {'text'}, ['CONDITIONING']),
    EmptyLatentImage=({}, {'width', 'height', 'batch_size'}, ['LATENT']), VAEDecode=({'samples': 'LATENT', 'vae': 'VAE'}, set(), ['IMAGE']),
    KSampler=(dict(model='MODEL', positive='CONDITIONING', negative='CONDITIONING', latent_image='LATENT'),
              {'seed', 'steps', 'cfg', 'sampler_name', 'scheduler', 'denoise'}, ['LATENT']), SaveImage=({'images': 'IMAGE'}, {'filename_prefix'}, []))


def test_the_example_is_a_graph_of_nodes_as_they_are():
    graph = json.loads((ROOT/'comfy'/'workflow.json').read_text(encoding='utf-8'))
    ours = [o for o in graph.values() if o['class_type'] in NODES]
    assert len(ours) == 1 and {o['class_type'] for o in graph.values()} == {*CORE, ours[0]['class_type']}
    inputs = NODES[ours[0]['class_type']].INPUT_TYPES()['required']
    known = CORE | {ours[0]['class_type']: ({'model': 'MODEL'}, inputs.keys() - {'model'}, ['MODEL'])}
    for o in graph.values():
        links, others, _ = known[o['class_type']]
        assert o['inputs'].keys() == links.keys() | set(others)
        for name, kind in links.items():
            there, k = o['inputs'][name]
            assert known[graph[there]['class_type']][2][k] == kind
    given = {k: v for k, v in ours[0]['inputs'].items() if k != 'model'}
    assert NODES[ours[0]['class_type']].VALIDATE_INPUTS(model=None, **given) is True
    model, = NODES[ours[0]['class_type']]().patch(Patcher(), **given)
    assert 'always' not in model.options
    for k, (kind, about) in inputs.items():
        if kind in ('INT', 'FLOAT'): assert about['min'] <= given[k] <= about['max']
    sampler = next(o['inputs'] for o in graph.values() if o['class_type'] == 'KSampler')
    assert graph[sampler['model'][0]] is ours[0] and sampler['cfg'] > 1 and not sampler['sampler_name'].endswith('cfg_pp')


def test_two_copied_folders_are_enough(tmp_path):
    "As on Windows: without pip, and the folder of nodes bears the name of the library."
    library, nodes = tmp_path/'site-packages'/'cfg_course', tmp_path/'custom_nodes'/'cfg_course'
    shutil.copytree(ROOT/'cfg_course', library, ignore=shutil.ignore_patterns('__pycache__', 'weights'))
    shutil.copytree(ROOT/'comfy', nodes, ignore=shutil.ignore_patterns('__pycache__'))
    code = f"""import importlib.util, sys
sys.path.insert(0, {str(library.parent)!r})
spec = importlib.util.spec_from_file_location('custom_nodes_cfg_course', {str(nodes/'__init__.py')!r}, submodule_search_locations=[{str(nodes)!r}])
made = importlib.util.module_from_spec(spec); sys.modules[spec.name] = made; spec.loader.exec_module(made)
import cfg_course; print(len(made.NODE_CLASS_MAPPINGS), cfg_course.__file__)"""
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'})
    assert done.stdout.split() == [str(len(NODES)), str(library/'__init__.py')], done.stderr


@pytest.mark.parametrize('s', [2., 7.])
def test_apg_of_comfyui_is_ours_one_scale_higher(s):
    "Its node changes the positive prediction before the line is drawn: c + s times the part of the difference."
    u, c = randn(1), randn(2)
    for eta, threshold in itertools.product((0., 1., .4), (0., 5., 15.)):
        d = c - u
        size = d.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        if threshold: d = d*(threshold/size).clamp(max=1)
        along = (d*c).flatten(1).sum(1).reshape(-1, 1, 1, 1)/(c*c).flatten(1).sum(1).reshape(-1, 1, 1, 1)*c
        changed = u + (d - along + eta*along) + (c - u)/s
        theirs = u + s*(changed - u)
        args = dict(input=randn(3), sigma=torch.full((3,), 2.), cond_denoised=c, uncond_denoised=u, cond_scale=s + 1, model=Patcher().model)
        rule = apg(eta=eta, threshold=threshold or 1e9, momentum=0.)
        assert gap(args['input'] - to_comfy(rule)(args), theirs) < 1e-12


@pytest.mark.parametrize('lam', [0., .3, .6, 1.])
@pytest.mark.parametrize('steps', [1, 7, 20])
def test_cfg_of_a_cfg_pp_sampler_is_lambda(lam, steps):
    "Its step goes from the line at cfg, by the noise of the negative prediction."
    levels, z = karras_grid(steps, .0292, 14.61), 14.61*randn(5)
    for a, b in zip(levels, levels[1:]):
        model, at = Patcher(), a.expand(len(z))
        model.options['always'] = True
        D, D_u = model.ask(z, a, lam), model.predict(z, at, torch.full_like(Y, NULL))
        z = D + b*(z - D_u)/a
    *_, last = make_method(SHELVES['procedure'], 'cfgpp', lam=lam)(world, 14.61*randn(5), levels, Y)
    assert gap(z, last.x) < 1e-10


@pytest.mark.parametrize('low,high', [(5, 14), (0, 3), (17, 20), (4, 5)])
def test_three_samplers_in_a_row_are_an_interval(low, high):
    "With cfg at 1 outside; at cfg 1 one prompt is asked, so that two evaluations a step become one."
    levels, s = karras_grid(20, .0292, 14.61), 7.
    start, asked, z = 14.61*randn(6), 0, 14.61*randn(6)
    for first, last, cfg in ((0, low, 1.), (low, high, s), (high, 20, 1.)):
        for a, b in zip(levels[first:last], levels[first + 1:last + 1]):
            model = Patcher()
            predict = model.predict
            def counted(*args):
                nonlocal asked
                asked += 1
                return predict(*args)
            model.predict = counted
            z = z + (b - a)*(z - model.ask(z, a, cfg))/a
    inside = interval(s, (levels[high] if high < 20 else 0*levels[0]).item(), levels[low].item())
    guided = follow(guide(world, scale=inside))
    for a, b in zip(levels, levels[1:]): start = start + (b - a)*(start - guided(start, a, Y))/a
    assert gap(z, start) < 1e-10 and asked == 20 + high - low


def test_a_negative_prompt_that_is_missing_is_no_interval():
    "Zeros stand for it, and what comes out is cfg times the positive prediction."
    model, z = Patcher(), 3*randn(7)
    predict = model.predict
    model.predict = lambda z, level, y: predict(z, level, y)*(y != NULL).reshape(-1, 1, 1, 1)
    assert gap(model.ask(z, 2., 7.), 7*predict(z, torch.full((3,), 2., dtype=z.dtype), Y)) < 1e-12


def test_the_page_names_widgets_and_nodes_that_are_there():
    shown_ = set(comfy.NODE_DISPLAY_NAME_MAPPINGS.values())
    assert {'Guidance rule', 'Guidance: rescaled guidance', 'Guidance: adaptive projected guidance'} <= shown_
    for name, options in dict(rescale={'phi'}, apg={'eta', 'threshold', 'momentum'}, fresca={'cutoff'}).items(): assert options <= defaults(OWN[name]).keys()
    assert ' > '.join(['Add Node', *comfy.CATEGORY.split('/'), 'Guidance rule']) in PAGE
    made = OWN['apg'].VALIDATE_INPUTS(model=None, scale=0., asks_twice=False, eta=0., threshold=15., momentum=-.5)
    assert made is True and OWN['rescale'].VALIDATE_INPUTS(model=None, phi=.7) is True
    assert all(f'`{name}`' in PAGE for name in ('threshold', 'static_threshold'))
    assert PAGE.index('## Nodes') < PAGE.index('## For programmers')


# The tables for those who think in steps, against ComfyUI's formulas in our words

def printed_table(page, head):
    "Rows of the table that a cell of a page has printed, the one with this word among its columns."
    told = [''.join(o['data'].get('text/markdown', '')) for c in cells(ROOT/'nbs'/page) for o in c.get('outputs', []) if 'data' in o]
    text = next(o for o in told if o.startswith('|') and head in o.split('\n')[0])
    columns, _, *rows = [[k.strip() for k in line[1:-1].split('|')] for line in text.strip().split('\n')]
    return [dict(zip(columns, row, strict=True)) for row in rows]


def sdxl_levels(scheduler, steps):
    "Its noise levels for a run, as its two schedulers make them."
    kept = torch.cumprod(1 - torch.linspace(.00085**.5, .012**.5, 1000, dtype=torch.float64)**2, 0)
    sigmas = ((1 - kept)/kept)**.5
    if scheduler == 'karras':
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        return (sigmas[-1]**(1/7) + ramp*(sigmas[0]**(1/7) - sigmas[-1]**(1/7)))**7
    return between(sigmas, torch.linspace(999, 0, steps, dtype=torch.float64))


def between(sigmas, t): return (sigmas.log()[t.floor().long()]*(1 - t.frac()) + sigmas.log()[t.ceil().long()]*t.frac()).exp()


def test_the_interval_in_steps():
    "First and last step inside, their share, what is saved; and that start and end let in the same levels as the interval."
    rows, low, high = printed_table('32_choice.ipynb', 'guided steps'), None, None
    assert len(rows) == 16
    for row in rows:
        if row['σ']:
            low, high = [float(o) for o in re.findall(r'\d[\d.]*', row['σ'])[:2]] if ' to ' in row['σ'] else (.3, math.inf)
            ends = [float(row[k]) for k in ('start', 'end')]
        n = int(row['steps'])
        at = sdxl_levels(row['spacing'].strip('`'), n).tolist()
        inside = [i + 1 for i, o in enumerate(at) if low < o <= high]
        assert row['guided steps'] == f'{inside[0]} to {inside[-1]}' and len(inside) == inside[-1] - inside[0] + 1
        share = [float(o) for o in re.findall(r'\d+', row['of the run'])]
        assert abs(share[0] - 100*(inside[0] - 1)/n) <= .5 and abs(share[1] - 100*inside[-1]/n) <= .5
        asked = sum(2 if i + 1 in inside else 1 for i in range(n))
        assert abs(float(row['saved'].split()[0]) - 100*(1 - asked/(2*n))) <= .5
        edges = between(sdxl_levels('normal', 1000).flip(0), 999*(1 - torch.tensor(ends, dtype=torch.float64)))
        assert abs(edges[1]/low - 1) < .01 and (ends[0] == 0 if high == math.inf else abs(edges[0]/high - 1) < .01)


def test_what_a_lambda_is_worth():
    "CFG scales at the first, the middle and the last step, by a step of each from the same sample."
    rows = printed_table('18_procedures.ipynb', 'λ')
    assert [row['λ'] for row in rows] == ['0.2', '0.4', '0.6', '0.8', '1']
    z, null = randn(8), torch.full_like(Y, NULL)
    for row, n in itertools.product(rows, (10, 20, 30, 50)):
        levels = [*karras_grid(n, .029, 14.6).tolist()]
        for i, said in zip((0, n//2, n - 1), row[f'{n} steps'].split(', '), strict=True):
            a, b = levels[i:i + 2]
            u, c = world(z, a, null), world(z, a, Y)
            plus = u + float(row['λ'])*(c - u) + b*(z - u)/a
            apart = ((plus - u - b*(z - u)/a)*(c - u)).sum()/((c - u)**2).sum()/(1 - b/a)  # of an Euler step, in scales
            assert abs(apart.item() - float(said)) <= .0501


def test_published_values_are_the_same_on_every_page():
    for page in ('17_rules', '32_choice', '41c_comfy'):
        text = '\n'.join(src(c) for c in cells(ROOT/'nbs'/f'{page}.ipynb') if c['cell_type'] == 'markdown')
        for value in ('`phi=0.7`', '`7.5`', '`eta=0`, `threshold=15`, `momentum=-0.5`', '`5.42` to `0.28`', 'not on SDXL' if page != '32_choice' else 'no evidence for SDXL'):
            assert value in text, (page, value)


# Research codes, written after what they call

class AsEDM:
    "EDM's networks take rows of zeros with a one, and a tensor for sigma."
    def __init__(self, classes=K): self.label_dim, self.sigma_min, self.sigma_max, self.asked = classes, .002, 80., []
    def round_sigma(self, sigma): return torch.as_tensor(sigma)
    def __call__(self, x, sigma, class_labels=None, force_fp32=False):
        x, sigma = x.to(torch.float32), sigma.to(torch.float32).reshape(-1, 1, 1, 1).expand(len(x), 1, 1, 1)
        if self.label_dim:
            rows = torch.zeros(1, self.label_dim) if class_labels is None else class_labels.to(torch.float32).reshape(-1, self.label_dim)
            y = torch.where(rows.sum(1) == 0, NULL, rows.argmax(1)).expand(len(x))
        else: y = torch.full((len(x),), NULL)
        return world(x, sigma.flatten(), y)


def as_kdiffusion(x, sigma, class_cond):
    assert sigma.shape == (len(x),)
    return world(x, sigma, torch.where(class_cond == K, NULL, class_cond))


class AsSiT:
    "Velocity towards the image, time from noise to image."
    y_embedder = SimpleNamespace(num_classes=K)
    def __call__(self, z, t, y):
        sigma = ((1 - t)/t).double()
        x = z_to_x(z.double(), sigma, 'rf')
        return -FROM_X0['flow'](world(x, sigma, torch.where(y == K, NULL, y)), x, sigma).to(z)


ALPHAS = torch.linspace(.9999, .004, 1000, dtype=torch.float64)


class AsGuided:
    "OpenAI's networks: told old numbers of timesteps, perhaps of a thousand; with a variance."
    def __init__(self, classes=None, factor=1., null=None): self.num_classes, self.factor, self.null, self.told = classes, factor, null, []
    def __call__(self, z, t, y=None):
        assert (y is not None) == (self.num_classes is not None)
        self.told.append(t)
        sigma = (((1 - ALPHAS)/ALPHAS)**.5)[(t/self.factor).round().long()]
        x = z_to_x(z.double(), sigma)
        y = torch.full((len(z),), NULL) if y is None else y if self.null is None else torch.where(y == self.null, NULL, y)
        eps = FROM_X0['eps'](world(x, sigma, y), x, sigma).to(z)
        return torch.cat([eps, 9*torch.ones_like(eps)], 1)


def process(kept=range(1000), rescaled=False, mean='EPSILON', steps=1000):
    return SimpleNamespace(alphas_cumprod=ALPHAS[list(kept)].numpy(), timestep_map=list(kept), original_num_steps=steps,
        rescale_timesteps=rescaled, model_mean_type=SimpleNamespace(name=mean))


class AsUnet:
    "lucidrains' network with labels, which are dropped for a whole batch."
    classes_emb = SimpleNamespace(num_embeddings=K)
    def __init__(self, objective): self.objective = dict(pred_noise='eps', pred_x0='x0', pred_v='v')[objective]
    def __call__(self, z, t, classes, cond_drop_prob):
        sigma = (((1 - ALPHAS)/ALPHAS)**.5)[t.round().long()]
        x = z_to_x(z.double(), sigma)
        return FROM_X0[self.objective](world(x, sigma, torch.full_like(classes, NULL) if cond_drop_prob == 1 else classes), x, sigma).to(z)


def lucid(objective): return SimpleNamespace(model=AsUnet(objective), objective=objective, alphas_cumprod=ALPHAS.float())


DENOISERS = dict(kdiffusion=lambda: from_kdiffusion(as_kdiffusion, K), edm=lambda: from_edm(AsEDM()), sit=lambda: from_sit(AsSiT()),
    **{o: (lambda o=o: from_lucidrains(lucid(o))) for o in ('pred_noise', 'pred_x0', 'pred_v')},
    dit=lambda: from_guided_diffusion(AsGuided(K, null=K), process(), null=K))
AT = step_to_sigma(torch.tensor([2, 300, 900]), from_lucidrains(lucid('pred_v')).table)


@pytest.mark.parametrize('name', DENOISERS)
def test_their_networks_are_our_denoisers(name):
    "With and without labels in one batch, at a level for each sample, at one for all, and at a number."
    denoise, x = DENOISERS[name](), AT.reshape(-1, 1, 1, 1)*randn(1) + randn(2)
    close = 1e-4 if name == 'pred_noise' else 3e-5  # float32 where there is much noise
    assert gap(denoise(x, AT, MIXED), world(x, AT, MIXED)) < close
    for level in (AT[1], AT[1].item()): assert gap(denoise(x, level, MIXED), world(x, AT[1], MIXED)) < close
    assert denoise(x.float(), AT, Y).dtype == torch.float32 and known_classes(denoise) == K and hasattr(denoise, 'net')
    assert gap(guide(denoise, scale=3.)(x, AT[1], Y), guide(world, scale=3.)(x, AT[1], Y)) < 10*close


def test_weak_branches_find_the_classes():
    x = randn(1)
    for name in ('negative', 'icg'):
        weak = make_method(SHELVES['weak'], name, from_edm(AsEDM()), **(dict(label=2) if name == 'negative' else {}))
        assert follow(guide(from_edm(AsEDM()), scale=3., weak=weak))(x, 1., Y).isfinite().all()


class Passes:
    "What a compiled network is: another object with the attributes of the first."
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name): return getattr(self.inner, name)


@pytest.mark.parametrize('B', [2, 3, 5])
@pytest.mark.parametrize('how', [
    lambda net: guide(net, scale=3.), lambda net: guide(world, scale=3., weak=net), lambda net: guide(world, scale=3., more=[Term(net, 1.)]),
    lambda net: guide(Counted(net), scale=3.), lambda net: guide(follow(net), scale=3.), lambda net: guide(guide(net, scale=1.), scale=3.),
    lambda net: guide(Passes(net), scale=3.)])
def test_a_network_of_edm_as_it_is(how, B):
    "It would take 2B whole numbers for one row where 2B is the number of classes, and say nothing."
    class Module(torch.nn.Module):
        label_dim = 2*B
        forward = AsEDM.__call__
    with pytest.raises(InputError, match='from_edm'): how(Module())
    net, y = AsEDM(2*B), torch.arange(B)
    x = randn(1, shape=(B, 3, 16, 16))
    assert gap(guide(from_edm(net), scale=3.)(x, 1., y), guide(world, scale=3.)(x, 1., y)) < 1e-5
    with pytest.raises(InputError, match='0 to'): from_edm(net)(x, 1., y + 2*B)


def test_edm_without_labels():
    denoise = from_edm(AsEDM(0))
    assert gap(denoise(randn(1), 1., Y), world(randn(1), torch.tensor(1.), torch.full_like(Y, NULL))) < 1e-6 and known_classes(denoise) is None


def edm_sampler(net, x, levels, rows, churn=0.):
    "Heun's method as EDM has it, in float64."
    for i, (a, b) in enumerate(zip(levels, levels[1:])):
        a = net.round_sigma(a + churn*a)
        d = (x - net(x, a, rows).to(torch.float64))/a
        step = x + (b - a)*d
        if b > 0: step = x + (b - a)*(d + (step - net(step, b, rows).to(torch.float64))/b)/2
        x = step
    return x


@pytest.mark.parametrize('name', REMEMBER)
def test_our_guidance_in_edms_sampler(name):
    levels, start, rows = karras_grid(6), 80*randn(1), torch.eye(K)[Y]
    guided = guide(world, scale=3., rule=rule_of(name))
    *_, last = trajectory(guided, start, levels, Y, heun_step)
    dressed = to_edm(guided, AsEDM())
    for _ in range(2): assert gap(edm_sampler(dressed, start, levels, rows), last.x) < 1e-12
    assert edm_sampler(to_edm(guided, AsEDM()), start, levels, rows, churn=.1).isfinite().all()
    null = to_edm(world, AsEDM())
    assert gap(null(start, torch.tensor(2.)), world(start, 2., torch.full_like(Y, NULL))) < 1e-12
    assert (dressed.sigma_min, dressed.sigma_max) == (.002, 80.)


@pytest.mark.parametrize('kept', [range(1000), range(0, 1000, 40), [0, 7, 11, 400, 999]])
@pytest.mark.parametrize('rescaled', [False, True])
def test_timesteps_of_guided_diffusion(kept, rescaled):
    "The network is told the old number of a timestep, also where only some are kept, of a thousand where it says so."
    steps = 1000 if not rescaled else 4000
    factor = 1000/steps if rescaled else 1.
    net = AsGuided(factor=factor)
    denoise = from_guided_diffusion(net, process(kept, rescaled, steps=steps))
    i = torch.tensor([0, 2, len(kept) - 1])
    sigma, null = step_to_sigma(i, denoise.table), torch.full_like(Y, NULL)
    x = sigma.reshape(-1, 1, 1, 1)*randn(1) + randn(2)
    assert gap(denoise(x, sigma, null), world(x, sigma, null)) < 1e-9
    assert gap(net.told[-1], torch.tensor([kept[j] for j in i]).double()*factor) < 1e-9
    for level in (1e-9, 1e9): assert denoise(x, level, null).isfinite().all()


def test_guided_diffusion_says_what_it_lacks():
    denoise = from_guided_diffusion(AsGuided(K), process())
    with pytest.raises(InputError, match='no number for no label'): guide(denoise, scale=3.)(randn(1), AT[1], Y)
    assert gap(denoise(randn(1), AT[1], Y), world(randn(1), AT[1], Y)) < 1e-5
    with pytest.raises(InputError, match='model_mean_type'): from_guided_diffusion(AsGuided(K), process(mean='PREVIOUS_X'))
    with pytest.raises(InputError, match='objective'): from_lucidrains(SimpleNamespace(model=None, objective='pred_else', alphas_cumprod=ALPHAS))
    with pytest.raises(InputError, match='null'): from_sit(lambda z, t, y: z)


@pytest.mark.parametrize('classes', [None, K])
def test_classifier_of_guided_diffusion(classes):
    "Their guidance, in their letters: eps - s sqrt(1 - alpha_bar) times the slope along z."
    def classifier(z, t): return torch.stack([(z*(k + 1)).sin().flatten(1).sum(1)*(1 + t/1000) for k in range(K)], 1)/20
    at, s = torch.tensor([2, 300, 900]), 2.
    kept, net = ALPHAS[at].reshape(-1, 1, 1, 1), AsGuided(classes)
    z = randn(1).requires_grad_()
    slope, = torch.autograd.grad(classifier(z, at).log_softmax(1)[range(3), Y].sum(), z)
    z = z.detach()
    eps = net(z, at, *([Y] if classes else []))[:, :3] - s*(1 - kept)**.5*slope
    wanted = (z - (1 - kept)**.5*eps)/kept**.5
    sigma = (((1 - ALPHAS)/ALPHAS)**.5)[at]
    denoise, logits = from_guided_diffusion(net, process()), from_guided_classifier(classifier, process())
    on, scale = ('conditional', 1 + s) if classes else ('unconditional', s)
    guided = classifier_guidance(denoise, logits, scale=scale, on=on)
    assert gap(guided(z_to_x(z, sigma), sigma, Y), wanted) < 1e-7


def test_sit_from_noise_alone():
    "Its samplers begin at t = 0, where sigma is infinite, and may ask at t = 1."
    velocity = to_sit(follow(guide(from_sit(AsSiT()), scale=3.)))
    z = randn(1).float()
    first = velocity(z, torch.zeros(3), y=Y)
    last = to_sit(guide(from_sit(AsSiT()), scale=3.))(z, torch.ones(3), Y)
    assert first.dtype == torch.float32 and first.isfinite().all() and last.isfinite().all()
    D = guide(world, scale=3.)(1e6*z.double(), 1e6, Y)
    assert (first - (D - z)).abs().max() < 1e-4  # the velocity is the image less the noise
    middle = to_sit(from_sit(AsSiT()))(z, torch.full((3,), .3), Y)
    assert gap(middle, AsSiT()(z, torch.full((3,), .3), Y)) < 1e-5


@pytest.mark.parametrize('name', ['tcfg', 'rescale', 'power'])
def test_rules_of_other_spaces_in_sit(name):
    z = randn(1).float()
    first = to_sit(guide(from_sit(AsSiT()), scale=3., rule=rule_of(name)))(z, torch.zeros(3), Y)
    second = to_sit(guide(from_sit(AsSiT()), scale=3., rule=rule_of(name)))(z, torch.full((3,), 1e-5), Y)
    assert (first - second).abs().max() < 1e-2


def test_prompts_in_kdiffusion():
    "A row of embeddings for each label; -1 is the last one. A model without labels is asked without."
    rows = torch.arange(K + 1.)
    def model(x, sigma, cond): return world(x, sigma, torch.where(cond == K, NULL, cond))
    assert gap(from_kdiffusion(model, K, 'cond', rows)(randn(1), 2., MIXED), world(randn(1), 2., MIXED)) < 1e-9
    plain = from_kdiffusion(lambda x, sigma: world(x, sigma, torch.full((3,), NULL)), None)
    assert gap(plain(randn(1), 2., Y), world(randn(1), 2., torch.full_like(Y, NULL))) < 1e-9


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_another_type(dtype):
    "Noise in float32, a network in half precision: asked in its own type, answered in ours."
    class Net(torch.nn.Module):
        def __init__(self): super().__init__(); self.weight = torch.nn.Parameter(torch.ones((), dtype=dtype)); self.seen = []
        def forward(self, x, *rest, **named): self.seen.append(x.dtype); return x*self.weight
    x = randn(1).float()
    for denoise in (from_kdiffusion(Net(), K), from_sit(Net(), null=K), from_lucidrains(SimpleNamespace(model=Net(), objective='pred_v', alphas_cumprod=ALPHAS))):
        assert denoise(x, 1., Y).dtype == torch.float32 and denoise.net.seen == [dtype]


# The codes themselves, where they are installed

def small(K=K):
    class Inner(torch.nn.Module):
        def __init__(self): super().__init__(); self.into, self.label = torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Embedding(K + 1, 3)
        def forward(self, x, sigma, class_cond): return torch.tanh(self.into(x) + self.label(class_cond)[:, :, None, None] + sigma.log()[:, None, None, None])
    torch.manual_seed(0)
    return Inner().double().requires_grad_(False)


@pytest.mark.parametrize('name', ['cfg', *REMEMBER])
def test_kdiffusion_itself(name):
    "Its Heun asks twice within a step; what is remembered moves once."
    kd = pytest.importorskip('k_diffusion')
    denoise = from_kdiffusion(kd.layers.Denoiser(small(), sigma_data=.5), K)
    guided, levels, start = guide(denoise, scale=3., rule=rule_of(name)), karras_grid(6), 80*randn(1)
    end = kd.sampling.sample_heun(follow(guided, looks=2), start, levels, extra_args=dict(y=Y), disable=True)
    *_, last = trajectory(guided, start, levels, Y, heun_step)
    assert gap(end, last.x) < 1e-9
    if name != 'cfg':
        with pytest.raises(InputError, match='looks=2'): kd.sampling.sample_heun(follow(guided), start, levels, extra_args=dict(y=Y), disable=True)


def test_lucidrains_itself():
    code = pytest.importorskip('denoising_diffusion_pytorch.classifier_free_guidance')
    torch.manual_seed(0)
    unet = code.Unet(dim=16, dim_mults=(1, 2), num_classes=K, channels=3, cond_drop_prob=.1).eval().requires_grad_(False)
    diffusion = code.GaussianDiffusion(unet, image_size=16, timesteps=1000, objective='pred_v')
    denoise, t, z = from_lucidrains(diffusion), torch.tensor([3, 300, 900]), randn(1).float()
    out = unet.forward_with_cond_scale(z, t, Y, cond_scale=3., rescaled_phi=0., remove_parallel_component=False)[0]
    sigma = step_to_sigma(t, denoise.table).float()
    assert gap(guide(denoise, scale=3.)(z_to_x(z, sigma), sigma, Y), diffusion.predict_start_from_v(z, t, out)) < 1e-5
