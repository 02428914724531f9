"Chapter 16: classifiers."
import torch

from cfg_course.classifiers import NoisyClassifier, classifier_guidance
from cfg_course.networks import fourier
from cfg_course.scores import expand
from ledger import row


@row('eq-clf-logits', cell='0bdc9e0d', mutant='the factor is c_in, without sigma_d', tolerance=1e-10)
def logits(t):
    "The log probabilities of the noisy classifier are sigma_d c_in F + b up to a constant, for any weights and level."
    shape, K = (t.whole('channels', 1, 3), 8, 8), t.whole('classes', 2, 6)
    sigma_d, sigma = t.number('sigma_d', .2, 2), (3*t.normal(5)).exp()
    net = NoisyClassifier(shape, K, width=8, sigma_data=sigma_d).double().eval()
    with torch.no_grad():
        for p in net.parameters(): p.copy_(.3*t.normal(*p.shape))
        x = (1 + sigma)[:, None, None, None]*t.normal(5, *shape)
        c_in = (sigma**2 + sigma_d**2)**-.5
        F = net.network(expand(c_in, x)*x, net.noise(fourier(sigma.log()/4, 64)))
        def right(factor): return (factor[:, None]*F + net.prior).log_softmax(1)
        yield net(x, sigma).log_softmax(1), right(sigma_d*c_in), right(c_in)


@row('eq-clf-guide', cell='f69bbe78', mutant='s and s - 1 change places', tolerance=1e-10)
def clf_guide(t):
    "Classifier guidance is D_u + s g or D_c + (s - 1) g for any smooth classifier and s; by the exact one, guidance."
    world, s = t.world(t.whole('dim', 1, 4)), t.number('s', -3, 8)
    x, sigma, y = 2*t.normal(20, world.dim), t.normal(20).exp(), t.labels(20, world.classes)
    turn = t.normal(world.dim, world.classes)
    def wrong(x, sigma): return (x/expand(1 + torch.as_tensor(sigma), x)@turn).sin()
    def exact(x, sigma): return world.posterior(x, sigma).log()
    D_u, D_c = world(x, sigma), world(x, sigma, y)
    for classifier in (exact, wrong):
        at = x.clone().requires_grad_()
        log_p = classifier(at, sigma).log_softmax(1)[torch.arange(20), y]
        g = sigma[:, None]**2*torch.autograd.grad(log_p.sum(), at)[0]
        def code(on): return classifier_guidance(world, classifier, scale=s, on=on)(x, sigma, y)
        yield code('unconditional'), D_u + s*g, D_u + (s - 1)*g
        yield code('conditional'), D_c + (s - 1)*g, D_c + s*g
    exactly = classifier_guidance(world, exact, scale=s)(x, sigma, y)
    yield exactly, D_u + s*(D_c - D_u), D_u + (s - 1)*(D_c - D_u)
