"Objectives that leave a guided network: where they end, what they draw, what they ask; and the shipped weak model."
import json, os
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path

import pytest, torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from cfg_course.core import NULL, InputError, load_tensors, rng, to_float
from cfg_course.data import load_data
from cfg_course.denoisers import Denoiser, load_denoiser, save_denoiser
from cfg_course.guidance import beta_to_scale, guide, interval, mg_to_scale
from cfg_course.networks import CONFIGS, UNet, UNetConfig
from cfg_course.training import RECIPES, Batch, TrainConfig, Trainer, at_scale, denoising_loss, distillation, draw_batch
from cfg_course.training import guidance_free, model_guidance, student_of

WEIGHTS = resources.files('cfg_course')/'weights'
SMALL = UNetConfig(image_size=8, patch=2, widths=(16, 16), heads=2, emb=32)


@pytest.fixture(autouse=True)
def alone():
    "None of Accelerate's state from other tests or for them."
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


class Table(torch.nn.Module):
    "g = a + b s for each noisy pixel and label; the last label is no label."
    def __init__(self, pixels, labels):
        super().__init__()
        self.rows = torch.nn.Parameter(torch.randn(pixels, labels + 1, 2, generator=rng(5), dtype=torch.float64))

    def forward(self, x, sigma, y, scale=0.):
        a, b = self.rows[x[:, 0].round().long(), y].unbind(-1)
        return (a + b*torch.as_tensor(scale, dtype=torch.float64))[:, None]


def world(seed):
    "A batch that is a whole world: pixels 0, 1, 2 in two classes, noise 0 or 1, how often at random; and what is true."
    often = torch.randint(1, 5, (3, 2, 2), generator=rng(seed))
    rows = [(v, n, c) for v in range(3) for n in range(2) for c in range(2) for _ in range(often[v, n, c])]
    v, n, c = torch.tensor(rows).T
    two = lambda o: torch.cat([o, o])[:, None].double()
    batch = Batch(two(v), torch.cat([c, torch.full_like(c, NULL)]), torch.ones(2*len(v), dtype=torch.float64), two(n))
    mean = lambda keep: torch.stack([v[keep & (v + n == x)].double().mean() for x in range(4)])
    return batch, torch.stack([mean(c == 0), mean(c == 1), mean(c >= 0)])


def settle(loss, batch, steps=900, rate=1.):
    torch.manual_seed(0); table = Table(4, 2)
    opt = torch.optim.SGD(table.parameters(), rate)
    for _ in range(steps): opt.zero_grad(); loss(table, batch).backward(); opt.step()
    return table


def ask(table, y, scale=0.):
    x = torch.arange(4.)[:, None].double()
    return table(x, 1., torch.full((4,), y), scale)[:, 0].detach()


@pytest.mark.parametrize('w', [.5, 1.5, 1.75])
def test_model_guidance_settles_at_its_scale(w):
    batch, (c0, c1, u) = world(0)
    table = settle(model_guidance(w), batch, rate=3.)
    for y, c in ((0, c0), (1, c1)): assert (ask(table, y) - (u + mg_to_scale(w)*(c - u))).abs().max() <= 1e-6
    assert (ask(table, NULL) - u).abs().max() <= 1e-6


@pytest.mark.parametrize('beta', [1., .3])
def test_guidance_free_settles_at_its_scale(beta):
    batch, (c0, c1, u) = world(1)
    table, s = settle(guidance_free(beta, beta), batch), beta_to_scale(beta)
    for y, c in ((0, c0), (1, c1)): assert (ask(table, y, s) - (u + s*(c - u))).abs().max() <= 1e-6
    assert (ask(table, NULL, 1.) - u).abs().max() <= 1e-6


def test_distillation_settles_at_every_scale():
    batch, (c0, c1, u) = world(2)
    teacher = settle(denoising_loss, batch, rate=3.)
    before = teacher.rows.clone()
    student = settle(distillation(teacher, -1., 2.), batch, steps=1800)
    assert torch.equal(teacher.rows, before)
    for s in (-1., 0., 1., 2., 6.):
        for y, c in ((0, c0), (1, c1)): assert (ask(student, y, s) - (u + s*(c - u))).abs().max() <= 1e-6


def test_no_gradient_through_the_gap():
    batch, _ = world(0)
    table, w = Table(4, 2), 1.6
    model_guidance(w)(table, batch).backward()
    got, table.rows.grad = table.rows.grad.clone(), None
    x = batch.x0 + batch.n
    gap = (table(x, 1., batch.y) - table(x, 1., torch.full_like(batch.y, NULL))).detach()
    (table(x, 1., batch.y) - (batch.x0 + (w - 1)*gap)).square().mean().backward()
    assert (got - table.rows.grad).abs().max() <= 1e-12


class Asked:
    "A network that notes what it is asked."
    def __init__(self): self.seen = []
    def __call__(self, x, sigma, y, scale=None): self.seen.append((y, scale)); return (0*x).requires_grad_()


def digits_batch(n=512, p_uncond=.2):
    return draw_batch(load_data('digits'), TrainConfig(batch_size=n, p_uncond=p_uncond), 0)


def test_what_is_drawn():
    batch, net = digits_batch(), Asked()
    guidance_free(.25)(net, batch)
    (none, one), (y, scale) = net.seen
    assert (none == NULL).all() and one == 1. and torch.equal(y, batch.y)
    free = scale[batch.y != NULL]
    assert (scale[batch.y == NULL] == 1).all() and 1 <= free.min() < 1.1 and 3.5 < free.max() <= 4
    assert abs((1/free).mean() - .625) < .05
    net = Asked()
    distillation(lambda x, sigma, y: x, 1., 4.)(net, batch)
    scale = net.seen[0][1]
    assert scale.shape == (512,) and 1 <= scale.min() < 1.1 and 3.9 < scale.max() <= 4 and abs(scale.mean() - 2.5) < .15


