"The exact world against other arithmetic: random worlds, any shape and type of sample; laws against integrated paths."
import pytest
import torch
from hypothesis import given, settings, strategies as st

from cfg_course.core import NULL, InputError
from cfg_course.guidance import guide
from cfg_course.laws import Gauss, gibbs_law, ode_law, ode_map, sde_law, tilt_law
from cfg_course.mixtures import (
    Boxes,
    Mixture,
    Pair,
    Points,
    fractal_tree,
    mesh,
    three_gaussians,
    tilt,
    tilt_on,
    transport,
    two_boxes,
    two_classes,
    unequal_modes,
)

PROPERTY = settings(derandomize=True, deadline=None, max_examples=25)
SEED, DIM, PARTS = st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5)
SIGMA = st.floats(.01, 100)
WORLDS = [
    three_gaussians(),
    unequal_modes(),
    fractal_tree(3),
    two_boxes(),
    two_classes(7),
    Points(torch.randn(9, 3), torch.arange(9) % 3)]


def random_world(seed, d, K):
    "A mixture with full covariances, uneven weights and up to three classes."
    g = torch.Generator().manual_seed(seed)
    root, means = torch.randn(K, d, d, generator=g).double(), 2*torch.randn(K, d, generator=g).double()
    weights = torch.rand(K, generator=g).double() + .1
    covs = root@root.mT + .05*torch.eye(d, dtype=torch.float64)
    classes = torch.arange(K) % min(3, K)
    return Mixture(means, covs, weights/weights.sum(), classes), g


def theirs(world, sigma, own):
    "The blurred class by torch.distributions."
    D = torch.distributions
    cov = world.covs()[own] + sigma**2*torch.eye(world.dim, dtype=torch.float64)
    return D.MixtureSameFamily(D.Categorical(world.weights[own]), D.MultivariateNormal(world.means[own], cov))


