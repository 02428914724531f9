"A denoiser that remembers or draws: any wrapper and any loop gives the images of our own, or an error."
import threading
from contextlib import nullcontext

import pytest, torch

from cfg_course.branches import Draws
from cfg_course.catalogue import make_guidance
from cfg_course.core import NULL, InputError, Noise, Run, follow, present_run, rng
from cfg_course.denoisers import Counted, find_model
from cfg_course.guidance import guide
from cfg_course.samplers import SAMPLERS, Now, make_sampler, sample, trajectory
from cfg_course.scores import as_denoiser, as_predictor

DIGITS = find_model('digits')[0].requires_grad_(False)
SHAPE, Y, STEPS = (1, 8, 8), torch.arange(4)*2, 6
GUIDED = dict(  # what needs to know its step
    memory=('apg', {}, None), done=('adaptive', dict(cosine=.9), None), path=('fbg', dict(steps=6), None),
    interval=('cfg', {}, (.2, 2.)), label=('icg', {}, None), damage=('s2', {}, None), noise=('tsg', {}, (.1, 5.)),
    late=('cads', {}, None), together=('apg+icg+cads+cosine', {}, (.1, 20.)))
each = pytest.mark.parametrize('name', GUIDED)


def make(name):
    text, options, interval = GUIDED[name]
    return make_guidance(DIGITS, text, scale=3., options=options, interval=interval)[0]


def draw(denoise, sampler='heun', **kwargs): return sample(denoise, Y, SHAPE, sampler, steps=STEPS, seed=1, **kwargs)


class Proxy:
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name): return getattr(self.inner, name)
    def __call__(self, *args, **kwargs): return self.inner(*args, **kwargs)


class Module(torch.nn.Module):
    def __init__(self, inner): super().__init__(); self.inner = inner
    def forward(self, x, sigma, y): return self.inner(x, sigma, y)


WRAPPERS = dict(
    counted=Counted, function=lambda d: lambda x, sigma, y: d(x, sigma, y), proxy=Proxy, module=Module,
    twice=lambda d: Counted(Counted(d)), nothing=lambda d: guide(d, scale=1.))


@pytest.mark.parametrize('wrapper', WRAPPERS)
@each
def test_wrappers(name, wrapper):
    "Bit by bit the same images, under Heun, which looks twice."
    assert torch.equal(draw(WRAPPERS[wrapper](make(name))), draw(make(name)))


OLD = tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6)


@pytest.mark.skipif(OLD, reason='the compiler of PyTorch 2.4 gives other images for several techniques at once; single ones agree')
def test_a_compiled_wrapper():
    denoise = make('together')
    assert torch.equal(draw(torch.compile(denoise, backend='eager')), draw(denoise))


@pytest.mark.parametrize('kind', ['eps', 'v', 'score', 'flow'])
@each
def test_coordinates(name, kind):
    "To another prediction and back, up to rounding."
    x = sample(as_denoiser(as_predictor(make(name).__call__, kind), kind), Y, SHAPE, 'heun', steps=STEPS, seed=1, sigma_min=.05)
    want = sample(make(name), Y, SHAPE, 'heun', steps=STEPS, seed=1, sigma_min=.05)
    assert (x - want).abs().max() < 2e-3


# Loops that are not ours

def start(): return make_sampler('heun', steps=STEPS)[1], Noise(1, range(4), SHAPE)


def edm_loop(denoise):
    "The loop of EDM's generate.py, without churn (Karras et al. 2022, algorithm 2)."
    levels, noise = start()
    x_next = noise()*levels[0].item()
    for i, (t_cur, t_next) in enumerate(zip(levels.tolist(), levels.tolist()[1:])):
        x_hat = x_next
        denoised = denoise(x_hat, t_cur, Y)
        d_cur = (x_hat - denoised)/t_cur
        x_next = x_hat + (t_next - t_cur)*d_cur
        if i < STEPS - 1:
            denoised = denoise(x_next, t_next, Y)
            d_prime = (x_next - denoised)/t_next
            x_next = x_hat + (t_next - t_cur)*(.5*d_cur + .5*d_prime)
    return x_next