def test_objectives_without_guidance_are_the_loss():
    "w = 1, beta = 1, and a teacher that knows the image."
    torch.manual_seed(0)
    net = Denoiser(UNet(replace(SMALL, scaled=True)), sigma_data=.6)
    torch.nn.init.normal_(net.net.last[2].weight, std=.1)
    batch = digits_batch(32)
    plain = denoising_loss(net, batch, .5)
    def teacher(x, sigma, y): return batch.x0.repeat(len(x)//32, 1, 1, 1)
    for loss in (model_guidance(1.), guidance_free(1., 1.), distillation(teacher, 1., 1.)):
        assert abs(loss(net, batch, .5) - plain) <= 1e-6*plain


def test_a_run_with_another_objective_resumes_to_the_same_bits():
    data, cpu = load_data('digits'), Accelerator(cpu=True)
    cfg = TrainConfig(steps=8, batch_size=16, warmup=2, p_uncond=0.)
    torch.manual_seed(0); teacher = Denoiser(UNet(SMALL), sigma_data=.6).eval()
    torch.nn.init.normal_(teacher.net.last[2].weight, std=.1)
    make = lambda: Trainer(student_of(teacher), data, cfg, cpu, loss=distillation(teacher))
    whole, first, second = make(), make(), make()
    for _ in range(8): whole.step()
    for _ in range(4): first.step()
    second.restore({k: v.clone() for k, v in first.state().items()}, 4)
    for _ in range(4): second.step()
    assert all(map(torch.equal, whole.state().values(), second.state().values()))
    assert all(p.grad is None for p in teacher.parameters())


def test_student_begins_as_its_teacher_and_travels(tmp_path):
    teacher = load_denoiser(WEIGHTS/'digits.safetensors')[0]
    student = student_of(teacher).eval()
    x, y = torch.randn(6, 1, 8, 8, generator=rng(0)), torch.tensor([0, 1, 2, NULL, 4, 5])
    for scale in (0., 1., torch.linspace(1, 4, 6)):
        assert torch.equal(at_scale(student, scale)(x, .8, y), teacher(x, .8, y))
    torch.nn.init.normal_(student.net.embedding.scale[2].weight, std=.1)
    save_denoiser(student, tmp_path/'student.safetensors')
    again = load_denoiser(tmp_path/'student.safetensors')[0]
    scale = torch.linspace(1, 4, 6)
    out = student(x, .8, y, scale)
    assert torch.equal(again(x, .8, y, scale), out) and (out - teacher(x, .8, y)).abs().max() > 1e-3
    assert (student(x[4:5], .8, y[4:5], scale[4]) - out[4:5]).abs().max() <= 1e-5
    assert torch.equal(student(x, .8, y), at_scale(student, 1.)(x, .8, y))
    window = at_scale(student, interval(3., .2, 2.))
    assert torch.equal(window(x, .8, y), student(x, .8, y, 3.)) and torch.equal(window(x, 5., y), student(x, 5., y, 1.))


BAD = {
    'w_mg': (lambda: model_guidance(2.), lambda: model_guidance(0.), lambda: model_guidance(float('nan'))),
    'low': (lambda: guidance_free(-.1), lambda: guidance_free(1.5), lambda: distillation(None, float('inf'))),
    'high': (lambda: guidance_free(.5, .2), lambda: guidance_free(.5, 2.), lambda: distillation(None, 4., 1.)),
    'scale': (lambda: at_scale(Denoiser(UNet(SMALL)), 2.)(torch.randn(1, 1, 8, 8), 1., torch.zeros(1).long()),),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input(name):
    for bad in BAD[name]:
        with pytest.raises(InputError, match=f'^{name}: got'): bad()


# The weak model

def test_weak_model_is_half_as_wide_and_briefly_trained():
    net, meta = load_denoiser(WEIGHTS/'mnist-weak.safetensors')
    note = json.loads((WEIGHTS/'mnist-weak.json').read_text())
    full, recipe = load_tensors(WEIGHTS/'mnist-a.safetensors', 'denoiser')[1], asdict(RECIPES['mnist'])
    assert net.net.cfg == CONFIGS['mnist_weak'] and [2*w for w in net.net.cfg.widths] == full['net']['widths']
    assert meta['step'] == recipe['steps']/16 == 625 and 20*meta['step']*meta['train']['batch_size'] < full['step']*full['train']['batch_size']
    assert {**meta['train'], 'steps': recipe['steps']}.items() <= recipe.items()
    assert meta['command'] == note['command'] == 'python train.py --dataset mnist --net mnist_weak --steps 625'
    assert (WEIGHTS/'mnist-weak.safetensors').stat().st_size < 6e5
    assert (net.sigma_data, meta['shape']) == (full['sigma_data'], full['shape'])


DATA = os.environ.get('CFG_COURSE_DATA', 'data')


@pytest.mark.skipif(not (Path(DATA)/'MNIST').is_dir(), reason='no MNIST here')
def test_weak_model_is_worse_everywhere():
    strong, weak = (load_denoiser(WEIGHTS/f'{name}.safetensors')[0] for name in ('mnist-a', 'mnist-weak'))
    test = load_data('mnist', 'test', DATA)
    x0, y = to_float(test.x[:200]), test.y[:200]
    with torch.no_grad():
        for sigma in (.2, .5, 1., 2.):
            x = x0 + sigma*torch.randn(x0.shape, generator=rng(1))
            a, b = ((d(x, sigma, y) - x0).square().mean().item() for d in (strong, weak))
            assert a < b < 3*a
        assert guide(strong, scale=2., weak=weak)(x[:4], 1., y[:4]).isfinite().all()
