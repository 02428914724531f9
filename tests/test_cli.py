"The three commands: what a mistake costs (one line, exit status 2, nothing written) and what they promise."
import errno, json, os, pickle, shutil, subprocess, sys, urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cfg_course import core, metrics, sweeps, training
from cfg_course.classifiers import Classifier, save_classifier
from cfg_course.cli import evaluate_main, sample_main, train_main
from cfg_course.commands import find_classes, recipe_name
from cfg_course.data import TORCHVISION, load_data
from cfg_course.denoisers import Denoiser, load_denoiser, save_denoiser, shipped_models
from cfg_course.networks import CONFIGS, UNetConfig
from cfg_course.sweeps import make_yardstick
from cfg_course.training import RECIPES, TrainConfig, denoising_loss, train

from launching import launch_two

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
    '--resume --out run --recipe cifar10_small': ['--recipe', 'cifar10_small', '--resume'],
    '--recipe cifar100': ['--recipe', "'cifar100'", 'cifar10_small'],
    '--fid 1': ['--fid', "'1'", '>= 2'],
    '--resume nowhere.safetensors --out new': ['nowhere.safetensors', 'path'],
    '--resume pickle.pt --out new': ['pickle.pt', 'pickle, which is never loaded'],
    '--resume cut.safetensors --out new': ['cut.safetensors', 'damaged'],
    '--resume header.safetensors --out new': ['header.safetensors', 'damaged'],
    '--resume foreign.safetensors --out new': ['foreign.safetensors', 'written by cfg_course'],
    '--resume photos --out new': ['photos', 'path'],
    '--resume run/checkpoints/00000004.safetensors --out new': ['00000004', 'denoiser'],
    '--resume run/model.safetensors --out new': ['--resume', 'patch 1;', 'has 2'],
    '--resume run/model.safetensors --out new --net cifar10_16': ['--resume', 'patch 1;', 'has 2'],
    '--resume run/model.safetensors --out run': ['--out', 'run', '--overwrite'],
    '--resume run/model.safetensors --overwrite --out photos': ['--overwrite', 'photos', 'other files'],
    '--resume run/model.safetensors --out new --image-size 4': ['--image-size', '4', 'allowed: 8', 'run/model.safetensors'],
    '--resume run/model.safetensors --out new --dataset mnist --data-dir empty': ['--image-size', '28', 'allowed: 8'],
    '--resume --out run --image-size 4': ['--image-size', '4', 'allowed: 8', 'run that is resumed'],
    '--resume --out run --averages .2': ['--averages', '0.2', 'run that is resumed'],
    '--resume --out run --p-uncond .5 --lr 3 --batch-size 3': ['--batch-size', '3', 'allowed: 16'],
    '--image-size 9 --out new': ['--image-size', '9', 'at most 8', 'digits'],
    '--image-size 5 --out new': ['--image-size', '5', 'multiple of 2'],
    '--image-size 3 --out new': ['--image-size', "'3'", '>= 4'],
    '--dataset mnist --image-size 32 --data-dir empty --out new': ['--image-size', '32', 'at most 28', 'mnist'],
    '--dataset cifar10 --image-size 33 --data-dir empty --out new': ['--image-size', '33', 'at most 32'],
    '--dataset cifar10 --image-size 18 --data-dir empty --out new': ['--image-size', '18', 'multiple of 8'],
    '--dataset cifar10 --image-size 14 --data-dir empty --out new': ['--image-size', '14', 'multiple of 4'],
    '--recipe cifar10_16 --dataset mnist --image-size 14 --data-dir empty --out new': ['--image-size', '14', 'multiple of 4'],
    '--schedule cosine --fall 3 --out new': ['--fall', '3', 'cosine'],
    '--snapshots 0 --out new': ['--snapshots', "'0'", '>= 1'],
    '--averages .5 --out new': ['--averages', "'.5'", '<= 0.28'],
    '--precision fp8 --out new': ['--precision', "'fp8'", 'bf16'],
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


def test_a_header_of_any_length_is_read(tmp_path):
    "A header whose length begins with the byte that pickles begin with (one file in 32) is no pickle."
    first = set()
    for n in range(256):
        core.save_tensors({'a': torch.zeros(1)}, dict(kind='x', pad='-'*n), path := tmp_path/'a.safetensors')
        first.add(path.read_bytes()[0])
        assert core.load_tensors(path, 'x')[1]['pad'] == '-'*n
    assert 0x80 in first
    path.write_bytes(pickle.dumps({'a': 1}))
    with pytest.raises(core.InputError, match='never loaded'): core.load_tensors(path, 'x')


