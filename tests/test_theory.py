"""The theorems of chapters 1 to 7 at other parameters than the lessons have: laws against integrated equations and exact
fractions, hypotheses against worlds that break them, factors at scales that can tell them apart."""
import ast
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from notebooks import NBS, code, each, src, texts
from scipy.integrate import solve_ivp
from torch.autograd import grad

from cfg_course.core import InputError, rng
from cfg_course.guidance import CONVENTIONS, lerp
from cfg_course.laws import Gauss, gibbs_law, mean_power, ode_law, ode_map, sde_law, tilt_law
from cfg_course.limits import implied_posterior
from cfg_course.mixtures import Mixture, Pair, Points, mesh, tilt, tilt_on, two_boxes

SCALES = [-3., .5, 1., 2., 7.5, 35., 40., 50., 100., 200.]
PAIRS = {
    'narrower': (Gauss(1., .5), Gauss(0., 2.)),
    'much narrower': (Gauss(-2., .01), Gauss(.5, 3.)),
    'equal': (Gauss(1., 1.3), Gauss(-.4, 1.3)),
    'wider': (Gauss(.7, 1.2), Gauss(-.2, 1.)),
}


def as_pair(c, u): return Pair(Mixture([[c.mean]], c.var), Mixture([[u.mean]], u.var))


def followed(c, u, s, start=1e6, end=1e-7):
    "Mean of the guided flow and half the logarithm of its variance, by integration in the logarithm of the noise level."
    def slope(t, z):
        v = math.exp(2*t)
        rate = v*(s/(c.var + v) + (1 - s)/(u.var + v))
        return [rate*z[0] - v*s*(c.mean - u.mean)/(c.var + v), rate]
    begin = [s*(c.mean - u.mean), math.log(start)] # where the rate is 1 the mean stays at s delta
    way = solve_ivp(slope, (math.log(start), math.log(end)), begin, method='DOP853', rtol=1e-12, atol=1e-14)
    return u.mean + way.y[0, -1], way.y[1, -1]


@pytest.mark.parametrize('s', SCALES)
@pytest.mark.parametrize('name', PAIRS)
def test_deterministic_law_at_any_scale(name, s):
    "Against the flow itself, in logarithms; wide classes are where powers grow instead of fading."
    c, u = PAIRS[name]
    law = ode_law(c, u, s)
    mean, log_std = followed(c, u, s)
    assert float(law.mean) == pytest.approx(mean, rel=3e-5 if s < 1 else 1e-6, abs=1e-6)
    assert float(law.var) == pytest.approx(math.exp(2*log_std), rel=1e-4, abs=0.) # below 1e-308 both are 0


@pytest.mark.parametrize('s', [1, 3, 35, 51, 101, 201, 401])
@pytest.mark.parametrize('r', [Fraction(1, 4), Fraction(1, 10**6), Fraction(9, 10), Fraction(11, 10), Fraction(3)])
def test_integral_against_exact_fractions(r, s):
    n = (s - 1)//2
    exact = sum(math.comb(n, k)*(1 - r)**k*r**(n - k)/(2*k + 1) for k in range(n + 1))
    assert float(mean_power(float(r), n)) == pytest.approx(float(exact), rel=1e-11)


def test_the_truth_at_scale_50():
    assert float(ode_law(Gauss(1, .5), Gauss(0, 2), 50.).mean) == pytest.approx(1.3428, abs=5e-5)


@pytest.mark.parametrize('s', [.5, 3., 50., 200.])
def test_laws_of_several_axes_are_those_of_each(s):
    c, u = Gauss(np.array([1., -2., .3]), np.array([.5, .01, 1.])), Gauss(np.array([0., .5, .3]), np.array([2., 3., 1.]))
    for law in (ode_law, sde_law, lambda c, u, s: ode_law(c, u, s, (.3, 1.2)), lambda c, u, s: gibbs_law(c, u, s, .7)):
        together = law(c, u, s)
        for i in range(3):
            alone = law(*(Gauss(float(g.mean[i]), float(g.var[i])) for g in (c, u)), s)
            assert [together.mean[i], together.var[i]] == pytest.approx([float(v) for v in alone], rel=1e-12, abs=1e-300)


