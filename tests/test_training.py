"Training that is killed, split over processes, led astray, or runs out of disk."
import errno, math, os, signal, socket, subprocess, sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest, torch
from accelerate.state import AcceleratorState
from safetensors import SafetensorError

from cfg_course import core, training
from cfg_course.core import InputError, load_tensors
from cfg_course.denoisers import load_denoiser
from cfg_course.networks import UNetConfig
from cfg_course.training import Diverged, TrainConfig, checkpoints, train

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


def log(out): return pd.read_csv(out/'log.csv')[['step', 'loss', 'lr']]


def saved(out): return [int(p.stem) for p in checkpoints(out)]


def remains(out): return sorted(p.name for p in out.rglob('*') if p.name.startswith('.') or '.part' in p.name)


def assert_sound(out):
    "Every checkpoint loads and holds finite numbers."
    for p in checkpoints(out):
        tensors, meta = load_tensors(p, 'training')
        assert meta['step'] == int(p.stem) and all(t.isfinite().all() for t in tensors.values())


def assert_same(out, whole):
    "The same model, checkpoints and log, to the bit."
    names = 'model.safetensors', *(f'checkpoints/{p.name}' for p in checkpoints(whole))
    assert saved(out) == saved(whole)
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


def environment():
    "Ours, with the package to be found and no trace of another launcher."
    ours = {k: v for k, v in os.environ.items() if k not in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_PORT')}
    return {**ours, 'PYTHONPATH': os.pathsep.join([str(ROOT), ours.get('PYTHONPATH', '')]), 'OMP_NUM_THREADS': '1'}


def killed(out, kill_step=None, kill_file=None):
    "Train in another process, which kills itself before a step or half-way through writing a file."
    go = f'train({str(out)!r}, {CFG!r}, {NET!r}, **{HOW!r})'
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


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


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
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_addr=127.0.0.1']
    done = subprocess.run([*launch, f'--master_port={free_port()}', str(script), str(out)], env=environment(),
        capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert [(out/f'rank{i}').read_text() for i in range(2)] == ['2 MULTI_CPU']*2
    assert log(out).step.tolist() == list(range(1, 11)) and saved(out) == [8, 10]
    torch.testing.assert_close(torch.tensor(log(out).loss), torch.tensor(log(tmp_path/'one').loss), rtol=1e-4, atol=0)
