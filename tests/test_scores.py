"""The dictionary on random input: every prediction, coordinate system, level, precision and shape, there and back.

Tolerances follow from conditioning. Let u be the spacing of numbers at 1. A sample is known to u|x|, and so is a
denoised image that was reached through a difference from it (eps, score). Through v and the velocity it is known to
u times its own size and that of the noise. The way from an image to the noise divides that by sigma.
"""
import pytest
import torch
from hypothesis import given, settings, strategies as st

from cfg_course.core import InputError, rng
from cfg_course.scores import (
    FROM_X0,
    LEVELS,
    NATURAL,
    SCALES,
    TO_X0,
    as_denoiser,
    as_predictor,
    check_level,
    expand,
    x_to_z,
    z_to_x,
)

FIXED = settings(derandomize=True, deadline=None, max_examples=25, database=None)
KINDS, COORDS, DTYPES = sorted(TO_X0), sorted(SCALES), [torch.float32, torch.float64]


def size(x): return x.abs().reshape(len(x), -1).amax(1)


@st.composite
def noisy(draw, dtype):
    "Images, noise, noise levels from 0.001 to 1,000, one for each sample or one for all, and noisy images."
    shape, seed = (draw(st.integers(1, 4)), *draw(st.lists(st.integers(1, 3), max_size=3))), draw(st.integers(0, 10**6))
    exponents = draw(st.lists(st.floats(-3, 3), min_size=shape[0], max_size=shape[0]))
    sigma = (10**torch.tensor(exponents, dtype=torch.float64)).to(dtype)
    sigma = draw(st.sampled_from([sigma, sigma[0], sigma[0].item()]))
    x0, n = (torch.randn(shape, generator=rng(seed, i), dtype=torch.float64).to(dtype) for i in range(2))
    return x0, n, x0 + expand(sigma, x0)*n, sigma


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('kind', KINDS)
def test_predictions_come_back(kind, dtype):
    "From an image to every kind of prediction and back."
    @FIXED
    @given(noisy(dtype))
    def run(case):
        x0, n, x, sigma = case
        known = size(x) + size(x0) if kind in ('eps', 'score') else size(n) + size(x0)
        lost = size(TO_X0[kind](FROM_X0[kind](x0, x, sigma), x, sigma) - x0)
        assert (lost <= 8*torch.finfo(dtype).eps*known).all()
    run()


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('kind', KINDS)
def test_images_come_back(kind, dtype):
    "From every kind of prediction to the image and back: at low noise this is the ill-conditioned way."
    steep = dict(
        x0=lambda s: s**0,
        eps=lambda s: 1/s,
        score=lambda s: s**-2,
        v=lambda s: (1 + s**2)**.5/s,
        flow=lambda s: (1 + s)/s)[kind]
    @FIXED
    @given(noisy(dtype))
    def run(case):
        out, n, x, sigma = case
        x0 = TO_X0[kind](out, x, sigma)
        s = torch.as_tensor(sigma, dtype=torch.float64).expand(len(x))
        bound = steep(s)*(size(x) + size(x0)).double() + size(out).double()
        assert (size(FROM_X0[kind](x0, x, sigma) - out).double() <= 8*torch.finfo(dtype).eps*bound).all()
    run()


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('coords', COORDS)
def test_coordinates_come_back(coords, dtype):
    "Scaling and unscaling cost two roundings, at every noise level."
    @FIXED
    @given(noisy(dtype))
    def run(case):
        _, _, x, sigma = case
        assert ((z_to_x(x_to_z(x, sigma, coords), sigma, coords) - x).abs() <= 2*torch.finfo(dtype).eps*x.abs()).all()
    run()


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('level', sorted(LEVELS))
def test_levels_come_back(level, dtype):
    "The log SNR loses |log sigma| roundings, flow time 1 + sigma of them: at t = 1 it has no room for high noise."
    there, back = LEVELS[level]
    sigma = 10**torch.linspace(-3, 3, 2001, dtype=torch.float64).to(dtype)
    lost = (back(there(sigma))/sigma - 1).abs()
    worse = dict(sigma=0*sigma, logsnr=1 + sigma.log().abs(), t=1 + sigma)[level]
    assert (lost <= 4*torch.finfo(dtype).eps*worse).all()


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('coords', COORDS)
@pytest.mark.parametrize('kind', KINDS)
def test_denoisers_come_back(kind, coords, dtype):
    "A denoiser that is made a predictor in any language and read again is the same denoiser."
    def unit(x, sigma, y): return x/(1 + expand(sigma, x)**2)
    there_and_back = as_denoiser(as_predictor(unit, kind, coords), kind, coords)
    @FIXED
    @given(noisy(dtype))
    def run(case):
        _, _, x, sigma = case
        out = there_and_back(x, sigma, None)
        known = size(x) if kind in ('eps', 'score') else size(x)/(1 + torch.as_tensor(sigma))
        assert out.dtype == dtype and (size(out - unit(x, sigma, None)) <= 8*torch.finfo(dtype).eps*(1 + known)).all()
    run()


