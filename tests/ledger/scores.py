"Chapter 2: scores and parameterisations."
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from cfg_course.core import NULL
from cfg_course.mixtures import Boxes, Mixture, Points, mesh
from cfg_course.scores import FROM_X0, LEVELS, SCALES, TO_X0, as_predictor, sigma_to_alpha, x_to_z, z_to_x
from cfg_course.training import Batch
from ledger import Trial, row
from ledger.mixtures import eye, gaussians, gradient, stretched


class Joint(NamedTuple):
    "Some points of the plane with noise, and all that is expected of them, by sums over a grid."
    world:Points
    sigma:float # noise level
    x:Tensor # `(N, 2)` grid
    mass:Tensor # `(N, K)` probability of a grid cell together with a point

    def expect(self,
        error, # function of an image `(2,)` and of the grid: `(N, ...)`
    )->Tensor: # mean of the squared length
        "E |error(x0, x)|^2."
        squares = [error(x0, self.x).square().sum(1) for x0 in self.world.means]
        return (torch.stack(squares, 1)*self.mass).sum()

    def D(self)->Tensor: # `(N, 2)`
        "The library's denoiser on the grid."
        return self.world(self.x, self.sigma)

    def spread(self)->Tensor: # a number
        "E Var[x0|x], from the definition."
        share = self.mass/self.mass.sum(1, keepdim=True).clamp(min=1e-300)
        mean = share@self.world.means
        return (self.mass*(self.world.means - mean[:, None]).square().sum(2)).sum()


def joint(
    t:Trial, # source of randomness
)->Joint:
    "Three to five points, not equally likely."
    sigma, K = t.number('sigma', .5, 2), t.whole('points', 3, 5)
    points, weights = 3*t.uniform(K, 2) - 1.5, .2 + t.uniform(K)
    world = Points(points, weights=weights/weights.sum())
    reach = 1.5 + 7.5*sigma
    n = int(2*reach/(sigma/6))
    x = mesh(-reach, reach, n, 2)
    off = (x[:, None] - points).square().sum(2)/(2*sigma**2)
    cell = (2*reach/(n - 1))**2/(2*torch.pi*sigma**2)
    return Joint(world, sigma, x, world.weights*(-off).exp()*cell)


def guesses(
    t:Trial, # source of randomness
)->list: # functions of `(N, 2)`
    "Functions of the noisy sample that are no denoisers."
    a, b = t.normal(2, 2), t.normal(2, 2)
    return [lambda x: x@a, lambda x: torch.sin(x@b), lambda x: 1 + x - .1*x**3]


@row('eq-forward', cell='d74f3cf0', mutant='sigma is squared', tolerance=1e-12)
def forward(t):
    "A training batch, and samples of points and of boxes, are the clean ones plus sigma times standard normal noise."
    sigma = 10**(4*t.uniform(6) - 2)
    x0, n = t.normal(6, 3, 4, 4), t.normal(6, 3, 4, 4)
    by_hand = lambda power: torch.stack([x0[i] + sigma[i]**power*n[i] for i in range(6)])
    yield Batch(x0, t.labels(6, 3), sigma, n).x, by_hand(1), by_hand(2)
    level, seed = t.number('sigma', .1, 5), t.whole('seed', 0, 10**6)
    y = torch.zeros(50, dtype=torch.long)
    for world in Points(t.normal(4, 2)), Boxes([-1., 2.], [0., 4.], labels=[0, 0]):
        draw = lambda noise: world.sample(y, noise, torch.Generator().manual_seed(seed))
        kick = torch.Generator().manual_seed(seed)
        world.pick(y, kick)
        if isinstance(world, Boxes): torch.rand(50, generator=kick, dtype=torch.float64)
        noise = torch.randn(50, world.dim, generator=kick, dtype=torch.float64)
        yield draw(level), draw(0.) + level*noise, draw(0.) + level**2*noise


