"Data sets that are not embedded, where they are at hand, and folders of pictures of all kinds."
import gzip, hashlib, json, os, shutil, signal, subprocess, sys, tarfile, time
from collections import Counter
from copy import copy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np, pytest, torch
from PIL import Image

from cfg_course import data
from cfg_course.core import InputError, save_grid, save_tensors, write_json, writing
from cfg_course.data import (DATA as TABLE, DATASETS, PARTS, SHAPES, Images, central_square, class_files, data_folder, data_shape,
                             dataset, is_picture, load_data, part_rows, shrink, to_bytes)
from cfg_course.training import net_config, net_name

DATA = Path(os.environ.get('CFG_COURSE_DATA', 'data'))
KINDS = dict(mnist='MNIST', fashion_mnist='FashionMNIST', cifar10='CIFAR10')  # torchvision's classes


def need(path): return pytest.mark.skipif(not (DATA/path).exists(), reason=f'{path} is not in the data folder (CFG_COURSE_DATA)')


@need('MNIST/raw')
@pytest.mark.parametrize('split,n', [('train', 60000), ('test', 10000)])
def test_mnist(split, n):
    d = load_data('mnist', split, DATA)
    assert d.x.shape == (n, 1, 28, 28) and d.x.dtype == torch.uint8 and d.y.bincount().min() > .08*n
    assert (d.classes[0], d.name) == ('0 - zero', 'mnist')


@need('cifar10-jpeg.tar.xz')
def test_cifar_copy_is_a_folder(tmp_path):
    "A few images of each class of the JPEG copy, read as a folder with splits."
    taken = {}
    with tarfile.open(DATA/'cifar10-jpeg.tar.xz') as tar:
        for m in tar:
            if m.isfile() and m.name.endswith('.jpg') and taken.setdefault(Path(m.name).parent, 0) < 3:
                taken[Path(m.name).parent] += 1
                target = tmp_path/Path(*Path(m.name).parts[-3:])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(tar.extractfile(m).read())
            if len(taken) >= 10 and min(taken.values()) == 3: break
    split = next(p.name for p in tmp_path.iterdir())
    d = load_data('folder', split, tmp_path)
    assert d.x.shape[1:] == (3, 32, 32) and len(d) == 3*len(d.classes)


@pytest.fixture
def pictures(tmp_path):
    "Two classes, pictures of different sizes and kinds."
    for c, mode, size, name in (('a', 'RGB', (40, 30), '0.png'), ('a', 'RGBA', (16, 16), '1.png'), ('b', 'L', (9, 20), '0.jpg'), ('b', 'P', (8, 8), '1.gif')):
        (tmp_path/c).mkdir(exist_ok=True)
        Image.new(mode, size, 100 if mode in 'LP' else (200, 50, 0, 255)[:len(mode)]).save(tmp_path/c/name)
    return tmp_path


def test_all_kinds_of_pictures(pictures):
    d = load_data('folder', data_dir=pictures, image_size=8)
    assert d.x.shape == (4, 3, 8, 8) and d.y.tolist() == [0, 0, 1, 1] and d.classes == ['a', 'b']
    assert d.x[0, :, 4, 4].tolist() == [200, 50, 0]
    with pytest.raises(InputError, match='image-size.*at most 9'): load_data('folder', data_dir=pictures, image_size=16)


@pytest.mark.parametrize('given', ['.', 'pics'])
def test_a_folder_is_known_by_its_name(pictures, given):
    "Models say folder:NAME; the folder is found beside other data sets, or is the one that is given."
    for split in ('train', 'test'): shutil.copytree(pictures/'a', pictures/'pics'/split/'a')
    d = load_data('folder:pics', 'test', pictures/given, 8)
    assert (d.name, len(d)) == ('folder:pics', 2) and load_data('folder', 'train', pictures/'pics', 8).name == d.name
    with pytest.raises(InputError, match='folder'): load_data('folder:other', 'test', pictures/'pics', 8)
    with pytest.raises(InputError, match='dataset'): load_data('digits:pics')


def test_grey_pictures_stay_grey(pictures):
    for p in [*(pictures/'a').iterdir(), pictures/'b'/'1.gif']: Image.new('L', (8, 8), 50).save(p.with_suffix('.png')); p.suffix == '.gif' and p.unlink()
    assert load_data('folder', data_dir=pictures, image_size=8).shape == (1, 8, 8)


