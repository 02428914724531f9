"Energies: what they must give, what is made of them, and the files of discriminators."
import math
from importlib import resources

import pytest, torch

from cfg_course.catalogue import make_guidance
from cfg_course.classifiers import NoisyClassifier, classifier_guidance, load_classifier, predict, save_classifier
from cfg_course.core import NULL, InputError, Run, load_tensors, rng, to_uint8
from cfg_course.denoisers import Counted, Denoiser, find_model, shipped_models, fingerprint
from cfg_course.energies import ENERGIES, LANDSCAPES, NO_AIDS, SURE, Aids, Discriminator, Question, as_landscape, clean_classifier
from cfg_course.energies import climb, discriminator_guidance, dng, dps, find_aids, find_discriminator, freedom, make_energy
from cfg_course.energies import negative, new_discriminator, total, universal
from cfg_course.guidance import guide
from cfg_course.mixtures import three_gaussians, two_classes
from cfg_course.networks import UNet, UNetConfig
from cfg_course.pictures import find_world
from cfg_course.rules import apg, static_threshold
from cfg_course.samplers import SAMPLERS, ddim_step, sample, trajectory
from cfg_course.data import load_data
from cfg_course.sweeps import Point, find_guidance

WORLD = three_gaussians()
AIDS = Aids(judge=lambda x: WORLD.posterior(x, 1.).log(), guide=lambda x, sigma: WORLD.posterior(x, sigma).log(),
            discriminator=lambda x, sigma, y: two_classes(2).log_prob(x, sigma) - WORLD.log_prob(x, sigma, y))
CLEAN = make_energy('classifier', AIDS)
NEEDED = {'dng': dict(label=1)}
WITHOUT = {'clean_classifier': dict(clip=None), 'universal': dict(clip=None)}
NAMES = sorted(ENERGIES)
BOTH = 'unconditional', 'conditional'


def plan_of(name, **options): return ENERGIES[name].make(**{**NEEDED.get(name, {}), **options})
def energy_of(plan): return make_energy(plan.energy, AIDS) if plan.energy else None
def run(pair, x, levels, y, step=ddim_step, noise=None): return [o.x for o in pair[1](pair[0], x, levels, y, step, noise)]


def questions(n=24, seed=1):
    return 2*torch.randn(n, 2, generator=rng(seed), dtype=torch.float64), torch.linspace(.3, 3, n, dtype=torch.float64), torch.arange(n) % 3


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('sampler', list(SAMPLERS))
@pytest.mark.parametrize('on,s', [('unconditional', 0.), ('conditional', 1.)])
def test_no_strength_is_the_base_to_the_bit(name, sampler, on, s):
    y = torch.arange(6) % 3
    plan = plan_of(name)
    guided, loop = climb(WORLD, energy_of(plan), plan, scale=s, on=on)
    base = sample(WORLD, y if on == 'conditional' else torch.full_like(y, NULL), (2,), sampler=sampler, steps=5)
    assert torch.equal(sample(guided, y, (2,), sampler=sampler, steps=5, loop=loop), base)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('sampler', list(SAMPLERS))
def test_a_sample_does_not_depend_on_its_batch(name, sampler):
    y = torch.arange(6) % 3
    def draw(size):
        plan = plan_of(name)
        guided, loop = climb(WORLD, energy_of(plan), plan, scale=1.3)
        return sample(guided, y, (2,), sampler=sampler, steps=5, loop=loop, batch_size=size)
    whole = draw(6)
    assert whole.isfinite().all()
    for size in (1, 4): assert (draw(size) - whole).abs().max() <= 1e-4*whole.abs().max()


