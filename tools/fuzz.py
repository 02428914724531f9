"""Command lines that nobody would type and files that are damaged: does a command ever fail otherwise than by one line?

    make fuzz                                    1,500 command lines and 5,000 files; writes nbs/results/fuzz.csv
    python tools/fuzz.py --lines 200 --files 0   some command lines
    python tools/fuzz.py --only pictures         files whose kind has this word in its name
    python tools/fuzz.py --case line:17          one case again, with what it said; case 17 of the files is file:17
    python tools/fuzz.py --seed 2                other cases

A case is a function of the seed and its number. It runs in a child of a process that has imported everything, in a small
world of its own: models, runs, tables, pictures, and a folder of foreign files. Command lines are made from the parsers of
the three commands and from the registers, so that a new option or technique is tried without a word here; values are good
ones, ends of ranges, and such that fit nothing. Each damaged file is read by a command that reads such files.

What must hold of each: status 0, or one line on standard error with status 2 (1 for a run that diverged, 130 for one that
was interrupted because it asked for years of work); no traceback; no code of a pickle executed; within the time and the
memory allowed; foreign files as they were, and after a refusal all other files too. A finding is printed with its
number, and a command line with the words that it takes.
"""
import argparse, contextlib, csv, faulthandler, gc, gzip, hashlib, io, json, multiprocessing, os, pickle, queue, random, resource, shutil, signal, struct, subprocess, \
    sys, tarfile, tempfile, time, traceback, urllib.error, urllib.request, zipfile, zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file

from cfg_course import cli, data
from cfg_course.branches import WORSE
from cfg_course.catalogue import SHELVES
from cfg_course.classifiers import Classifier, save_classifier
from cfg_course.core import read_results, write_results, writing
from cfg_course.metrics import METRICS
from cfg_course.networks import CONFIGS, UNet, UNetConfig
from cfg_course.samplers import SAMPLERS
from cfg_course.sweeps import read_sweep
from cfg_course.training import TrainConfig, train

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT/'nbs'/'results'/'fuzz.csv'
SEED, LINES, FILES = 1, 1500, 5000
LIMIT, SOON = 60, 4 # seconds of a case, on its processor (five times as many in all); of one that may go on for years, before it is interrupted
ROOM = 2*2**30 # bytes that a case may take beside what the process has
MAINS = dict(sample=cli.sample_main, train=cli.train_main, evaluate=cli.evaluate_main)
PARSERS = dict(sample=cli.sample_parser, train=cli.train_parser, evaluate=cli.evaluate_parser)
NEVER = {'compile'} # minutes of a C++ compiler
SMALL = 3*10**6 # parameters of a network that is trained here
ZEROS = bytes(2**20)


# The world of a case

class Canary:
    "A pickle that makes a folder when it is read."
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (self.path,)


@cache
def bomb(name, size):
    "An archive with an array of zeros, of as many MB, in little room."
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as z, z.open(f'{name}.npy', 'w', force_zip64=True) as f:
        f.write(npy_header((size*2**20,)))
        for _ in range(size): f.write(ZEROS)
    return file.getvalue()


def npy_header(shape, dtype='|u1'):
    "The beginning of an array in a file."
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, dict(descr=dtype, fortran_order=False, shape=shape))
    return file.getvalue()


def idx(array):
    "An array in MNIST's format."
    return bytes([0, 0, 8, array.ndim]) + b''.join(n.to_bytes(4, 'big') for n in array.shape) + array.tobytes()


def write_pictures(folder):
    "Folders of pictures, one for each format that Pillow can write and read."
    Image.init()
    luck = np.random.default_rng(0)
    for end, form in Image.registered_extensions().items():
        if form not in Image.OPEN or form not in Image.SAVE: continue
        if any((folder/other).is_dir() for other, f in Image.registered_extensions().items() if f == form): continue
        pixels = luck.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        file = io.BytesIO()
        for mode in ('RGB', 'L', '1'):
            try: Image.fromarray(pixels).convert(mode).save(file, form)
            except (OSError, ValueError, KeyError): file = io.BytesIO()
            else: break
        if not file.getvalue(): continue
        for name in ('a/1', 'a/2', 'b/1'):
            path = (folder/end[1:]/name).with_suffix(end)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())


def write_data(folder):
    "Tiny files in the formats of MNIST and CIFAR-10, the latter with pickles that make a folder; and the package's digits."
    raw, luck = folder/'MNIST'/'raw', np.random.default_rng(0)
    raw.mkdir(parents=True)
    for part in ('train', 't10k'):
        for name, array in dict(images=luck.integers(0, 255, (24, 28, 28), dtype=np.uint8), labels=(np.arange(24) % 10).astype(np.uint8)).items():
            (raw/f'{part}-{name}-idx{array.ndim}-ubyte').write_bytes(idx(array))
    packed = folder.parent/'packed'/'MNIST'/'raw'
    packed.mkdir(parents=True)
    for path in raw.iterdir(): (packed/f'{path.name}.gz').write_bytes(gzip.compress(path.read_bytes()))
    batches = folder.parent/'cifar'/'cifar-10-batches-py'
    batches.mkdir(parents=True)
    for name in ('data_batch_1', 'data_batch_2', 'test_batch', 'batches.meta'): (batches/name).write_bytes(pickle.dumps(Canary('CANARY')))
    with tarfile.open(folder.parent/'cifar'/'cifar-10-python.tar.gz', 'w:gz') as tar: tar.add(batches, batches.name)


def write_foreign(folder):
    "Files that are nobody's business."
    folder.mkdir()
    for name in ('package.json', 'x.csv', 'x.json', 'x.png', 'notes.txt', 'config', 'samples.npz', 'log.csv', 'model.pt'): (folder/name).write_text(f'{{"{name}": 1}}')
    (folder/'deep').mkdir()
    (folder/'deep'/'letter.txt').write_text('dear all')


def run_quietly(main, line):
    "A command that must succeed."
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere): main(line.split())


