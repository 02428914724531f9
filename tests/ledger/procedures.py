"Chapter 18: procedures."
import math

import torch
from torch import Tensor
from torch.autograd import grad

from cfg_course.core import NULL
from cfg_course.laws import Gauss, ode_map
from cfg_course.mixtures import Mixture, Pair, mesh, tilt_on, transport
from cfg_course.procedures import cfg_mp_step, cfgig, cfgpp_ancestral_step, cfgpp_ddim_step, cfgpp_dpmpp_step, delay, half_steps
from cfg_course.procedures import langevin_time, pcg_step, restart, rrr, w2sd
from cfg_course.procedures import rectified_step, zsampling_step
from cfg_course.samplers import Now, Step
from ledger import Trial, row


def before_a_step(
    t:Trial, # source of randomness
    n:int=20, # samples
    low:float=.1, # least ratio of the two noise levels
)->tuple[Mixture, Now]: # a world in three dimensions; where a sampler is, with one draw of noise
    "What a step is tried on."
    world = t.world(3)
    sigma, noise = t.number('sigma', .2, 4), t.normal(n, 3)
    later = sigma*t.number('r', low, .95)
    return world, Now(2*t.normal(n, 3), sigma, later, t.labels(n, world.classes), lambda: noise)


def both(
    world:Mixture, # any
    x:Tensor, # samples
    sigma:float, # noise level
    y:Tensor, # labels
)->tuple[Tensor, Tensor]: # D_u, D_c
    "The two predictions, one by one."
    return world(x, sigma, NULL), world(x, sigma, y)


@row('eq-proc-cfgpp', cell='019a880c', mutant='the noise that the mixture saw is put back', tolerance=1e-12)
def cfgpp(t):
    "CFG++ for DDIM, the ancestral sampler and DPM-Solver++(2M): they put back the noise that D_u saw."
    world, now = before_a_step(t)
    lam, higher, D_before = t.number('lambda', .1, 1), now.sigma*t.number('sigma_-/sigma', 1.1, 3), t.normal(20, 3)
    x, r, n = now.x, now.sigma_next/now.sigma, now.noise()
    D_u, D_c = both(world, x, now.sigma, now.y)
    D, h, h_before = D_u + lam*(D_c - D_u), -math.log(r), math.log(higher/now.sigma)
    ddim = lambda D_u: D + r*(x - D_u)
    ancestral = lambda D_u: D + r**2*(x - D_u) + now.sigma_next*(1 - r**2)**.5*n
    two_steps = lambda D_u: D + r*(x - D_u) + (1 - r)/2*h/h_before*(D - D_before)
    yield cfgpp_ddim_step(world, now, lam).x, ddim(D_u), ddim(D)
    yield cfgpp_ancestral_step(world, now, lam).x, ancestral(D_u), ancestral(D)
    prev = Step(x, D_before, higher, now.sigma)
    second = cfgpp_dpmpp_step(world, now._replace(prev=prev), lam)
    yield second.x, two_steps(D_u), two_steps(D)
    yield second.x0_hat, D_u, D


@row('eq-proc-ascent', cell='a6c1f2e0', mutant='sigma for its square', tolerance=1e-10)
def ascent(t):
    "A step of CFG++ is a step up the log posterior of the class, and a step of the unconditional sampler."
    world, now = before_a_step(t)
    lam, at = t.number('lambda', .1, 1), now.x.clone().requires_grad_()
    log_posterior = world.posterior(at, now.sigma).log().gather(1, now.y[:, None])
    slope, D_u = grad(log_posterior.sum(), at)[0], world(now.x, now.sigma)
    formula = lambda power: now.x + lam*now.sigma**power*slope + (1 - now.sigma_next/now.sigma)*(D_u - now.x)
    yield cfgpp_ddim_step(world, now, lam).x, formula(2), formula(1)


