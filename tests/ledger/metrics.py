"Chapter 19: metrics."
import math
from itertools import combinations, product

import numpy as np
import torch
from scipy.linalg import sqrtm

from cfg_course.metrics import Reference, Seen, class_std, coverage, density, distance_to, divergences, fid_effect
from cfg_course.metrics import frechet, inception_score, kid, kl_on_grid, own_similarity, similarity, std_effect
from cfg_course.metrics import stratified_error, wasserstein, wilson
from ledger import row


def classes(t, least=3, most=9):
    "Labels of three classes of unequal sizes, in random order."
    sizes = [t.whole(f'n_{k}', least, most) for k in range(3)]
    y = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    return y[torch.randperm(len(y), generator=t.generator)]


def seen(features, y=None, **more):
    "Samples of which nothing but some facts is known."
    y = torch.zeros(len(features), dtype=torch.long) if y is None else y
    return Seen(None, y, features, more.get('logits'), more.get('verdicts'))


def real(features):
    "Real images of which nothing but the features is known."
    return Reference('', seen(features), 0.)


def leaning(t, n, dim):
    "Features whose covariance leans, of any mean and widths."
    return t.normal(n, dim)@(t.normal(dim, dim) + .3*torch.eye(dim)) + t.normal(dim)


def root(C):
    "Any square root of a matrix that need not be symmetric, by SciPy."
    return torch.from_numpy(np.real(sqrtm(C.numpy())))


@row('eq-wilson', cell='0d1040b1', mutant='z^2/4n for z^2/4n^2', tolerance=1e-10)
def wilson_interval(t):
    "Wilson's ends are the proportions from which the observed one is z standard errors away; any hits <= n, z > 0."
    n, z = t.whole('n', 2, 500), t.number('z', .5, 3.5)
    hits = t.one_of('hits', [0, n, round(t.random.uniform(0, n), 2), t.random.randint(1, n - 1)])
    p = hits/n
    def ends(last):
        half = z*math.sqrt(p*(1 - p)/n + last)
        return torch.tensor([p + z**2/(2*n) - half, p + z**2/(2*n) + half], dtype=torch.float64)/(1 + z**2/n)
    code = torch.tensor(wilson(hits, n, z), dtype=torch.float64)
    roots = sorted(np.roots([1 + z**2/n, -(2*p + z**2/n), p**2]).real)
    yield code, ends(z**2/(4*n**2)), ends(z**2/(4*n))
    yield code, torch.tensor(roots, dtype=torch.float64), ends(z**2/(4*n))


@row('eq-met-stratified', cell='3b1e5a04', mutant='the share of a class is not squared', tolerance=1e-12)
def stratified(t):
    "The error of a mean is that of class means with weights n_k/n; classes of fewer than three samples count as one."
    y = classes(t)
    g = t.normal(len(y))*(1 + y) + 3*y
    def right(power, parts):
        return sum((len(part)/len(g))**power*part.var()/len(part) for part in parts).sqrt()
    parts = [g[y == k] for k in range(3)]
    yield stratified_error(g, y), right(2, parts), right(1, parts)
    few = torch.cat([y, torch.tensor([3, 3, 4])])
    g = torch.cat([g, t.normal(3)])
    parts.append(g[-3:])
    yield stratified_error(g, few), right(2, parts), right(1, parts)


