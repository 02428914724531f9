"Chapter 18b: particles."
import math

import torch
from torch.autograd import grad

from cfg_course.guidance import guide
from cfg_course.core import NULL, Run
from cfg_course.particles import Place, Seen, ask_both, balance, best_of_n, growth, log_odds, repulsion, reverse_step
from cfg_course.particles import superdiff, tds, uphill, weigh_reward, weighed_step
from cfg_course.samplers import ddim_step
from ledger import row
from ledger.procedures import before_a_step, both


@row('eq-proc-reverse', cell='7e30d752', mutant="the noise of Euler's step", tolerance=1e-12)
def reverse(t):
    "A random step with the guided prediction D, for a next level above 0."
    (world, now), s = before_a_step(t), t.number('s', -3, 9)
    D_u, D_c = both(world, now.x, now.sigma, now.y)
    D, r = D_u + s*(D_c - D_u), now.sigma_next/now.sigma
    formula = lambda size: D + r**2*(now.x - D) + size*now.noise()
    euler = (now.sigma**2 - now.sigma_next**2)**.5
    yield reverse_step(guide(world, scale=s), now).x, formula(now.sigma_next*(1 - r**2)**.5), formula(euler)


@row('eq-proc-fkc', cell='b7d2a3f0', mutant='s - 1 for s (s - 1)/2; the gradient of q is left out', tolerance=1e-9)
def fkc(t):
    "The log-weight of a step, at any scale: what q = p_c^s p_u^(1-s) lacks of solving the heat equation."
    (world, now), s = before_a_step(t), t.number('s', -4, 6)
    D_u, D_c = both(world, now.x, now.sigma, now.y)
    time, squares = now.sigma**2 - now.sigma_next**2, ((D_c - D_u)**2).sum(1)/now.sigma**4
    _, gain = weighed_step(world, now, s)
    yield gain, s*(s - 1)/2*squares*time, (s - 1)*squares*time
    x = now.x.clone().requires_grad_()
    variance = torch.full_like(x[:, :1], now.sigma**2).requires_grad_()
    log_q = s*world.log_prob(x, variance[:, 0]**.5, now.y) + (1 - s)*world.log_prob(x, variance[:, 0]**.5)
    slope, rate = grad(log_q.sum(), (x, variance), create_graph=True)
    laplacian = sum(grad(slope[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(3))
    yield gain, ((laplacian + (slope**2).sum(1))/2 - rate[:, 0])*time, (laplacian/2 - rate[:, 0])*time


@row('eq-proc-odds', cell='5e18b006', mutant='the two are exchanged', tolerance=1e-9)
def odds(t):
    "The ratio of the model's transition to the proposal's, both Gaussians of one variance."
    world, now = before_a_step(t)
    base = world(now.x, now.sigma)
    D = base + t.normal(20, 3)
    x, keep = reverse_step(lambda *_: D, now).x, (now.sigma_next/now.sigma)**2
    width = now.sigma_next*(1 - keep)**.5
    def log_step(D): return torch.distributions.Normal(D + keep*(now.x - D), width).log_prob(x).sum(1)
    yield log_odds(now, Seen(D, base, None, {}), x), log_step(base) - log_step(D), log_step(D) - log_step(base)


@row('eq-proc-fk', cell='5e18b00d', mutant='the last takes nothing back', tolerance=1e-10)
def potentials(t):
    "The potentials of a path: the largest reward so far, their sum or their difference; the last takes back what was spent."
    lam, n, r = t.number('lambda', .1, 10), t.whole('steps', 3, 9), t.normal(9, 6)
    forms = dict(max=lambda i: r[:i + 1].amax(0), sum=lambda i: r[:i + 1].sum(0), difference=lambda i: r[i] - (r[i - 1] if i else 0))
    for potential, log_G in forms.items():
        kept, spent = {}, 0.
        for i in range(n):
            seen = weigh_reward(Seen(r, r, None, kept), r[i], lam, potential, Place(i, n))
            kept, last = seen.kept, i + 1 == n
            right = lam*r[i] - spent if last else lam*log_G(i)
            if potential != 'difference' or not last: yield seen.gain, right, lam*r[i] if last else right + 1
            spent = spent + right


@row('eq-proc-tds', cell='5e18b011', mutant='sigma for its square; the change of the reward is left out', tolerance=1e-9)
def twisted(t):
    "The proposal moves by the gradient of the reward through the denoiser; the weight of the next question takes it back."
    world, now = before_a_step(t)
    def reward(x0_hat, sigma, y): return -((x0_hat - 1)**2).sum(1)/2
    D_0, r, g = uphill(world, reward, now)
    x = now.x.clone().requires_grad_()
    slope, = grad(reward(world(x, now.sigma), now.sigma, now.y).sum(), x)
    n = now.noise()
    levels = [now.sigma, now.sigma_next, .5*now.sigma_next]
    first = next(tds(reward=reward, particles=1, threshold=0.)(world, now.x, levels, now.y, noise=lambda: n, run=Run(range(20)))).x
    keep = (now.sigma_next/now.sigma)**2
    def landed(power):
        D = D_0 + now.sigma**power*slope
        return D + keep*(now.x - D) + now.sigma_next*(1 - keep)**.5*n
    yield first, landed(2), landed(1)
    moved = Seen(D_0 + now.sigma**2*g, D_0, None, {})
    later = uphill(world, reward, now._replace(x=first, sigma=now.sigma_next))[1]
    width = now.sigma_next*(1 - keep)**.5
    def log_step(D): return torch.distributions.Normal(D + keep*(now.x - D), width).log_prob(first).sum(1)
    weight = later - r + log_odds(now, moved, first)
    ratio = log_step(D_0) - log_step(moved.D)
    yield weight, ratio + reward(world(first, now.sigma_next), 0., now.y) - reward(D_0, 0., now.y), ratio


@row('eq-proc-best', cell='5e18b014', mutant='F to the power N - 1', samples=40_000, tolerance=.01)
def best(t):
    "The reward of the best of N has the distribution function F^N, here that of a normal coordinate."
    N, at, n = t.whole('N', 2, 4), t.number('value', .3, .9), 40_000
    point = lambda x, sigma, y: torch.zeros_like(x)
    def noise(): return t.normal(n, 1)
    def reward(x, sigma, y): return x[:, 0]
    *_, last = best_of_n(reward=reward, particles=N)(point, noise(), [1., .999999], torch.zeros(n, dtype=torch.long), step=ddim_step, noise=noise)
    F = torch.special.ndtr(torch.tensor(at, dtype=torch.float64))
    yield (last.x[:, 0] <= at).double().mean()[None], F[None]**N, F[None]**(N - 1)


@row('eq-proc-apart', cell='5e18b018', mutant='ln n for ln(n - 1); the sign', tolerance=1e-11)
def apart(t):
    "Each sample is pushed away from the others by the gradient of a kernel as wide as the distances are."
    n, x = t.whole('n', 3, 9), None
    x = 2*t.normal(n, 3)
    gaps = x[:, None] - x[None]
    lengths = gaps.norm(dim=2)
    def formula(log):
        rows = []
        for i in range(n):
            rest = [j for j in range(n) if j != i]
            h = lengths[i, rest].median()**2/log
            rows.append(sum(2/h*(-lengths[i, j]**2/h).exp()*gaps[i, j] for j in rest))
        return torch.stack(rows)
    yield repulsion(x), formula(math.log(n - 1)), formula(math.log(n))
    yield repulsion(x), formula(math.log(n - 1)), -formula(math.log(n - 1))


@row('eq-proc-ito', cell='5e18b01d', mutant='the squared score is not halved', tolerance=.1)
def ito(t):
    "Summed over a path of many short steps, the increments are the growth of the log density."
    world, now = before_a_step(t, low=.6)
    levels, x, total, wrong = torch.linspace(now.sigma, now.sigma_next, 4001).tolist(), now.x, 0., 0.
    for a, b in zip(levels, levels[1:]):
        here = now._replace(x=x, sigma=a, sigma_next=b, noise=lambda: t.normal(20, 3))
        D, after = world(x, a, now.y), reverse_step(world, here).x
        total, wrong = total + growth(D, here, after), wrong + growth(D, here, after) - (a**2 - b**2)/2*((D - x)**2).sum(1)/a**4
        x = after
    yield total, world.log_prob(x, levels[-1], now.y) - world.log_prob(now.x, levels[0], now.y), wrong


@row('eq-proc-super', cell='5e18b01d', mutant='own and other label exchanged; the temperature divides', tolerance=1e-10)
def superposition(t):
    "Two labels mixed by the densities that a sample has under them, here in the second step, after the first has told them apart."
    world, now = before_a_step(t)
    s, T, n = t.number('s', .5, 4), t.number('T', 1.5, 4), now.noise()
    other, last = 0, .5*now.sigma_next
    first, second = superdiff(label=other, scale=s, temperature=T)(world, now.x, [now.sigma, now.sigma_next, last], now.y, noise=lambda: n)
    D_u, D_a, D_b = ask_both(world, now, other, 2.)
    logs = [growth(D, now, first.x) for D in (D_a, D_b)]
    D_u, D_a, D_b = (world(first.x, now.sigma_next, label) for label in (NULL, now.y, torch.full_like(now.y, other)))
    def formula(share): return D_u + s*(D_b - D_u + share[:, None]*(D_a - D_b))
    kappa = (T*(logs[0] - logs[1])).sigmoid()
    right = formula(kappa)
    tried = (now.y != other)
    yield second.x0_hat[tried], right[tried], formula(1 - kappa)[tried]
    yield second.x0_hat[tried], right[tried], formula(((logs[0] - logs[1])/T).sigmoid())[tried]


@row('eq-proc-and', cell='5e18b01d', mutant='the noise is left out', tolerance=1e-9)
def equal_growth(t):
    "The share with which both densities grow equally in the step to come."
    world, now = before_a_step(t)
    s, room = t.number('s', .5, 4), 1 - (now.sigma_next/now.sigma)**2
    kick = now.sigma_next*room**.5*now.noise()
    now = now._replace(y=torch.ones_like(now.y))
    D_u, D_a, D_b = ask_both(world, now, 0, 2.)
    e = D_a - D_b
    def formula(kick): return ((e*((D_a + D_b)/2 - D_u - s*(D_b - D_u) - kick/room)).sum(1)/(s*(e*e).sum(1)))
    yield balance(D_u, D_a, D_b, kick, room, s), formula(kick), formula(0*kick)
    step = next(superdiff(label=0, form='and', scale=s)(world, now.x, [now.sigma, now.sigma_next], now.y, noise=now.noise))
    gap = growth(D_a, now, step.x) - growth(D_b, now, step.x)
    yield gap, 0*gap, 0*gap + 1