@row('eq-proc-rectified', cell='40c401a1', mutant='t for 1 - t; branches compared at the old time', tolerance=1e-11)
def rectified(t):
    "A conditional step in flow coordinates, its guidance asked for after the fraction a of it; also a last step, to 0."
    world, now = before_a_step(t)
    s, a, gamma = t.number('s', -3, 9), t.number('a', .1, .95), t.number('gamma', .2, 3)
    def f(z, time, label): return (z - world(z/(1 - time), time/(1 - time), label))/time
    for end in (now.sigma_next, 0.):
        begin, step = now.sigma/(1 + now.sigma), end/(1 + end) - now.sigma/(1 + now.sigma)
        z = (1 - begin)*now.x
        def formula(weight, asked):
            f_c = f(z, begin, now.y)
            ahead = z + a*step*f_c
            push = f(ahead, asked, now.y) - f(ahead, asked, NULL)
            return (z + step*(f_c + (s - 1)*weight**gamma*push))/(1 - begin - step)
        middle = begin + a*step
        got = rectified_step(world, now._replace(sigma_next=end), scale=s, power=gamma, ahead=a).x
        yield got, formula(1 - begin, middle), formula(begin, middle)
        yield got, formula(1 - begin, middle), formula(1 - begin, begin)


@row('eq-proc-pcg', cell='6b7d16ed', mutant='the exponent s; the noise of the other formula', tolerance=1e-11)
def pcg(t):
    "A conditional step, then K steps of Langevin dynamics with the prediction held, for a next level above 0."
    world, now = before_a_step(t, low=.35)
    s, K = t.number('s', -1, 4), t.whole('K', 1, 3)
    draws, eps, r = t.normal(K, 20, 3), now.sigma**2 - now.sigma_next**2, now.sigma_next/now.sigma
    def formula(exponent, size):
        D_c = world(now.x, now.sigma, now.y)
        x = D_c + r*(now.x - D_c)
        for n in draws:
            D_u, D_c = both(world, x, now.sigma_next, now.y)
            D = D_u + exponent*(D_c - D_u)
            x = D + math.exp(-eps/(2*now.sigma_next**2))*(x - D) + size*n
        return x
    noise = iter(draws)
    got = pcg_step(world, now._replace(noise=lambda: next(noise)), scale=s, repeats=K).x
    size = now.sigma_next*(1 - math.exp(-eps/now.sigma_next**2))**.5
    yield got, formula(2*s - 1, size), formula(s, size)
    yield got, formula(2*s - 1, size), formula(2*s - 1, now.sigma_next*(1 - math.exp(-eps/(2*now.sigma_next**2)))**.5)


@row('eq-proc-zigzag', cell='89fbe953', mutant='s + K s', tolerance=1e-7)
def zigzag(t):
    "What of a short step of Z-sampling is proportional to its length is a step with the scale s + K (s - s_up)."
    world, now = before_a_step(t)
    s, up, K = t.number('s', -1, 6), t.number('s_up', .3, 2), t.whole('K', 1, 4)
    def speed(h): return (zsampling_step(world, now._replace(sigma_next=now.sigma - h), s, up, K).x - now.x)/h
    D_u, D_c = both(world, now.x, now.sigma, now.y)
    formula = lambda scale: (D_u + scale*(D_c - D_u) - now.x)/now.sigma
    h = 1e-5*now.sigma
    without_first_order = 2*speed(h/2) - speed(h)
    yield without_first_order, formula(s + K*(s - up)), formula(s + K*s)