@row('eq-met-influence', cell='3b1e5a06', mutant='of the score, the effect on its logarithm', tolerance=1e-10)
def influence(t):
    "A little weight on one sample moves the Inception score, which is no mean, by its effect there, to first order."
    n, K = t.whole('n', 20, 60), t.whole('classes', 2, 6)
    logits = 2*t.normal(n, K)
    p = logits.softmax(1)
    def score(w):
        mean = w@p
        return ((w@(p*p.log()).sum(1)) - (mean*mean.log()).sum()).exp()
    def slope(theta, i):
        even, one = torch.full((n,), 1/n, dtype=torch.float64), torch.eye(n, dtype=torch.float64)[i]
        small = torch.zeros((), dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(theta((1 - small)*even + small*one), small)[0]
    found = torch.stack([slope(score, i) for i in range(n)])
    effect = divergences(logits) - divergences(logits).mean()
    yield found, inception_score(logits)*effect, effect


@row('eq-spread', cell='9fb7be65', mutant='deviations from the mean of all classes', tolerance=1e-12)
def spread(t):
    "The mean over pixels, and over classes with two samples or more, of the standard deviation within the class."
    y = torch.cat([classes(t, 2), torch.tensor([3])])
    x = .2*t.normal(len(y), 2, 3, 3)*(1 + y)[:, None, None, None] + .3*y[:, None, None, None]
    def right(centre):
        stds = []
        for k in range(3):
            own = x[y == k]
            squares = (own - centre(own)).square().sum(0)/(len(own) - 1)
            stds += squares.sqrt().flatten().tolist()
        return sum(stds)/len(stds)
    yield class_std(x, y), right(lambda own: own.mean(0)), right(lambda own: x.mean(0))


@row('eq-met-jackknife', cell='9fb7be65', mutant='n for n - 1', tolerance=1e-10)
def jackknife(t):
    "A sample's effect on a standard deviation, and the deviation without it from its distance, for n >= 3."
    n, x = t.whole('n', 3, 30), t.number('mean', -3, 3)
    x = x + t.normal(n, 5)*t.uniform(5)
    left = torch.stack([x[torch.arange(n) != i].std(0) for i in range(n)])
    s = x.std(0)
    yield std_effect(x), (n*s - (n - 1)*left).mean(1), (n*s - n*left).mean(1)
    def right(factor): return (n - 1)*s**2 - factor*(x - x.mean(0))**2
    yield (n - 2)*left**2, right(n/(n - 1)), right(1.)


@row('eq-met-fid', cell='977eadcb', mutant='the product of the roots for the root of the product', tolerance=1e-8)
def fid(t):
    "FID from the moments of features that lean in any way, with more samples than features, in both of its forms."
    dim = t.whole('dim', 2, 6)
    x, r = leaning(t, t.whole('n', 20, 80), dim), leaning(t, t.whole('m', 20, 80), dim)
    C, C_r = torch.cov(x.T), torch.cov(r.T)
    def right(cross): return (x.mean(0) - r.mean(0)).square().sum() + (C + C_r - 2*cross).trace()
    for code in (frechet(x, r), distance_to(real(r))(x)):
        yield code, right(root(C@C_r)), right(root(C)@root(C_r))


@row('eq-met-fid-effect', cell='3b1e5a10', mutant='roots of the two covariances for S (SCS)^(-1/2) S', tolerance=1e-8)
def fid_effects(t):
    "A sample's effect on FID is its derivative in the weight, up to a constant; covariances lean, and have full rank."
    dim, n = t.whole('dim', 2, 5), t.whole('n', 20, 40)
    x, r = leaning(t, n, dim), leaning(t, 50, dim)
    S, away, I = root(torch.cov(r.T)), x - x.mean(0), torch.eye(dim, dtype=torch.float64)
    def right(C, wrong=False):
        inner = torch.linalg.inv(root(S@C@S))
        A = I - (S@torch.linalg.inv(root(C)) if wrong else S@inner@S)
        g = 2*away@(x.mean(0) - r.mean(0)) + torch.einsum('nd,de,ne->n', away, A, away)
        return g - g.mean()
    C = torch.cov(x.T)
    code = fid_effect(x, real(r))
    yield code - code.mean(), right(C), right(C, wrong=True)
    w = torch.full((n,), 1/n, dtype=torch.float64, requires_grad=True)
    mean = w@x/w.sum()
    C_w = (w[:, None]*(x - mean)).T@(x - mean)/w.sum()
    theta = (mean - r.mean(0)).square().sum() + C_w.trace() - 2*torch.linalg.eigvalsh(S@C_w@S).sqrt().sum()
    slope, = torch.autograd.grad(theta, w)
    yield slope - slope.mean(), right(C_w.detach()), right(C_w.detach(), wrong=True)


def kernel(a, b):
    "KID's kernel of two samples."
    return ((a@b)/len(a) + 1)**3


def pair_sums(a, b, same=True):
    "For each row of a, the sum of the kernel over rows of b; without itself, unless `same`."
    return torch.stack([sum(kernel(u, v) for j, v in enumerate(b) if same or j != i) for i, u in enumerate(a)])


@row('eq-met-kid', cell='3b1e5a15', mutant='a sample is a pair with itself', tolerance=1e-10)
def kid_value(t):
    "KID is the mean kernel of different samples, plus that of different real images, less twice that of both."
    n, m, dim = t.whole('n', 4, 15), t.whole('m', 4, 15), t.whole('dim', 2, 6)
    x, r = leaning(t, n, dim), leaning(t, m, dim)
    def right(same):
        own, theirs = pair_sums(x, x, same).sum()/(n*(n - 1)), pair_sums(r, r, same).sum()/(m*(m - 1))
        return own + theirs - 2*pair_sums(x, r).sum()/(n*m)
    yield kid(seen(x), real(r))[0], right(False), right(True)


@row('eq-met-kid-effect', cell='3b1e5a15', mutant='the first sum is over all n', tolerance=1e-10)
def kid_effect(t):
    "A sample's effect on KID is its derivative in the weight, up to a constant, in classes of unequal size too."
    m, dim = t.whole('m', 4, 10), t.whole('dim', 2, 6)
    y = classes(t, 3, 5)
    n = len(y)
    x, r = leaning(t, n, dim), leaning(t, m, dim)
    def right(same=False): return 2*(pair_sums(x, x, same)/(n - 1) - pair_sums(x, r)/m)
    def centred(g): return g - g.mean()
    yield 2*(own_similarity(x) - similarity(x, r)), right(), right(same=True)
    value, low, high = kid(seen(x, y), real(r))
    yield high - low, 3.92*stratified_error(right(), y), 3.92*stratified_error(right(same=True), y)
    w = torch.full((n,), 1/n, dtype=torch.float64, requires_grad=True)
    k = torch.stack([torch.stack([kernel(a, b) for b in x]) for a in x])
    pairs = 1 - torch.eye(n, dtype=torch.float64)
    share = w/w.sum()
    theta = share@(k*pairs)@share/(share@pairs@share) - 2*share@pair_sums(x, r)/m
    slope, = torch.autograd.grad(theta, w)
    yield centred(slope), centred(right()), centred(right(same=True))


@row('eq-met-is', cell='9c24c6bb', mutant='the entropies are added', tolerance=1e-10)
def inception(t):
    "The Inception score by entropies, and by divergences; K, its bound, where verdicts are certain and share alike."
    n, K = t.whole('n', 5, 60), t.whole('classes', 2, 8)
    logits = 3*t.normal(n, K)
    p = logits.softmax(1)
    def H(p): return -(p*p.log()).sum(-1)
    code = inception_score(logits)
    assert code <= K
    wrong = (H(p.mean(0)) + H(p).mean()).exp()
    yield code, (H(p.mean(0)) - H(p).mean()).exp(), wrong
    yield divergences(logits).mean().exp(), (p*(p/p.mean(0)).log()).sum(1).mean().exp(), wrong
    certain = 100*torch.eye(K, dtype=torch.float64).repeat(3, 1)
    vague = (certain/60).softmax(1)
    yield inception_score(certain), float(K), (H(vague.mean(0)) + H(vague).mean()).exp()


@row('eq-met-halves', cell='3b1e5a20', mutant='halves drawn with replacement', tolerance=1e-12)
def halves(t):
    "Means of all halves of an even number of samples, or of each class, vary as the mean of all: the stratified error."
    n, a, b = 2*t.whole('half of n', 2, 5), 2*t.whole('half of n_0', 2, 3), 2*t.whole('half of n_1', 2, 3)
    g = t.normal(n)*t.number('width', .3, 3)
    def means(g): return torch.stack([g[list(part)].mean() for part in combinations(range(len(g)), len(g)//2)])
    S2, all_halves = g.var(), means(g).var(correction=0)
    yield all_halves, S2/(n/2)*(1 - (n/2)/n), S2/(n/2)
    yield all_halves, S2/n, S2/(n/2)
    y = torch.tensor([0]*a + [1]*b)
    g = t.normal(a + b)*(1 + y) + 4*y
    both = torch.stack([(a*u + b*v)/(a + b) for u, v in product(means(g[y == 0]), means(g[y == 1]))])
    yield both.var(correction=0), stratified_error(g, y)**2, 2*stratified_error(g, y)**2


@row('eq-met-density', cell='d0359185', mutant='not divided by k; over N for over M', tolerance=1e-7)
def density_coverage(t):
    "Density counts balls of real images that samples are in, over kN; coverage the balls with a sample, over M. k = 5."
    N, dim = t.whole('N', 5, 60), t.whole('dim', 1, 4)
    M = t.one_of('M', [m for m in range(8, 41) if m != N])
    x, r = .7*t.normal(N, dim), t.normal(M, dim)
    def far(a, b): return math.dist(a.tolist(), b.tolist())
    radius = [sorted(far(a, b) for b in r)[5] for a in r]
    inside = torch.tensor([[far(a, b) <= ball for b, ball in zip(r, radius)] for a in x], dtype=torch.float64)
    yield density(seen(x), real(r))[0], inside.sum()/(5*N), inside.sum()/N
    yield coverage(seen(x), real(r))[0], inside.amax(0).sum()/M, inside.amax(0).sum()/N


@row('eq-met-normal', cell='c887e040', mutant='s_1 and s_2 change places; widths do not matter', tolerance=1e-8)
def normal_laws(t):
    "Squared W2 and the divergence of two normal laws on a line, for any means and widths."
    m_1, m_2, s_1, s_2 = t.number('m_1', -2, 2), t.number('m_2', -2, 2), t.number('s_1', .3, 2), t.number('s_2', .3, 2)
    z = t.normal(2000)
    z = (z - z.mean())/z.std(correction=0)
    a, b = m_1 + s_1*z, m_2 + s_2*z[torch.randperm(2000, generator=t.generator)]
    yield wasserstein(a, b, 2)**2, (m_1 - m_2)**2 + (s_1 - s_2)**2, (m_1 - m_2)**2
    def KL(s_1, s_2): return math.log(s_2/s_1) + (s_1**2 + (m_1 - m_2)**2)/(2*s_2**2) - .5
    grid = torch.linspace(-22, 22, 44001, dtype=torch.float64)
    def log_p(m, s): return -((grid - m)/s)**2/2 - math.log(s*math.sqrt(2*math.pi))
    yield kl_on_grid(log_p(m_1, s_1), log_p(m_2, s_2), .001), KL(s_1, s_2), KL(s_2, s_1)
