"Chapter 41d: sharing."
import torch

from cfg_course.sharing import paired
from ledger import row


@row('eq-share-pair', cell='41d5a001', mutant='the covariance is added', tolerance=1e-10)
def pair(t):
    "Difference and variance that the table of pairs gives, for numbers that share as much luck as they like."
    n, shared = t.whole('n', 5, 60), t.number('shared luck', -2, 2)
    luck = t.normal(n)
    a, b = shared*luck + t.normal(n), shared*luck + t.normal(n) + t.number('shift', .5, 2)
    row, base = (dict(value=str(v.mean().item()), metric='score') for v in (a, b))
    found = paired(a, b, torch.zeros(n, dtype=torch.long), row, base)
    yield found['difference'], (a - b).mean(), (a + b).mean()
    error = (found['high'] - found['difference'])/1.96
    covariance = torch.cov(torch.stack([a, b]))[0, 1]
    yield error**2, (a.var() + b.var() - 2*covariance)/n, (a.var() + b.var() + 2*covariance)/n
