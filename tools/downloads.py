"""Write nbs/downloads.qmd: every result file of nbs/results with what it has, where it was made and how long it is.

    python tools/downloads.py            write the page
    python tools/downloads.py --check    only say whether it is stale

A new file needs a line in FILES: the chapter or tool that makes it, and what it has. The site carries all of them.
"""
from __future__ import annotations

import argparse
import csv
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import marks
import teach
from cfg_course.core import InputError, check

NBS = Path(__file__).resolve().parents[1]/'nbs'
RESULTS, PAGE = NBS/'results', NBS/'downloads.qmd'
LIMIT = 12_000_000 # bytes of all tables

FILES = { # file without its ending, or a pattern -> what makes it, what it has
    'paper_table1': ('01_paper', 'FID and Inception score that Ho and Salimans report, 64x64 ImageNet'),
    'paper_table2': ('31_discussion', 'FID and Inception score that Ho and Salimans report, 128x128 ImageNet'),
    'picture_bands': ('08a_picture_decisions', 'guidance in one band of noise levels at a time: what a judge says, and the spread'),
    'picture_census': ('08a_picture_decisions', 'how many classes and modes are still open at a noise level'),
    'picture_paths': ('08a_picture_decisions', 'classes and modes that are open along guided paths, by scale and digit'),
    'picture_windows': ('08a_picture_decisions', 'guidance in a window of noise levels: what a judge says, and shares of modes that move'),
    'splits': ('10_data', 'how each data set is divided: images, classes, and a digest of each part'),
    'distilled_digits': ('15_training', 'a student of the guided model beside its teacher'),
    'objectives': ('15a_objectives', 'networks trained by other objectives, with their costs'),
    'classifier_guidance': ('16_classifiers', 'guidance by a classifier, by scale'),
    'rules_mnist': ('18c_catalogue', 'rules on MNIST: accuracy, effective scale, contrast'),
    'rules_cost': ('18c_catalogue', 'time of a step with a rule over that of plain guidance'),
    'weak_mnist': ('17f_compositions', 'weak branches on MNIST: accuracy, effective scale, spread'),
    'fkc_mnist': ('18b_particles', 'weighted particles (FKC) on MNIST'),
    'procedures_mnist': ('18b_particles', 'procedures on MNIST'),
    'metrics_calibration': ('19_metrics', 'metrics of real images against real images: floors, by number of images'),
    'interval_coverage': ('19_metrics', 'how often the intervals of metrics hold the mean of fresh sets'),
    'evidence_coverage': ('19a_evidence', 'how often the intervals of chapter 19a hold the mean of fresh sets, those of differences too'),
    'evidence_coverage_1000': ('19a_evidence', 'the same for sets of 1,000 images, fewer of them'),
    'evidence_floor': ('19a_evidence', 'FID of real images under six judges, and its value for infinitely many'),
    'evidence_judges': ('19a_evidence', 'how well each judge tells damaged images from sound ones'),
    'digits_sweep': ('20_sweeps', '8x8 digits by scale, all metrics'),
    'toy_bayes': ('21_toy', 'whether networks are consistent with Bayes, by noise level'),
    'toy_tree': ('21_toy', 'guidance, autoguidance and an interval where the density is known'),
    'mnist_tradeoff': ('22_mnist', 'MNIST: all metrics at thirteen scales, two runs'),
    'mnist_tradeoff_*': ('22_mnist', 'the same, under another judge'),
    'mnist_floor': ('22_mnist', 'real digits that nobody has seen, the same metrics under three judges'),
    'mnist_scales': ('40_cli', 'MNIST: accuracy and spread by scale, 18 Heun steps'),
    'mnist_three': ('22_mnist', 'three networks of MNIST with different seeds'),
    'mnist_real': ('22_mnist', 'accuracy and spread of real digits'),
    'mnist_heun36': ('40_cli', 'what evaluate.py writes, 36 Heun steps'),
    'mnist_ddpm36': ('40_cli', 'what evaluate.py writes, 36 random steps'),
    'ablation_p_uncond': ('23_ablations', 'how often the label is dropped in training, six scales'),
    'ablation_p_uncond_pairs': ('23_ablations', 'paired differences of the file above'),
    'ablation_ema': ('23_ablations', 'width of the average of the weights'),
    'ablation_interval': ('23_ablations', 'noise levels at which one guides'),
    'ablation_noise': ('23_ablations', 'fresh noise while sampling: how much of it, two samplers'),
    'ablation_steps': ('23_ablations', 'number of steps, four samplers'),
    'ablation_steps_rms': ('23_ablations', 'distance from many steps'),
    'cifar10_16_best': ('24_cifar10', 'the best scale, by how far the network is trained'),
    'cifar10_16_classes': ('24_cifar10', 'the best scale, class by class'),
    'cifar10_16_ladder_*': ('24_cifar10', 'autoguidance by worse models, at each stage of training'),
    'cifar10_16_stages_*': ('24_cifar10', 'scales at each stage of training, under one judge'),
    'cifar10_16_real': ('24_cifar10', 'real photographs, the same metrics'),
    'comparison': ('25_comparison', 'earlier comparison, of a network that is no longer shipped: all settings and metrics'),
    'comparison_ranking': ('25_comparison', 'earlier comparison, of a network that is no longer shipped: best strength of each, difference from plain guidance'),
    'comparison_final': ('25_comparison', 'earlier comparison, of a network that is no longer shipped: the best again, with other noise'),
    'comparison_final_pairs': ('25_comparison', 'earlier comparison, of a network that is no longer shipped: paired differences of the file above'),
    'comparison_equal': ('25_comparison', 'earlier comparison, of a network that is no longer shipped: at equal steps'),
    'conformance': ('tests/test_conformance.py', 'every technique beside its authors\' code, or another: commit, and largest difference'),
    'contest_*_differences*': ('25_comparison', 'second comparison: paired differences from plain guidance'),
    'contest_*_verdicts*': ('25_comparison', 'second comparison: better, worse or undecided'),
    'contest_*_unguided': ('25_comparison', 'second comparison: the same sampler without guidance'),
    'contest_*_pair': ('25_comparison', 'second comparison: autoguidance and plain guidance in the same interval, at the same strength'),
    'contest_*_regret': ('25_comparison', 'second comparison: how much worse a strength is that few images chose'),
    'contest_*_joint': ('25_comparison', 'second comparison: how much of their noise three networks share'),
    'contest_*_exact': ('25_comparison', 'second comparison: measured in the exact world of pictures'),
    'contest_*_infinite': ('25_comparison', 'second comparison: FID of all seeds together, extrapolated to infinitely many images'),
    'contest_*_full': ('25_comparison', 'second comparison: the five best with ten times as many images'),
    'contest_*': ('25_comparison', 'second comparison: a stage, all settings and metrics'),
    'repair_asked*': ('26b_repair_experiments', 'the scale that repairs a network\'s error, by noise level'),
    'repair_best': ('26b_repair_experiments', 'the best scale, and the one that the error asks for'),
    'repair_digits': ('26b_repair_experiments', 'what guidance repairs on digits, by technique'),
    'repair_directions': ('26b_repair_experiments', 'how far each technique points along the error'),
    'repair_estimates*': ('26b_repair_experiments', 'the scale asked for, estimated from images alone'),
    'repair_guide': ('26_guidance_repairs', 'log density by scale, with a good and a poor guide'),
    'repair_networks': ('26b_repair_experiments', 'log density by network'),
    'repair_others': ('26b_repair_experiments', 'other explanations, tried'),
    'repair_real': ('26b_repair_experiments', 'the scale asked for, networks of real images'),
    'repair_samplers': ('26b_repair_experiments', 'log density by sampler'),
    'repair_scales': ('26b_repair_experiments', 'log density by scale'),
    'repair_schedule*': ('26b_repair_experiments', 'schedules made of the scale asked for'),
    'repair_techniques': ('26b_repair_experiments', 'log density and FID by technique'),
    'repair_trained': ('26b_repair_experiments', 'log density by how far a network is trained'),
    'repair_widths': ('26b_repair_experiments', 'how much too wide a network is, by noise level'),
    'pipelines': ('41b_pipelines', 'which techniques run in which pipeline of diffusers, or why not'),
    'pipelines_parity': ('41b_pipelines', 'largest difference from diffusers\' own images'),
    'pipelines_overhead': ('41b_pipelines', 'time over that of diffusers\' own loop'),
    'research_parity': ('41c_comfy', 'largest difference from other codes: k-diffusion, EDM and others'),
    'chapter_seconds': ('tools/teach.py', 'seconds that each chapter takes to run without its slow cells'),
    'speed_branches': ('42_speed', 'two predictions in one pass or in two'),
    'speed_diffusers': ('42_speed', 'time over that of diffusers'),
    'speed_gpu': ('42_speed', 'images and steps a second on a GPU'),
    'speed_techniques': ('42_speed', 'time of each technique over that of plain guidance'),
    'worlds_*': ('tools/worlds.py', 'how exact worlds of pictures were chosen: parts, rank, bits'),
    'recognised': ('tools/recognised.py', 'accuracy of each technique under two classifiers'),
    'ledger': ('tools/equations.py', 'every labelled equation, with its error and a mutant'),
    'mutants': ('tools/mutants.py', 'small faults that were put into the package, and who noticed'),
    'fuzz': ('tools/fuzz.py', 'odd command lines and damaged files, and what came of them'),
    'solutions': ('tools/solutions.py', 'code of the exercises\' solutions, and what it prints'),
}