def test_no_network(place, capsys, monkeypatch):
    def refuse(*args, **kwargs): raise urllib.error.URLError('no network')
    monkeypatch.setattr(urllib.request, 'urlopen', refuse)
    said = complain(train_main, '--dataset mnist --data-dir empty --out new', capsys)
    assert '--data-dir' in said and '--dataset digits' in said and not Path('new').exists() and not Path('empty').exists()


def test_full_disk_while_sampling(place, capsys, monkeypatch):
    def full(*args, **kwargs): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(np, 'savez_compressed', full)
    before = snapshot(place)
    said = complain(sample_main, '--guidance-scale 2 --model run --num 2 --steps 2 --out new --device cpu', capsys)
    assert 'No space left' in said and snapshot(place) == before and not Path('new').exists()


def test_full_disk_while_training(place, capsys, monkeypatch):
    "Also as safetensors reports it, which is not as an OSError."
    def full(*args, **kwargs): raise core.SafetensorError('I/O error: No space left on device (os error 28)')
    before = {k: v for k, v in snapshot(place).items() if 'checkpoints' in str(k) or k.name == 'model.safetensors'}
    monkeypatch.setattr(core, 'save_file', full)
    said = complain(train_main, '--resume --out run --steps 8 --device cpu', capsys)
    after = snapshot(place)
    assert 'No space left' in said and all(after[k] == v for k, v in before.items())
    assert not [k for k in after if '.part' in k.name]


def crowded(denoise, batch, c_out):
    "A loss on a device with room for five images."
    if len(batch.y) > 5: raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')
    return denoising_loss(denoise, batch, c_out)


@pytest.mark.parametrize('precision', ['fp32', 'auto'])
def test_out_of_memory_in_training(place, capsys, monkeypatch, precision):
    """The message names a batch size that fits, and it does; the run that was to be replaced is still there. So too where
    the first to run out of memory is the measurement of which precision is faster."""
    before = snapshot(place)
    monkeypatch.setattr(training, 'denoising_loss', crowded)
    line = f'--overwrite --out run --steps 2 --device cpu --precision {precision} --batch-size'
    said = complain(train_main, f'{line} 16', capsys)
    assert '--batch-size: got 16, allowed: at most 4,' in said
    assert snapshot(place) == before
    train_main(f'{line} 4'.split())


def test_out_of_memory_in_sampling(place, capsys, monkeypatch):
    forward = Denoiser.forward
    def tight(self, x, *args):
        if len(x) > 10: raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')
        return forward(self, x, *args)
    monkeypatch.setattr(Denoiser, 'forward', tight)
    line = '--guidance-scale 2 --model run --num 20 --steps 2 --device cpu --out new'
    assert "--batch-size: got 20, allowed: at most 5," in complain(sample_main, line, capsys) and not Path('new').exists()
    sample_main(f'{line} --batch-size 5'.split())


def test_not_even_one_image_fits(place, capsys, monkeypatch):
    def never(*args): raise torch.cuda.OutOfMemoryError('CUDA out of memory')
    monkeypatch.setattr(training, 'denoising_loss', never)
    assert 'not even one image' in complain(train_main, '--out new --steps 2 --device cpu --batch-size 3', capsys) and not Path('new').exists()