def build(world):
    "One of everything that a command reads or replaces."
    world.mkdir()
    os.chdir(world)
    tiny = UNetConfig(image_size=8, patch=2, widths=(16, 16), heads=2, emb=16)
    train('run', TrainConfig(steps=4, batch_size=8, warmup=1, averages=(.2,), snapshots=(16,)), tiny, device='cpu', save_every=2, progress=False)
    torch.manual_seed(0)
    save_classifier(Classifier((1, 8, 8), 10, width=8), 'judge.safetensors', data='digits', name='judge')
    shutil.copy('run/model.safetensors', 'model.safetensors')
    save_file({'a': torch.zeros(3)}, 'foreign.safetensors')
    torch.save({'a': torch.zeros(3)}, 'inception.pth')
    save_file({'fc.weight': torch.zeros(3)}, 'inception.safetensors')
    run_quietly(cli.sample_main, '--model run --guidance-scale 2 -n 2 --steps 2 --device cpu --out samples')
    run_quietly(cli.evaluate_main, f'{EVALUATE} --model run --scales 1 2 --keep kept --out table.csv')
    write_results([dict(scale=1., name='a', value=.9)], 'results.csv', dict(model='digits', seed=0))
    write_pictures(world/'pictures')
    write_data(world/'data')
    write_foreign(world/'foreign')
    for kind in ('package', 'home', 'empty'): Path(kind).mkdir()
    shutil.copy(ROOT/'cfg_course'/'index.json', 'package/index.json')
    shutil.copytree(ROOT/'cfg_course'/'weights', 'package/weights', ignore=lambda folder, names: [n for n in names if 'digits' not in n])
    Path('canary.pkl').write_bytes(pickle.dumps(Canary('CANARY')))
    Path('words.txt').write_text('no image')
    os.mkfifo('pipe')
    Path('dangling').symlink_to('nowhere')
    Path('loop').symlink_to('loop')


EVALUATE = '--metrics accuracy -n 4 --steps 2 --sampler ddim --device cpu'


def mark_of(path):
    "What tells a file from another: the content of a foreign one; of others size, time and rights, which cost less."
    if path.startswith('./foreign'): return hashlib.blake2b(Path(path).read_bytes()).digest()
    facts = os.lstat(path)
    return facts.st_size, facts.st_mtime_ns, facts.st_mode


def marks(folder):
    "What is in a folder: path -> mark of a file, or what else it is."
    found = {}
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = os.path.join(place, name)
            if os.path.islink(path): found[path] = os.readlink(path)
            elif os.path.isdir(path): found[path] = 'folder'
            else: found[path] = mark_of(path) if os.path.isfile(path) else 'other'
    return found


# Values, from parsers and registers

HOSTILE = ['', ' ', 'nan', 'inf', '-inf', '-1', '-0.0', '1e999', '0', '1e-320', '9'*40, '9'*5000, '-' + '9'*400, '0x10', '1_000', '٣', '½', '１２', 'x', 'é', '日本語', '\udcff', 'a\nb',
    '\n', '\t', '-', '--', '---', '@', '@words.txt', '=', '==', '%s', '%(prog)s', '{}', '{0}', '$HOME', '~', '`ls`', ';', '*', '[', '[[[', '[1, 2]', '(1,)', '{1: 2}', 'None', 'True', 'none',
    '"', "'", '\\', '\\x00', 'a'*300, 'a'*5000, '../..', '.', '..', '/', '//', '/dev/null', '/dev/zero', '/proc/self/mem', '/dev/null/x', 'b' + "'" + 'x' + "'", '1+1', '__import__("os").mkdir("CANARY")',
    '\u202e', '\x1b[31m', '\ufeff', '😀', '+', 'a+b', 'a=b', '--out', '-n', '-n2', '--num=2', '-h', '1,2', '1 2', '1e400j', '2j', '...', '..0']
KEYS = ['eta', 'eta', 'x', 'model', 'classes', 'labels', '', '=', 'a b', 'é', '__class__', 'self', 'scale', 'steps', 'seed', 'denoise', 'lambda', 'x'*3000]
VALUES = [0, 1, 2, 3, -1, 10, .5, .1, 1., -2.5, 1e-9, 1e9, 1e300, 1e-320, 10**9, 10**30, 'inf', 'nan', 'true', 'none', '[]', '[1]', '[1,2]', '(0.2,2)', '[0.5,1,2]', '[[0,.1,2]]', '((0,0,0),)', '[[[[]]]]', '["a"]',
    '["down.0"]', '["mid.1"]', '{}', '{1:2}', 'digits', 'run', 'model.safetensors', 'words.txt', 'x', '"x"', '', '-', '1j', "b'x'", '9'*400, '['*900, '-'*900 + '1', '(1,'*300, '1e999', '[inf]', '[nan,1]', '[1e999]', 'x0', 'eps']


def fields_of(parse):
    "The bounds that a `number` of the parsers knows: kind, low, high, most; none for another `type`."
    names = getattr(getattr(parse, '__code__', None), 'co_freevars', ())
    return {name: cell.cell_contents for name, cell in zip(names, parse.__closure__ or ())} if {'low', 'high'} <= set(names) else None


def numbers_near(bounds):
    "(value, is it so large that it may take years?) at the ends of a range, within it and outside."
    kind, low, high, most = (bounds[k] for k in ('kind', 'low', 'high', 'most'))
    start = low if abs(low) < 10**9 else -3
    step = 1 if kind is int else .37
    near = [start, start + step, start + 3*step, min(start + 7*step, high), start - step]
    top = high if high < float('inf') else most if kind is int else 1e300
    return [*((v, False) for v in near), (top, kind is int or top > 1000), (top + 1 if kind is int else top*1.5, False), (top*10, False)]


def options_that_fit(option, luck):
    "A value for an option of a technique, as it is typed: half of the time one that it takes."
    pool = [str(v) for v in VALUES] + [str(w) for w in option.allowed.split(', ')]
    fits = [v for v in pool if v and settles(option, v)]
    return luck.choice(fits) if fits and luck.random() < .6 else luck.choice([*pool, *HOSTILE])


def settles(option, text):
    "Whether an option takes a value, once it is read."
    if option is WORSE: return text == 'run'
    value = cli.read_literal(text) if len(text) < 500 else text
    try: option.check('x', value)
    except ValueError: return False
    return True


