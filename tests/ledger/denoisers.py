"Chapter 13: denoisers."
import torch

from cfg_course.denoisers import PRECONDS, Denoiser, edm_coefs, eps_coefs, v_coefs
from cfg_course.scores import expand
from ledger import row


@row('eq-precond', cell='888531b5', mutant='the network is shown x itself, not c_in x', tolerance=1e-12)
def precond(t):
    "A denoiser is c_skip x + c_out F(c_in x; log(sigma)/4, y), for each preconditioning and any network F."
    sigma_data, x, y = t.number('sigma_data', .2, 2), 2*t.normal(6, 1, 3, 3), t.labels(6, 4)
    sigma, turn = (3*t.normal(6)).exp(), t.normal(3, 3)
    def F(z, c_noise, y): return (z@turn + expand(c_noise, z)).sin() + expand(y, z)
    for kind, coefs in PRECONDS.items():
        c_skip, c_out, c_in = (expand(c, x) for c in coefs(sigma, sigma_data))
        def right(z): return c_skip*x + c_out*F(z, sigma.log()/4, y)
        yield Denoiser(F, kind, sigma_data)(x, sigma, y), right(c_in*x), right(x)


@row('eq-edm', cell='4ee11bf5', mutant='widths added, not their squares; half the logarithm', tolerance=1e-12)
def edm(t):
    "EDM's four coefficients, for any sigma > 0 and root mean square sigma_d > 0 of the data; c_out is the least one."
    sigma_d = t.number('sigma_d', .1, 3)
    sigma = (2*t.normal(40)).exp()
    c_skip, c_out, c_in = edm_coefs(sigma, sigma_d)
    total, wrong = sigma**2 + sigma_d**2, (sigma + sigma_d)**2
    yield c_in, total**-.5, wrong**-.5
    yield c_skip, sigma_d**2/total, sigma_d**2/wrong
    yield c_out, sigma*sigma_d/total**.5, sigma*sigma_d/wrong**.5
    heard = []
    def F(z, c_noise, y): return heard.append(c_noise) or z
    Denoiser(F, 'edm', sigma_d)(t.normal(40, 1, 2, 2), sigma, t.labels(40, 3))
    yield heard[0], sigma.log()/4, sigma.log()/2
    def needed(c): return ((1 - c)**2*sigma_d**2 + c**2*sigma**2).sqrt()
    left, middle, right = (needed(c)**2 for c in (-1., 0., 1.))
    lowest = (left - right)/(left + right - 2*middle)/2  # of the parabola through them
    yield c_skip, lowest, sigma_d**2/wrong
    yield c_out, needed(lowest), needed(sigma_d**2/wrong)


@row('eq-eps-v', cell='faee9ab3', mutant='the sign of c_out is lost', tolerance=1e-10)
def eps_v(t):
    "The coefficients of eps and v, which give back x0 for networks that say n and alpha (n - sigma x0)."
    sigma, x0, n = (2*t.normal(40)).exp(), t.normal(40), t.normal(40)
    t.said['sigma'] = f'{sigma.min():.2g} to {sigma.max():.2g}'
    x, alpha = x0 + sigma*n, 1/(1 + sigma**2).sqrt()
    one = torch.ones_like(sigma)
    of_eps = eps_coefs, one, -sigma, n
    of_v = v_coefs, alpha**2, -alpha*sigma, alpha*(n - sigma*x0)
    for coefs, c_skip, c_out, F in (of_eps, of_v):
        yield torch.stack(coefs(sigma)), torch.stack([c_skip, c_out, alpha]), torch.stack([c_skip, -c_out, alpha])
        yield x0, coefs(sigma)[0]*x + coefs(sigma)[1]*F, coefs(sigma)[0]*x - coefs(sigma)[1]*F
