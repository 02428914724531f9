"Objectives of chapter 15a, the register they stand in, and heads: resumed to the same bytes, gradients, refusals."
import copy, json, math
from dataclasses import asdict, replace
from importlib import resources

import pytest, torch
from accelerate.state import AcceleratorState
from PIL import Image

from cfg_course.classifiers import load_classifier, predict
from cfg_course.core import NULL, InputError, load_tensors, number, rng, save_tensors, to_float, to_uint8
from cfg_course.data import load_data
from cfg_course.denoisers import Denoiser, count_rows, find_network, load_denoiser, save_denoiser
from cfg_course.guidance import guide
from cfg_course.networks import CONFIGS, UNet, UNetConfig
from cfg_course.objectives import Head, Headed, Own, contrast, contrastive, ddo, draw_own, find_head, improved_meanflow, in_place_of
from cfg_course.objectives import internal_guidance, load_head, meanflow, neon, other_rows, sample_mean, save_head, self_training
from cfg_course.objectives import towards, train_head, two_times, with_slope
from cfg_course.samplers import sample
from cfg_course.training import OBJECTIVES, TEACHER, Batch, Setting, TrainConfig, checkpoints, denoising_loss, draw_batch
from cfg_course.training import objective, objective_options, student_of, train

WEIGHTS = resources.files('cfg_course')/'weights'
SMALL = UNetConfig(image_size=8, patch=2, widths=(16, 16), heads=2, emb=32)
FIRST = ['denoising', 'distillation', 'model_guidance', 'guidance_free']


@pytest.fixture(autouse=True)
def alone():
    "None of Accelerate's state from other tests or for them, and no entry that a test made."
    AcceleratorState._reset_state(True)
    entries = dict(OBJECTIVES)
    yield
    AcceleratorState._reset_state(True)
    OBJECTIVES.clear(), OBJECTIVES.update(entries)


def lively(scaled=False, seed=0):
    "A small network that predicts something, in float64."
    torch.manual_seed(seed)
    net = Denoiser(UNet(replace(SMALL, scaled=scaled)), sigma_data=.6)
    for p in net.parameters(): p.data += .1*torch.randn_like(p)
    return net.double()


def batch_of(n=12, p_uncond=.3):
    "Digits with noise, some without label."
    b = draw_batch(load_data('digits'), TrainConfig(batch_size=n, p_uncond=p_uncond), 0)
    return Batch(b.x0.double(), b.y, b.sigma.double(), b.n.double())


def slopes(loss, net): return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()), allow_unused=True) if g is not None])


def recipe(name, **changes):
    "A run of seconds."
    taught = OBJECTIVES[name].needs == TEACHER
    args = ('samples=20',) if 'samples' in OBJECTIVES[name].options else ()
    return TrainConfig(**{**dict(steps=6, batch_size=8, warmup=2, objective=name, teacher='digits' if taught else None, objective_args=args), **changes})


def run(out, name, resume=False, **changes):
    net = None if OBJECTIVES[name].needs else SMALL
    return train(out, recipe(name, **changes), None if resume else net, device='cpu', save_every=3, progress=False, resume=resume)


# The register

def test_the_first_four_keep_their_names(): assert list(OBJECTIVES)[:4] == FIRST and set(OBJECTIVES) >= {*FIRST, 'contrastive', 'meanflow', 'imf', 'ddo', 'sims'}


@pytest.mark.parametrize('name', list(OBJECTIVES))
def test_entry(name):
    entry = OBJECTIVES[name]
    assert entry.title and 'arXiv:' in entry.paper and entry.formula and entry.needs in ('', TEACHER) and entry.begin.__doc__
    assert entry.scales and 'out}' in entry.use or 'TEACHER' in entry.use


@pytest.mark.parametrize('name', list(OBJECTIVES))
def test_resumes_to_the_same_bytes(name, tmp_path):
    whole = run(tmp_path/'whole', name).read_bytes()
    model, cut = run(tmp_path/'cut', name), tmp_path/'cut'
    model.unlink(), checkpoints(cut)[-1].unlink()
    assert [p.stem for p in checkpoints(cut)] == ['00000003']
    assert run(cut, name, resume=True).read_bytes() == whole
    assert json.loads((cut/'config.json').read_text())['train']['objective'] == name


