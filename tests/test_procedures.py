"""Every procedure of the shelf: batches, repetition, types, strengths that are none, last steps, images, options, and who reaches the tilt.

Worlds are asked in float64, where nothing is rounded differently from one batch to another; the network is small.
"""
import math

import pytest, torch
from scipy.stats import wasserstein_distance

from cfg_course.catalogue import PROCEDURES
from cfg_course.classifiers import load_classifier, predict
from cfg_course.core import NULL, InputError, Noise, Run, rng
from cfg_course.denoisers import Counted, Denoiser, load_denoiser
from cfg_course.guidance import Rule, guide, make_method, method_options
from cfg_course.laws import Gauss, sde_law, tilt_law
from cfg_course.mixtures import Mixture, mesh, narrow_in_wide, tilt_on, three_gaussians
from cfg_course.networks import UNet, UNetConfig
from cfg_course.particles import best_of_n, choose_parents, class_reward, fkc, is_weighed, particle_guidance, Place, repulsion
from cfg_course.particles import reverse_step, superdiff, systematic, weighed_step
from cfg_course.procedures import cfg_mp, cfg_mp_step, cfgig, cfgpp, delay, delayed, fsg, pcg, rectified, rectified_step
from cfg_course.procedures import regrid, restart, rrr, w2sd, zsampling
from cfg_course.samplers import SAMPLERS, Now, ddim_step, ddpm_step, heun_step, sample, trajectory
from cfg_course.schedules import karras_grid, logsnr_grid

LINE = Mixture([[-1.], [.5], [2.]], [.2, .3, .1], [.3, .3, .4], [0, 0, 1])
GRID, Y = karras_grid(8), torch.tensor([0, 1, 1, 0, -1, 1])
def near(x0_hat, sigma, y): return -(x0_hat.flatten(1) - y[:, None]).square().sum(1)
TAKES = {**dict.fromkeys(('fk', 'tds', 'best_of_n'), dict(reward=near)), 'superdiff': dict(label=1)}
FORMS = {**{name: {} for name in PROCEDURES}, 'cfgpp-ancestral': dict(form='ancestral'), 'cfgpp-dpmpp': dict(form='dpmpp'), 'fkc-own': dict(particles=5),
    'particle_guidance-own': dict(particles=4), 'superdiff-and': dict(form='and'), 'cfg_mp-plus': dict(plus=True), 'fk-sum': dict(potential='sum', every=0.), 'fk-difference': dict(potential='difference', threshold=.5)}
SHARED = 'fkc', 'particle_guidance' # by default
POPULATION = 'the samples of a class in a batch are one population: who is in it decides who is chosen'


def make(name, **more): return make_method(PROCEDURES, name.split('-')[0], **{**TAKES.get(name.split('-')[0], {}), **FORMS.get(name, {}), **more})


def follow(run, world=LINE, y=Y, rows=None, sigmas=GRID, dtype=torch.float64, step=heun_step, seed=0):
    rows = range(len(y)) if rows is None else rows
    noise = Noise(seed, rows, (world.dim,), dtype=dtype)
    return list(run(world, sigmas[0].item()*noise(), sigmas, y, step, noise, Run(list(rows))))


@pytest.fixture(params=FORMS)
def name(request): return request.param


# What every procedure promises

def test_records_are_in_order(name):
    steps = follow(make(name))
    assert [s.i for s in steps] == list(range(8)) and steps[-1].sigma_next == 0
    assert all(s.x.shape == s.x0_hat.shape == (6, 1) and s.x.isfinite().all() for s in steps)


def test_again(name):
    run = make(name)
    assert torch.equal(follow(run)[-1].x, follow(run)[-1].x) and not torch.equal(follow(run)[-1].x, follow(run, seed=1)[-1].x)


@pytest.mark.parametrize('size', [1, 2])
def test_a_split_of_the_batch_changes_nothing(name, size):
    if name in SHARED: pytest.skip(POPULATION)
    whole = follow(make(name))[-1].x
    parts = [follow(make(name), y=Y[i:i+size], rows=range(i, i + size))[-1].x for i in range(0, 6, size)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-10)


def test_populations_do_not_see_each_other():
    "FKC: a class is the same with or without the others in the batch."
    y = torch.arange(3).repeat(8)
    whole = follow(fkc(), three_gaussians(), y)[-1].x
    for c in range(3):
        rows = (y == c).nonzero()[:, 0].tolist()
        torch.testing.assert_close(follow(fkc(), three_gaussians(), y[rows], rows)[-1].x, whole[rows], rtol=0, atol=1e-10)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_type(name, dtype): assert {s.x.dtype for s in follow(make(name), dtype=dtype)} == {dtype}


def test_several_dimensions(name):
    assert follow(make(name), three_gaussians(), torch.arange(4) % 3)[-1].x.shape == (4, 2)