class File(NamedTuple):
    "A line of the page."
    name:str # with its ending
    made:str # chapter, as a stem, or a tool
    what:str # in words
    rows:int # below the header


def about(
    stem:str, # of a file
)->tuple[str, str]: # what makes it, what it has
    "The entry of a file; the longest pattern that fits."
    fits = sorted((key for key in FILES if fnmatch(stem, key)), key=lambda key: (key == stem, len(key)))
    check(fits, 'results', f'{stem}.csv', 'a file with a line in FILES of tools/downloads.py')
    return FILES[fits[-1]]


def rows_of(
    path:Path, # a .csv file
)->int: # below the header
    "How many rows a table has; a cell may have several lines."
    with path.open(newline='', encoding='utf-8') as f:
        return max(sum(1 for _ in csv.reader(f)) - 1, 0)


def list_files(
    folder:Path, # of results
)->list[File]: # chapter by chapter, tools last
    "Every table of a folder."
    found = [File(p.name, *about(p.stem), rows_of(p)) for p in sorted(folder.glob('*.csv'))]
    return sorted(found, key=lambda file: ('/' in file.made, file.made))


def title_of(
    made:str, # chapter, as a stem, or a tool
)->str: # Markdown
    "A link to a chapter by its title, or a tool's name."
    if '/' in made:
        return f'`{made}`'
    return f'[{teach.title_of(made)}]({teach.link_of(made)})'