@pytest.mark.parametrize('name', NAMES)
def test_scales_of_samples_and_intervals(name):
    "A tensor of scales is each sample's own, also in batches; outside of the interval the scale is 1."
    y, scales = torch.arange(6) % 3, torch.tensor([1., 1.5, 2., 1., .5, 3.])
    def draw(scale, size=6, **how):
        plan = plan_of(name, on='conditional')
        guided, loop = climb(WORLD, energy_of(plan), plan, scale=scale, **how)
        return sample(guided, y, (2,), sampler='ddim', steps=5, loop=loop, batch_size=size)
    each = draw(scales)
    assert (draw(scales, 4) - each).abs().max() <= 1e-5*each.abs().max()
    for i in (1, 4): assert (draw(scales[i].item())[i] - each[i]).abs().max() <= 1e-5*each.abs().max()
    plain = sample(WORLD, y, (2,), sampler='ddim', steps=5)
    assert torch.equal(draw(2., interval=(500., 600.)), plain) and (each[[0, 3]] - plain[[0, 3]]).abs().max() <= 1e-5


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_modes(name, mode):
    "The caller's mode does not matter, his tensors stay as they were, and nothing is left in a network."
    net = small_net()
    judge = NoisyClassifier((1, 8, 8), 3, width=8).eval()
    aids = Aids(judge=lambda x: judge(x, .1), discriminator=lambda x, sigma, y: judge(x, sigma)[:, 0])
    with mode():
        plan = plan_of(name)
        y = torch.arange(3)
        guided, loop = climb(net, make_energy(plan.energy, aids) if plan.energy else None, plan, scale=1.5)
        x = torch.randn(3, 1, 8, 8, generator=rng(0))
        before = x.clone()
        last = run((guided, loop), x, [2., 1., .5], y, noise=lambda: torch.zeros_like(x))[-1]
        assert torch.equal(x, before) and not last.requires_grad and last.isfinite().all()
    assert all(p.grad is None for p in net.parameters())


def small_net(dtype=torch.float32):
    "A U-Net of 8 x 8 pictures with no layer left at zero."
    unet = UNet(UNetConfig(image_size=8, patch=1, widths=(8, 16), emb=16, num_classes=3)).eval()
    with torch.no_grad():
        for i, p in enumerate(unet.parameters()): p.copy_(.2*torch.randn(p.shape, generator=rng(7, i)))
    return Denoiser(unet.to(dtype))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(name, dtype):
    "A half-precision sample is answered in half precision, near what single precision says; the network may be half too."
    judge = NoisyClassifier((1, 8, 8), 3, width=8, sigma_data=.5).eval()
    aids = Aids(judge=lambda x: judge(x.float(), .1), discriminator=lambda x, sigma, y: judge(x.float(), torch.as_tensor(sigma).float())[:, 0])
    x, y = torch.randn(3, 1, 8, 8, generator=rng(0)), torch.arange(3)
    def last(kind, net):
        plan = plan_of(name)
        pair = climb(net, make_energy(plan.energy, aids) if plan.energy else None, plan, scale=1.5)
        return run(pair, x.to(kind), [2., 1., .5], y, noise=lambda: torch.zeros_like(x).to(kind))[-1]
    half, whole = last(dtype, small_net()), last(torch.float32, small_net())
    assert half.dtype == dtype and (half.float() - whole).abs().max() <= .1*whole.abs().max()
    assert last(torch.float32, small_net(dtype)).isfinite().all()


@pytest.mark.parametrize('on', BOTH)
@pytest.mark.parametrize('s', [-1., 0., 1., 2.7])
def test_a_noisy_classifier_is_classifier_guidance_to_the_bit(on, s):
    x, sigma, y = questions()
    ours = climb(WORLD, make_energy('noisy_classifier', AIDS), clean_classifier(clip=None), scale=s, on=on)[0](x, sigma, y)
    assert torch.equal(ours, classifier_guidance(WORLD, AIDS.guide, scale=s, on=on)(x, sigma, y))


