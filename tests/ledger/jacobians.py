"Chapter 18d: Jacobians of the catalogue."
import torch
from torch.autograd import grad

from cfg_course.core import NULL
from cfg_course.guidance import guide, make_method
from cfg_course.means import jacobian, mean_test
from cfg_course.mixtures import Mixture
from cfg_course.rules import RULES
from ledger import row
from ledger.means import labels, recalled


@row('eq-jac-twist', cell='ac81d012', mutant='the angle between the two vectors is forgotten', tolerance=1e-8)
def twist(t):
    "The antisymmetric part of a rule whose strength is read off the sample, from the slope of that strength, in any dimension."
    world, s, sigma = t.world(t.whole('dimensions', 2, 4), 1), t.number('s', 1.5, 5), t.number('sigma', .4, 1.5)
    x = (1.5*t.normal(20, world.dim)).requires_grad_()
    c, u = world(x, sigma, 0), world(x, sigma, NULL)
    for name, space in ('power', 'eps'), ('mambo_g', 'flow'):
        rule = make_method(RULES, name)
        assert rule.space == space
        guided = guide(world, scale=s, rule=rule)
        a = ((guided(x, sigma, labels(x)) - c)*(c - u)).sum(1)/(c - u).square().sum(1)
        slope, = grad(a.sum(), x, retain_graph=True)
        d, whole = c - u, (c - u).square().sum(1)*slope.square().sum(1)
        right = ((whole - (d*slope).sum(1)**2).clamp(min=0)/2).sqrt()
        yield mean_test(guided, x.detach(), sigma, labels(x)).twist, right, (whole/2).sqrt()


@row('eq-jac-weak', cell='ac81d022', mutant='the clock of the strong branch for both', tolerance=1e-10)
def any_weak_branch(t):
    "The Jacobian of one posterior mean guided against that of another law at another noise level."
    world, other = t.world(t.whole('dimensions', 1, 3)), t.number('sigma_w', 1.6, 3)
    s, sigma, x = t.number('s', 1, 6), t.number('sigma', .3, 1.5), 2*t.normal(12, world.dim)
    weak = Mixture(2*t.normal(3, world.dim), .2 + t.uniform(3))
    def denoise(x, v, y): return s*world(x, v, 0) - (s - 1)*weak(x, other)
    strong, wide = recalled(world, x, sigma, 0), recalled(weak, x, other, NULL)
    yield jacobian(denoise, x, sigma, labels(x)), s*strong/sigma**2 - (s - 1)*wide/other**2, (s*strong - (s - 1)*wide)/sigma**2


@row('eq-jac-auto', cell='ac81d021', mutant='v for v + b beside the noise', tolerance=1e-8)
def blurred_class(t):
    "At that clock a bell guided against its blurred model has no slope; it has one on either side, of the right sign."
    v, b, more = t.number('v', .2, 2), t.number('b', .1, 2), t.number('s over its limit', 1.1, 4)
    s, x = more*(1 + v/b), t.normal(5, 1)
    strong, weak = Mixture([[.4]], v), Mixture([[-.2]], v + b)
    def slope(tau): return jacobian(lambda x, sigma, y: s*strong(x, sigma) - (s - 1)*weak(x, sigma), x, tau**.5, labels(x))[:, 0, 0]
    edge = v*(v + b)/((s - 1)*(v + b) - s*v)
    wrong = v*(v + b)/((s - 1)*v + s*v)
    yield slope(edge), torch.zeros(5), slope(edge) - slope(wrong)
    for factor, sign in ((.9, 1.), (1.1, -1.)):
        yield slope(factor*edge).sign(), torch.full((5,), sign), torch.full((5,), -sign)