def technique(luck):
    "An expression of techniques, and options for it."
    kinds = luck.sample(list(SHELVES), luck.choice([1, 1, 1, 2, 2, 3]))
    if luck.random() < .1: kinds.append(luck.choice(kinds))
    names = {kind: luck.choice(list(SHELVES[kind])) for kind in kinds}
    text = '+'.join(names[kind] for kind in kinds)
    known = [pair for kind, name in names.items() for pair in SHELVES[kind][name].options.items()]
    chosen = [(k, options_that_fit(option, luck)) for k, option in luck.sample(known, luck.randint(0, len(known)))]
    if luck.random() < .15: chosen.append((luck.choice(KEYS), luck.choice(HOSTILE + [str(v) for v in VALUES])))
    if luck.random() < .1: text = luck.choice([f'{text}+', f'+{text}', f'{text}@', f'{text}:eta=nan', f'{text}@2', f'{text}(eta=1)', text.upper(), f'{text} + {text}', f'{text}++{text}', f'{text}\n', text[:-1]])
    return text, [f'{k}={v}' for k, v in chosen]


@cache
def small_networks():
    "Networks that can be trained in a moment."
    def size(cfg):
        with torch.device('meta'): return sum(p.numel() for p in UNet(cfg).parameters())
    return [name for name, cfg in CONFIGS.items() if size(cfg) < SMALL]


PATHS = ['run', 'model.safetensors', 'judge.safetensors', 'foreign.safetensors', 'run/snapshots/000000016-0.1.safetensors', 'run/checkpoints/00000004.safetensors', 'inception.pth', 'canary.pkl', 'words.txt',
    'samples', 'table.csv', 'results.csv', 'foreign', 'foreign/x.csv', 'foreign/package.json', 'foreign/new', 'pictures/png', 'pictures', 'data', 'empty', 'kept', 'pipe', 'dangling', 'loop', 'nowhere', 'nowhere/deep/er',
    'new', 'new.csv', 'deep/new.csv', 'run/config.json', 'words.txt/x', 'new\nline', 'new\udcff', 'new\udcff.csv', 'é.csv', '-new', 'new=1', 'foreign/x.png', 'home', '~/x', './/new', 'data/MNIST', 'packed', 'cifar', 'a'*300, 'b/'*3000]


def words_for(action):
    "What a text option may be given: names of the register that its help speaks of, paths, or anything."
    registers = dict(model=[*cli.index()['models'], 'run', 'model.safetensors'], teacher=['digits', 'run'], judge=['digits', 'mnist', 'judge.safetensors'], metrics=[*METRICS, 'all'], device=['cpu', 'auto', 'cuda', 'mps', 'cpu:1'],
        real=list(data.DATASETS), classes=[*map(str, range(10)), '10', '-1', '007'])
    return registers.get(action.dest, PATHS)


def value_for(action, luck):
    "(a word, may it take years?) for an option, read from its parser."
    if luck.random() < .12: return luck.choice(HOSTILE), False
    bounds = fields_of(action.type)
    if bounds:
        value, large = luck.choice(numbers_near(bounds))
        return (repr(value) if isinstance(value, float) else str(value)), large
    if action.choices:
        names = [c for c in action.choices if action.dest != 'net' or c in small_networks()]
        return luck.choice([*names, *names, names[0].upper(), names[0][:-1], '']), False
    if action.type is cli.key_value:
        options = {k: option for sampler in SAMPLERS.values() for k, option in sampler.options.items()}
        k = luck.choice([*options, *options, luck.choice(KEYS)])
        return f'{k}={options_that_fit(options[k], luck) if k in options else luck.choice(VALUES)}', False
    return luck.choice([*words_for(action), *words_for(action), luck.choice(PATHS)]), False


class Case(NamedTuple):
    "What is tried."
    kind:str # for the table
    main:str # command, or reader
    words:list # arguments
    long:bool = False # may it go on for years?
    env:dict = {} # of the environment
    spoil:Callable = None # () -> what was done to a file of the world


def option_words(action, luck):
    "(words of one option, may it take years?)"
    flag = luck.choice(action.option_strings)
    if action.dest == 'guidance':
        found = [technique(luck) for _ in range(1 if action.nargs is None else luck.randint(1, 3))]
        return [flag, *(text for text, _ in found), *(w for _, options in found for o in options for w in ('--guidance-arg', o))], False
    least = {None: 1, '+': luck.randint(1, 4), '?': luck.randint(0, 1)}.get(action.nargs, action.nargs)
    if luck.random() < .04: least = luck.randint(0, 3)
    values = [value_for(action, luck) for _ in range(least)]
    words = [v for v, _ in values]
    if len(words) == 1 and luck.random() < .15: return [f'{flag}={words[0]}'], any(large for _, large in values)
    return [flag, *words], any(large for _, large in values)


# command -> a line that is sound, and what keeps it short whatever was said before
BASE = dict(sample=('--guidance-scale 2 --model run', '-n 2 --steps 2 --device cpu'), train=('--net digits', '--steps 2 --batch-size 2 --warmup 1 --device cpu'),
    evaluate=('--model run --metrics accuracy --scales 1', '-n 12 --steps 2 --device cpu'))


def line_case(seed, number):
    "A command line."
    luck = random.Random(f'{seed} line {number}')
    command = luck.choice(['sample', 'sample', 'evaluate', 'train'])
    base, pins = BASE[command]
    actions = [a for a in PARSERS[command]()._actions if a.dest not in NEVER and a.option_strings and (a.dest != 'help' or luck.random() < .02)]
    chosen = luck.choices(actions, k=luck.choice([0, 1, 1, 2, 2, 3, 4, 6]))
    parts = [option_words(a, luck) for a in chosen]
    if luck.random() < .85: parts.insert(0, (base.split(), False))
    if luck.random() < .08: parts.append(([luck.choice([*HOSTILE, '--mod', '--frobnicate', '--guidance-scal', '-x', '--w2'])], False))
    luck.shuffle(parts)
    words = [w for part, _ in parts for w in part]
    pinned = luck.random() < .97
    if pinned: words += pins.split()
    env = {luck.choice(['CFG_COURSE_DATA', 'MPLBACKEND', 'WORLD_SIZE', 'HOME', 'CFG_COURSE_OFFLINE']): luck.choice(['', '0', 'x', 'nowhere', '/dev/null', 'foreign', '\udcff'])} if luck.random() < .06 else {}
    return Case(command, command, words, any(large for _, large in parts) or not pinned, env)


# Damage

