"""Sample i depends on the seed and on i alone: not on the batch size, nor on who else is sampled, or where.

The noise is the same to the bit. The network is not: a convolution or a matrix product of another batch size may add up
its terms in another order, in float32, which is worth about 1e-7 in each pass. Guidance and the steps magnify that,
Heun's coarse ones most, to 1e-5 at the end; another machine's kernels may be worse, hence 1e-4.
"""
import copy, math, os, subprocess, sys
from pathlib import Path

import pytest, torch

from cfg_course.catalogue import make_guidance
from cfg_course.core import NULL, InputError, Noise, rng
from cfg_course.denoisers import Counted, Denoiser, find_model, save_denoiser
from cfg_course.guidance import guide
from cfg_course.networks import UNet, UNetConfig
from cfg_course.samplers import SAMPLERS, Step, make_sampler, sample, trajectory
from cfg_course.schedules import karras_grid

ROOT = Path(__file__).parents[1]
CLOSE = dict(rtol=0, atol=1e-4)  # images span [-1, 1]; one grey level of 256 is 8e-3
SHAPE, N, STEPS = (1, 8, 8), 64, 5
Y = torch.arange(N) % 11 - 1
OPTIONS = {name: {} for name in SAMPLERS} | dict(heun=dict(S_churn=2., sigma_min=.02, sigma_max=20.), ddpm=dict(v=.3))


@pytest.fixture(scope='module')
def guided():
    "A small U-Net, no layer of which is left at zero, guided."
    assert Y.min() == NULL and Y.max() == 9
    torch.manual_seed(0)
    unet = UNet(UNetConfig(image_size=8, patch=1, widths=(16, 32), emb=32)).eval().requires_grad_(False)
    for i, p in enumerate(unet.parameters()):
        scale = p[0].numel()**-.5 if p.ndim > 1 else .2
        p += scale*torch.randn(p.shape, generator=rng(1, i))
    return guide(Denoiser(unet), scale=2.)


@pytest.fixture(scope='module')
def draw(guided):
    "`sample` with few steps; all samples at once unless told otherwise."
    def f(name, y=Y, batch_size=N, seed=0, **kwargs):
        return sample(guided, y, SHAPE, name, seed, batch_size=batch_size, steps=STEPS, **OPTIONS[name], **kwargs)
    return f


@pytest.fixture(scope='module', params=SAMPLERS)
def name(request): return request.param


@pytest.fixture(scope='module')
def whole(draw, name): return draw(name)


def test_every_option_is_of_a_sampler(): assert OPTIONS.keys() <= SAMPLERS.keys()


def test_samples_are_worth_comparing(draw, name, whole):
    "Finite, and different from each other and from those of another seed by far more than the tolerance."
    assert whole.shape == (N, *SHAPE) and whole.dtype == torch.float32 and whole.isfinite().all()
    assert (torch.pdist(whole.flatten(1)) > .1).all() and (draw(name, seed=1) - whole).abs().mean() > .01


def test_again(draw, name, whole):
    "With the same batches there is nothing to round differently."
    assert torch.equal(draw(name), whole)


@pytest.mark.parametrize('batch_size', [1, 7, 64])
def test_batch_sizes(draw, name, whole, batch_size):
    torch.testing.assert_close(draw(name, batch_size=batch_size), whole, **CLOSE)


@pytest.mark.parametrize('batch_size', [7, 64])
def test_shares(draw, name, whole, batch_size):
    "Shared out over three processes and put together again."
    shares = [range(rank, N, 3) for rank in range(3)]
    parts = [draw(name, Y[list(rows)], batch_size, indices=rows) for rows in shares]
    together = torch.empty_like(whole)
    for rows, part in zip(shares, parts): together[list(rows)] = part
    torch.testing.assert_close(together, whole, **CLOSE)


def test_alone_and_out_of_order(draw, name, whole):
    few = [41, 3, 17]
    torch.testing.assert_close(draw(name, Y[few], indices=few), whole[few], **CLOSE)


