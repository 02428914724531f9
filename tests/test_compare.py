"How outputs of a new run are compared with the stored ones."
import base64, io, json, shutil, subprocess, sys

import numpy as np, pytest
from PIL import Image

from notebooks import ROOT

sys.path.insert(0, str(ROOT/'tools'))
from compare_nb import DIFFERS, ROUNDED, SAME, judge


def stream(text): return [dict(output_type='stream', name='stdout', text=text.splitlines(True))]
def data(**kinds): return [dict(output_type='display_data', data={k.replace('_', '/'): v for k, v in kinds.items()})]
def svg(text): return [dict(output_type='display_data', data={'image/svg+xml': text, 'text/plain': '<Figure>'})]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format='png')
    return [dict(output_type='display_data', data={'image/png': base64.b64encode(buffer.getvalue()).decode()})]


GREY = np.full((8, 8, 3), 128, np.uint8)


@pytest.mark.parametrize('old, new, verdict', [
    (stream('error 1.2e-15, 3 rows\n'), stream('error 1.2e-15, 3 rows\n'), SAME),
    (stream('error 1.2e-15, 3 rows\n'), stream('error 8.9e-16, 3 rows\n'), ROUNDED),
    (stream('FID 12.3456\n'), stream('FID 12.3459\n'), ROUNDED),
    (stream('FID 12.3\n'), stream('FID 12.4\n'), DIFFERS),
    (stream('1,000 images\n'), stream('1,001 images\n'), ROUNDED),
    (stream('1,000 images\n'), stream('1,010 images\n'), DIFFERS),
    (stream('w = −2\n'), stream('w = 2\n'), DIFFERS),
    (stream('better\n'), stream('worse\n'), DIFFERS),
    (stream('one\n'), stream('one\ntwo 2\n'), DIFFERS),
    (stream('a\nb\n'), stream('a\n') + stream('b\n'), SAME),
    (stream('a\n'), [], DIFFERS),
    (stream('<Styler at 0x7f01>\n'), stream('<Styler at 0x7f99>\n'), SAME),
    (data(text_plain='1.00000', text_html='<b>1.0</b>'), data(text_html='<b>1.0</b>', text_plain='1.00001'), ROUNDED),
    (data(text_plain='1'), data(text_html='1'), DIFFERS),
    (
        svg('<path id="m5e99" d="M 1 2.00"/><use xlink:href="#m5e99"/>'),
        svg('<path id="m7f" d="M 1 2.04"/><use xlink:href="#m7f"/>'), ROUNDED),
    (svg('<path d="M 1 2"/>'), svg('<path d="M 1 3"/>'), DIFFERS),
    (png(GREY), png(GREY), SAME),
    (png(GREY), png(GREY + np.eye(8, dtype=np.uint8)[..., None]), ROUNDED),
    (png(GREY), png(GREY + 40), DIFFERS),
    (png(GREY), png(GREY[:4]), DIFFERS)])
def test_verdicts(old, new, verdict): assert judge(old, new) == verdict


def test_a_chapter_that_differs_is_named(tmp_path):
    "An output changed by hand is found by a new run, with notebook and cell, and the notebook stays as it is."
    shutil.copy(ROOT/'settings.ini', tmp_path)
    outputs = [dict(output_type='stream', name='stdout', text=['3\n'])]
    common = dict(cell_type='code', metadata={}, execution_count=None, outputs=outputs)
    cell = dict(common, id='abc123', source=['print(1 + 1)'])
    varies = dict(cell, id='abc124', source=['#| varies\n', 'print(2)'])
    (tmp_path/'nbs').mkdir()
    text = json.dumps(dict(cells=[cell, varies], metadata={}, nbformat=4, nbformat_minor=5))
    (tmp_path/'nbs'/'01_page.ipynb').write_text(text)
    words = [sys.executable, ROOT/'tools'/'compare_nb.py', 'nbs/01_page.ipynb']
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert 'cell abc123: different' in done.stdout and 'abc124' not in done.stdout
    assert '1 different, 1 vary by nature' in done.stdout
    assert (tmp_path/'nbs'/'01_page.ipynb').read_text() == text