def bytes_damage(raw, luck):
    "Some bytes changed, lost or added, anywhere or near the beginning."
    raw, how = bytearray(raw), luck.choice(['flip', 'flip', 'flip', 'byte', 'cut', 'cut', 'longer', 'zeros', 'ones', 'gap', 'empty', 'twice', 'word', 'noise'])
    at = luck.randrange(max(1, min(len(raw), luck.choice([8, 64, 512, len(raw)]))))
    if not raw: return bytes(1), 'a byte'
    if how == 'flip': raw[at] ^= 1 << luck.randrange(8)
    if how == 'byte': raw[at] = luck.randrange(256)
    if how == 'cut': del raw[at:]
    if how == 'longer': raw += luck.randbytes(luck.randrange(1, 5000))
    if how in ('zeros', 'ones'): raw[at:at + 20] = (b'\0' if how == 'zeros' else b'\xff')*len(raw[at:at + 20])
    if how == 'gap': del raw[at:at + luck.randrange(1, 99)]
    if how == 'empty': raw.clear()
    if how == 'twice': raw += bytes(raw)
    if how == 'word': raw[at:at + 4] = struct.pack(luck.choice('<>') + luck.choice('iI'), luck.choice([0, 1, 2**31 - 1, 10**4, 65535]))
    if how == 'noise': raw[:] = luck.randbytes(luck.choice([1, 7, 100, 10_000]))
    return bytes(raw), f'{how} at {at}'


STRANGE = [None, True, False, 0, -1, 1, 2, 7, 8, 16, 255, 10_000, 2**31, 2**63, 10**30, -10**30, .5, 1e308, 1e-308, float('nan'), float('inf'), '', 'a', '1', 'cpu', 'edm', 'x'*5000, '../..', '\0', '\ud800', [], [1], [[]], ['a'], [None], [1, 2, 3],
    [8]*5000, [10_000, 10_000], [10**9]*3, [{}], {}, {'a': 1}, {'': {}}, 'a b\nc']


def ways_into(facts, way=()):
    "The ways to every value of a description."
    items = facts.items() if isinstance(facts, dict) else enumerate(facts[:20]) if isinstance(facts, list) else ()
    for k, v in items:
        yield (*way, k)
        yield from ways_into(v, (*way, k))


def facts_damage(facts, luck):
    "A description with another value in one place, or without it; as text, and what was done."
    ways = list(ways_into(facts)) if facts else []
    how = luck.choice(['replace']*6 + ['drop', 'drop', 'add', 'whole', 'deep', 'twice'])
    if how == 'deep': return luck.choice(['[', '{"a":'])*100_000, how
    if how == 'whole' or not ways: return json.dumps(luck.choice(STRANGE)), how
    way, value = luck.choice(ways), luck.choice(STRANGE)
    inner = facts = json.loads(json.dumps(facts))
    for k in way[:-1]: inner = inner[k]
    if how == 'replace': inner[way[-1]] = value
    if how == 'drop': del inner[way[-1]]
    if how == 'add' and isinstance(inner, dict): inner[luck.choice(['x', '', 'kind', 'config', '__class__', 'step', 'é'])] = value
    text = json.dumps(facts)
    return (text[:-1] + f', "{way[0]}": {json.dumps(value)}}}' if how == 'twice' and text.endswith('}') else text), f'{how} {way} {value!r:.60}'


def json_damage(raw, luck):
    "A description that says something else."
    text, what = facts_damage(json.loads(raw), luck)
    return text.encode('utf-8', 'surrogatepass'), what


def tensors_damage(raw, luck):
    "A file of tensors: another header, other types, shapes or numbers, or another description."
    size = int.from_bytes(raw[:8], 'little')
    header, rest = json.loads(raw[8:8 + size]), raw[8 + size:]
    how = luck.choice(['meta']*6 + ['header', 'header', 'dtype', 'shape', 'numbers', 'numbers', 'drop', 'add', 'length', 'huge'])
    name = luck.choice([k for k in header if k != '__metadata__'])
    what = ''
    if how == 'meta' and '__metadata__' in header: header['__metadata__']['cfg_course'], what = facts_damage(json.loads(header['__metadata__']['cfg_course']), luck)
    if how == 'dtype': header[name]['dtype'] = luck.choice(['F64', 'F16', 'BF16', 'I64', 'U8', 'BOOL', 'F8_E4M3', 'X', 'C64'])
    if how == 'shape': header[name]['shape'] = luck.choice([[], [0], [1], [-1], [2**40], [2**20, 2**20], *[header[name]['shape'][::-1]]*2])
    if how == 'drop': del header[name]
    if how == 'add': header[luck.choice(['x', '', 'net.x', 'opt.x', 'opt.1', 'opt.a.b', 'opt.99999999999.exp_avg', 'average.0.1.x'])] = header[name]
    if how == 'huge': header['x'] = dict(dtype='F32', shape=[2**36], data_offsets=[len(rest), len(rest) + 2**38])
    if how == 'numbers':
        a, b = header[name]['data_offsets']
        rest = rest[:a] + (luck.choice([b'\xff', b'\x7f', b'\0', b'\x80'])*(b - a)) + rest[b:]
    if how == 'header': text, what = facts_damage(header, luck)
    else: text = json.dumps(header)
    text = text.encode('utf-8', 'surrogatepass')
    length = luck.choice([0, 1, size, 2**31, 2**63, 2**64 - 1, 10**8]) if how == 'length' else len(text)
    return length.to_bytes(8, 'little') + text + rest, f'{how} {name} {what}'