def k_diffusion_loop(denoise, heun=True, callback=lambda info: None):
    "sample_heun and sample_euler of k-diffusion, which tell a callback of each step after its first look."
    levels, noise = start()
    sigmas, s_in = levels.float(), torch.ones(4)
    x = noise()*levels[0].item()
    for i in range(len(sigmas) - 1):
        denoised = denoise(x, sigmas[i]*s_in, Y)
        d = (x - denoised)/sigmas[i]
        callback(dict(i=i))
        dt = sigmas[i + 1] - sigmas[i]
        if sigmas[i + 1] == 0 or not heun: x = x + d*dt
        else:
            x_2 = x + d*dt
            d_2 = (x_2 - denoise(x_2, sigmas[i + 1]*s_in, Y))/sigmas[i + 1]
            x = x + (d + d_2)/2*dt
    return x


@pytest.mark.parametrize('loop', [edm_loop, k_diffusion_loop])
@each
def test_foreign_heun(name, loop):
    "The same images when followed; an error otherwise, and when said to look once."
    with torch.no_grad():
        assert (loop(follow(make(name), looks=2)) - draw(make(name))).abs().max() < 1e-3
        with pytest.raises(InputError, match='none outside a run.*follow'): loop(make(name))
        with pytest.raises(InputError, match='looks once.*looks=2'): loop(follow(make(name), looks=1))


@each
def test_foreign_euler(name):
    with torch.no_grad():
        loop = lambda denoise: k_diffusion_loop(denoise, heun=False)
        assert (loop(follow(make(name))) - draw(make(name), 'ddim')).abs().max() < 1e-3
        with pytest.raises(InputError, match='none outside a run'): loop(make(name))
        with pytest.raises(InputError, match='looks twice.*looks=1'): loop(follow(make(name), looks=2))


def test_plain_guidance_needs_no_run():
    with torch.no_grad():
        plain = guide(DIGITS, scale=3.)
        assert (edm_loop(plain) - draw(plain)).abs().max() < 1e-4
        scheduled = guide(DIGITS, scale=lambda sigma: 1 + sigma/(1 + sigma))
        assert (k_diffusion_loop(scheduled) - draw(scheduled)).abs().max() < 1e-3


def test_follow_takes_one_noise_level():
    with pytest.raises(InputError, match='noise level'): follow(make('memory'))(torch.zeros(2, *SHAPE), torch.tensor([1., 2.]), Y[:2])
    with pytest.raises(InputError, match='looks: got 3'): follow(make('memory'), looks=3)


# Two runs at once

def steps_of(denoise, seed, labels=Y):
    levels, _ = start()
    noise = Noise(seed, range(4), SHAPE)
    return trajectory(denoise, levels[0].item()*noise(), levels, labels, SAMPLERS['heun'].step, noise)


@each
@torch.no_grad()
def test_loops_that_take_turns(name):
    "Two runs of one object, step by step in turn, in one thread."
    denoise = make(name)
    alone = [[s.x for s in steps_of(make(name), seed)] for seed in (1, 2)]
    turns = zip(steps_of(denoise, 1), steps_of(denoise, 2))
    assert all(torch.equal(a.x, alone[0][i]) and torch.equal(b.x, alone[1][i]) for i, (a, b) in enumerate(turns))
    assert present_run() is None


@each
def test_threads(name):
    denoise, got = make(name), {}
    def work(seed):
        with torch.no_grad(): got[seed] = [s.x for s in steps_of(denoise, seed)][-1]
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    with torch.no_grad():
        for seed in range(4): assert torch.equal(got[seed], [s.x for s in steps_of(make(name), seed)][-1])


