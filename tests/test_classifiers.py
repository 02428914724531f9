"Classifier guidance against what it must equal, and the classifiers' files."
from importlib import resources

import pytest, torch

from cfg_course.classifiers import CLASSIFIER, Classifier, NoisyClassifier, Tilted, classifier_guidance, classifier_step
from cfg_course.classifiers import load_classifier, once, predict, save_classifier, shipped_classifiers, train_noisy
from cfg_course.core import NULL, InputError, fresh, rng, to_float, to_uint8
from cfg_course.data import load_data
from cfg_course.denoisers import Counted, load_denoiser
from cfg_course.guidance import Guided, Rule, guide, make_method, method_options
from cfg_course.mixtures import Mixture, three_gaussians, two_classes, unequal_modes
from cfg_course.samplers import sample

BOTH = 'unconditional', 'conditional'
WEIGHTS = resources.files('cfg_course')/'weights'
WORLDS = dict(three=three_gaussians, two=two_classes, unequal=unequal_modes, high=lambda: two_classes(7),
              full=lambda: Mixture([[0., 0.], [2., 1.], [1., -2.]], [[[1., .3], [.3, .5]], [[.4, 0.], [0., 2.]], [[1., -.4], [-.4, .6]]], [.2, .5, .3], [0, 1, 0]))


def exact(world): return lambda x, sigma: world.posterior(x, sigma).log()


def questions(world, n=48, seed=0):
    g = rng(seed)
    sigma = torch.logspace(-.7, 1, n, dtype=torch.float64)
    y = torch.arange(n) % world.classes
    return world.sample(y, 0., g) + sigma[:, None]*torch.randn(n, world.dim, generator=g, dtype=torch.float64), sigma, y


@pytest.mark.parametrize('name', WORLDS)
@pytest.mark.parametrize('on', BOTH)
@pytest.mark.parametrize('s', [-1., 0., 1., 1.5, 4.])
def test_exact_classifier_is_cfg(name, on, s):
    world = WORLDS[name]()
    ask = questions(world)
    assert (classifier_guidance(world, exact(world), scale=s, on=on)(*ask) - guide(world, scale=s)(*ask)).abs().max() <= 1e-10
    assert (classifier_guidance(world, exact(world), w=s - 1, on=on)(*ask) - guide(world, scale=s)(*ask)).abs().max() <= 1e-10


@pytest.mark.parametrize('on', BOTH)
def test_intervals_schedules_rules_and_scales_of_samples(on):
    world, record = three_gaussians(), []
    x, sigma, y = questions(world)
    helper = exact(world)
    cube = Rule(lambda u, c, s, look: u + s*(c - u)**3, 'eps')
    for options in (dict(scale=3., interval=(.5, 2.)), dict(scale=lambda sigma: 1 + sigma), dict(w=torch.linspace(0, 3, 48).double()), dict(scale=2., rule=cube)):
        assert (classifier_guidance(world, helper, on=on, **options)(x, sigma, y) - guide(world, **options)(x, sigma, y)).abs().max() <= 1e-10
    classifier_guidance(world, helper, scale=3., on=on, record=record)(x, sigma, y)
    assert (record[0]['effective'] - 3).abs().max() <= 1e-9


@pytest.mark.parametrize('on', BOTH)
@pytest.mark.parametrize('sampler', ['heun', 'ddim', 'dpmpp', 'ddpm'])
def test_samples_are_those_of_cfg(on, sampler):
    "Under `no_grad`, with per-sample scales, in batches, with the second look of Heun."
    world, y, scales = three_gaussians(), torch.arange(9) % 3, torch.linspace(1, 4, 9)
    run = lambda d: sample(d, y, (2,), sampler=sampler, steps=6, batch_size=4)
    mine, plain = run(classifier_guidance(world, exact(world), scale=scales, on=on)), run(guide(world, scale=scales))
    assert (mine - plain).abs().max() <= 2e-5


@pytest.mark.parametrize('on,s,net,classifier', [('unconditional', 3., 1, 1), ('unconditional', 0., 1, 0), ('unconditional', 1., 1, 1),
                                                 ('conditional', 3., 1, 1), ('conditional', 1., 1, 0), ('conditional', 0., 1, 1)])
def test_cost(on, s, net, classifier):
    "The network is asked once, and the classifier only where its weight is not 0."
    world, asked = three_gaussians(), []
    helper, counted = exact(world), Counted(world)
    x, sigma, y = questions(world)
    classifier_guidance(counted, lambda x, sigma: asked.append(len(x)) or helper(x, sigma), scale=s, on=on)(x, sigma, y)
    assert counted.rows == net*len(x) and sum(asked) == classifier*len(x)
    assert CLASSIFIER['classifier'].cost == 1


