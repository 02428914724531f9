"""Guidance on random input: every convention there and back and against its own formula, in any language, nested, composed.

The formulas are written as their sources write them: `c` and `u` are the two predictions, `v` the source's number. What
training leaves behind is given by the equation it must solve, as a residual in the guided prediction `g`.
"""
import math

import pytest, torch
from hypothesis import assume, given, settings, strategies as st

from cfg_course.core import NULL, InputError, Run, rng
from cfg_course.guidance import (CONVENTIONS, both, cfgpp_to_scale, from_scale, guide, interval, lerp, scale_to_cfgpp,
    scale_to_w, to_scale, w_to_scale)
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
