"Files that are damaged, foreign or made to do harm: one line that names them, little memory, and nothing else."
import io, json, os, pickle, random, shutil, signal, sys, zipfile
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from safetensors.torch import save_file

from cfg_course import cli, data, sweeps
from cfg_course.classifiers import Classifier, NoisyClassifier, ResidualClassifier, load_classifier, save_classifier
from cfg_course.cli import evaluate_main, sample_main, train_main
from cfg_course.core import InputError, load_tensors, read_arrays, read_results, save_tensors, write_results
from cfg_course.denoisers import Denoiser, find_model, load_denoiser, save_denoiser
from cfg_course.networks import UNet, UNetConfig, check_config
from cfg_course.training import TrainConfig, train
from test_cli import TINY, complain, snapshot

resource = pytest.importorskip('resource', reason='this system does not say how much memory a process took')

UNIT = 1024 if sys.platform == 'linux' else 1
DEEP = '['*100_000
STRANGE = [None, True, False, 0, -1, 1, 3, 7, 2**31, 2**63, 10**30, -10**30, 1.5, 1e308, float('nan'), float('inf'), '', 'a', '1', 'x'*5000, [], [1], [[]], ['a'],
           [1, 2, 3], [10**9]*3, [8]*5000, [{}], {}, {'a': 1}, {'shape': 1}]


def nets(seed=0):
    "One of everything that has a file: name -> (how it is saved, how it is read)."
    torch.manual_seed(seed)
    unet = Denoiser(UNet(UNetConfig(image_size=8, patch=1, widths=(8, 16), emb=16)))
    return dict(
        denoiser=(lambda path: save_denoiser(unet, path, classes=['a'], data='x'), load_denoiser),
        plain=(lambda path: save_classifier(Classifier((1, 8, 8), 4, width=4), path, data='x', name='y'), load_classifier),
        residual=(lambda path: save_classifier(ResidualClassifier((1, 8, 8), 4, width=4), path, half=False, data='x'), load_classifier),
        noisy=(lambda path: save_classifier(NoisyClassifier((1, 8, 8), 4, width=8), path, data='x'), lambda path: load_classifier(path, NoisyClassifier)),
        tensors=(lambda path: save_tensors({'a': torch.arange(5), 'b': torch.zeros(2, 3)}, dict(kind='any', more=[1, {'x': 2}]), path), lambda path: load_tensors(path, 'any')))


KINDS = list(nets())


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "The sound files."
    folder = tmp_path_factory.mktemp('whole')
    for name, (save, _) in nets().items(): save(folder/f'{name}.safetensors')
    return folder


def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*UNIT


def refused_or_read(read, path, most=2**28):
    "Is it refused? In one line of moderate length, with at most 256 MB; any other error is a fault."
    before = peak()
    try: read(path)
    except InputError as e:
        assert '\n' not in str(e) and len(str(e)) < 1000, str(e)[:2000]
        refused = True
    else: refused = False
    assert peak() - before < most, path
    return refused


def bitten(data, luck):
    "Some bytes of a file changed, lost or added; the header is hit as often as the rest."
    data, size = bytearray(data), 8 + int.from_bytes(data[:8], 'little')
    how = luck.choice(['flip', 'flip', 'byte', 'cut', 'longer', 'zeros', 'length', 'gap'])
    end = luck.choice([8, min(size, len(data)), len(data)])
    at = luck.randrange(end)
    if how == 'flip': data[at] ^= 1 << luck.randrange(8)
    if how == 'byte': data[at] = luck.randrange(256)
    if how == 'cut': del data[at:]
    if how == 'longer': data += luck.randbytes(luck.randrange(1, 50))
    if how == 'zeros': data[at:at + 20] = bytes(len(data[at:at + 20]))
    if how == 'length': data[:8] = luck.choice([0, 1, size, 2**31, 2**63, 2**64 - 1, len(data)]).to_bytes(8, 'little')
    if how == 'gap': del data[at:at + luck.randrange(1, 9)]
    return bytes(data)