def test_step_is_the_difference_of_the_scores_and_goes_uphill():
    world = unequal_modes()
    x, sigma, y = questions(world)
    g = classifier_step(exact(world), x, sigma, y)
    assert (g/sigma[:, None]**2 - (world.score(x, sigma, y) - world.score(x, sigma))).abs().max() <= 1e-10
    odds = lambda x: world.posterior(x, sigma).log().gather(1, y[:, None])
    assert (odds(x + 1e-3*g) >= odds(x) - 1e-12).all()


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_modes(mode):
    "The caller's mode does not matter, his tensors are untouched, and nothing is left in the classifier."
    net = load_classifier('digits', NoisyClassifier)[0]
    with mode():
        x, sigma, y = torch.randn(4, 1, 8, 8, generator=rng(0)), torch.tensor([.1, .5, 1., 3.]), torch.tensor([1, 2, NULL, 4])
        before = x.clone()
        g = classifier_step(net, x, sigma, y)
        assert torch.equal(x, before) and not g.requires_grad
    assert all(p.grad is None for p in net.parameters())
    assert g[2].abs().max() == 0 and g[[0, 1, 3]].flatten(1).norm(dim=1).min() > 0


def test_gradient_is_that_of_finite_differences():
    net = load_classifier('digits', NoisyClassifier)[0].double()
    net.first.double()
    x, y, sigma = to_float(load_data('digits', 'test').x[:3]).double() + .5, torch.tensor([3, 1, 7]), .8
    u = torch.randn(x.shape, generator=rng(1), dtype=torch.float64)
    with torch.no_grad():
        logp = lambda h: net(x + h*u, sigma).log_softmax(1).gather(1, y[:, None])[:, 0]
        slope = (logp(1e-4) - logp(-1e-4))/2e-4
    assert ((classifier_step(net, x, sigma, y)*u).flatten(1).sum(1)/sigma**2 - slope).abs().max() <= 1e-3*slope.abs().max()


@pytest.mark.parametrize('name,shape', [('digits', (1, 8, 8)), ('mnist', (1, 28, 28))])
def test_shipped_guides(name, shape):
    net, meta = load_classifier(name, NoisyClassifier)
    x = torch.randn(5, *shape, generator=rng(2))
    sigma, y = torch.tensor([.002, .1, 1., 10., 80.]), torch.arange(5)
    whole = classifier_step(net, x, sigma, y)
    assert whole.shape == x.shape and whole.isfinite().all() and meta['data'] == name and meta['test_accuracy'] > .95
    for i in range(5): assert (classifier_step(net, x[i:i + 1], sigma[i], y[i:i + 1]) - whole[i:i + 1]).abs().max() <= 1e-4*whole[i].abs().max()
    assert (net(80*x, 80.).softmax(1) - .1).abs().max() < .15


@pytest.mark.parametrize('name', ['digits', 'mnist'])
def test_step_is_bounded_at_every_level(name):
    "Also far above the levels of training, where the DDPM sampler begins: the first version was ten thousand times too long there."
    net = load_classifier(name, NoisyClassifier)[0]
    x, y = torch.randn(20, *net.config['shape'], generator=rng(4)), torch.arange(20) % 10
    size = net.sigma_data*x[0].numel()**.5
    for sigma in (1e-4, .01, 1., 80., 1e3, 22026.): assert classifier_step(net, sigma*x, sigma, y).flatten(1).norm(dim=1).max() < 2*size


def test_guided_by_a_classifier_the_wanted_digit_comes():
    model, net, judge = load_denoiser(WEIGHTS/'digits.safetensors')[0], load_classifier('digits', NoisyClassifier)[0], load_classifier('digits')[0]
    y = torch.arange(60) % 10
    for options in (dict(sampler='ddpm', steps=32), dict(sampler='dpmpp', steps=20)):
        x = sample(classifier_guidance(model, net, scale=8.), y, (1, 8, 8), **options)
        assert x.abs().max() < 2 and (predict(judge, to_uint8(x)).argmax(1) == y).double().mean() > .85


def test_shipped_guides_know_digits():
    net, test = load_classifier('digits', NoisyClassifier)[0], load_data('digits', 'test')
    with torch.no_grad():
        for sigma, least in ((.01, .95), (.5, .9), (1., .6)):
            x = to_float(test.x)
            right = net(x + sigma*torch.randn(x.shape, generator=rng(3)), sigma).argmax(1) == test.y
            assert right.double().mean() > least