@pytest.mark.parametrize('s', [-2., .5, 3., 50., 200.])
def test_map_is_a_composition_and_goes_back(s):
    c, u = PAIRS['narrower']
    (a, b), (a1, b1), (a2, b2) = ode_map(c, u, s, 30., .2), ode_map(c, u, s, 30., 2.), ode_map(c, u, s, 2., .2)
    assert [a, b] == pytest.approx([a2*a1, a2*b1 + b2], rel=1e-9)
    up, off = ode_map(c, u, s, .2, .4)
    down, more = ode_map(c, u, s, .4, .2)
    assert [down*up, down*off + more] == pytest.approx([1., 0.], abs=1e-7*max(1., abs(up)))


@pytest.mark.parametrize('s', [.5, .5 + 1e-9, 3., 60., 200.])
@pytest.mark.parametrize('name', PAIRS)
def test_random_law_at_any_scale(name, s):
    "Against its two linear equations, in the logarithm of the noise level."
    c, u = PAIRS[name]
    def slope(t, z):
        v = math.exp(2*t)
        rate = 2*v*(s/(c.var + v) + (1 - s)/(u.var + v))
        return [rate*z[0] - 2*v*s*(c.mean - u.mean)/(c.var + v), 2*rate*z[1] - 2*v]
    way = solve_ivp(slope, (math.log(1e5), math.log(1e-7)), [0., 1e10], method='LSODA', rtol=1e-11, atol=1e-13)
    law = sde_law(c, u, s)
    assert [float(law.mean) - u.mean, float(law.var)] == pytest.approx(way.y[:, -1], rel=1e-5, abs=1e-7)


def test_a_law_beyond_all_numbers_is_refused():
    wide = Gauss(1., 100.), Gauss(0., .01)
    for law in (ode_law, sde_law):
        with pytest.warns(RuntimeWarning), pytest.raises(InputError, match='^scale: got 200.0'): law(*wide, 200.)


@pytest.mark.parametrize('level', [.1, 1., 10.])
def test_sweeps_that_do_not_contract_are_refused(level):
    "On both sides of the scale at which the gain is one, in both worlds; what is accepted is a law."
    for c, u in (PAIRS['narrower'], PAIRS['narrower'][::-1]):
        alpha, beta = math.log1p(level**2/c.var), math.log1p(level**2/u.var)
        edge = -beta/(alpha - beta)
        inside, outside = (edge + .01, edge - .01) if alpha > beta else (edge - .01, edge + .01)
        assert gibbs_law(c, u, inside, level).var > 0
        with pytest.raises(InputError, match='one for which a sweep contracts'): gibbs_law(c, u, outside, level)
    for bad in (0., -1., math.inf, math.nan):
        with pytest.raises(InputError, match='^level'): gibbs_law(*PAIRS['narrower'], 2., bad)


def cfgpp(c, u, lam, steps):
    "Mean and variance of CFG++, from its step as written, in plain numbers."
    sigmas = [*np.geomspace(80., .01, steps), 0.]
    m, k = 0., 80.
    for a, b in zip(sigmas, sigmas[1:]):
        to_c, to_u = c.var/(c.var + a**2), u.var/(u.var + a**2)
        def both(x, keep):
            D_c, D_u = keep*c.mean + to_c*(x - keep*c.mean), keep*u.mean + to_u*(x - keep*u.mean)
            return D_u + lam*(D_c - D_u) + b/a*(x - D_u)
        m, k = both(m, 1.), both(k, 0.)
    return m, k**2


@pytest.mark.parametrize('lam', [.2, .6, 1.])
@pytest.mark.parametrize('c, u', [PAIRS['narrower'], PAIRS['much narrower'], (Gauss(2., .8), Gauss(1., 1.))])
def test_cfgpp_climbs_to_the_surest_point(c, u, lam):
    top = (c.mean/c.var - u.mean/u.var)/(1/c.var - 1/u.var)
    m, v = cfgpp(c, u, lam, 60_000)
    assert m == pytest.approx(top, abs=2e-2) and v < 1e-9