@pytest.mark.parametrize('name', FIRST)
def test_a_run_of_before_the_register_resumes(name, tmp_path):
    "Its configuration lacks the options."
    whole = run(tmp_path/'a', name).read_bytes()
    run(tmp_path/'b', name)
    path = tmp_path/'b'/'config.json'
    made = json.loads(path.read_text())
    del made['train']['objective_args']
    path.write_text(json.dumps(made))
    (tmp_path/'b'/'model.safetensors').unlink(), checkpoints(tmp_path/'b')[-1].unlink()
    assert run(tmp_path/'b', name, resume=True).read_bytes() == whole


def test_one_more_is_one_cell(tmp_path):
    @objective('louder', 'Louder', 'nobody, arXiv:0000.00000', 'times |D - x0|^2', options=dict(times=number(1)))
    def learn_louder(setting, *, times=2.):
        return setting.fresh, lambda denoise, batch, c_out=1.: times*denoising_loss(denoise, batch, c_out)
    quiet, loud = (run(tmp_path/name, name, clip=1e9) for name in ('denoising', 'louder'))
    first = [float((path.parent/'log.csv').read_text().split('\n')[1].split(',')[1]) for path in (quiet, loud)]
    assert math.isclose(first[1], 2*first[0], rel_tol=.05)
    assert run(tmp_path/'three', 'louder', objective_args=('times=3',)).exists()


@pytest.mark.parametrize('name,args,words', [
    ('contrastive', ('lam',), '--objective-arg: got .lam.'), ('contrastive', ('lamb=.1',), 'did you mean lam'), ('denoising', ('lam=.1',), 'One of none|none'),
    ('contrastive', ('lam=nan',), 'lam: got nan'), ('contrastive', ('lam=1',), 'lam: got 1'), ('contrastive', ('lam=-.1',), 'lam: got -0.1'), ('contrastive', ('lam=a',), "lam: got 'a'"),
    ('meanflow', ('kappa=1',), 'kappa: got 1'), ('meanflow', ('kappa=-.5',), 'kappa'), ('meanflow', ('omega=0',), 'omega'), ('meanflow', ('omega=inf',), 'omega'), ('meanflow', ('share=1.1',), 'share'),
    ('imf', ('omega=.5',), 'omega'), ('ddo', ('beta=0',), 'beta'), ('ddo', ('alpha=-1',), 'alpha'), ('ddo', ('samples=2.5',), 'samples'), ('sims', ('samples=0',), 'samples'),
    ('model_guidance', ('w_mg=2',), 'w_mg'), ('guidance_free', ('high=1.5',), 'high'), ('distillation', ('low=nan',), 'low'),
])
def test_bad_options(name, args, words, tmp_path):
    "One line, before anything is written."
    with pytest.raises(InputError, match=words): run(tmp_path/'run', name, objective_args=args)
    assert not (tmp_path/'run').exists()


@pytest.mark.parametrize('name', [name for name, entry in OBJECTIVES.items() if entry.needs])
def test_without_a_teacher(name, tmp_path):
    with pytest.raises(InputError, match='^teacher: got None, allowed: a model with objective distillation, ddo, sims'): run(tmp_path/'a', name, teacher=None)
    with pytest.raises(InputError, match="^teacher: got 'mnist', allowed: a model of 1 x 8 x 8 images"): run(tmp_path/'a', name, teacher='mnist')
    teacher = load_denoiser(WEIGHTS/'digits.safetensors')[0]
    data = load_data('digits')
    save_denoiser(student_of(teacher), tmp_path/'student.safetensors', classes=data.classes, shape=data.shape, data='digits')
    with pytest.raises(InputError, match='that is no student itself'): run(tmp_path/'a', name, teacher=str(tmp_path/'student.safetensors'))
    assert not (tmp_path/'a').exists()


@pytest.mark.parametrize('name', [name for name, entry in OBJECTIVES.items() if not entry.needs])
def test_with_a_teacher_for_nothing(name, tmp_path):
    with pytest.raises(InputError, match='^teacher: got'): run(tmp_path/'a', name, teacher='digits')


def test_options_change_what_is_learned(tmp_path):
    a, b = (run(tmp_path/k, 'contrastive', objective_args=args).read_bytes() for k, args in (('a', ()), ('b', ('lam=.5',))))
    assert a != b
    with pytest.raises(InputError, match='objective_args: got'): run(tmp_path/'a', 'contrastive', resume=True, objective_args=('lam=.5',))


def test_a_batch_of_one(tmp_path):
    with pytest.raises(InputError, match='^batch_size: got 1, allowed: at least 2'): run(tmp_path/'a', 'contrastive', batch_size=1)
    assert not (tmp_path/'a'/'config.json').exists()