@pytest.mark.parametrize('energy', ['classifier', 'ink', 'classifier-ink', '2*ink+classifier'])
def test_gradients_are_those_of_finite_differences(energy):
    world, _ = find_world('small-world')
    world = world.double() if hasattr(world, 'double') else world
    n = world.classes
    aids = Aids(judge=lambda x: torch.stack([world.log_prob(x, .3, torch.full((len(x),), k)) for k in range(n)], 1))
    land = make_energy(energy, aids)
    y, none = torch.arange(4) % n, torch.full((4,), NULL)
    x = torch.randn(4, *world.shape, generator=rng(2), dtype=torch.float64)
    v = torch.randn(x.shape, generator=rng(3), dtype=torch.float64)
    with torch.no_grad(): steep = Question(world, land, x, 1.3, y, none).uphill()[1]
    def E(h): return land(world(x + h*v, 1.3, none), 1.3, y)
    slope = (E(1e-4) - E(-1e-4))/2e-4
    assert ((steep*v).flatten(1).sum(1) - slope).abs().max() <= 1e-4*slope.abs().max()


def test_the_point_posterior_is_right_at_low_noise():
    "The error falls with the fourth power of the noise, for any world."
    for world in (WORLD, two_classes(3)):
        clean = make_energy('classifier', Aids(judge=lambda x: world.posterior(x, 1e-9).log()))
        def error(level):
            y = torch.arange(40) % world.classes
            x = world.sample(y, level, rng(3))
            return (climb(world, clean, clean_classifier(clip=None, on='unconditional'), scale=1.)[0](x, level, y) - world(x, level, y)).abs().mean().item()
        assert 3.5 < math.log2(error(.1)/error(.05)) < 4.5


@pytest.mark.parametrize('repeats', [1, 2, 4])
@pytest.mark.parametrize('name', ['universal', 'freedom', 'tfg'])
def test_cost(name, repeats):
    "One evaluation for each time a step is taken, on top of nothing."
    counted = Counted(WORLD)
    plan = plan_of(name, repeats=repeats)
    guided, loop = climb(counted, CLEAN, plan, scale=.5)
    sample(guided, torch.arange(4) % 3, (2,), sampler='ddim', steps=5, loop=loop)
    assert counted.rows == 4*5*repeats


def test_identities():
    x, sigma, y = questions()
    def by(plan, **how): return climb(WORLD, CLEAN, plan, scale=1.7, on='unconditional', **how)[0](x, sigma, y)
    assert torch.equal(by(universal(backward=0, clip=None)), by(clean_classifier(clip=None, on='unconditional')))
    with Run(): clipped = by(clean_classifier(clip=None, on='unconditional'), rule=static_threshold())
    assert (by(clean_classifier(on='unconditional')) - clipped).abs().max() <= 1e-12
    assert torch.equal(negative(negative(CLEAN))(x, 1., y), CLEAN(x, 1., y))
    assert (total(CLEAN, CLEAN)(x, 1., y) - 2*CLEAN(x, 1., y)).abs().max() <= 1e-12


def test_on_top_of_guidance():
    "The base may be guided itself, by a rule that remembers, and nothing it remembers keeps a graph."
    base = guide(WORLD, scale=2., rule=apg(momentum=-.5))
    guided, loop = climb(base, CLEAN, clean_classifier(clip=None), scale=1.5, on='conditional')
    run_ = Run(range(4))
    y = torch.arange(4) % 3
    x = torch.randn(4, 2, generator=rng(0), dtype=torch.float64)
    plain = list(trajectory(guide(WORLD, scale=2., rule=apg(momentum=-.5)), x, [3., 2., 1., .5], y))
    moved = list(loop(guided, x, [3., 2., 1., .5], y, run=run_))
    assert (plain[-1].x - moved[-1].x).abs().max() > 1e-3
    def tensors(value):
        if isinstance(value, dict): return [t for v in value.values() for t in tensors(v)]
        return [value] if isinstance(value, torch.Tensor) else []
    assert all(t.grad_fn is None for memory in run_.memories for t in tensors(memory))