@pytest.mark.parametrize('name', KINDS)
def test_bytes_changed_lost_or_added(whole, tmp_path, name):
    "60 files of each kind; most are refused, and those that are not differ in their weights alone."
    luck, read, sound = random.Random(name), nets()[name][1], (whole/f'{name}.safetensors').read_bytes()
    refused = 0
    for i in range(60):
        path = tmp_path/f'{i}.safetensors'
        path.write_bytes(bitten(sound, luck))
        refused += refused_or_read(read, path)
    assert 30 < refused


def places(meta, way=()):
    "The ways to every value of a description."
    items = meta.items() if isinstance(meta, dict) else enumerate(meta) if isinstance(meta, list) else ()
    for k, v in items:
        yield (*way, k)
        yield from places(v, (*way, k))


def replaced(meta, way, value):
    "The description with another value in one place."
    meta = json.loads(json.dumps(meta))
    inner = meta
    for k in way[:-1]: inner = inner[k]
    inner[way[-1]] = value
    return meta


@pytest.mark.parametrize('name', KINDS)
def test_every_value_of_a_description_replaced(whole, tmp_path, name):
    "By what JSON can hold, in every place, and by what is no JSON."
    kind = dict(denoiser='denoiser', noisy='noisy-classifier', tensors='any').get(name, 'classifier')
    read, (tensors, meta) = nets()[name][1], load_tensors(whole/f'{name}.safetensors', kind)
    luck, path = random.Random(name), tmp_path/'odd.safetensors'
    texts = [json.dumps(replaced(meta, way, value)) for way in places(meta) for value in luck.sample(STRANGE, 12)]
    texts += [json.dumps(value) for value in STRANGE]
    texts += ['', 'x', '{', '{"kind": ', DEEP, '{"kind":'*1000, '9'*5000, f'{{"kind": "{kind}", "config": {"9"*5000}}}', f'{{"kind": "{kind}", "net": {DEEP}}}']
    refused = 0
    for text in texts:
        save_file(tensors, path, {'cfg_course': text})
        refused += refused_or_read(read, path)
    assert refused > len(STRANGE)
    save_file(tensors, path)
    with pytest.raises(InputError, match='allowed: a .safetensors file written by cfg_course'): read(path)


LARGE = {
    'plain': [dict(width=10_000), dict(width=4096, stages=12), dict(num_classes=10**6), dict(shape=[4096, 4096, 4096]), dict(stages=10**9), dict(width=2**62), dict(design='residual', blocks=10**9)],
    'residual': [dict(width=10_000), dict(blocks=10**9), dict(blocks=64, stages=12, width=4096), dict(design='plain')],
    'noisy': [dict(width=10_000), dict(width=4096), dict(num_classes=10**6), dict(shape=[1, 4096, 4096]), dict(sigma_data=0), dict(sigma_data='x')]}


@pytest.mark.parametrize('name', LARGE)
def test_a_header_does_not_take_memory(whole, tmp_path, name):
    "Whatever size it speaks of, nothing is built before the file has the tensors for it; and the message names the file."
    kind, path = 'noisy-classifier' if name == 'noisy' else 'classifier', tmp_path/'large.safetensors'
    tensors, meta = load_tensors(whole/f'{name}.safetensors', kind)
    for change in LARGE[name]:
        save_tensors(tensors, dict(meta, config=dict(meta['config'], **change)), path)
        assert refused_or_read(nets()[name][1], path, 2**26), change
        with pytest.raises(InputError, match='large.safetensors'): nets()[name][1](path)


@pytest.mark.parametrize('name', ['plain', 'residual', 'noisy'])
def test_sound_files_are_read_as_they_were(whole, name):
    "Every tensor of its own type, and trainable; statistics are counted in whole numbers."
    kind = 'noisy-classifier' if name == 'noisy' else 'classifier'
    (net, _), (tensors, _) = nets()[name][1](whole/f'{name}.safetensors'), load_tensors(whole/f'{name}.safetensors', kind)
    state = net.state_dict()
    assert state.keys() == tensors.keys() and all(torch.equal(state[k], t.to(state[k].dtype)) for k, t in tensors.items())
    assert {t.dtype for k, t in state.items() if 'tracked' not in k} == {torch.float32} and all(t.dtype == torch.int64 for k, t in state.items() if 'tracked' in k)
    assert all(p.requires_grad for p in net.parameters()) and not net.training


