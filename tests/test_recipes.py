"The recipes of CONTRIBUTING.md, as they stand there: each is executed, and what it registers is used."
import re
from pathlib import Path

import pytest, torch

from cfg_course import catalogue, data, guidance, metrics, rules, samplers
from cfg_course.classifiers import load_classifier
from cfg_course.core import InputError
from cfg_course.metrics import measure
from cfg_course.samplers import make_sampler
from cfg_course.sweeps import Point, describe_point, draw_point, technique_of
from cfg_course.training import recipe_for, train

TEXT = (Path(__file__).parents[1]/'CONTRIBUTING.md').read_text(encoding='utf-8')
RECIPES = dict(re.findall(r'^### A (.+?)\n.*?```python\n(.*?)```', TEXT, re.M | re.S))
TABLES = [(rules, 'RULES'), (samplers, 'SAMPLERS'), (data, 'DATA'), (metrics, 'METRICS')]


@pytest.fixture(autouse=True)
def tables_stay():
    "What a recipe registers is gone afterwards."
    before = [(getattr(module, name), dict(getattr(module, name))) for module, name in TABLES]
    listed, shapes = list(data.DATASETS), dict(data.SHAPES)
    yield
    for table, was in before: table.clear(), table.update(was)
    data.DATASETS[:] = listed
    data.SHAPES.clear(), data.SHAPES.update(shapes)


def follow_recipe(name, module):
    "Execute a recipe in the namespace of the module that it is for."
    exec(compile(RECIPES[name], f'recipe: {name}', 'exec'), dict(vars(module)))


def test_all_four_are_there(): assert list(RECIPES) == ['rule', 'sampler', 'data set', 'metric']


def test_rule():
    follow_recipe('rule', rules)
    assert 'halved' in catalogue.technique_names() and catalogue.parse_guidance('halved+icg') == dict(rule='halved', weak='icg')
    point = Point('digits', 'halved', 3., sampling=(('sampler', 'ddim'), ('steps', 4)), num=10)
    assert torch.equal(draw_point(point).x, draw_point(point._replace(method='cfg', scale=2.)).x)
    with pytest.raises(InputError, match='share: got 2, allowed: a finite number >= 0 and <= 1'): draw_point(point._replace(options=(('share', 2),)))
    with pytest.raises(InputError, match='did you mean share'): draw_point(point._replace(options=(('shar', .2),)))


def test_sampler():
    follow_recipe('sampler', samplers)
    point = Point('digits', 'cfg', 2., sampling=(('sampler', 'euler_a'), ('steps', 6), ('eta', 0.)), num=10)
    ddim = point._replace(sampling=(('sampler', 'ddim'), ('steps', 6)))
    assert (draw_point(point).x.int() - draw_point(ddim).x.int()).abs().max() <= 1
    assert technique_of(describe_point(point)) not in ('cfg', technique_of(describe_point(ddim)))
    with pytest.raises(InputError, match='eta: got 2.0'): make_sampler('euler_a', eta=2.)
    with pytest.raises(InputError, match='did you mean euler_a'): make_sampler('euler_b')


class Hiragana:
    "What torchvision would return."
    classes = list('abcdefghij')
    def __init__(self, root, train, download):
        g = torch.Generator().manual_seed(int(train))
        self.data = torch.randint(256, (200, 28, 28), generator=g, dtype=torch.uint8)
        self.targets = torch.arange(200) % 10


def test_data_set(monkeypatch, tmp_path):
    "It is loaded, divided, made smaller and trained on by the recipe of MNIST."
    import torchvision
    monkeypatch.setattr(torchvision.datasets, 'KMNIST', Hiragana)
    follow_recipe('data set', data)
    assert 'kmnist' in data.DATASETS and len(data.load_data('kmnist', 'fit', tmp_path)) == 160
    assert data.load_data('kmnist', 'test', tmp_path, 14).shape == (1, 14, 14)
    recipe = recipe_for('kmnist')
    assert recipe.dataset == 'kmnist' and recipe.lr == recipe_for('mnist').lr
    small = recipe._replace(steps=2) if hasattr(recipe, '_replace') else type(recipe)(**{**vars(recipe), 'steps': 2, 'batch_size': 8, 'warmup': 1, 'precision': 'fp32'})
    model = train(tmp_path/'run', small, 'digits', tmp_path, 'cpu', progress=False)
    assert Path(model).exists()


def test_metric():
    follow_recipe('metric', metrics)
    judge, digits = load_classifier('digits')[0], data.load_data('digits', 'test')
    value, low, high = measure(judge, digits.x, digits.y, metrics=['darkness'])['darkness']
    assert low < value < high and abs(value - (digits.x < 13).double().mean().item()) < 1e-6


def test_what_is_unsaid_is_refused():
    "An option without a record, and a record without an option, when the module is imported."
    with pytest.raises(TypeError, match='no Option, or no argument'):
        @guidance.technique({}, 'name', 'paper', 'formula', title='a name')
        def make(*, size=1): return size
    with pytest.raises(TypeError, match='title'): guidance.technique({}, 'name', 'paper', 'formula')
    with pytest.raises(TypeError, match='no Option, or no argument'): samplers.sampler('name', 'karras', 3, options=dict(eta=None))(lambda denoise, now: None)
