"Training that is killed, split over processes, led astray, or runs out of disk."
import ast, errno, json, math, os, pickle, signal, subprocess, sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest, torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import SafetensorError

from cfg_course import core, data, training
from cfg_course.core import InputError, load_tensors, rng
from cfg_course.data import load_data
from cfg_course.denoisers import Denoiser, find_model, load_denoiser
from cfg_course.guidance import guide
from cfg_course.networks import CONFIGS, UNet, UNetConfig
from cfg_course.samplers import sample
from cfg_course.schedules import stratified
from cfg_course.training import RECIPES, Diverged, OneProcess, TrainConfig, Trainer, check_size, check_train_config
from cfg_course.training import checkpoints, heldout_loss, lr_factor, make_accelerator, recipe_for, time_precisions
from cfg_course.training import draw_batch, fit, net_name, train

from launching import environment, launch_two

ROOT = Path(__file__).resolve().parents[1]
CFG = TrainConfig(steps=12, batch_size=32, warmup=3)
NET = UNetConfig(image_size=8, patch=1, widths=(16, 16), emb=16, dropout=.1)  # dropout: its random state must come back
HOW = dict(device='cpu', save_every=4, log_every=2, progress=False)
SAVES = 4, 8, 12


@pytest.fixture(scope='module', autouse=True)
def fresh():
    "One thread, so that sums have one order, and none of Accelerate's state from other files or for them."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def alone(whole, monkeypatch):
    "No state of another test. Only the run that all others are compared with draws pictures: they must change nothing."
    AcceleratorState._reset_state(True)
    monkeypatch.setattr(training, 'preview', lambda *args: None)


def go(out, cfg=CFG, **kwargs): return train(out, cfg, NET, **{**HOW, **kwargs})


@pytest.fixture(scope='module')
def whole(fresh, tmp_path_factory):
    "The folder of a run that nothing happened to."
    out = tmp_path_factory.mktemp('whole')/'run'
    go(out)
    return out


def log(out): return pd.read_csv(out/'log.csv').drop(columns=['images_per_s', 'seconds'])


def saved(out): return [int(p.stem) for p in checkpoints(out)]


def kept(out): return sorted(f'snapshots/{p.name}' for p in (out/'snapshots').glob('[0-9]*'))


def remains(out): return sorted(p.name for p in out.rglob('*') if p.name.startswith('.') or '.part' in p.name)


def assert_sound(out):
    "Every checkpoint loads and holds finite numbers."
    for p in checkpoints(out):
        tensors, meta = load_tensors(p, 'training')
        assert meta['step'] == int(p.stem) and all(t.isfinite().all() for t in tensors.values())


def assert_same(out, whole):
    "The same model, checkpoints, snapshots and log, to the bit."
    names = 'model.safetensors', *(f'checkpoints/{p.name}' for p in checkpoints(whole)), *kept(whole)
    assert saved(out) == saved(whole) and kept(out) == kept(whole)
    assert [n for n in names if (out/n).read_bytes() != (whole/n).read_bytes()] == []
    pd.testing.assert_frame_equal(log(out), log(whole))


def test_whole_run(whole):
    "What a finished run looks like; the last two checkpoints stay."
    assert saved(whole) == list(SAVES[-2:]) and remains(whole) == []
    assert log(whole).step.tolist() == [2, 4, 6, 8, 10, 12] and log(whole).loss.map(math.isfinite).all()
    assert {p.stem for p in (whole/'samples').glob('*.png')} == {f'{s:08d}' for s in SAVES}
    assert load_denoiser(whole)[1]['step'] == 12
    assert_sound(whole)


def test_again(whole, tmp_path):
    "The same configuration makes the same run."
    go(tmp_path/'run')
    assert_same(tmp_path/'run', whole)


# Killed

DYING = '''
import os, signal, torch
from cfg_course import core, training
from cfg_course.networks import UNetConfig
from cfg_course.training import TrainConfig, Trainer, train

torch.set_num_threads(1)
step, save = Trainer.step, core.save_file
def die(): os.kill(os.getpid(), signal.SIGKILL)

def fatal_step(self):
    if self.done == KILL_STEP: die()
    return step(self)

def fatal_save(tensors, path, *args):
    save(tensors, path, *args)
    if KILL_FILE and path.name.startswith(f'.{KILL_FILE}.'): os.truncate(path, os.path.getsize(path)//2); die()

Trainer.step, core.save_file, training.preview = fatal_step, fatal_save, lambda *args: None
'''