def pictures(folder, side=32):
    "A folder of pictures in two classes."
    for c in 'ab':
        (folder/c).mkdir(parents=True)
        for i in range(4): Image.fromarray(np.random.default_rng(i).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(folder/c/f'{i}.png')


def test_a_run_goes_on_as_what_it_is(place):
    "Neither data set nor network need be named again, and may be: of the images' side too."
    train_main('--resume --out run --steps 6 --device cpu'.split())
    train_main('--resume --out run --steps 8 --device cpu --dataset digits --image-size 8 --batch-size 16'.split())
    made = json.loads(Path('run/config.json').read_text())
    assert made['net']['widths'] == list(TINY.widths) and load_denoiser('run')[1]['step'] == 8
    pictures(place/'pics')
    line = '--dataset folder --data-dir pics --device cpu --image-size 8 --batch-size 2 --warmup 1 --out other'
    train_main(f'{line} --steps 1'.split())
    train_main('--resume --data-dir pics --device cpu --steps 2 --out other'.split())
    assert load_denoiser('other')[1]['step'] == 2


def test_going_on_from_a_snapshot(place, capsys):
    "By the command: a new folder, whose run is counted on, and which can be resumed."
    line = '--steps 8 --batch-size 16 --warmup 2 --schedule constant --snapshots 64 --device cpu'
    train_main(f'{line} --out first'.split())
    train_main(f'{line.replace("--steps 8", "--steps 6")} --resume first/snapshots/000000064-0.1.safetensors --out second'.split())
    assert json.loads(Path('second/config.json').read_text())['train']['begun'] == 4
    train_main('--resume --steps 8 --out second --device cpu'.split())
    assert load_denoiser('second')[1]['step'] == 8 and pd.read_csv('second/log.csv').step.tolist() == [6, 8]
    capsys.readouterr()
    said = complain(train_main, f'{line} --steps 4 --resume first/snapshots/000000064-0.1.safetensors --out third', capsys)
    assert '--steps: got 4, allowed: more than 4' in said and not Path('third').exists()


@pytest.mark.parametrize('line', ['--dataset cifar10 --image-size 40', '--dataset mnist --image-size 18', '--dataset cifar10 --image-size 40 --fid 100',
    '--dataset mnist --resume run/model.safetensors'])
def test_sizes_are_refused_before_anything_is_read(place, capsys, monkeypatch, line):
    for name in TORCHVISION: monkeypatch.setitem(TORCHVISION, name, lambda *args, **kwargs: pytest.fail('opened'))
    before = sorted(place.rglob('*'))
    assert '--image-size' in complain(train_main, f'{line} --data-dir empty --out new', capsys) and sorted(place.rglob('*')) == before


@pytest.mark.parametrize('line,words', [
    ('--image-size 40', ['--image-size', '40', 'at most 32', '.png']), ('--image-size 10 --recipe cifar10_16', ['--image-size', '10', 'multiple of 4']),
    ('--image-size 8 --snapshots 4', ['--data-dir', 'train and test', 'heldout'])])
def test_a_folder_that_does_not_do(place, capsys, line, words):
    "Its pictures have to be read before their size is known; nothing is written."
    pictures(place/'pics')
    before = snapshot(place)
    said = complain(train_main, f'{line} --dataset folder --data-dir pics --steps 1 --batch-size 2 --device cpu --out new', capsys)
    assert [w for w in words if w not in said] == [] and snapshot(place) == before and not Path('new').exists()


def test_recipes_of_thumbnails():
    "CIFAR-10 at 16 pixels has a recipe of its own."
    assert [recipe_name(dict(dataset='cifar10', image_size=s)) for s in (16, 12, 20)] == ['cifar10_16', 'cifar10_16', 'cifar10']
    assert [recipe_name(g) for g in ({}, dict(dataset='mnist', image_size=16), dict(dataset='cifar10'))] == ['digits', 'mnist', 'cifar10']


def test_real_images_have_the_size_of_the_model(place, capsys):
    "A model of thumbnails is measured against thumbnails."
    pictures(place/'pics', 16)
    train_main('--dataset folder --data-dir pics --image-size 8 --steps 1 --batch-size 2 --warmup 1 --device cpu --out thumbs'.split())
    torch.manual_seed(0)
    save_classifier(Classifier((3, 8, 8), 2, width=8), 'judge.safetensors', data='folder:pics', accuracy=.5)
    meta = load_denoiser('thumbs')[1]
    yard = make_yardstick(meta['data'], ('kid',), 'judge.safetensors', 6, data_dir='pics', shape=meta['shape'])
    assert yard.reference.x.shape == (6, 3, 8, 8)
    assert torch.isin(yard.reference.x, load_data('folder', data_dir='pics', image_size=8).x).all()
    capsys.readouterr()
    line = '--model thumbs --judge judge.safetensors --data-dir pics --metrics kid accuracy --reference 8 -n 8 --scales 1 --steps 2 --device cpu --out rows.csv'
    evaluate_main(line.split())
    table = pd.read_csv('rows.csv')
    assert set(table.metric) == {'kid', 'accuracy', 'effective_scale'} and table[table.metric == 'kid'].value.notna().all()


def test_checkpoint_of_the_other_cifar_configuration(place, capsys):
    "A run goes on with its own network only, and a checkpoint that was put into another run's folder is refused by name."
    pictures(place/'pics')
    line = '--dataset folder --data-dir pics --steps 1 --batch-size 2 --device cpu --out'
    for name, net in dict(wide='cifar10_small', thin='mnist_weak').items(): train_main(f'--recipe cifar10_small --net {net} {line} {name}'.split())
    before = snapshot(place)
    said = complain(train_main, f'--resume --net cifar10 {line} wide'.replace('--steps 1', '--steps 2'), capsys)
    assert 'run that is resumed' in said and snapshot(place) == before
    shutil.copy('thin/checkpoints/00000001.safetensors', 'wide/checkpoints/00000001.safetensors')
    before = snapshot(place)
    said = complain(train_main, f'--resume {line} wide'.replace('--steps 1', '--steps 2'), capsys)
    assert 'belongs to another configuration' in said and '00000001' in said and snapshot(place) == before


def test_a_recipe_brings_its_network(place):
    pictures(place/'pics')
    train_main('--recipe cifar10_small --dataset folder --data-dir pics --steps 1 --batch-size 2 --device cpu --out new'.split())
    made = json.loads(Path('new/config.json').read_text())
    assert made['net']['widths'] == list(CONFIGS['cifar10_small'].widths) and made['net']['num_classes'] == 2
    assert (made['train']['lr'], made['data']) == (RECIPES['cifar10_small'].lr, 'folder:pics')


def test_a_compiled_network_leaves_the_same_file(place, monkeypatch):
    "With the compiler's place taken by a function that counts."
    calls = []
    monkeypatch.setattr(torch, 'compile', lambda model: calls.append(model) or model)
    for out, option in dict(plain='', compiled='--compile').items(): train_main(f'--steps 2 --batch-size 4 --device cpu --out {out} {option}'.split())
    a, b = (load_denoiser(n)[0].state_dict() for n in ('plain', 'compiled'))
    assert len(calls) == 1 and all(torch.equal(a[k], b[k]) for k in a)


def test_fid_along_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_main('--steps 4 --batch-size 16 --save-every 2 --device cpu --fid 150 --out new'.split())
    train_main('--steps 4 --batch-size 16 --save-every 2 --device cpu --out plain'.split())
    log = pd.read_csv('new/log.csv')
    assert log.fid.tolist() == [x for x in log.fid if x > 0] and log.step.tolist() == [2, 4]
    assert Path('new/model.safetensors').read_bytes() == Path('plain/model.safetensors').read_bytes()


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


def test_shipped_models(): assert {'digits', 'mnist-a'} <= set(shipped_models())


@pytest.mark.parametrize('line,model', [('', 'mnist-a'), ('--model mnist', 'mnist-a'), ('--model mnist-b', 'mnist-b'), ('--model cifar10', 'cifar10-16')])
def test_the_name_of_a_data_set_is_its_best_model(place, line, model):
    "What is noted is the model that drew, so that nobody takes one network's images for another's."
    sample_main(f'{line} --guidance-scale 2 --num 1 --classes 3 --steps 2 --device cpu --out new'.split())
    assert json.loads(Path('new/samples.json').read_text())['model'] == model


def test_two_processes_draw_the_same_images(place):
    "Sampling split over two processes by Accelerate: equal to one process, to one grey level of float32 rounding."
    line = '--guidance-scale 2 --model run -n 7 --steps 4 --device cpu --out'
    sample_main(f'{line} one'.split())
    launch_two([ROOT/'sample.py', *line.split(), 'two'], 'two')
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


# Whatever the surroundings

def fresh(words, **env):
    "A command in a process of its own."
    ours = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', **env}
    return subprocess.run([sys.executable, str(ROOT/words[0]), *words[1:]], capture_output=True, env=ours)


@pytest.mark.parametrize('backend', ['module://matplotlib_inline.backend_of_nobody', 'nonsense', 'QtAgg'])
def test_pictures_need_no_backend(backend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = fresh('evaluate.py --model digits --scales 1 -n 20 --steps 2 --sampler ddim --device cpu --out m.csv'.split(), MPLBACKEND=backend)
    assert done.returncode == 0 and b'Traceback' not in done.stderr, done.stderr
    assert Image.open('m.png').info['Software'] == 'cfg_course'


@pytest.mark.parametrize('encoding', ['cp1252', 'ascii', 'cp1252:strict'])
def test_a_console_that_lacks_letters(encoding, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = fresh(['sample.py', *'--model digits --guidance-scale 2 -n 2 --steps 2 --device cpu --out'.split(), '見本'], PYTHONIOENCODING=encoding, PYTHONUTF8='0')
    assert done.returncode == 0 and b'??/grid.png' in done.stdout and Path('見本/samples.json').is_file(), done.stderr


@pytest.mark.parametrize('how', ['', '--budget 8 --sampler ddim', '--effective-scale 2', '--plan', '--seed 0 1'])
@pytest.mark.parametrize('num', [2, 10])
def test_too_few_images_for_a_spread(how, num, place, capsys, monkeypatch):
    monkeypatch.setattr(sweeps, 'draw_point', lambda *a, **k: pytest.fail('drawn'))
    said = complain(evaluate_main, f'--model digits -n {num} --steps 2 --device cpu {how}', capsys)
    assert f'argument -n/--num: got {num}, allowed: at least 11, for class_std of 10 classes' in said or f'argument --num: got {num}, allowed: at least 11, for class_std of 10 classes' in said


def test_too_few_images_for_fid_in_training(place):
    with pytest.warns(UserWarning, match='fid.* 20 .*|20') as seen: train_main('--steps 2 --batch-size 4 --warmup 1 --save-every 1 --device cpu --fid 20 --out new'.split())
    assert len([w for w in seen if 'fid' in str(w.message)]) == 1


@pytest.mark.parametrize('names,words,places', [
    (['1', '2', '3'], ['1', '3'], (0, 2)), (['1', '2', '3'], ['0'], None), (['01', '02'], ['1'], None), (['1', '0'], ['1', '0'], (0, 1)),
    (['2', 'cat'], ['0'], None), (['0', '1', '2'], ['0', '2'], (0, 2)), (['cat', 'dog'], ['1', 'cat'], (1, 0)), (['-1', '.5'], ['0'], None)])
def test_one_reading_of_a_number(names, words, places):
    if places is not None:
        assert find_classes(words, names) == places
        return
    with pytest.raises(core.InputError, match=f"classes: got '{words[0]}', allowed: {', '.join(names)}$"): find_classes(words, names)


@pytest.mark.parametrize('weak,like', [('mnist', 'shape'), ('cifar10-16', 'shape'), ('other.safetensors', 'data'), ('fewer.safetensors', 'classes')])
@pytest.mark.parametrize('main,line', [(sample_main, '--guidance-scale 2'), (evaluate_main, '--scales 2')])
def test_a_weak_model_of_other_images(weak, like, main, line, place, capsys):
    if weak not in shipped_models() and '.' not in weak: pytest.skip(f'{weak} is not shipped')
    model, meta = load_denoiser('run')
    facts = {k: meta[k] for k in ('classes', 'shape', 'data', 'train')}
    save_denoiser(model, 'other.safetensors', **facts | dict(data='letters'))
    save_denoiser(model, 'fewer.safetensors', **facts | dict(classes=meta['classes'][:9]))
    before = snapshot(place)
    said = complain(main, f'--model digits --guidance autoguidance --guidance-arg model={weak} {line} -n 20 --steps 2 --device cpu', capsys)
    assert '--guidance-arg model' in said and weak in said and 'digits, (1, 8, 8) images in 10 classes' in said and snapshot(place) == before


def test_a_weak_model_of_the_same_images(place):
    sample_main('--model digits --guidance autoguidance --guidance-arg model=run --guidance-scale 2 -n 2 --steps 2 --device cpu --out new'.split())


def test_the_data_folder_reaches_every_metric(place, monkeypatch):
    "`cas` reads the test pictures from the folder that was given, as all others read the training pictures."
    monkeypatch.delenv('CFG_COURSE_DATA', raising=False)
    asked, load = [], metrics.load_data
    monkeypatch.setattr(metrics, 'load_data', lambda *args, **kwargs: asked.append((args, kwargs)) or load(*args, **kwargs))
    evaluate_main('--model digits --metrics cas --data-dir elsewhere -n 200 --reference 50 --scales 1 --steps 2 --sampler ddim --device cpu'.split())
    assert asked and all('elsewhere' in map(str, [*args, *kwargs.values()]) for args, kwargs in asked)


def test_too_few_images_for_a_classifier(place, capsys):
    said = complain(evaluate_main, '--model digits --metrics cas -n 127 --reference 50 --scales 1 --steps 2 --device cpu', capsys)
    assert 'got 127, allowed: at least 128, for cas' in said
