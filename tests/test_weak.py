"""Weak branches: what must hold for every one of them, and defects of other implementations that ours must not have.

The defects are those of diffusers' guiders (0.36): a weak branch that is asked about the wrong label, a damage that never
happens or happens to the wrong operation, a first step without guidance, and a scale that changes its meaning.
"""
import copy, math
from importlib import resources

import pytest, torch

from cfg_course.branches import random_label, unit_of, window_of
from cfg_course.catalogue import STRONG, WEAK
from cfg_course.core import NULL, InputError, Run, present_run, rng
from cfg_course.damages import Redrawn, attention_of, blur_picture, blur_queries, dropped_out, rewire, swap_unlike, unlike_pairs
from cfg_course.denoisers import Denoiser, load_denoiser
from cfg_course.guidance import Term, guide, lerp, make_method
from cfg_course.mixtures import three_gaussians
from cfg_course.networks import CONFIGS, UNet, UNetConfig, parts, perturb
from cfg_course.samplers import sample

MODEL = load_denoiser(resources.files('cfg_course')/'weights'/'digits.safetensors')[0].requires_grad_(False)
WORLD, SHAPE, RANGE = three_gaussians(), (1, 8, 8), dict(steps=3, sigma_min=.2, sigma_max=5.)
WORSE = copy.deepcopy(MODEL)
for k, p in enumerate(WORSE.parameters()): p.mul_(1 + .1*torch.randn(p.shape, generator=rng(k)))
OPTIONS = dict(negative=dict(label=8), autoguidance=dict(model=WORSE), in_situ=dict(rate=.1)) | {k: dict(label=8) for k in ('not', 'perp_neg')} | {'and': dict(labels=(8, 1))}
RANDOM = 'icg', 'tsg', 's2', 'tpg', 'in_situ'
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
    other = make_method(WEAK | STRONG, name, MODEL, **OPTIONS.get(name, {}), seed=1)
    denoise = guide(MODEL, scale=2.5, weak=other) if name in WEAK else guide(other, scale=2.5)
    assert (run(denoise) - run(guided(name))).abs().max() > 1e-3


@pytest.mark.parametrize('name', ['tsg', 's2', 'tpg', 'in_situ'])
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


@pytest.mark.parametrize('name', ['pag', 'seg', 'slg', 's2', 'tsg', 'erg', 'tpg', 'self_swap', 'in_situ', 'sgg', 'self_guidance'])
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


# Damages of the input and of tokens, and the defects of other implementations

def test_blurred_input_compares_noise_at_the_old_sample():
    branch = make('sag')
    D, mask = branch.look(X, SIGMA, Y)
    change = mask*(blur_picture(D, branch.blur*8) - D)
    assert torch.equal(D, MODEL(X, SIGMA, Y)) and set(mask.unique().tolist()) == {0., 1.}
    noise = ((X + change) - MODEL(X + change, SIGMA, Y))/SIGMA
    assert ((X - branch(X, SIGMA, Y))/SIGMA - noise).abs().max() < 1e-5
    assert (branch(X, SIGMA, Y) - MODEL(X + change, SIGMA, Y)).abs().max() > 1e-3


def test_half_of_the_positions_are_looked_at_more_than_the_average():
    q, k = (torch.randn(3, 2, 16, 8, generator=rng(i)) for i in range(2))
    A = attention_of(q, k)
    assert (A.sum(2) - 1).abs().max() < 1e-5 and (A.sum(1).mean(1) - 1).abs().max() < 1e-5 and ((A.sum(1) > 1).any(1) & (A.sum(1) < 1).any(1)).all()


@pytest.mark.parametrize('shape,share,want', [((28, 2, (32, 96)), .625, 16), ((8, 1, (32, 64)), .625, 6), ((32, 2, (8, 8, 8)), .625, 24), ((16, 1, (8, 8, 8)), .625, 12), ((28, 2, (8, 8)), .9, 24), ((64, 1, (8, 8)), .625, 40)])
def test_windows_suit_the_network(shape, share, want):
    size, patch, widths = shape
    cfg = UNetConfig(image_size=size, patch=patch, widths=widths, blocks=(1,)*len(widths))
    assert window_of(cfg, share) == want and want % unit_of(cfg) == 0


def test_a_network_that_bears_no_window_is_refused():
    net = Denoiser(UNet(UNetConfig(image_size=8, patch=2, widths=(8, 8, 8), blocks=(1, 1, 1))))
    with pytest.raises(InputError, match='window of more than half'): make_method(WEAK, 'swg', net)


def test_windows_keep_the_label_and_see_a_part_alone():
    "The released combination with CFG asks its windows without label."
    asked, far = [], X.clone()
    far[:, :, -2:] += 5. # outside of the upper windows
    class Spy:
        net = MODEL.net
        def __call__(self, x, sigma, y): asked.append((x.shape[-1], y.clone())); return MODEL(x, sigma, y)
    whole = make('swg', Spy())(X, SIGMA, Y)
    assert [size for size, _ in asked] == [6]*4 and all(torch.equal(y, Y) for _, y in asked)
    assert torch.equal(make('swg')(far, SIGMA, Y)[:, :, :2], whole[:, :, :2])


