"""Weak branches: what must hold for every one of them, and defects of other implementations that ours must not have.

The defects are those of diffusers' guiders (0.36): a weak branch that is asked about the wrong label, a damage that never
happens or happens to the wrong operation, a first step without guidance, and a scale that changes its meaning.
"""
import copy, math
from importlib import resources

import pytest, torch

from cfg_course.branches import random_label
from cfg_course.catalogue import STRONG, WEAK
from cfg_course.core import NULL, InputError, Run, present_run, rng
from cfg_course.damages import Redrawn, blur_queries, rewire
from cfg_course.denoisers import load_denoiser
from cfg_course.guidance import Term, guide, lerp, make_method
from cfg_course.mixtures import three_gaussians
from cfg_course.networks import CONFIGS, UNet, parts, perturb
from cfg_course.samplers import sample

MODEL = load_denoiser(resources.files('cfg_course')/'weights'/'digits.safetensors')[0].requires_grad_(False)
WORLD, SHAPE, RANGE = three_gaussians(), (1, 8, 8), dict(steps=3, sigma_min=.2, sigma_max=5.)
WORSE = copy.deepcopy(MODEL)
for k, p in enumerate(WORSE.parameters()): p.mul_(1 + .1*torch.randn(p.shape, generator=rng(k)))
OPTIONS = dict(negative=dict(label=8), autoguidance=dict(model=WORSE)) | {k: dict(label=8) for k in ('not', 'perp_neg')} | {'and': dict(labels=(8, 1))}
RANDOM = 'icg', 'tsg', 's2'
X, Y, SIGMA = 2*torch.randn(5, *SHAPE, generator=rng(1)), torch.tensor([0, 3, 8, 9, 5]), 1.5

each_weak = pytest.mark.parametrize('name', WEAK)
each = pytest.mark.parametrize('name', [*WEAK, *STRONG])


def make(name, model=MODEL): return make_method(WEAK if name in WEAK else STRONG, name, model, **OPTIONS.get(name, {}))


def guided(name, scale=2.5, model=MODEL, **kwargs):
    "Guidance with a branch of either shelf."
    return guide(model, scale=scale, weak=make(name, model), **kwargs) if name in WEAK else guide(make(name, model), scale=scale, **kwargs)


def run(denoise, n=4, **kwargs): return sample(denoise, 3*torch.arange(n), SHAPE, **RANGE, **kwargs)


def bare(branch, x=X, sigma=SIGMA, y=Y):
    "The prediction of a weak branch, whichever kind it is."
    return MODEL(x, sigma, branch.labels(y)) if hasattr(branch, 'labels') else branch(x, sigma, y)


def ask(*args):
    "The same, in a run of its own where there is none."
    with present_run() or Run(): return bare(*args)


def alone(denoise, *at):
    "One question in a run of its own."
    with Run(): return denoise(*at)


# What holds for all

@each_weak
def test_one_is_the_strong_branch(name):
    assert torch.equal(alone(guided(name, 1.), X, SIGMA, Y), MODEL(X, SIGMA, Y))


@each_weak
def test_zero_is_the_weak_branch(name):
    assert torch.equal(alone(guided(name, 0.), X, SIGMA, Y), ask(make(name)))


@each_weak
@pytest.mark.parametrize('scale', [-1., 4.])
def test_it_is_the_line_through_both(name, scale):
    assert (alone(guided(name, scale), X, SIGMA, Y) - lerp(ask(make(name)), MODEL(X, SIGMA, Y), scale)).abs().max() < 1e-4


@pytest.mark.parametrize('name,sampler', [*((k, 'heun') for k in (*WEAK, *STRONG)), *((k, 'ddpm') for k in (*RANDOM, 'cads'))])
def test_a_sample_does_not_know_its_batch(name, sampler):
    whole = run(guided(name), sampler=sampler)
    assert (run(guided(name), sampler=sampler, batch_size=3) - whole).abs().max() < 1e-5
    last = sample(guided(name), torch.tensor([9]), SHAPE, sampler=sampler, indices=[3], **RANGE)
    assert (last - whole[3:]).abs().max() < 1e-5