BAD_ENERGIES = {
    'shape': (lambda x0, sigma, y: x0.mean(), r'energy .*: got \(\), allowed: .*shape \(6,\)'),
    'column': (lambda x0, sigma, y: x0[:, :1], r'energy .*: got \(6, 1\)'),
    'number': (lambda x0, sigma, y: 1., "energy .*: got 'float'"),
    'nothing': (lambda x0, sigma, y: None, "energy .*: got 'NoneType'"),
    'nan': (lambda x0, sigma, y: x0.sum(1)*math.nan, r'energy .*: got \[nan.*allowed: finite'),
    'infinite': (lambda x0, sigma, y: x0.sum(1) - math.inf, r'energy .*: got \[-inf'),
    'flat': (lambda x0, sigma, y: torch.zeros(len(x0)), 'energy .*: got .*without a gradient'),
    'cut': (lambda x0, sigma, y: x0.detach().sum(1), 'energy .*: got .*without a gradient'),
    'edge': (lambda x0, sigma, y: (0*x0).abs().sum(1).sqrt() + x0.sum(1)*0, 'gradient of energy .*: got .*nan'),
}


@pytest.mark.parametrize('bad', BAD_ENERGIES)
@pytest.mark.parametrize('name', ['clean_classifier', 'universal', 'freedom', 'mpgd', 'tfg', 'dps'])
def test_bad_energies_are_named(name, bad):
    energy, words = BAD_ENERGIES[bad]
    guided, loop = climb(WORLD, energy, plan_of(name), scale=2.)
    with pytest.raises(InputError, match=words) as e: sample(guided, torch.arange(6) % 3, (2,), sampler='ddim', steps=3, loop=loop)
    assert '\n' not in str(e.value)


def test_refused_before_the_first_evaluation():
    "An energy without its network, an unknown name, and what cannot be combined."
    def never(*_): raise AssertionError('asked')
    for name in NAMES:
        if name == 'dng': continue
        with pytest.raises(InputError, match='energy: got .*, allowed: only with a'): make_guidance(never, name, scale=2.)
        with pytest.raises(InputError, match='energy'): climb(never, None, plan_of(name), scale=2.)
    for text, options in (('freedom', dict(energy='inc')), ('freedom', dict(energy='')), ('freedom', dict(on='both')), ('mpgd', dict(energy='noisy_classifier')), ('dng', {}),
                          ('static_threshold+mpgd', {}), ('freedom+mpgd', {}), ('freedom+cfgpp', {}), ('freedom', dict(energy='classifier+noisy_classifier'))):
        with pytest.raises(InputError) as e: make_guidance(never, text, scale=2., options=options, aids=AIDS)
        assert '\n' not in str(e.value)
    with pytest.raises(InputError, match='label: got 3, allowed: a class from 0 to 2'): make_guidance(WORLD, 'dng', scale=2., options=dict(label=3))
    with pytest.raises(InputError, match='dng.*outside a run'): climb(WORLD, None, dng(label=1), scale=2.)[0](*questions())
    with pytest.raises(InputError, match='no source of noise'): run(climb(WORLD, CLEAN, freedom(repeats=2), scale=1.), questions(6)[0], [2., 1.], torch.arange(6) % 3)


def test_the_names_of_energies():
    assert set(LANDSCAPES) >= {'classifier', 'noisy_classifier', 'discriminator', 'ink'}
    x = torch.randn(5, 1, 4, 6, generator=rng(0))
    ink = make_energy('ink')(x, 1., torch.zeros(5))
    assert (make_energy('-ink')(x, 1., None) + ink).abs().max() <= 1e-6 and (make_energy('1.5*ink+ink')(x, 1., None) - 2.5*ink).abs().max() <= 1e-5
    assert (ink > 0).tolist() == (x[..., :3].mean((1, 2, 3)) > x[..., 3:].mean((1, 2, 3))).tolist()