def test_cfgpp_without_a_surest_point_runs_away():
    c, u = PAIRS['equal']
    (m1, v1), (m2, v2) = (cfgpp(c, u, .6, n) for n in (500, 1000))
    assert (m2 - c.mean)/(m1 - c.mean) == pytest.approx(2., abs=.1) and v1 == pytest.approx(c.var, rel=.05)
    (m1, v1), (m2, v2) = (cfgpp(*PAIRS['narrower'][::-1], .6, n) for n in (100, 200))
    assert m2 < 10*m1 < 0 and v2 > 1e3*v1


def heat_residual(pair, s, tau, x):
    "By how much the normalised guided densities miss the heat equation."
    tau, x = torch.full((len(x),), tau, dtype=torch.float64, requires_grad=True), x.clone().requires_grad_()
    def log_q(x, tau): return s*pair.log_prob(x, tau.sqrt(), 0) + (1 - s)*pair.log_prob(x, tau.sqrt())
    d_tau, d_x = grad(log_q(x, tau).sum(), (tau, x), create_graph=True)
    laplace, = grad(d_x.sum(), x)
    one = tau[:1].detach().requires_grad_()
    d_log_Z, = grad(log_q(mesh(-40, 40, 16001), one).logsumexp(0), one)
    return (d_tau - (laplace + d_x**2)[:, 0]/2 - d_log_Z).detach()


@pytest.mark.parametrize('s', [-1., .5, 1.3, 3., 6.])
@pytest.mark.parametrize('tau', [.01, .25, 4.])
def test_guided_densities_are_a_diffusion_where_the_difference_of_scores_is_constant(s, tau):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for c, u in (PAIRS['equal'], (Gauss(3., .2), Gauss(2., .2))):
        pair = as_pair(c, u)
        assert heat_residual(pair, s, tau, x).abs().max() < 1e-8
        guided = s*pair.score(x, tau**.5, 0) + (1 - s)*pair.score(x, tau**.5)
        torch.testing.assert_close(guided, tilt(pair, s).score(x, tau**.5), rtol=1e-9, atol=1e-9)
    unequal = as_pair(Gauss(1., .7), Gauss(0., 2.))
    if s > -.5: assert heat_residual(unequal, s, tau, x).abs().max() > 1e-3


LINE = Mixture([[-1.], [.5], [2.]], [.2, .3, .1], [.3, .3, .4], [0, 0, 1])


@pytest.mark.parametrize('s', [-.5, 1.3, 2., 3.7, 6.])
def test_rate_of_the_weights(s):
    "Drift, noise and growth change q as the noise level does; the rates s - 1 and s/2 pass at 2 alone."
    x, tau = torch.linspace(-2.5, 3, 23, dtype=torch.float64).requires_grad_(), torch.full((23,), .3, dtype=torch.float64, requires_grad=True)
    q = (s*LINE.log_prob(x[:, None], tau.sqrt(), 0) + (1 - s)*LINE.log_prob(x[:, None], tau.sqrt())).exp()
    s_c, s_u = LINE.score(x[:, None], .3**.5, 0)[:, 0], LINE.score(x[:, None], .3**.5)[:, 0]
    d_tau, d_x = grad(q.sum(), (tau, x), create_graph=True)
    flux, = grad((q*(s*s_c + (1 - s)*s_u)).sum(), x, retain_graph=True)
    growth = -d_tau + flux - grad(d_x.sum(), x)[0]/2
    unit = (s_c - s_u)**2*q
    def fits(rate): return ((growth - rate*unit).abs().max()/unit.abs().max()).item() < 1e-9
    assert fits(s*(s - 1)/2) and fits(s - 1) == fits(s/2) == (s == 2) and not fits(1.1*s*(s - 1)/2)


