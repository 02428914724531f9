"Chapter 41: adapters."
import torch
from diffusers import DDPMScheduler

from cfg_course.adapters import describe, step_to_sigma
from cfg_course.scores import expand
from ledger import row


@row('eq-adapt-level', cell='a802539a', mutant='the root is lost', tolerance=1e-10)
def level(t):
    "A scheduler's noisy image over the root of alpha-bar is the image with noise of the level sigma_t, at any step."
    T, end = t.whole('timesteps', 20, 1000), t.number('largest beta', .01, .05)
    betas = t.one_of('betas', ['linear', 'scaled_linear', 'squaredcos_cap_v2'])
    scheduler = DDPMScheduler(T, beta_end=end, beta_schedule=betas)
    kept, steps = scheduler.alphas_cumprod.double(), torch.arange(T)
    level = ((1 - kept)/kept)**.5
    table = describe(scheduler).table
    yield step_to_sigma(steps, table).log(), level.log(), (level**2).log()
    some = torch.randint(T, (8,), generator=t.generator)
    x0, n = t.normal(8, 1, 3, 3), t.normal(8, 1, 3, 3)
    noisy = scheduler.add_noise(x0, n, some)/expand(kept[some]**.5, x0)
    yield (noisy - x0)/expand(step_to_sigma(some, table), x0), n, n*expand(level[some], x0)