def test_dps_is_of_each_sample_and_finite_where_the_judge_is_sure():
    sure = as_landscape(lambda x0, sigma, y: -1e-30*x0.square().sum(1))
    x, _, y = questions(6)
    assert run(climb(WORLD, sure, dps(), scale=1.), x, [2., 1., .5], y)[-1].isfinite().all()


def test_discriminators_first_look_and_boosting():
    "With Heun the first look alone is half of both where steps are short; boosting doubles every other step of what looks drawn."
    x, y = questions(12)[0], torch.arange(12) % 2
    model, odds = two_classes(2), Aids(discriminator=lambda x, sigma, y: x.sum(1) - 100)
    energy = make_energy('discriminator', odds)
    ask = lambda run_, **options: climb(model, energy, discriminator_guidance(**options), scale=2.)[0]
    for boost, first, parts in ((False, False, (1, 1, 1, 1)), (False, True, (1, 0, 1, 0)), (True, False, (2, 2, 1, 1)), (True, True, (2, 0, 1, 0))):
        guided, run_, seen = ask(None, boost=boost, first=first), Run(range(12)), []
        for _ in range(2):
            with run_.next_step(): seen += [guided(x, 1., y) - model(x, 1., y) for _ in range(2)]
        for part, move in zip(parts, seen): assert (move - part).abs().max() <= 1e-9
    assert torch.equal(ask(None)(x, .04, y), model(x, .04, y))


def test_a_discriminators_logits():
    "One for each class on top of one for all, clipped; labels that it does not know are refused."
    net = new_discriminator(load_data('digits'), width=8).eval()
    x = torch.randn(4, 1, 8, 8, generator=rng(0))
    logits = net(x, 1.)
    assert logits.shape == (4, 11)
    own = torch.stack([logits[0, 0], logits[1, 3], logits[2, 9], torch.tensor(0.)])
    assert (net.log_odds(x, 1., torch.tensor([0, 3, 9, NULL])) - (logits[:, 10] + own).clamp(-SURE, SURE)).abs().max() <= 1e-6
    for bad in (10, -2):
        with pytest.raises(InputError, match='^y: got'): net.log_odds(x, 1., torch.tensor([0, 1, 2, bad]))


SHIPPED = {'mnist-a': 'mnist-b', 'cifar10-16': 'cifar10-16-weak'}


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_discriminators(name):
    "Small, no model, better than chance where it is used, and for one model alone, in whatever precision that is held."
    path = resources.files('cfg_course')/'weights'/f'{name}-discriminator.safetensors'
    model, meta = find_model(name)
    facts = load_tensors(path, Discriminator.kind)[1]
    assert path.stat().st_size < 1e6 and f'{name}-discriminator' not in shipped_models()
    assert facts['fingerprint'] == fingerprint(model) and facts['part'] == 'fit'
    assert min(row['loss'] for row in facts['tested']) < math.log(2) and max(row['loss'] for row in facts['tested']) < .72
    net = find_discriminator(model, name)
    assert isinstance(find_discriminator(model.half(), name), Discriminator)
    x = torch.randn(2, *meta['shape'], generator=rng(0))
    assert net.log_odds(x, 1., torch.tensor([0, NULL])).isfinite().all()
    with pytest.raises(InputError, match=f'{SHIPPED[name]}.*{name}'): find_discriminator(find_model(SHIPPED[name])[0], SHIPPED[name])
    with pytest.raises(InputError, match=f'{SHIPPED[name]}.*{name}'): find_guidance(Point(SHIPPED[name], 'discriminator', scale=2.), *find_model(SHIPPED[name]))


