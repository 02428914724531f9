"Devices without double precision: nothing there is made of that type, whichever sampler, technique or procedure asks."
import pytest, torch

from cfg_course.catalogue import SHELVES, parse_guidance, takes_scale
from cfg_course.cli import key_value
from cfg_course.core import InputError, Noise, follow, in_float64, rng
from cfg_course.denoisers import find_model
from cfg_course.particles import fkc
from cfg_course.procedures import regrid
from cfg_course.samplers import SAMPLERS, sample
from cfg_course.schedules import karras_grid
from cfg_course.sweeps import Point, effective_scales, find_guidance, mean_effective
from devices import OnApple
from test_techniques import ARGS

MODEL, META = find_model('digits')
MODEL.requires_grad_(False)


def on_apple(x): return x.float().as_subclass(OnApple)


@pytest.fixture
def apple(monkeypatch):
    "All noise is made on such a device, so that all that is drawn is there too: types of what networks were shown."
    draw, shown = Noise.__call__, set()
    monkeypatch.setattr(Noise, '__call__', lambda self: on_apple(draw(self)))
    look = MODEL.register_forward_pre_hook(lambda net, args: shown.add(type(args[0])))
    yield shown
    look.remove()
    assert OnApple in shown or not shown # where a copy of the network was asked


def test_numbers_come_to_the_cpu_first():
    x = on_apple(torch.randn(3, 2, generator=rng(0)))
    with pytest.raises(TypeError, match='no float64'): x.double()
    for values in (x, x[0, 0], [.1, .2], .1, (1, 2)):
        wide = in_float64(values)
        assert wide.dtype == torch.float64 and type(wide) is torch.Tensor
        plain = values.as_subclass(torch.Tensor) if isinstance(values, torch.Tensor) else values
        assert torch.equal(wide, torch.as_tensor(plain, dtype=torch.float64))
    assert in_float64(.1).item() == .1


def test_following_a_loop():
    "Levels on the device, `()` and `(B,)`; a wrong one is still refused."
    for shape in ((), (2,)):
        denoise = follow(lambda x, sigma, y: x)
        for level in (3., 2., 1.): denoise(on_apple(torch.ones(2, 1)), on_apple(torch.full(shape, level)), None)
        with pytest.raises(InputError, match='noise level'): denoise(on_apple(torch.ones(2, 1)), on_apple(torch.full(shape, 2.)), None)


def test_effective_scales_of_a_run():
    t, point = torch.tensor([2., 3., 4.]), Point('digits', 'cfg', 2., sampling=(('sampler', 'ddim'), ('steps', 2)))
    for run in ([{'effective': t}]*2, [{'effective': t}, {}]):
        there = [{k: on_apple(v) for k, v in facts.items()} for facts in run]
        assert torch.equal(effective_scales(there, 2, 3, 1.), effective_scales(run, 2, 3, 1.))
        assert mean_effective(point, there, [3]) == mean_effective(point, run, [3])


def drawn(method, **how):
    "Three digits, under a technique with the options that the tests give it."
    options = [key_value(word) for word in ARGS.get(method, '').split() if '=' in word]
    scale = 2. if takes_scale(parse_guidance(method)) else None
    point = Point('digits', method, scale, options=tuple(options))
    guided, loop, _ = find_guidance(point, MODEL, META)
    x = sample(guided, torch.tensor([0, 3, 9]), (1, 8, 8), loop=loop, steps=3, **how)
    assert x.isfinite().all()


@pytest.mark.parametrize('sampler', SAMPLERS)
def test_every_sampler(apple, sampler): drawn('cfg', sampler=sampler)


@pytest.mark.parametrize('method', [name for shelf in SHELVES.values() for name in shelf if name not in ('autoguidance', 'classifier', 'discriminator')])
def test_every_technique(apple, method): drawn(method, sampler='ddim')


@pytest.mark.parametrize('options', [dict(), dict(particles=3), dict(window=(.1, 10.)), dict(threshold=0.), dict(scale=0.)], ids=str)
def test_feynman_kac(apple, monkeypatch, options):
    "With the same numbers as on the CPU."
    def draw(): return sample(MODEL, torch.tensor([0, 0, 3, 3]), (1, 8, 8), loop=fkc(**options), sampler='ddpm', steps=4)
    there = draw()
    shown = set(apple)
    monkeypatch.undo()
    assert torch.equal(there, draw())
    apple.clear(), apple.update(shown)


def test_other_numbers_of_steps():
    grid = karras_grid(8)
    assert torch.equal(regrid(on_apple(grid), 5), regrid(grid.float(), 5)) and torch.equal(in_float64(grid), grid.double())
