"What guidance repairs (chapter 26): asked scales, paths, errors of known kinds, ways to train on; all in the small world."
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cfg_course import repair
from cfg_course.core import NULL, InputError, rng
from cfg_course.denoisers import Denoiser
from cfg_course.guidance import guide
from cfg_course.networks import UNet, UNetConfig
from cfg_course.pictures import find_world
from cfg_course.repair import (Asked, DrawnTrainer, LedTrainer, MixedTrainer, PathTrainer, PerturbedTrainer, Place, Setting, WorldTrainer, ask_truth,
                               best_by_likelihood, best_multiple, direction, directions, draw_clean, draw_setting, kept_facts, led_down, mixed_error,
                               scale_noise, shy, stretches, walk, width_at, world_batch)
from cfg_course.samplers import SAMPLERS, make_sampler, sample
from cfg_course.training import TrainConfig, Trainer, make_accelerator

F64 = torch.float64


@pytest.fixture(scope='module')
def small(): return find_world('small-world')[0]


def noisy(world, n=60, sigma=.7, dtype=torch.float32, seed=0):
    y = torch.arange(n) % world.classes
    clean = world.sample(y, generator=rng(seed, 1))
    return clean.to(dtype), (clean + sigma*torch.randn(clean.shape, generator=rng(seed, 2), dtype=F64)).to(dtype), y


# The asked scale

@pytest.mark.parametrize('k', [.3, .7, 1., 1.6])
@pytest.mark.parametrize('sigma', [.3, 1., 8.])
def test_a_shy_denoiser_asks_for_one_over_its_part(small, k, sigma):
    _, x, y = noisy(small, sigma=sigma, dtype=F64)
    found = best_multiple(ask_truth(shy(small, k), small, x, sigma, y))
    assert abs(found.value - 1/k) < 1e-6 and found.low <= found.value <= found.high


def test_parts_and_the_whole_ask_for_the_same(small):
    "Samples are asked in parts of 250: the sums of each sample are those that it has alone."
    clean, x, y = noisy(small, n=510)
    net = mixed_error(small, lambda s: .1, .5)
    for truth in (small, clean):
        whole = ask_truth(net, truth, x, .7, y)
        some = ask_truth(net, truth[300:310] if isinstance(truth, torch.Tensor) else truth, x[300:310], .7, y[300:310])
        for name in ('shown', 'along', 'error'): assert torch.allclose(getattr(whole, name)[300:310], getattr(some, name), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('n', [0, 1])
def test_one_sample_has_no_interval(n):
    with pytest.raises(InputError): best_multiple(Asked(1., *[torch.ones(n)]*3))


# Paths

@pytest.mark.parametrize('name', sorted(SAMPLERS))
def test_the_path_of_every_sampler_ends_where_its_samples_are(small, name):
    "Keeping the path changes no sample, whether a sampler looks once or twice, and draws noise or not."
    y, steps = torch.arange(14) % 10, 6
    x, path = walk(small, y, small.shape, name, seed=3, batch_size=5, steps=steps)
    assert torch.equal(x, sample(small, y, small.shape, name, 3, batch_size=5, steps=steps))
    levels = make_sampler(name, steps)[1][:-1].tolist()
    assert [p.sigma for p in path] == levels and all(p.x.shape == x.shape for p in path)


def test_led_down_goes_as_the_sampler_goes(small):
    clean, _, y = noisy(small, 20)
    sigmas = stretches(18, 3, (.02, 6.))
    assert sigmas.shape[1] == 4 and (sigmas.diff(dim=1) < 0).all() and sigmas.min() > .02 and sigmas.max() < 6
    places = led_down(small, clean, y, sigmas[2], rng(5), 'ddim')
    assert [p.sigma for p in places] == sigmas[2, 1:].tolist()
    x = clean + sigmas[2, 0]*torch.randn(clean.shape, generator=rng(5))
    for sigma, place in zip(sigmas[2].tolist(), places):
        D = small(x, sigma, y)
        x = D + place.sigma/sigma*(x - D)
        assert torch.allclose(x, place.x, atol=1e-4)


@pytest.mark.parametrize('few', [1, 5, 40])
def test_stretches_of_any_length(few): assert len(stretches(18, 3, (.02, 6.))) >= 1 and stretches(60, few, (.01, 60.)).shape[1] == few + 1


# Epsilon scaling

@pytest.mark.parametrize('factor', [.9, 1., 1.03, 2.])
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, F64])
def test_epsilon_scaling_divides_the_predicted_noise(small, factor, dtype):
    _, x, y = noisy(small, dtype=dtype)
    said = scale_noise(small, factor)(x, .7, y)
    assert said.dtype == dtype and ((x - said)*factor - (x - small(x, .7, y))).abs().max() < (2e-2 if dtype == torch.float16 else 1e-5)


@pytest.mark.parametrize('factor', [0, -1., math.nan, math.inf])
def test_no_noise_is_divided_by_nothing(small, factor):
    with pytest.raises(InputError): scale_noise(small, factor)


# Draws and widths

