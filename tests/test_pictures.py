"Pictures as a viewer shows them, or refused by name: orientation, transparency, depth, what is hidden, what is damaged, what is huge."
import os, random, subprocess, sys
from pathlib import Path

import numpy as np, pytest, torch
from PIL import Image, ImageCms, ImageOps

from cfg_course import data
from cfg_course.core import InputError
from cfg_course.data import Images, class_files, load_data, load_folder, open_image, shrink

DICE = np.random.default_rng(0)
NOISE = DICE.integers(0, 256, (24, 20, 3), dtype=np.uint8)
DEEP = DICE.integers(0, 65536, (24, 24), dtype=np.uint16)
NAMES = dict(jpg='jpeg', tif='tiff', jp2='jpeg2000', pgm='ppm')


def put(path, im, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    im = im if isinstance(im, Image.Image) else Image.fromarray(im)
    im.save(path, NAMES.get(path.suffix[1:], path.suffix[1:]), **how)
    return path


def seen(path, im, **how): return np.array(open_image(str(put(path, im, **how))))


def grey(v): return np.full((8, 8, 3), v, np.uint8)


def refused(call, *words):
    "It is refused in one line that says these words."
    with pytest.raises(InputError) as said: call()
    assert len(str(said.value).splitlines()) == 1 and all(word in str(said.value) for word in words), said.value


# What a file says beside its pixels

@pytest.mark.parametrize('ext', ['png', 'jpg', 'webp', 'tif', 'avif', 'mpo'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('tag', range(10))
def test_orientation(tmp_path, ext, mode, tag):
    "Turned as Pillow turns it, and the square is cut afterwards."
    if f'.{ext}' not in Image.registered_extensions(): pytest.skip(f'{ext} is not built in')
    exif = Image.Exif()
    exif[0x0112] = tag
    path = put(tmp_path/f'a.{ext}', Image.fromarray(NOISE).convert(mode), exif=exif, **(dict(lossless=True) if ext == 'webp' else {}))
    with Image.open(path) as im: theirs = data.central_square(ImageOps.exif_transpose(im).convert(mode))
    ours = open_image(str(path))
    assert np.array_equal(np.array(ours.convert(mode)), np.array(theirs))


def test_the_upper_half_is_the_right_one(tmp_path):
    "Whatever the mode: tag 6 turns by a quarter."
    exif = Image.Exif()
    exif[0x0112] = 6
    a = np.zeros((16, 16), np.uint8)
    a[:8] = 255
    im = Image.fromarray(a)
    for i, kind in enumerate((im, im.convert('RGB'), im.convert('P'), im.convert('1'), im.convert('LA'), im.convert('RGBA'), Image.fromarray(a.astype(np.uint16)*257))):
        put(tmp_path/'f'/'c'/f'{i}.png', kind, exif=exif)
    x = load_folder('train', tmp_path/'f').x
    for one in x: assert bool((one[:, :, 8:] == 255).all() and (one[:, :, :8] == 0).all())


@pytest.mark.parametrize('junk', [b'', b'Exif\0\0', b'Exif\0\0MM\0*\0\0\0\x08\xff\xff', b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x63\0\x01\0\0\0\x06\0\0\0', b'nonsense'])
def test_damaged_exif_says_nothing(tmp_path, junk):
    for ext in ('png', 'jpg', 'webp'):
        assert np.array_equal(seen(tmp_path/f'a.{ext}', NOISE[:20], exif=junk), seen(tmp_path/f'b.{ext}', NOISE[:20]))


def layers(under):
    "Upper half of any colour with alpha 0, then half transparent black, then opaque red."
    a = np.zeros((8, 8, 4), np.uint8)
    a[:4, :, :3] = under
    a[4:6] = 0, 0, 0, 128
    a[6:] = 255, 0, 0, 255
    return a


@pytest.mark.parametrize('ext,how', [('png', {}), ('webp', dict(lossless=True, exact=True)), ('tif', {}), ('tga', {}), ('ico', {}), ('jp2', {}), ('qoi', {})])
def test_what_is_transparent_is_white(tmp_path, ext, how):
    "The same whatever lies below."
    for under in ((0, 255, 0), (0, 0, 0), (255, 0, 255)):
        x = seen(tmp_path/f'a.{ext}', layers(under), **how)
        assert x.shape == (8, 8, 3) and (x[:4] == 255).all() and (x[6:] == (255, 0, 0)).all() and abs(x[4:6].astype(int) - 127).max() <= 1


def test_transparency_of_grey_and_of_palettes(tmp_path, recwarn):
    "One colour, a table of them, a channel; no warning of Pillow's."
    two = np.uint8([[0, 0], [1, 1]])
    pal = Image.fromarray(two).convert('P')
    pal.putpalette([0, 255, 0, 255, 0, 0])
    red, white = [[255, 0, 0]]*2, [[255]*3]*2
    for i, (ext, how) in enumerate([('png', dict(transparency=0)), ('png', dict(transparency=bytes([0, 255]))), ('gif', dict(transparency=0))]):
        assert seen(tmp_path/f'{i}.{ext}', pal, **how).tolist() == [white, red]
    assert seen(tmp_path/'half.png', pal, transparency=bytes([128, 0])).tolist() == [[[127, 255, 127]]*2, white]
    assert seen(tmp_path/'colour.png', Image.fromarray(np.uint8([white, red])), transparency=(255, 0, 0)).tolist() == [white, white]
    assert seen(tmp_path/'grey.png', two*9, transparency=0).tolist() == [[255]*2, [9]*2]
    assert seen(tmp_path/'deep.png', two.astype(np.uint16)*257*9, transparency=0).tolist() == [[255]*2, [9]*2]
    la = Image.merge('LA', [Image.fromarray(v) for v in (np.uint8([[7, 7], [0, 9]]), np.uint8([[0, 0], [128, 255]]))])
    assert seen(tmp_path/'la.png', la).tolist() == [[255]*2, [127, 9]]
    put(tmp_path/'f'/'a'/'0.png', pal, transparency=bytes([0, 255]))
    assert load_folder('train', tmp_path/'f').x[0, :, 0, 0].tolist() == [255]*3 and not list(recwarn)


@pytest.mark.parametrize('mode,ext', [('RGB', 'png'), ('L', 'png'), ('RGB', 'jpg'), ('L', 'jpg'), ('P', 'png'), ('P', 'gif'), ('1', 'png'), ('RGB', 'bmp'), ('RGB', 'tif'), ('CMYK', 'jpg'), ('CMYK', 'tif'), ('YCbCr', 'jpg')])
def test_ordinary_pictures_are_as_they_were(tmp_path, mode, ext):
    "What has nothing to heed is converted by Pillow, to the bit; opaque RGBA is RGB."
    path = put(tmp_path/f'a.{ext}', Image.fromarray(NOISE[:20]).convert(mode))
    with Image.open(path) as im: theirs = np.array(im.convert('L' if im.mode in ('1', 'L') else 'RGB'))
    assert np.array_equal(np.array(open_image(str(path))), theirs)
    assert np.array_equal(seen(tmp_path/'o.png', Image.fromarray(NOISE[:20]).convert('RGBA')), NOISE[:20])


# Depth

@pytest.mark.parametrize('ext', ['png', 'tif', 'pgm', 'jp2'])
def test_sixteen_bits(tmp_path, ext):
    "The nearest of 256 greys, and a picture that was promoted from 8 bits comes back."
    nearest = np.round(DEEP.astype(float)*255/65535)
    assert np.array_equal(seen(tmp_path/f'a.{ext}', DEEP), nearest) and np.array_equal(seen(tmp_path/f'b.{ext}', NOISE[:20, :, 0].astype(np.uint16)*257), NOISE[:20, :, 0])


def test_sixteen_bits_of_tiff(tmp_path):
    "Big-endian, and with 0 for white."
    nearest = np.round(DEEP.astype(float)*255/65535)
    assert np.array_equal(seen(tmp_path/'a.tif', DEEP.astype('>u2')), nearest)
    assert np.array_equal(seen(tmp_path/'b.tif', DEEP, tiffinfo={262: 0}), 255 - nearest)


def test_sixteen_bits_in_a_folder(tmp_path):
    put(tmp_path/'a'/'0.png', DEEP)
    put(tmp_path/'a'/'1.png', NOISE)
    x = load_folder('train', tmp_path, 12).x
    assert x.shape == (2, 3, 12, 12) and abs(x[0].float().mean() - DEEP.mean()/257) < 1


@pytest.mark.parametrize('values', [np.linspace(0, 1, 64, dtype=np.float32), np.linspace(0, 255, 64, dtype=np.float32), np.arange(64, dtype=np.int32), np.full(64, np.nan, np.float32)])
def test_numbers_without_a_range(tmp_path, values):
    "0 to 1 and 0 to 255 are both usual, and the file does not say which."
    put(tmp_path/'a'/'0.png', grey(0))
    put(tmp_path/'a'/'deep.tif', values.reshape(8, 8))
    refused(lambda: load_folder('train', tmp_path), 'deep.tif', 'which number is white')


def test_print_and_lab(tmp_path):
    "Colours of other kinds are converted by Pillow, or refused by name."
    for ext in 'jpg', 'tif': assert seen(tmp_path/f'c.{ext}', Image.new('CMYK', (8, 8), (255, 0, 0, 0)))[4, 4].tolist() == [0, 255, 255]
    lab = ImageCms.applyTransform(Image.fromarray(grey(255)), ImageCms.buildTransform(ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB'), 'RGB', 'LAB'))
    try: assert seen(tmp_path/'l.tif', lab).min() > 250
    except InputError as e: assert 'l.tif' in str(e)


@pytest.mark.parametrize('ext', ['gif', 'png', 'webp', 'tif'])
def test_of_several_pictures_the_first(tmp_path, ext):
    frames = [Image.fromarray(grey(v)) for v in (250, 20, 90)]
    assert abs(seen(tmp_path/f'a.{ext}', frames[0], save_all=True, append_images=frames[1:]).astype(int) - 250).max() <= 2


# What is damaged or huge

PLAIN = Image.fromarray(NOISE[:20])
KINDS = [('png', PLAIN, {}), ('png', PLAIN.convert('P'), {}), ('png', PLAIN.convert('LA'), {}), ('png', Image.fromarray(DEEP), {}), ('jpg', PLAIN, {}), ('jpg', PLAIN, dict(progressive=True)),
         ('jpg', PLAIN.convert('CMYK'), {}), ('webp', PLAIN, {}), ('webp', PLAIN, dict(lossless=True)), ('gif', PLAIN, {}), ('bmp', PLAIN, {}), ('tif', PLAIN, {}), ('tif', Image.fromarray(DEEP), {}),
         ('ppm', PLAIN, {}), ('tga', PLAIN, {}), ('jp2', PLAIN, {}), ('ico', PLAIN, {}), ('pcx', PLAIN, {}), ('sgi', PLAIN, {}), ('dds', PLAIN, {}), ('qoi', PLAIN, {})]


@pytest.mark.parametrize('ext,im,how', KINDS, ids=[f'{ext}-{im.mode}-{i}' for i, (ext, im, _) in enumerate(KINDS)])
def test_damaged_files(tmp_path, ext, im, how):
    "What is cut off is refused, or the picture is whole all the same; other damage gives a picture or one line, never a traceback."
    path, luck = put(tmp_path/f'a.{ext}', im, **how), random.Random(0)
    whole, pixels = path.read_bytes(), np.array(open_image(str(path)))
    def look(content):
        path.write_bytes(content)
        try: return np.array(open_image(str(path)))
        except InputError as e:
            assert len(str(e).splitlines()) == 1 and path.name in str(e)
            return pixels
    for share in .0, .02, .1, .3, .5, .8, .95: assert np.array_equal(look(whole[:int(share*len(whole))]), pixels), share
    for _ in range(20):
        hit = bytearray(whole)
        for _ in range(luck.choice((1, 3, 10))): hit[luck.randrange(min(len(hit), luck.choice((64, len(hit)))))] = luck.randrange(256)
        look(bytes(hit))


def test_what_a_plug_in_raises_is_one_line(tmp_path, monkeypatch):
    "Whatever it is."
    path = put(tmp_path/'a.png', grey(1))
    for error in (MemoryError(), KeyError('x'), AssertionError(), RecursionError('deep'), ValueError('two\nlines'), OverflowError('int'), NotImplementedError()):
        def fail(*args, error=error): raise error
        with monkeypatch.context() as m:
            m.setattr(Image, 'open', fail)
            refused(lambda: open_image(str(path)), 'a.png', 'not a readable image')


def test_no_file_is_waited_for(tmp_path):
    "A pipe, a link that leads nowhere, a file that goes away."
    put(tmp_path/'a'/'0.png', grey(0))
    os.mkfifo(tmp_path/'a'/'pipe.png')
    refused(lambda: load_folder('train', tmp_path), 'pipe.png')
    (tmp_path/'a'/'pipe.png').unlink()
    (tmp_path/'a'/'link.png').symlink_to(tmp_path/'gone')
    refused(lambda: load_folder('train', tmp_path), 'link.png')
    refused(lambda: open_image(str(tmp_path/'none.png')), 'none.png')


def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
    "Over-long names, names with a zero, a folder without rights below a class."
    for where in ('x'*5000, 'a/'*3000, 'nul\0'): refused(lambda: load_folder('train', where), '--data-dir')
    refused(lambda: load_data('folder', 'floor', 'x'*5000), '--data-dir')
    put(tmp_path/'a'/'0.png', grey(0))
    put(tmp_path/'a'/'locked'/'0.png', grey(0))
    scan = os.scandir
    def locked(path):
        if str(path).endswith('locked'): raise PermissionError(13, 'Permission denied', str(path))
        return scan(path)
    monkeypatch.setattr(os, 'scandir', locked)
    refused(lambda: load_folder('train', tmp_path), 'locked', 'Permission denied')


def test_bombs(tmp_path, monkeypatch, recwarn):
    "Above Pillow's limit a picture is refused by name, below it is read, without a warning."
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    put(tmp_path/'a'/'0.png', np.zeros((40, 40), np.uint8))
    assert load_folder('train', tmp_path, 8).shape == (1, 8, 8) and not list(recwarn)
    put(tmp_path/'a'/'1.png', np.zeros((50, 50), np.uint8))
    refused(lambda: load_folder('train', tmp_path, 8), '1.png', 'bomb')


MEASURED = dict(os.environ, OMP_NUM_THREADS='1', MALLOC_MMAP_THRESHOLD_='1000000')  # what is freed goes back to the system

BOMB = '''
import sys
from cfg_course.data import InputError, load_folder
def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])/1024
before = peak()
try: print(tuple(load_folder('train', sys.argv[1], 32).x.shape))
except InputError as e: print(e)
print(peak() - before)
'''


def header_only(path, side):
    "A PNG that says that it is huge, and holds nothing."
    import struct, zlib
    def chunk(kind, body): return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(b'\0'*100)) + chunk(b'IEND', b''))


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='the peak of memory is read from /proc')
def test_memory_of_large_pictures(tmp_path):
    "One large picture at a time, and of a bomb only its first bytes."
    for i in range(6): put(tmp_path/'large'/'a'/f'{i}.png', Image.new('RGB', (4200, 4200), (i, 255, 0)), compress_level=1)
    header_only(tmp_path/'bomb'/'a'/'0.png', 60000)
    said = {}
    for name in 'large', 'bomb':
        done = subprocess.run([sys.executable, '-c', BOMB, str(tmp_path/name)], capture_output=True, text=True, env=MEASURED)
        assert done.returncode == 0 and not done.stderr, done.stderr
        said[name] = done.stdout.splitlines()
    one = 4200**2/2**20  # MB to a byte of each pixel
    assert said['large'][0] == '(6, 3, 32, 32)' and float(said['large'][1]) < 16*one
    assert '0.png' in said['bomb'][0] and 'bomb' in said['bomb'][0] and float(said['bomb'][1]) < 50


def test_means_of_many_pixels():
    "Sums of more than 2**24 are exact: white stays white, and bands give the same bytes."
    white = torch.full((1, 1, 1100, 1100), 255, dtype=torch.uint8)
    assert (shrink(white, 2) == 255).all() and (shrink(white, 3) == 255).all()
    big = torch.randint(0, 256, (2, 3, 700, 700), dtype=torch.uint8)
    theirs = torch.nn.functional.interpolate(big.double(), (9, 9), mode='area')
    assert torch.equal(shrink(big, 9), theirs.round().to(torch.uint8)) and torch.equal(shrink(big[:1], 9), shrink(big, 9)[:1])


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='the peak of memory is read from /proc')
def test_memory_of_whole_data_sets():
    "The root mean square, thumbnails, and places in a class of a thousand classes."
    code = BOMB.split('try')[0].replace('before = peak()', '''
import torch
from cfg_course.core import to_float
from cfg_course.data import Images, place_in_class, shrink
x = torch.randint(0, 251, (50_000, 3, 32, 32), dtype=torch.uint8)
d = Images(x, torch.arange(50_000) % 1000, [''], 'x')
for work in (d.rms, lambda: shrink(x, 31), lambda: place_in_class(d.y)):
    with open('/proc/self/clear_refs', 'w') as f: f.write('5')
    before = peak()
    work()
    print(peak() - before)
''')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=MEASURED)
    if 'clear_refs' in done.stderr: pytest.skip('the peak of memory cannot be set back here')
    rms, small, place = map(float, done.stdout.split())
    assert rms < 60 and small < 2*147 + 60 and place < 20, done.stdout + done.stderr


def test_rms():
    "The same value as of all floats at once; in pieces of any size, of any shape."
    for shape in ((7, 1, 3, 3), (300, 3, 40, 40), (2, 1, 1200, 1200)):
        x = torch.randint(0, 256, shape, dtype=torch.uint8)
        whole = (x.double()/127.5 - 1).square().mean().sqrt().item()
        assert abs(Images(x, torch.zeros(len(x)).long(), ['a'], 'x').rms() - whole) < 1e-6


def test_place_in_class():
    y = torch.randint(0, 7, (500,))
    assert data.place_in_class(y).tolist() == [(y[:i] == y[i]).sum().item() for i in range(500)] and len(data.place_in_class(y[:0])) == 0


# Which files, and which classes

def test_hidden_folders_and_files(tmp_path):
    "What a file browser does not show."
    for name in ('cat/1.png', 'dog/1.png', 'dog/more/2.png'): put(tmp_path/'f'/name, grey(7))
    for name in ('.ipynb_checkpoints/1.png', 'cat/.ipynb_checkpoints/1.png', 'cat/.thumbs/deep/1.png', 'dog/more/.x/1.png', '__MACOSX/cat/1.png', 'cat/@eaDir/1.png'): put(tmp_path/'f'/name, grey(9))
    for name in ('cat/._1.png', 'dog/more/._2.png', '__MACOSX/cat/._1.png', '.DS_Store', 'cat/.DS_Store', 'cat/.png'): (tmp_path/'f'/name).write_bytes(b'\0\5\x16\7'*25)
    (tmp_path/'f'/'.empty').mkdir()
    d = load_folder('train', tmp_path/'f')
    assert (d.classes, d.y.tolist(), d.x.unique().tolist()) == (['cat', 'dog'], [0, 1, 1], [7])
    for split in 'train', 'test':
        for name in ('cat/1.png', '.git/1.png'): put(tmp_path/'s'/split/name, grey(7))
        assert load_folder(split, tmp_path/'s').classes == ['cat']
    hidden = put(tmp_path/'.h'/'cat'/'1.png', grey(7)).parent.parent  # the folder itself may be hidden: it was asked for
    assert load_folder('train', hidden).classes == ['cat'] and load_data('folder:.h', 'train', tmp_path).name == 'folder:.h'


@pytest.mark.parametrize('mark', [dict(st_flags=0x8000), dict(st_file_attributes=2)])
def test_marks_of_other_systems(tmp_path, monkeypatch, mark):
    "macOS and Windows hide files by a mark."
    for name in ('cat/1.png', 'cat/desktop.png', 'shadow/1.png'): put(tmp_path/name, grey(7))
    class Status:
        def __init__(self, path): self.__dict__ = mark if 'desktop' in str(path) or 'shadow' in str(path) else {}
    monkeypatch.setattr(data.os, 'lstat', Status)
    assert {k: len(v) for k, v in class_files(tmp_path).items()} == dict(cat=1)


def test_an_empty_class_is_named(tmp_path):
    put(tmp_path/'a'/'1.png', grey(0))
    (tmp_path/'void').mkdir()
    (tmp_path/'hollow').mkdir()
    (tmp_path/'hollow'/'._1.png').write_bytes(b'')
    refused(lambda: load_folder('train', tmp_path), 'void', 'hollow', 'one sub-folder of images per class')


def test_deeper_folders(tmp_path):
    "A class is a sub-folder of the folder; its name, its number and its pictures go together."
    for name in ('cat/a/1.png', 'cat/b/1.png', 'dog/1.png'): put(tmp_path/'f'/name, grey(0))
    for name in ('cat/img/1.png', 'dog/img/1.png'): put(tmp_path/'g'/name, grey(0))
    for name in ('train/cat/x/y/1.png', 'train/dog/x/1.png', 'test/dog/x/y/1.png'): put(tmp_path/'h'/name, grey(0))
    for where, split, labels in (('f', 'train', [0, 0, 1]), ('g', 'train', [0, 1]), ('h', 'train', [0, 1]), ('h', 'test', [1])):
        d = load_data('folder', split, tmp_path/where)
        assert (d.classes, d.y.tolist()) == (['cat', 'dog'], labels)


def test_one_numbering_for_all_splits(tmp_path):
    for name in ('train/a', 'train/b', 'train/c', 'test/a', 'test/c'):
        for i in range(2): put(tmp_path/'f'/name/f'{i}.png', grey(0))
    for split, labels in (('train', [0, 0, 1, 1, 2, 2]), ('test', [0, 0, 2, 2]), ('floor', [0, 2]), ('heldout', [0, 2])):
        for how in (('folder', split, tmp_path/'f'), ('folder:f', split, tmp_path)):
            d = load_data(*how)
            assert (d.classes, d.y.tolist()) == (['a', 'b', 'c'], labels)
    put(tmp_path/'f'/'test'/'d'/'0.png', grey(0))
    for split in 'test', 'floor': refused(lambda: load_data('folder', split, tmp_path/'f'), '--data-dir', "'d'", 'a, b, c')
    assert load_data('folder', 'train', tmp_path/'f').classes == ['a', 'b', 'c']


def test_splits_that_are_not_there(tmp_path):
    "Test pictures are not taken for training pictures, nor the folder of a split for a class; but a class may be called train."
    put(tmp_path/'one'/'train'/'a'/'1.png', grey(0))
    put(tmp_path/'two'/'test'/'a'/'1.png', grey(0))
    refused(lambda: load_data('folder', 'test', tmp_path/'one'), 'test')
    for split in 'train', 'test': refused(lambda: load_data('folder', split, tmp_path/'two'), '--data-dir')
    for name in ('car', 'train', 'plane'): put(tmp_path/'traffic'/name/'1.png', grey(0))
    assert load_data('folder', 'train', tmp_path/'traffic').classes == ['car', 'plane', 'train']
    refused(lambda: load_data('folder', 'heldout', tmp_path/'traffic'), 'train and test in it')


def test_sizes_of_a_folder_are_checked(tmp_path):
    put(tmp_path/'a'/'1.png', grey(0))
    for bad in (0, -4, 2.5, True, 'x'): refused(lambda: load_data('folder', 'train', tmp_path, bad), '--image-size')


def test_the_folder_goes_with_the_pictures(tmp_path, monkeypatch):
    "Whoever has them finds the other split, wherever the environment points."
    for split in 'train', 'test': put(tmp_path/'d'/split/'a'/'1.png', grey(5))
    for given, name in ((tmp_path/'d', 'folder'), (tmp_path, 'folder:d')):
        monkeypatch.delenv('CFG_COURSE_DATA', raising=False)
        d = load_data(name, 'train', given)
        monkeypatch.setenv('CFG_COURSE_DATA', str(tmp_path/'elsewhere'))
        assert len(load_data(d.name, 'test', d.take(torch.tensor([0])).data_dir)) == 1


@pytest.mark.parametrize('given', ['~/pics', '~'])
def test_the_home_folder(tmp_path, monkeypatch, given):
    "In a file of settings and behind the = of an option no shell expands it."
    home = tmp_path/'home'
    put(home/'pics'/'a'/'1.png', grey(0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(home))
    monkeypatch.setenv('USERPROFILE', str(home))
    for where in (given, Path(given)): assert len(load_data('folder:pics', data_dir=where)) == 1
    monkeypatch.setenv('CFG_COURSE_DATA', given)
    assert len(load_data('folder:pics')) == 1 and not Path('~').exists()
    if given == '~/pics': assert load_data('folder').name == 'folder:pics'