@row('eq-density', cell='66384a75', mutant='the bell has the variance sigma', tolerance=1e-10)
def density(t):
    "The density of noisy images is that of clean ones times the bell, integrated over the plane."
    world, sigma = stretched(t), t.number('sigma', .3, 3)
    c, x = t.one_of('class', [NULL, 0, 1]), 2*t.normal(5, 2)
    clean = mesh(-12, 12, 240, 2)
    mass = gaussians(world, 0., c).log_prob(clean).exp()*(24/239)**2
    bell = lambda var: MultivariateNormal(torch.zeros(2).double(), var*eye(2)).log_prob(x[:, None] - clean).exp()@mass
    yield world.log_prob(x, sigma, c).exp(), bell(sigma**2), bell(sigma)


@row('eq-mmse', cell='69306963', mutant='the distance from D is subtracted', tolerance=1e-10)
def mmse(t):
    "The loss of any guess is that of the denoiser plus the guess's mean squared distance from it."
    j = joint(t)
    D = j.D()
    least = j.expect(lambda x0, x: D - x0)
    for f in guesses(t):
        distance = j.expect(lambda x0, x: f(x) - D)
        yield j.expect(lambda x0, x: f(x) - x0), least + distance, least - distance


@row('eq-two', cell='4ec05e18', mutant='x/sigma', tolerance=1e-12)
def two(t):
    "The denoiser of two equally likely points at -1 and 1."
    sigma, x = t.number('sigma', .1, 10), 3*t.normal(200, 1)
    yield Points([[-1.], [1.]])(x, sigma), torch.tanh(x/sigma**2), torch.tanh(x/sigma)


@row('eq-tweedie', cell='8f78f4a3', mutant='sigma is not squared', tolerance=1e-10)
def tweedie(t):
    "The score of any data at sigma > 0, from the mean of the clean sample given the noisy one, and from the denoiser."
    sigma, x = t.number('sigma', .1, 10), 3*t.normal(50, 3)
    world = stretched(t, dim=3)
    c = t.one_of('class', [NULL, 0, 1])
    mean = posterior_moments(world, x, sigma, c)[0]
    slope = gradient(lambda x: gaussians(world, sigma, c).log_prob(x), x)
    points = Points(2*t.normal(6, 3))
    share = (-torch.cdist(x, points.means)**2/(2*sigma**2)).softmax(1)
    log_p = lambda x: (-(x[:, None] - points.means).square().sum(2)/(2*sigma**2)).logsumexp(1)
    slope_points = gradient(log_p, x)
    for known in mean, world(x, sigma, c): yield slope, (known - x)/sigma**2, (known - x)/sigma
    for known in share@points.means, points(x, sigma): yield slope_points, (known - x)/sigma**2, (known - x)/sigma


@row('eq-dsm', cell='e563f071', mutant='the last term is divided by sigma^2', tolerance=1e-10)
def dsm(t):
    "The denoising loss of any function is its explicit loss plus the mean variance of x0 given x over sigma^4."
    j = joint(t)
    score, sigma = j.world.score(j.x, j.sigma), j.sigma
    for s in guesses(t):
        explicit = j.expect(lambda x0, x: s(x) - score)
        denoising = j.expect(lambda x0, x: s(x) - (x0 - x)/sigma**2)
        yield denoising, explicit + j.spread()/sigma**4, explicit + j.spread()/sigma**2


def posterior_moments(
    world:Mixture, # any
    x:Tensor, # `(B, d)`
    sigma:float, # noise level
    y:int, # class
)->tuple[Tensor, Tensor]: # `(B, d)`, `(B, d, d)`
    "Mean and covariance of the clean sample given the noisy one, by conditioning each Gaussian."
    own = (world.labels == y) | (y == NULL)
    C, mu, weights = world.covs()[own], world.means[own], world.weights[own]
    total = C + sigma**2*eye(world.dim)
    share = (weights.log() + MultivariateNormal(mu, total).log_prob(x[:, None])).softmax(1)
    gain = C@total.inverse()
    means = mu + torch.einsum('kde,bke->bkd', gain, x[:, None] - mu)
    mean = torch.einsum('bk,bkd->bd', share, means)
    off = means - mean[:, None]
    return mean, torch.einsum('bk,kde->bde', share, C - gain@C) + torch.einsum('bk,bkd,bke->bde', share, off, off)


