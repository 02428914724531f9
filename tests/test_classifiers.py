"Classifier guidance against what it must equal, and the classifiers' files."
from importlib import resources

import pytest, torch
from torch.nn import functional as F

from cfg_course import classifiers
from cfg_course.classifiers import CLASSIFIER, DESIGNS, Classifier, NoisyClassifier, Once, ResidualClassifier
from cfg_course.classifiers import classifier_guidance, classifier_step, load_classifier, mirror, predict, save_classifier
from cfg_course.classifiers import shift, shipped_classifiers, train_classifier, train_noisy
from cfg_course.core import NULL, InputError, Run, mix_seed, present_run, rng, to_float, to_uint8
from cfg_course.data import Images, load_data
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
        with Run(): gap = classifier_guidance(world, helper, on=on, **options)(x, sigma, y) - guide(world, **options)(x, sigma, y)
        assert gap.abs().max() <= 1e-10
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


@pytest.mark.parametrize('y', [-2, -7, 3, 99])
def test_labels_that_are_none(y):
    "A label beyond the classes, on either side, is named; the one for no label is none of them."
    x = torch.zeros(2, 4)
    logits = lambda x, sigma: x[:, :3]
    assert classifier_step(logits, x, 1., torch.tensor([0, NULL])).shape == x.shape
    with pytest.raises(InputError, match='classes 0 to 2, or NULL'): classifier_step(logits, x, 1., torch.tensor([0, y]))


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
    with pytest.raises(InputError, match='checkpoint.*imagenet.*cifar10.*, digits.*, mnist'): load_classifier('imagenet', cls)


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
    ask = Once(lambda x, sigma, y: asked.append(1) or x*sigma)
    x, y, sigma = torch.ones(3), torch.arange(3), 2.
    assert torch.equal(ask(x, sigma, y), ask(x, sigma, y.clone())) and len(asked) == 1
    for other in ((x.clone(), sigma, y), (x, 3., y), (x, sigma, y + 1)): ask(*other)
    assert len(asked) == 4


def test_what_is_inside_finds_the_run():
    "A denoiser that remembers, inside a classifier's branch, in which it is asked once for both."
    seen = []
    def remembering(x, sigma, y):
        seen.append(present_run())
        return three_gaussians()(x, sigma, y)
    made, run = classifier_guidance(remembering, exact(three_gaussians()), scale=2.), Run([3, 4])
    with run.next_step(): made(torch.zeros(2, 2, dtype=torch.float64), 1., torch.tensor([0, 1]))
    assert seen == [run]


def test_training_is_a_function_of_the_seed():
    data = load_data('digits')
    a, b, c = (train_noisy(data, steps=3, batch_size=16, seed=s).state_dict() for s in (0, 0, 1))
    assert all(map(torch.equal, a.values(), b.values())) and not all(map(torch.equal, a.values(), c.values()))


def few(shape, num=200):
    "Random images in ten classes."
    x = torch.randint(0, 256, (num, *shape), generator=rng(5), dtype=torch.uint8)
    return Images(x, torch.arange(num) % 10, list('0123456789'), 'few')


