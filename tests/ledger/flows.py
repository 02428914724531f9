"Chapter 5c: flow matching."
import math

import torch
from scipy.integrate import quad

from cfg_course.core import NULL
from cfg_course.flows import average_velocity, carry, effective_scale, mixing_defect, velocity
from cfg_course.guidance import guide
from cfg_course.mixtures import Mixture, Pair, transport
from ledger import row


def on_line(t):
    "A world on a line, with a fine mesh of clean samples."
    return t.world(1), torch.linspace(-16, 16, 8001, dtype=torch.float64)[:, None]


def recall(world, x0, z, t, y=NULL):
    "How likely each clean sample is, given a noisy one."
    return (world.log_prob(x0, y=y) - (z - (1 - t)*x0.T)**2/(2*t**2)).softmax(1)


@row('eq-flow-path', cell='df7f1861', mutant='t for 1 - t before the image', tolerance=1e-12)
def path(t):
    "The straight path is the noisy sample of this course, divided by 1 + sigma."
    time, x0, n = t.number('t', .05, .95), t.normal(20, 3), t.normal(20, 3)
    sigma = time/(1 - time)
    yield (x0 + sigma*n)/(1 + sigma), (1 - time)*x0 + time*n, time*x0 + time*n


@row('eq-flow-velocity', cell='df7f1861', mutant='z + D for z - D', tolerance=1e-8)
def marginal(t):
    "The mean of n - x_0 given z, from the posterior of the clean sample; t above 0 and below 1."
    (world, x0), time = on_line(t), t.number('t', .1, .9)
    z = t.normal(20, 1)
    mean = recall(world, x0, z, time)@x0
    D = world(z/(1 - time), time/(1 - time))
    right, wrong = (z - D)/time, (z + D)/time
    yield velocity(world, z, time), right, wrong
    yield (z - (1 - time)*mean)/time - mean, right, wrong


@row('eq-flow-twin', cell='5f4f584f', mutant='t for t^2 under the variance', tolerance=1e-7)
def twin(t):
    "The loss that is trained on is the one that is meant plus a constant; for any guess, any t in (0, 1)."
    (world, x0), time, a, b = on_line(t), t.number('t', .15, .85), t.number('a', -2, 2), t.number('b', .3, 4)
    z = torch.linspace(-14, 14, 2801, dtype=torch.float64)[:, None]
    density = world.log_prob(z/(1 - time), time/(1 - time)).exp()*.01/(1 - time)
    w, f = recall(world, x0, z, time), a*z + torch.cos(b*z)
    trained = density@(w*(f - (z - x0.T)/time)**2).sum(1)
    meant, spread = density@((f - velocity(world, z, time))**2)[:, 0], density@(w@x0**2 - (w@x0)**2)[:, 0]
    yield trained, meant + spread/time**2, meant + spread/time


@row('eq-flow-continuity', cell='b1184d0d', mutant='half the velocity', tolerance=1e-5)
def continuity(t):
    "The continuity equation of a random world on a line; d/dt by differences, the divergence by the product rule."
    world, time, y = t.world(1), t.number('t', .2, .8), 0
    z = t.normal(20, 1).requires_grad_()
    def log_p(z, s): return world.log_prob(z/(1 - s), s/(1 - s), y) - math.log(1 - s)
    v = velocity(world, z, time, y)
    slope = torch.autograd.grad(v.sum(), z, retain_graph=True)[0]
    p = log_p(z, time).exp()
    push = torch.autograd.grad(p.sum(), z)[0]
    h = 1e-4
    change = (log_p(z, time + h).exp() - log_p(z, time - h).exp())/(2*h)
    flux = push*v + p[:, None]*slope
    yield change[:, None], -flux, -flux/2


@row('eq-flow-guidance', cell='9169136f', mutant='s for s - 1 where the weak branch stands', tolerance=1e-10)
def one_guidance(t):
    "Mixed velocities of any path are the velocity of the guided denoiser; any real s. And Euler in t is DDIM."
    world, s = t.world(2), t.number('s', -3, 9)
    phase = t.number('phase', .2, 1.3)
    for a, b, da, db in ((math.cos(phase), math.sin(phase), -math.sin(phase), math.cos(phase)), (1 - phase/2, phase**2, -.5, 2*phase)):
        z = t.normal(20, 2)
        D_c, D_u = (world(z/a, b/a, y) for y in (0, NULL))
        v_c, v_u = (da*D + db*(z - a*D)/b for D in (D_c, D_u))
        right, wrong = (db/b*z + (da - a*db/b)*(u*D_u + s*D_c) for u in (1 - s, s))
        yield v_u + s*(v_c - v_u), right, wrong


