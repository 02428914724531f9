"""Rules compute in float32 or better whatever the type of the predictions, and denoisers of any type can be sampled.

The measure is float64 on the same numbers: the inputs are rounded to the type first, and so is what a model answers. An
error is counted in roundings of the type, relative to the largest value of the result. In float32 and float64, in which
nothing is cast, another space than that of the images costs roundings of the noisy sample, so that counts there too.
"""
import copy
from dataclasses import replace

import pytest, torch

from cfg_course.catalogue import RULES, STRONG, WEAK
from cfg_course.core import NULL, Run, rng
from cfg_course.denoisers import PRECONDS, Denoiser, find_model
from cfg_course.guidance import LINEAR, Label, Look, Rule, Term, apply, diagnose, guide, make_method
from cfg_course.networks import UNet
from cfg_course.samplers import SAMPLERS, sample
from cfg_course.scores import FROM_X0, TO_X0

ROUNDINGS = 16
HALF = torch.float16, torch.bfloat16
TYPES = [*HALF, torch.float32, torch.float64]
SIZES = (1, 8, 8), (4, 64, 64), (16, 128, 128)
ASK = [name for name, m in RULES.items() if 'asks again' in m.traits]
TELL = [name for name in RULES if name not in ASK]
JUMP = 'smc_cfg', 'lf_cfg', 'characteristic'  # a sign, a mask or the end of a search turns over with the network's last digit
MODEL, SHAPE, Y = find_model('digits')[0].requires_grad_(False), (1, 8, 8), torch.tensor([0, 3, NULL, 9])
OPTIONS = dict(negative=dict(label=3), autoguidance=dict(model=MODEL), in_situ=dict(rate=.1)) | {k: dict(label=8) for k in ('not', 'perp_neg')} | {'and': dict(labels=(8, 1))}
of_type = pytest.mark.parametrize('dtype', TYPES, ids=lambda d: str(d)[6:])
of_half = pytest.mark.parametrize('dtype', HALF, ids=lambda d: str(d)[6:])


def in_type(dtype):
    "A model whose answers are exact but for the rounding of its input and its output to a type; of elements, for speed."
    def net(x, sigma, y):
        s, k = (torch.as_tensor(v, dtype=torch.float64).reshape(-1, *[1]*(x.ndim - 1)) for v in (sigma, y))
        z = x.to(dtype).double()
        return torch.sin((1 + .1*k)*z/(1 + s**2)**.5 + .3*k).to(dtype).to(x.dtype)
    return net


def twice(rule, shape, given, computed, scale=3.):
    "Two steps from inputs that were rounded to `given`, computed in `computed`; two samples at two noise levels."
    x = torch.randn(2, 2, *shape, generator=rng(1), dtype=torch.float64)
    run, out, net = Run([0, 1]), [], in_type(given)
    guided = guide(net, scale=scale, weak=lambda x, sigma, y: net(x, sigma, 0*y - 1), rule=rule)
    for noise, sigma in zip(x, ([.5, 2.], [.25, 1.5])):
        sigma = torch.tensor(sigma).to(given).to(computed)
        at = (torch.ones(shape) + 3*noise).to(given).to(computed)
        with run.next_step(): out.append((guided(at, sigma, torch.tensor([1, 3])), at))
    return out


def check(rule, shape, dtype, roundings=ROUNDINGS):
    for (got, x), (want, _) in zip(twice(rule, shape, dtype, dtype), twice(rule, shape, dtype, torch.float64)):
        assert got.dtype == dtype and got.isfinite().all()
        largest = want.abs().max() if dtype in HALF else max(want.abs().max(), x.abs().max())
        assert (got.double() - want).abs().max() <= roundings*torch.finfo(dtype).eps*largest


@of_type
@pytest.mark.parametrize('shape', SIZES, ids=str)
@pytest.mark.parametrize('name', TELL)
def test_rules(name, shape, dtype):
    "Each rule of the two predictions, in its own space and in all others."
    rule = RULES[name].make()
    for space in FROM_X0: check(Rule(rule.combine, space), shape, dtype)


@of_type
@pytest.mark.parametrize('shape', SIZES[:2], ids=str)
@pytest.mark.parametrize('name', ASK)
def test_rules_that_ask_again(name, shape, dtype):
    "The model is asked in its own type."
    check(RULES[name].make(), shape, dtype)


