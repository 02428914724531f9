"Chapter 15a: objectives."
import copy

import torch
from torch import nn

from cfg_course.core import NULL
from cfg_course.denoisers import Denoiser
from cfg_course.guidance import guide
from cfg_course.networks import UNet, UNetConfig
from cfg_course.objectives import Head, Headed, contrast, contrastive, ddo_terms, imf_target, improved_meanflow, internal_guidance
from cfg_course.objectives import meanflow, meanflow_target, neon, other_rows, towards, with_slope
from cfg_course.scores import expand
from cfg_course.training import Batch
from ledger import row
from ledger.training import drawn_by, norm, setting, slopes

SMALL = UNetConfig(image_size=8, patch=2, widths=(16, 16), heads=2, emb=32)


def flow_of(D, x, sigma):
    "Velocity of a prediction, in flow time."
    sigma = expand(sigma, x)
    return (x/(1 + sigma) - D)*(1 + sigma)/sigma


@row('eq-obj-contrast', cell='a51e0002', mutant='the other pair is added, not taken away', tolerance=1e-11)
def contrast_loss(t):
    "The squared error of the velocity less lambda times that against another pair, in units of the ordinary loss."
    D, batch, c_out = setting(t)
    lam = t.number('lambda', .01, .9)
    seed = t.random.randrange(2**31)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        code = contrastive(lam)(D, batch, c_out)
        torch.manual_seed(seed)
        rows = other_rows(len(batch.y))
    pair, time = batch.n - batch.x0, expand(batch.sigma/(1 + batch.sigma), batch.x0)
    def right(sign):
        f = flow_of(D(batch.x, batch.sigma, batch.y), batch.x, batch.sigma)
        return norm(time*(f - pair), c_out) - sign*lam*norm(time*(f - pair[rows]), c_out)
    yield code, right(1), right(-1)
    yield slopes(code, D), slopes(right(1), D), slopes(right(-1), D)


@row('eq-obj-contrast-end', cell='a51e0001', mutant='s = 1 + lambda for 1/(1 - lambda)', tolerance=1e-10)
def contrast_end(t):
    "Guidance against the mean of the data, at s = 1/(1 - lambda), is where |f - c|^2 - lambda |f - m|^2 is least."
    lam, sigma = t.number('lambda', .01, .9), t.number('sigma', .1, 20)
    x, D_c, mean = t.normal(4, 1, 2, 2), t.normal(4, 1, 2, 2), t.normal(1, 2, 2)
    level = torch.full((4,), sigma, dtype=torch.float64)
    y = torch.zeros(4, dtype=torch.long)
    def at(s): return flow_of(guide(lambda x, sigma, y: D_c, scale=s, weak=contrast(mean))(x, level, y), x, level)
    f = torch.zeros_like(x, requires_grad=True)
    c, m = flow_of(D_c, x, level), -mean.expand_as(x)
    loss = ((f - c)**2 - lam*(f - m)**2).sum()
    slope, = torch.autograd.grad(loss, f)
    least = -slope/(2*(1 - lam)) # one Newton step from 0, since the loss is a parabola
    yield at(1/(1 - lam)), least, at(1 + lam)


def gaussian(t):
    "A Gaussian's flow: random places, two times, and the closed forms."
    mu, S = t.number('mean', -2, 2), t.number('spread', .2, 2)
    n = 6
    time = .1 + .8*t.uniform(n)
    early = time*(.05 + .9*t.uniform(n))
    def mean(a): return (1 - a)*mu
    def std(a): return (((1 - a)*S)**2 + a**2).sqrt()
    def moment(z, a): return -mu + (a - (1 - a)*S**2)/std(a)**2*(z - mean(a))
    def moved(z, a, b): return mean(b) + std(b)/std(a)*(z - mean(a))
    return t.normal(n), time, early, moment, moved


@row('eq-obj-average', cell='a51e0003', mutant='divided by t, not by t - r', tolerance=1e-5)
def average(t):
    "The average velocity of a Gaussian is the mean of its velocities along the path, by a sum over 4,000 moments."
    z, time, early, moment, moved = gaussian(t)
    u = (z - moved(z, time, early))/(time - early)
    share = (torch.arange(4000, dtype=torch.float64)[:, None] + .5)/4000
    between = early + share*(time - early)
    along = moment(moved(z, time, between), between).mean(0)
    yield u, along, (z - moved(z, time, early))/time


