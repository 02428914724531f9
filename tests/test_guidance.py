"""Guidance on random input: every convention there and back and against its own formula, in any language, nested, composed.

The formulas are written as their sources write them: `c` and `u` are the two predictions, `v` the source's number. What
training leaves behind is given by the equation it must solve, as a residual in the guided prediction `g`.
"""
import math, re

import numpy as np, pytest, torch
from hypothesis import assume, given, settings, strategies as st

from cfg_course.catalogue import RULES
from cfg_course.core import NULL, InputError, Run, rng
from cfg_course.guidance import (CONVENTIONS, both, cfgpp_to_scale, diagnose, from_scale, guide, interval, lerp,
    make_method, scale_to_cfgpp, scale_to_w, to_scale, w_to_scale)
from cfg_course.mixtures import three_gaussians
from cfg_course.scores import SCALES, TO_X0, as_denoiser, as_predictor

FIXED = settings(derandomize=True, deadline=None, max_examples=25, database=None)
NUMBERS, SEEDS = st.floats(-8, 8), st.integers(0, 10**6)
WORLD = three_gaussians()

FORMULAS = dict(
    scale=lambda c, u, v: u + v*(c - u), glide=lambda c, u, v: u + v*(c - u), stable_diffusion=lambda c, u, v: u + v*(c - u),
    dit=lambda c, u, v: u + v*(c - u), k_diffusion=lambda c, u, v: u + (c - u)*v, edm2=lambda c, u, v: u.lerp(c, v),
    imagen=lambda c, u, v: v*c + (1 - v)*u, bradley_nakkiran=lambda c, u, v: v*c + (1 - v)*u, moufad=lambda c, u, v: c + (v - 1)*(c - u),
    ho_salimans=lambda c, u, v: (1 + v)*c - v*u, diffusers_original=lambda c, u, v: c + v*(c - u), smalldiffusion=lambda c, u, v: c + v*(c - u),
    meng=lambda c, u, v: (1 + v)*c - v*u, lcm=lambda c, u, v: c + v*(c - u), muse=lambda c, u, v: (1 + v)*c - v*u)
RESIDUALS = dict(
    gft=lambda g, c, u, v: v*g + (1 - v)*u - c, mg=lambda g, c, u, v: c + (v - 1)*(g - u) - g, mg_added=lambda g, c, u, v: c + v*(g - u) - g)
CLASSIFIERS = dict(classifier_on_unconditional=NULL, classifier_on_conditional=1)


def predictions(seed): return torch.randn(2, 4, 5, generator=rng(seed), dtype=torch.float64)
def close(a, b, size=1.): return (a - b).abs().max() <= 1e-11*(1 + abs(size))


def test_every_convention_is_tested():
    assert set(CONVENTIONS) == {*FORMULAS, *RESIDUALS, *CLASSIFIERS}


@pytest.mark.parametrize('name', FORMULAS)
def test_formulas(name):
    "The system's own formula is ours at the scale that its number means."
    @FIXED
    @given(NUMBERS, SEEDS)
    def run(value, seed):
        c, u = predictions(seed)
        assert close(FORMULAS[name](c, u, value), lerp(u, c, to_scale(value, name)), 50*value)
    run()


@pytest.mark.parametrize('name', RESIDUALS)
def test_fixed_points(name):
    "Guidance at the scale that the number means solves the equation that training solves."
    @FIXED
    @given(NUMBERS, SEEDS)
    def run(value, seed):
        assume(abs(value - dict(gft=0, mg=2, mg_added=1)[name]) > 1e-2)
        c, u = predictions(seed)
        s = to_scale(value, name)
        assert close(RESIDUALS[name](lerp(u, c, s), c, u, value), 0*c, 50*(1 + abs(s))*(1 + abs(value)))
    run()


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifiers(name):
    "The gradient of the exact class posterior, on either model."
    @FIXED
    @given(NUMBERS, st.floats(.1, 10), SEEDS)
    def run(value, sigma, seed):
        x = WORLD.sample(torch.full((4,), NULL), sigma, rng(seed)).requires_grad_()
        gradient, = torch.autograd.grad((WORLD.log_prob(x, sigma, 1) - WORLD.log_prob(x, sigma)).sum(), x)
        x = x.detach()
        guided = WORLD(x, sigma, CLASSIFIERS[name]) + value*sigma**2*gradient
        assert close(guided, lerp(WORLD(x, sigma), WORLD(x, sigma, 1), to_scale(value, name)), 100*value*(1 + sigma))
    run()


@pytest.mark.parametrize('name', CONVENTIONS)
def test_numbers_come_back(name):
    @FIXED
    @given(NUMBERS)
    def run(scale):
        assume(abs(scale) > 1e-2)
        assert math.isclose(to_scale(from_scale(scale, name), name), scale, rel_tol=1e-10, abs_tol=1e-10)
    run()
    assert to_scale(from_scale(1., name), name) == 1