HEAD = """---
title: Download the results
description: Every table of numbers behind this site, with what it has, which chapter made it, and how many rows.
toc: false
page-layout: full
repo-actions: false
---

<!-- Written by tools/downloads.py. To change a line, change FILES there. -->

Every number of the experiments comes from one of these {count} tables, {size} MB of text in all. A row of most of them is one
metric of one setting, with a 95 % interval (`low`, `high`) and all that its images depend on: model, method, scale, sampler, steps,
seed. *Note* is a `.json` file beside a table: with which weights, judges and versions it was made. How to cite: [the page that
compares](compare.qmd#download-and-cite), whose own data are [compare.json](compare/compare.json) and [compare.csv](compare/compare.csv).

A table in Python: `pandas.read_csv('comparison.csv')`. The columns of the sweeps are explained in [chapter 20](20_sweeps.ipynb), the
metrics in [chapter 19](19_metrics.ipynb). Whatever the table of a contest says can be drawn again from its line
([chapter 20a](20a_contests.ipynb)).

| file | what it has | made in | rows | note |
|:-----|:------------|:--------|-----:|:-----|
"""


def page(
    folder:Path=RESULTS, # of results
)->str: # of a .qmd file
    "The page."
    files = list_files(folder)
    size = sum((folder/file.name).stat().st_size for file in files)
    check(size <= LIMIT, 'results', f'{size} bytes of tables', f'at most {LIMIT}')
    lines = []
    for name, made, what, rows in files:
        note = Path(name).with_suffix('.json').name
        beside = f'[json](results/{note})' if (folder/note).is_file() else ''
        lines.append(f'| [{name}](results/{name}) | {what} | {title_of(made)} | {rows:,} | {beside} |')
    return HEAD.format(count=len(files), size=f'{size/1e6:.1f}') + '\n'.join(lines) + '\n'


def main(
    words:list[str]|None=None, # of the command line
)->None:
    "Parse the command line and write, or compare."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true', help='write nothing; fail when the page is stale')
    args = p.parse_args(words)
    try:
        new = page()
    except InputError as e:
        sys.exit(f'downloads.py: {e}')
    marks.renew(PAGE, new, args.check, 'python tools/downloads.py')


if __name__ == '__main__': main()
