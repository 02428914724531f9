"Chapter 18b: particles."
import torch
from torch.autograd import grad

from cfg_course.guidance import guide
from cfg_course.particles import reverse_step, weighed_step
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