def test_pictures_of_a_run(tmp_path):
    "Three scales, but one for a network that is told how far to go."
    for name, rows in (('denoising', 3), ('meanflow', 1)):
        run(tmp_path/name, name)
        height = Image.open(next((tmp_path/name/'samples').glob('*.png'))).height
        assert height == 2*(rows*9 + 1)


# Contrast

def test_no_contrast_is_the_loss():
    net, b = lively(), batch_of()
    assert abs(contrastive(0.)(net, b, .7) - denoising_loss(net, b, .7)) < 1e-12


def test_partners():
    torch.manual_seed(0)
    seen = torch.stack([other_rows(5) for _ in range(2000)])
    own = torch.arange(5)
    assert (seen != own).all() and all((seen[:, i] == j).double().mean().sub(.25).abs() < .04 for i in range(5) for j in range(5) if i != j)


@pytest.mark.parametrize('lam', [.05, .4])
@pytest.mark.parametrize('sigma', [.05, 1., 30.])
def test_contrast_is_a_constant_velocity(lam, sigma):
    x, mean = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.randn(1, 8, 8, dtype=torch.float64)
    D = contrast(mean)(x, sigma, torch.zeros(3).long())
    assert ((x/(1 + sigma) - D)*(1 + sigma)/sigma + mean).abs().max() < 1e-9
    float32 = contrast(mean.float())(x.float(), torch.full((3,), sigma), torch.zeros(3).long())
    assert (float32 - D).abs().max() < 1e-4*(1 + sigma)


# MeanFlow

def test_slope_of_a_network_is_its_difference():
    "Through attention, norms and the embedding of how far."
    net, b = lively(scaled=True), batch_of(6)
    t = b.sigma/(1 + b.sigma)
    r, z, v = .4*t, b.x0 + (t[:, None, None, None])*(b.n - b.x0), torch.randn(6, 1, 8, 8, generator=rng(3), dtype=torch.float64)
    u = towards(net, b.y)
    value, slope = with_slope(u, z, t, r, v)
    h = 1e-6
    numeric = (u(z + h*v, t + h, r) - u(z - h*v, t - h, r))/(2*h)
    assert (value - u(z, t, r)).abs().max() < 1e-9
    assert (slope - numeric).abs().max() <= 1e-4*numeric.abs().max()


@pytest.mark.parametrize('make', [lambda: meanflow(1.2, .4, share=.5), lambda: improved_meanflow(2.5, share=.5)], ids=['meanflow', 'imf'])
def test_gradient_does_not_see_the_target(make):
    "The same as that of a loss whose target was computed beforehand."
    net, b = lively(scaled=True), batch_of()
    torch.manual_seed(5)
    got = slopes(make()(net, b), net)
    torch.manual_seed(5)
    kept = copy.deepcopy(net)
    t, r = two_times(b.sigma, .5)
    assert (r <= t).all() and ((r == t).sum() >= 1) and (r < t).any()
    f = b.n - b.x0
    z = b.x0 + t[:, None, None, None]*f
    ahead = (t - r)[:, None, None, None]
    with torch.no_grad(): f_c, f_u = (towards(kept, y)(z, t, t) for y in (b.y, torch.full_like(b.y, NULL)))
    null = (b.y == NULL)[:, None, None, None]
    if make().__qualname__.startswith('meanflow'):
        g = torch.where(null, f, 1.2*f + (1 - 1.2 - .4)*f_u + .4*f_c)
        along = g
    else:
        g = torch.where(null, f, f + (1 - 1/2.5)*(f_c - f_u))
        along = f_c
    _, slope = with_slope(towards(kept, b.y), z, t, r, along)
    target = (g - ahead*slope).detach()
    square = (towards(net, b.y)(z, t, r) - target).square().flatten(1).sum(1)
    want = slopes((square/(square.detach() + .01)).mean(), net)
    assert null.any() and (got - want).abs().max() <= 1e-9*want.abs().max()


def test_told_nothing_it_is_a_denoiser():
    net, b = lively(scaled=True).eval(), batch_of()
    t = b.sigma/(1 + b.sigma)
    z = b.x/(1 + b.sigma)[:, None, None, None]
    D = z - t[:, None, None, None]*towards(net, b.y)(z, t, t)
    assert (D - net(b.x, b.sigma, b.y)).abs().max() < 1e-9