@pytest.mark.parametrize('coords', COORDS)
def test_what_a_network_sees(coords):
    "Its own coordinates, one level for each sample, and the labels as they came."
    seen = {}
    def predict(z, level, y):
        seen.update(z=z, level=level, y=y)
        return torch.zeros_like(z)
    x, y = torch.randn(3, 2), torch.arange(3)
    as_denoiser(predict, 'x0', coords)(x, 2., y)
    sigma = torch.full((3,), 2.)
    to_level, _ = LEVELS[NATURAL[coords]]
    assert torch.equal(seen['z'], x_to_z(x, 2., coords))
    assert torch.equal(seen['level'], to_level(sigma)) and seen['y'] is y


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('coords', COORDS)
def test_a_level_is_not_rounded_to_half_precision(coords, dtype):
    "Whatever samples come in, a network is told the level in single precision at least, and a denoiser of ours too."
    seen = []
    def listen(x, level, y):
        seen.append(level)
        return torch.zeros_like(x)
    x, level = torch.zeros(2, 3, dtype=dtype), torch.tensor([.1234567, 12.34567], dtype=torch.float64)
    to_level, _ = LEVELS[NATURAL[coords]]
    for sigma in (level, level[1], level[1].item()):
        as_denoiser(listen, 'x0', coords)(x, sigma, None)
        as_predictor(listen, 'x0', coords)(x, to_level(torch.as_tensor(sigma)), None)
        told, ours = seen[-2:]
        assert told.dtype == ours.dtype == torch.promote_types(dtype, torch.float32) and told.shape == ours.shape == (2,)
        want = torch.as_tensor(sigma, dtype=torch.float64).expand(2)
        torch.testing.assert_close(told.double(), to_level(want), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.double(), want, rtol=2e-5 if coords == 'rf' else 1e-6, atol=0.)


def test_gradients_flow():
    "Guidance rules differentiate through the translation."
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    denoise = as_denoiser(lambda z, level, y: z**2, 'v', 'rf')
    assert torch.autograd.gradcheck(lambda x: denoise(x, torch.tensor([.5, 3.]), None), x)


BAD = [0., -1., float('nan'), float('inf'), torch.tensor([1., 0.]), torch.tensor(-2.)]


@pytest.mark.parametrize('convert', [*list(FROM_X0.values())[1:], *list(TO_X0.values())[1:]])
@pytest.mark.parametrize('bad', BAD, ids=str)
def test_levels_that_are_none(convert, bad):
    "A noise level that is not positive and finite is named before it is divided by."
    x = torch.ones(2, 3)
    with pytest.raises(InputError, match='^sigma: got .*, allowed: > 0 and < inf$'): convert(x, x, bad)


def test_levels_on_a_device_are_not_looked_at():
    "Comparing them would make the host wait."
    level = torch.empty(3, device='meta')
    assert check_level(level) is level


@pytest.mark.parametrize('make', [as_denoiser, as_predictor])
@pytest.mark.parametrize('wrong', [dict(kind='epsilon'), dict(coords='edm'), dict(level='timestep')], ids=str)
def test_unknown_words(make, wrong):
    "The message lists the words that are known."
    (name, value), = wrong.items()
    table = dict(kind=TO_X0, coords=SCALES, level=LEVELS)[name]
    with pytest.raises(InputError, match=f'^{name}: got {value!r}, allowed: {", ".join(table)}$'): make(None, **wrong)