CONFIGS = [dict([pair]) for pair in [
    *(('image_size', v) for v in (0, -8, 7, 8., '8', None, True, [8], 10**30, float('nan'))),
    *(('channels', v) for v in (0, -1, 1.5, 'x', 10**30)), *(('num_classes', v) for v in (0, -3, 2.5, '3', 10**30)),
    *(('patch', v) for v in (0, -1, 3, .5, 'x', 10**30)), *(('widths', v) for v in ((), 8, None, (8, 0), (8, -8), (8, 9), (8., 16.), ('8', '8'), (8,)*100, (8, 10**30), 'ab')),
    *(('blocks', v) for v in ((), 1, (1,), (0, 1), (1, -1), (1, .5), (1, 10**9), ('1', '1'), None)), *(('emb', v) for v in (0, -1, 1.5, None, 10**30)),
    *(('heads', v) for v in (0, -1, 3, 1.5, 'x')), *(('dropout', v) for v in (-.1, 1.1, 'x', None, float('nan'), True)), *(('scaled', v) for v in (1, 'no', None))]]


@pytest.mark.parametrize('change', CONFIGS, ids=str)
def test_configurations_that_no_network_has(change):
    cfg = UNetConfig(**{**dict(image_size=8, patch=1, widths=(8, 16), blocks=(1, 1), emb=16), **change})
    for use in (check_config, UNet):
        with pytest.raises(InputError) as e: use(cfg)
        assert '\n' not in str(e.value) and 'allowed' in str(e.value) and str(e.value).startswith((*change, 'image_size'))


@pytest.fixture
def table(tmp_path):
    write_results([dict(scale=1., name='a', value=.9), dict(scale=2., name='b', value=.99)], tmp_path/'t.csv', dict(model='digits', seed=0, list=[1, 2]))
    return tmp_path/'t.csv'


def test_damaged_tables(table):
    "100 of the rows and 100 of the note: read, or refused by name."
    luck, note = random.Random(0), table.with_suffix('.json')
    sound = {p: p.read_bytes() for p in (table, note)}
    for i in range(200):
        path = (table, note)[i % 2]
        path.write_bytes(bitten(sound[path], luck))
        refused_or_read(lambda p: read_results(p, dict(model='digits', list=[1, 2])), table)
        path.write_bytes(sound[path])
    assert len(read_results(table, dict(seed=0))) == 2


@pytest.mark.parametrize('text', ['', '[]', '3', '{}', '{"config": 3}', '{"config": []}', '{"config": null}', '{', DEEP, '9'*5000, '\0', '"config"'])
def test_notes_that_are_none(table, text):
    table.with_suffix('.json').write_text(text)
    with pytest.raises(InputError, match=r"^results: .*t.json' is damaged$"): read_results(table, dict(seed=0))
    table.with_suffix('.json').write_bytes(b'\xff\xfe\xff')
    with pytest.raises(InputError, match='damaged'): read_results(table)


@pytest.mark.parametrize('data', [b'', b'\xff\xfe\xff', b'a,b\n1,2,3\n1,2,3,4\n', b'"a', b'\0'*9])
def test_rows_that_are_none(table, data):
    table.write_bytes(data)
    assert refused_or_read(read_results, table) or isinstance(read_results(table), pd.DataFrame)
    if data in (b'', b'\xff\xfe\xff', b'"a'): assert refused_or_read(read_results, table) or data == b'"a'


def test_paths_that_are_no_tables(tmp_path):
    for path in ('', '.', tmp_path, tmp_path/'none.csv', 'a\0b', '..'):
        with pytest.raises(InputError, match='^results: got '): read_results(path)


# Models whose header says what cannot be