def test_samples_depend_on_seed_and_index_alone():
    net, y = lively(scaled=True).float().eval(), torch.arange(10) % 10
    levels = (80., 2., 0.)
    a = sample_mean(net, y, (1, 8, 8), levels)
    assert (sample_mean(net, y, (1, 8, 8), levels, batch_size=3) - a).abs().max() < 1e-5
    assert (sample_mean(net, y, (1, 8, 8), levels, seed=1) - a).abs().max() > .1


# What the authors' code answered, run elsewhere on these inputs

def common():
    "Eight pictures, their noise and levels."
    x0, n = (torch.randn(8, 1, 4, 4, generator=rng(k), dtype=torch.float64) for k in (1, 2))
    return x0, n, torch.exp(torch.randn(8, generator=rng(3), dtype=torch.float64) - .4)


def test_against_py_meanflow():
    "forward_with_loss of Gsunshine/py-meanflow; for rows without label, as its CIFAR-10 has none."
    x0, n, sigma = common()
    w = torch.randn(4, generator=rng(7), dtype=torch.float64).requires_grad_()
    def model(x, sigma, y, told):
        t, h = (a[:, None, None, None] for a in (sigma/(1 + sigma), 1 - told))
        z = x/(1 + sigma)[:, None, None, None]
        return z - t*(w[0]*torch.tanh(z + w[1]*t) + w[2]*h*z + w[3]*t)
    torch.manual_seed(11)
    loss = meanflow(share=.5)(model, Batch(x0, torch.full((8,), NULL), sigma, n))
    slope, = torch.autograd.grad(loss, w)
    theirs = torch.tensor([-0.49869148896398935, -0.21226924031763084, -0.017919727652089736, 0.2895875432782299], dtype=torch.float64)
    assert abs(loss.item() - 0.9997901426669069) < 1e-12 and (slope - theirs).abs().max() < 1e-12


def test_against_deltafm():
    "compute_triplet_loss_efficiently of gstoica27/DeltaFM, a loss of velocities: ours with c_out = t."
    x0, n, sigma = common()
    w = torch.randn(2, generator=rng(9), dtype=torch.float64).requires_grad_()
    torch.manual_seed(21)
    loss = contrastive(.05)(lambda x, sigma, y: w[0]*torch.tanh(x) + w[1], Batch(x0, torch.arange(8), sigma, n), sigma/(1 + sigma))
    slope, = torch.autograd.grad(loss, w)
    assert abs(loss.item() - 20.811494202614732) < 1e-10
    assert (slope - torch.tensor([-18.030854613209364, 10.394157080318799], dtype=torch.float64)).abs().max() < 1e-10


# Own samples, DDO, SIMS and Neon

def test_own_samples():
    teacher = load_denoiser(WEIGHTS/'digits.safetensors')[0]
    own, again, other = (draw_own(Setting(None, teacher, seed), 25) for seed in (0, 0, 1))
    assert torch.equal(own.x0, again.x0) and not torch.equal(own.x0, other.x0)
    assert own.y.bincount().tolist() == [3]*5 + [2]*5 and torch.equal(own.x0, to_float(to_uint8(own.x0)))
    b = draw_batch(load_data('digits'), TrainConfig(batch_size=64, p_uncond=.4), 0)
    torch.manual_seed(0)
    mine = in_place_of(b, own)
    assert torch.equal(mine.y == NULL, b.y == NULL) and torch.equal(mine.n, b.n) and torch.equal(mine.sigma, b.sigma)
    rows = [(own.x0 == x).flatten(1).all(1).nonzero()[0].item() for x in mine.x0]
    assert len(set(rows)) > 10 and all(y in (NULL, own.y[i]) for y, i in zip(mine.y.tolist(), rows))


def test_ddo_begins_at_the_teacher():
    "There no image can be told from a sample: log 2 each."
    teacher, b = lively(), batch_of()
    own = Own(b.x0[:5], b.y[:5].clamp(min=0))
    loss = ddo(teacher, own, alpha=3., beta=.2)(copy.deepcopy(teacher), b, .5)
    assert abs(loss.item() - 4*math.log(2)) < 1e-9