def test_guide_is_not_the_judge():
    judge, helper = load_classifier('digits')[0], load_classifier('digits', NoisyClassifier)[0]
    assert isinstance(judge, Classifier) and isinstance(helper, NoisyClassifier) and not set(judge.state_dict()) & set(helper.state_dict())
    assert {'digits', 'mnist'} <= set(shipped_classifiers()) & set(shipped_classifiers(NoisyClassifier))
    assert not any('noisy' in k for k in shipped_classifiers())


def test_files(tmp_path):
    torch.manual_seed(0)
    net = NoisyClassifier((3, 16, 16), 4, width=16, sigma_data=.3).eval()
    for half, tol in ((False, 0), (True, 2e-2)):
        save_classifier(net, tmp_path/'mine.safetensors', half=half, data='mine')
        again, meta = load_classifier(tmp_path/'mine.safetensors', NoisyClassifier)
        x = torch.randn(2, 3, 16, 16)
        assert (again(x, 1.) - net(x, 1.)).abs().max() <= tol and meta['data'] == 'mine'
    with pytest.raises(InputError, match='checkpoint'): load_classifier(tmp_path/'mine.safetensors')
    with pytest.raises(InputError, match='checkpoint'): load_classifier('digits-noisy')


@pytest.mark.parametrize('cls', [Classifier, NoisyClassifier])
def test_a_name_that_is_not_there(cls):
    with pytest.raises(InputError, match='checkpoint.*imagenet.*cifar10, digits, mnist'): load_classifier('imagenet', cls)


BAD = {
    'on': lambda net, x, y: classifier_guidance(None, net, scale=2., on='both'),
    'guidance': lambda net, x, y: classifier_guidance(None, net),
    'guidance, twice': lambda net, x, y: classifier_guidance(None, net, scale=2., w=1.),
    'scale': lambda net, x, y: classifier_guidance(None, net, scale=float('nan')),
    'interval': lambda net, x, y: classifier_guidance(None, net, scale=2., interval=(2., 1.)),
    'y': lambda net, x, y: classifier_step(net, x, 1., y + 9),
    'guidance classifier, strength': lambda net, x, y: make_method(CLASSIFIER, 'classifier', None, net, strength=2.),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input(name):
    net, x, y = load_classifier('digits', NoisyClassifier)[0], torch.randn(2, 1, 8, 8), torch.arange(2)
    with pytest.raises(InputError, match=f'^{name.split(", twice")[0]}: got'): BAD[name](net, x, y)


def test_shelf():
    entry, world = CLASSIFIER['classifier'], three_gaussians()
    assert 'classifier' in entry.needs and {'on', 'scale', 'w'} <= set(method_options(entry))
    made = make_method(CLASSIFIER, 'classifier', world, exact(world), scale=2., on='conditional')
    assert isinstance(made, Guided) and (made(*questions(world)) - guide(world, scale=2.)(*questions(world))).abs().max() <= 1e-10


def test_once():
    "The last answer is kept for the same samples, level and labels, and for nothing else."
    asked = []
    ask = once(lambda x, sigma, y: asked.append(1) or x*sigma)
    x, y, sigma = torch.ones(3), torch.arange(3), 2.
    assert torch.equal(ask(x, sigma, y), ask(x, sigma, y.clone())) and len(asked) == 1
    for other in ((x.clone(), sigma, y), (x, 3., y), (x, sigma, y + 1)): ask(*other)
    assert len(asked) == 4


def test_memory_starts_afresh():
    "A guided denoiser inside is told of a new run."
    class Remembering:
        rows = None
        def __call__(self, x, sigma, y): return three_gaussians()(x, sigma, y)
        def fresh(self, rows=None): new = Remembering(); new.rows = rows; return new
    made = classifier_guidance(Remembering(), exact(three_gaussians()), scale=2.)
    assert made.denoise.denoise.rows is None and fresh(made, [3, 4]).denoise.denoise.rows == [3, 4]
    assert isinstance(Tilted(made, None, 0.).peek, Tilted)


def test_training_is_a_function_of_the_seed():
    data = load_data('digits')
    a, b, c = (train_noisy(data, steps=3, batch_size=16, seed=s).state_dict() for s in (0, 0, 1))
    assert all(map(torch.equal, a.values(), b.values())) and not all(map(torch.equal, a.values(), c.values()))