def csv_damage(raw, luck):
    "A table with another cell, column or line."
    rows = list(csv.reader(io.StringIO(raw.decode())))
    how = luck.choice(['cell']*5 + ['column', 'columns', 'line', 'short', 'long', 'none', 'quote', 'comma', 'head'])
    i, j = luck.randrange(len(rows)), luck.randrange(len(rows[0]))
    value = luck.choice([*HOSTILE, *map(str, STRANGE[:20])])
    if how == 'cell': rows[max(1, i)][j] = value
    if how == 'head': rows[0][j] = value
    if how == 'column': rows = [r[:j] + r[j + 1:] for r in rows]
    if how == 'columns': luck.shuffle(rows[0])
    if how == 'line': rows.insert(i, rows[i])
    if how == 'short': rows[i] = rows[i][:j]
    if how == 'long': rows[i] = [*rows[i], value]
    if how == 'none': rows = rows[:1]
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    text = file.getvalue().encode('utf-8', 'surrogatepass')
    if how == 'quote': text = text[:len(text)//2] + b'"' + text[len(text)//2:]
    if how == 'comma': text = text.replace(b',', luck.choice([b';', b'\t', b',,', b'\0']))
    return text, f'{how} {i} {j} {value!r:.40}'


def npz_damage(raw, luck):
    "An archive of arrays with other arrays, with pickles, or with much in little room."
    how = luck.choice(['pickle', 'pickle', 'bomb', 'bomb', 'shape', 'dtype', 'drop', 'numbers', 'code', 'size', 'text', 'path', 'nested', 'header'])
    with np.load(io.BytesIO(raw)) as f: arrays = {k: f[k] for k in f.files}
    name, file = luck.choice(list(arrays)), io.BytesIO()
    if how == 'pickle': arrays[name] = np.array([Canary('CANARY')], dtype=object)
    if how == 'shape': arrays[name] = luck.choice([arrays[name][None], arrays[name][:1], arrays[name][:0], arrays[name].ravel(), np.zeros(())])
    if how == 'dtype': arrays[name] = luck.choice([lambda a: a.astype('U5'), lambda a: a.astype(np.float16), lambda a: a.astype(complex), lambda a: a.astype(bool), lambda a: a.astype('M8[s]'), lambda a: a.astype([('a', int)]), lambda a: a.astype('>i8')])(arrays[name])
    if how == 'drop': del arrays[name]
    if how == 'numbers': arrays[name] = np.full_like(arrays[name], luck.choice([0, 1, 99, 255])) if luck.random() < .5 else np.full(arrays[name].shape, luck.choice([np.nan, np.inf, -1, 1e300]))
    np.savez_compressed(file, **arrays)
    if how == 'bomb': return bomb(name, 600 if luck.random() < .05 else 64), f'{how} {name}'
    if how in ('code', 'size', 'text', 'path', 'nested', 'header'):
        made = dict(code=b"\x93NUMPY\x01\x00\x46\x00{'descr': __import__('os').mkdir('CANARY'), 'fortran_order': False}".ljust(80), size=npy_header((2**20, 2**20)), text=b'no array', path=npy_header((1,)) + b'x',
            nested=b"\x93NUMPY\x01\x00\xff\xff" + b'('*65535, header=b"\x93NUMPY\x09\x00")[how]
        with zipfile.ZipFile(file, 'a', zipfile.ZIP_DEFLATED) as z: kept = {n: z.read(n) for n in z.namelist()}
        file = io.BytesIO()
        with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as z:
            for n, content in kept.items():
                if n != f'{name}.npy': z.writestr(n, content)
            z.writestr('../../CANARY' if how == 'path' else f'{name}.npy', made)
    return file.getvalue(), f'{how} {name}'



def png_chunk(name, content):
    "A chunk of a PNG."
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zipfile.crc32(name + content))