@pytest.mark.parametrize('step', SAMPLERS)
@pytest.mark.parametrize('name', ['cfgig', 'delayed', 'restart', 'best_of_n', 'particle_guidance'])
def test_sweeps_take_any_step(name, step): assert follow(make(name), step=SAMPLERS[step].step)[-1].x.isfinite().all()


def test_a_grid_that_ends_above_zero(name):
    steps = follow(make(name), sigmas=GRID[:-1])
    assert steps[-1].sigma_next == GRID[-2] and steps[-1].x.isfinite().all()


def test_through_sample(name):
    x = sample(LINE, Y, (1,), steps=8, loop=make(name))
    assert x.shape == (6, 1) and x.isfinite().all()
    if name not in SHARED: assert (sample(LINE, Y, (1,), steps=8, loop=make(name), batch_size=4) - x).abs().max() < 1e-4


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    unet = UNet(UNetConfig(image_size=8, patch=1, widths=(16, 32), emb=32)).eval().requires_grad_(False)
    for i, p in enumerate(unet.parameters()): p += (p[0].numel()**-.5 if p.ndim > 1 else .2)*torch.randn(p.shape, generator=rng(1, i))
    return Denoiser(unet)


def test_images(name, network):
    x = sample(network, torch.arange(4), (1, 8, 8), 'ddim', steps=6, loop=make(name))
    assert x.shape == (4, 1, 8, 8) and x.isfinite().all()
    if name not in SHARED: assert (sample(network, torch.arange(4), (1, 8, 8), 'ddim', steps=6, loop=make(name), batch_size=1) - x).abs().max() < 1e-3


@pytest.mark.parametrize('kind', PROCEDURES)
def test_stated_cost(kind):
    "Under guidance: those that only select unless they are told a scale are told one."
    counted, scale = Counted(LINE), dict(scale=2.) if kind in ('fk', 'best_of_n') else {}
    list(make(kind, **scale)(counted, 80*torch.randn(2, 1), karras_grid(40), Y[:2], ddim_step, lambda: torch.randn(2, 1)))
    assert abs(counted.rows/80 - PROCEDURES[kind].cost) < .08


@pytest.mark.parametrize('kind', PROCEDURES)
def test_entry(kind):
    method = PROCEDURES[kind]
    assert 'arXiv:' in method.paper and method.formula and method_options(method)


# Strengths that are none. TDS asks the model without label by design. CFG++ and foresight guidance, which is made of it, have none: 0 is unconditional, and at 1 the
# noise is still put back by the unconditional prediction.

OFF = dict(rectified=dict(scale=1.), pcg=dict(scale=1.), zsampling=dict(scale=1., inverse=1.), cfgig=dict(scale=1.), delayed=dict(scale=1.), fkc=dict(scale=1.),
    w2sd=dict(scale=1., inverse=1.), cfg_mp=dict(scale=1., repeats=0), restart=dict(scale=1.), rrr=dict(scale=1.), fk=dict(scale=1.), best_of_n=dict(scale=1.),
    particle_guidance=dict(scale=1.), superdiff=dict(scale=1.))


def test_who_has_an_off(): assert set(PROCEDURES) - set(OFF) == {'cfgpp', 'fsg', 'tds'}


@pytest.mark.parametrize('kind', OFF)
def test_off_does_not_look_at_the_unconditional_prediction(kind):
    class Blind(Mixture):
        def __call__(self, x, sigma, y):
            assert (y >= 0).all()
            return super().__call__(x, sigma, y)
    y = Y.clamp(min=0)
    blind = follow(make(kind, **OFF[kind]), Blind([[-1.], [.5], [2.]], [.2, .3, .1], [.3, .3, .4], [0, 0, 1]), y)
    assert torch.equal(blind[-1].x, follow(make(kind, **OFF[kind]), y=y)[-1].x)


@pytest.mark.parametrize('run,step', [(rectified(scale=1.), ddim_step), (cfgig(scale=1., sweeps=0), heun_step), (zsampling(scale=1., loops=0), ddim_step),
    (fkc(scale=1.), reverse_step), (restart(scale=1., repeats=0), heun_step), (rrr(scale=1., repeats=0), reverse_step),
    (particle_guidance(scale=1., strength=0.), heun_step), (best_of_n(reward=near, particles=1), heun_step), (cfg_mp(scale=1., repeats=0), ddim_step)])
def test_off_is_conditional_sampling(run, step):
    assert torch.equal(follow(run)[-1].x, follow(trajectory, step=step)[-1].x)


@pytest.mark.parametrize('form,step', [('ddim', 'ddim'), ('dpmpp', 'dpmpp')])
def test_cfgpp_at_zero_is_unconditional(form, step):
    plain = follow(trajectory, y=torch.full_like(Y, -1), step=SAMPLERS[step].step)[-1].x
    torch.testing.assert_close(follow(cfgpp(lam=0., form=form))[-1].x, plain, rtol=0, atol=1e-12)


# Against ordinary guidance