@row('eq-proc-gibbs', cell='92b12a0e', mutant='the noise is not added; the flow has the scale 1', tolerance=1e-6)
def gibbs(t):
    "A sweep adds noise of a level and removes it by the guided flow, here for Gaussians with independent axes."
    s, level = t.number('s', .5, 4), t.number('level', .3, 3)
    means, variances, x, noises = t.normal(2, 2), .3 + t.uniform(2, 2), 5*t.normal(4, 2), t.normal(2, 4, 2)
    pair = Pair(*(Mixture(mean[None], var.diag()[None]) for mean, var in zip(means, variances)))
    def exactly(denoise, now):
        at_once = now.sigma > 4 # the start, which may be anything
        x = now.x if at_once else transport(denoise, now.x, now.sigma, now.sigma_next, 0, 1e-7)
        return Step(x, x, now.sigma, now.sigma_next)
    draws, levels = iter(noises), torch.tensor([5., .1, 0.], dtype=torch.float64)
    labels = torch.zeros(4, dtype=torch.long)
    run = cfgig(scale=s, level=level, sweeps=1, start=.5)(pair, x, levels, labels, exactly, lambda: next(draws))
    *_, clean, swept = [record.x for record in run]
    def formula(noise, scale):
        c, u = (Gauss(mean.numpy(), var.numpy()) for mean, var in zip(means, variances))
        gain, offset = map(torch.as_tensor, ode_map(c, u, scale, level, 0.))
        return gain*(clean + noise) + offset
    yield swept, formula(level*noises[0], s), formula(0*noises[0], s)
    yield swept, formula(level*noises[0], s), formula(level*noises[0], 1.)


@row('eq-proc-delay', cell='acfc4118', mutant='the weights s and 1 - s; the tilt with 1 + delta', tolerance=1e-8)
def delayed(t):
    "For s > 1: the branches at two noise levels, plus the gradient of a Renyi term, are the denoiser of the tilt."
    s, delta, sigma, world = t.number('s', 1.1, 4), t.number('delta', .1, 3), t.number('sigma', .3, 3), t.world(1)
    of_c, of_u = sigma*(s/(1 + delta))**.5, sigma*((s - 1)/delta)**.5
    x0, x, y = mesh(-25, 25, 4001), (2*t.normal(10, 1)).requires_grad_(), torch.zeros(10, dtype=torch.long)
    formula = lambda weight: weight*world(x, of_c, y) + (1 - weight)*world(x, of_u)
    got = delay(world, s, delta)(x, sigma, y)
    yield got, formula(1 + delta), formula(s)
    recall = lambda level, y: (world.log_prob(x0, 0., y) - (x - x0.T)**2/(2*level**2)).log_softmax(1)
    inside = (s*recall(of_c, 0) + (1 - s)*recall(of_u, NULL)).logsumexp(1)
    term = sigma**2*grad(inside.sum(), x)[0]
    yield got + term, tilt_on(x0, world, s)(x, sigma), tilt_on(x0, world, 1 + delta)(x, sigma)


@row('eq-proc-w2sd', cell='5e180003', mutant='weak and strong are exchanged on the way up', tolerance=1e-11)
def reflection(t):
    "Down with the strong model, up with the weak, down with the strong."
    world, now = before_a_step(t)
    weak = Mixture(world.means, world.eigs[:, 0] + .4, world.weights, world.labels)
    s, up = t.number('s', .5, 5), t.number('s_up', 0, 2)
    def moved(model, x, a, b, scale):
        D_u, D_c = both(model, x, a, now.y)
        D = D_u + scale*(D_c - D_u)
        return D + b/a*(x - D)
    def formula(model):
        there = moved(world, now.x, now.sigma, now.sigma_next, s)
        back = moved(model, there, now.sigma_next, now.sigma, up)
        return moved(world, back, now.sigma, now.sigma_next, s)
    got = next(w2sd(scale=s, inverse=up, model=weak.__call__)(world, now.x, [now.sigma, now.sigma_next], now.y)).x
    yield got, formula(weak), formula(world)


@row('eq-proc-mp', cell='5e180007', mutant='both half steps go forward', tolerance=1e-11)
def manifold(t):
    "Half a step along the branch without label, half a step back along the other, at one time."
    world, now = before_a_step(t)
    time, h = now.sigma/(1 + now.sigma), t.number('h', .01, .3)
    z = (1 - time)*now.x
    def f(z, label): return (z - world(z/(1 - time), now.sigma, label))/time
    middle = z + h/2*f(z, NULL)
    yield half_steps(world, z, time, h, now.y), middle - h/2*f(middle, now.y), middle + h/2*f(middle, now.y)


