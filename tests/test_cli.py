"The three commands: what a mistake costs (one line, exit status 2, nothing written) and what they promise."
import errno, json, os, shutil, subprocess, sys, urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cfg_course import core
from cfg_course.cli import evaluate_main, sample_main, shipped_models, train_main
from cfg_course.networks import UNetConfig
from cfg_course.training import TrainConfig, train

ROOT = Path(__file__).resolve().parents[1]
TINY = UNetConfig(image_size=8, patch=2, widths=(16, 16), heads=2, emb=32)


@pytest.fixture(scope='session')
def run_folder(tmp_path_factory):
    "A run of a few steps, to sample from."
    out = tmp_path_factory.mktemp('runs')/'run'
    train(out, TrainConfig(steps=4, batch_size=16, warmup=1), TINY, device='cpu', save_every=2, progress=False)
    return out


@pytest.fixture
def place(tmp_path, run_folder, monkeypatch):
    "A working folder with a run, files that are no checkpoints, and a folder that is no run."
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_folder, 'run')
    torch.save({'a': 1}, 'pickle.pt')
    whole = Path('run/model.safetensors').read_bytes()
    Path('cut.safetensors').write_bytes(whole[:len(whole)//2])
    Path('header.safetensors').write_bytes(whole[:5])
    save_file({'a': torch.zeros(1)}, 'foreign.safetensors')
    Path('photos').mkdir(); Path('photos/cat.txt').write_text('no image')
    return tmp_path


def snapshot(folder): return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def complain(main, line, capsys):
    "The one line with which a command refuses."
    with pytest.raises(SystemExit) as stop: main(line.split())
    err = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(err) == 1, err
    return err[0]


SAMPLE = {
    '--guidance-scale nan': ['--guidance-scale', "'nan'", 'finite number'],
    '--guidance-scale inf': ['--guidance-scale', "'inf'", 'finite number'],
    '--guidance-scale -inf': ['--guidance-scale', "'-inf'", 'finite number'],
    '--guidance-scale two': ['--guidance-scale', "'two'", 'finite number'],
    '--w 1e999': ['--w', "'1e999'", 'finite number'],
    '--guidance-scale 2 --w 1': ['--w', 'not allowed with', '--guidance-scale'],
    '--num 3': ['--guidance-scale', 'strength of cfg', 'or w'],
    '--guidance-scale 2 --num 0': ['-n/--num', "'0'", '>= 1'],
    '--guidance-scale 2 --num 1.5': ['-n/--num', "'1.5'", 'whole number'],
    '--guidance-scale 2 --steps 0': ['--steps', "'0'", '>= 1'],
    '--guidance-scale 2 --seed -1': ['--seed', "'-1'", '>= 0'],
    '--guidance-scale 2 --batch-size 0': ['--batch-size', "'0'", '>= 1'],
    '--guidance-scale 2 --interval 2 1': ['--interval', '(2.0, 1.0)', 'low < high'],
    '--guidance-scale 2 --sampler euler': ['--sampler', "'euler'", 'heun'],
    '--guidance-scale 2 --sampler ddpm --v 1.5': ['--v', "'1.5'", '<= 1'],
    '--guidance-scale 2 --sampler ddim --v 0.5': ['--v', '0.5', 'ddim'],
    '--guidance-scale 2 --sampler ddim --S-churn 3': ['--S-churn', '3', 'heun'],
    '--guidance-scale 2 --guidance magic': ['--guidance', "'magic'", 'cfg'],
    '--guidance-scale 2 --device abacus': ['--device', "'abacus'", 'cpu'],
    '--guidance-scale 2 --device cuda:99': ['--device', "'cuda:99'", 'cpu'],
    '--guidance-scale 2 --model imagenet': ['--model', "'imagenet'", 'mnist'],
    '--guidance-scale 2 --model run --classes 10': ['--classes', "'10'", '0 to 9'],
    '--guidance-scale 2 --model run --classes cat': ['--classes', "'cat'", '0 to 9'],
    '--guidance-scale 2 --model nowhere/model.safetensors': ['--model', 'nowhere'],
    '--guidance-scale 2 --model pickle.pt': ['pickle.pt', 'pickle, which is never loaded'],
    '--guidance-scale 2 --model cut.safetensors': ['cut.safetensors', 'damaged'],
    '--guidance-scale 2 --model header.safetensors': ['header.safetensors', 'damaged'],
    '--guidance-scale 2 --model foreign.safetensors': ['foreign.safetensors', 'written by cfg_course'],
    '--guidance-scale 2 --model photos': ['photos', 'checkpoint'],
    '--guidance-scale 2 --model run/checkpoints/00000004.safetensors': ['00000004', 'denoiser'],
    '--guidance-scale 2 --model run --out photos': ['--out', 'photos', 'other files'],
    '--guidance-scale 2 --model run --out photos --overwrite': ['--out', 'photos', 'other files'],
    '--guidance-scale 2 --model run --out pickle.pt': ['--out', 'pickle.pt', 'folder'],
    '--guidance-scale 2 --frobnicate': ['--frobnicate'],
    '--guidance-scale 2 --mod run': ['--mod'],
}

TRAIN = {
    '--dataset imagenet': ['--dataset', "'imagenet'", 'mnist'],
    '--lr nan': ['--lr', "'nan'", 'finite number'],
    '--p-uncond 1.5': ['--p-uncond', "'1.5'", '<= 1'],
    '--steps ten': ['--steps', "'ten'", 'whole number'],
    '--device tpu': ['--device', "'tpu'", 'cpu'],
    '--out run': ['--out', 'run', '--resume', '--overwrite'],
    '--out photos --overwrite': ['--overwrite', 'photos', 'run'],
    '--out pickle.pt': ['--out', 'pickle.pt', 'folder'],
    '--resume --out nowhere': ['--resume', 'nowhere', 'run'],
    '--resume --overwrite --out run': ['--resume', '--overwrite'],
    '--resume --out run --lr 3': ['--lr', '3', '0.002'],
    '--resume --out run --net mnist': ['net', 'run that is resumed'],
    '--dataset folder --data-dir photos --out new': ['--data-dir', 'photos', 'images'],
    '--dataset folder --data-dir nowhere --out new': ['--data-dir', 'nowhere'],
}

EVALUATE = {
    '--scales 1 nan': ['--scales', "'nan'", 'finite number'],
    '--model run --num 1': ['-n/--num', "'1'", '>= 2'],
    '--model run --out rows.txt': ['--out', 'rows.txt', '.csv'],
    '--model run --out table.csv': ['--out', 'table.csv', '--overwrite'],
    '--model run --judge pickle.pt': ['pickle.pt', 'never loaded'],
    '--model run --judge mnist': ['--judge', '(1, 28, 28)', '(1, 8, 8)'],
    '--model run --judge nobody': ['nobody', 'checkpoint'],
}

CASES = [(m, line, words) for m, table in ((sample_main, SAMPLE), (train_main, TRAIN), (evaluate_main, EVALUATE)) for line, words in table.items()]


@pytest.mark.parametrize('main,line,words', CASES, ids=[f'{m.__name__[:-5]} {line}' for m, line, _ in CASES])
def test_a_mistake_costs_one_line(main, line, words, place, capsys):
    Path('table.csv').write_text('precious')
    before = snapshot(place)
    said = complain(main, line, capsys)
    assert [w for w in words if w not in said] == [], said
    assert snapshot(place) == before


def test_no_network(place, capsys, monkeypatch):
    def refuse(*args, **kwargs): raise urllib.error.URLError('no network')
    monkeypatch.setattr(urllib.request, 'urlopen', refuse)
    said = complain(train_main, '--dataset mnist --data-dir empty --out new', capsys)
    assert '--data-dir' in said and '--dataset digits' in said and not Path('new').exists() and not Path('empty').exists()


def test_full_disk_while_sampling(place, capsys, monkeypatch):
    def full(*args, **kwargs): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(np, 'savez_compressed', full)
    said = complain(sample_main, '--guidance-scale 2 --model run --num 2 --steps 2 --out new --device cpu', capsys)
    assert 'No space left' in said and not any(Path('new').iterdir())


def test_full_disk_while_training(place, capsys, monkeypatch):
    "Also as safetensors reports it, which is not as an OSError."
    def full(*args, **kwargs): raise core.SafetensorError('I/O error: No space left on device (os error 28)')
    before = {k: v for k, v in snapshot(place).items() if 'checkpoints' in str(k) or k.name == 'model.safetensors'}
    monkeypatch.setattr(core, 'save_file', full)
    said = complain(train_main, '--resume --out run --steps 8 --device cpu', capsys)
    after = snapshot(place)
    assert 'No space left' in said and all(after[k] == v for k, v in before.items())
    assert not [k for k in after if '.part' in k.name]


def test_samples_are_replaced_only_when_asked(place, capsys):
    line = '--guidance-scale 1 --model run --num 3 --steps 2 --device cpu --out new'
    sample_main(line.split())
    before = snapshot(place)
    assert '--overwrite' in complain(sample_main, line.replace('scale 1', 'scale 2'), capsys) and snapshot(place) == before
    sample_main([*line.replace('scale 1', 'scale 2').split(), '--overwrite'])
    assert json.loads(Path('new/samples.json').read_text())['scale'] == 2


def test_weight_and_scale_are_the_same(place):
    for name, option in dict(a='--guidance-scale 2.5', b='--w 1.5').items():
        sample_main(f'{option} --model run --num 4 --steps 3 --device cpu --out {name}'.split())
    assert np.array_equal(*(np.load(f'{n}/samples.npz')['images'] for n in 'ab'))


def test_negative_numbers_are_values(place):
    sample_main('--w -1e0 --model run --num 2 --steps 2 --device cpu --out new'.split())
    note = json.loads(Path('new/samples.json').read_text())
    assert note['scale'] == 0 and note['nfe_per_image'] == 3


@pytest.mark.parametrize('script', ['train', 'sample', 'evaluate'])
def test_scripts_help_and_refuse(script, tmp_path):
    go = lambda *args: subprocess.run([sys.executable, str(ROOT/f'{script}.py'), *args], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    asked, wrong = go('--help'), go('--seed', 'x')
    assert asked.returncode == 0 and 'examples:' in asked.stdout and not asked.stderr
    assert wrong.returncode == 2 and len(wrong.stderr.strip().splitlines()) == 1 and 'Traceback' not in wrong.stderr


def test_shipped_models(): assert {'digits', 'mnist'} <= set(shipped_models())


def test_two_processes_draw_the_same_images(place):
    "Sampling split over two processes by Accelerate: equal to one process, to one grey level of float32 rounding."
    line = '--guidance-scale 2 --model run -n 7 --steps 4 --device cpu --out'
    sample_main(f'{line} one'.split())
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--standalone', str(ROOT/'sample.py')]
    subprocess.run([*launch, *line.split(), 'two'], check=True, capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
    one, two = (np.load(f'{n}/samples.npz') for n in ('one', 'two'))
    assert np.array_equal(one['labels'], two['labels'])
    assert np.abs(one['images'].astype(int) - two['images']).max() <= 1
    notes = [json.loads(Path(n, 'samples.json').read_text()) for n in ('one', 'two')]
    assert [n['nfe_per_image'] for n in notes] == [14, 14] and [n['processes'] for n in notes] == [1, 2]


def test_tensorboard_and_grids_along_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_main('--steps 4 --batch-size 16 --save-every 2 --device cpu --tensorboard --out new'.split())
    assert [p.name for p in sorted(Path('new/samples').iterdir())] == ['00000002.png', '00000004.png']
    assert any(p.name.startswith('events.out.tfevents') for p in Path('new/tensorboard').iterdir())


def test_missing_tensorboard_is_said_before_anything_is_replaced(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    before = snapshot(place)
    assert '--tensorboard' in complain(train_main, '--overwrite --out run --steps 2 --device cpu --tensorboard', capsys)
    assert snapshot(place) == before
