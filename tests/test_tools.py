"The tools that train: one command for a GPU, rehearsed, the runs that choose a recipe, and the one that ships a run."
import json, shutil, subprocess, sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest, torch
from PIL import Image

from cfg_course.core import InputError
from cfg_course.denoisers import find_model, load_denoiser, shipped_models
from cfg_course.guidance import guide
from cfg_course.networks import UNetConfig
from cfg_course.samplers import sample
from cfg_course.training import RECIPES, TrainConfig, train
from notebooks import ROOT

sys.path.insert(0, str(ROOT/'tools'))
import gpu, recipe, ship

REHEARSE = ['--rehearse', '--minutes', '.001', '--device', 'cpu']
REPORT = {'device', 'torch', 'parameters', 'multiply_adds', 'batch_size', 'batch_sizes', 'images', 'seconds',
    'seconds_before_training', 'images_per_s', 'operations_per_s', 'matrix_operations_per_s', 'share_of_measured_rate',
    'share_of_data_sheet', 'memory_gb', 'heldout', 'sampling'}
SAMPLING = {'images', 'steps', 'seconds', 'seconds_compiled', 'seconds_of_bare_network', 'loop_over_bare',
    'largest_difference_to_cpu', 'median_difference_to_cpu'}
MODELS = {'model-0.05.safetensors', 'model-0.1.safetensors'}


def files(folder): return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def complain(main, line, capsys):
    "The one line with which a command refuses."
    with pytest.raises(SystemExit) as stop: main(line)
    err = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(err) == 1, err
    return err[0]


@pytest.fixture(scope='module')
def rehearsed(tmp_path_factory):
    "The folder of a rehearsal."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp('gpu')/'out'
    gpu.main([*REHEARSE, '--out', str(out)])
    torch.set_num_threads(threads)
    return out


def test_what_a_rehearsal_leaves(rehearsed):
    "A report with everything that is documented and nothing else, a log, a picture, and models."
    assert {p.name for p in rehearsed.iterdir()} == {'report.json', 'log.csv', 'grid.png', *MODELS}
    report = json.loads((rehearsed/'report.json').read_text())
    assert report.keys() == REPORT and report['sampling'].keys() == SAMPLING
    assert [k for k in REPORT if k not in gpu.__doc__] == []
    assert report['device'] == 'CPU'
    assert all(report[k] > 0 for k in ('images', 'images_per_s', 'share_of_measured_rate'))
    assert report['batch_sizes'].keys() <= {'16', '32'} and str(report['batch_size']) in report['batch_sizes']
    assert report['sampling']['largest_difference_to_cpu'] == 0 and set(report['heldout']) == {'0.05', '0.1'}
    log = pd.read_csv(rehearsed/'log.csv')
    assert list(log.columns) == ['step', 'loss', 'lr', 'images_per_s', 'seconds']
    assert log.step.iloc[-1]*report['batch_size'] == report['images']


@pytest.mark.parametrize('width', ['0.05', '0.1'])
def test_its_models_can_be_used(rehearsed, width):
    path = rehearsed/f'model-{width}.safetensors'
    model, meta = find_model(str(path))
    assert path.stat().st_size < gpu.LIMIT
    assert (meta['data'], meta['ema'], meta['train']['split']) == ('digits', float(width), 'fit')
    x = sample(guide(model, scale=2.), torch.arange(4), tuple(meta['shape']), steps=2)
    assert x.shape == (4, 1, 8, 8) and x.isfinite().all()


def test_a_report_is_replaced_only_when_asked(rehearsed, tmp_path, monkeypatch, capsys):
    "An earlier report, and all that belongs to it, but nothing else. What is there before training is whole too."
    out = tmp_path/'out'
    shutil.copytree(rehearsed, out)
    (out/'model-0.2.safetensors').write_bytes(b'of another run')
    (out/'notes.txt').write_text('mine')
    line, before = [*REHEARSE, '--out', str(out)], files(out)
    assert '--overwrite' in complain(gpu.main, line, capsys) and files(out) == before
    def stop(*args): raise InputError('clock: stopped')
    monkeypatch.setattr(gpu, 'train_by_the_clock', stop)
    assert 'stopped' in complain(gpu.main, [*line, '--overwrite'], capsys)
    assert {p.name for p in out.iterdir()} == {'report.json', 'log.csv', 'notes.txt', *MODELS}
    assert json.loads((out/'report.json').read_text()).keys() == {'batch_size', 'batch_sizes'}
    assert find_model(str(out/'model-0.1.safetensors'))[1]['step'] == 0