def killed(out, kill_step=None, kill_file=None, cfg=CFG, **kwargs):
    "Train in another process, which kills itself before a step or half-way through writing a file."
    go = f'train({str(out)!r}, {cfg!r}, {NET!r}, **{ {**HOW, **kwargs}!r})'
    code = f'KILL_STEP, KILL_FILE = {kill_step}, {kill_file!r}\n{DYING}\n{go}\n'
    done = subprocess.run([sys.executable, '-c', code], env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_between_checkpoints(whole, tmp_path):
    "Killed three steps after a checkpoint: the run goes on from it and ends as if nothing had happened."
    out = tmp_path/'run'
    killed(out, kill_step=7)
    assert saved(out) == [4] and remains(out) == [] and load_denoiser(out)[1]['step'] == 4
    go(out, resume=True)
    assert_same(out, whole)


def test_killed_while_writing_a_checkpoint(whole, tmp_path):
    "Half a file under a temporary name: it is not taken for a checkpoint and is in nobody's way."
    out = tmp_path/'run'
    killed(out, kill_file='00000008.safetensors')
    assert saved(out) == [4] and len(remains(out)) == 1
    assert_sound(out)
    go(out, resume=True)
    assert_same(out, whole)
    go(out, overwrite=True)
    assert_same(out, whole)


def test_killed_while_writing_the_first_model(whole, tmp_path):
    "Whatever is there by then, checkpoint, log, both or neither, the run can be resumed."
    out = tmp_path/'run'
    killed(out, kill_file='model.safetensors')
    assert_sound(out)
    go(out, resume=True)
    assert_same(out, whole)


def test_nothing_left_to_do(whole, tmp_path):
    "Resuming a finished run changes nothing."
    out = tmp_path/'run'
    go(out)
    go(out, resume=True)
    assert_same(out, whole)


# Full disk

NO_SPACE = 'No space left on device'
FULL = dict(python=lambda: OSError(errno.ENOSPC, NO_SPACE),
            rust=lambda: SafetensorError(f'Error while serializing: I/O error: {NO_SPACE} (os error 28)'))


def fill(monkeypatch, name, number, error):
    "Make the disk run full half-way through writing a file for the `number`-th time."
    save, saves = core.save_file, []
    def full(tensors, path, *args):
        save(tensors, path, *args)
        saves.append(path.name.startswith(f'.{name}.safetensors.'))
        if saves[-1] and sum(saves) == number:
            os.truncate(path, path.stat().st_size//2)
            raise error()
    monkeypatch.setattr(core, 'save_file', full)


@pytest.mark.parametrize('name,number,error', [
    ('00000004', 1, 'python'), ('model', 1, 'python'), ('00000008', 1, 'rust'), ('model', 2, 'python')])
def test_full_disk(whole, tmp_path, monkeypatch, name, number, error):
    """Nothing half-written stays, what was there is there, and with room again the run goes on. safetensors reports a
    full disk as an error of its own; a caller should have to know OSError and InputError only."""
    out = tmp_path/'run'
    with monkeypatch.context() as m:
        fill(m, name, number, FULL[error])
        with pytest.raises((OSError, InputError), match=NO_SPACE): go(out)
    assert remains(out) == []
    if number > 1 or '8' in name: assert 4 in saved(out) and load_denoiser(out)[1]['step'] in (4, 8)
    assert_sound(out)
    go(out, resume=True)
    assert_same(out, whole)


def test_full_disk_for_the_log(whole, tmp_path, monkeypatch):
    "The log is not lost with the space for its next version, nor in the way of resuming."
    out = tmp_path/'run'
    def full(self, path, **kwargs):
        Path(path).write_text('step,lo')
        raise OSError(errno.ENOSPC, NO_SPACE)
    with monkeypatch.context() as m:
        m.setattr(pd.DataFrame, 'to_csv', full)
        with pytest.raises(OSError, match=NO_SPACE): go(out)
    assert remains(out) == []
    go(out, resume=True)
    assert_same(out, whole)


# In stages

STAGED = replace(CFG, split='fit', steps=14, schedule='constant', fall=3, averages=(.2,), snapshots=(150, 290, 448))
STOPS = {5: '000000160', 10: '000000320', 14: '000000448'}  # step -> name


@pytest.fixture(scope='module')
def staged(fresh, tmp_path_factory):
    "The folder of a run in stages that nothing happened to."
    out = tmp_path_factory.mktemp('staged')/'run'
    go(out, STAGED)
    return out


def header(out, name): return load_denoiser(out/'snapshots'/f'{name}.safetensors')[1]


def weights(out, name): return load_denoiser(out/'snapshots'/f'{name}.safetensors')[0].state_dict()


def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_what_stages_leave(staged):
    "A file for each average at each stage, whose header says what it is, and the held-out loss where it was measured."
    assert kept(staged) == [f'snapshots/{name}-{width:g}.safetensors' for name in STOPS.values() for width in (.1, .2)]
    rows = log(staged).set_index('step')
    assert rows.index.tolist() == [2, 4, 5, 6, 8, 10, 12, 14]
    for width in (.1, .2):
        column = rows[f'heldout_{width:g}'].dropna()
        assert column.index.tolist() == list(STOPS)
        for step, name in STOPS.items():
            meta = header(staged, f'{name}-{width:g}')
            assert (meta['step'], meta['images'], meta['ema']) == (step, 32*step, width)
            assert len(meta['heldout']) == training.LEVELS
            assert column[step] == pytest.approx(sum(meta['heldout'])/training.LEVELS, rel=1e-5)


def test_averages_differ(staged):
    assert not any(same(weights(staged, f'{name}-0.1'), weights(staged, f'{name}-0.2')) for name in STOPS.values())


def test_heldout_loss_is_that_of_the_average_in_use(staged):
    """Without dropout, which this network has: a model that was loaded has the same loss, but for its layout in memory,
    and in half precision nearly the same."""
    unseen = load_data('digits', 'heldout')
    (model, _), meta = load_denoiser(staged), header(staged, '000000448-0.1')
    assert heldout_loss(model, unseen, STAGED) == pytest.approx(meta['heldout'], rel=1e-5)
    half = load_denoiser(staged/'snapshots'/'000000448-0.1.safetensors')[0]
    assert heldout_loss(half, unseen, STAGED) == pytest.approx(meta['heldout'], rel=1e-2)


def test_heldout_pictures_are_not_trained_on():
    "Neither do they depend on the run: two seeds have the same, and none is among those of `fit`."
    parts = {part: {x.numpy().tobytes() for x in load_data('digits', part).x} for part in ('fit', 'heldout')}
    assert not parts['fit'] & parts['heldout']
    data, other = load_data('digits', 'heldout'), replace(STAGED, seed=1)
    assert all(map(torch.equal, training.fixed_batch(data, STAGED, 3), training.fixed_batch(data, other, 3)))


def test_a_snapshot_is_a_run_of_that_length(staged, tmp_path):
    "What a constant rate is for: the snapshot of a longer run is to the bit that of a run which ended there."
    out = tmp_path/'short'
    go(out, replace(STAGED, steps=10, fall=0, snapshots=(320,)))
    for width in '0.1', '0.2':
        assert same(weights(out, f'000000320-{width}'), weights(staged, f'000000320-{width}'))
        assert header(out, f'000000320-{width}')['heldout'] == header(staged, f'000000320-{width}')['heldout']


@pytest.mark.parametrize('step,at', [(1, []), (4, [4]), (8, [4, 5]), (13, [5, 10])],
    ids=['at the start', 'before the first', 'between', 'in the fall'])
def test_killed_in_a_stage(staged, tmp_path, step, at):
    out = tmp_path/'run'
    killed(out, kill_step=step, cfg=STAGED)
    assert saved(out) == at and kept(out) == [n for n in kept(staged) if int(n[10:19]) < 32*step]
    go(out, STAGED, resume=True)
    assert_same(out, staged)


def test_killed_while_writing_a_snapshot(staged, tmp_path):
    "The first average is there, the second is not: both are made again."
    out = tmp_path/'run'
    killed(out, kill_file='000000320-0.2.safetensors', cfg=STAGED)
    assert kept(out)[:3] == kept(staged)[:3] and len(remains(out)) == 1 and saved(out) == [4, 5]
    go(out, STAGED, resume=True)
    assert_same(out, staged)


@pytest.mark.parametrize('lost', [1, 2])
def test_newest_checkpoints_lost(staged, tmp_path, lost):
    out = tmp_path/'run'
    go(out, STAGED)
    for p in checkpoints(out)[-lost:]: p.unlink()
    go(out, STAGED, resume=True)
    assert_same(out, staged)


@pytest.mark.parametrize('name,error', [
    ('000000160-0.2', 'python'), ('000000320-0.1', 'rust'), ('000000320-0.2', 'python')])
def test_full_disk_for_a_snapshot(staged, tmp_path, monkeypatch, name, error):
    "Earlier snapshots stay whole, nothing half-written stays, and with room again the run goes on."
    out = tmp_path/'run'
    with monkeypatch.context() as m:
        fill(m, name, 1, FULL[error])
        with pytest.raises((OSError, InputError), match=NO_SPACE): go(out, STAGED)
    there = [n for n in kept(staged) if n < f'snapshots/{name}']
    assert remains(out) == [] and kept(out) == there
    assert [n for n in there if (out/n).read_bytes() != (staged/n).read_bytes()] == []
    assert_sound(out)
    go(out, STAGED, resume=True)
    assert_same(out, staged)


def test_full_disk_for_a_snapshot_that_is_made_again(staged, tmp_path, monkeypatch):
    "The checkpoint after a snapshot is lost, and there is no room to write the snapshot once more: it stays."
    out, before = tmp_path/'run', {n: (staged/n).read_bytes() for n in kept(staged)}
    go(out, STAGED)
    for p in checkpoints(out): p.unlink()
    with monkeypatch.context() as m:
        fill(m, '000000320-0.1', 1, FULL['python'])
        with pytest.raises(OSError, match=NO_SPACE): go(out, STAGED, resume=True)
    assert {n: (out/n).read_bytes() for n in kept(out)} == before


def test_snapshots_can_be_sampled(staged):
    model = find_model(str(staged/'snapshots'/'000000448-0.1.safetensors'))[0]
    x = sample(guide(model, scale=2.), torch.arange(4), (1, 8, 8), steps=2)
    assert x.shape == (4, 1, 8, 8) and x.isfinite().all()


def test_overwriting_removes_snapshots(tmp_path):
    out = tmp_path/'run'
    go(out, replace(STAGED, steps=5, fall=0))
    assert len(kept(out)) == 2
    go(out, replace(CFG, steps=2), overwrite=True)
    assert kept(out) == [] and not (out/'snapshots').exists()


def test_constant_rate():
    "Warm-up, a constant, and a line whose last value is 1/fall: no jump anywhere."
    steps, warmup, fall = 100, 10, 20
    rate = [lr_factor(k, steps, warmup, 'constant', fall) for k in range(steps)]
    assert rate[:warmup] == [(k + 1)/warmup for k in range(warmup)] and set(rate[warmup:steps - fall]) == {1.}
    assert (rate[steps - fall], rate[steps - fall + 1], rate[-1]) == (1., 1 - 1/fall, 1/fall)
    assert max(abs(a - b) for a, b in zip(rate, rate[1:])) <= 1/warmup + 1e-12
    assert all(b <= a for a, b in zip(rate[warmup:], rate[warmup + 1:]))
    assert {lr_factor(k, steps, warmup, 'constant') for k in range(warmup, steps)} == {1.}


def test_a_fall_may_begin_in_the_warmup():
    "Then the rate is the smaller of both lines: the end of a short run is slow too."
    rate = [lr_factor(k, 10, 100, 'constant', 10) for k in range(10)]
    assert rate == [min((k + 1)/100, (10 - k)/10) for k in range(10)]
    assert lr_factor(99, 100, 100, 'constant', 50) == 1/50


def test_the_log_has_the_rate_of_each_step(staged):
    rows = log(staged).set_index('step').lr/STAGED.lr
    assert rows.tolist() == pytest.approx([lr_factor(k - 1, 14, 3, 'constant', 3) for k in rows.index], rel=1e-5)
    assert rows[14] == pytest.approx(1/3, rel=1e-5)


def test_every_recipe_is_sound():
    "Its values are in range, and its images fit its network."
    for name, recipe in RECIPES.items(): check_size(check_train_config(recipe), CONFIGS.get(name))


def test_a_data_set_with_a_recipe_has_its_own():
    assert recipe_for('mnist') is RECIPES['mnist']
    assert recipe_for('cifar10', 32) == replace(RECIPES['cifar10'], image_size=32)
    assert recipe_for('cifar10', 12) == replace(RECIPES['cifar10_16'], image_size=12)


def records(monkeypatch, **like):
    "A table of data sets, each with the name of one that is like it."
    table = {name: SimpleNamespace(shape=(3, 32, 32), like=other) for name, other in like.items()}
    monkeypatch.setattr(data, 'DATA', table, raising=False)


def test_a_data_set_without_a_recipe_is_trained_like_its_like(monkeypatch):
    "Its pictures are not mirrored: nobody knows whether they may be."
    records(monkeypatch, svhn='cifar10', kmnist='mnist', mnist='cifar10')
    assert recipe_for('svhn') == replace(RECIPES['cifar10'], dataset='svhn', flip=False)
    assert recipe_for('svhn', 16) == replace(RECIPES['cifar10_16'], dataset='svhn', flip=False)
    assert recipe_for('kmnist') == replace(RECIPES['mnist'], dataset='kmnist')
    assert recipe_for('mnist') is RECIPES['mnist'] and RECIPES['cifar10'].flip


@pytest.mark.parametrize('like', [None, 'nothing', 'strange'])
def test_a_data_set_like_no_other(monkeypatch, like):
    records(monkeypatch, strange=like)
    for name in 'strange', 'unknown':
        words = f"^dataset: got '{name}', allowed: digits, .*mnist"
        with pytest.raises(InputError, match=words) as said: recipe_for(name)
        assert len(str(said.value).splitlines()) == 1


# Going on from a snapshot

ELSEWHERE = replace(STAGED, steps=20, fall=3, snapshots=(512,))  # at step 16


@pytest.fixture(scope='module')
def start(staged): return str(staged/'snapshots'/'000000320-0.1.safetensors')


@pytest.fixture(scope='module')
def moved(start, tmp_path_factory):
    "The folder of a run that went on from a snapshot."
    out = tmp_path_factory.mktemp('moved')/'run'
    go(out, ELSEWHERE, start=start)
    return out


def test_going_on_from_a_snapshot(moved, start):
    "Steps are counted on, warm-up begins again, and the averages begin with the snapshot."
    assert json.loads((moved/'config.json').read_text())['train']['begun'] == 10
    rows = log(moved).set_index('step')
    assert rows.index.tolist() == [12, 14, 16, 18, 20] and saved(moved) == [16, 20]
    warm = {12: 2/3, 14: 1., 16: 1., 18: 1., 20: 1/3}
    assert (rows.lr/ELSEWHERE.lr).to_dict() == pytest.approx(warm, rel=1e-5)
    assert kept(moved) == [f'snapshots/000000512-{width}.safetensors' for width in ('0.1', '0.2')]
    assert header(moved, '000000512-0.1')['images'] == 512 and load_denoiser(moved)[1]['step'] == 20


def test_the_state_at_the_start_is_the_snapshot(moved, start, tmp_path):
    out = tmp_path/'run'
    killed(out, kill_step=11, cfg=ELSEWHERE, start=start)
    assert saved(out) == [10]
    tensors, its = load_tensors(checkpoints(out)[0], 'training')[0], load_denoiser(start)[0].state_dict()
    for name in 'net', 'average.0.1', 'average.0.2':
        assert all(torch.equal(tensors[f'{name}.{k}'], v) for k, v in its.items())
    go(out, ELSEWHERE, resume=True)
    assert_same(out, moved)


def test_killed_after_going_on(moved, start, tmp_path):
    out = tmp_path/'run'
    killed(out, kill_step=17, cfg=ELSEWHERE, start=start)
    assert saved(out) == [14, 16]
    go(out, ELSEWHERE, resume=True)
    assert_same(out, moved)


def test_killed_while_writing_the_state_at_the_start(moved, start, tmp_path):
    "There is no way back to the snapshot, and a run from scratch must not take its place."
    out = tmp_path/'run'
    killed(out, kill_file='00000010.safetensors', cfg=ELSEWHERE, start=start)
    with pytest.raises(InputError, match='--resume: .*begin again from its snapshot'): go(out, ELSEWHERE, resume=True)
    go(out, ELSEWHERE, start=start, overwrite=True)
    assert_same(out, moved)


@pytest.mark.parametrize('cfg,net,words', [
    (ELSEWHERE, replace(NET, widths=(16, 32)), r'widths \(16, 32\); this one has \(16, 16\)'),
    (ELSEWHERE, replace(NET, blocks=(1, 2), emb=32), r'blocks \(1, 2\); this one has \(1, 1\)'),
    (replace(ELSEWHERE, precond='v'), NET, 'precond v; this one has edm'),
    (replace(ELSEWHERE, objective='guidance_free'), NET, 'scaled True; this one has False'),
    (replace(ELSEWHERE, steps=10), NET, '^steps: got 10, allowed: more than 10'),
    (replace(ELSEWHERE, image_size=4), NET, '^image_size: got 4, allowed: 8, as in'),
], ids=['widths', 'the first difference', 'precond', 'objective', 'steps', 'image_size'])
def test_a_snapshot_of_another_kind(start, tmp_path, cfg, net, words):
    "Refused by name, in one line, and nothing is written."
    with pytest.raises(InputError, match=words) as said: train(tmp_path/'run', cfg, net, start=start, **HOW)
    assert len(str(said.value).splitlines()) == 1 and list(tmp_path.iterdir()) == []


def test_no_snapshot_at_all(start, tmp_path):
    "A missing file, a pickle, a damaged file, a checkpoint."
    whole = Path(start).read_bytes()
    (tmp_path/'pickle.pt').write_bytes(pickle.dumps({'a': 1}))
    (tmp_path/'cut.safetensors').write_bytes(whole[:len(whole)//2])
    newest = Path(start).parents[1]/'checkpoints'/'00000014.safetensors'
    bad = {'nowhere': 'nowhere', 'pickle.pt': 'never loaded', 'cut.safetensors': 'damaged', newest: 'a denoiser in it'}
    for path, words in bad.items():
        with pytest.raises(InputError, match=words) as said: go(tmp_path/'run', ELSEWHERE, start=tmp_path/path)
        assert len(str(said.value).splitlines()) == 1 and not (tmp_path/'run').exists()


# Precision

def precision_of(out): return json.loads((out/'config.json').read_text())['train']['precision']


@pytest.mark.parametrize('seconds,best', [
    (dict(fp32=1., bf16=2.), 'fp32'), (dict(fp32=2., bf16=1.), 'bf16'), (dict(fp32=math.inf, bf16=9.), 'bf16')])
def test_the_faster_precision_is_kept(tmp_path, monkeypatch, seconds, best):
    "Measured once: a run that is resumed keeps the choice, whatever the clock would say by then."
    out, auto = tmp_path/'run', replace(CFG, steps=2, precision='auto')
    monkeypatch.setattr(training, 'time_precisions', lambda *args, **kwargs: seconds)
    go(out, auto)
    assert precision_of(out) == best and load_denoiser(out)[1]['train']['precision'] == best
    monkeypatch.setattr(training, 'time_precisions', lambda *args, **kwargs: pytest.fail('measured again'))
    go(out, replace(auto, steps=4), resume=True)
    assert precision_of(out) == best and saved(out) == [2, 4]


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_a_precision_that_is_given_is_not_measured(tmp_path, monkeypatch, precision):
    monkeypatch.setattr(training, 'time_precisions', lambda *args, **kwargs: pytest.fail('measured'))
    go(tmp_path/'run', replace(CFG, steps=1, precision=precision))
    assert precision_of(tmp_path/'run') == precision


def test_measuring_changes_nothing(whole, tmp_path, monkeypatch):
    "The real clock runs, and the run that follows is the one without it."
    measured = []
    def first(*args, **kwargs):
        measured.append(time_precisions(*args, **kwargs))
        return dict(fp32=0., bf16=1.)
    monkeypatch.setattr(training, 'time_precisions', first)
    go(tmp_path/'run', replace(CFG, precision='auto'))
    assert_same(tmp_path/'run', whole)
    assert measured[0].keys() == {'fp32', 'bf16'} and all(0 < s < math.inf for s in measured[0].values())


def test_the_choice_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, 'time_precisions', lambda *args, **kwargs: dict(fp32=2., bf16=1.))
    go(tmp_path/'run', replace(CFG, steps=1, precision='auto'), progress=True)
    assert 'precision: bf16, 1.000 s for a gradient; fp32 takes 2.000 s' in capsys.readouterr().out.splitlines()


# Led astray

@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_diverged(whole, tmp_path, monkeypatch, bad):
    "A loss that is not finite stops the run; the last good checkpoint stays, and the run can go on from it."
    out, draw = tmp_path/'run', training.draw_batch
    def poisoned(data, cfg, step, *args):
        batch = draw(data, cfg, step, *args)
        return batch._replace(x0=batch.x0*bad) if step == 6 else batch
    with monkeypatch.context() as m:
        m.setattr(training, 'draw_batch', poisoned)
        with pytest.raises(Diverged, match='at step 7'): go(out)
    assert saved(out) == [4] and log(out).step.tolist() == [2, 4]
    assert_sound(out)
    assert all(p.isfinite().all() for p in load_denoiser(out)[0].parameters())
    go(out, resume=True)
    assert_same(out, whole)


def test_diverged_just_before_a_checkpoint(tmp_path, monkeypatch):
    "A finite loss with a gradient that is not: the weights are lost before the loss shows it, and must not be saved."
    out, loss, steps = tmp_path/'run', training.denoising_loss, []
    def steep(model, *args):
        steps.append(1)
        cliff = (0*next(model.parameters()).sum()).abs().sqrt()
        return loss(model, *args) + (cliff if len(steps) == 8 else 0)
    monkeypatch.setattr(training, 'denoising_loss', steep)
    with pytest.raises(Diverged): go(out)
    assert 4 in saved(out)
    assert_sound(out)
    assert all(p.isfinite().all() for p in load_denoiser(out)[0].parameters())


# Another configuration

def test_resume_needs_the_same_network(whole, tmp_path):
    out = tmp_path/'run'
    go(out)
    before = (out/'config.json').read_bytes(), (out/'model.safetensors').read_bytes()
    with pytest.raises(InputError, match='^(net|checkpoint): '):
        train(out, CFG, replace(NET, widths=(16, 32)), resume=True, **HOW)
    assert before == ((out/'config.json').read_bytes(), (out/'model.safetensors').read_bytes())


def test_two_precisions_in_one_process(tmp_path):
    "A notebook trains more than once."
    for precision in ('fp32', 'bf16'): go(tmp_path/precision, replace(CFG, steps=2, precision=precision))


# Without Accelerate

@pytest.fixture
def light(monkeypatch):
    "As if Accelerate were not installed, in a process of its own."
    monkeypatch.setitem(sys.modules, 'accelerate', None)
    monkeypatch.delenv('WORLD_SIZE', raising=False)


MISSING = r'^accelerate: not installed; to get it: pip install "cfg_course\[train\]"$'


@pytest.mark.parametrize('world', [None, '', '1'])
def test_one_process_draws_without_accelerate(light, monkeypatch, world):
    "The same images as with it."
    if world is not None: monkeypatch.setenv('WORLD_SIZE', world)
    acc = make_accelerator('fp32', 'cpu')
    assert isinstance(acc, OneProcess) and acc.device == torch.device('cpu')
    model, y = find_model('digits')[0], torch.arange(4)
    x = sample(guide(model, scale=2.), y, (1, 8, 8), steps=2, device=acc.device)
    monkeypatch.undo()
    real = make_accelerator('fp32', 'cpu')
    assert isinstance(real, Accelerator)
    assert torch.equal(x, sample(guide(model, scale=2.), y, (1, 8, 8), steps=2, device=real.device))


@pytest.mark.parametrize('make', [lambda: OneProcess(torch.device('cpu')), lambda: Accelerator(cpu=True)],
    ids=['ours', 'theirs'])
def test_one_process_is_what_an_accelerator_of_one_is(make):
    acc, t = make(), torch.tensor([3., 4.])
    assert (acc.device.type, acc.num_processes, acc.process_index, acc.is_main_process) == ('cpu', 1, 0, True)
    for inputs in ([1, 2, 3], []):
        with acc.split_between_processes(inputs) as mine: assert mine == inputs
    assert acc.wait_for_everyone() is None and torch.equal(acc.gather(t), t)
    for reduction in 'sum', 'mean': assert torch.equal(acc.reduce(t, reduction), t)


def test_what_needs_accelerate(light, monkeypatch):
    "Half precision, and being one of several."
    with pytest.raises(InputError, match=MISSING): make_accelerator('bf16', 'cpu')
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(InputError, match=MISSING): make_accelerator('fp32', 'cpu')


@pytest.mark.parametrize('name,device,words', [('fp64', 'cpu', 'precision'), ('fp32', 'abacus', 'device')])
def test_mistakes_are_named_first(light, name, device, words):
    with pytest.raises(InputError, match=f'^{words}: got'): make_accelerator(name, device)


def test_training_needs_accelerate(light, tmp_path, monkeypatch):
    "One line, before anything is read or written."
    model, pictures, acc = Denoiser(UNet(NET)), load_data('digits'), make_accelerator(device='cpu')
    monkeypatch.setattr(training, 'load_data', lambda *args: pytest.fail('data were read'))
    with pytest.raises(InputError, match=MISSING): go(tmp_path/'run')
    for given in None, acc:
        with pytest.raises(InputError, match=MISSING): Trainer(model, pictures, CFG, given)
    assert list(tmp_path.iterdir()) == []


def test_training_needs_pandas_for_its_log(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pandas', None)
    with pytest.raises(InputError, match='^pandas: not installed; to get it: '): go(tmp_path/'run')
    assert list(tmp_path.iterdir()) == []


HEAVY = 'accelerate', 'matplotlib', 'pandas', 'scipy', 'seaborn', 'sklearn', 'tensorboard', 'torchvision'


def imported(body):
    "The packages that statements import, those below `if TYPE_CHECKING` aside."
    for n in body:
        if isinstance(n, ast.Import): yield from (a.name.split('.')[0] for a in n.names)
        if isinstance(n, ast.ImportFrom) and not n.level: yield n.module.split('.')[0]


@pytest.mark.parametrize('module', ['training', 'denoisers'])
def test_imports_are_light(module):
    source = (ROOT/'cfg_course'/f'{module}.py').read_text(encoding='utf-8')
    assert set(imported(ast.parse(source).body)).isdisjoint(HEAVY)


LIGHT = '''
import sys
for name in 'accelerate', 'matplotlib', 'pandas', 'seaborn': sys.modules[name] = None
from cfg_course.training import make_accelerator
print(type(make_accelerator(device='cpu')).__name__)
'''


def test_a_light_install_in_a_fresh_process():
    done = subprocess.run([sys.executable, '-c', LIGHT], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ['OneProcess']), done.stderr


# Two processes

SCRIPT = '''
import sys
from pathlib import Path
from accelerate.state import PartialState
from cfg_course.networks import UNetConfig
from cfg_course.training import TrainConfig, train

train(sys.argv[1], {cfg!r}, {net!r}, **{how!r})
state = PartialState()
said = f'{{state.num_processes}} {{state.distributed_type.value}}'
(Path(sys.argv[1])/f'rank{{state.process_index}}').write_text(said)
'''


@pytest.mark.skipif(not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason='this PyTorch has no gloo, which two CPU processes talk through')
def test_two_processes(tmp_path):
    """Two CPU processes that share each batch have the loss curve of one, to 1e-4: sums over a batch are split
    differently, in float32, and ten steps of Adam magnify that. Without dropout, whose draws belong to a process."""
    cfg, net = replace(CFG, steps=10, precision='fp32'), replace(NET, dropout=0.)
    how = {**HOW, 'log_every': 1}
    train(tmp_path/'one', cfg, net, **how)
    script, out = tmp_path/'two.py', tmp_path/'two'
    script.write_text(SCRIPT.format(cfg=cfg, net=net, how=how))
    launch_two([script, out], out)
    assert [(out/f'rank{i}').read_text() for i in range(2)] == ['2 MULTI_CPU']*2
    assert log(out).step.tolist() == list(range(1, 11)) and saved(out) == [8, 10]
    torch.testing.assert_close(torch.tensor(log(out).loss), torch.tensor(log(tmp_path/'one').loss), rtol=1e-4, atol=0)


@pytest.mark.parametrize('shape, name', [((1, 8, 8), 'digits'), ((1, 12, 12), 'digits'), ((3, 12, 12), 'digits'), ((1, 13, 13), 'mnist'),
    ((1, 28, 28), 'mnist'), ((3, 13, 13), 'cifar10_16'), ((3, 16, 16), 'cifar10_16'), ((3, 17, 17), 'cifar10_small')])
def test_network_for_a_size(shape, name):
    "At every border of the sizes the network is the one that is named for it."
    assert net_name('folder', shape) == name


def test_a_batch_has_a_stream_of_its_own():
    "Noise and levels of a step come from the stream (seed, 1, step), which no order of an epoch shares."
    data, cfg = load_data('digits'), TrainConfig(batch_size=16, seed=5)
    for step in (0, 3):
        batch, g = draw_batch(data, cfg, step), rng(5, 1, step)
        stratified(16, g)
        assert torch.equal(batch.n, torch.randn(batch.n.shape, generator=g))


def test_speed_in_the_log_is_images_over_seconds():
    "A row's images a second, times its seconds, are the images since the row before."
    cfg = TrainConfig(steps=5, batch_size=8)
    net = Denoiser(UNet(UNetConfig(image_size=8, widths=(8, 8), emb=16, heads=1)), 'edm', .5)
    rows = list(fit(Trainer(net, load_data('digits'), cfg), log_every=2))
    assert [round(r['images_per_s']*r['seconds']) for r in rows] == [16, 16, 8]