@PROPERTY
@given(SEED, DIM, PARTS, SIGMA)
def test_density_score_and_denoiser_of_a_random_world(seed, d, K, sigma):
    world, g = random_world(seed, d, K)
    x = (world.means[:1] + (1 + sigma)*torch.randn(6, d, generator=g).double()).requires_grad_()
    for y in (NULL, 0):
        log_p = theirs(world, sigma, (world.labels == y) | (y == NULL)).log_prob(x)
        score, = torch.autograd.grad(log_p.sum(), x)
        torch.testing.assert_close(world.log_prob(x, sigma, y), log_p, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(world.score(x, sigma, y), score, rtol=1e-7, atol=1e-9*(1 + 1/sigma))
        torch.testing.assert_close(world(x, sigma, y), x + sigma**2*score, rtol=1e-7, atol=1e-7*(1 + sigma))


@PROPERTY
@given(SEED, DIM, PARTS, SIGMA)
def test_posterior_is_bayes_rule(seed, d, K, sigma):
    world, g = random_world(seed, d, K)
    x = 3*torch.randn(5, d, generator=g).double()
    prior = torch.stack([world.weights[world.labels == c].sum() for c in range(world.classes)])
    bayes = torch.stack([world.log_prob(x, sigma, c) for c in range(world.classes)], 1).exp()*prior
    torch.testing.assert_close(world.posterior(x, sigma), bayes/bayes.sum(1, keepdim=True), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize('world', WORLDS, ids=lambda w: f'{type(w).__name__}{w.dim}')
def test_a_batch_is_its_rows(world):
    "Noise level and label belong to the row: no row knows of the others, alone or under a double batch."
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, world.dim, generator=g).double()
    sigma = torch.tensor([.1, .3, 1., 3., 10., 80.]).double()
    y = torch.tensor([NULL, 0, 1]*2)
    whole = world(x, sigma, y)
    for i in range(6):
        alone = world(x[i:i+1], sigma[i].item(), y[i].item())
        torch.testing.assert_close(alone, whole[i:i+1], rtol=1e-12, atol=1e-12)
    guided = guide(world, scale=2.)(x, sigma, y)
    torch.testing.assert_close(guided, 2*whole - world(x, sigma), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('world', WORLDS, ids=lambda w: f'{type(w).__name__}{w.dim}')
def test_extreme_noise_gives_finite_answers(world):
    x = torch.tensor([0., 30., -1e3]).double()[:, None].expand(3, world.dim)
    for sigma in (1e-3, 1., 1e4):
        assert world(x, sigma, 0).isfinite().all()
        assert world.posterior(x, sigma).sum(1).allclose(torch.ones(3).double())


def test_type_and_shape_of_a_sample_are_kept():
    world = Points(torch.rand(5, 1, 4, 4), torch.arange(5) % 2)
    x = torch.rand(3, 1, 4, 4)
    assert world(x, torch.tensor([.1, 1., 9.]), torch.tensor([0, 1, NULL])).shape == x.shape
    assert {f(x, 1.).dtype for f in (world, world.score, world.log_prob, world.posterior)} == {torch.float32}
    assert three_gaussians().score(torch.zeros(2, 2, dtype=torch.float64), .5).dtype == torch.float64


@PROPERTY
@given(SEED, st.integers(1, 3), st.integers(0, 4))
def test_closed_and_gridded_tilt_agree(seed, parts, scale):
    strong, _ = random_world(seed, 1, parts)
    pair = Pair(strong, Mixture([[.3]], 40.))
    grid = tilt_on(mesh(-60, 60, 12001), pair, scale)
    at = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(tilt(pair, scale).score(at, .5), grid.score(at, .5), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('sigma', [0., .3, 2.])
@pytest.mark.parametrize('scale', [2, 3])
def test_tilt_on_a_grid_mixes_densities_of_its_noise_level(scale, sigma):
    "It is the tilt of the blurred densities, not the blurred tilt, nor the tilt without noise."
    def pair_at(s): return Pair(Mixture([[0.], [1.5]], [.3 + s**2, .5 + s**2], [.7, .3], [0, 0]), Mixture([[.5]], 2. + s**2))
    grid = tilt_on(mesh(-25, 25, 5001), pair_at(0.), scale, sigma=sigma)
    want = tilt(pair_at(sigma), scale)
    for got, true in zip(grid.moments(), want.moments()): torch.testing.assert_close(got, true, rtol=1e-8, atol=1e-8)
    if sigma: assert (grid.moments()[1] - tilt(pair_at(0.), scale).moments()[1]).abs() > .01


def test_a_pair_has_a_density_without_noise_only_if_both_have():
    "Points and boxes have none, on whichever side they stand."
    bell, points, box = Mixture([[0.]], 1.), Points(torch.zeros(3, 1)), Boxes([0.], [1.])
    x = torch.zeros(2, 1)
    assert Pair(bell, bell).clean and Pair(bell, bell).log_prob(x).isfinite().all()
    for none in (Pair(bell, points), Pair(points, bell), Pair(box, bell), Pair(bell, box), Pair(points, box)):
        assert not none.clean
        for ask in (none.log_prob, none.score):
            with pytest.raises(InputError, match='^sigma: got .*, allowed: finite and > 0'): ask(x)
        assert none.log_prob(x, .1).isfinite().all()


@PROPERTY
@given(st.floats(.1, 4), st.floats(.1, 4), st.floats(-2, 2), st.floats(-2, 6), st.floats(.05, 2))
def test_law_of_the_guided_flow(v_c, v_u, shift, scale, end):
    "Closed form against the integrated path, any variances, means and scales."
    c, u = Gauss(shift, v_c), Gauss(-.5, v_u)
    pair = Pair(Mixture([[c.mean]], c.var), Mixture([[u.mean]], u.var))
    zero, one = transport(guide(pair, scale=scale), torch.tensor([[0.], [1.]]).double(), 10., end, 0)[:, 0]
    gain, offset = ode_map(c, u, scale, 10., end)
    assert one - zero == pytest.approx(gain, rel=1e-6, abs=1e-8) and zero == pytest.approx(offset, rel=1e-6, abs=1e-7)


@PROPERTY
@given(st.floats(.1, 4), st.floats(.1, 4), st.floats(-2, 2))
def test_all_laws_agree_without_guidance(v_c, v_u, shift):
    "At scale 1 every way of guiding returns the class, at scale 0 the whole."
    c, u = Gauss(shift, v_c), Gauss(.7, v_u)
    def swept(c, u, s): return gibbs_law(c, u, s, .8)
    def windowed(c, u, s): return ode_law(c, u, s, (.3, 2.))
    for law in (tilt_law, ode_law, sde_law, swept, windowed):
        assert tuple(map(float, law(c, u, 1.))) == pytest.approx(c, rel=1e-6, abs=1e-6)
    for law in (tilt_law, ode_law, sde_law):
        assert tuple(map(float, law(c, u, 0.))) == pytest.approx(u, rel=1e-6, abs=1e-6)


BAD = {
    'covs': lambda: Mixture([[0., 0.]], [[[1., 2.], [2., 1.]]]),
    'covs, asymmetric': lambda: Mixture([[0., 0.]], [[[1., .5], [0., 1.]]]),
    'covs, zero': lambda: Mixture([[0.]], 0.),
    'weights': lambda: Mixture([[0.], [1.]], 1., [.5, .6]),
    'weights, negative': lambda: Mixture([[0.], [1.]], 1., [1.5, -.5]),
    'weights, length': lambda: Mixture([[0.], [1.]], 1., [1.]),
    'labels': lambda: Mixture([[0.], [1.]], 1., labels=[0, 2]),
    'labels, length': lambda: Mixture([[0.], [1.]], 1., labels=[0]),
    'y': lambda: three_gaussians()(torch.zeros(2, 2), 1., 3),
    'y, below': lambda: three_gaussians()(torch.zeros(2, 2), 1., torch.tensor([0, -2])),
    'sigma': lambda: three_gaussians()(torch.zeros(2, 2), 0.),
    'sigma, negative': lambda: three_gaussians().score(torch.zeros(2, 2), -1.),
    'sigma, nan': lambda: three_gaussians()(torch.zeros(2, 2), torch.tensor([1., float('nan')])),
    'sigma of points': lambda: Points(torch.zeros(2, 2)).log_prob(torch.zeros(2, 2)),
    'x': lambda: three_gaussians()(torch.zeros(2, 3), 1.),
    'boxes': lambda: Boxes([1.], [1.]),
    'pair': lambda: Pair(three_gaussians(), two_boxes()),
    'world': lambda: tilt(Pair(two_boxes(), two_boxes()), 2.),
    'world, parts': lambda: tilt(three_gaussians(), 2.),
    'scale': lambda: tilt(Pair(Mixture([[0.]], 3.), Mixture([[0.]], 2.)), 4.),
    'scale, grid': lambda: tilt_on(mesh(-1, 1, 99, 2), three_gaussians(), 2.),
}


@pytest.mark.parametrize('what', BAD)
def test_bad_input_is_one_line_that_names_it(what):
    with pytest.raises(InputError) as e: BAD[what]()
    said = str(e.value)
    assert said.startswith(what.split()[0].strip(',')) and 'got' in said and 'allowed' in said and '\n' not in said