OWN = dict(
    squares=lambda u, c, s, look: u + s*(c - u)*((u*u).flatten(1).sum(1)/(c*c).flatten(1).sum(1))[:, None, None, None],
    level=lambda u, c, s, look: c + (s - 1)*(c - u)*(look.x**2).mean()/(1 + torch.as_tensor(look.sigma)**4).sum(),
    memory=lambda u, c, s, look: look.memory.setdefault('all', (c*c).sum()*0 + u + s*(c - u)),
    asked=lambda u, c, s, look: u + s*(look.strong(look.x, look.sigma, look.y) - look.weak(look.x, look.sigma, look.y)))


@of_half
@pytest.mark.parametrize('name', OWN)
def test_a_rule_of_ones_own(name, dtype):
    for space in ('x0', 'score'): check(Rule(OWN[name], space), (4, 64, 64), dtype)


@of_half
def test_what_a_rule_sees(dtype):
    "All that it may compute with is float32, and so is what it keeps; a model is asked in its own type."
    asked, seen = [], []
    def net(x, sigma, y):
        asked.append(x.dtype)
        return (.5*x).to(dtype)
    def look_at(u, c, s, look):
        seen.extend([u, c, s, look.x, look.sigma, look.strong(look.x, look.sigma, look.y), look.weak(look.x, look.sigma, look.y)])
        return c
    x, sigma = torch.randn(2, 3, generator=rng(0)).to(dtype), torch.tensor([.5, 300.]).to(dtype)
    scale = torch.tensor([2., 7.3], dtype=torch.float64)
    got = apply(Rule(look_at), net(x, sigma, Y), net(x, sigma, Y), scale, Look(x, sigma, Y, {}, net, net))
    assert got.dtype == dtype and set(asked) == {dtype} and {o.dtype for o in seen} == {torch.float32}


@pytest.mark.parametrize('name', TELL)
def test_single_precision_is_left_alone(name):
    "Nothing is cast: `apply` is the bare formula, to the bit."
    for dtype in (torch.float32, torch.float64):
        u, c, x = torch.randn(3, 2, 1, 8, 8, generator=rng(2), dtype=dtype)
        rule, sigma = RULES[name].make(), torch.tensor([.5, 4.], dtype=dtype)
        into, back = FROM_X0[rule.space], TO_X0[rule.space]
        bare = back(rule.combine(into(u, x, sigma), into(c, x, sigma), 3., Look(x, sigma, Y[:2], {}, None, None)), x, sigma)
        assert torch.equal(apply(rule, u, c, 3., Look(x, sigma, Y[:2], {}, None, None)), bare)


@of_half
def test_diagnostics(dtype):
    u, c = (30*torch.randn(2, 4, 64, 64, generator=rng(k)).to(dtype) for k in (0, 1))
    got, want = (diagnose(*(o.to(t) for o in (u, c, (u + 3*(c - u)))))for t in (dtype, torch.float64))
    for k in want: assert got[k].isfinite().all() and (got[k] - want[k]).abs().max() <= 1e-4*want[k].abs().max(), k


@of_half
def test_branches_of_several_labels(dtype):
    "Projections, and weights of both signs, of pictures whose squares overflow."
    net = in_type(dtype)
    x, y = (30*torch.randn(2, 4, 64, 64, generator=rng(3))).to(dtype), torch.tensor([1, 3])
    def loud(x, sigma, y): return 40*net(x, sigma, y)
    loud.classes = 10
    made = {name: make_method(STRONG, name, loud, **OPTIONS[name]) for name in ('and', 'not', 'perp_neg')}
    made['terms'] = guide(loud, scale=4., more=[Term(Label(2), -1.5), Term(Label(4), -.5)])
    for name, denoise in made.items():
        got, want = denoise(x, .7, y), denoise(x.double(), .7, y)
        assert got.dtype == dtype and (got.double() - want).abs().max() <= ROUNDINGS*torch.finfo(dtype).eps*want.abs().max(), name


# Denoisers of any type