@FIXED
@given(NUMBERS, st.floats(.01, 100), st.floats(0, .99), SEEDS)
def test_cfgpp(lam, sigma, ratio, seed):
    "A CFG++ step is a DDIM step with its own scale, also the last one, to zero."
    (c, u), x, sigma_next = predictions(seed), predictions(seed + 1)[0], ratio*sigma
    s = cfgpp_to_scale(lam, sigma, sigma_next)
    guided = lerp(u, c, s)
    assert close(u + lam*(c - u) + sigma_next/sigma*(x - u), guided + sigma_next/sigma*(x - guided), 100*s)
    assert math.isclose(scale_to_cfgpp(s, sigma, sigma_next), lam, rel_tol=1e-10, abs_tol=1e-10)


@pytest.mark.parametrize('call', [
    lambda: to_scale(0., 'gft'), lambda: to_scale(2., 'mg'), lambda: to_scale(1., 'mg_added'), lambda: from_scale(0., 'gft'), lambda: from_scale(0., 'mg'),
    lambda: to_scale(float('nan'), 'glide'), lambda: to_scale('2', 'w'), lambda: to_scale('2', 'lcm'), lambda: from_scale(float('inf'), 'edm2'),
    lambda: cfgpp_to_scale(.6, 1., 1.), lambda: cfgpp_to_scale(.6, 1., -.1), lambda: scale_to_cfgpp(float('nan'), 2., 1.)])
def test_numbers_without_a_meaning(call):
    with pytest.raises(InputError, match='allowed: '): call()


@pytest.mark.parametrize('coords', sorted(SCALES))
@pytest.mark.parametrize('kind', sorted(TO_X0))
def test_guiding_inside_a_network(kind, coords):
    "Guidance of a network in its own language is guidance of its denoiser."
    net = as_predictor(WORLD, kind, coords)
    @FIXED
    @given(NUMBERS, st.floats(.05, 20), SEEDS)
    def run(scale, sigma, seed):
        y = torch.tensor([0, 1, 2, NULL])
        x = WORLD.sample(torch.full((4,), NULL), sigma, rng(seed))
        def inside(z, level, y): return lerp(net(z, level, torch.full_like(y, NULL)), net(z, level, y), scale)
        guided = guide(as_denoiser(net, kind, coords), scale=scale)(x, sigma, y)
        assert close(as_denoiser(inside, kind, coords)(x, sigma, y), guided, 100*(1 + abs(scale))*(1 + sigma))
    run()


@FIXED
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=4), st.floats(.1, 10), SEEDS)
def test_nested_scales_multiply(scales, sigma, seed):
    y, x = torch.tensor([0, 1, 2, NULL]), WORLD.sample(torch.full((4,), NULL), sigma, rng(seed))
    nested = WORLD
    for s in scales: nested = guide(nested, scale=s)
    assert close(nested(x, sigma, y), lerp(*both(WORLD, x, sigma, y), math.prod(scales)), 1e3*(1 + sigma))


@FIXED
@given(st.floats(-5, 5), st.floats(0, 2), st.floats(2.1, 9), st.floats(.05, 12), SEEDS)
def test_intervals(w, low, high, sigma, seed):
    "Inside the interval guidance, outside the conditional prediction, for numbers and for tensors of noise levels."
    y, x = torch.tensor([0, 1, 2, NULL]), WORLD.sample(torch.full((4,), NULL), sigma, rng(seed))
    D_u, D_c = both(WORLD, x, sigma, y)
    guided = guide(WORLD, w=w, interval=(low, high))
    for level in (sigma, torch.tensor(sigma, dtype=torch.float64), torch.full((4,), sigma, dtype=torch.float64)):
        with Run(): got = guided(x, level, y)
        assert close(got, lerp(D_u, D_c, w_to_scale(w) if low < sigma <= high else 1.), 100*(1 + sigma))
    assert interval(2., low, high)(sigma) == (2. if low < sigma <= high else 1.)
    assert scale_to_w(w_to_scale(w)) == pytest.approx(w)


# Formulas as text

def evaluate(formula, **names):
    "The value of a formula of a shelf: juxtaposition is a product, ^ a power, |a| a length, <a, b> an inner product."
    text = re.sub(r'<(\w+), (\w+)>', r'dot(\1, \2)', formula)
    text = re.sub(r'(\w+) (across|along) (\w+)', r'\2(\1, \3)', re.sub(r'\|([^|]+)\|', r'norm(\1)', text))
    tokens, code = re.findall(r'\d+\.?\d*|\w+|[-+*/^(),]', text), []
    for before, token in zip([None, *tokens], tokens):
        ends = before and (before[0].isalnum() or before == ')')
        calls = token == '(' and callable(names.get(before))
        if ends and not calls and (token[0].isalnum() or token == '('): code.append('*')
        code.append('**' if token == '^' else token)
    return eval(' '.join(code), {'__builtins__': {}}, names)  # noqa: S307