@row('eq-proc-mp-scale', cell='5e180007', mutant='s + K', tolerance=1e-6)
def hidden_scale(t):
    "What of a short step of CFG-MP is proportional to its length is a step with the scale s + K/2."
    world, now = before_a_step(t)
    s, K = t.number('s', .5, 4), t.whole('K', 1, 4)
    def speed(h): return (cfg_mp_step(world, now._replace(sigma_next=now.sigma - h), s, K, above=0.).x - now.x)/h
    D_u, D_c = both(world, now.x, now.sigma, now.y)
    formula = lambda scale: (D_u + scale*(D_c - D_u) - now.x)/now.sigma
    h = 1e-5*now.sigma
    yield 2*speed(h/2) - speed(h), formula(s + K/2), formula(s + K)


@row('eq-proc-restart', cell='5e18000b', mutant='noise of the higher level alone', tolerance=1e-10)
def restarted(t):
    "Noise up to the higher level, then steps down, here two of Euler's."
    world, now = before_a_step(t, low=.3)
    low, high, s, n = now.sigma_next, now.sigma*t.number('high/sigma', 1., 2.), t.number('s', .5, 4), t.normal(20, 3)
    def down(x, a, b):
        D_u, D_c = both(world, x, a, now.y)
        D = D_u + s*(D_c - D_u)
        return D + b/a*(x - D)
    middle = ((low**(1/7) + high**(1/7))/2)**7
    def formula(size):
        x = down(now.x, now.sigma, low) + size*n
        return down(down(x, high, middle), middle, low)
    run = restart(scale=s, low=low, high=high, points=3, repeats=1)
    from cfg_course.samplers import ddim_step
    got = next(run(world, now.x, [now.sigma, low, low/2], now.y, step=ddim_step, noise=lambda: n)).x
    yield got, formula((high**2 - low**2)**.5), formula(high)


@row('eq-proc-rrr', cell='5e18000f', mutant='beta of the step to come; h for 2h in the noise', tolerance=1e-5)
def recycled(t):
    "A Langevin step with the composed score in coordinates that keep the variance, to first order in its size."
    world, now = before_a_step(t, low=.5)
    s, x, n = t.number('s', -1, 4), now.x, t.normal(20, 3)
    D_u, D_c = both(world, x, now.sigma_next, now.y)
    D = D_u + s*(D_c - D_u)
    from cfg_course.procedures import langevin
    drift, wide = (D - x)/now.sigma_next**2, 1 + now.sigma_next**2
    beta = (now.sigma**2 - now.sigma_next**2)/(1 + now.sigma**2)
    wrong = (now.sigma**2 - now.sigma_next**2)/wide
    def parts(size):
        time = langevin_time(now.sigma, now.sigma_next, size)
        zero = langevin(D, x, now.sigma_next, time, 0*n) - x
        return zero/size, (langevin(D, x, now.sigma_next, time, n) - x - zero)/size**.5
    size = 1e-7
    pulled, kicked = parts(size)
    yield pulled, beta*wide*drift, wrong*wide*drift
    yield kicked, (2*beta*wide)**.5*n, (beta*wide)**.5*n
    queue = iter([0*n, n])
    run = next(rrr(scale=s, repeats=1, size=.7)(world, now.x, [now.sigma, now.sigma_next, .1*now.sigma_next], now.y, noise=lambda: next(queue))).x
    r = (now.sigma_next/now.sigma)**2
    D_u, D_c = both(world, now.x, now.sigma, now.y)
    first = D_u + s*(D_c - D_u)
    first = first + r*(now.x - first)
    D_u, D_c = both(world, first, now.sigma_next, now.y)
    target = D_u + s*(D_c - D_u)
    by = lambda time: langevin(target, first, now.sigma_next, time, n)
    yield run, by(2*.7*beta*wide), by(.7*beta*wide)