@of_type
@pytest.mark.parametrize('sampler', SAMPLERS)
def test_sampling_in_any_type(sampler, dtype):
    "Noise and steps in float32, the network in the type of its weights."
    model, seen = copy.deepcopy(MODEL).to(dtype), set()
    model.net.register_forward_pre_hook(lambda net, args: seen.add(args[0].dtype))
    got, want = (sample(m, Y, SHAPE, sampler, steps=5, seed=2) for m in (model, MODEL))
    assert got.dtype == torch.float32 and seen == {dtype}
    assert (got - want).abs().max() <= max(32*torch.finfo(dtype).eps, 1e-5)
    assert dtype != torch.float32 or torch.equal(got, want)


@of_half
@pytest.mark.parametrize('name', [*RULES, *WEAK, *STRONG])
def test_guidance_in_half(name, dtype):
    "Every rule and branch, with Heun, which looks twice; apg magnifies the network's own roundings, the mask of sag has an edge. One that jumps may do so in few samples."
    def made(model):
        if name in RULES: return guide(model, scale=2., rule=RULES[name].make())
        options = dict(model=model) if name == 'autoguidance' else OPTIONS.get(name, {})
        branch = make_method(WEAK | STRONG, name, model, **options)
        return guide(model, scale=2., weak=branch) if name in WEAK else guide(branch, scale=2.)
    got, want = (sample(made(m), Y, SHAPE, steps=5, seed=2) for m in (copy.deepcopy(MODEL).to(dtype), MODEL))
    gap = (got - want).abs()/torch.finfo(dtype).eps
    assert got.dtype == torch.float32 and got.isfinite().all()
    assert gap.median() <= 16
    assert name in JUMP or gap.max() <= dict(apg=256, sag=256).get(name, 64)


@of_type
@pytest.mark.parametrize('precond', PRECONDS)
@pytest.mark.parametrize('asked', TYPES, ids=lambda d: str(d)[6:])
def test_types_of_samples_and_weights(asked, precond, dtype):
    "The prediction has the type of the samples, for every preconditioning and from the lowest noise level to the highest."
    model = Denoiser(MODEL.net, precond, MODEL.sigma_data)
    other = copy.deepcopy(model).to(dtype)
    exact = copy.deepcopy(model).double()
    y = torch.arange(3)
    sigma = torch.tensor([.002, 1., 80.])
    x = (1 + sigma[:, None, None, None]*torch.randn(3, *SHAPE, generator=rng(5))).to(asked)
    got, want = other(x, sigma, y), exact(x.double(), sigma, y)
    assert got.dtype == asked
    largest = want.abs().flatten(1).amax(1) + (80. if precond == 'eps' else 1.)
    eps = max(torch.finfo(t).eps for t in (asked, dtype, torch.float32))
    assert ((got.double() - want).abs().flatten(1).amax(1) <= 64*eps*largest).all()


def test_a_distilled_model_in_half():
    "The guidance scale is an input of the network too."
    torch.manual_seed(0)
    net = UNet(replace(MODEL.net.cfg, scaled=True))
    for k, p in enumerate(net.parameters()): p.data += .05*torch.randn(p.shape, generator=rng(k))
    told = Denoiser(net, sigma_data=MODEL.sigma_data).requires_grad_(False).eval()
    x = torch.randn(4, *SHAPE, generator=rng(6))
    for dtype in TYPES:
        for scale in (2., torch.tensor([1., 2., 3., 4.])):
            got, want = copy.deepcopy(told).to(dtype)(x, .5, Y, scale), told(x, .5, Y, scale)
            assert got.dtype == torch.float32 and (got - want).abs().max() <= max(16*torch.finfo(dtype).eps, 1e-5)*(1 + want.abs().max())


def test_training_keeps_its_own_precision():
    "Under autocast a float32 model still works in bfloat16."
    with torch.autocast('cpu', torch.bfloat16): D = MODEL(torch.ones(4, *SHAPE), 1., Y)
    off = (D - MODEL(torch.ones(4, *SHAPE), 1., Y)).abs().max()
    assert 1e-6 < off < .1


def test_one_rounding():
    "The straight line is rounded once."
    u, c = (torch.randn(2, 1, 8, 8, generator=rng(k)).half() for k in (0, 1))
    got = apply(LINEAR, u, c, 7.3, Look(u, torch.tensor(1.), Y[:2], {}, None, None))
    want = u.double() + 7.3*(c.double() - u.double())
    assert ((got.double() - want).abs() <= .51*torch.finfo(torch.half).eps*want.abs() + 1e-6).all()