@pytest.mark.parametrize('classes, d', [(2, 3), (3, 5), (10, 4), (6, 60)])
def test_implied_posterior_is_the_nearest_point(classes, d):
    "No other weights come nearer: random ones, and small steps towards every vertex."
    D_u, D_all = torch.randn(20, d, generator=rng(1), dtype=torch.float64), torch.randn(20, classes, d, generator=rng(2), dtype=torch.float64) + .5
    q, gap = implied_posterior(D_u, D_all)
    delta = D_all - D_u[:, None]
    def length(q): return torch.einsum('bc,bcd->bd', q, delta).norm(dim=1)
    others = [torch.rand(20, classes, generator=rng(i), dtype=torch.float64)**3 for i in range(50)]
    others = [o/o.sum(1, keepdim=True) for o in others] + [.99*q + .01*torch.eye(classes, dtype=torch.float64)[i] for i in range(classes)]
    assert all((length(o) >= length(q) - 1e-9).all() for o in others)
    torch.testing.assert_close(gap, length(q)/(q*delta.square().sum(2)).sum(1).sqrt())


def formula_missed(formula, to_scale, value):
    "By how much a row's formula, read as arithmetic, misses linear guidance with the scale that it names."
    u, c = torch.randn(2, 6, generator=rng(5), dtype=torch.float64)
    formula = re.sub(r'(?<=[\w)]) (?=[\w(])', '*', formula.removeprefix('g with ').replace('sigma^2 grad log p(y|x)', '(c - u)'))
    left, right = formula.split(' = ') if ' = ' in formula else ('g', formula)
    names = {n.id for side in (left, right) for n in ast.walk(ast.parse(side, mode='eval')) if isinstance(n, ast.Name)}
    letter, = names - {'u', 'c', 'g', 'lerp'}
    known = dict(u=u, c=c, g=lerp(u, c, to_scale(value)), lerp=torch.lerp) | {letter: value}
    return (eval(left, {}, known) - eval(right, {}, known)).abs().max().item()


@pytest.mark.parametrize('name', CONVENTIONS)
def test_formula_of_a_convention_is_its_scale(name):
    "The text on the shelf says what the two functions do, and no other row's text would."
    row = CONVENTIONS[name]
    for value in (.4, 1.6, 3.1): assert formula_missed(row.formula, row.to_scale, value) < 1e-12
    for other in CONVENTIONS.values():
        same = other.to_scale(1.6) == pytest.approx(row.to_scale(1.6))
        assert (formula_missed(other.formula, row.to_scale, 1.6) < 1e-9) == same


@pytest.mark.parametrize('s', [-.3, -.4, -2.])
def test_a_negative_power_of_a_density_may_be_none(s):
    "It is a density above one noise level only, and there has the variance that its precision says."
    pair, grid = as_pair(Gauss(0., .5), Gauss(0., 2.)), mesh(-90, 90, 9001)
    def precision(v): return s/(.5 + v) + (1 - s)/(2 + v)
    for v in (.05, .3, 1., 6., 30.):
        if precision(v) <= 0:
            with pytest.raises(InputError, match='^scale'): tilt_on(grid, pair, s, sigma=v**.5)
        elif precision(v) > .01:
            assert tilt_on(grid, pair, s, sigma=v**.5).moments()[1].item() == pytest.approx(1/precision(v), rel=1e-4)
    if precision(0) <= 0:
        with pytest.raises(InputError, match='^scale'): tilt_law(Gauss(0., .5), Gauss(0., 2.), s)


def test_average_reciprocal_needs_the_same_support():
    "1/p(c) for Gaussians of any weights; for boxes with noise too, but 1 without."
    grid = mesh(-14, 14, 56_001)
    world = Mixture([[-1.], [0.], [3.]], 1., [.2, .3, .5])
    for c, weight in enumerate((.2, .3, .5)):
        terms = world.log_prob(grid, 0., c).exp()/world.posterior(grid)[:, c]
        assert terms.sum().item()*(grid[1] - grid[0]).item() == pytest.approx(1/weight, rel=1e-6)
    boxes, inside = two_boxes(), torch.linspace(1.02, 1.98, 50, dtype=torch.float64)[:, None]
    assert (1/boxes.posterior(inside, 1e-3)[:, 0]).mean().item() == pytest.approx(1.)


