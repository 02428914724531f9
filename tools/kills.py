"""Kill the commands at every file operation, and see whether they recover: `python tools/kills.py [SCENARIO ...]`.

A child of this process runs a command and kills itself, as `kill -9` does, before its k-th operation below the folder of
the scenario: a file that is opened for writing, renamed or removed, a folder that is made or removed, and, for weights,
which are written outside of Python, before and half-way through. Then the command is told to recover, by the option that
its help names for that. What is there in the end must be what a command leaves that nothing happened to.
"""
import argparse, contextlib, csv, json, os, shutil, signal, sys, tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import accelerate, matplotlib.figure, seaborn # noqa: F401 (children have them)
import numpy as np
import pandas # noqa: F401

from cfg_course import commands, core # noqa: F401
from cfg_course.cli import evaluate_main, sample_main, train_main

EVENTS = {'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'os.truncate', 'os.symlink', 'os.link'}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Counter:
    "Counts operations below a folder, and kills its process before one of them."
    def __init__(self): self.folder, self.count, self.fatal, self.names = None, 0, 0, []

    def __call__(self, event, args):
        if self.folder is None: return
        if event == 'open' and not is_writing(*args[1:]): return
        if event == 'open' or event in EVENTS: self.see(event, args[0], within=args[-1] if event in ('os.remove', 'os.rmdir') else -1)

    def see(self, event, path, within=-1):
        "An operation; `within` is the open folder to which a relative path belongs."
        if not isinstance(path, (str, bytes, os.PathLike)): return
        path = os.path.abspath(os.fsdecode(path)) if within in (-1, None) else f'{self.folder}/{os.fsdecode(path)}'
        if not (path + '/').startswith(f'{self.folder}/'): return
        self.count += 1
        self.names.append(f'{event} {os.path.relpath(path, self.folder)}')
        if self.count == self.fatal: os.kill(os.getpid(), signal.SIGKILL)


def is_writing(mode, flags):
    "Whether a file is opened for writing, by Python's `open` or by that of the system."
    if mode is not None: return bool(set(str(mode)) & set('wxa+'))
    return bool((flags or 0) & WRITES)


COUNTER, save_file = Counter(), core.save_file
sys.addaudithook(COUNTER)


def save_half(tensors, path, *args):
    "Weights, with an operation before them and one half-way."
    COUNTER.see('weights', path)
    if COUNTER.folder and COUNTER.count + 1 == COUNTER.fatal:
        save_file(tensors, path, *args)
        os.truncate(path, os.path.getsize(path)//2)
    COUNTER.see('half of the weights', path)
    save_file(tensors, path, *args)


core.save_file = save_half


class Scenario(NamedTuple):
    "A command, what is there before it, and how it recovers."
    main:Callable # of the command
    line:str # to be killed
    again:Callable # (folder, words) -> the line that recovers
    before:str = '' # a line that is run beforehand
    look:Callable = None # folder -> what must be as it would be
    torn:Callable = None # folder -> what is wrong directly after the kill


def samples(folder):
    "What samples are, and whether anything else is left."
    note = json.loads((folder/'x/samples.json').read_text())
    with np.load(folder/'x/samples.npz') as f: arrays = f['images'].tobytes() + f['labels'].tobytes()
    return {k: v for k, v in note.items() if k != 'seconds'}, arrays, (folder/'x/grid.png').read_bytes(), names(folder)


def torn_samples(folder):
    "A note beside images that it does not describe: the note is that of seed 1 or 2, and the images are too."
    note, arrays = folder/'x/samples.json', folder/'x/samples.npz'
    if not (note.is_file() and arrays.is_file()): return None
    with np.load(arrays) as f: found = f['images'].tobytes()
    return None if (json.loads(note.read_text())['seed'] == 2) == (found != SEEDS.get(1)) else 'images of another note'


SEEDS = {}


def run_files(folder):
    "What a run is, but for seconds."
    files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder/'x').rglob('*')) if p.is_file() and p.suffix in ('.safetensors', '.png')}
    log = [[row['step'], row['loss'], row['lr']] for row in csv.DictReader((folder/'x/log.csv').open())]
    return files, log, json.loads((folder/'x/config.json').read_text()), names(folder)


def rows(folder):
    "What a table is, but for seconds."
    note = json.loads((folder/'x.json').read_text())['config']
    return (folder/'x.csv').read_bytes(), note, (folder/'x.png').stat().st_size > 0, names(folder)


def names(folder): return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


def go_on(folder, line):
    "`--resume` for a run, and the same line for what is not yet one."
    if not (folder/'x/config.json').is_file(): return line
    return '--resume --device cpu --out x --save-every 2'


