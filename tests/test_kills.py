"Outputs: one process at a time, nothing foreign touched, and whatever a killed command leaves can be gone on with."
import json, os, subprocess, sys, threading, time
from pathlib import Path

import pytest
from PIL import Image

from cfg_course import commands, training
from cfg_course.cli import evaluate_main, sample_main, train_main
from cfg_course.core import InputError
from cfg_course.training import LOCK, Claim, claimed, is_unused, train
from notebooks import ROOT
from test_cli import complain, snapshot

sys.path.insert(0, str(ROOT/'tools'))
import kills

SAMPLE, TRAIN, EVALUATE = kills.SAMPLE, kills.TRAIN, f'{kills.EVALUATE} --scales 1'
POINTS = {  # operations of each scenario: after the mark, half-way through a file, between two files, before the last
    'sample': (3, 15, 26), 'sample --overwrite': (24, 26, 28), 'train': (5, 22), 'train --overwrite': (6, 12),
    'evaluate': (3, 9), 'evaluate --keep': (3, 7, 9), 'evaluate --overwrite': (3, 8, 12)}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('name', POINTS)
def test_killed_and_told_to_recover(name):
    found = list(kills.try_all(name, POINTS[name]))
    assert len(found) == len(POINTS[name]) and [f for f in found if f[-1]] == []


# One at a time

HOLD = 'import sys; from pathlib import Path; from cfg_course.training import claimed\nwith claimed(Path(sys.argv[1]), Path(sys.argv[2])): print("held", flush=True); sys.stdin.read()'