def test_label_of_another_sample(draw, name, whole):
    "Changing one label changes one image."
    y = Y.clone()
    y[5] = (y[5] + 3) % 10
    moved = (draw(name, y) - whole).abs().amax((1, 2, 3))
    assert moved[5] > 1e-3 and moved[torch.arange(N) != 5].max() <= CLOSE['atol']


def test_noise_is_the_same_to_the_bit():
    whole, few = Noise(0, range(N), SHAPE), Noise(0, [9, 2], SHAPE)
    for _ in range(3): assert torch.equal(whole()[[9, 2]], few())


@pytest.mark.parametrize('batch_size', [1, 64])
def test_nothing_to_sample(draw, name, batch_size):
    assert draw(name, Y[:0], batch_size).shape == (0, *SHAPE)


# What is no image

def spoilt(model, label, below, kind=math.nan):
    "A model whose answer is no number for one label below a noise level."
    def denoise(x, sigma, y):
        bad = (y == label) & (torch.as_tensor(sigma) < below)
        return torch.where(bad[:, None, None, None], kind, model(x, sigma, y))
    denoise.classes = 10
    return denoise


@pytest.mark.parametrize('kind', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('batch_size', [2, 64])
def test_an_image_that_is_not_finite(guided, name, kind, batch_size):
    "Named with its number in the run, and with the noise level of the step in which it happened."
    y, numbers = torch.tensor([1, 2, 7, 3, 7]), [10, 4, 30, 2, 5]
    step, levels = make_sampler(name, steps=STEPS, **OPTIONS[name])
    levels = levels.tolist()
    below = levels[2]*1.001
    if name == 'heun': below = below*(1 + step.keywords['gamma'])  # churn raises the level before it is asked about
    at = next(a for a, b in zip(levels, levels[1:]) if a < below or name == 'heun' and 0 < b < below)
    with pytest.raises(InputError, match=f'image 30: not finite since the step from noise level {at:.4g} .*allowed: .*scale') as e:
        sample(spoilt(guided, 7, below, kind), y, SHAPE, name, indices=numbers, batch_size=batch_size, steps=STEPS, **OPTIONS[name])
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('text', ['cfgpp', 'pcg', 'fkc', 'fsg', 'cfgig', 'rectified', 'zsampling', 'delayed'])
def test_procedures_that_are_not_finite(guided, text):
    "Whatever the loop; where samples are exchanged, as in fkc, some image is named."
    denoise, loop = make_guidance(spoilt(guided.denoise, 3, 1.), text)
    with pytest.raises(InputError, match='image .*: not finite since the step from noise level'):
        sample(denoise, torch.tensor([1, 3, 3, 3]), SHAPE, steps=8, loop=loop)


@pytest.mark.parametrize('scale', [1e30, 1e38])
def test_scales_that_are_too_large(guided, name, scale):
    model = find_model('digits')[0].requires_grad_(False)
    with pytest.raises(InputError, match='image 0: not finite.*smaller scale'):
        sample(guide(model, scale=scale), torch.arange(3), SHAPE, name, steps=6)


def test_loud_images_are_images():
    "Large numbers are a bad choice, not a fault."
    model = find_model('digits')[0].requires_grad_(False)
    assert sample(guide(model, scale=1e6), torch.arange(3), SHAPE, steps=6).abs().max() > 1e3


def test_commands_write_nothing(tmp_path):
    "A model of nothing but nan: one line, and no file."
    model, meta = find_model('digits')
    for p in model.parameters(): p.data.fill_(math.nan)
    save_denoiser(model, tmp_path/'nan.safetensors', **{k: meta[k] for k in ('classes', 'shape', 'data')})
    line = [sys.executable, 'sample.py', '--model', tmp_path/'nan.safetensors', '--guidance-scale', '2', '-n', '4', '--steps', '4', '--device', 'cpu', '--out', tmp_path/'out']
    done = subprocess.run(list(map(str, line)), cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 2 and 'image 0: not finite since the step from noise level 80' in done.stderr and 'Traceback' not in done.stderr
    assert not list((tmp_path/'out').rglob('*.png')) and not list((tmp_path/'out').rglob('*.npz'))


# Labels

WRAPPED = dict(
    plain=lambda m: m, guided=lambda m: guide(m, scale=2.), counted=lambda m: Counted(guide(Counted(m), scale=2.)),
    procedure=lambda m: m, compiled=lambda m: torch.compile(m, backend='eager'))


@pytest.mark.parametrize('wrapper', WRAPPED)
@pytest.mark.parametrize('bad', [10, 11, -2, 10**6])
def test_labels_that_do_not_exist(wrapper, bad):
    "One line, before anything is drawn."
    asked = []
    model = find_model('digits')[0]
    model.net.register_forward_pre_hook(lambda *_: asked.append(1))
    loop = make_guidance(model, 'cfgpp')[1] if wrapper == 'procedure' else trajectory
    with pytest.raises(InputError, match=f'label: got {bad}, allowed: a class from 0 to 9, or -1 for none'):
        sample(WRAPPED[wrapper](model), torch.tensor([3, bad, 5]), SHAPE, steps=2, loop=loop)
    assert not asked


def test_labels_that_are_no_numbers_of_classes():
    with pytest.raises(InputError, match='labels: got torch.float32, allowed: whole numbers'):
        sample(find_model('digits')[0], torch.tensor([1., 2.]), SHAPE, steps=2)


def test_labels_of_a_stranger_are_his_own():
    "Who does not say how many classes there are is asked about any."
    assert sample(lambda x, sigma, y: 0*x + y[:, None, None, None], torch.tensor([17, -5]), SHAPE, steps=2)[0, 0, 0, 0] == 17


# Compiled

TOLD = ('none', 'cosine', 'apg', 'reg', 'characteristic', 'icg', 'cfgpp', 'rectified', 'pcg', 'zsampling', 'fsg', 'cfgig', 'delayed', 'fkc')


def test_compiled_once(guided):
    "A network is not compiled anew for each noise level: at most three graphs in 18 steps, and the same images to the bit."
    from torch._dynamo.testing import CompileCounter
    torch._dynamo.reset()
    model, counter = guided.denoise, CompileCounter()
    compiled = torch.compile(copy.deepcopy(model), backend=counter)
    def draw(denoise, text, sampler):
        scale = None if text in ('none', 'cfgpp') else 3.
        plan = make_guidance(denoise, text, scale=scale) if text != 'none' else (denoise, trajectory)
        return sample(plan[0], torch.arange(4), SHAPE, sampler, steps=18, loop=plan[1])
    for text, sampler in [('cfg', s) for s in SAMPLERS] + [(t, 'heun') for t in TOLD]:
        before = counter.frame_count
        assert torch.equal(draw(compiled, text, sampler), draw(model, text, sampler)), text
        assert counter.frame_count - before <= 3, text
    assert counter.frame_count <= 6


def test_a_step_of_ones_own_is_compiled_once(guided):
    "It passes numbers, as the records of steps have them, and the loop tells tensors."
    from torch._dynamo.testing import CompileCounter
    torch._dynamo.reset()
    counter, levels = CompileCounter(), []
    compiled = torch.compile(guided.denoise, backend=counter)
    def step(denoise, now):
        levels.append(now.sigma)
        D = denoise(now.x, now.sigma, now.y)
        return Step(D + now.sigma_next/now.sigma*(now.x - D), D, now.sigma, now.sigma_next)
    with torch.no_grad(): list(trajectory(compiled, torch.randn(4, *SHAPE), karras_grid(18), torch.arange(4), step))
    assert counter.frame_count <= 3 and all(isinstance(v, float) for v in levels)


def test_numbers_come_through():
    "Who needs the noise level as a number gets the one of the grid, to the last digit: schedules, intervals, records."
    seen, record, model = [], [], find_model('digits')[0].requires_grad_(False)
    def schedule(sigma): seen.append(sigma); return 2.
    for wrap in (lambda d: d, Counted, lambda d: lambda x, sigma, y: d(x, sigma, y)):
        seen.clear(); record.clear()
        sample(wrap(guide(model, scale=schedule, record=record)), torch.arange(2), SHAPE, 'ddim', steps=5)
        assert seen == [o['sigma'] for o in record] == karras_grid(5)[:-1].tolist() and all(isinstance(v, float) for v in seen)