SAMPLE = '--model digits --guidance-scale 2 -n 2 --steps 2 --device cpu --out x'
TRAIN = '--steps 4 --batch-size 8 --warmup 1 --net digits --save-every 2 --device cpu --out x'
EVALUATE = '--model digits --metrics accuracy -n 4 --steps 2 --sampler ddim --device cpu --out x.csv'
same, over = lambda folder, line: line, lambda folder, line: f'{line} --overwrite'
SCENARIOS = {
    'sample': Scenario(sample_main, f'{SAMPLE} --seed 2', over, '', samples, torn_samples),
    'sample --overwrite': Scenario(sample_main, f'{SAMPLE} --seed 2 --overwrite', same, f'{SAMPLE} --seed 1', samples, torn_samples),
    'train': Scenario(train_main, TRAIN, go_on, '', run_files),
    'train, then --overwrite': Scenario(train_main, TRAIN, over, '', run_files),
    'train --overwrite': Scenario(train_main, f'{TRAIN} --overwrite', same, TRAIN.replace('--steps 4', '--steps 6 --seed 1'), run_files),
    'train --resume': Scenario(train_main, '--resume --device cpu --out x --save-every 2 --steps 6', same, TRAIN, run_files),
    'evaluate': Scenario(evaluate_main, f'{EVALUATE} --scales 1 2', same, '', rows),
    'evaluate --keep': Scenario(evaluate_main, f'{EVALUATE} --scales 1 2 --keep kept', same, '', rows),
    'evaluate --overwrite': Scenario(evaluate_main, f'{EVALUATE} --scales 1 2 --overwrite', lambda folder, line: line.replace(' --overwrite', ''), f'{EVALUATE} --scales 3 2 --seed 5', rows)}


def in_child(work):
    "Run `work` in a child without its words; whether it was killed, and what it returned, as JSON."
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1), os.dup2(nowhere, 2)
            os.write(write, json.dumps(work()).encode())
            status = 0
        except SystemExit as e: status = e.code or 0
        finally: os._exit(status)
    os.close(write)
    with open(read, 'rb') as f: said = f.read()
    _, code = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(code), json.loads(said or b'null')


def run(scenario, folder, line, fatal=0):
    "Run a line in a folder; its exit status, and the operations, if it was not killed at one."
    def work():
        os.chdir(folder)
        COUNTER.folder, COUNTER.count, COUNTER.fatal = str(folder), 0, fatal
        scenario.main(line.split())
        COUNTER.folder = None
        return COUNTER.names
    return in_child(work)


def warm(scenario, folder):
    "Run the command once in this process, so that its children have all that it imports."
    folder.mkdir()
    here = os.getcwd()
    os.chdir(folder)
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        for line in filter(None, (scenario.before, scenario.line)): scenario.main(line.split())
    os.chdir(here)


def prepared(scenario, folder):
    "A folder as it is before the command."
    folder.mkdir()
    if scenario.before: run(scenario, folder, scenario.before)
    if scenario.torn and scenario.before:
        with np.load(folder/'x/samples.npz') as f: SEEDS[1] = f['images'].tobytes()
    return folder


def whole(scenario, folder):
    "What the command leaves that nothing happens to, and its operations."
    status, operations = run(scenario, folder, scenario.line)
    assert status == 0, f'{scenario.line}: status {status}'
    return scenario.look(folder), operations


def recovers(scenario, folder, fatal, expected):
    "What is wrong after a kill and a recovery, in a prepared folder; nothing when all is well."
    before = names(folder)
    status, _ = run(scenario, folder, scenario.line, fatal)
    if status != -signal.SIGKILL: return f'was not killed: {status}'
    torn = scenario.torn and scenario.torn(folder)
    if torn: return torn
    untouched = fatal == 1 and names(folder) == before
    line = scenario.line if untouched else scenario.again(folder, scenario.line)
    status, _ = run(scenario, folder, line)
    if status: return f'{line}: status {status}'
    found = scenario.look(folder)
    return '' if found == expected else f'other files: {[a == b for a, b in zip(found, expected)]} {found[-1]}'


def try_all(name, points=None, every=1):
    "Yield (operation, its name, what is wrong) for some points of a scenario, or for all."
    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory() as place:
        place = Path(place).resolve()
        warm(scenario, place/'warm')
        start = prepared(scenario, place/'start')
        expected, operations = whole(scenario, shutil.copytree(start, place/'whole'))
        for k in points or range(1, len(operations) + 1, every):
            if k > len(operations): break
            folder = shutil.copytree(start, place/f'{k}')
            yield k, operations[k - 1], recovers(scenario, folder, k, expected)
            shutil.rmtree(folder)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*', metavar='SCENARIO', help=', '.join(SCENARIOS))
    p.add_argument('--quiet', action='store_true', help='only the counts')
    p.add_argument('--every', type=int, default=1, metavar='N', help='only every N-th operation')
    args = p.parse_args()
    for name in args.names or SCENARIOS:
        found = list(try_all(name, every=args.every))
        for k, operation, wrong in found:
            if wrong and not args.quiet: print(f'  {k} {operation}: {wrong}')
        print(f'{name}: {sum(not wrong for *_, wrong in found)} of {len(found)} recover', flush=True)