FALSE = [(k, v) for k, values in dict(
    precond=[None, 'x', 3, [], ['edm'], {}, {'edm': 1}], sigma_data=[None, 0, -1, '1', [], True, float('nan'), float('inf'), 10**400], data=[None, 3, [], {}, 'x'*5000], step=[None, -1, .5, '3', []],
    classes=[None, 3, 'ab', [], [None], [['a']], ['a']*11], shape=[None, 8, [1, 8], [1, 8, 8, 8], [1, 8, '8'], [1, 8, -8], [1, 8, 9], [3, 8, 8], [8, 8, 10**9]],
    train=[None, 3, [], 'x', dict(p_uncond='x'), dict(p_uncond=None), dict(p_uncond=2), dict(split=3)]).items() for v in values]


@pytest.mark.parametrize('k,v', FALSE, ids=lambda x: repr(x)[:20])
def test_a_model_that_says_what_cannot_be(tmp_path, k, v):
    "Refused before anything is drawn, in one line with the file's name, whoever reads it."
    unet, path = Denoiser(UNet(UNetConfig(image_size=8, patch=1, widths=(8, 16), emb=16))), tmp_path/'m.safetensors'
    save_denoiser(unet, path, classes=list('0123456789'), shape=[1, 8, 8], data='x', step=3, train=dict(split='fit', p_uncond=.1))
    tensors, meta = load_tensors(path, 'denoiser')
    assert find_model(str(path))[1] == meta
    save_file(tensors, path, {'cfg_course': json.dumps({**meta, k: v})})
    with pytest.raises(InputError, match=r'm\.safetensors') as e: find_model(str(path))
    assert '\n' not in str(e.value) and len(str(e.value)) < 1000 and f'({k}' in str(e.value).replace('(p_uncond', '(train').replace('(split', '(train')
    with pytest.raises(InputError):
        if k in ('precond', 'sigma_data'): Denoiser(unet.net, **{k: v})
        else: find_model(str(path))


# Archives of arrays

KINDS_OF = dict(x=('uint8', (3, 2)), y=('int64', (3,)))
X, Y = np.arange(6, dtype=np.uint8).reshape(3, 2), np.arange(3)


class Canary:
    "A pickle that makes a folder when it is read."
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)


def zipped(**members):
    "An archive of these bytes."
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, content in members.items(): z.writestr(f'{name}.npy', content)
    return file.getvalue()


def npy(array, **kwargs):
    file = io.BytesIO()
    np.save(file, array, **kwargs)
    return file.getvalue()


def declared(shape, dtype='|u1'):
    "The beginning of an array of that shape."
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, dict(descr=dtype, fortran_order=False, shape=shape))
    return file.getvalue()


def foreign_archives(place):
    "Name -> an archive that is not of `KINDS_OF`."
    pickled = npy(np.array([Canary(place/'canary')]*3, dtype=object), allow_pickle=True)
    code = b"{'descr': __import__('os').mkdir('canary'), 'fortran_order': False, 'shape': (3,)}"
    return {name: zipped(x=npy(X), y=y) for name, y in dict(
        pickle=pickled, bare=pickle.dumps(Canary(place/'canary')), code=b'\x93NUMPY\x01\x00' + len(code).to_bytes(2, 'little') + code, bomb=declared((2**29,)) + bytes(2**26), huge=declared((2**40, 2**20)), longer=npy(Y) + b'x'*2**26,
        shorter=npy(Y)[:-1], other_shape=npy(Y[:2]), other_type=npy(Y.astype(np.int32)), swapped=npy(Y.astype('>i8')), new=b'\x93NUMPY\x09' + npy(Y)[7:], text=b'no array', empty=b'').items()} | dict(
        absent=zipped(x=npy(X)), none=b'', words=b'PK words', pickle_alone=pickle.dumps(Canary(place/'canary')), cut=zipped(x=npy(X), y=npy(Y))[:-30])