def test_outside_the_mask_there_is_no_guidance():
    assert torch.equal(make('m_swg')(X, SIGMA, Y)[:, :, :2, :2], MODEL(X, SIGMA, Y)[:, :, :2, :2])


@pytest.mark.parametrize('T,share', [(16, .1), (16, .5), (49, .1), (7, .3), (5, 0.)])
def test_swaps_are_disjoint_and_of_the_least_alike(T, share):
    "In the released code a token may be in two pairs: then one is doubled and another lost."
    h = torch.randn(4, T, 6, generator=rng(T))
    swapped, pairs = swap_unlike(h, share), int(share*T)
    assert all(sorted(map(tuple, a.tolist())) == sorted(map(tuple, b.tolist())) for a, b in zip(h, swapped))
    assert ((swapped != h).any(2).sum(1) == 2*pairs).all()
    if pairs: assert torch.equal(unlike_pairs(h, pairs)[:, :], unlike_pairs(3*h, pairs))


def test_shuffles_are_of_each_sample():
    "The authors draw one for the batch, so that a picture depends on its neighbours."
    with Run(range(5)): whole = make('tpg')(X[:1].expand(5, -1, -1, -1), SIGMA, Y[:1].expand(5))
    assert len({tuple(o.flatten().tolist()) for o in whole}) == 5
    with Run([3]): assert (make('tpg')(X[:1], SIGMA, Y[:1]) - whole[3:4]).abs().max() < 1e-5


def test_dropout_belongs_to_the_block_and_leaves_the_network_in_evaluation():
    h, keys = torch.ones(2, 3, 4, 4), torch.tensor([1, 2])
    first, again, other = (dropped_out(h, keys, k, .5) for k in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first[0], first[1])
    before = torch.random.get_rng_state()
    ask(make('in_situ'))
    assert not MODEL.training and torch.equal(torch.random.get_rng_state(), before)


def test_a_network_without_dropout_is_refused():
    with pytest.raises(InputError, match='model: got .a network without dropout'): make_method(WEAK, 'in_situ', MODEL)
    trained = Denoiser(UNet(UNetConfig(image_size=8, patch=1, widths=(8, 16), dropout=.2))).eval()
    with Run(): assert make_method(WEAK, 'in_situ', trained)(X, SIGMA, Y).shape == X.shape


@pytest.mark.parametrize('switch', [0., .5, 10., math.inf])
def test_segments(switch):
    branch = make_method(WEAK, 'sgg', MODEL, switch=switch)
    for sigma in (.4, 3.):
        want = make('slg')(X, sigma, Y) if sigma <= switch else MODEL(X, sigma, torch.full_like(Y, NULL))
        assert torch.equal(branch(X, sigma, Y), want)


@pytest.mark.parametrize('below', ['no_label', 'icg', 'pag', 'tpg', 'm_swg'])
def test_segments_take_any_branch(below):
    assert run(guide(MODEL, scale=2., weak=make_method(WEAK, 'sgg', MODEL, below=below, switch=1.))).isfinite().all()


def test_a_noisier_label_is_not_a_noisier_level():
    "The trial with D told a higher level, its own skip at work, is another method."
    ours = (make('self_guidance')(X, SIGMA, Y) - MODEL(X, SIGMA, Y)).norm()
    assert (MODEL(X, 1.05*SIGMA, Y) - MODEL(X, SIGMA, Y)).norm() > .5*ours
    eps = Denoiser(MODEL.net, 'eps')
    told = torch.full((5,), math.log(1.05*SIGMA)/4)
    want = X - SIGMA*MODEL.net(X/(1 + SIGMA**2)**.5, told, Y)
    assert (make_method(WEAK, 'self_guidance', eps)(X, SIGMA, Y) - want).abs().max() < 1e-4


DIGITS_AT = dict(self_guidance=4., swg=1.2, m_swg=1.2, sag=1.2, tpg=4., self_swap=4., erg=2., in_situ=4., sgg=2.) # scales, 1 + the strengths of the authors

@pytest.mark.slow
@pytest.mark.parametrize('name', DIGITS_AT)
def test_digits_are_recognised(name):
    from cfg_course.classifiers import load_classifier, predict
    model = load_denoiser(resources.files('cfg_course')/'weights'/'mnist-a.safetensors')[0].requires_grad_(False)
    y, branch = torch.arange(50) % 10, make_method(WEAK, name, model, **OPTIONS.get(name, {}))
    x = sample(guide(model, scale=DIGITS_AT[name], weak=branch), y, (1, 28, 28), 'ddim', steps=16, batch_size=50)
    assert (predict(load_classifier('mnist')[0], x).argmax(1) == y).double().mean() >= .9