@each
def test_a_run_leaves_nothing_behind(name):
    denoise = guided(name)
    assert torch.equal(run(denoise), run(denoise))


@each
def test_the_model_is_not_touched(name):
    before, weights = MODEL(X, SIGMA, Y), {k: (p.data_ptr(), p.clone()) for k, p in MODEL.named_parameters()}
    run(guided(name), 2)
    assert torch.equal(MODEL(X, SIGMA, Y), before)
    assert all(p.data_ptr() == weights[k][0] and torch.equal(p, weights[k][1]) for k, p in MODEL.named_parameters())


@each
@pytest.mark.parametrize('n', [1, 2])
def test_small_batches(name, n):
    out = alone(guided(name), X[:n], torch.tensor(SIGMA), Y[:n])
    assert out.dtype == torch.float32 and out.shape == X[:n].shape and out.isfinite().all()
    assert (out - alone(guided(name), X[:n], torch.full((n,), SIGMA), Y[:n])).abs().max() < 1e-5


@each_weak
def test_the_branch_differs_from_the_model(name):
    "All samples but the one whose own label is the negative label, or which drew its own label."
    moved = (ask(make(name)) - MODEL(X, SIGMA, Y)).flatten(1).abs().amax(1) > 1e-3
    assert moved.sum() >= (4 if name in ('negative', 'icg') else 5)


# Random branches

@pytest.mark.parametrize('name', RANDOM)
def test_a_second_look_draws_nothing(name):
    "Heun's second look has the label, the noise and the parts of the first; the next step has others."
    branch, run = make(name), Run(range(5))
    def step(looks=1):
        with run.next_step(): return [ask(branch) for _ in range(looks)]
    (first, again), (second,) = step(2), step()
    assert torch.equal(first, again) and not torch.equal(first, second)


@pytest.mark.parametrize('name', RANDOM)
def test_a_random_branch_is_refused_outside_a_run(name):
    with pytest.raises(InputError, match='none outside a run.*follow'): bare(make(name))


@pytest.mark.parametrize('name', [*RANDOM, 'cads'])
def test_seeds_differ(name):
    other = make_method(WEAK | STRONG, name, MODEL, seed=1)
    denoise = guide(MODEL, scale=2.5, weak=other) if name in WEAK else guide(other, scale=2.5)
    assert (run(denoise) - run(guided(name))).abs().max() > 1e-3


@pytest.mark.parametrize('name', ['tsg', 's2'])
def test_every_sample_has_its_own_damage(name):
    "The same image five times over."
    with Run(range(8)): out = ask(make(name), X[:1].expand(8, -1, -1, -1), SIGMA, Y[:1].expand(8))
    assert len({tuple(o.flatten().tolist()) for o in out}) > 1


def test_a_random_label_does_not_see_the_image():
    branch, N = random_label(MODEL), 2000
    y = torch.arange(N) % 10
    with Run(range(N)): drawn, again = branch.labels(y), branch.labels(y.flip(0))
    counts = torch.bincount(drawn, minlength=10).double()
    assert ((counts - N/10)**2/(N/10)).sum() < 28 and drawn.min() == 0 and drawn.max() == 9
    assert abs((drawn == y).double().mean() - .1) < 3*(.09/N)**.5
    assert torch.equal(again, drawn)


def test_a_sample_without_label_gets_no_random_label():
    with Run(): assert (random_label(MODEL).labels(torch.full((50,), NULL)) == NULL).all()