def test_arrays_are_read_only_where_they_are_what_is_wanted(tmp_path):
    "In little memory, whatever a file declares; and nothing in it is executed."
    path = tmp_path/'a.npz'
    for order in 'CF':
        np.savez_compressed(path, x=np.asarray(X, order=order), y=Y)
        found = read_arrays(path, KINDS_OF)
        assert found.keys() == KINDS_OF.keys() and (found['x'] == X).all() and (found['y'] == Y).all() and found['x'].flags.writeable
    foreign, before = foreign_archives(tmp_path), peak()
    for name, content in foreign.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match='damaged'): print(name, read_arrays(path, KINDS_OF))
    assert peak() - before < 2**27 and not list(tmp_path.rglob('canary')) and not Path('canary').exists()
    luck, sound = random.Random(0), zipped(x=npy(X), y=npy(Y))
    for _ in range(300):
        path.write_bytes(bitten(sound, luck))
        try: found = read_arrays(path, KINDS_OF)
        except ValueError as e: assert '\n' not in str(e)
        else: assert found['x'].shape == X.shape and (found['y'] == Y).all()


def test_kept_images_of_other_points(tmp_path, monkeypatch):
    "Another number, other labels, a pickle, much in little room: drawn anew, with the same rows."
    monkeypatch.chdir(tmp_path)
    line = '--model digits --metrics accuracy -n 4 --steps 2 --sampler ddim --device cpu --scales 1 --keep kept --out'
    evaluate_main([*line.split(), 'a.csv'])
    path, = Path('kept').iterdir()
    sound = path.read_bytes()
    with np.load(path) as f: arrays = dict(f)
    others = [{**arrays, 'x': arrays['x'][:2], 'y': arrays['y'][:2]}, {**arrays, 'y': arrays['y'][::-1]}, {**arrays, 'y': arrays['y'] + 10}, {**arrays, 'facts': arrays['facts'][:3]}]
    contents = [zipped(**{k: npy(v) for k, v in other.items()}) for other in others]
    contents += [zipped(**{**{k: npy(v) for k, v in arrays.items()}, 'x': x}) for x in (declared((2**29,)) + bytes(2**26), npy(np.array([Canary('canary')]), allow_pickle=True))]
    before = peak()
    for i, content in enumerate([*contents, b'', sound[:200]]):
        path.write_bytes(content)
        evaluate_main([*line.split(), f'{i}.csv'])
        assert Path(f'{i}.csv').read_bytes() == Path('a.csv').read_bytes()
        with np.load(path) as f: assert all((f[k] == arrays[k]).all() for k in 'xy')
    assert peak() - before < 2**28 and not Path('canary').exists()


# Runs

@pytest.fixture(scope='module')
def tiny_run(tmp_path_factory):
    out = tmp_path_factory.mktemp('tiny')/'run'
    train(out, TrainConfig(steps=4, batch_size=8, warmup=1), TINY, device='cpu', save_every=2, progress=False)
    return out


@pytest.fixture
def run(tiny_run, tmp_path, monkeypatch):
    "A run, in the current folder."
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, 'run')
    return Path('run')


RESUME = '--resume --steps 5 --device cpu --out run'


def refuses(capsys, *words, main=train_main, line=RESUME):
    "One line with these words, little memory, and no file changed."
    before, files = peak(), snapshot(Path())
    said = complain(main, line, capsys)
    assert [w for w in words if w not in said] == [] and len(said) < 2500, said
    assert snapshot(Path()) == files and peak() - before < 2**28
    return said


LARGE_NETS = [dict(widths=[10_000, 10_000]), dict(widths=[65_528, 65_528]), dict(emb=65_536), dict(blocks=[24, 24]), dict(num_classes=10**9), dict(widths=[16, 32]), dict(heads=1, widths=[16]*2, blocks=[2, 1])]


@pytest.mark.parametrize('change', LARGE_NETS, ids=str)
@pytest.mark.parametrize('checkpoints', [True, False])
def test_a_configuration_does_not_take_memory(run, capsys, change, checkpoints):
    "A resumed run has the network of its newest checkpoint; without one, a network that is not larger than any of ours."
    made = json.loads((run/'config.json').read_text())
    made['net'].update(change)
    (run/'config.json').write_text(json.dumps(made))
    if checkpoints: refuses(capsys, 'net: got', '00000004.safetensors')
    else:
        shutil.rmtree(run/'checkpoints')
        if max(*made['net']['widths'], made['net']['emb']) > 9000 or change.get('num_classes'): refuses(capsys, 'numbers in a network')
        else: train_main(RESUME.split())


