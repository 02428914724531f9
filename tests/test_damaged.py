"Files that are damaged, foreign or made to do harm: one line that names them, little memory, and nothing else."
import json, random, sys

import pandas as pd, pytest, torch
from safetensors.torch import save_file

from cfg_course.classifiers import Classifier, NoisyClassifier, ResidualClassifier, load_classifier, save_classifier
from cfg_course.core import InputError, load_tensors, read_results, save_tensors, write_results
from cfg_course.denoisers import Denoiser, load_denoiser, save_denoiser
from cfg_course.networks import UNet, UNetConfig, check_config

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
    ways = [way for way in places(meta) if way != ('precond',)] # which the denoiser looks up itself
    texts = [json.dumps(replaced(meta, way, value)) for way in ways for value in luck.sample(STRANGE, 12)]
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