def test_a_used_object_begins_anew():
    "Used twice, and with another batch size."
    denoise = make('memory')
    first = draw(denoise)
    small = sample(denoise, Y[:1], SHAPE, steps=STEPS, seed=1)
    assert torch.equal(draw(denoise), first) and (small - first[:1]).abs().max() < 1e-4


# Saved in the middle

@pytest.mark.parametrize('sampler', SAMPLERS)
@each
@torch.no_grad()
def test_saved_and_restored(name, sampler, tmp_path):
    "After the third step everything goes into a file; another object goes on from there, to the same bits."
    step, levels = make_sampler(sampler, steps=STEPS)
    noise, run = Noise(1, range(4), SHAPE), Run(range(4))
    walk = trajectory(make(name), levels[0].item()*noise(), levels, Y, step, noise, run)
    for _ in range(3): last = next(walk)
    state = run.state()
    state['rows'] = list(state['rows'])
    torch.save(dict(run=state, x=last.x, x0_hat=last.x0_hat, sigma=last.sigma, noise=noise.state()), tmp_path/'run.pt')
    whole = [s.x for s in walk][-1]
    saved = torch.load(tmp_path/'run.pt', weights_only=True)
    noise = Noise(1, range(4), SHAPE)
    noise.restore(saved['noise'])
    prev = last._replace(x=saved['x'], x0_hat=saved['x0_hat'])
    rest = trajectory(make(name), saved['x'], levels[3:], Y, step, noise, Run.restore(saved['run']), prev)
    assert torch.equal([s.x for s in rest][-1], whole)


# What counts as a step

def test_draws_count_steps_not_guided_steps():
    "Under an interval level k has the random label that it has without one."
    labels = {}
    for interval in (None, (.2, 2.)):
        seen = labels[interval] = {}
        class Spy(type(make('label').weak)):
            def labels(self, y):
                found = super().labels(y)
                seen[present_run().step] = found
                return found
        draw(guide(DIGITS, scale=3., weak=Spy(10), interval=interval))
    inside = labels[(.2, 2.)]
    assert 0 < len(inside) < STEPS and all(torch.equal(inside[k], labels[None][k]) for k in inside)


def test_own_steps_that_ask_often():
    "A step of one's own that asks three times within a step: once is remembered."
    seen = []
    def curious(denoise, now):
        D = denoise(now.x, now.sigma, now.y)
        for _ in range(2): seen.append(torch.equal(denoise(now.x, now.sigma, now.y), D))
        return SAMPLERS['ddim'].step(lambda *_: D, now)
    levels, noise = start()
    record = []
    denoise = guide(DIGITS, scale=3., interval=(.2, 2.), record=record)
    with torch.no_grad(): list(trajectory(denoise, levels[0].item()*noise(), levels, Y, curious))
    assert len(record) == STEPS and all(seen)


def test_a_run_is_present_only_within_its_steps():
    levels, noise = start()
    for _ in trajectory(DIGITS, levels[0].item()*noise(), levels, Y): assert present_run() is None
    def broken(x, sigma, y): raise RuntimeError('broken')
    with pytest.raises(RuntimeError): list(trajectory(broken, noise(), levels, Y))
    assert present_run() is None
    with Run() as outer, Run() as inner:
        assert present_run() is inner and outer is not inner
    with nullcontext(): assert present_run() is None


def test_no_label_is_left_alone():
    with Run(): assert (make('label').weak.labels(torch.full((3,), NULL)) == NULL).all()
    assert rng(0).initial_seed() > 0 and Now(None, 1., 0.).prev is None


@pytest.mark.parametrize('rows, n', [(2, 3), (2, 5), (3, 4), (4, 2)])
def test_draws_for_another_number_of_samples(rows, n):
    "A batch that is neither the samples of the run nor a multiple of them gets no draws."
    draws = Draws(0)
    with Run(range(rows)), pytest.raises(InputError, match='batch'): draws.draw(lambda g: torch.randn(2, generator=g), n)