def test_every_value_of_a_configuration_replaced(run, capsys):
    "Refused in a line, or resumed; never more than that."
    path = run/'config.json'
    sound, luck = json.loads(path.read_text()), random.Random(0)
    texts = [json.dumps(replaced(sound, way, value)) for way in places(sound) if way[0] in ('train', 'net') for value in luck.sample(STRANGE, 4)]
    texts += [json.dumps(value) for value in STRANGE] + ['', 'x', '{', DEEP, '9'*5000, '[["train", {}], ["net", {}]]']
    for text in texts:
        path.write_text(text)
        before = peak()
        try: train_main(RESUME.replace('--steps 5', '--steps 4').split())
        except SystemExit as e: assert e.code == 2
        err = capsys.readouterr().err.strip().splitlines()
        assert len(err) <= 1 and peak() - before < 2**28, (text[:500], err)


def test_checkpoints_of_other_trainers(run, capsys):
    "Moments of another shape or type, too few or too many of them, another number of steps."
    path = run/'checkpoints'/'00000004.safetensors'
    tensors, meta = load_tensors(path, 'training')
    first = 'opt.0.exp_avg'
    others = [{**tensors, first: tensors[first][:1]}, {**tensors, first: tensors[first].double()}, {**tensors, first: tensors[first].bool()}, {**tensors, first: tensors[first].reshape(-1)}, {**tensors, 'opt.0.step': torch.tensor(-1.)},
        {**tensors, 'opt.0.step': torch.tensor(float('nan'))}, {**tensors, 'opt.0.step': torch.zeros(2)}, {k: v for k, v in tensors.items() if k != first}, {k: v for k, v in tensors.items() if not k.startswith('opt.')},
        {k: v for k, v in tensors.items() if not k.startswith('average')}, {**tensors, 'opt.9999.exp_avg': tensors[first]}, {**tensors, 'opt.x': tensors[first]}, {**tensors, 'opt.0.x.y': tensors[first]}, {**tensors, 'x': tensors[first]}]
    for other in others:
        save_tensors({k: t.clone() for k, t in other.items()}, meta, path)
        refuses(capsys, '00000004.safetensors', 'another configuration')
    for step in (None, -1, 3, 4.5, '4', [4], 10**30):
        save_tensors(tensors, dict(meta, step=step), path)
        refuses(capsys, '00000004.safetensors', 'after 4 steps')
    save_tensors(tensors, meta, path)
    shutil.copy(path, run/'checkpoints'/'0x.safetensors') # nobody's business
    train_main(RESUME.split())


LOGS = [b'', b'\xff\xfe', b'a,b\n1,2\n', b'step,loss\n1,2\n', b'step,seconds\n', b'step,seconds\n1,x\n', b'step,seconds\nx,1\n', b'step,seconds\n,1\n', b'step,seconds\n1,2,3,4\n1\n', b'"', b'step,seconds\n[4],1\n', b'\0'*9, pickle.dumps({'step': 1})]


@pytest.mark.parametrize('content', LOGS, ids=lambda b: repr(b)[:20])
def test_damaged_logs(run, capsys, content):
    (run/'log.csv').write_bytes(content)
    refuses(capsys, 'log.csv', 'damaged')


@pytest.mark.parametrize('name', ['log.csv', 'model.safetensors', 'samples', 'snapshots', 'checkpoints', 'tensorboard', 'config.json'])
def test_folders_in_the_place_of_files(run, capsys, name):
    "And files in that of folders: refused before anything is written."
    path = run/name
    if path.is_dir(): shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if path.suffix: path.mkdir()
    else: path.write_text('')
    refuses(capsys, name if name != 'config.json' else 'run')


# The package's own files

class Elsewhere:
    "The package's files, in a folder."
    def __init__(self, folder): self.folder = folder
    def files(self, name): return self.folder