def test_a_damaged_picture_is_named(pictures):
    whole = (pictures/'b'/'0.jpg').read_bytes()
    (pictures/'b'/'0.jpg').write_bytes(whole[:len(whole)//2])
    with pytest.raises(InputError, match='0.jpg'): load_data('folder', data_dir=pictures, image_size=16)


def test_where_data_sets_are_kept(monkeypatch):
    monkeypatch.setenv('CFG_COURSE_DATA', 'there')
    assert (data_folder('here'), data_folder()) == (Path('here'), Path('there'))
    monkeypatch.delenv('CFG_COURSE_DATA')
    assert data_folder() == Path('data')


# One table

@pytest.fixture
def table(monkeypatch):
    "A copy of the table, to be changed."
    for name in ('DATA', 'DATASETS', 'SHAPES'): monkeypatch.setattr(data, name, copy(getattr(data, name)))


def test_the_table():
    assert sorted(TABLE) == sorted(DATASETS) and DATASETS[-1] == 'folder' and {'digits', 'mnist', 'fashion_mnist', 'cifar10'} <= set(DATASETS)
    assert dict(digits=(1, 8, 8), mnist=(1, 28, 28), fashion_mnist=(1, 28, 28), cifar10=(3, 32, 32)).items() <= SHAPES.items()
    assert all(o.name == name and o.source and o.like in (None, *TABLE) for name, o in TABLE.items())
    assert {name: o.shape for name, o in TABLE.items() if o.shape} == SHAPES and TABLE['folder'].shape is None


def test_a_data_set_is_added_by_one_function(table):
    "An invented one, with its splits, parts and thumbnails; what it is not asked for is refused."
    @dataset('dice', shape=(1, 12, 12), like='mnist', source='invented')
    def load_dice(split='train', data_dir=None):
        x, y = random_pictures(split, (1, 12, 12), int(data_dir or 0))
        return Images(torch.from_numpy(x), torch.from_numpy(y), list('abcde'), 'dice')
    assert data.DATASETS == [*DATASETS[:-1], 'dice', 'folder'] and 'dice' not in DATASETS
    assert data.DATA['dice'] == ('dice', load_dice, (1, 12, 12), 'mnist', 'invented')
    assert data_shape('dice') == (1, 12, 12) and data_shape('dice', 6) == (1, 6, 6)
    whole = {split: load_data('dice', split, '1') for split in ('train', 'test')}
    for split, d in whole.items(): assert torch.equal(d.x, load_dice(split, '1').x) and (len(d), d.data_dir) == (sum(COUNTS[split]), '1')
    for name, part in PARTS.items():
        kept = whole[part.split].take(part_rows(whole[part.split].y, name))
        small = load_data('dice', name, '1', 4)
        assert torch.equal(small.x, shrink(kept.x, 4)) and torch.equal(small.y, kept.y) and small.shape == (1, 4, 4)
    for args, words in ((('dice:own',), 'dice, folder'), (('dice', 'val'), 'split'), (('dice', 'train', None, 13), 'at most 12')):
        with pytest.raises(InputError, match=words): load_data(*args)


def test_a_data_set_without_a_shape_makes_its_thumbnails(table):
    @dataset('blank')
    def load_blank(split, data_dir, image_size): return Images(torch.zeros(2, 1, image_size, image_size, dtype=torch.uint8), torch.zeros(2).long(), ['a'], 'blank')
    assert load_data('blank', 'test', image_size=5).shape == (1, 5, 5) and data_shape('blank', 5) is None


def test_a_data_set_knows_its_folder(pictures):
    d = load_data('folder', data_dir=pictures, image_size=8)
    assert d.data_dir == pictures and torch.equal(load_data(d.name, data_dir=d.data_dir, image_size=d.shape[-1]).x, d.x)


# What other libraries give

def test_digits_are_scikit_learns():
    theirs = pytest.importorskip('sklearn.datasets').load_digits()
    x, y = torch.from_numpy((theirs.images*255/16).round().astype(np.uint8))[:, None], torch.from_numpy(theirs.target).long()
    test = (data.place_in_class(y) % 5 == 0)
    for split, keep in (('train', ~test), ('test', test)):
        d = load_data('digits', split)
        assert torch.equal(d.x, x[keep]) and torch.equal(d.y, y[keep]) and d.y.dtype == torch.int64 and d.classes == list('0123456789')


def test_digits_come_with_a_note():
    note = json.loads((resources.files('cfg_course')/'weights'/'digits8.json').read_text(encoding='utf-8'))
    assert 'CC BY 4.0' in note['licence'] and 'Alpaydin' in note['citation'] and note['url'].startswith('https://')


def test_files_are_in_the_order_of_torchvision(tmp_path):
    "Names that sort differently as texts and as paths, folders in folders, links, files that are no pictures."
    folders = pytest.importorskip('torchvision.datasets').ImageFolder
    for path in ('b/1.png', 'b/10.PNG', 'b/2.jpg', 'B/x/1.gif', 'B/x-y/1.png', 'B/x/y/1.webp', 'a b/.png.txt', 'a b/0.jpeg', 'a/notes.txt', 'a/ä.bmp', 'x.png'):
        (tmp_path/path).parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (4, 4)).save(tmp_path/path, 'png')
    (tmp_path/'link').symlink_to(tmp_path/'B')
    theirs = folders(tmp_path, is_valid_file=is_picture)
    ours = class_files(tmp_path)
    assert list(ours) == theirs.classes
    assert [(path, k) for k, some in enumerate(ours.values()) for path in some] == theirs.samples
    d = load_data('folder', data_dir=tmp_path, image_size=4)
    assert d.classes == theirs.classes and d.y.tolist() == theirs.targets


def test_squares_are_cut_as_torchvision_does():
    "All sides up to 12, grey and in colour, to the bit."
    theirs, dice = pytest.importorskip('torchvision.transforms.functional'), np.random.default_rng(0)
    for w in range(1, 13):
        for h in range(1, 13):
            for mode in ('L', 'RGB'):
                im = Image.fromarray(dice.integers(0, 256, (h, w, 3), dtype=np.uint8)).convert(mode)
                assert torch.equal(to_bytes(central_square(im)), theirs.pil_to_tensor(theirs.center_crop(im, [min(w, h)]*2)))


@pytest.mark.parametrize('name', ['a', 'none'])
def test_a_folder_lacks_pictures(pictures, name):
    "A class without pictures, a file, a folder that is not there."
    (pictures/'c').mkdir()
    for where in (pictures, pictures/name, pictures/'a'/'0.png'):
        with pytest.raises(InputError, match='--data-dir.*one sub-folder of images per class'): load_data('folder', data_dir=where)


HEAVY = ['torchvision', 'sklearn', 'ot', 'scipy', 'torch_fidelity', 'pandas', 'matplotlib', 'seaborn', 'accelerate']
LIGHT = f'''
import sys
for name in {HEAVY}: sys.modules[name] = None
from cfg_course.data import load_data
print(len(load_data('digits')), len(load_data('folder', data_dir=sys.argv[1], image_size=4)))
try: load_data('mnist', data_dir=sys.argv[1] + '/new')
except ValueError as e: print(e)
'''


def test_nothing_heavy_is_needed(pictures):
    "Digits and folders are read with NumPy and Pillow; MNIST says what it needs."
    done = subprocess.run([sys.executable, '-c', LIGHT, str(pictures)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[0] == '1433 4', done.stderr
    assert 'torchvision: not installed' in done.stdout and not (pictures/'new').exists()


# Thumbnails and parts

COUNTS = dict(train=(23, 40, 5, 1, 31), test=(10, 11, 2, 1, 7))  # pictures of each of five classes


def random_pictures(split, shape, seed=0):
    "Labelled pictures in any order, bytes and labels."
    dice = np.random.default_rng([seed, split == 'test'])
    y = dice.permutation(np.repeat(range(5), COUNTS[split]))
    return dice.integers(0, 256, (len(y), *shape), dtype=np.uint8), y


@pytest.fixture
def stub(monkeypatch):
    "torchvision's sets, small and random; what was opened is listed."
    opened = []
    def make(name):
        channels, side, _ = SHAPES[name]
        def open_set(root, train, download):
            opened.append(name)
            x, y = random_pictures('train' if train else 'test', (side, side, 3) if channels == 3 else (side, side))
            return SimpleNamespace(data=x, targets=y.tolist(), classes=list('abcde'))
        return open_set
    class There:
        def __getattr__(self, kind): return make(next((name for name, known in KINDS.items() if known == kind), kind.lower()))
    monkeypatch.setattr(data, 'optional', lambda name: There())
    return opened


def as_folder(root, name, splits=('train', 'test')):
    "The pictures of a set as files, numbered in the order of the set."
    for split in splits:
        d = load_data(name, split)
        for i, (x, c) in enumerate(zip(d.x, d.y.tolist())):
            target = root/(split if len(splits) > 1 else '')/d.classes[c]/f'{i:05d}.png'
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x.permute(1, 2, 0).squeeze(-1).numpy()).save(target)
    return root


@pytest.mark.parametrize('name,sizes', [('cifar10', (32, 16, 20, 5)), ('mnist', (28, 14, 9)), ('fashion_mnist', (28, 4))])
def test_a_folder_has_the_same_thumbnails(stub, tmp_path, name, sizes):
    "Area averages of a data set and of a folder of the same pictures are the same bytes, whatever the side."
    as_folder(tmp_path, name)
    for split in 'train', 'test':
        order = load_data(name, split).y.argsort(stable=True)
        for size in sizes:
            a, b = load_data(name, split, image_size=size).take(order), load_data('folder', split, tmp_path, size)
            assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and a.classes == b.classes and a.shape[-1] == size


def test_a_thumbnail_is_the_mean_of_its_pixels(stub):
    whole, half = load_data('cifar10', image_size=32).x.double(), load_data('cifar10', image_size=16).x
    means = whole.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    assert torch.equal(half, means.round().to(torch.uint8)) and torch.equal(shrink(half, 16), half)


@pytest.mark.parametrize('name', ['digits', *KINDS])
def test_sizes_are_refused_before_anything_is_read(stub, tmp_path, name):
    side = SHAPES[name][-1]
    for bad in side + 1, 0, -4, 2.5, True:
        with pytest.raises(InputError, match='^--image-size: got') as said: load_data(name, 'train', tmp_path/'none', bad)
        assert len(str(said.value).splitlines()) == 1
    assert stub == [] and not (tmp_path/'none').exists() and data_shape(name, side//2) == (SHAPES[name][0], side//2, side//2)


def test_a_folder_of_different_sizes(tmp_path):
    "Each is shrunk from its own central square; without a size the first picture's is taken, and smaller ones are named."
    dice = np.random.default_rng(0)
    for i, (w, h) in enumerate([(20, 20), (40, 24), (33, 50)]):
        (tmp_path/'a').mkdir(exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(tmp_path/'a'/f'{i}.png')
    d = load_data('folder', data_dir=tmp_path, image_size=10)
    for i, (left, top, side) in enumerate([(0, 0, 20), (8, 0, 24), (0, 8, 33)]):
        square = np.array(Image.open(tmp_path/'a'/f'{i}.png'))[top:top + side, left:left + side]
        assert torch.equal(d.x[i:i + 1], shrink(torch.from_numpy(square).permute(2, 0, 1)[None].contiguous(), 10))
    assert load_data('folder', data_dir=tmp_path).shape == (3, 20, 20)
    (tmp_path/'a'/'0.png').rename(tmp_path/'a'/'9.png')
    with pytest.raises(InputError, match="--image-size: got 24, allowed: at most 20, the side of '.*9.png'"): load_data('folder', data_dir=tmp_path)


def test_memory_holds_thumbnails_only(tmp_path, monkeypatch):
    "A folder of photographs is larger than memory: each is shrunk by who has read it, before the next."
    (tmp_path/'a').mkdir()
    for i in range(40): Image.new('RGB', (64, 48), (i, 0, 0)).save(tmp_path/'a'/f'{i:02d}.png')
    here, most = [], []
    read, small = data.as_seen, data.shrink
    def counted_read(im):
        here.append(im)
        most.append(len(here))
        return read(im)
    def counted_shrink(x, *args):
        here.pop()
        return small(x, *args)
    monkeypatch.setattr(data, 'as_seen', counted_read)
    monkeypatch.setattr(data, 'shrink', counted_shrink)
    assert load_data('folder', data_dir=tmp_path, image_size=8).x[:, 0, 0, 0].tolist() == list(range(40))
    assert max(most) <= min(32, os.cpu_count() + 4)  # readers


@pytest.mark.parametrize('name', DATASETS)
def test_parts_divide_a_split(stub, tmp_path, name):
    "No picture twice, every picture once, each class in the same shares to within one picture, and at every size the same."
    where = dict(name=name, data_dir=as_folder(tmp_path, 'cifar10') if name == 'folder' else None)
    for split in 'train', 'test':
        whole = load_data(split=split, **where)
        parts = {k: part_rows(whole.y, k) for k, p in PARTS.items() if p.split == split}
        assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(len(whole)))
        for k, rows in parts.items():
            part, share = load_data(split=k, **where), len(PARTS[k].places)/PARTS[k].every
            assert torch.equal(part.x, whole.x[rows]) and torch.equal(part.y, whole.y[rows]) and part.classes == whole.classes
            n = len(whole.classes)
            assert (whole.y.bincount(minlength=n)*share - part.y.bincount(minlength=n)).abs().max() < 1
            small = load_data(split=k, image_size=4, **where)
            assert torch.equal(small.y, part.y) and torch.equal(small.x, shrink(part.x, 4))


def test_parts_do_not_depend_on_what_they_hold():
    "A picture's part depends on the labels before it, so more pictures at the end change nothing."
    y = torch.from_numpy(random_pictures('train', (1,))[1])
    for part in PARTS: assert torch.equal(part_rows(y[:60], part), part_rows(y, part)[:len(part_rows(y[:60], part))])


def test_a_folder_without_splits_has_no_pictures_to_hold_out(stub, tmp_path):
    "All of them are training pictures."
    as_folder(tmp_path, 'mnist', ['train'])
    assert len(load_data('folder', 'fit', tmp_path)) + len(load_data('folder', 'reference', tmp_path)) == len(load_data('folder', 'train', tmp_path))
    for part in 'heldout', 'floor':
        with pytest.raises(InputError, match=f'--data-dir.*train and test in it, for the part {part}'): load_data('folder', part, tmp_path)


@pytest.mark.parametrize('shape,name', [
    ((3, 16, 16), 'cifar10_16'), ((3, 32, 32), 'cifar10_small'), ((1, 28, 28), 'mnist'), ((1, 16, 16), 'mnist'),
    ((1, 8, 8), 'digits'), ((3, 8, 8), 'digits')])
def test_the_network_for_a_folder(shape, name):
    "Chosen by size and colour, not by where the pictures are from."
    assert net_name('folder:pics', shape) == name
    net = net_config(Images(torch.zeros(1, *shape, dtype=torch.uint8), torch.zeros(1).long(), ['a'], 'folder:pics'))
    assert (net.channels, net.image_size, net.num_classes) == (shape[0], shape[-1], 1)


def test_the_network_of_a_data_set():
    "Its own at full size; thumbnails have that of their size, as a folder of the same thumbnails has."
    assert [net_name(n, SHAPES[n]) for n in ('digits', 'mnist', 'cifar10')] == ['digits', 'mnist', 'cifar10']
    assert net_name('cifar10', (3, 16, 16)) == net_name('folder', (3, 16, 16)) == 'cifar10_16'


# Downloads

def idx(values):
    "An array of bytes in MNIST's format."
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, '>u4').tobytes() + values.tobytes()


def small_mnist(n=12):
    "Its four files, small and random."
    dice = np.random.default_rng(0)
    made = {}
    for split, k in (('train', n), ('t10k', n//2)):
        made[f'{split}-images-idx3-ubyte'] = idx(dice.integers(0, 256, (k, 28, 28), dtype=np.uint8))
        made[f'{split}-labels-idx1-ubyte'] = idx(np.arange(k, dtype=np.uint8) % 10)
    return made


@pytest.fixture
def mirror():
    "A server of small archives; what was fetched is counted, and it may fail or keep one waiting."
    packed = {f'{name}.gz': gzip.compress(content, mtime=0) for name, content in small_mnist().items()}
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self): self.answer(False)
        def do_GET(self): self.answer(True)
        def log_message(self, *args): pass
        def answer(self, whole):
            content = packed.get(self.path[1:])
            if whole: served.fetched[self.path[1:]] += 1
            if served.down or content is None: return self.send_error(404)
            for _ in range(3000):  # half a minute at most
                if whole and self.path[1:] in served.held: time.sleep(.01)
            self.send_response(200)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            if whole: self.wfile.write(content)
    server = ThreadingHTTPServer(('127.0.0.1', 0), Answer)
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in packed.items()]
    served = SimpleNamespace(fetched=Counter(), down=False, held=set(), packed=packed, at=f'http://127.0.0.1:{server.server_port}/', resources=resources)
    Thread(target=server.serve_forever, daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()


ASK = '''
import json, sys
import torchvision.datasets as sets
from cfg_course.data import InputError, load_data
for kind in (sets.MNIST, sets.FashionMNIST): kind.mirrors, kind.resources = [sys.argv[2]], json.loads(sys.argv[3])
try: print(len(load_data(sys.argv[4], 'train', sys.argv[1])))
except InputError as e: sys.exit(str(e))
'''


def ask(mirror, root, name='mnist', **env):
    "A process that loads MNIST."
    pytest.importorskip('torchvision')
    line = [sys.executable, '-c', ASK, str(root), mirror.at, json.dumps(mirror.resources), name]
    quiet = dict(os.environ, TQDM_DISABLE='1', no_proxy='*', NO_PROXY='*', OMP_NUM_THREADS='1')
    quiet.pop('CFG_COURSE_OFFLINE', None)
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**quiet, **env})


def until(condition, seconds=60):
    "Wait for it."
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(.01)


def answer(process):
    "What it prints, and its complaints but for the one that it waits."
    out, err = process.communicate(timeout=180)
    return process.returncode, out.strip(), [line for line in err.splitlines() if not line.startswith('waiting for')]


def waits(process):
    "It says so, and goes on waiting."
    assert 'waiting for the process that holds' in process.stderr.readline() and process.poll() is None


def test_two_processes_at_once(mirror, tmp_path):
    "One downloads, the other waits; nothing is fetched twice, and only the data are left."
    root = tmp_path/'new'/'data'
    mirror.held = {'t10k-images-idx3-ubyte.gz'}
    first = ask(mirror, root)
    until(lambda: len(mirror.fetched) == 3)
    second = ask(mirror, root)
    waits(second)
    assert not (root/'MNIST').exists()  # nothing half is seen
    mirror.held = set()
    assert answer(first) == answer(second) == (0, '12', [])
    together = mirror.fetched.copy()
    mirror.fetched.clear()
    assert answer(ask(mirror, tmp_path/'alone')) == (0, '12', []) and together == mirror.fetched and len(together) == 4
    assert [p.name for p in root.iterdir()] == ['MNIST'] and load_data('mnist', 'test', root).y.tolist() == list(range(6))


@pytest.mark.slow
def test_two_processes_in_step(mirror, tmp_path):
    "Started in the same moment, in a folder with other things."
    (tmp_path/'mine').mkdir()
    both = [ask(mirror, tmp_path, 'fashion_mnist') for _ in range(2)]
    assert [answer(process) for process in both] == [(0, '12', [])]*2
    assert len(set(mirror.fetched.values())) == 1 and sorted(p.name for p in tmp_path.iterdir()) == ['FashionMNIST', 'mine']


def test_two_processes_without_a_connection(mirror, tmp_path):
    "Both say so in one line, and no folder is left."
    mirror.down = True
    for process in [ask(mirror, tmp_path/'new'/'data') for _ in range(2)]:
        status, _, said = answer(process)
        assert status == 1 and len(said) == 1 and '--dataset mnist: not found' in said[0] and 'the download failed' in said[0] and 'CFG_COURSE_OFFLINE=1' in said[0]
    assert not (tmp_path/'new').exists()


def test_a_download_is_killed(mirror, tmp_path):
    "In the middle of it; nothing half is taken for the data, and who waited goes on."
    mirror.held = {'t10k-images-idx3-ubyte.gz'}
    first = ask(mirror, tmp_path)
    until(lambda: len(mirror.fetched) == 3)
    second = ask(mirror, tmp_path)
    waits(second)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not (tmp_path/'MNIST').exists()
    mirror.held = set()
    assert answer(second) == (0, '12', []) and [p.name for p in tmp_path.iterdir()] == ['MNIST']


@pytest.fixture
def here(mirror, monkeypatch):
    "The server, asked from this process."
    sets = pytest.importorskip('torchvision.datasets')
    for name in 'no_proxy', 'NO_PROXY': monkeypatch.setenv(name, '*')
    monkeypatch.delenv('CFG_COURSE_OFFLINE', raising=False)
    for kind in sets.MNIST, sets.FashionMNIST:
        monkeypatch.setattr(kind, 'mirrors', [mirror.at])
        monkeypatch.setattr(kind, 'resources', mirror.resources)
    return mirror


def test_what_was_there_stays(here, tmp_path):
    "A download that fails, or breaks off in the middle, removes nothing that it has not made, and leaves nothing."
    raw = tmp_path/'MNIST'/'raw'
    raw.mkdir(parents=True)
    (raw/'notes.txt').write_text('mine')
    (raw/'train-images-idx3-ubyte').write_bytes(small_mnist()['train-images-idx3-ubyte'])
    (tmp_path/'cats').mkdir()
    before = sorted(tmp_path.rglob('*'))
    whole = dict(here.packed)
    for broken in ({}, dict(list(whole.items())[:2]), {**whole, 't10k-labels-idx1-ubyte.gz': b'cut'}):
        here.packed.clear()
        here.packed.update(broken)
        with pytest.raises(InputError, match='the download failed'): load_data('mnist', 'train', tmp_path)
        assert sorted(tmp_path.rglob('*')) == before
    here.packed.update(whole)
    assert len(load_data('mnist', 'train', tmp_path)) == 12 and set(before) < set(tmp_path.rglob('*'))


def test_a_download_is_interrupted(here, tmp_path, monkeypatch):
    "By the user, while files come and while they are put into their place: no part is left, and the next one begins anew."
    def stop(*args, **kwargs): raise KeyboardInterrupt
    for where, what in ((sys.modules['torchvision.datasets.mnist'], 'download_and_extract_archive'), (data.shutil, 'copyfile')):
        with monkeypatch.context() as m:
            m.setattr(where, what, stop)
            with pytest.raises(KeyboardInterrupt): load_data('mnist', 'train', tmp_path/'new')
        assert not [p for p in tmp_path.rglob('*') if p.is_file() or 'part' in p.name]
        if what != 'copyfile': assert not list(tmp_path.iterdir())
    assert len(load_data('mnist', 'train', tmp_path/'new')) == 12


def test_archives_that_are_there(here, tmp_path):
    "Are used, and a damaged one is fetched; a set that is there is read without a connection and without a lock."
    raw = tmp_path/'MNIST'/'raw'
    raw.mkdir(parents=True)
    for name, content in here.packed.items(): (raw/name).write_bytes(content)
    damaged = next(iter(here.packed))
    (raw/damaged).write_bytes(b'damaged')
    for _ in range(2):
        assert len(load_data('mnist', 'train', tmp_path)) == 12 and set(here.fetched) == {damaged}
        here.down = True


def test_offline(here, tmp_path, monkeypatch):
    "The switch forbids downloads, and the message names it."
    for switch in '1', 'yes':
        monkeypatch.setenv('CFG_COURSE_OFFLINE', switch)
        for name in 'mnist', 'fashion_mnist', 'cifar10':
            with pytest.raises(InputError, match=f'--dataset {name}.*CFG_COURSE_OFFLINE is set.*--data-dir') as said: load_data(name, 'train', tmp_path/'new')
            assert len(str(said.value).splitlines()) == 1
    assert not here.fetched and not (tmp_path/'new').exists() and len(load_data('digits')) == 1433
    monkeypatch.setenv('CFG_COURSE_OFFLINE', '0')
    assert len(load_data('mnist', 'train', tmp_path)) == 12
    monkeypatch.setenv('CFG_COURSE_OFFLINE', '1')
    assert len(load_data('mnist', 'test', tmp_path)) == 6


@pytest.fixture
def raw(tmp_path):
    "A small MNIST on the disk."
    pytest.importorskip('torchvision')
    for name, content in small_mnist().items():
        (tmp_path/'MNIST'/'raw').mkdir(parents=True, exist_ok=True)
        (tmp_path/'MNIST'/'raw'/name).write_bytes(content)
    return tmp_path/'MNIST'/'raw'


HURT = dict(empty=lambda b: b'', short=lambda b: b[:7], cut=lambda b: b[:-1], longer=lambda b: b + b'0', magic=lambda b: b'\xff\xff\xff\xff' + b[4:],
            none=lambda b: bytes(16), floats=lambda b: b'\0\0\x0d' + b[3:], axes=lambda b: b[:3] + b'\2' + b[4:], many=lambda b: b[:4] + b'\xff'*4 + b[8:],
            html=lambda b: b'<html>moved</html>', pickle=lambda b: b'\x80\x04.' + b)


@pytest.mark.parametrize('how', HURT)
@pytest.mark.parametrize('name', small_mnist())
def test_damaged_mnist(raw, monkeypatch, name, how):
    "Is refused in one line that names the file, stays as it is, and no download is tried."
    monkeypatch.setattr(data, 'download', lambda *args: pytest.fail('a download'))
    bad = HURT[how]((raw/name).read_bytes())
    (raw/name).write_bytes(bad)
    with pytest.raises(InputError, match=f'--dataset mnist.*{name}') as said: load_data('mnist', 'train', raw.parent.parent)
    assert len(str(said.value).splitlines()) == 1 and (raw/name).read_bytes() == bad


def test_an_mnist_of_another_kind(raw):
    "Other sides, labels that are no digits, more labels than pictures."
    top = raw.parent.parent
    for name, values in (('images-idx3', np.zeros((12, 27, 28), np.uint8)), ('labels-idx1', np.full(12, 200, np.uint8)), ('labels-idx1', np.zeros(11, np.uint8)), ('images-idx3', np.zeros((0, 28, 28), np.uint8))):
        path = raw/f'train-{name}-ubyte'
        whole = path.read_bytes()
        path.write_bytes(idx(values))
        with pytest.raises(InputError, match='--dataset mnist') as said: load_data('mnist', 'train', top)
        assert len(str(said.value).splitlines()) == 1
        path.write_bytes(whole)
    assert len(load_data('mnist', 'train', top)) == 12


def test_a_huge_mnist_is_not_read(raw):
    "Only its first bytes are; the file is a hole of a terabyte."
    path = raw/'train-images-idx3-ubyte'
    for size in 2**40, 16 + 784*2**31:
        with open(path, 'r+b') as f:
            f.write(bytes([0, 0, 8, 3]) + np.array([2**31, 28, 28], '>u4').tobytes())
            try: f.truncate(size)
            except OSError: pytest.skip('no such large files here')
        with pytest.raises(InputError, match=path.name): load_data('mnist', 'train', raw.parent.parent)


@pytest.mark.parametrize('error', [KeyError('x'), AssertionError(), EOFError(), MemoryError(), TypeError('two\nlines'), AttributeError('data')])
def test_what_torchvision_raises_is_one_line(monkeypatch, tmp_path, error):
    def fail(*args, **kwargs): raise error
    monkeypatch.setattr(data, 'optional', lambda name: SimpleNamespace(MNIST=fail, FashionMNIST=fail, CIFAR10=fail))
    for name in KINDS:
        with pytest.raises(InputError, match=f'--dataset {name}') as said: load_data(name, 'train', tmp_path)
        assert len(str(said.value).splitlines()) == 1


@pytest.mark.parametrize('where', ['x'*5000, 'file', 'file/below'])
def test_data_sets_have_no_place(monkeypatch, tmp_path, where):
    "An over-long name, a file in the way."
    pytest.importorskip('torchvision')
    monkeypatch.chdir(tmp_path)
    Path('file').write_text('mine')
    monkeypatch.setattr(data, 'download', lambda *args: pytest.fail('a download'))
    for name in KINDS:
        with pytest.raises(InputError, match=f'--dataset {name}') as said: load_data(name, 'train', where)
        assert len(str(said.value).splitlines()) == 1
    assert Path('file').read_text() == 'mine' and len(list(tmp_path.iterdir())) == 1


# Rights

@pytest.mark.skipif(os.name != 'posix', reason='a umask is of Unix')
@pytest.mark.parametrize('mask', [0o022, 0o077, 0o002, 0o027, 0])
def test_files_have_the_rights_of_the_umask(tmp_path, mask):
    "As those that any other program writes, new and replaced; nothing is left beside them."
    before = os.umask(mask)
    try:
        for _ in range(2):
            write_json({}, tmp_path/'a.json')
            save_tensors({'x': torch.zeros(1)}, dict(kind='x'), tmp_path/'a.safetensors')
            save_grid(torch.zeros(1, 1, 4, 4), tmp_path/'a.png')
            with writing(tmp_path/'deep'/'a.npz') as tmp: np.savez(tmp, a=np.zeros(1))
        (tmp_path/'plain').write_text('')
    finally: os.umask(before)
    files = [p for p in tmp_path.rglob('*') if p.is_file()]
    assert len(files) == 5 and {p.stat().st_mode & 0o777 for p in files} == {0o666 & ~mask}