@row('eq-flow-dose', cell='3a9cde4b', mutant='the mean over t', tolerance=2e-4)
def dose(t):
    "The mean of what a schedule samples, for two Gaussians of the same variance; any bounded schedule."
    V, mu_c, mu_u = t.number('V', .05, .6), t.number('mu_c', 1, 3), t.number('mu_u', -2, 0)
    a, b, wave = t.number('a', -1, 2), t.number('b', 4, 8), t.number('wave', -2, 2)
    def s(sigma): return (a + b*sigma**2)/(1 + sigma**2) + wave*math.sin(sigma)*math.exp(-sigma)
    S = 1e4
    pair = Pair(Mixture([[mu_c]], V), Mixture([[mu_u]], V))
    start = torch.tensor([[mu_u + s(S)*(mu_c - mu_u)]], dtype=torch.float64)
    found = (transport(guide(pair, scale=s), start, S, 0., 0, 1e-9).item() - mu_u)/(mu_c - mu_u)
    over_q = quad(lambda q: s(math.sqrt(V*(1/q**2 - 1))), 0, 1, limit=200)[0]
    over_t = quad(lambda u: s(u/(1 - u)), 0, 1, limit=200)[0]
    yield found, over_q, over_t
    yield effective_scale(s, V, V, 20_000), over_q, over_t


@row('eq-flow-convex', cell='d47d8541', below=True, mutant='the cost of the mean displacement', tolerance=1e-6)
def convex(t):
    "No convex cost of the flow's coupling exceeds that of independent ends: powers p >= 1 of the distance."
    world, p = t.world(1), t.number('p', 1, 4)
    normal = torch.linspace(-7, 7, 281, dtype=torch.float64)
    bell = (-normal**2/2).softmax(0)
    ends = transport(world, world.moments()[0] + 1e3*normal[:, None], 1e3, 0., NULL, 1e-8)[:, 0]
    each = [w*bell@((1 + v)**.5*normal - m).abs()**p for w, m, v in zip(world.weights, world.means[:, 0], world.eigs[:, 0])]
    yield bell@(normal - ends).abs()**p, sum(each), world.moments()[0].abs()[0]**p


def rate_along(world, z, t, r, y, h=2e-3):
    "The derivative of the average velocity along the path; the path is followed by steps of Runge and Kutta."
    def step(z, s, k):
        a = velocity(world, z, s, y)
        b = velocity(world, z + k/2*a, s + k/2, y)
        c = velocity(world, z + k/2*b, s + k/2, y)
        return z + k/6*(a + 2*b + 2*c + velocity(world, z + k*c, s + k, y))
    def at(k): return average_velocity(world, step(z, t, k), t + k, r, y, 1e-12)
    return (8*(at(h) - at(-h)) - (at(2*h) - at(-2*h)))/(12*h)


@row('eq-flow-average', cell='6f7234a7', mutant='plus for minus', tolerance=1e-6)
def average(t):
    "The identity of mean flows, for 0 <= r < t < 1; and the average is the displacement over the time."
    world, time, y = t.world(2), t.number('t', .5, .9), 0
    r, z = t.number('r', 0, .4), t.normal(8, 2)
    u, v = average_velocity(world, z, time, r, y, 1e-12), velocity(world, z, time, y)
    turn = (time - r)*rate_along(world, z, time, r, y)
    yield u, v - turn, v + turn
    yield u*(time - r), z - carry(world, z, time, r, y, 1e-12), 0*z


@row('eq-flow-mixing', cell='6dc329a1', mutant='s - 1 for s(s - 1)', tolerance=5e-3)
def mixing(t):
    "The first order of what mixing averages misses, for any real s, from two short stretches; relative to the largest."
    world, time, s = t.world(2), t.number('t', .4, .85), t.number('s', 1.5, 6)
    z, h = t.normal(10, 2), .001
    def error(h):
        u_c, u_u = (average_velocity(world, z, time, time - h, y, 1e-13) for y in (0, NULL))
        return (average_velocity(guide(world, scale=s), z, time, time - h, 0, 1e-13) - u_u - s*(u_c - u_u))/h
    def delta(z): return velocity(world, z, time, 0) - velocity(world, z, time)
    z_ = z.clone().requires_grad_()
    formula = torch.autograd.grad((delta(z_)**2).sum(), z_)[0]/2
    right, wrong = -s*(s - 1)/2*formula, -(s - 1)/2*formula
    largest = right.abs().max()
    yield (2*error(h) - error(2*h))/largest, right/largest, wrong/largest
    yield mixing_defect(world, z, time, s)/largest, right/largest, wrong/largest