def picture_damage(raw, luck):
    "A picture that declares more than it has, or is of another kind than its name says."
    how = luck.choice(['large', 'long', 'text', 'other', 'other', 'frames'])
    side = luck.choice([0, 1, 10**4, 10**5, 2**31 - 1])
    start = b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR', struct.pack('>IIBBBBB', side, luck.choice([side, 1, 16]), luck.choice([8, 16, 1]), luck.choice([0, 2, 3, 6]), 0, 0, luck.randrange(2)))
    if how == 'large': return start + png_chunk(b'IDAT', zlib.compress(bytes(2**24), 1)) + png_chunk(b'IEND', b''), f'{how} {side}'
    if how == 'text': return start + png_chunk(luck.choice([b'zTXt', b'iCCP', b'iTXt', b'eXIf']), luck.choice([b'a\0\0', b'', b'a\0\0' + zlib.compress(bytes(2**26))])) + raw[33:], how
    if how == 'long': return raw[:len(raw)//2] + luck.randbytes(20)*500 + raw[len(raw)//2:], how
    other = luck.choice(sorted(Path('pictures').rglob('1.*')))
    content = other.read_bytes()
    if how == 'other': return content, f'{how} {other}'
    file = io.BytesIO()
    Image.new('P', (16, 16)).save(file, 'GIF', save_all=True, append_images=[Image.new('P', (16, 16), i % 250) for i in range(300)])
    return file.getvalue(), how


def idx_damage(raw, luck):
    "Other numbers at the beginning."
    raw, at = bytearray(raw), luck.choice([0, 1, 2, 3, 4, 8, 12])
    value = luck.choice([0, 1, 10, 23, 25, 2**31 - 1, 2**32 - 1, 10**6])
    if at < 4: raw[at] = luck.choice([0, 1, 2, 3, 4, 8, 9, 11, 12, 13, 14, 255])
    else: raw[at:at + 4] = value.to_bytes(4, 'big')
    if at > 3 and luck.random() < .3: raw += bytes(value % 10**6)
    return bytes(raw), f'number at {at}: {value}'


def labels_damage(raw, luck):
    "Labels that are no classes."
    return raw[:-1] + bytes([luck.choice([10, 127, 255])]), 'last byte'


def gz_damage(raw, luck):
    "Much in little room, or something else packed."
    how = luck.choice(['bomb', 'other', 'twice'])
    if how == 'bomb': return gzip.compress(bytes(luck.choice([2**20, 2**26])), 1), how
    if how == 'other': return gzip.compress(pickle.dumps(Canary('CANARY'))), how
    return raw*2, how


def pickle_damage(raw, luck):
    "A pickle that makes a folder, in one of its protocols, or in an archive of PyTorch's or NumPy's."
    how, file = luck.choice(['pickle', 'torch', 'old torch', 'npy']), io.BytesIO()
    if how == 'pickle': file.write(pickle.dumps(Canary('CANARY'), luck.randrange(6)))
    if 'torch' in how: torch.save(Canary('CANARY'), file, _use_new_zipfile_serialization=how == 'torch')
    if how == 'npy': np.save(file, np.array([Canary('CANARY')], dtype=object), allow_pickle=True)
    return file.getvalue(), how


def in_place_of(path, luck):
    "Something that is no file, or another one."
    how = luck.choice(['folder', 'absent', 'dangling', 'loop', 'pipe', 'closed', 'swap'])
    content = path.read_bytes()
    path.unlink()
    if how == 'folder': path.mkdir()
    if how == 'dangling': path.symlink_to('nowhere/at/all')
    if how == 'loop': path.symlink_to(path.name)
    if how == 'pipe': os.mkfifo(path)
    if how == 'closed':
        path.write_bytes(content)
        path.chmod(0)
    if how == 'swap': path.write_bytes(luck.choice(sorted(p for p in Path().rglob('*') if p.is_file() and p.stat().st_size < 10**6)).read_bytes())
    return how


OWN = {'.safetensors': [tensors_damage]*3, '.json': [json_damage]*3, '.csv': [csv_damage]*3, '.npz': [npz_damage]*3, '.gz': [gz_damage], '.pth': [pickle_damage]}


class Target(NamedTuple):
    "A file, and who reads it."
    name:str # for the table
    file:str # in the world; a pattern
    main:str # command or reader
    line:str # arguments; {} is the file's path, {folder} its folder, {top} the folder above
    own:tuple = () # kinds of damage beside those of its suffix
    env:dict = {} # of the environment


SAMPLE = '--guidance-scale 2 -n 2 --steps 1 --device cpu --out new --model'
TRAIN = '--steps 1 --batch-size 2 --warmup 1 --net digits --precision fp32 --device cpu --out new'
TARGETS = [
    Target('model', 'model.safetensors', 'sample', f'{SAMPLE} {{}}'),
    Target('model', 'model.safetensors', 'evaluate', f'{EVALUATE} --scales 1 --model {{}} --out new.csv'),
    Target('model', 'model.safetensors', 'evaluate', f'{EVALUATE} --scales 2 --model run --guidance autoguidance --guidance-arg model={{}} --plan'),
    Target('model', 'model.safetensors', 'train', f'{TRAIN} --objective distillation --teacher {{}}'),
    Target('snapshot', 'run/snapshots/000000016-0.1.safetensors', 'train', '--resume {} --out new --steps 9 --batch-size 2 --warmup 1 --precision fp32 --device cpu'),
    Target('classifier', 'judge.safetensors', 'evaluate', f'{EVALUATE} --scales 1 --model run --judge {{}}'),
    Target('classifier', 'judge.safetensors', 'evaluate', f'{EVALUATE.replace("-n 4", "-n 12")} --scales 1 --model run --judge {{}} --metrics kid --reference 12'),
    Target('configuration of a run', 'run/config.json', 'train', '--resume --steps 5 --device cpu --out run'),
    Target('checkpoint', 'run/checkpoints/00000004.safetensors', 'train', '--resume --steps 5 --device cpu --out run'),
    Target('log', 'run/log.csv', 'train', '--resume --steps 5 --device cpu --out run'),
    Target('run', 'run/*', 'train', '--resume --steps 5 --device cpu --out run'),
    Target('run', 'run/*', 'train', f'{TRAIN.replace("--out new", "--out run")} --overwrite'),
    Target('run', 'run/model.safetensors', 'sample', f'{SAMPLE} run'),
    Target('samples', 'samples/*', 'sample', '--guidance-scale 2 -n 2 --steps 1 --device cpu --model run --out samples --overwrite'),
    Target('rows', 'table.csv', 'evaluate', f'{EVALUATE} --model run --scales 1 3 --out table.csv'),
    Target('note', 'table.json', 'evaluate', f'{EVALUATE} --model run --scales 1 3 --out table.csv'),
    Target('picture of a table', 'table.png', 'evaluate', f'{EVALUATE} --model run --scales 1 --out table.csv --overwrite'),
    Target('rows', 'table.csv', 'read_sweep', 'table.csv'),
    Target('note', 'table.json', 'read_sweep', 'table.csv'),
    Target('results', 'results.csv', 'read_results', 'results.csv'),
    Target('results', 'results.json', 'read_results', 'results.csv'),
    Target('kept images', 'kept/*.npz', 'evaluate', f'{EVALUATE} --model run --scales 1 2 --keep kept --out new.csv'),
    Target('MNIST', 'data/MNIST/raw/*', 'train', f'{TRAIN} --dataset mnist --image-size 8 --data-dir data', (idx_damage, idx_damage, labels_damage)),
    Target('MNIST', 'data/MNIST/raw/train*', 'load_mnist', 'data', (idx_damage, idx_damage, labels_damage)),
    Target('MNIST, packed', 'packed/MNIST/raw/*.gz', 'load_mnist', 'packed', env={'CFG_COURSE_OFFLINE': '0'}),
    Target('CIFAR-10', 'cifar/*/*', 'load_cifar10', 'cifar', (pickle_damage,), env={'CFG_COURSE_OFFLINE': '0'}),
    Target('CIFAR-10, packed', 'cifar/*.gz', 'load_cifar10', 'cifar', env={'CFG_COURSE_OFFLINE': '0'}),
    Target('package: digits', 'package/weights/digits8.npz', 'train', TRAIN),
    Target('package: model', 'package/weights/digits.safetensors', 'sample', f'{SAMPLE} digits'),
    Target('package: judge', 'package/weights/digits-classifier.safetensors', 'evaluate', f'{EVALUATE} --scales 1 --model run'),
    Target('package: index', 'package/index.json', 'sample', f'{SAMPLE} run'),
    Target('package: index', 'package/index.json', 'train', '--help'),
    Target('Inception weights', 'inception.*', 'evaluate', f'{EVALUATE} --scales 1 --model run --inception-weights {{}}', (pickle_damage,))]


def all_targets():
    "Those of the list, and one for each format of pictures that this Pillow writes, which is read alone and by a command."
    found = list(TARGETS)
    for folder in sorted(Path('pictures').iterdir()):
        own = (picture_damage, picture_damage)
        found.append(Target(f'pictures: {folder.name}', f'{folder}/a/1.*', 'load_folder', str(folder), own))
    found.append(Target('pictures, trained on', 'pictures/*/a/1.*', 'train', f'{TRAIN} --dataset folder --image-size 8 --data-dir {{top}}', (picture_damage,)))
    return found


def file_case(seed, number, only=''):
    "A damaged file, and who reads it."
    luck = random.Random(f'{seed} file {number}')
    targets = [t for t in all_targets() if only in t.name]
    target = targets[number % len(targets)]
    path = luck.choice(sorted(p for p in Path().glob(target.file) if p.is_file()))
    damages = [bytes_damage]*2 + OWN.get(path.suffix, [])*1 + list(target.own) + [pickle_damage]
    damage = luck.choice(damages) if luck.random() > .06 else None
    words = target.line.format(path, folder=path.parent, top=path.parent.parent).split()
    def spoil():
        if damage is None: return f'{path}: {in_place_of(path, luck)}'
        raw, what = damage(path.read_bytes(), luck)
        path.write_bytes(raw)
        return f'{path}: {damage.__name__}, {what}'
    return Case(target.name.split(':')[0], target.main, words, False, target.env, spoil)


# Running a case

def reader(read):
    "A function that reads files, as if it were a command."
    def main(words):
        def parser():
            p = cli.Parser(prog='read')
            p.add_argument('path')
            return p
        cli.command(parser, lambda args: read(args.path), words)
    return main


READERS = dict(read_sweep=reader(read_sweep), read_results=reader(read_results), load_mnist=reader(lambda path: data.load_data('mnist', 'train', path)),
    load_cifar10=reader(lambda path: data.load_data('cifar10', 'train', path)), load_folder=reader(lambda path: data.load_data('folder', 'train', path, 8)))


class Outcome(NamedTuple):
    "What came of a case."
    status:int # exit status; negative where a signal ended it
    said:str # on standard error
    seconds:float # that it took
    peak:int # bytes
    wrong:str # what must not be; nothing when all is well


def no_network(*args, **kwargs): raise urllib.error.URLError('no network')


class Package:
    "The package's files, in the world."
    def files(self, name): return Path('package')


def prepare_child(case):
    "What a child has of its own."
    torch.set_num_threads(1) # a fork leaves PyTorch's own pool of threads broken, until it is told a number
    os.environ.update({'CFG_COURSE_OFFLINE': '1', 'CFG_COURSE_DATA': 'data', 'HOME': 'home', 'TQDM_DISABLE': '1', **case.env})
    urllib.request.urlopen = no_network
    if case.kind.startswith('package'):
        from cfg_course import classifiers, denoisers
        for module in (cli, data, denoisers, classifiers): module.resources = Package()
        cli.index.cache_clear()
    now = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize() if Path('/proc/self/statm').exists() else 0
    if now: resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, now + ROOM))