def test_ddo_asks_no_gradient_of_its_teacher():
    teacher, net, b = lively(), lively(seed=1), batch_of()
    own = Own(b.x0[:5], b.y[:5].clamp(min=0))
    ddo(teacher, own)(net, b).backward()
    assert all(p.grad is None for p in teacher.parameters()) and any(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize('name', ['ddo', 'sims'])
def test_teacher_stays_and_copy_moves(name):
    teacher = load_denoiser(WEIGHTS/'digits.safetensors')[0].requires_grad_(False)
    before = copy.deepcopy(teacher.state_dict())
    net, loss = OBJECTIVES[name].begin(Setting(None, teacher), samples=10)
    assert all(p.requires_grad for p in net.parameters())
    opt = torch.optim.SGD(net.parameters(), 1e-3)
    b = draw_batch(load_data('digits'), TrainConfig(batch_size=8), 0)
    loss(net, b, 1.).backward()
    opt.step()
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    assert any(not torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_self_training_is_the_loss_on_own_samples():
    net, b = lively(), batch_of()
    own = Own(b.x0[:5], b.y[:5].clamp(min=0))
    torch.manual_seed(1); mine = self_training(own)(net, b, .3)
    torch.manual_seed(1); assert mine == denoising_loss(net, in_place_of(b, own), .3)


def test_neon_leaves_both_alone_and_is_sims_to_first_order():
    model, worse = lively(), lively()
    for p in worse.parameters(): p.data += 1e-4*torch.randn(p.shape, dtype=p.dtype)
    before = [p.clone() for p in model.parameters()], [p.clone() for p in worse.parameters()]
    b = batch_of()
    new = neon(model, worse, .8)
    assert all(map(torch.equal, before[0], model.parameters())) and all(map(torch.equal, before[1], worse.parameters()))
    with torch.no_grad():
        moved = new(b.x, b.sigma, b.y) - model(b.x, b.sigma, b.y)
        gap = new(b.x, b.sigma, b.y) - guide(model, scale=1.8, weak=worse)(b.x, b.sigma, b.y)
    assert moved.abs().max() > 1e-5 and gap.abs().max() < 1e-2*moved.abs().max()


@pytest.mark.parametrize('change,name', [(dict(widths=(16, 24)), 'widths'), (dict(image_size=4), 'image_size'), (dict(scaled=True), 'scaled')])
def test_neon_of_two_kinds(change, name):
    other = Denoiser(UNet(replace(SMALL, **change)), sigma_data=.6)
    with pytest.raises(InputError, match=f'^{name}: got'): neon(lively(), other)
    for w in (float('nan'), float('inf')):
        with pytest.raises(InputError, match='^w: got'): neon(lively(), lively(), w)
    with pytest.raises(InputError, match='^sigma_data: got'): neon(lively(), Denoiser(UNet(SMALL), sigma_data=.5))


# Heads

def head_for(net):
    torch.manual_seed(3)
    head = Head(net.net)
    for p in head.parameters(): p.data += .1*torch.randn_like(p)
    return head


@pytest.mark.parametrize('cfg', [SMALL, CONFIGS['digits'], CONFIGS['cifar10_16'], replace(CONFIGS['mnist'], widths=(16, 48))], ids=['small', 'digits', 'three levels', 'mnist'])
def test_one_pass_gives_both(cfg):
    torch.manual_seed(0)
    net = Denoiser(UNet(cfg), sigma_data=.6).eval()
    for p in net.parameters(): p.data += .05*torch.randn_like(p)
    headed = Headed(net, head_for(net))
    x, y = torch.randn(5, cfg.channels, cfg.image_size, cfg.image_size), torch.tensor([0, 1, NULL, 3, 4])
    counted = count_rows(net.net)
    D, D_mid = headed(x, torch.linspace(.2, 3, 5), y)
    assert counted.rows == 5 and torch.equal(D, net(x, torch.linspace(.2, 3, 5), y)) and D_mid.shape == D.shape
    assert (headed(x[2:3], torch.linspace(.2, 3, 5)[2:3], y[2:3])[1] - D_mid[2:3]).abs().max() < 1e-4
    assert not torch.allclose(D_mid[2:3], headed(x[2:3], torch.linspace(.2, 3, 5)[2:3], y[3:4])[1])
    assert not net.net.mid[1]._forward_hooks and not net.net.embedding._forward_hooks


def test_hooks_go_when_the_network_fails():
    net = lively()
    headed = Headed(net, head_for(net).double())
    with pytest.raises(RuntimeError): headed(torch.randn(2, 3, 8, 8, dtype=torch.float64), 1., torch.zeros(2).long())
    assert not net.net.mid[1]._forward_hooks and not net.net.embedding._forward_hooks


def test_internal_guidance_under_guidance():
    "Both branches are guided by their middle first."
    net, b = lively(), batch_of()
    headed = Headed(net, head_for(net).double())
    inside = internal_guidance(headed, 1.4)
    both = guide(inside, scale=1.45)(b.x, b.sigma, b.y)
    u, c = (inside(b.x, b.sigma, y) for y in (torch.full_like(b.y, NULL), b.y))
    assert (both - (u + 1.45*(c - u))).abs().max() < 1e-9
    with pytest.raises(InputError, match='^scale: got nan'): internal_guidance(headed, float('nan'))


def test_head_travels_with_its_model(tmp_path):
    net = lively().float()
    save_head(head_for(net), net, tmp_path/'head.safetensors', name='small')
    headed = load_head(tmp_path/'head.safetensors', net)
    x, y = torch.randn(3, 1, 8, 8), torch.arange(3)
    assert (headed(x, 1., y)[1] - Headed(net, head_for(net))(x, 1., y)[1]).abs().max() < 1e-2
    assert (tmp_path/'head.safetensors').stat().st_size < 1e5


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_head_of_a_model_in_another_precision(dtype):
    "The shipped head is found, and answers, wherever its model has gone."
    model = load_denoiser(WEIGHTS/'digits.safetensors')[0]
    x, y = torch.randn(4, 1, 8, 8), torch.arange(4)
    want, got = (find_head(m)(x, 1., y) for m in (model, copy.deepcopy(model).to(dtype)))
    for a, b in zip(want, got): assert b.dtype == torch.float32 and (a - b).abs().max() <= max(64*torch.finfo(dtype).eps, 1e-5)


def spoil(kind, path, net):
    "A head that is not the one of a model."
    if kind == 'another model': save_head(head_for(net), lively(seed=9).float(), path)
    if kind == 'one weight moved':
        moved = copy.deepcopy(net)
        next(moved.parameters()).data.view(-1)[0] += 1e-2
        save_head(head_for(net), moved, path)
    if kind == 'another shape':
        wider = Denoiser(UNet(replace(SMALL, widths=(16, 24))), sigma_data=.6)
        save_head(head_for(wider), net, path)
    if kind == 'no head': save_denoiser(net, path)
    if kind == 'cut': save_head(head_for(net), net, path); path.write_bytes(path.read_bytes()[:900])
    if kind == 'pickle': torch.save(head_for(net).state_dict(), path)
    if kind == 'no fingerprint': save_tensors(head_for(net).state_dict(), dict(kind='head'), path)


@pytest.mark.parametrize('kind', ['another model', 'one weight moved', 'another shape', 'no head', 'cut', 'pickle', 'no fingerprint', 'not there'])
def test_foreign_heads(kind, tmp_path):
    net, path = lively().float(), tmp_path/'head.safetensors'
    spoil(kind, path, net)
    with pytest.raises(InputError) as e: load_head(path, net)
    assert '\n' not in str(e.value)
    if kind in ('another model', 'one weight moved', 'no fingerprint'): assert str(e.value).startswith('head: got') and 'fingerprint' in str(e.value)


def test_train_head_leaves_the_trunk(tmp_path):
    net, data = lively().float(), load_data('digits')
    before, told = copy.deepcopy(net.state_dict()), []
    cfg = TrainConfig(steps=30, batch_size=32, warmup=3)
    head = train_head(net, data, cfg, lambda step, loss: told.append(loss))
    again = train_head(net, data, cfg)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items()) and all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(map(torch.equal, head.state_dict().values(), again.state_dict().values()))
    assert len(told) == 30 and sum(told[-5:]) < sum(told[:5])


def test_shipped_head():
    path = WEIGHTS/'heads'/'mnist-a.safetensors'
    tensors, meta = load_tensors(path, 'head')
    assert path.stat().st_size < 1e6 and meta['name'] == 'mnist-a' and all(t.dtype == torch.float16 for t in tensors.values())
    headed = find_head(find_network('mnist-a')[0])
    y = torch.arange(50) % 10
    x = sample(internal_guidance(headed, 1.4), y, (1, 28, 28), 'dpmpp', steps=16)
    assert (predict(load_classifier('mnist-residual')[0], to_uint8(x)).argmax(1) == y).double().mean() >= .9
    for other in ('mnist-b', 'mnist-c'):
        with pytest.raises(InputError, match='^head: got a model with the fingerprint .* allowed: one with a shipped head: .*mnist-a'): find_head(find_network(other)[0])
    with pytest.raises(InputError, match='^head: got'): find_head(lambda x, sigma, y: x)


def test_options_of_a_configuration():
    assert objective_options(recipe('ddo', objective_args=('alpha=2', 'beta=.1', 'samples=30'))) == dict(alpha=2, beta=.1, samples=30)
    assert asdict(TrainConfig())['objective_args'] == ()