def test_random_parts_never_drop_the_first_and_drop_one_in_ten():
    kept = []
    branch = make('s2')
    spy = Redrawn(MODEL, lambda *args: kept.append(branch.change(*args)['keep']) or {'keep': kept[-1]})
    run = Run(range(len(X)))
    for _ in range(20):
        with run.next_step(): spy(X, SIGMA, Y)
    dropped = torch.stack([torch.stack(list(k.values())) for k in kept])
    assert 'down.0' not in kept[0] and len(kept[0]) == len(parts(MODEL.net)) - 1
    assert ((1 - dropped).sum(1) == 1).all() and (1 - dropped).sum((0, 2, 3, 4, 5)).min() > 0


# Parameters are shared

@pytest.mark.parametrize('name', ['pag', 'seg', 'slg'])
def test_parameters_are_shared(name):
    weak = make(name)
    assert [p.data_ptr() for p in weak.parameters()] == [p.data_ptr() for p in MODEL.parameters()]
    assert not {id(m) for m in weak.modules()} & {id(m) for m in MODEL.modules()}


def test_training_the_model_trains_the_weak_branch():
    net = UNet(CONFIGS['digits'])
    twin = perturb(net, keep={'mid.0': 0})
    with torch.no_grad(): net.last[2].weight.add_(1.)
    assert torch.equal(twin.last[2].weight, net.last[2].weight)


# Combinations

def test_terms_keep_their_draws():
    denoise = guide(MODEL, scale=1.5, more=[Term(make('icg'), .25), Term(make('s2'), .75)])
    assert (run(denoise, batch_size=2) - run(denoise)).abs().max() < 1e-4


def test_labels_are_composed_in_one_pass():
    for name, per_image in {'and': 5, 'not': 4, 'perp_neg': 4}.items():
        rows = []
        tallied = rewire(MODEL, level=lambda e: rows.append(len(e)) or e)
        alone(guided(name, model=tallied), X, SIGMA, Y)
        assert rows == [per_image*len(X)]


@pytest.mark.parametrize('name', STRONG)
def test_no_label_is_not_composed(name):
    nobody = torch.full_like(Y, NULL)
    assert (alone(make(name), X, 20., nobody) - MODEL(X, 20., nobody)).abs().max() < 1e-5


def test_a_label_beside_itself_counts_twice():
    twice = make_method(STRONG, 'and', MODEL, labels=(3,), weights=(.5,))
    three = torch.full_like(Y, 3)
    assert (twice(X, SIGMA, three) - guide(MODEL, scale=1.5)(X, SIGMA, three)).abs().max() < 1e-4
    perp = make_method(STRONG, 'perp_neg', MODEL, label=3)
    assert (perp(X, SIGMA, three) - MODEL(X, SIGMA, three)).abs().max() < 1e-4


# What a model lacks, and what options may be

@pytest.mark.parametrize('name', [k for k, m in (WEAK | STRONG).items() if m.needs])
def test_what_a_model_lacks_is_said_at_once(name):
    with pytest.raises(InputError, match='allowed: ') as e: make_method(WEAK | STRONG, name, WORLD)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('name,options', [
    ('negative', {}), ('negative', dict(label=10)), ('negative', dict(label=NULL)), ('negative', dict(label=1.)), ('autoguidance', {}),
    ('icg', dict(classes=1)), ('icg', dict(seed=.5)), ('tsg', dict(strength=-1.)), ('tsg', dict(power=float('nan'))), ('seg', dict(blur=0)),
    ('seg', dict(blur='wide')), ('slg', dict(skip=('mid.9',))), ('s2', dict(share=1.5)), ('pag', dict(scale=3.)), ('and', dict(labels=(1,), weights=())),
    ('and', dict(labels=(11,))), ('not', {}), ('not', dict(label=1, weight=math.inf)), ('perp_neg', {}), ('cads', dict(start=.9, stop=.6)),
    ('cads', dict(noise=-1.)), ('cads', dict(rescale=2.))])
def test_bad_options(name, options):
    with pytest.raises(InputError, match='allowed: '): make_method(WEAK | STRONG, name, MODEL, **options)


def test_classes_of_a_stranger_must_be_given():
    stranger = lambda x, sigma, y: MODEL(x, sigma, y)
    with pytest.raises(InputError, match='classes'): random_label(stranger)
    assert random_label(stranger, classes=10).classes == 10