@pytest.mark.parametrize('shape', [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize('design', DESIGNS)
def test_judges_have_one_interface(design, shape):
    "FID features of 128 dimensions, logits made of them alone, and a file of at most 2.5 MB."
    net = DESIGNS[design](shape, 10).eval()
    x = torch.rand(3, *shape, generator=rng(6))*2 - 1
    hidden = net.features(x)
    assert hidden.shape == (3, 128) and torch.equal(net(x), net.head(hidden))
    assert net.kind == 'classifier' and net.config['design'] == design and net.config['shape'] == list(shape)
    assert sum(p.numel() for p in net.parameters()) < 1.2e6


@pytest.mark.parametrize('design', DESIGNS)
def test_a_trained_judge_comes_back_from_its_file(design, tmp_path):
    "Of its class, with its verdicts: batch norm has statistics by then."
    net = train_classifier(few((3, 16, 16)), epochs=2, batch_size=50, design=design, width=8, stages=2, flip=True)
    save_classifier(net, tmp_path/'mine.safetensors', half=False, data='few', part='fit')
    again, meta = load_classifier(tmp_path/'mine.safetensors', shape=(3, 16, 16))
    assert type(again) is DESIGNS[design] and meta['part'] == 'fit' and not again.training
    x = few((3, 16, 16), 20).x
    assert torch.equal(predict(again, x), predict(net, x))
    with pytest.raises(InputError, match=r"^image shape .*got \(1, 28, 28\), allowed: \(3, 16, 16\)$"): load_classifier(tmp_path/'mine.safetensors', shape=(1, 28, 28))


def test_a_file_without_a_design_is_plain(tmp_path):
    net = Classifier((1, 8, 8), 10, width=8)
    del net.config['design']
    save_classifier(net, tmp_path/'old.safetensors')
    assert type(load_classifier(tmp_path/'old.safetensors')[0]) is Classifier
    assert type(load_classifier('digits')[0]) is Classifier


def test_an_unknown_design_is_refused(tmp_path):
    net = ResidualClassifier((1, 8, 8), 10, width=8)
    net.config['design'] = 'spiral'
    save_classifier(net, tmp_path/'odd.safetensors')
    for bad in (lambda: load_classifier(tmp_path/'odd.safetensors'), lambda: train_classifier(few((1, 8, 8)), design='spiral')):
        with pytest.raises(InputError) as e: bad()
        assert str(e.value) == "design: got 'spiral', allowed: plain, residual"


def test_found_by_data_and_shape(tmp_path, monkeypatch):
    "Of CIFAR-10 at 32 and at 16 pixels the one that fits, and the plain judge before the residual one."
    (tmp_path/'weights').mkdir()
    def put(name, net): save_classifier(net, tmp_path/'weights'/f'{name}-classifier.safetensors', data='folder:photos', name=name)
    put('photos', Classifier((3, 32, 32), 10, width=8))
    put('photos-16-residual', ResidualClassifier((3, 16, 16), 10, width=8))
    put('photos-16', Classifier((3, 16, 16), 10, width=8))
    put('photos-16-noisy', NoisyClassifier((3, 16, 16), 10, width=8))
    monkeypatch.setattr(classifiers.resources, 'files', lambda package: tmp_path)
    name = lambda *args: load_classifier(*args)[1]['name']
    assert list(shipped_classifiers()) == ['photos', 'photos-16', 'photos-16-residual']
    assert name('folder:photos', Classifier, (3, 16, 16)) == name('folder:photos', Classifier, [3, 16, 16]) == 'photos-16'
    assert name('folder:photos', Classifier, (3, 32, 32)) == name('folder:photos') == 'photos'
    assert name('photos-16-residual') == name('photos-16-residual', Classifier, (3, 16, 16)) == 'photos-16-residual'
    assert name('folder:photos', NoisyClassifier, (3, 16, 16)) == 'photos-16-noisy'
    for who, cls, there in (('folder:photos', Classifier, '(3, 16, 16), (3, 32, 32)'), ('photos', Classifier, '(3, 32, 32)'), ('folder:photos', NoisyClassifier, '(3, 16, 16)')):
        with pytest.raises(InputError) as e: load_classifier(who, cls, (3, 8, 8))
        assert str(e.value) == f'image shape for the {cls.kind} {who!r}: got (3, 8, 8), allowed: {there}'


def cycle_of(net, steps, decay, loss):
    "The loop that trained the shipped classifiers, before it knew of devices."
    opt = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(opt, 2e-3, steps)
    for _ in range(steps):
        loss().backward()
        opt.step(); opt.zero_grad(); cycle.step()
    return net.state_dict()


@pytest.mark.parametrize('flip', [False, True])
def test_judges_are_trained_as_before(flip):
    "To the last bit: stored outputs rest on it."
    data, g = few((1, 8, 8)), rng(3, 11)
    torch.manual_seed(mix_seed(3, 10))
    net = Classifier((1, 8, 8), 10, width=8)
    def loss():
        rows = torch.randint(len(data), (32,), generator=g)
        x = shift(to_float(data.x[rows]), 1, g)
        if flip: x = torch.where(torch.rand(32, generator=g)[:, None, None, None] < .5, x.flip(-1), x)
        return F.cross_entropy(net(x), data.y[rows])
    old = cycle_of(net, 6, .05, loss)
    new = train_classifier(data, 1, 32, seed=3, flip=flip, decay=.05, width=8).state_dict()
    assert list(old) == list(new) and all(map(torch.equal, old.values(), new.values()))


def test_guides_are_trained_as_before():
    data, g = load_data('digits'), rng(2, 13)
    torch.manual_seed(mix_seed(2, 12))
    net = NoisyClassifier((1, 8, 8), 10, sigma_data=round(data.rms(), 3)).to(memory_format=torch.channels_last)
    def loss():
        rows, sigma = torch.randint(len(data), (16,), generator=g), classifiers.lognormal_sigma(classifiers.stratified(16, g), -.3, 1.8).float()
        x0 = shift(to_float(data.x[rows]), 1, g)
        x = x0 + sigma[:, None, None, None]*torch.randn(x0.shape, generator=g)
        return F.cross_entropy(net(x, sigma), data.y[rows])
    old = cycle_of(net, 3, .01, loss)
    assert all(map(torch.equal, old.values(), train_noisy(data, steps=3, batch_size=16, seed=2).state_dict().values()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
@pytest.mark.parametrize('design', DESIGNS)
def test_a_gpu_trains_nearly_the_same(design):
    "The same batches: after a few steps the verdicts differ by rounding alone. What a net on the GPU predicts comes to the CPU."
    data = few((3, 16, 16))
    nets = [train_classifier(data, 1, 50, lr=1e-4, design=design, flip=True, device=d) for d in ('cpu', 'cuda')]
    (a, b), moved = [predict(net, data.x) for net in nets], predict(nets[1].cuda(), data.x)
    assert (a - b).abs().max() < .05 and (moved - b).abs().max() < 1e-2 and moved.device.type == 'cpu'
    guides = [train_noisy(data, 4, 50, lr=1e-4, flip=True, device=d) for d in ('cpu', 'cuda')]
    assert all(p.device.type == 'cpu' for p in guides[1].parameters())


def test_device_that_is_not_there():
    for train in (train_classifier, train_noisy):
        with pytest.raises(InputError, match='device'): train(few((1, 8, 8)), device='cuda:9')


def test_predict_goes_where_the_network_is():
    "Batch by batch, bytes or floats; the answer is the same."
    net, x = load_classifier('digits')[0], load_data('digits', 'test').x[:30]
    assert torch.equal(predict(net, x), predict(net, to_float(x))) and torch.equal(predict(net, to_float(x).double()), predict(net, x))
    assert (predict(net, x, 7) - predict(net, x)).abs().max() < 1e-6


def test_mirrored():
    x = torch.arange(6.).view(1, 1, 1, 6).expand(100, 1, 1, 6)
    y = mirror(x, rng(0))
    flipped = y[:, 0, 0, 0] == 5
    assert torch.equal(y[flipped], x[flipped].flip(-1)) and torch.equal(y[~flipped], x[~flipped]) and 30 < flipped.sum() < 70


def test_configuration_with_every_key():
    "All that a configuration may say, it may say at once."
    every = dict(design='plain', shape=[1, 8, 8], num_classes=10, width=8, stages=1, blocks=1, sigma_data=.5)
    assert classifiers.config_of(dict(config=every), 'some file') == every
    with pytest.raises(InputError, match='configuration'): classifiers.config_of(dict(config=every | dict(more=1)), 'some file')