@row('eq-obj-identity', cell='a51e0003', mutant='the slope at a fixed place, without f times the gradient', tolerance=1e-8)
def identity(t):
    "u = f - (t - r) du/dt, with the slope that `with_slope` gives for a denoiser which is told how far it goes."
    z, time, early, moment, moved = gaussian(t)
    f = moment(z, time)
    def told(x, sigma, y, far):
        a = sigma/(1 + sigma)
        here = x[:, 0]/(1 + sigma)
        u = (here - moved(here, a, a - (1 - far)))/(1 - far)
        return (here - a*u)[:, None]
    u, slope = with_slope(towards(told, torch.zeros(len(z)).long()), z[:, None], time, early, f[:, None])
    _, still = with_slope(towards(told, torch.zeros(len(z)).long()), z[:, None], time, early, 0*f[:, None])
    def right(d): return f - (time - early)*d[:, 0]
    yield u[:, 0], right(slope), right(still)


class Far(nn.Module):
    "A smooth denoiser with a few weights that is told how far to go."
    def __init__(self, t, classes):
        super().__init__()
        self.weights = nn.Parameter(t.normal(classes + 1, 3))

    def forward(self, x, sigma, y, far):
        a, b, c = (expand(w, x) for w in self.weights[y].unbind(1))
        return a*(x/expand(1 + sigma, x)).tanh() + b*expand(far, x) + c


def flow_batch(t, n=6):
    "A batch with two missing labels, at one noise level, where all times are alike."
    classes = t.whole('classes', 2, 5)
    y = torch.cat([t.labels(n - 2, classes), torch.full((2,), NULL)])
    sigma = torch.full((n,), t.number('sigma', .3, 5), dtype=torch.float64)
    return Far(t, classes), Batch(t.normal(n, 1, 2, 2), y, sigma, t.normal(n, 1, 2, 2))


def velocities(model, batch):
    "The network's own, with label and without."
    told = torch.ones_like(batch.sigma)
    none = torch.full_like(batch.y, NULL)
    return (flow_of(model(batch.x, batch.sigma, y, told), batch.x, batch.sigma) for y in (batch.y, none))


def squares(error): return (error**2).flatten(1).sum(1).mean()


@row('eq-obj-meanflow', cell='a51e0004', mutant='kappa for 1 - omega - kappa', tolerance=1e-10)
def meanflow_row(t):
    "MeanFlow's target mixes the pair's velocity with the network's own two; rows without label keep the pair's."
    model, batch = flow_batch(t)
    omega, kappa = t.number('omega', .2, 3), t.number('kappa', .05, .9)
    with drawn_by(t): code = meanflow(omega, kappa, share=1., power=0.)(model, batch)
    def right(third):
        f_c, f_u = velocities(model, batch)
        pair = batch.n - batch.x0
        g = omega*pair + third*f_u.detach() + kappa*f_c.detach()
        return squares(f_c - torch.where((batch.y == NULL)[:, None, None, None], pair, g))
    yield code, right(1 - omega - kappa), right(kappa)
    yield slopes(code, model), slopes(right(1 - omega - kappa), model), slopes(right(kappa), model)


@row('eq-obj-meanflow-scale', cell='a51e0004', mutant='s = omega + kappa', tolerance=1e-10)
def meanflow_scale(t):
    "The guided velocity at s = omega/(1 - kappa) is the mean of MeanFlow's own target."
    omega, kappa, c, u = t.number('omega', .2, 3), t.number('kappa', .05, .9), t.normal(5), t.normal(5)
    def at(s): return u + s*(c - u)
    g = at(omega/(1 - kappa))
    wrong = at(omega + kappa)
    yield meanflow_target(c, g, u, omega, kappa), g, wrong


@row('eq-obj-imf', cell='a51e0004', mutant='1/omega for 1 - 1/omega', tolerance=1e-10)
def imf_row(t):
    "Improved MeanFlow's target moves the pair's velocity by a part of the network's own gap; it settles at s = omega."
    model, batch = flow_batch(t)
    omega = t.number('omega', 1.1, 8)
    with drawn_by(t): code = improved_meanflow(omega, share=1., power=0.)(model, batch)
    def right(part):
        f_c, f_u = velocities(model, batch)
        pair = batch.n - batch.x0
        return squares(f_c - (pair + part*(f_c - f_u).detach()*(batch.y != NULL)[:, None, None, None]))
    yield code, right(1 - 1/omega), right(1/omega)
    c, u = t.normal(5), t.normal(5)
    g = u + omega*(c - u)
    yield imf_target(c, g, u, omega), g, c + (g - u)/omega