def in_child(case, limit):
    "Run a case in a child; its status, what it said, and what it took."
    start, said = time.perf_counter(), tempfile.TemporaryFile() # noqa: SIM115
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 0), os.dup2(nowhere, 1), os.dup2(said.fileno(), 2)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, 'w', closefd=False), open(2, 'w', closefd=False, errors='backslashreplace') # noqa: SIM115
            if case.long: signal.signal(signal.SIGALRM, signal.default_int_handler); signal.alarm(SOON)
            faulthandler.dump_traceback_later(5*limit, exit=True, file=2)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            prepare_child(case)
            {**MAINS, **READERS}[case.main](case.words)
            status = 0
        except SystemExit as e: status = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
        except BaseException: traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, code, used = os.wait4(pid, 0)
    said.seek(0)
    text = said.read().decode('utf-8', 'replace')
    return os.waitstatus_to_exitcode(code), text, time.perf_counter() - start, used.ru_maxrss*1024


def in_fresh(case, limit):
    "Run a case in an interpreter of its own, and interrupt it where it may go on for years."
    start = time.perf_counter()
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'CFG_COURSE_OFFLINE': '1', 'CFG_COURSE_DATA': 'data', 'HOME': 'home', 'TQDM_DISABLE': '1', **case.env}
    child = subprocess.Popen([sys.executable, str(ROOT/f'{case.main}.py'), *case.words], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try: _, said = child.communicate(timeout=limit if case.long else 5*limit)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT if case.long else signal.SIGKILL)
        _, said = child.communicate()
        if not case.long: said += b'Timeout ('
        elif child.returncode == -signal.SIGINT and not said: child.returncode = 130 # it was about to end by itself
    return child.returncode, said.decode('utf-8', 'replace'), time.perf_counter() - start, 0


def verdict(case, status, said, peak, before, after, base=0):
    "What must not be; nothing when all is well."
    lines = said.splitlines()
    if 'CANARY' in after or any('CANARY' in p.rsplit('/', 1)[-1] for p in after): return 'code executed'
    if 'Timeout (' in said or status == -signal.SIGXCPU: return 'timeout'
    if 'Traceback (most recent call last)' in said: return 'traceback'
    if status < 0: return f'signal {-status}'
    if status == 130 and not case.long: return 'interrupted'
    if status not in (0, 2, 130) and not (status == 1 and case.main == 'train' and 'lr' in said): return f'status {status}'
    if status in (1, 2) and len([line for line in lines if line]) != 1: return f'{len(lines)} lines'
    if status and len(said) > 3000: return f'a line of {len(said)} characters'
    if case.spoil and 'out of memory' in said: return 'memory'
    if peak - base > ROOM: return 'memory'
    changed = [p for p in before if after.get(p) != before[p]]
    if any(p.startswith('./foreign') for p in changed): return f'foreign file: {changed[0]}'
    if status == 2 and changed: return f'changed: {changed[0]}'
    return ''


def attempt(case, pristine, limit, run=in_child):
    "Run a case in the world that is the current folder, and set the world right again."
    before, what = dict(pristine), ''
    if case.spoil:
        what = case.spoil()
        before = marks('.')
    status, said, seconds, peak = run(case, limit)
    after = marks('.')
    wrong = verdict(case, status, said, peak, before, after, BASE_PEAK[0])
    if after != pristine: restore(after, pristine)
    return Outcome(status, said, seconds, peak, wrong), what


BASE_PEAK = [0]


def restore(after, pristine):
    "The world as it was built: what is new is removed, what has changed is put back."
    for path in sorted(p for p in after if after[p] != pristine.get(p)):
        if os.path.isdir(path) and not os.path.islink(path): shutil.rmtree(path, ignore_errors=True)
        else: Path(path).unlink(missing_ok=True)
    for path in sorted(p for p in pristine if after.get(p) != pristine[p] or not os.path.lexists(p)):
        source = SOUND[0]/path
        if pristine[path] == 'folder': Path(path).mkdir(exist_ok=True)
        elif pristine[path] == 'other': os.mkfifo(path)
        else: shutil.copy2(source, path, follow_symlinks=False)


SOUND = []


