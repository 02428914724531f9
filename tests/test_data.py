"Data sets that are not embedded, where they are at hand, and folders of pictures of all kinds."
import os, shutil, tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pytest, torch
from PIL import Image

from cfg_course import data
from cfg_course.core import InputError
from cfg_course.data import DATASETS, PARTS, SHAPES, TORCHVISION, Images, data_folder, data_shape, load_data, part_rows, shrink
from cfg_course.training import net_config, net_name

DATA = Path(os.environ.get('CFG_COURSE_DATA', 'data'))


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
    for name in TORCHVISION: monkeypatch.setitem(data.TORCHVISION, name, make(name))
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


@pytest.mark.parametrize('name', ['digits', *TORCHVISION])
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
    "A folder of photographs is larger than memory: each is shrunk when it has been read."
    (tmp_path/'a').mkdir()
    for i in range(40): Image.new('RGB', (64, 48), (i, 0, 0)).save(tmp_path/'a'/f'{i:02d}.png')
    waiting, most = [0], []
    read, small = data.open_image, data.shrink
    def counted_read(path):
        waiting[0] += 1
        return read(path)
    def counted_shrink(x, *args):
        most.append(waiting[0])
        waiting[0] -= len(x)
        return small(x, *args)
    monkeypatch.setattr(data, 'AT_ONCE', 8)
    monkeypatch.setattr(data, 'open_image', counted_read)
    monkeypatch.setattr(data, 'shrink', counted_shrink)
    assert load_data('folder', data_dir=tmp_path, image_size=8).x[:, 0, 0, 0].tolist() == list(range(40))
    assert max(most) <= 9  # and the first one, whose size is asked for


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
