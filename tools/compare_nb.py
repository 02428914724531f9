"""Execute chapters and say which outputs differ from the stored ones. Nothing is saved.

Texts agree if their words are the same and their numbers equal to `RTOL`; pictures if their pixels are, on
average, equal to one level in 255. A cell that bears `#| varies` prints what no two runs share (seconds, the machine):
it is run and not compared. Cells that a test flag leaves out are not run, unless `--flags` asks for them; those write
result files, so do it in a copy.
"""
import argparse, base64, io, re, subprocess, sys
from functools import partial
from pathlib import Path

import numpy as np
from nbdev.config import get_config
from PIL import Image

from run_nb import execute

NUMBER = re.compile(r'[-+−]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?')
NAME = re.compile(r'\b(?:id|xlink:href)="[^"]*"|url\([^)]*\)| at 0x[0-9a-f]+')  # of parts of a drawing, and addresses
RTOL, TINY, POINT = 1e-3, 1e-6, .1  # of numbers, and of coordinates in a drawing
SAME, ROUNDED, DIFFERS = 'identical', 'equal but for rounding', 'different'


def words(text:str)->list: # text: an output, as text
    "A text without its numbers, spaces and rules, which follow the widths of numbers."
    return re.sub(r'[\s─—-]+', ' ', NUMBER.sub('#', text)).split()


def numbers(text:str)->np.ndarray: # text: an output, as text
    "The numbers in a text, in order."
    return np.array([float(o.replace('−', '-').replace(',', '')) for o in NUMBER.findall(text) if o.count('.') < 2])


def judge_text(
    a:str, # stored output
    b:str, # the same output of a new run
    atol:float=TINY # numbers may be that far apart, besides the share `RTOL`
)->str: # SAME, ROUNDED or DIFFERS
    "Compare two texts word for word, and number for number."
    a, b = NAME.sub('', a), NAME.sub('', b)
    if a == b: return SAME
    p, q = numbers(a), numbers(b)
    close = words(a) == words(b) and p.shape == q.shape and np.allclose(p, q, rtol=RTOL, atol=atol)
    return ROUNDED if close else DIFFERS


def pixels(png:str)->np.ndarray: # png: a picture in base64
    "The picture as numbers from 0 to 255, `(H, W, 4)`."
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert('RGBA'), dtype=float)


def judge_picture(
    a:str, # stored picture, in base64
    b:str # the same picture of a new run
)->str: # SAME, ROUNDED or DIFFERS
    "Compare two pictures pixel for pixel."
    p, q = pixels(a), pixels(b)
    if p.shape != q.shape: return DIFFERS
    off = np.abs(p - q).mean()
    return SAME if off == 0 else ROUNDED if off < 1 else DIFFERS


def contents(
    outputs:list # outputs of a cell
)->list: # pairs of a type and the text or the picture
    "What a cell shows, one pair for each representation; neighbouring prints count as one."
    found = []
    for o in outputs:
        data = {'stream': o['text']} if o['output_type'] == 'stream' else o.get('data', {})
        for kind, v in sorted(data.items()):
            if kind == 'stream' and found and found[-1][0] == kind: found[-1] = kind, found[-1][1] + ''.join(v)
            else: found.append((kind, ''.join(v)))
    return found


def judge(
    old:list, # stored outputs of a cell
    new:list # its outputs in a new run
)->str: # SAME, ROUNDED or DIFFERS
    "The worst verdict over the outputs of a cell."
    a, b = contents(old), contents(new)
    if [k for k,_ in a] != [k for k,_ in b]: return DIFFERS
    how = {'image/png': judge_picture, 'image/svg+xml': partial(judge_text, atol=POINT)}
    verdicts = [how.get(k, judge_text)(x, y) for (k,x),(_,y) in zip(a, b)]
    return max(verdicts, key=[SAME, ROUNDED, DIFFERS].index, default=SAME)


def difference(
    kind:str, # type of the representation
    a:str, # as stored
    b:str # of the new run
)->list: # lines that say what differs
    "What differs between two representations: distances between pictures, lines of text."
    if 'image' in kind:
        p, q = (pixels(o) if 'png' in kind else numbers(NAME.sub('', o)) for o in (a, b))
        far = f'{np.abs(p-q).mean():.2g} apart on average' if p.shape == q.shape else f'sizes {p.shape} and {q.shape}'
        return [f'{kind}: {far}']
    x, y = a.splitlines(), b.splitlines()
    return [f'- {o}' for o in x if o not in y] + [f'+ {o}' for o in y if o not in x]


def show(
    old:list, # stored outputs of a cell
    new:list # its outputs in a new run
):
    "Print what differs, a few lines of it."
    a, b = contents(old), contents(new)
    bare = lambda kind, text: re.sub('<[^>]*>', '', text) if 'html' in kind else text
    pairs = [(k, bare(k, x), bare(k, y)) for (k,x),(l,y) in zip(a, b) if k == l and x != y]
    lines = [o for p in pairs for o in difference(*p)]
    for o in list(dict.fromkeys(lines))[:12]: print(f'    {o[:150]}')
    if [k for k,_ in a] != [k for k,_ in b]: print('    the kinds of outputs differ')


def compare(
    fn:Path, # notebook
    verbose:bool, # whether to show what differs by rounding, too
    flags:str='' # test flags to run
)->int: # how many cells differ
    "Run the cells of `fn`, print a line on what agrees, and the cells that do not."
    count = {SAME: 0, ROUNDED: 0, DIFFERS: 0, 'vary by nature': 0}
    for c, stored in execute(fn, flags)[1]:
        if not (c.outputs or stored): continue
        verdict = 'vary by nature' if 'varies' in c.directives_ else judge(stored, c.outputs)
        count[verdict] += 1
        if verdict == DIFFERS or verbose and verdict == ROUNDED:
            print(f'  {fn.name}, cell {c["id"]}: {verdict}')
            show(stored, c.outputs)
    print(f'{fn.name}:', ', '.join(f'{v} {k}' for k, v in count.items() if v) or 'no output', flush=True)
    return count[DIFFERS]


def main():
    "Parse the command line and compare; the exit status is 1 if any output differs."
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('nbs', nargs='*', help='notebooks; all chapters if none is named')
    p.add_argument('--verbose', action='store_true', help='show differences by rounding, too')
    p.add_argument('--flags', default='', help='test flags to run that are normally skipped, e.g. slow; such cells write result files')
    args = p.parse_args()
    root = get_config().config_path
    nbs = args.nbs or sorted(str(o) for o in (root/'nbs').glob('[0-9]*.ipynb'))
    if len(nbs) > 1:
        alone = [sys.executable, __file__, '--flags', args.flags, *['--verbose']*args.verbose]
        sys.exit(max(subprocess.run([*alone, o]).returncode for o in nbs))
    sys.path.insert(0, str(root))
    sys.exit(bool(compare(Path(nbs[0]).resolve(), args.verbose, args.flags)))


if __name__ == '__main__': main()