def copy_world(source, target):
    "A world like another one; a pipe is made, not read."
    for path in source.iterdir():
        if path.name == 'pipe': os.mkfifo(target/'pipe')
        elif path.is_symlink(): (target/path.name).symlink_to(os.readlink(path))
        elif path.is_dir(): shutil.copytree(path, target/path.name)
        else: shutil.copy2(path, target/path.name)


def make_case(kind, seed, number, only=''):
    "The case of a number."
    return line_case(seed, number) if kind == 'line' else file_case(seed, number, only)


def shorter(case, wrong, pristine, limit):
    "A command line with the same fault and as few words as leave it."
    words, i = list(case.words), 0
    while i < len(words):
        fewer = words[:i] + words[i + 1:]
        found, _ = attempt(case._replace(words=fewer), pristine, limit)
        if found.wrong.split(':')[0] == wrong.split(':')[0]: words = fewer
        else: i += 1
    return words


def work(share, args, sound, results):
    "Do a share of the cases in a world of its own."
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        SOUND[:] = [sound]
        copy_world(sound, Path())
        pristine = marks('.')
        BASE_PEAK[0] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024
        gc.freeze()
        for kind, number, fresh in share:
            case = make_case(kind, args.seed, number, args.only)
            outcome, what = attempt(case, pristine, args.limit, in_fresh if fresh else in_child)
            words = case.words
            if outcome.wrong and kind == 'line' and outcome.wrong != 'timeout' and not fresh: words = shorter(case, outcome.wrong, pristine, args.limit)
            results.put((kind, number, fresh, case.kind, case.main, words, what, outcome, case.long))
        os.chdir('/')


# The table

COLUMNS = ['kind', 'cases', 'failed_cleanly', 'succeeded', 'interrupted', 'tracebacks', 'timeouts', 'other_faults', 'peak_mb']


def row_of(kind, outcomes):
    "A row of the table."
    good = [o for o in outcomes if not o.wrong]
    wrongs = [o.wrong for o in outcomes if o.wrong]
    return dict(kind=kind, cases=len(outcomes), failed_cleanly=sum(o.status in (1, 2) for o in good), succeeded=sum(o.status == 0 for o in good), interrupted=sum(o.status == 130 for o in good),
        tracebacks=wrongs.count('traceback'), timeouts=wrongs.count('timeout'), other_faults=sum(w not in ('traceback', 'timeout') for w in wrongs),
        peak_mb=round(max(o.peak for o in outcomes)/2**20) or '')


def write_rows(rows, path):
    "Write the table, whole or not at all."
    with writing(path) as tmp, open(tmp, 'w', newline='', encoding='utf-8') as f:
        table = csv.DictWriter(f, COLUMNS, lineterminator='\n')
        table.writeheader()
        table.writerows(rows)


def say(finding):
    "A finding, with what makes it again."
    kind, number, fresh, _, main, words, what, outcome, _ = finding
    line = ' '.join(w if w and w.isprintable() and ' ' not in w else repr(w)[:200] for w in words)
    print(f'{kind}:{number}{" (fresh)" if fresh else ""} {outcome.wrong}: {main} {line[:600]}', flush=True)
    if what: print(f'    {what}')
    for text in outcome.said.strip().splitlines()[-3:]: print(f'    {text[:300]}')


def shares(args):
    "What each worker does: lists of (kind, number, in an interpreter of its own?)."
    cases = [('line', n, False) for n in range(args.lines)] + [('file', n, False) for n in range(args.files)]
    cases += [('line', n, True) for n in range(min(args.fresh, args.lines))]
    if args.case: cases = [(args.case.partition(':')[0], int(args.case.partition(':')[2]), args.fresh > 0)]
    return [cases[i::args.workers] for i in range(args.workers)]


def fuzz(args):
    "All cases; every result as it comes."
    data.is_picture('x')
    with tempfile.TemporaryDirectory() as place:
        here, sound = os.getcwd(), Path(place).resolve()/'sound'
        build(sound)
        os.chdir(here)
        context = multiprocessing.get_context('fork')
        results = context.Queue()
        children = [context.Process(target=work, args=(share, args, sound, results)) for share in shares(args) if share]
        for child in children: child.start()
        left = sum(map(len, shares(args)))
        while left:
            try: yield results.get(timeout=5)
            except queue.Empty:
                if not any(child.is_alive() for child in children) and results.empty(): sys.exit('a worker ended before its time')
                continue
            left -= 1
        for child in children: child.join()


def parser():
    "The options."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = p.add_argument
    add('--seed', type=int, default=SEED, help=f'of the cases ({SEED})')
    add('--lines', type=int, default=LINES, metavar='N', help=f'command lines ({LINES})')
    add('--files', type=int, default=FILES, metavar='N', help=f'damaged files ({FILES})')
    add('--fresh', type=int, default=0, metavar='N', help='how many of the command lines are run once more, in an interpreter of their own (0)')
    add('--only', default='', metavar='WORD', help='only files whose kind has this word in its name')
    add('--case', metavar='KIND:NUMBER', help='only this one, line:NUMBER or file:NUMBER, with all that it said')
    add('--limit', type=int, default=LIMIT, metavar='S', help=f'seconds of a case ({LIMIT})')
    add('--workers', type=int, default=2, help='cases at a time (2)')
    add('--out', type=Path, help='a table of what came of them (none)')
    return p


def main(argv=None):
    "Run, and say what was found."
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    begin, found = time.perf_counter(), {}
    wrong = 0
    for done, finding in enumerate(fuzz(args), 1):
        kind, number, fresh, name, *_, outcome, _ = finding
        found.setdefault(f'command line, {name}{", fresh" if fresh else ""}' if kind == 'line' else name, []).append(outcome)
        wrong += bool(outcome.wrong)
        if outcome.wrong: say(finding)
        if done % 500 == 0: print(f'{done} cases, {wrong} findings, {time.perf_counter() - begin:.0f} s', file=sys.stderr, flush=True)
        if args.case:
            say(finding)
            print(outcome.said, outcome.status)
    rows = [row_of(kind, found[kind]) for kind in sorted(found)]
    if args.out: write_rows(rows, args.out)
    for row in rows: print(row['kind'] + ': ' + ', '.join(f'{k} {v}' for k, v in row.items() if v and k != 'kind'))
    print(f'{sum(map(len, found.values()))} cases, {wrong} findings, {time.perf_counter() - begin:.0f} s, seed {args.seed}')
    return wrong


if __name__ == '__main__': sys.exit(min(main(), 1))
