"""Sample i depends on the seed and on i alone: not on the batch size, nor on who else is sampled, or where.

The noise is the same to the bit. The network is not: a convolution or a matrix product of another batch size may add up
its terms in another order, in float32, which is worth about 1e-7 in each pass. Guidance and the steps magnify that,
Heun's coarse ones most, to 1e-5 at the end; another machine's kernels may be worse, hence 1e-4.
"""
import pytest, torch

from cfg_course.core import NULL, Noise, rng
from cfg_course.denoisers import Denoiser
from cfg_course.guidance import guide
from cfg_course.networks import UNet, UNetConfig
from cfg_course.samplers import SAMPLERS, sample

CLOSE = dict(rtol=0, atol=1e-4)  # images span [-1, 1]; one grey level of 256 is 8e-3
SHAPE, N, STEPS = (1, 8, 8), 64, 5
Y = torch.arange(N) % 11 - 1
OPTIONS = dict(heun=dict(S_churn=2., sigma_min=.02, sigma_max=20.), ddim={}, dpmpp={}, ddpm=dict(v=.3))


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


def test_every_sampler_is_here(): assert OPTIONS.keys() == SAMPLERS.keys()


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