def test_draws_have_the_posterior_mean_and_its_covariance(small):
    sigma, n = .6, 4000
    one = small.sample(torch.tensor([4]), generator=rng(1)) + sigma*torch.randn(1, *small.shape, generator=rng(2), dtype=F64)
    y = torch.full((n,), 4)
    drawn = draw_clean(small, one.expand(n, *small.shape), sigma, y, rng(3)).flatten(1)
    off = (drawn.mean(0) - small(one, sigma, y[:1]).flatten())/(drawn.std(0)/n**.5)
    assert off.square().mean() < 1.5
    a = torch.randn(1, *small.shape, generator=rng(4), dtype=F64)
    exact = (small.covariance(one, sigma, a, y[:1])*a).sum()
    assert abs((drawn@a.flatten()).var()/exact - 1) < .15


@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, F64])
def test_draws_come_in_the_type_of_the_question(small, dtype):
    _, x, y = noisy(small, dtype=dtype)
    assert draw_clean(small, x, .7, y, rng(0)).dtype == dtype


@pytest.mark.parametrize('bad', [0, 0., -1., math.nan, math.inf])
def test_levels_and_temperatures_are_above_zero(small, bad):
    _, x, y = noisy(small, 4)
    for ask in (lambda: draw_clean(small, x, bad, y), lambda: ask_truth(small, small, x, bad, y), lambda: repair.flat(small, bad)):
        with pytest.raises(InputError) as e: ask()
        assert '\n' not in str(e.value)


def test_the_exact_denoiser_goes_all_the_way(small):
    _, x, y = noisy(small, 400, .3)
    place = Place(.3, x)
    exact = small(x, .3, y)
    assert abs(width_at(small, place, y, exact).slope - 1) < 1e-5 and abs(width_at(small, place, y, exact).width - 1) < .15
    assert width_at(small, place, y, .5*exact + .5*x).slope > 1


# Ways to train

def tiny(seed=0):
    torch.manual_seed(seed)
    return Denoiser(UNet(UNetConfig(image_size=8, patch=1, widths=(8, 16), emb=16)), 'edm', .5)


CFG = TrainConfig('mnist', steps=100, batch_size=16, lr=1e-3, warmup=10, schedule='constant', P_mean=-.2, seed=3)
KINDS = dict(data=(WorldTrainer,), path=(PathTrainer,), drawn=(DrawnTrainer,), led=(LedTrainer, WorldTrainer), perturbed=(PerturbedTrainer, WorldTrainer))


def trainer(world, kind, cfg=CFG, **facts):
    made = type('Kind', KINDS[kind], facts)(tiny(), world, cfg, make_accelerator('fp32', 'cpu'))
    if kind in ('path', 'drawn'): made.paths = 4
    return made


@pytest.mark.parametrize('kind', KINDS)
def test_a_step_is_a_function_of_seed_and_step(small, kind):
    a, b = trainer(small, kind), trainer(small, kind)
    losses = [(a.step().item(), b.step().item()) for _ in range(2)]
    assert all(u == v and math.isfinite(u) for u, v in losses)
    other = trainer(small, kind, replace(CFG, seed=4))
    assert other.step().item() != losses[0][0]


@pytest.mark.parametrize('kind', ['path', 'drawn', 'led'])
@pytest.mark.parametrize('share', [0., .125, .5, 1.])
def test_the_share_of_places(small, kind, share):
    t = trainer(small, kind, share=share)
    batch, usual = t.own_part(), world_batch(small, CFG, 0)
    num = round(share*16)
    assert len(batch.y) == 16 and torch.equal(batch.x0[:16 - num], usual.x0[:16 - num])
    if num: assert (batch.sigma[16 - num:] > .02).all() and (batch.sigma[16 - num:] < 6).all()


@pytest.mark.parametrize('kind', ['path', 'drawn', 'led'])
def test_new_places_when_they_are_due(small, kind):
    t = trainer(small, kind, renew=2)
    t.step()
    first = t.met
    t.step()
    assert t.met is first, 'they stay for a while'
    t.step()
    assert t.met is not first