@pytest.mark.parametrize('name,module,main,line', [('weights/digits8.npz', data, train_main, '--steps 1 --device cpu --out new'), ('index.json', cli, sample_main, '--guidance-scale 2'), ('index.json', cli, train_main, '--help'), ('index.json', cli, evaluate_main, '')])
def test_a_damaged_package(tmp_path, monkeypatch, capsys, name, module, main, line):
    "Bytes changed, or no file: one line that says which, and what to do."
    monkeypatch.chdir(tmp_path)
    sound = (Path(cli.__file__).parent/name).read_bytes()
    monkeypatch.setattr(module, 'resources', Elsewhere(tmp_path))
    luck, path = random.Random(0), tmp_path/name
    path.parent.mkdir(exist_ok=True)
    contents = [bitten(sound, luck) for _ in range(20)] + [b'', pickle.dumps(Canary(tmp_path/'canary')), b'[' * 100_000, b'{}', b'[]', b'3', sound.replace(b'1', b'2', 1), None]
    for content in contents:
        if content == sound: continue
        if content is None: path.unlink()
        else: path.write_bytes(content)
        cli.index.cache_clear()
        if content is not None and name.endswith('npz'):
            try: data.read_digits8()
            except InputError: pass
            else: continue # what was hit is not read
        elif content and content.strip() == sound.strip(): continue
        refuses(capsys, 'install', Path(name).stem if 'index' in name else 'digits', main=main, line=line)
    cli.index.cache_clear()
    assert not (tmp_path/'canary').exists()


@pytest.mark.parametrize('name', ['WORLD_SIZE', 'RANK', 'LOCAL_RANK'])
@pytest.mark.parametrize('text', ['x', '-1', '1.5', '/dev/null', ' '])
def test_variables_that_no_launcher_sets(tmp_path, monkeypatch, capsys, name, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, text)
    with pytest.raises(InputError, match=f'^{name}: got '): sweeps.make_accelerator('fp32', 'cpu')
    if name != 'RANK': refuses(capsys, name, main=sample_main, line='--model digits --guidance-scale 1 -n 2 --steps 1 --device cpu --out new')


# Tables of a sweep, and what is beside them

@pytest.fixture(scope='module')
def swept(tmp_path_factory):
    "A table of two rows, its note and its picture."
    out = tmp_path_factory.mktemp('swept')
    evaluate_main(f'{TABLE} 1 --out {out}/x.csv'.split())
    return out


TABLE = '--model digits --metrics accuracy -n 4 --steps 2 --sampler ddim --device cpu --scales'


def test_every_value_of_a_note_replaced(swept, tmp_path, monkeypatch, capsys):
    "The table is gone on with, or refused in a line; never more than that."
    monkeypatch.chdir(tmp_path)
    sound, luck = json.loads((swept/'x.json').read_text()), random.Random(0)
    texts = [json.dumps(replaced(sound, way, luck.choice(STRANGE))) for way in places(sound)]
    refused = 0
    for text in [*texts, *map(json.dumps, STRANGE), '', '{', DEEP, '{"config":'*100_000, '9'*5000]:
        for name in ('x.csv', 'x.png'): shutil.copy(swept/name, name)
        Path('x.json').write_text(text)
        before = snapshot(Path())
        try: evaluate_main(f'{TABLE} 1 2 --out x.csv'.split())
        except SystemExit as e:
            assert e.code == 2 and snapshot(Path()) == before, text[:500]
            refused += 1
        assert len(capsys.readouterr().err.strip().splitlines()) <= 1
    assert refused > len(STRANGE)


