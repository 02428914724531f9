"""Compose the picture of the front page, nbs/results/guidance_path.png, from pictures of the story page.

    python tools/front.py            write it
    python tools/front.py --check    only say whether it is stale

Four moments of one digit's way from noise: the noisy picture, the two guesses, their difference, the guided guess.
"""
from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cfg_course.core import optional

NBS = Path(__file__).resolve().parents[1]/'nbs'
STORY, OUT = NBS/'story', NBS/'results'/'guidance_path.png'
SIDE, TIMES = 28, 5 # pixels of a picture; each of them becomes a square of so many
GAP, LEFT, TOP = 10, 300, 44 # pixels between pictures, beside and above them
MOMENTS = 0, 2, 3, 5 # of the six on the story page
GREY = '#7a7f87' # that both papers carry
ROWS = [ # picture of the story page, words beside it; _ lowers the letter after it
    ('noisy', ['noisy picture']),
    ('none', ['guess without', 'the label, D_u']),
    ('label', ['guess with the', 'label {label}, D_c']),
    ('difference', ['difference,', 'D_c − D_u']),
    ('guided', ['guided guess,', 'D_u + {scale:g} (D_c − D_u)'])]


def font(
    size:int, # pixels
)->ImageFont.FreeTypeFont: # that every machine with matplotlib has
    "The letters of the picture."
    folder = Path(optional('matplotlib').get_data_path())
    return ImageFont.truetype(str(folder/'fonts'/'ttf'/'DejaVuSans.ttf'), size)


def write(
    pen:ImageDraw.ImageDraw, # of the picture
    x:float, # left end
    y:float, # height of the line's middle
    text:str, # _ lowers the letter after it
)->None:
    "Write a line."
    large, small = font(25), font(18)
    for k, part in enumerate(text.split('_')):
        if k:
            pen.text((x, y + 6), part[0], GREY, small, 'lm')
            x, part = x + small.getlength(part[0]), part[1:]
        pen.text((x, y), part, GREY, large, 'lm')
        x += large.getlength(part)


def compose()->bytes: # of a PNG
    "The picture."
    made = json.loads((STORY/'story.json').read_text(encoding='utf-8'))['path']
    side = SIDE*TIMES
    step = side + GAP
    size = LEFT + len(MOMENTS)*step - GAP, TOP + len(ROWS)*step - GAP
    picture = Image.new('RGBA', size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(picture)
    write(pen, 0, TOP/2, 'noise level')
    for k, i in enumerate(MOMENTS):
        pen.text((LEFT + k*step + side/2, TOP/2), f'{made["levels"][i]:.1f}', GREY, font(25), 'mm')
    for j, (name, words) in enumerate(ROWS):
        row = Image.open(STORY/f'path-{name}.png').convert('RGB')
        top = TOP + j*step
        for n, line in enumerate(words):
            write(pen, 0, top + side/2 + 34*(n - (len(words) - 1)/2), line.format(**made))
        for k, i in enumerate(MOMENTS):
            part = row.crop((i*SIDE, 0, (i + 1)*SIDE, SIDE)).resize((side, side), Image.Resampling.NEAREST)
            picture.paste(part, (LEFT + k*step, top))
    out = io.BytesIO()
    picture.quantize(255, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, 'PNG', optimize=True)
    return out.getvalue()


def main()->None:
    "Write the file, or compare its pixels."
    made = compose()
    if '--check' in sys.argv:
        both = [Image.open(o).convert('RGBA').tobytes() for o in (io.BytesIO(made), OUT)]
        sys.exit('guidance_path.png is stale. To mend: python tools/front.py' if both[0] != both[1] else 0)
    OUT.write_bytes(made)
    print(f'{OUT.name}: {len(made):,} bytes')


if __name__ == '__main__': main()