@pytest.mark.parametrize('lam', [.1, .6, 1.])
def test_cfgpp_is_cfg_with_a_scale_of_its_own_at_each_step(lam):
    levels = GRID.tolist()
    scales = {a: lam*a/(a - b) for a, b in zip(levels, levels[1:])}
    plain = follow(lambda world, *args: trajectory(guide(world, scale=lambda sigma: scales[sigma]), *args), step=ddim_step)
    ours = follow(cfgpp(lam=lam))
    assert max(((a.x - b.x)/a.sigma).abs().max().item() for a, b in zip(ours, plain)) < 1e-12


def test_cfgpp_ancestral_is_cfg_with_another():
    levels = GRID.tolist()
    scales = {a: .6*a**2/(a**2 - b**2) for a, b in zip(levels, levels[1:])}
    step = lambda *args, **kwargs: ddpm_step(*args, **kwargs, v=0.)
    plain = follow(lambda world, *args: trajectory(guide(world, scale=lambda sigma: scales[sigma]), *args), step=step)
    assert max(((a.x - b.x)/a.sigma).abs().max().item() for a, b in zip(follow(cfgpp(form='ancestral')), plain)) < 1e-12


@pytest.mark.parametrize('run,scale', [(rectified(scale=3., ahead=0.), 3.), (zsampling(scale=3., loops=0), 3.)])
def test_special_cases_are_cfg(run, scale):
    plain = follow(lambda world, *args: trajectory(guide(world, scale=scale), *args), step=ddim_step)
    torch.testing.assert_close(follow(run)[-1].x, plain[-1].x, rtol=0, atol=1e-10)


def test_no_delay_is_plain_sweeps():
    torch.testing.assert_close(follow(delayed(scale=2.3, delta=1.3, level=1.))[-1].x, follow(cfgig(scale=2.3, level=1.))[-1].x, rtol=0, atol=1e-10)


def test_foresight_without_loops_is_cfgpp(): assert torch.equal(follow(fsg(loops=()))[-1].x, follow(cfgpp(lam=1.))[-1].x)


# What is remembered

LOOPED = {'zsampling-3': dict(loops=3), 'pcg-3': dict(repeats=3), 'fsg-3': dict(loops=((0., .25, 3), (.5, .25, 2)))}


@pytest.mark.parametrize('name', [*FORMS, *LOOPED])
def test_a_rule_inside_remembers_once_a_step(name):
    "However often a procedure asks within a step, forward or on the way back: the first look of a step is remembered, and no other."
    found = []
    def combine(u, c, s, look):
        found.append(int(look.memory.get('steps', torch.tensor(0))))
        look.memory['steps'] = torch.tensor(found[-1] + 1)
        return u + s*(c - u)
    steps, run = [], make(name, **LOOPED.get(name, {}))
    inner = guide(LINE, scale=1.5, rule=Rule(combine))
    noise = Noise(0, range(6), (1,), dtype=torch.float64)
    for record in run(inner, 80*noise(), GRID, Y, ddim_step, noise, Run(range(6))):
        steps.append(found.copy()); found.clear()
    assert all(looks[0] == i and set(looks[1:]) <= {i + 1} for i, looks in enumerate(steps)), steps


# Where a look is taken

@pytest.mark.parametrize('ahead', [0., .25, None, .9])
@pytest.mark.parametrize('power', [0., .5, 3.])
@pytest.mark.parametrize('sigma,sigma_next', [(5., 2.), (.8, .1), (.3, 0.)])
def test_rectified_by_hand(ahead, power, sigma, sigma_next):
    "The weight belongs to the time of the step's beginning, the difference of the branches to the look ahead."
    x, y = torch.linspace(-2, 3, 6, dtype=torch.float64)[:, None], torch.tensor([0, 1, 0, 1, 1, 0])
    def velocity(z, t, labels): return (z - LINE(z/(1 - t), t/(1 - t), labels))/t
    t, t_next = sigma/(1 + sigma), sigma_next/(1 + sigma_next)
    z, dt = (1 - t)*x, t_next - t
    f, share = velocity(z, t, y), .5 if ahead is None else ahead
    there = z + share*dt*f
    gap = velocity(there, t + share*dt, y) - velocity(there, t + share*dt, torch.full_like(y, NULL))
    by_hand = (z + dt*(f + 3.2*(1 - t)**power*gap))/(1 - t_next)
    options = {} if ahead is None else dict(ahead=ahead)
    ours = rectified_step(LINE, Now(x, sigma, sigma_next, y), scale=4.2, power=power, **options).x
    torch.testing.assert_close(ours, by_hand, rtol=0, atol=1e-10)
    ours = follow(rectified(scale=4.2, power=power, **options), y=y, sigmas=torch.tensor([sigma, sigma_next], dtype=torch.float64))[0]
    x = sigma*Noise(0, range(6), (1,), dtype=torch.float64)()
    torch.testing.assert_close(ours.x, rectified_step(LINE, Now(x, sigma, sigma_next, y), scale=4.2, power=power, **options).x, rtol=0, atol=1e-12)