@pytest.mark.parametrize('line,words', [
    ('--device cpu', ['--device', "'cpu'", 'a GPU', '--rehearse']),
    ('--rehearse --device abacus', ['--device', 'abacus', 'cpu']),
    ('--rehearse --minutes nan', ['--minutes', "'nan'"]), ('--rehearse --minutes -1', ['--minutes', "'-1'"]),
    ('--rehearse --minutes soon', ['--minutes', "'soon'"]),
    ('--rehearse --batch-size 0', ['--batch-size', "'0'", '>= 1']),
    ('--rehearse --lr inf', ['--lr', "'inf'"]), ('--net resnet', ['--net', 'cifar10_32']),
    ('--frobnicate', ['--frobnicate']),
    ('--rehearse --device cpu --out photos', ['--out', 'photos', 'other files']),
    ('--rehearse --device cpu --out photos --overwrite', ['--out', 'photos', 'other files']),
    ('--rehearse --device cpu --out photos/cat.txt', ['--out', 'cat.txt', 'a folder'])])
def test_a_mistake_costs_one_line(tmp_path, monkeypatch, capsys, line, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'photos').mkdir()
    (tmp_path/'photos'/'cat.txt').write_text('no report')
    said, there = complain(gpu.main, line.split(), capsys), sorted(tmp_path.rglob('*'))
    assert [w for w in words if w not in said] == [], said
    assert [p.name for p in there] == ['photos', 'cat.txt']


def test_as_a_script(tmp_path):
    line = [sys.executable, ROOT/'tools'/'gpu.py', '--device', 'cpu']
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith('gpu.py: argument --device: got')
    assert len(done.stderr.splitlines()) == 1 and list(tmp_path.iterdir()) == []


def test_a_network_too_large_to_hand_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, 'LIMIT', 10**5)
    assert 'half-precision file' in complain(gpu.main, [*REHEARSE, '--out', str(tmp_path/'new')], capsys)
    assert not (tmp_path/'new').exists()


# The largest batch that pays

def batches(monkeypatch, speeds, fits=10**9, error=torch.cuda.OutOfMemoryError('CUDA out of memory')):
    "Stubs: images a second of each size, and an error for those that do not fit."
    tried = []
    def time_step(size):
        tried.append(size)
        if size > fits: raise error
        return size/speeds[size]
    monkeypatch.setattr(gpu, 'time_step', time_step)
    return tried, lambda: gpu.largest_batch(lambda size: size, tuple(speeds))


@pytest.mark.parametrize('speeds,best,tried', [
    ({256: 100, 512: 180, 1024: 300, 2048: 500}, 2048, 4),  # always faster
    ({256: 100, 512: 180, 1024: 185, 2048: 500}, 512, 3),  # hardly faster: no more are tried
    ({256: 100, 512: 90, 1024: 300}, 256, 2),  # slower
    ({256: 100, 512: 111, 1024: 121}, 512, 3)])  # the smallest that is nearly as fast
def test_largest_batch_that_pays(monkeypatch, speeds, best, tried):
    seen, find = batches(monkeypatch, speeds)
    size, found = find()
    assert (size, seen) == (best, list(speeds)[:tried]) and found == pytest.approx({k: speeds[k] for k in seen})


@pytest.mark.parametrize('error', [
    torch.cuda.OutOfMemoryError('CUDA out of memory'), InputError('batch_size: got 1024, allowed: at most 512')])
def test_largest_batch_that_fits(monkeypatch, error):
    "A network that does not fit says so itself; for a step that does not, the trainer names a batch that fits."
    seen, find = batches(monkeypatch, {256: 100, 512: 200, 1024: 400, 2048: 800}, 512, error)
    assert find()[0] == 512 and seen == [256, 512, 1024]
    find = batches(monkeypatch, {256: 100}, 0, error)[1]
    with pytest.raises(InputError, match='batch_size: got 256, allowed: a smaller one'): find()


# By the clock

def at(done, **kwargs): return SimpleNamespace(done=done, cfg=TrainConfig(schedule='constant', steps=10**6, **kwargs))


@pytest.mark.parametrize('done,left,speed,steps,fall', [
    (100, 10., 5., 150, 37), (0, 60., 10., 600, 150), (100, 0., 5., 101, 25), (100, -3., 5., 101, 25),
    (0, .01, 1., 1, 1)])
def test_plan_end(done, left, speed, steps, fall):
    "As many steps as there is time for, at least one; a quarter of all of them with a falling rate."
    trainer = at(done)
    gpu.plan_end(trainer, left, speed)
    assert (trainer.cfg.steps, trainer.cfg.fall) == (steps, fall) and trainer.cfg.schedule == 'constant'