def test_a_row_that_is_there_twice(swept, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ('x.csv', 'x.json'): shutil.copy(swept/name, name)
    lines = Path('x.csv').read_text().splitlines(keepends=True)
    for i in range(1, len(lines)):
        Path('x.csv').write_text(''.join([*lines, lines[i]]))
        refuses(capsys, 'x.csv', f'line {len(lines) + 1}', 'before', main=evaluate_main, line=f'{TABLE} 1 2 --out x.csv')


def test_names_that_are_no_text(tmp_path):
    "A folder of pictures may have any bytes for a name; a table keeps them."
    row = {**dict.fromkeys(sweeps.COLUMNS, '1'), 'dataset': 'folder:' + os.fsdecode(b'a\xff\xc3'), 'metric': 'accuracy'}
    sweeps.write_table([row], {}, tmp_path/'x.csv')
    assert sweeps.read_rows(tmp_path/'x.csv') == [row]


# Pipes, on which one would wait for ever

def at_pipe(path):
    "A pipe in the place of a file."
    Path(path).unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.fixture
def awake():
    "Whoever waits for 60 seconds is woken up with an error."
    def wake(*args): raise AssertionError('it waits')
    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize('name', ['log.csv', 'config.json', 'model.safetensors', 'checkpoints/00000004.safetensors'])
def test_a_pipe_in_a_run(run, capsys, awake, name):
    at_pipe(run/name)
    with pytest.raises(SystemExit): train_main(RESUME.split())
    with pytest.raises(SystemExit): sample_main(f'--model {run/name} --guidance-scale 2 --device cpu --out new'.split())
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


def test_a_pipe_beside_a_table(swept, tmp_path, monkeypatch, capsys, awake):
    "Pipes that would be replaced by a table are refused; one among kept images is replaced."
    monkeypatch.chdir(tmp_path)
    for name in ('x.csv', 'x.json', 'x.png'):
        for other in ('x.csv', 'x.json', 'x.png'): Path(other).unlink(missing_ok=True); shutil.copy(swept/other, other)
        at_pipe(name)
        refused = complain(evaluate_main, f'{TABLE} 1 2 --out x.csv', capsys)
        assert '--out' in refused
    for other in ('x.csv', 'x.json', 'x.png'): Path(other).unlink()
    evaluate_main(f'{TABLE} 1 --keep kept --out a.csv'.split())
    path, = Path('kept').iterdir()
    at_pipe(path)
    evaluate_main(f'{TABLE} 1 --keep kept --out b.csv'.split())
    assert path.is_file() and Path('a.csv').read_bytes() == Path('b.csv').read_bytes()


def test_a_pipe_among_the_data(tmp_path, monkeypatch, capsys, awake):
    raw = tmp_path/'MNIST'/'raw'
    raw.mkdir(parents=True)
    for name in ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte', 't10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'): at_pipe(raw/name)
    monkeypatch.setenv('CFG_COURSE_OFFLINE', '1')
    with pytest.raises(InputError, match='^--dataset mnist'): data.load_data('mnist', 'train', tmp_path)
    monkeypatch.setattr(data, 'resources', Elsewhere(tmp_path)), monkeypatch.setattr(cli, 'resources', Elsewhere(tmp_path))
    (tmp_path/'weights').mkdir()
    at_pipe(tmp_path/'weights'/'digits8.npz'), at_pipe(tmp_path/'index.json')
    with pytest.raises(InputError, match='install it anew'): data.read_digits8()
    cli.index.cache_clear()
    with pytest.raises(SystemExit): cli.index()


# Messages

@pytest.mark.parametrize('line', [['--model', '9'*5000], ['--model', 'a b'*3000], ['--dataset', 'x'*9000], ['x'*9000], ['--' + 'x'*9000], ['--out', '/'.join(['x'*200]*40)], ['--guidance', 'cfg+'*2000]], ids=lambda line: ' '.join(line)[:20])
@pytest.mark.parametrize('main', [sample_main, train_main, evaluate_main])
def test_a_line_is_no_longer_than_can_be_read(main, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop: main([*line, '--device', 'cpu'])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count('\n') == 1 and len(said) < 2100 and list(tmp_path.iterdir()) == []


def test_a_refused_run_warns_of_nothing(tmp_path, monkeypatch, recwarn, capsys):
    "That a FID of a few images is none is said by runs that begin."
    monkeypatch.chdir(tmp_path)
    for more in ('--teacher digits', '--out words/x', '--dataset folder --data-dir words', '--resume'):
        Path('words').write_text('')
        with pytest.raises(SystemExit): train_main(f'--fid 5 --steps 2 --batch-size 2 --device cpu {more}'.split())
        assert len(capsys.readouterr().err.strip().splitlines()) == 1 and [str(w.message) for w in recwarn if 'fid' in str(w.message)] == []