def test_exact_targets_on_the_path(small):
    t = trainer(small, 'path')
    t.own_part()
    met = t.met
    for i in range(0, len(met.y), max(1, len(met.y)//7)):
        exact = small(met.x[i:i + 1], met.sigma[i].item(), met.y[i:i + 1])
        assert (met.x0[i:i + 1] - exact).abs().max() < 1e-4
    assert (met.y == NULL).sum()*2 == len(met.y)


def test_places_from_noised_data_have_the_clean_pictures_for_targets(small):
    t = trainer(small, 'led')
    usual = world_batch(small, CFG, 0)
    t.own_part()
    clean = usual.x0[usual.y != NULL].flatten(1)
    assert (t.met.x0.flatten(1)[:, None] == clean).all(2).any(1).all()


@pytest.mark.parametrize('gamma', [0., .1, 1.])
def test_input_perturbation_moves_picture_and_input_alike(small, gamma):
    t = trainer(small, 'perturbed', gamma=gamma)
    batch, usual = t.own_part(), world_batch(small, CFG, 0)
    moved = (batch.x0 - usual.x0).flatten(1)/usual.sigma[:, None]
    assert torch.allclose(batch.x - usual.x, batch.x0 - usual.x0, atol=1e-3) and torch.equal(batch.n, usual.n)
    assert (moved == 0).all() if gamma == 0 else abs(moved.std()/gamma - 1) < .1


def test_the_two_general_ways_need_no_world():
    "Input perturbation and places from noised data are trained on images as well."
    from cfg_course.data import Images
    g = rng(0)
    images = Images(torch.randint(0, 255, (40, 1, 8, 8), generator=g, dtype=torch.uint8), torch.arange(40) % 10, [str(k) for k in range(10)], 'some')
    for kind in (LedTrainer, PerturbedTrainer):
        t = kind(tiny(), images, CFG, make_accelerator('fp32', 'cpu'))
        assert math.isfinite(t.step().item())


def test_a_mixture_says_where_its_places_are_from(small):
    with pytest.raises(NotImplementedError): MixedTrainer.find_places(object(), None)
    assert issubclass(MixedTrainer, Trainer)


# Settings and files

def test_facts_are_kept_and_damaged_ones_are_made_anew(small, tmp_path):
    setting = Setting('a/b', 1.5, num=20, steps=4)
    path, made = tmp_path/f'{setting.name()}.npz', []
    def make():
        made.append(1)
        return draw_setting(setting, small, small)
    first = kept_facts(path, make)
    again = kept_facts(path, make)
    assert len(made) == 1 and all(np.array_equal(first[k], again[k]) for k in first) and len(first['log_prob']) == 20
    for broken in (b'', path.read_bytes()[:-40], b'PK\x03\x04 nothing'):
        path.write_bytes(broken)
        assert np.array_equal(kept_facts(path, make)['log_prob'], first['log_prob'])
    assert len(made) == 4


def test_names_tell_settings_apart():
    base = Setting('640k')
    others = [base._replace(**{k: v}) for k, v in dict(who='10k', scale=2., method='apg', sampler='heun', steps=9, options=(('k', 1),), seed=1, num=10).items()]
    assert len({s.name() for s in (base, *others)}) == 9


@pytest.mark.parametrize('top', [1.3, 2.4])
def test_the_best_scale_is_the_top(top):
    scales = [1., 1.5, 2., 3., 5.]
    x = torch.tensor(scales, dtype=F64).log()
    logs = -10*(x - math.log(top))**2 + 3*torch.randn(300, 1, generator=rng(1), dtype=F64) + .1*torch.randn(300, 5, generator=rng(2), dtype=F64)
    best, low, high = best_by_likelihood(scales, logs, torch.arange(300) % 10)
    assert abs(best - top) < .1 and low <= best <= high


# Directions

@pytest.mark.parametrize('s', [1., 1.5, 4.])
def test_the_best_multiple_takes_the_squared_cosine_away(small, s):
    net = mixed_error(small, lambda sigma: .1, .5)
    y = torch.arange(40) % 10
    path = walk(net, y, small.shape, steps=5)[1]
    found = directions(guide(net, scale=s), net, small, path, y)
    assert len(found) == 5 and all(-1 <= one.cosine <= 1 for one in found)
    if s == 1: assert max(abs(one.cosine) for one in found) < .2
    c, D = net(path[2].x, path[2].sigma, y), small(path[2].x, path[2].sigma, y)
    assert direction(path[2], c, D, D).cosine == pytest.approx(1) and direction(path[2], c, c, D) == (path[2].sigma, 0., 0., 0.)


def test_blur_keeps_the_sum_and_the_shape():
    x = torch.zeros(2, 3, 21, 17)
    x[:, :, 10, 8] = 1
    y = repair.blur(x, 1.5)
    assert y.shape == x.shape and torch.allclose(y.sum((2, 3)), torch.ones(2, 3), atol=1e-3) and y[0, 0].argmax() == 10*17 + 8


FLAWS = dict(mixed=lambda w: mixed_error(w, lambda s: .1*s/(1 + s), .5), shy=lambda w: shy(w, .7), flat=lambda w: repair.flat(w, 3.), blurred=lambda w: repair.blurred_level(w, .4))


@pytest.mark.parametrize('flaw', FLAWS)
@pytest.mark.parametrize('dtype', [torch.float32, F64])
def test_known_errors_take_a_level_for_each_sample(small, flaw, dtype):
    "Techniques ask with levels as numbers, as tensors without a dimension, or with one for each sample."
    _, x, y = noisy(small, 12, dtype=dtype)
    y[3:5] = NULL
    net, levels = FLAWS[flaw](small), torch.tensor([.3, .9, 4.], dtype=dtype).repeat(4)
    together = net(x, levels, y)
    for i, level in enumerate(levels): assert torch.allclose(together[i:i + 1], net(x[i:i + 1], level, y[i:i + 1]), atol=1e-4) and together.dtype == dtype
    assert torch.allclose(net(x, torch.full((12,), .9, dtype=dtype), y), net(x, .9, y), atol=1e-4)
