"Every number of the first page stands in a result file, and the shipped weights are the ones that their headers describe."
import re
from pathlib import Path

import pandas as pd
import pytest

from cfg_course.classifiers import load_classifier
from cfg_course.core import read_results
from cfg_course.denoisers import find_model
from cfg_course.sweeps import read_sweep

ROOT = Path(__file__).resolve().parents[1]
RESULTS, WEIGHTS = ROOT/'nbs'/'results', ROOT/'cfg_course'/'weights'
ROW = re.compile(r'^\| ([\d.]+) \| ([\d.]+) % \| ([\d.]+) to ([\d.]+) % \| ([\d.]+) \|$', re.M)


def test_table_of_the_first_page():
    rows = read_sweep(RESULTS/'mnist_scales.csv', model='mnist', samples=1000, seed=0).set_index(['scale', 'metric'])
    said = ROW.findall((ROOT/'README.md').read_text(encoding='utf-8'))
    assert [float(s[0]) for s in said] == sorted(rows.index.unique('scale'))
    for scale, *numbers in said:
        acc, std = rows.loc[(float(scale), 'accuracy')], rows.loc[(float(scale), 'class_std')]
        assert numbers == [f'{100*acc.value:.1f}', f'{100*acc.low:.1f}', f'{100*acc.high:.1f}', f'{std.value:.3f}']


def test_real_images_of_the_first_page():
    rows = read_results(RESULTS/'mnist_real.csv').set_index(['split', 'metric']).value
    text = (ROOT/'README.md').read_text(encoding='utf-8')
    assert f"{100*rows['test', 'accuracy']:.1f} %" in text and f"{rows['train', 'class_std']:.3f}" in text


@pytest.mark.parametrize('name', ['digits', 'mnist'])
def test_weights_come_with_what_made_them(name):
    "The header of a model agrees with the log and the command line that are shipped beside it."
    meta, log = find_model(name)[1], pd.read_csv(WEIGHTS/f'{name}.csv')
    assert meta['data'] == name and meta['step'] == meta['train']['steps'] == log.step.iloc[-1]
    assert (WEIGHTS/f'{name}.safetensors').stat().st_size < 4e6 and log.loss.iloc[-1] < log.loss.iloc[0]/2
    assert 'test_accuracy' in load_classifier(name)[1] and 'train.py' in meta['command']
