"Chapter 5b: a guided denoiser is nobody's posterior mean."
import torch

from cfg_course.core import NULL
from cfg_course.guidance import guide
from cfg_course.means import implied_variance, jacobian, largest_scale, mean_test, pearson_gap
from cfg_course.mixtures import Mixture, Pair, Points
from ledger import row


def recalled(world, x, sigma, y):
    "Covariance of clean samples given noisy ones: within the parts and between them."
    own = world.of(y)
    covs = own.covs()
    gain = covs@torch.linalg.inv(covs + sigma**2*torch.eye(world.dim, dtype=torch.float64))
    logs, _ = own.blurred(x, sigma)
    share = (logs + own.weights.log()).softmax(1)
    means = own.means + torch.einsum('kde,bke->bkd', gain, x[:, None] - own.means)
    off = means - torch.einsum('bk,bkd->bd', share, means)[:, None]
    return torch.einsum('bk,kde->bde', share, covs - gain@covs) + torch.einsum('bk,bkd,bke->bde', share, off, off)


def labels(x): return torch.zeros(len(x), dtype=torch.long)


@row('eq-means-jacobian', cell='9bac9200', mutant='s + 1 for s - 1', tolerance=1e-10)
def difference(t):
    "The Jacobian of a guided denoiser is s Cov_c - (s - 1) Cov_u over tau, for every real s, in any dimension."
    world, s, sigma = t.world(t.whole('dimensions', 1, 4)), t.number('s', -3, 6), t.number('sigma', .3, 2)
    x = 2*t.normal(12, world.dim)
    of_c, of_u = recalled(world, x, sigma, 0), recalled(world, x, sigma, NULL)
    tau = sigma**2
    yield jacobian(guide(world, scale=s), x, sigma, labels(x)), (s*of_c - (s - 1)*of_u)/tau, (s*of_c - (s + 1)*of_u)/tau


@row('eq-means-where', cell='4f9b7087', mutant='1/rho for 1/(1 - rho)', tolerance=1e-8)
def threshold(t):
    "At the scale 1/(1 - rho) the smallest eigenvalue of the guided Jacobian is 0, and on either side it has the other sign."
    world, sigma = t.world(t.whole('dimensions', 1, 3), 1), t.number('sigma', .4, 1.5)
    x = world.means.mean(0, keepdim=True) + .5*t.normal(40, world.dim)
    of_c, of_u = recalled(world, x, sigma, 0), recalled(world, x, sigma, NULL)
    rho = torch.linalg.eigvals(torch.linalg.solve(of_u, of_c)).real.amin(1)
    keep = (rho > .01) & (rho < .9)
    x, rho, found = x[keep], rho[keep], largest_scale(world, x[keep], sigma)
    yield found, 1/(1 - rho), 1/rho
    for factor, sign in ((.98, 1.), (1.02, -1.)):
        lowest = [mean_test(guide(world, scale=factor*s.item()), p[None], sigma, labels(p[None])).lowest for s, p in zip(found[:6], x)]
        yield torch.cat(lowest).sign(), torch.full((len(lowest),), sign), torch.full((len(lowest),), -sign)


@row('eq-means-variance', cell='5f701d7a', mutant='without minus tau', tolerance=1e-10)
def gaussian(t):
    "Between Gaussians the guided denoiser is that of a Gaussian with v(tau), wherever the guided density can be normalised."
    v_c, v_u = t.number('v_c', .3, 1), t.number('v_u', 1, 3)
    s, sigma = t.number('s', -.2, 5), t.number('sigma', .1, 3)
    pair, x = Pair(Mixture([[1.]], v_c), Mixture([[0.]], v_u)), t.normal(3, 1)
    slope = jacobian(guide(pair, scale=s), x, sigma, labels(x))[0, 0, 0].item()
    tau = sigma**2
    P = s/(v_c + tau) + (1 - s)/(v_u + tau)
    right, wrong = 1/P - tau, 1/P
    yield implied_variance(v_c, v_u, s, sigma), right, wrong
    yield slope, right/(right + tau), wrong/(wrong + tau)


@row('eq-means-pearson', cell='10af0c36', mutant='no third moment; s for s - 1', tolerance=1e-8)
def pearson(t):
    "The left side of Pearson's inequality is the Gram determinant of 1, z and z^2, which no law makes negative."
    world, sigma = Points(2*t.normal(5, 1)), t.number('sigma', .6, 2)
    x = t.normal(9, 1)
    shares = (-(x - world.means.T)**2/(2*sigma**2)).softmax(1)
    off = world.means[:, 0] - shares@world.means
    m2, m3, m4 = ((shares*off**n).sum(1) for n in (2, 3, 4))
    yield pearson_gap(world, x, sigma, labels(x)), m2*m4 - m3**2 - m2**3, m2*m4 - m2**3
    s, pair = t.number('s', .1, 3), Pair(Points([[-1.], [1.]]), Points([[0.]]))
    found = pearson_gap(guide(pair, scale=s), torch.zeros(1, 1, dtype=torch.float64), sigma, labels(x[:1]))
    yield found.item(), 2*s**2*(s - 1), 2*s**2*s


@row('eq-means-stein', cell='ee0c4248', mutant='one tau for two', tolerance=1e-8)
def stein(t):
    "Stein's identity for a guided denoiser of noisy samples of a class, by quadrature, for every real s."
    world, s, sigma = t.world(1), t.number('s', -1, 4), t.number('sigma', .5, 1.5)
    x = torch.linspace(-16, 16, 6401, dtype=torch.float64)[:, None]
    f, J = guide(world, scale=s)(x, sigma, labels(x))[:, 0], jacobian(guide(world, scale=s), x, sigma, labels(x))[:, 0, 0]
    p = world.log_prob(x, sigma, 0).exp()*.005
    error = p@((world(x, sigma, 0)[:, 0] - f)**2 + recalled(world, x, sigma, 0)[:, 0, 0])
    tau, square = sigma**2, p@(f - x[:, 0])**2
    yield error, square + 2*tau*p@J - tau, square + tau*p@J - tau