# Grids, delays and choices

def test_regrid():
    torch.testing.assert_close(regrid(GRID, 8), GRID, rtol=1e-12, atol=0)
    fine = regrid(GRID, 30, 1.)
    assert len(fine) == 31 and fine[0] == pytest.approx(1) and fine[-2] == pytest.approx(GRID[-2].item()) and fine[-1] == 0 and (fine.diff() < 0).all()


def test_delay_asks_both_branches_at_their_levels():
    seen = []
    def world(x, sigma, y): seen.extend(zip(y.tolist(), sigma.tolist())); return LINE(x, sigma, y)
    x = torch.zeros(1, 1, dtype=torch.float64)
    D = delay(world, 2.3, .1)(x, .9, torch.tensor([0]))
    levels = [.9*(2.3/1.1)**.5, .9*13**.5]
    assert sorted(seen) == [(-1, pytest.approx(levels[1])), (0, pytest.approx(levels[0]))]
    torch.testing.assert_close(D, 1.1*LINE(x, levels[0], 0) - .1*LINE(x, levels[1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize('seed', range(5))
def test_systematic(seed):
    logw, uniform = 3*torch.randn(50, generator=rng(seed), dtype=torch.float64), torch.rand(1, generator=rng(seed, 1)).item()
    copies = torch.bincount(systematic(logw, uniform), minlength=50)
    assert copies.sum() == 50 and ((copies - 50*logw.softmax(0)).abs() < 1).all()


def test_nobody_changes_class():
    y, logw = torch.arange(60) % 7, 5*torch.randn(60, generator=rng(2), dtype=torch.float64)
    parents = choose_parents(logw, y, torch.rand(60, dtype=torch.float64, generator=rng(3)), .9)
    assert (y[parents] == y).all() and (logw == 0).any()


def test_even_weights_are_left_alone():
    logw = torch.zeros(9, dtype=torch.float64)
    assert choose_parents(logw, torch.zeros(9), torch.full((9,), .3), .9).tolist() == list(range(9))


def test_window():
    "Outside the window nobody is weighed: FKC is then guided random sampling that draws twice a step, and inside it is not."
    twice = lambda d, now: reverse_step(d, now._replace(noise=lambda: (now.noise(), now.noise())[0]))
    plain = follow(lambda world, *args: trajectory(guide(world, scale=4.), *args), step=twice)[-1].x
    torch.testing.assert_close(follow(fkc(scale=4., window=(1e5, math.inf)))[-1].x, plain, rtol=0, atol=1e-10)
    assert (follow(fkc(scale=4.))[-1].x - plain).abs().max() > .01


# FKC: its step, its weights, its populations

@pytest.mark.parametrize('sigma,sigma_next', [(80., 40.), (3., 2.9), (1., .1), (.01, .002)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_the_random_step_keeps_the_noise_level(sigma, sigma_next, dtype):
    "Where all data are one point, noise of one level becomes noise of the next; guided or not, a step ends in the prediction."
    point = lambda x, sigma, y: torch.full_like(x, .3)
    x, n = torch.tensor([[.3], [.3 + sigma], [.3]], dtype=dtype), torch.tensor([[0.], [0.], [1.]], dtype=dtype)
    done = reverse_step(point, Now(x, sigma, sigma_next, Y[:3], lambda: n)).x
    mean, kept, fresh = done[0], done[1] - done[0], done[2] - done[0]
    torch.testing.assert_close(mean, x[0]); torch.testing.assert_close(kept**2 + fresh**2, torch.tensor([sigma_next**2], dtype=dtype))
    assert torch.equal(reverse_step(point, Now(x, sigma, 0., Y[:3], lambda: n)).x, torch.full_like(x, .3))


@pytest.mark.parametrize('steps', [6, 12, 40])
@pytest.mark.parametrize('particles', [1, 4])
@pytest.mark.parametrize('scale', [0., 1., 1.3, 3.7])
def test_no_more_noise_comes_out_than_the_network_was_told(steps, particles, scale):
    "At the last level above zero, samples of a point are as noisy as the level says, on coarse grids too."
    point = lambda x, sigma, y: torch.full_like(x, .3)
    y = torch.zeros(500, dtype=torch.long)
    last = follow(fkc(scale=scale, particles=particles), World(point), y, sigmas=karras_grid(steps)[:-1])[-1]
    assert (last.x - .3).square().mean().sqrt().item()/last.sigma_next == pytest.approx(1, abs=.1)


class World:
    "A function as a world of one dimension."
    dim = 1
    def __init__(self, f): self.f = f
    def __call__(self, *args): return self.f(*args)


@pytest.mark.parametrize('scale', [-.5, .5, 1.3, 2., 3.7])
@pytest.mark.parametrize('world,dim', [(LINE, 1), (three_gaussians(), 2)])
def test_a_weight_is_the_product_of_the_branches_over_the_guided_step(scale, world, dim):
    y, sigma, sigma_next = torch.tensor([0, 1, 1, 0]), 1.1, 1.0999
    x, landed = (1.5*torch.randn(4, dim, generator=rng(i), dtype=torch.float64) for i in range(2))
    record, gain = weighed_step(world, Now(x, sigma, sigma_next, y, lambda: landed), scale)
    D_u, D_c = world(x, sigma, torch.full_like(y, NULL)), world(x, sigma, y)
    keep, var = (sigma_next/sigma)**2, sigma_next**2*(1 - (sigma_next/sigma)**2)
    def log_p(D): return -(record.x - D - keep*(x - D)).square().sum(1)/2/var
    product = scale*log_p(D_c) + (1 - scale)*log_p(D_u) - log_p(D_u + scale*(D_c - D_u))
    torch.testing.assert_close(gain, product, rtol=1e-3, atol=1e-8)


def weighed_law(pair, scale, steps):
    "The law of FKC for Gaussians, without sampling: the log weight is quadratic, so that a weighed Gaussian is one."
    m, V, spots, levels = 0., 80.**2, torch.tensor([[0.], [1.], [-1.]], dtype=torch.float64), karras_grid(steps).tolist()
    for a, b in zip(levels, levels[1:]):
        now = Now(spots, a, b, torch.zeros(3, dtype=torch.long))
        still, gain = weighed_step(pair, now._replace(noise=lambda: torch.zeros_like(spots)), scale)
        kicked, _ = weighed_step(pair, now._replace(noise=lambda: torch.ones_like(spots)), scale)
        curve, slope = gain[1:].mean() - gain[0], (gain[1] - gain[2])/2
        m, V = (m/V + slope)/(1/V - 2*curve), 1/(1/V - 2*curve)
        factor, kick = (still.x[1] - still.x[0])[0], (kicked.x - still.x)[0, 0]
        m, V = factor*m + still.x[0, 0], factor**2*V + kick**2
    return Gauss(float(m), float(V))


@pytest.mark.parametrize('scale', [1.3, 1.6, 2., 3.7])
def test_weighed_gaussians_become_the_tilt(scale):
    exact, few, many = tilt_law(Gauss(1., .5), Gauss(0., 2.), scale), *(weighed_law(narrow_in_wide(.5, 2., 1.), scale, n) for n in (200, 400))
    assert 2*many.mean - few.mean == pytest.approx(exact.mean, abs=.006) and 2*many.var - few.var == pytest.approx(exact.var, abs=.006)


def test_particles_bring_an_image_nearer_to_the_tilt(tilted):
    "As near as one shared population of the same size, and much nearer than guided samples that nobody weighs."
    far = lambda run: wasserstein_distance(out(run, 400, karras_grid(64)).flatten(), tilted.means[:, 0], v_weights=tilted.weights)
    shared, own, unweighed = far(fkc()), far(fkc(particles=30)), far(fkc(window=(1e5, math.inf)))
    assert own < .75*unweighed and own < shared + .1


@pytest.mark.parametrize('particles', [2, 3, 16])
@pytest.mark.parametrize('scale', [0., 1., 1.3, 3.7])
def test_each_particle_is_paid_for(particles, scale):
    counted, y = Counted(LINE), torch.tensor([0, 1, 1, 0])
    steps = follow(fkc(scale=scale, particles=particles), World(counted), y)
    assert counted.rows/4/8 == (1 if scale in (0, 1) else 2*particles)
    assert all(s.x.shape == s.x0_hat.shape == (4, 1) for s in steps)


@pytest.mark.parametrize('size', [1, 3])
@pytest.mark.parametrize('scale', [1.3, 4.])
def test_an_image_with_a_population_of_its_own_depends_on_nobody(size, scale):
    y = torch.tensor([0, 0, 0, 1, 0, 0])
    whole = follow(fkc(scale=scale, particles=7), y=y)
    parts = [follow(fkc(scale=scale, particles=7), y=y[i:i+size], rows=range(i, i + size)) for i in range(0, 6, size)]
    for step, *others in zip(whole, *parts): torch.testing.assert_close(torch.cat([s.x for s in others]), step.x, rtol=0, atol=1e-10)
    assert len(whole[-1].x.unique()) == 6


def test_a_run_knows_whose_particles_it_has():
    "What is drawn or looked up by a sample's number inside a run fits the particles, whatever the numbers are."
    from cfg_course.core import present_run
    seen = []
    def world(x, sigma, y): seen.append((present_run().rows, present_run().step, len(x))); return LINE(x, sigma, y)
    follow(fkc(particles=3), World(world), Y[:2], rows=[5, 9])
    assert all(list(rows) == [5, 5, 5, 9, 9, 9] and n == 12 for rows, _, n in seen) and [s for _, s, _ in seen] == list(range(1, 9))


def test_every_place_is_chosen_in_proportion():
    "The one that is returned must not be the first of the list more often than its weight says."
    logw = torch.tensor([.1, .6, .3], dtype=torch.float64).log()
    chosen = torch.stack([systematic(logw, u) for u in torch.linspace(.0005, .9995, 1000).tolist()])
    for place in range(3): torch.testing.assert_close(torch.bincount(chosen[:, place], minlength=3)/1000, logw.exp().float(), rtol=0, atol=2e-3)


@pytest.mark.parametrize('scale,least', [(1., .95), (1.25, .85), (2., .97)])
def test_digits_of_few_steps_are_recognised(scale, least):
    "Coarse grids: 12 steps, 200 digits of the shipped model, the shipped judge."
    from importlib import resources
    model, y = load_denoiser(resources.files('cfg_course')/'weights'/'mnist-a.safetensors')[0], torch.arange(200)//20
    x = sample(model, y, (1, 28, 28), 'ddim', steps=12, grid='karras', loop=fkc(scale=scale), batch_size=200)
    assert (predict(load_classifier('mnist')[0], x).argmax(1) == y).double().mean() >= least


# Where they end

@pytest.mark.parametrize('lam', [.3, .6, 1.])
@pytest.mark.parametrize('form', ['ddim', 'dpmpp', 'ancestral'])
def test_cfgpp_ends_where_the_classifier_is_surest(lam, form):
    "With more steps all samples come together at the maximum of p(c|x), 4/3 in this world, whatever the strength."
    few, many = (out(cfgpp(lam=lam, form=form), 100, karras_grid(n), world=narrow_in_wide(.5, 2., 1.)) for n in (200, 800))
    assert (many.mean() - 4/3).abs() < .05 and many.std() < .6*few.std() and many.std() < .25


@pytest.mark.parametrize('form', ['ddim', 'dpmpp'])
def test_cfgpp_climbs_a_hill_without_a_top(form):
    means = [out(cfgpp(form=form), 100, karras_grid(n)).mean().item() for n in (32, 128, 512)]
    assert -1 > means[1] > -3 > means[2]


def normals(n):
    g = rng(0)
    return lambda: torch.randn(n, 1, generator=g, dtype=torch.float64)


def out(run, n, sigmas, step=heun_step, world=LINE):
    noise = normals(n)
    *_, last = run(world, sigmas[0]*noise(), sigmas, torch.zeros(n, dtype=torch.long), step, noise)
    return last.x


@pytest.fixture(scope='module')
def tilted(): return tilt_on(mesh(-9, 9, 6001), LINE, 2.)


def test_who_reaches_the_tilt(tilted):
    far = lambda x: wasserstein_distance(x.flatten(), tilted.means[:, 0], v_weights=tilted.weights)
    cfg = lambda step: out(lambda world, *args: trajectory(guide(world, scale=2.), *args), 2000, karras_grid(64), step)
    best = min(far(cfg(heun_step)), far(cfg(reverse_step)))
    assert far(out(fkc(), 8000, karras_grid(512))) < best/5
    assert far(out(cfgig(level=.25, sweeps=40, start=.1), 2000, karras_grid(135))) < best/5
    assert far(out(lambda world, *args: trajectory(delay(world, 2., .1), *args), 2000, karras_grid(32))) < best/2


def test_pcg_has_the_variance_of_the_random_sampler():
    pair, errors = narrow_in_wide(.5, 2., 1.), []
    probe, zero = torch.tensor([[0.], [1.], [0.]], dtype=torch.float64), torch.tensor([[0.], [0.], [1.]], dtype=torch.float64)
    for steps in (100, 200):
        levels, V = logsnr_grid(steps, 1e-3, 100.).tolist(), 1e4
        for a, b in zip(levels, levels[1:]):
            (record,) = pcg(scale=3.)(pair, probe, [a, b], torch.zeros(3, dtype=torch.long), noise=lambda: zero)
            V = ((record.x[1] - record.x[0])**2*V + (record.x[2] - record.x[0])**2).item()
        errors.append(V - float(sde_law(Gauss(1., .5), Gauss(0., 2.), 3.).var))
    assert errors[0]/errors[1] == pytest.approx(2, abs=.2) and abs(errors[1]) < .02


# Options

@pytest.mark.parametrize('kind,options,said', [
    ('cfgpp', dict(lam=1.01), 'lam: got 1.01'), ('cfgpp', dict(lam=-.1), 'lam'), ('cfgpp', dict(lam=math.nan), 'lam'), ('cfgpp', dict(form='heun'), 'ddim, ancestral, dpmpp'),
    ('rectified', dict(ahead=1.), 'ahead: got 1.0'), ('rectified', dict(ahead=-.1), 'ahead'), ('rectified', dict(power=-1.), 'power'), ('rectified', dict(scale=math.inf), 'scale'),
    ('pcg', dict(repeats=0), 'repeats: got 0, allowed: a whole number >= 1'), ('pcg', dict(repeats=1.5), 'repeats'), ('pcg', dict(scale='2'), 'scale'),
    ('zsampling', dict(loops=-1), 'loops'), ('zsampling', dict(inverse=None), 'inverse'), ('fsg', dict(lam=2.), 'lam'), ('fsg', dict(loops=((1., .1, 1),)), 'loops'), ('fsg', dict(loops=((0., .1, 0),)), 'loops'),
    ('cfgig', dict(level=0.), 'level: got 0.0'), ('cfgig', dict(sweeps=-1), 'sweeps'), ('cfgig', dict(start=1.5), 'start'), ('cfgig', dict(scale=math.nan), 'scale'), ('cfgig', dict(start_scale=math.nan), 'scale'),
    ('delayed', dict(scale=.9), 'scale: got 0.9'), ('delayed', dict(delta=0.), 'delta'), ('delayed', dict(level=-1.), 'level'),
    ('fk', {}, 'reward: got None'), ('tds', {}, 'reward: got None'), ('best_of_n', {}, 'reward: got None'), ('fk', dict(reward=3), 'reward: got 3'), ('superdiff', {}, 'label: got None'),
    ('fk', dict(reward=near, potential='min'), 'max, sum, difference'), ('fk', dict(reward=near, window=(.8, .2)), 'window'), ('fk', dict(reward=near, lam=-1.), 'lam'), ('superdiff', dict(label=1, scale=0.), 'scale'),
    ('superdiff', dict(label=1, form='not'), 'or, and'), ('restart', dict(points=1), 'points'), ('restart', dict(low=0.), 'low'), ('rrr', dict(until=2.), 'until'), ('cfg_mp', dict(plus=1), 'plus'),
    ('w2sd', dict(model=3), 'model: got 3'), ('particle_guidance', dict(strength=-1.), 'strength'),
    ('fkc', dict(threshold=1.1), 'threshold'), ('fkc', dict(window=(2., 1.)), 'window'), ('fkc', dict(window=(1.,)), 'window'), ('fkc', dict(walkers=4), 'fkc, walkers'), ('fkc', dict(particles=0), 'particles: got 0'), ('fkc', dict(particles=2.), 'particles'), ('fkc', dict(particles=True), 'particles')])
def test_bad_options_are_refused_before_anything_is_sampled(kind, options, said):
    with pytest.raises(InputError) as e: make_method(PROCEDURES, kind, **options)
    assert said in str(e.value)


@pytest.mark.parametrize('run,steps', [(cfgig(level=100.), 8), (cfgig(level=1e-4), 8), (cfgig(sweeps=8), 8), (delayed(level=81.), 8), (restart(), 1), (restart(low=.5, high=.01), 8), (superdiff(label=2), 8)])
def test_what_the_grid_cannot_do_is_refused_before_the_network_is_asked(run, steps):
    counted = Counted(LINE)
    with pytest.raises(InputError): next(run(counted, torch.zeros(1, 1), karras_grid(steps), torch.tensor([0])))
    assert counted.rows == 0


def test_labels_are_needed(name):
    with pytest.raises(InputError, match='y: got None'): next(make(name)(LINE, torch.zeros(1, 1), GRID))


# Rewards, and what was wrong with them elsewhere

@pytest.mark.parametrize('reward,said', [(lambda x, s, y: x.mean(), 'one number for each sample'), (lambda x, s, y: 1., 'got .float.'), (lambda x, s, y: near(x, s, y)*math.nan, 'finite numbers')])
@pytest.mark.parametrize('kind', ['fk', 'tds', 'best_of_n'])
def test_what_is_no_reward_is_named(kind, reward, said):
    with pytest.raises(InputError, match=said): follow(make(kind, reward=reward))


def test_a_reward_without_a_gradient_is_refused_by_tds():
    with pytest.raises(InputError, match='reward: got .one without a gradient'): follow(make('tds', reward=lambda x, s, y: near(x, s, y).detach()))


@pytest.mark.parametrize('potential', ['max', 'sum', 'difference'])
@pytest.mark.parametrize('threshold', [.3, 1.])
def test_no_increment_is_forgotten(potential, threshold):
    "Whatever the potentials, and whether or not a step resamples, a path has the weight exp(lam r(x0)) in the end."
    from cfg_course.particles import Seen, weigh_reward
    rewards, kept, total = torch.randn(7, 5, generator=rng(1), dtype=torch.float64) - 20, {}, 0.
    for i, r in enumerate(rewards):
        seen = weigh_reward(Seen(r, r, None, kept), r, 1.7, potential, Place(i, 7))
        total, kept = total + seen.gain, seen.kept
    torch.testing.assert_close(total, 1.7*rewards[-1], rtol=0, atol=1e-10)


def test_a_maximum_below_zero_counts():
    "The released code starts its maximum at 0, where log probabilities never get."
    from cfg_course.particles import Seen, weigh_reward
    r = torch.tensor([-3., -1., -9.], dtype=torch.float64)
    torch.testing.assert_close(weigh_reward(Seen(r, r, None, {}), r, 2., 'max', Place(0, 5)).gain, 2*r)


def test_when_particles_are_weighed():
    assert [i for i in range(100) if is_weighed(Place(i, 100), .2, (.2, .8))] == [20, 40, 60, 80, 99]
    assert [i for i in range(16) if is_weighed(Place(i, 16), .2, (.2, .8))] == [3, 6, 9, 12, 15]
    assert all(is_weighed(Place(i, 7), 0., (0., 1.)) for i in range(7))


@pytest.mark.parametrize('kind', ['fk', 'tds', 'best_of_n'])
def test_the_chosen_are_better(kind):
    y, mean = torch.zeros(60, dtype=torch.long), lambda run: near(follow(run, y=y, sigmas=karras_grid(24))[-1].x, 0., y).mean()
    assert mean(make(kind, reward=near, **({} if kind == 'tds' else dict(scale=0.)))) > mean(fkc(scale=0.)) + .2


def test_best_is_the_best():
    y, seen = torch.tensor([0, 1, 1]), []
    def remembered(x, s, y): seen.append((x, near(x, s, y))); return seen[-1][1]
    last = follow(best_of_n(reward=remembered, particles=6), y=y)[-1].x
    (x, r), = seen
    assert torch.equal(last, x.reshape(3, 6, 1)[torch.arange(3), r.reshape(3, 6).argmax(1)])


def test_tds_in_inference_mode():
    want = follow(make('tds'))[-1].x
    with torch.inference_mode(): torch.testing.assert_close(follow(make('tds'))[-1].x, want)


@pytest.mark.parametrize('n', [1, 2, 3, 7])
def test_repulsion(n):
    "Two do not divide by the logarithm of one; the push goes away from the others, and copies do not become numbers that are none."
    x = torch.randn(n, 4, generator=rng(n), dtype=torch.float64)
    push = repulsion(x)
    assert push.isfinite().all() and (push.abs().sum() > 0) == (n > 2) and repulsion(x[:1].expand(n, 4)).isfinite().all()
    if n == 3: assert ((push*(x - x.mean(0))).sum(1) > 0).all()


def test_classes_do_not_push_each_other():
    y = torch.tensor([0, 1]*6)
    whole = follow(particle_guidance(strength=3.), y=y)[-1].x
    rows = list(range(0, 12, 2))
    torch.testing.assert_close(follow(particle_guidance(strength=3.), y=y[rows], rows=rows)[-1].x, whole[rows], rtol=0, atol=1e-10)


# Hidden scales and identities

@pytest.mark.parametrize('K', [1, 2, 5])
@pytest.mark.parametrize('sigma', [1.1, 6.])
def test_iterations_are_a_hidden_scale(K, sigma):
    x, y, h = torch.linspace(-2, 3, 6, dtype=torch.float64)[:, None], torch.tensor([0, 1, 0, 1, 1, 0]), 1e-5*sigma
    def moved(run, h): return (run(Now(x, sigma, sigma - h, y)).x - x)/h
    ours, cfg = lambda now: cfg_mp_step(LINE, now, 1.4, K), lambda now: ddim_step(guide(LINE, scale=1.4 + K/2), now)
    torch.testing.assert_close(2*moved(ours, h/2) - moved(ours, h), moved(cfg, h), rtol=0, atol=1e-6)


def test_w2sd_with_two_scales_is_zsampling():
    for scales in ({}, dict(scale=2.3, inverse=.4)):
        twin = dict(inverse=1.) | scales
        assert torch.equal(follow(w2sd(**scales))[-1].x, follow(zsampling(**twin))[-1].x)


def test_restart_adds_noise():
    "The released code adds none unless it is told to."
    kicked = [follow(restart(noise=v))[-1].x for v in (0., 1., 1.003)]
    assert len({tuple(k.flatten().tolist()) for k in kicked}) == 3


@pytest.mark.parametrize('repeats', [1, 20])
def test_langevin_steps_are_stable_on_coarse_grids(repeats):
    x = follow(rrr(repeats=repeats), sigmas=karras_grid(5))[-1].x
    assert x.abs().max() < 20


# The default of every procedure draws digits

AIM = dict(superdiff=.6) # has another aim: one of two labels

@pytest.mark.slow
@pytest.mark.parametrize('kind', ['w2sd', 'cfg_mp', 'restart', 'rrr', 'fk', 'tds', 'best_of_n', 'particle_guidance', 'superdiff'])
def test_digits_at_defaults(kind):
    from importlib import resources
    model, judge, y = load_denoiser(resources.files('cfg_course')/'weights'/'mnist-a.safetensors')[0].requires_grad_(False), load_classifier('mnist')[0].requires_grad_(False), torch.arange(50) % 10
    options = dict(reward=class_reward(judge)) if kind in ('fk', 'tds', 'best_of_n') else TAKES.get(kind, {})
    x = sample(model, y, (1, 28, 28), 'ddim', steps=16, batch_size=50, loop=make_method(PROCEDURES, kind, **options))
    assert (predict(judge, x).argmax(1) == y).double().mean() >= AIM.get(kind, .9)