def test_a_discriminator_of_a_file_is_as_good_as_a_shipped_one(tmp_path):
    model, meta = find_model('digits')
    net = new_discriminator(load_data('digits'), width=8).eval()
    save_classifier(net, tmp_path/'mine.safetensors', fingerprint=fingerprint(model), model='digits', data='digits')
    assert isinstance(find_discriminator(model, 'digits', tmp_path/'mine.safetensors'), Discriminator)
    with pytest.raises(InputError, match='mnist-a.*digits'): find_discriminator(find_model('mnist-a')[0], 'mnist-a', tmp_path/'mine.safetensors')


def test_networks_are_found_by_the_data():
    model, meta = find_model('mnist-a')
    aids = find_aids('classifier+ink', model, 'mnist-a', meta)
    assert type(aids.judge).__name__ == 'ResidualClassifier' and aids[1:] == (None, None)
    assert find_aids(None, model, 'mnist-a', meta) == NO_AIDS
    with pytest.raises(InputError, match='judge'): find_aids('classifier', model, 'mnist-a', dict(data='mnist', shape=(3, 9, 9)))


ALONE = dict(universal=2., freedom=1., mpgd=1., tfg=1., dps=3.)  # scales at which digits come of the energy alone


def recognised(name, text, model, meta, **how):
    "Share of 50 digits that a network sees which had no part in them, at 16 steps."
    y = torch.arange(50) % 10
    aids = find_aids(plan_of(name).energy, model, meta['data'], meta)
    guided, loop = make_guidance(model, text, options={**NEEDED.get(name, {}), **how.pop('options', {})}, aids=aids, **how)
    x = sample(guided, y, meta['shape'], sampler='ddpm', steps=16, loop=loop)
    with torch.no_grad(): seen = load_classifier('digits', NoisyClassifier)[0](x.clamp(-1, 1), .002).argmax(1)
    return (seen == y).double().mean()


@pytest.mark.parametrize('name', [name for name in NAMES if name != 'discriminator'])
def test_digits_are_recognised(name):
    "At the defaults, and on top of guidance."
    model, meta = find_model('digits')
    assert recognised(name, name, model, meta, scale=2.) >= .9
    if name != 'dng': assert recognised(name, f'cfg+{name}@', model, meta, scale=1.5) >= .9


@pytest.mark.parametrize('name', ALONE)
def test_small_digits_come_of_the_energy_alone(name):
    model, meta = find_model('digits')
    assert recognised(name, name, model, meta, scale=ALONE[name], options=dict(on='unconditional')) >= .9


def test_a_discriminators_digits_are_recognised():
    model, meta = find_model('mnist-a')
    y = torch.arange(20) % 10
    guided, loop = make_guidance(model, 'discriminator', scale=2., aids=find_aids('discriminator', model, 'mnist-a', meta))
    x = sample(guided, y, meta['shape'], sampler='dpmpp', steps=16, loop=loop)
    assert (predict(load_classifier('mnist')[0], to_uint8(x)).argmax(1) == y).double().mean() >= .9


def test_ink_moves_to_the_left():
    model, meta = find_model('digits')
    y, ink = torch.arange(20) % 10, make_energy('ink')
    def drawn(strength, name):
        guided, loop = make_guidance(model, name, scale=1 + strength, options=dict(energy='ink', on='conditional'))
        return ink(sample(guided, y, meta['shape'], sampler='ddim', steps=8, loop=loop), 0., y).mean()
    for name in ('clean_classifier', 'mpgd', 'tfg'): assert drawn(0., name) < drawn(.3, name) < drawn(3., name)


def test_judges_agree_that_the_point_helps():
    "On pictures: told no label, most of what is wanted comes."
    model, meta = find_model('digits')
    y = torch.arange(40) % 10
    guided, loop = make_guidance(model, 'clean_classifier', scale=4., options=dict(on='unconditional'), aids=find_aids('classifier', model, 'digits', meta))
    x = sample(guided, y, meta['shape'], sampler='ddpm', steps=16, loop=loop)
    assert (predict(load_classifier('digits')[0], to_uint8(x)).argmax(1) == y).double().mean() > .85