def jacobian(
    f, # function of `(B, d)`, row by row
    x:Tensor, # `(B, d)`
)->Tensor: # `(B, d, d)`
    "Of each row, by automatic differentiation."
    return torch.autograd.functional.jacobian(lambda x: f(x).sum(0), x).movedim(1, 0)


def curvature(
    f, # function of `(B, d)`, a number for each row
    x:Tensor, # `(B, d)`
)->Tensor: # `(B, d, d)`
    "Second derivatives of each row, by automatic differentiation."
    full = torch.autograd.functional.hessian(lambda x: f(x).sum(), x)
    rows = torch.arange(len(x))
    return full[rows, :, rows]


@row('eq-covariance', cell='d30c2fac', mutant='the first sigma^2 of a formula is sigma', tolerance=1e-10)
def covariance(t):
    "The covariance of x0 given x, from the curvature of the log density and from the Jacobian of the denoiser."
    world, sigma = stretched(t, dim=3), t.number('sigma', .1, 10)
    c, x = t.one_of('class', [NULL, 0, 1]), 2*t.normal(8, 3)
    cov = posterior_moments(world, x, sigma, c)[1]
    curve = eye(3) + sigma**2*curvature(lambda x: world.log_prob(x, sigma, c), x)
    slope = jacobian(lambda x: world(x, sigma, c), x)
    for formula in curve, slope: yield cov, sigma**2*formula, sigma*formula


class Heat(NamedTuple):
    "A density and its derivatives at some points, all by automatic differentiation of the library's log density."
    p:Tensor # `(B,)`
    dp:Tensor # `(B,)` in sigma^2
    slope:Tensor # `(B, d)` of log p
    laplacian:Tensor # `(B,)` of p
    laplacian_log:Tensor # `(B,)` of log p


def heat_of(
    t:Trial, # source of randomness
)->tuple: # `Heat`, and what gives p and the score of samples
    "A class with full covariances at a random noise level."
    dim = t.whole('dim', 1, 3)
    world, variance = stretched(t, dim=dim), t.number('sigma^2', .05, 9)
    c, x = t.one_of('class', [NULL, 0, 1]), 2*t.normal(10, dim)
    v = torch.full((10,), variance, dtype=torch.float64, requires_grad=True)
    log_p = lambda x: world.log_prob(x, variance**.5, c)
    p = world.log_prob(x, v.sqrt(), c).exp()
    dp, = torch.autograd.grad(p.sum(), v)
    trace = lambda f: curvature(f, x).diagonal(dim1=1, dim2=2).sum(1)
    found = Heat(p.detach(), dp, gradient(log_p, x), trace(lambda x: log_p(x).exp()), trace(log_p))
    return found, x, lambda x: (log_p(x).exp(), world.score(x, variance**.5, c))


@row('eq-heat', cell='003c98b1', mutant='the factor 1/2 is lost', tolerance=1e-10)
def heat(t):
    "Densities of noisy data, and their logarithms, change with sigma^2 as the heat equation says."
    h, *_ = heat_of(t)
    yield h.dp, h.laplacian/2, h.laplacian
    right = h.laplacian_log + h.slope.square().sum(1)
    yield h.dp/h.p, right/2, right


@row('eq-reverse', cell='09f8313b', mutant='the drift has the factor (1 - kappa)/2', tolerance=1e-10)
def reverse(t):
    "For any kappa >= 0 the densities of noisy data solve the Fokker-Planck equation of the reverse process."
    kappa = t.number('kappa', .01, 10)
    h, x, seen = heat_of(t)
    def flux(x):
        p, score = seen(x)
        return p[:, None]*score
    divergence = jacobian(flux, x).diagonal(dim1=1, dim2=2).sum(1)
    moves = lambda factor: -factor*divergence + kappa/2*h.laplacian
    yield -h.dp, moves((1 + kappa)/2), moves((1 - kappa)/2)


