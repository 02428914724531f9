"Functions of the theory chapters refuse what their theorems do not cover, and name the hypothesis; they never return a nan."
import math

import pytest
import torch

from cfg_course.core import InputError
from cfg_course.doob import cumulant_gap, one_quantity, path_price, renyi_gap
from cfg_course.guarantees import error_gain, kl_bound, least_squares_scale, support_bound, w2_bound
from cfg_course.means import fails_test, implied_variance, largest_scale, mean_test, pearson_gap
from cfg_course.mixtures import Boxes, Mixture, Pair, Points, mesh, narrow_in_wide, three_gaussians, two_boxes

x, plane = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None], torch.zeros(3, 2, dtype=torch.float64)
one, labels = torch.ones(2), torch.zeros(3, dtype=torch.long)
wide = Pair(Boxes([1.], [3.]), Boxes([1.], [2.]))
lumps = Pair(Points([[0.], [1.]]), Mixture([[0.]], 1.))
other = Pair(Points([[0.], [1.]]), Points([[0.], [2.]]))
class_wider = narrow_in_wide(3., 1.)
SUPPORT, RENYI = 'inside the support of the whole', 'finite Renyi divergence'

BAD = {
    'a box beyond the whole': (lambda: one_quantity(wide, x, .5, 2.), SUPPORT),
    'points in a density': (lambda: path_price(lumps, x, 2., 3.), SUPPORT),
    'points that the whole lacks': (lambda: renyi_gap(mesh(-9, 9, 99), other, x, .5, 2.), SUPPORT),
    'a wide class, a large scale': (lambda: renyi_gap(mesh(-9, 9, 999), class_wider, x, 2., 4.), RENYI),
    'a wide class, a larger mesh': (lambda: renyi_gap(mesh(-40, 40, 999), class_wider, x, 2., 4.), RENYI),
    'a mesh that cuts the tilt off': (lambda: renyi_gap(mesh(-1, 1, 999), narrow_in_wide(), x, 2., 2.), RENYI),
    'no scale': (lambda: one_quantity(three_gaussians(), plane, .5, math.nan), 'scale'),
    'no end': (lambda: path_price(narrow_in_wide(), x, 2., math.inf), 'end'),
    'an infinite price': (lambda: cumulant_gap(torch.tensor([0., math.inf])), 'finite K'),
    'no noise': (lambda: mean_test(three_gaussians(), plane, 0., labels), 'without noise'),
    'a scale below one': (lambda: fails_test(three_gaussians(), plane, .5, .9), 'above 1'),
    'one point as the whole': (lambda: largest_scale(Pair(Points([[-1.], [1.]]), Points([[0.]])), x, 1.), 'every direction'),
    'a plane': (lambda: pearson_gap(three_gaussians(), plane, .5, labels), 'line'),
    'no tilt at this noise': (lambda: implied_variance(3., 1., 4., .5), 'normalised'),
    'no variance': (lambda: implied_variance(0., 1., 2., .5), 'positive variance'),
    'a correlation of two': (lambda: error_gain(2., 2.), 'correlation'),
    'an infinite error': (lambda: kl_bound(torch.tensor([0., 1.]), one*math.inf), 'finite error'),
    'levels that fall': (lambda: w2_bound(torch.tensor([1., 0.]), one, one), 'rising'),
    'no Lipschitz bound': (lambda: w2_bound(torch.tensor([0., 1.]), one, one*math.inf), 'Lipschitz'),
    'a last level above 0': (lambda: support_bound(one, torch.tensor([2., 1.]), torch.zeros(1, 2)), 'the last 0'),
    'a negative reach': (lambda: support_bound(one, torch.tensor([2., 0.]), -torch.ones(1, 2)), '>= 0'),
    'equal branches': (lambda: least_squares_scale(plane, plane, plane + 1), 'd != 0'),
}


@pytest.mark.parametrize('name', BAD)
def test_hypotheses_are_named(name):
    call, word = BAD[name]
    with pytest.raises(InputError, match=word) as e: call()
    assert '\n' not in str(e.value)


def test_classes_of_a_world_are_inside_it():
    for world, at in ((two_boxes(), x), (three_gaussians(), plane), (Pair(Boxes([1.], [2.]), Boxes([0.], [2.])), x)):
        for s in (-2., 0., .5, 1., 7.): assert one_quantity(world, at, .7, s).isfinite().all()


def test_free_scales():
    for s in (0., 1.):
        assert (one_quantity(three_gaussians(), plane + .3, .7, s) == 0).all()
        assert (path_price(narrow_in_wide(), x, s, 2.)[1] == 0).all()
