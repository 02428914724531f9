"Chapter 8a: decisions in pictures."
import torch
from cfg_course.core import NULL
from cfg_course.picture_decisions import decided
from ledger import row
from ledger.pictures import sheets


@row('eq-picdec-late', cell='bbddf563', mutant='each class counts alike', tolerance=1e-9)
def late(t):
    "What guidance adds, from the doubt about the class, in a random world of sheets; and its bound."
    world, sigma = sheets(t), t.number('sigma', .3, 4)
    y = t.labels(20, world.classes)
    x = world.sample(y, sigma, t.generator)
    p = world.posterior(x, sigma)
    all_D = torch.stack([world(x, sigma, k) for k in range(world.classes)], 1)
    each = torch.arange(20)
    D_c, D_u = all_D[each, y], world(x, sigma, NULL)
    apart = D_c[:, None] - all_D
    yield D_c - D_u, (p[:, :, None]*apart).sum(1), apart.mean(1)
    most = (1 - p[each, y])*apart.norm(dim=2).max(1).values
    length = (D_c - D_u).norm(dim=1)
    yield (length - most).clamp(min=0), 0*most, length
    yield decided(world, x, sigma, y).gain, (p[:, :, None]*apart).sum(1).square().sum(1)/sigma**4, apart.mean(1).square().sum(1)/sigma**4