@row('eq-kinds', cell='d6c071b1', mutant='the sign between the two terms', tolerance=1e-12)
def kinds(t):
    "What networks predict, from the denoised image and the noisy one, and the image back from each of them."
    sigma = 10**(2*t.uniform(6) - 1)
    D, x = t.normal(6, 3, 2, 2), t.normal(6, 3, 2, 2)
    s = sigma[:, None, None, None]
    alpha = 1/(1 + s**2)**.5
    def formulas(sign):
        eps = (x + sign*D)/s
        return dict(eps=eps, score=(sign*x + D)/s**2, v=alpha*((x - D)/s + sign*s*D), flow=(x - D)/s + sign*D)
    right, wrong = formulas(-1), formulas(1)
    for k in right:
        yield FROM_X0[k](D, x, sigma), right[k], wrong[k]
        yield D, TO_X0[k](right[k], x, sigma), TO_X0[k](wrong[k], x, sigma)


@row('eq-floor', cell='d40f6276', mutant='each kind has the slope of the next', tolerance=1e-10)
def floor(t):
    "The least loss of each kind of prediction is the square of its slope times the mean variance of x0 given x."
    j = joint(t)
    D, s = j.D(), j.sigma
    alpha = 1/(1 + s**2)**.5
    g = dict(x0=1, eps=-1/s, score=1/s**2, v=-1/(alpha*s), flow=-(1 + s)/s)
    names = list(g)
    for k, after in zip(names, names[1:] + names[:1]):
        best = FROM_X0[k](D, j.x, s)
        least = j.expect(lambda x0, x: FROM_X0[k](x0.expand_as(x), x, s) - best)
        yield least, g[k]**2*j.spread(), g[after]**2*j.spread()


@row('eq-levels', cell='68e3a255', mutant='1/sigma for sigma', tolerance=1e-12)
def levels(t):
    "Log signal-to-noise ratio, signal scale and flow time of a noise level."
    sigma = 10**(6*t.uniform(20) - 3)
    logsnr = -2*sigma.log()
    alpha = lambda logsnr: (1/(1 + torch.exp(-logsnr)))**.5
    yield LEVELS['logsnr'][0](sigma), logsnr, -logsnr
    yield sigma_to_alpha(sigma), alpha(logsnr), alpha(-logsnr)
    yield LEVELS['t'][0](sigma), sigma/(1 + sigma), 1/(1 + sigma)


@row('eq-coords', cell='8abf85f8', mutant='the weights of image and noise are swapped', tolerance=1e-12)
def coords(t):
    "The scaled noisy sample as a mixture of image and noise, in variance-preserving and in flow coordinates."
    sigma = 10**(4*t.uniform(6) - 2)
    x0, n = t.normal(6, 3, 2, 2), t.normal(6, 3, 2, 2)
    s = sigma[:, None, None, None]
    alpha, time = 1/(1 + s**2)**.5, s/(1 + s)
    for name, image, noise in ('vp', alpha, (1 - alpha**2)**.5), ('rf', 1 - time, time):
        z, right, wrong = x_to_z(x0 + s*n, sigma, name), image*x0 + noise*n, noise*x0 + image*n
        yield z, right, wrong
        yield x0 + s*n, z_to_x(right, sigma, name), z_to_x(wrong, sigma, name)


@row('eq-score-coords', cell='947a2570', mutant='multiplied by c', tolerance=1e-10)
def score_coords(t):
    "The score of the scaled sample z = c x is that of x over c, in any dimension."
    dim = t.whole('dim', 1, 4)
    world, sigma = stretched(t, dim=dim), t.number('sigma', .1, 10)
    x, y = 2*t.normal(20, dim), t.labels(20, world.classes)
    score = world.score(x, sigma, y)
    for name in 'vp', 'rf':
        c = SCALES[name](torch.tensor(sigma, dtype=torch.float64))
        net = as_predictor(world, 'score', name, 'sigma')
        yield net(c*x, torch.full((20,), sigma, dtype=torch.float64), y), score/c, score*c
    c = t.number('c', .1, 8)
    scaled = Mixture(c*world.means, c**2*world.covs(), world.weights, world.labels)
    log_q = lambda z: scaled.log_prob(z, c*sigma, y)
    yield gradient(log_q, c*x), score/c, score*c
    yield log_q(c*x), world.log_prob(x, sigma, y) - dim*math.log(c), world.log_prob(x, sigma, y) + dim*math.log(c)