@row('eq-obj-ddo', cell='a51e0006', mutant='alpha weighs the images', tolerance=1e-12)
def ddo_row(t):
    "The discriminator's loss: log-sigmoid of beta times the log ratio on images, of minus it on samples, weighed by alpha."
    alpha, beta, real, fake = t.number('alpha', 1.5, 6), t.number('beta', .05, 2), t.normal(7), t.normal(9)
    near, far = ddo_terms(real, fake, alpha, beta)
    def log_sig(a): return -(1 + (-a).exp()).log()
    def right(a, b): return -a*log_sig(beta*real).mean() - b*log_sig(-beta*fake).mean()
    yield near.mean() + far.mean(), right(1, alpha), right(alpha, 1)


@row('eq-obj-ddo-end', cell='a51e0005', mutant='s = beta for 1/beta', tolerance=1e-9)
def ddo_end(t):
    "At log p = log p_ref + (log p_data - log p_ref)/beta - log Z the loss with alpha = Z^beta has no slope."
    beta, n = t.number('beta', .2, .8), t.whole('outcomes', 3, 6)
    p_data, p_ref = (t.normal(n).softmax(0) for _ in range(2))
    def slope(s):
        log_p = (p_ref.log() + s*(p_data.log() - p_ref.log())).log_softmax(0)
        Z = (p_ref**(1 - 1/beta)*p_data**(1/beta)).sum()
        ratio = (log_p - p_ref.log()).requires_grad_()
        near, far = ddo_terms(ratio, ratio, (Z**beta).item(), beta)
        g, = torch.autograd.grad((p_data*near + p_ref*far).sum(), ratio)
        return g
    yield slope(1/beta), torch.zeros(n, dtype=torch.float64), slope(beta)


def copies(t):
    "A small network, and one beside it."
    with drawn_by(t):
        model = Denoiser(UNet(SMALL), sigma_data=.6).double().eval()
        for p in model.parameters(): p.data += .1*torch.randn_like(p)
    worse = copy.deepcopy(model)
    for p in worse.parameters(): p.data += .02*t.normal(*p.shape)
    return model, worse


@row('eq-obj-sims', cell='a51e0007', mutant='s = w for 1 + w', tolerance=1e-12)
def sims_row(t):
    "Guidance by the worse model at s = 1 + w is (1 + w) times the model less w times the worse one."
    model, worse = copies(t)
    w, x, y = t.number('w', .3, 2), t.normal(4, 1, 8, 8), t.labels(4, 10)
    sigma = t.number('sigma', .1, 3)
    with torch.no_grad():
        D_r, D_s = model(x, sigma, y), worse(x, sigma, y)
        yield guide(model, scale=1 + w, weak=worse)(x, sigma, y), (1 + w)*D_r - w*D_s, w*D_r + (1 - w)*D_s


@row('eq-obj-neon', cell='a51e0007', mutant='w for 1 + w', tolerance=1e-12)
def neon_row(t):
    "Neon's weights are (1 + w) theta_r - w theta_s, each of them."
    model, worse = copies(t)
    w = t.number('w', .3, 2)
    new = neon(model, worse, w)
    def flat(m): return torch.cat([p.detach().flatten() for p in m.parameters()])
    yield flat(new), (1 + w)*flat(model) - w*flat(worse), w*flat(model) - w*flat(worse)


@row('eq-obj-internal', cell='a51e0008', mutant='the middle is guided by the end', tolerance=1e-12)
def internal_row(t):
    "Internal guidance is D_mid + s (D_end - D_mid), both of one network."
    model, _ = copies(t)
    head = Head(model.net).double()
    for p in head.parameters(): p.data = .1*t.normal(*p.shape)
    headed = Headed(model, head)
    s, sigma, x, y = t.number('scale', 1.1, 3), t.number('sigma', .1, 3), t.normal(4, 1, 8, 8), t.labels(4, 10)
    with torch.no_grad():
        D, D_mid = model(x, sigma, y), headed.middle(x, sigma, y)
        yield internal_guidance(headed, s)(x, sigma, y), D_mid + s*(D - D_mid), D + s*(D_mid - D)