def test_the_evaluator():
    assert evaluate('2 a (b + 1) - |a|^2/<a, b>', a=3., b=4., norm=abs, dot=lambda a, b: a*b) == 30 - 9/12
    assert evaluate('f(a) a', a=3., f=lambda a: a + 1) == 12


@pytest.mark.parametrize('name', sorted(set(CONVENTIONS) - set(CLASSIFIERS)))
def test_formulas_as_they_are_written(name):
    "The text that the shelf shows, evaluated, is the guided prediction; `g with a = b` is the equation that it solves."
    (c, u), value = predictions(7), 1.7
    g = lerp(u, c, to_scale(value, name))
    head, _, equation = CONVENTIONS[name].formula.partition(' with ')
    own = set(re.findall(r'[a-z_]\w*', equation or head)) - {'c', 'u', 'g', 'lerp'}
    names = dict.fromkeys(own, value) | dict(c=c, u=u, g=g, lerp=torch.lerp)
    assert len(own) == 1
    left, right = equation.split(' = ') if equation else (head, 'g')
    assert close(evaluate(left, **names), evaluate(right, **names), 50)


# What is said of a step

def test_diagnose():
    "Length, cosine and effective scale, on numbers that were chosen so that each differs from its neighbours."
    u, c, g = (torch.tensor(o, dtype=torch.float64) for o in ([[3., 0.], [1., 1.]], [[3., 4.], [2., 1.]], [[5., 12.], [0., 7.]]))
    got = diagnose(u, c, g)
    assert got['norm'].tolist() == [4., 1.] and got['effective'].tolist() == [3., -1.]
    assert got['cosine'].tolist() == pytest.approx([9/15, 3/10**.5])


@FIXED
@given(st.floats(-5, 5), st.integers(1, 3), SEEDS)
def test_diagnose_pictures(scale, channels, seed):
    "Over everything in a sample, in any shape."
    u, c, off = torch.randn(3, 4, channels, 2, 5, generator=rng(seed), dtype=torch.float64)
    got = diagnose(u, c, lerp(u, c, scale) + off)
    for i in range(4):
        delta = (c - u)[i].flatten()
        assert got['norm'][i].item() == pytest.approx(delta.norm().item())
        assert got['cosine'][i].item() == pytest.approx((u[i].flatten()@c[i].flatten()/u[i].norm()/c[i].norm()).item())
        assert got['effective'][i].item() == pytest.approx(scale + (off[i].flatten()@delta/(delta@delta)).item())


# Numbers of NumPy's

SCALARS = [np.float16(3), np.float32(3), np.float64(3), np.int64(3), np.array(3.), np.array(3, dtype=np.float32)]


@pytest.mark.parametrize('number', SCALARS, ids=lambda n: f'{type(n).__name__}-{n.dtype}')
def test_numbers_of_numpy(number):
    "They are scales, weights, what a schedule returns, options and other systems' numbers."
    x, y = WORLD.sample(torch.full((4,), NULL), 1., rng(0)), torch.tensor([0, 1, 2, NULL])
    for ours, theirs in ((dict(scale=3.), dict(scale=number)), (dict(w=3.), dict(w=number)), (dict(scale=3.), dict(scale=lambda sigma: number))):
        for rule in ('linear', 'apg', 'fbg'):
            a, b = (guide(WORLD, rule=make_method(RULES, rule), **how) for how in (ours, theirs))
            with Run(): assert torch.equal(a(x, 1., y), b(x, 1., y))
    assert to_scale(number, 'ho_salimans') == 4 and from_scale(number, 'ho_salimans') == 2
    assert make_method(RULES, 'mambo_g', alpha=number).space == 'flow'
    interval(number, np.float32(.2), np.float32(5.))


def test_arrays_of_numpy():
    x, y = WORLD.sample(torch.full((3,), NULL), 1., rng(0)), torch.tensor([0, 1, 2])
    scales = np.array([1., 2.5, 4.], dtype=np.float32)
    assert torch.equal(guide(WORLD, scale=scales)(x, 1., y), guide(WORLD, scale=torch.tensor(scales))(x, 1., y))


@pytest.mark.parametrize('bad', [np.float32('nan'), np.float64('inf'), np.bool_(True), np.array('2'), np.array([1., math.nan])], ids=str)
def test_what_is_no_number_of_numpy(bad):
    with pytest.raises(InputError, match='scale: got .*, allowed: '): guide(WORLD, scale=bad)