# Defects of other implementations

def test_autoguidance_asks_the_weak_model_about_the_label():
    "diffusers' AutoGuidance asks its weak model without label: that is not a worse model of the same class."
    asked = []
    def worse(x, sigma, y): asked.append(y.clone()); return WORSE(x, sigma, y)
    guide(MODEL, scale=2., weak=make_method(WEAK, 'autoguidance', MODEL, model=worse))(X, SIGMA, Y)
    assert len(asked) == 1 and torch.equal(asked[0], Y)


@pytest.mark.parametrize('name', ['pag', 'seg', 'slg', 's2', 'tsg'])
def test_the_damage_happens_and_costs_one_pass(name):
    "diffusers' SEG never applies its hook, and pays a third pass for the same prediction again."
    rows = []
    tallied = rewire(MODEL, level=lambda e: rows.append(len(e)) or e)
    D = alone(guide(tallied, scale=3., weak=make(name, tallied)), X, SIGMA, Y)
    assert rows == [len(X)]*2
    assert (D - MODEL(X, SIGMA, Y)).flatten(1).abs().amax(1).min() > 1e-3


def test_a_small_blur_is_small_and_an_infinite_one_the_mean():
    "diffusers' SEG has its Gaussian and its mean the wrong way round."
    q = torch.randn(2, 4, 49, 8, generator=rng(2))
    assert torch.equal(blur_queries(q, (7, 7), 1e-3), q)
    assert (blur_queries(q, (7, 7), math.inf) - q.mean(2, keepdim=True)).abs().max() < 1e-6
    assert (blur_queries(q, (7, 7), 1e4) - q.mean(2, keepdim=True)).abs().max() < 1e-5
    assert (blur_queries(q, (7, 7), 1.) - q.mean(2, keepdim=True)).abs().max() > .1


def test_a_blur_knows_rows_from_columns():
    "An image of rows stays one."
    q = torch.randn(1, 1, 3, 1, 1, generator=rng(3)).expand(1, 1, 3, 5, 1).reshape(1, 1, 15, 1)
    out = blur_queries(q, (3, 5), .7).unflatten(2, (3, 5))
    assert (out - out[:, :, :, :1]).abs().max() < 1e-6 and (out[:, :, 0] - out[:, :, 1]).abs().max() > .01


@each_weak
def test_the_first_step_is_guided(name):
    "diffusers' SLG, PAG and SEG count steps in a way that leaves the first one out."
    seen = []
    run(guided(name, record=seen), 3)
    assert len(seen) == 3 and all(len(s['norm']) == 3 for s in seen)
    assert seen[0]['norm'].max() > 0


@each_weak
def test_the_scale_means_the_same_for_every_branch(name):
    "diffusers' convention changes when CFG is switched off. Ours: effective scale s, 1 is no guidance, everywhere."
    for scale in (1.5, 4.):
        seen = []
        alone(guided(name, scale, record=seen), X, SIGMA, Y)
        moved = seen[0]['norm'] > 1e-3
        assert moved.any() and (seen[0]['effective'][moved] - scale).abs().max() < 1e-2


@each
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_nobody(name, dtype):
    "A batch of no samples, in a run of none and outside of one that counts them."
    model = copy.deepcopy(MODEL).to(dtype)
    denoise = guided(name, model=model)
    for here in (Run(), Run([]), Run(range(0))):
        with here: out = denoise(X[:0].to(dtype), SIGMA, Y[:0])
        assert out.shape == X[:0].shape and out.dtype == dtype


@each_weak
def test_inference_mode(name):
    want = run(guided(name))
    with torch.inference_mode(): assert torch.equal(run(guided(name)), want)


def test_more_classes_than_the_model_knows():
    with pytest.raises(InputError, match='classes: got 11, allowed: at most 10'): random_label(MODEL, classes=11)