def test_training_ends_with_the_clock(monkeypatch):
    "A step takes 10 ms by a stub clock, 40 ms in the second half: the end moves, until the rate falls."
    clock, saves = [0.], []
    class Stub:
        done, lr, cfg = 0, 1., TrainConfig(schedule='constant', steps=10**6, batch_size=2)
        def step(self):
            clock[0] += .01 if clock[0] < 50 else .04
            self.done += 1
            return torch.tensor(1.)
    monkeypatch.setattr(gpu.time, 'perf_counter', lambda: clock[0])
    trainer = Stub()
    rows = gpu.train_by_the_clock(trainer, 100., lambda trainer, rows: saves.append(clock[0]), every=20.)
    assert trainer.done == rows[-1]['step'] and 90 < clock[0] < 115
    assert len(saves) >= 5 and saves[-1] == clock[0] and all(20 <= b - a < 25 for a, b in zip(saves, saves[1:-1]))


# The runs that choose a recipe

TINY = UNetConfig(image_size=16, channels=3, patch=2, widths=(16, 16), heads=2, emb=32)
COLUMNS = ['run', 'widths', 'blocks', 'patch', 'lr', 'parameters', 'multiply_adds', 'images', 'heldout', 'images_per_s']


@pytest.fixture
def small(tmp_path, monkeypatch):
    "Two candidates of no size, and pictures in two classes."
    dice = np.random.default_rng(0)
    for split in 'train', 'test':
        for c in 'ab':
            (tmp_path/'pics'/split/c).mkdir(parents=True)
            for i in range(5):
                pixels = dice.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path/'pics'/split/c/f'{i}.png')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe, 'RUNS', {'one': (TINY, 1e-3), 'two': (replace(TINY, blocks=(2, 1)), 2e-3)})
    monkeypatch.setitem(recipe.RECIPES, 'cifar10_16', replace(RECIPES['cifar10_16'], batch_size=4, warmup=2))
    return '--dataset folder --data-dir pics --images 6 --device cpu --precision fp32 --out out'.split()


def test_recipe(small, capsys):
    "A row for each run, with the documented columns; later runs are added, and none is replaced unasked."
    recipe.main([*small, '--only', 'two'])
    recipe.main([*small, '--only', 'one'])
    table = pd.read_csv('out/recipe.csv')
    assert list(table.columns) == list(recipe.COLUMNS) == COLUMNS and table.run.tolist() == ['one', 'two']
    assert [c for c in COLUMNS if c not in recipe.__doc__] == []
    assert table.lr.tolist() == [1e-3, 2e-3] and (table.images == 6).all() and table.parameters[0] < table.parameters[1]
    assert table.heldout.between(.5, 1.5).all() and (table.images_per_s > 0).all()
    kept = sorted(p.name for p in Path('out/one/snapshots').iterdir())
    assert kept == ['000000008-0.05.safetensors', '000000008-0.1.safetensors']
    log = pd.read_csv('out/one/log.csv').iloc[-1]
    assert table.heldout[0] == pytest.approx(min(log['heldout_0.1'], log['heldout_0.05']), rel=1e-4)
    capsys.readouterr()
    before = files(Path('out'))
    assert '--overwrite' in complain(recipe.main, [*small, '--only', 'one'], capsys) and files(Path('out')) == before


@pytest.mark.parametrize('line,words', [
    ('--only best', ['--only', 'best', 'one']), ('--images 0', ['--images', "'0'"]),
    ('--dataset imagenet', ['dataset', 'imagenet'])])
def test_recipe_refuses(small, capsys, line, words):
    said = complain(recipe.main, [*small, *line.split()], capsys)
    assert [w for w in words if w not in said] == [] and not Path('out').exists()


# Into the package

@pytest.mark.parametrize('name', [name for name in shipped_models() if name != 'digits'])
def test_a_shipped_model_has_the_line_that_makes_it_again(name):
    "What its header says is what would be written today; that of the digits says no precision, which was auto then."
    model, meta = find_model(name)
    assert meta['command'] == ship.command(meta['train'], model.net.cfg)


def test_ship(tmp_path, monkeypatch):
    "Weights in half precision, a card and a log, which say the same."
    monkeypatch.setattr(ship, 'WEIGHTS', tmp_path)
    run = tmp_path/'run'
    train(run, TrainConfig(steps=3, batch_size=16), 'digits', device='cpu', progress=False)
    ship.ship(run, 'mine', trained_on='an abacus', remark='Slow.')
    card, (model, meta) = json.loads((tmp_path/'mine.json').read_text()), load_denoiser(tmp_path/'mine.safetensors')
    assert card['command'] == meta['command'] == 'python train.py --dataset digits --steps 3 --batch-size 16'
    assert (card['device'], card['remark'], card['images'], meta['data']) == ('an abacus', 'Slow.', 48, 'digits')
    assert (tmp_path/'mine.csv').read_bytes() == (run/'log.csv').read_bytes()
    half = load_denoiser(run)[0].half().float().state_dict()
    assert all(torch.equal(v, half[k]) for k, v in model.state_dict().items())
