"Data sets that are not embedded, where they are at hand, and folders of pictures of all kinds."
import os, shutil, tarfile
from pathlib import Path

import pytest, torch
from PIL import Image

from cfg_course.core import InputError
from cfg_course.data import data_folder, load_data

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