@pytest.mark.parametrize('steepness', [1., 3.])
def test_labels_independent_given_the_clean_sample_are_not_given_the_noisy_one(steepness):
    grid, at = mesh(-6, 6, 1201), mesh(-2, 2, 9)
    x, prior = grid[:, 0], (-grid[:, 0]**2/2).softmax(0)
    def given(*labels):
        weights = math.prod([prior, *labels])
        return Points(grid, weights=weights/weights.sum())
    first, second = torch.sigmoid(steepness*x), torch.sigmoid(steepness*(x - 1))
    def off(noise): return (given(first)(at, noise) + given(second)(at, noise) - given()(at, noise) - given(first, second)(at, noise)).abs().max()
    assert off(.05) < 1e-3 < .04 < min(off(1.), off(3.))


def overshoot_integral(d, steps, w=3., n=301):
    "4 w times the integral of Q E[p], from a density on a grid: no samples."
    t, y = np.linspace(math.log(1e-2), math.log(d)/2, steps + 1), np.linspace(-7, 7, n)
    h, p, middle, total = t[1] - t[0], np.exp(-y**2/2), 0., 0.
    p = p/p.sum()
    for Q in np.exp(t[:-1] + h/2):
        unsure = 1/(1 + np.exp(2*Q*(y + middle)))
        total += 4*w*Q**2*h*(p@unsure)
        pull = 2*Q + 4*w*Q*unsure
        to = pull + math.exp(-h)*(y + middle - pull)
        middle = p@to
        kernel = np.exp((y[:, None] + middle - to)**2/(2*math.expm1(-2*h)))
        p = (kernel/kernel.sum(0))@p
    return total


def test_overshoot_with_fresh_noise():
    "Chapter 7 says 1.16/sqrt(d): here by two step lengths, extrapolated, in 10 and in 100 dimensions."
    for d in (10, 100): assert 2*overshoot_integral(d, 300) - overshoot_integral(d, 150) == pytest.approx(1.16, rel=.01)


@each([p for p in NBS if p.name < '08'])
def test_no_claim_without_a_tolerance(p):
    "An inequality is printed with its margin: an error cut off at zero says nothing of how nearly it fails."
    shown = '\n'.join(t for c in code(p) for t in texts(c))
    assert re.findall(r'^.*tolerance 0\.0e\+00.*$', shown, re.M) == []
    clipped = re.compile(r'claim\([^\n]*(?:max\(0|clip\(|clamp\(min=0)')
    assert [src(c)[:80] for c in code(p) if clipped.search(src(c))] == []


@pytest.mark.parametrize('weak, every', [((3,), (3,)), ((3, 2), (3, 2)), ((3, 2), (2, 4, 2)), ((3, 2), (3, 4, 3)), ((), (4,))])
def test_predictions_of_all_classes_have_an_axis_of_their_own(weak, every):
    "A tensor in which no axis counts the classes is refused, even where its other sizes fit."
    with pytest.raises(InputError, match='D_all'): implied_posterior(torch.zeros(weak), torch.zeros(every))


@pytest.mark.parametrize('size', [1e-9, 1e-3, 1e3, 1e9])
def test_implied_posterior_does_not_depend_on_the_unit(size):
    "Predictions in other units cancel by the same weights, consistent or not."
    D, D_u = torch.randn(2, 6, 3, 4, generator=rng(1), dtype=torch.float64), torch.randn(6, 4, generator=rng(2), dtype=torch.float64)
    q, gap = implied_posterior(.3*D_u, D[0])
    again, gap_again = implied_posterior(.3*size*D_u, size*D[0])
    assert (again - q).abs().max() < 1e-9 and (gap_again - gap).abs().max() < 1e-9 and gap.min() > .01