@pytest.fixture
def held():
    "`held(out, lock)`: another process that writes to `out`."
    children = []
    def hold(out, lock):
        env = {**os.environ, 'PYTHONPATH': str(ROOT)}
        child = subprocess.Popen([sys.executable, '-c', HOLD, out, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        children.append(child)
        assert child.stdout.readline() == 'held\n'
        return child
    yield hold
    for child in children: child.kill(); child.wait()


@pytest.mark.parametrize('main,line,lock', [
    (sample_main, f'{SAMPLE} --overwrite', f'x/{LOCK}'), (sample_main, SAMPLE, f'x/{LOCK}'), (train_main, TRAIN, f'x/{LOCK}'),
    (train_main, f'{TRAIN} --overwrite', f'x/{LOCK}'), (evaluate_main, EVALUATE, '.x.csv.lock'), (evaluate_main, f'{EVALUATE} --overwrite', '.x.csv.lock')])
def test_two_at_once(main, line, lock, place, held, capsys):
    "The second is refused in a line; when the first is killed its lock is nobody's."
    first = held('x', lock)
    before = snapshot(place)
    said = complain(main, line, capsys)
    assert '--out' in said and 'no other process' in said and snapshot(place) == before
    first.kill(); first.wait()
    assert Path(lock).exists()
    main(line.split())
    assert not Path(lock).exists()


def test_resuming_twice_at_once(place, held, capsys):
    train_main(TRAIN.split())
    first = held('x', f'x/{LOCK}')
    before = snapshot(place)
    assert 'no other process' in complain(train_main, '--resume --out x --steps 6 --device cpu', capsys) and snapshot(place) == before
    first.kill(); first.wait()
    train_main('--resume --out x --steps 6 --device cpu'.split())


def test_threads_of_one_process(place):
    "A claim within a claim is the same one; another thread has none."
    refused = []
    def other():
        try:
            with claimed(place/'x'): pass
        except InputError as e: refused.append(str(e))
    with claimed(place/'x') as outer, claimed(place/'x') as inner:
        assert inner is outer
        thread = threading.Thread(target=other); thread.start(); thread.join()
    assert len(refused) == 1 and not (place/'x').exists()


@pytest.mark.parametrize('names,unused', [((), True), ((LOCK,), True), ((LOCK, '.a.npz.abcdefgh.part.npz'), True), (('.a.npz.abcdefgh.part.npz',), False), ((LOCK, 'cat.jpg'), False)])
def test_what_counts_as_empty(names, unused, place):
    for name in names: Path(name).write_text('')
    assert is_unused(place) is unused


# What is not ours

def mine(name): Path(name).write_text('{"mine": 1}')


@pytest.mark.parametrize('name', ['x.json', 'x.png'])
@pytest.mark.parametrize('how', ['', '--overwrite'])
@pytest.mark.parametrize('kind', ['file', 'folder', 'link', 'note'])
def test_files_beside_a_table(name, how, kind, place, capsys, monkeypatch):
    "A note or a picture that was there before is refused before anything is drawn, whatever it is."
    if kind == 'file': mine(name)
    if kind == 'folder': Path(name).mkdir()
    if kind == 'link': mine('precious'); Path(name).symlink_to('precious')
    if kind == 'note': Path(name).write_text('{"config": {"points": 3}}')
    monkeypatch.setattr(commands, 'evaluation_points', lambda *args: pytest.fail('went on'))
    before = snapshot(place)
    said = complain(evaluate_main, f'{EVALUATE} {how}', capsys)
    assert '--out' in said and name in said and snapshot(place) == before and Path(name).exists()


def test_a_picture_of_others_in_the_format_of_ours(place, capsys):
    Image.new('L', (4, 4)).save('x.png')
    before = snapshot(place)
    assert 'x.png' in complain(evaluate_main, EVALUATE, capsys) and snapshot(place) == before


@pytest.mark.parametrize('left', [('x.csv', 'x.json', 'x.png'), ('x.json', 'x.png'), ('x.png',), ('x.json',), ('x.csv', 'x.json')])
def test_what_is_ours_may_be_replaced(left, place):
    evaluate_main(EVALUATE.split())
    table = Path('x.csv').read_bytes()
    for path in place.iterdir():
        if path.name not in left: path.unlink()
    evaluate_main(f'{EVALUATE} --overwrite'.split())
    assert Path('x.csv').read_bytes() == table and {p.name for p in place.iterdir()} == {'x.csv', 'x.json', 'x.png'}


def test_a_full_disk_leaves_the_old_samples(place, capsys, monkeypatch):
    sample_main(f'{SAMPLE} --seed 1'.split())
    before = snapshot(place)
    def full(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(commands, 'save_grid', full)
    assert 'No space left' in complain(sample_main, f'{SAMPLE} --seed 2 --overwrite', capsys) and snapshot(place) == before


# Runs

@pytest.mark.parametrize('part', ['checkpoints', 'samples', 'log.csv', 'config.json'])
def test_parts_that_lie_elsewhere(part, place):
    "The link is removed, and not what it leads to."
    train_main(TRAIN.split())
    Path('x', part).rename('elsewhere'); Path('x', part).symlink_to('../elsewhere')
    before = {p: p.read_bytes() for p in [Path('elsewhere'), *Path('elsewhere').rglob('*')] if p.is_file()}
    train_main(f'{TRAIN} --overwrite --seed 1'.split())
    assert not Path('x', part).is_symlink() and before == {p: p.read_bytes() for p in before}


@pytest.mark.parametrize('steps', [1, 2, 3])
def test_fewer_steps_than_done(steps, place, capsys):
    train_main(TRAIN.split())
    before = snapshot(place)
    said = complain(train_main, f'--resume --out x --device cpu --steps {steps}', capsys)
    assert 'argument --steps' in said and 'at least 4' in said and snapshot(place) == before
    with pytest.raises(InputError, match='at least 4'): train('x', training.TrainConfig(steps=steps, batch_size=8, warmup=1), device='cpu', resume=True)
    assert snapshot(place) == before


def pictures(n=4):
    for name, shade in dict(cat=0, dog=200).items():
        for i in range(n):
            Path('pics', name).mkdir(parents=True, exist_ok=True)
            Image.new('L', (8, 8), shade + i).save(f'pics/{name}/{i}.png')


def remove(): Path('pics/cat/0.png').unlink()
def repaint(): Image.new('L', (8, 8), 99).save('pics/cat/0.png')
def relabel(): Path('pics/cat/0.png').rename('pics/dog/9.png')
def rename(): Path('pics/cat').rename('pics/ape')


@pytest.mark.parametrize('change', [remove, repaint, relabel, rename])
def test_other_pictures_than_the_run_began_with(change, place, capsys):
    pictures()
    train_main('--dataset folder --data-dir pics --steps 2 --batch-size 4 --warmup 1 --device cpu --out x'.split())
    change()
    before = snapshot(place)
    said = complain(train_main, '--resume --data-dir pics --steps 4 --device cpu --out x', capsys)
    assert '--data-dir' in said and 'began with' in said and snapshot(place) == before


def test_a_run_without_a_fingerprint_goes_on(place):
    train_main(TRAIN.split())
    path = Path('x/config.json')
    made = json.loads(path.read_text()); del made['pictures']; path.write_text(json.dumps(made))
    train_main('--resume --steps 6 --device cpu --out x'.split())
    assert 'pictures' in json.loads(path.read_text())


def test_curves_of_a_run_that_was_killed(place, monkeypatch):
    "Each step once, although the killed process had logged steps after its last checkpoint."
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    class Killed(Exception): pass
    step = training.Trainer.step
    def fatal(self):
        if self.done == 7: raise Killed
        return step(self)
    how = dict(device='cpu', save_every=4, log_every=1, tensorboard=True, progress=False)
    cfg = training.TrainConfig(steps=8, batch_size=4, warmup=1)
    opened, board_class = [], training.board_class
    def board(): # whose events are on disk when the process dies
        kind = board_class()
        def make(*args, **kwargs): opened.append(kind(*args, **kwargs)); return opened[-1]
        return make
    monkeypatch.setattr(training, 'board_class', board)
    with monkeypatch.context() as m:
        m.setattr(training.Trainer, 'step', fatal)
        with pytest.raises(Killed): train('x', cfg, **how)
    opened.pop().close(); time.sleep(1.1)
    train('x', cfg, resume=True, **how)
    opened.pop().close()
    events = EventAccumulator('x/tensorboard'); events.Reload()
    assert [e.step for e in events.Scalars('loss')] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_claim_of_a_process_that_writes_nothing(place, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    with claimed(place/'x') as claim: claim.write('nothing')
    assert claim == Claim(None) and not list(place.iterdir())
