"Figures of the paper, drawn by tools/paper.py from nbs/results in the house's colours, at the width of a column."
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from cfg_course.core import set_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from paper import Results

COLUMN = 3.24 # inches
INK = '#303030'
PRINTED = {
    'font.size': 8, 'axes.labelsize': 8, 'axes.titlesize': 8, 'xtick.labelsize': 7, 'ytick.labelsize': 7,
    'legend.fontsize': 6.5, 'legend.frameon': False, 'axes.linewidth': .6,
    'lines.linewidth': 1.1, 'lines.markersize': 3,
    'xtick.major.width': .6, 'ytick.major.width': .6, 'xtick.minor.width': .4, 'ytick.minor.width': .4,
    'xtick.major.size': 3, 'ytick.major.size': 3, 'xtick.minor.size': 1.5, 'ytick.minor.size': 1.5,
    'font.family': 'serif', 'font.serif': ['Liberation Serif', 'Nimbus Roman', 'STIXGeneral'],
    'mathtext.fontset': 'stix',
    'pdf.fonttype': 42}
INKED = 'axes.edgecolor', 'axes.labelcolor', 'xtick.color', 'ytick.color', 'text.color', 'axes.titlecolor'
NAMES = {'exact': 'exact'} | {who: f'{who} pictures' for who in ('10k', '40k', '160k', '640k')}


def for_print()->None:
    "The house style, with the sizes and the ink of a printed page."
    set_style()
    plt.rcParams.update(PRINTED | dict.fromkeys(INKED, INK))


def at_one(
    ax:Axes, # any
)->None:
    "A thin line at scale 1: no guidance."
    ax.axhline(1, c=INK, lw=.5, ls=':')


def draw_guide(
    r:Results, # tables
)->plt.Figure:
    "One digit from the same noise: exact and two networks, six scales, with exact log-likelihoods."
    said = r.table('repair_guide.csv')
    scales, names = sorted(said.scale.unique()), list(said.who.unique())
    picture = Image.open(r.folder/'repair_guide.png').convert('L')
    side = picture.height//len(names)
    fig, axes = plt.subplots(len(names), len(scales), figsize=(COLUMN, 2.15))
    for i, who in enumerate(names):
        for j, scale in enumerate(scales):
            ax, value = axes[i, j], said[(said.who == who) & (said.scale == scale)].log_prob.iloc[0]
            digit = picture.crop((j*side, i*side, (j + 1)*side, (i + 1)*side))
            ax.imshow(np.asarray(digit), cmap='gray', vmin=0, vmax=255)
            ax.set(xticks=[], yticks=[], xlabel=f'{value:,.0f}'.replace('-', '\N{MINUS SIGN}'))
            ax.xaxis.labelpad = 1.5
            ax.xaxis.label.set_size(6.5)
            if i == 0: ax.set_title(f'$s={scale:g}$', pad=2)
            if j == 0: ax.set_ylabel(NAMES[who].replace(' ', '\n'), fontsize=6.5)
    fig.subplots_adjust(left=.09, right=.995, top=.93, bottom=.065, wspace=.08, hspace=.3)
    return fig


def draw_asked(
    r:Results, # tables
)->plt.Figure:
    "The asked scale on the data and on the path."
    asked = r.table('repair_asked.csv')
    asked = asked[(asked.shown > 1e-3) & (asked.sigma > .01)]
    fig, axes = plt.subplots(1, 2, figsize=(COLUMN, 1.75), sharey=True)
    for ax, where in zip(axes, ('data', 'path')):
        for who in list(NAMES)[1:]:
            o = asked[(asked.who == who) & (asked['where'] == where)]
            ax.plot(o.sigma, o.value, marker='o', ms=1.8, lw=.9, label=NAMES[who])
            ax.fill_between(o.sigma, o.low, o.high, alpha=.25, lw=0)
        at_one(ax)
        ax.set(xscale='log', xlabel=r'noise level $\sigma$', title=f'on the {where}', ylim=(0, 5.4))
        ax.invert_xaxis()
    axes[0].set_ylabel('asked scale $s^*$')
    axes[0].legend(loc='upper left', borderaxespad=.2, handlelength=1.2, labelspacing=.25)
    fig.tight_layout(pad=.2, w_pad=.6)
    return fig


KINDS = {'known error': ('known error', 's'), 'network': ('network', 'o'), 'second network': ('second network', '^'),
    'sampler': ('other samplers', 'v'), 'trained on': ('trained on', 'D')}


def draw_best(
    r:Results, # tables
)->plt.Figure:
    "The best scale against the asked scale."
    best = r.table('repair_best.csv')
    best = best[best.who != 'common']
    fig, ax = plt.subplots(figsize=(COLUMN, 2.3))
    for kind, (words, mark) in KINDS.items():
        o = best[best.kind == kind]
        bars = dict(xerr=[o.asked - o.asked_low, o.asked_high - o.asked], yerr=[o.best - o.low, o.high - o.best])
        ax.errorbar(o.asked, o.best, **bars, fmt=mark, ms=3.2, lw=.6, label=words)
    ends = [.3, 3]
    ax.plot(ends, ends, c=INK, lw=.5)
    at_one(ax)
    ax.axvline(1, c=INK, lw=.5, ls=':')
    for who, at in {'own': (1, 4), 'mixed': (-7, 4), 'shy': (4, -2), 'flat': (-15, 0), 'blurred': (-26, 1)}.items():
        o = best[best.who == who].iloc[0]
        ax.annotate(who, (o.asked, o.best), xytext=at, textcoords='offset points', fontsize=6.5)
    ax.set(xlabel='asked scale on the path, mean over $0.1<\\sigma<2$', ylabel='best scale by likelihood')
    ax.set(xlim=(.3, 2.2), ylim=(.85, 2.95))
    ax.legend(loc='upper left', borderaxespad=.2, handlelength=1, labelspacing=.25)
    fig.tight_layout(pad=.2)
    return fig


WAYS = {'640k': 'as it was', 'on data': 'data alone', 'led down': 'led down', 'on its path': 'its own path'}


def draw_trained(
    r:Results, # tables
)->plt.Figure:
    "Likelihood and variance against the scale, for networks that were trained on."
    trained, before = r.table('repair_trained.csv'), r.table('repair_scales.csv')
    fig, axes = plt.subplots(1, 2, figsize=(COLUMN, 1.8))
    for who, words in WAYS.items():
        o = (before if who == '640k' else trained).query('who == @who and scale <= 2')
        axes[0].errorbar(o.scale, o.log_prob/1000, 1.96*o.error/1000, marker='o', ms=2, lw=.9, label=words)
        axes[1].plot(o.scale, o.along, marker='o', ms=2, lw=.9)
    axes[0].set(xlabel='scale $s$', ylabel='$\\log p$, thousands of nats')
    axes[1].set(xlabel='scale $s$', ylabel='variance along the sheets', ylim=(.4, 1.05))
    axes[1].axhline(1, c=INK, lw=.5, ls=':')
    fig.tight_layout(pad=.2, w_pad=1.4, rect=(0, 0, 1, .9))
    shown = axes[0].get_legend_handles_labels()
    fig.legend(*shown, loc='upper center', ncol=4, handlelength=1, columnspacing=1, borderaxespad=.1)
    return fig


def draw_stages(
    r:Results, # tables
)->plt.Figure:
    "Photographs: the best scale against training, and FID against the scale."
    best = r.table('cifar10_16_best.csv')
    rows = r.rows('cifar10_16_stages_plain.csv', metric='fid')
    fig, axes = plt.subplots(1, 2, figsize=(COLUMN, 1.8))
    for judge, o in best.groupby('judge'):
        bars = [o.best - o.low, o.high - o.best]
        axes[0].errorbar(o.images/1e6, o.best, bars, marker='o', ms=2.5, lw=.9, label=f'{judge} judge')
    at_one(axes[0])
    axes[0].set(xscale='log', xlabel='training, millions of images', ylabel='scale of the lowest FID', ylim=(.9, 2.9))
    axes[0].set(xticks=[.5, 1, 2, 5], xticklabels=['0.5', '1', '2', '5'])
    axes[0].minorticks_off()
    axes[0].legend(loc='upper right', borderaxespad=.1)
    for stage, images in best[['stage', 'images']].drop_duplicates().itertuples(index=False):
        model = 'cifar10-16' if stage == 'final' else f'cifar10-16-at-{stage}.safetensors'
        o = rows[(rows.model == model) & rows.scale.between(1, 3)].sort_values('scale')
        axes[1].plot(o.scale, o.value, marker='o', ms=2, lw=.9, label=f'{images/1e6:.1f} M')
    floor = r.cell('cifar10_16_real.csv', 'value', judge='plain', metric='fid')
    axes[1].axhline(floor.value, c=INK, lw=.5, ls='--')
    axes[1].set(yscale='log', xlabel='scale $s$', ylabel='FID, plain judge', ylim=(.6, 900))
    axes[1].legend(loc='upper center', ncol=2, borderaxespad=.1, handlelength=1, labelspacing=.2, columnspacing=1)
    fig.tight_layout(pad=.2, w_pad=1.4)
    return fig


PLACED = { # technique, axis -> label and where it stands
    ('none', 'log_prob'): ('none', (-17, -3)), ('cfg', 'log_prob'): ('$s=2$', (-20, 2)),
    ('none', 'modes'): ('none', (5, -4)), ('cfg', 'modes'): ('$s=2$', (-8, 5))}


def draw_judges(
    r:Results, # tables
)->plt.Figure:
    "What FID follows: likelihood, and shares of modes."
    top = r.rows('repair_techniques.csv', who='640k')
    fig, axes = plt.subplots(1, 2, figsize=(COLUMN, 1.7), sharey=True)
    shown = {'log_prob': '$\\log p$, thousands of nats', 'modes': 'distance of mode shares'}
    for ax, (column, name) in zip(axes, shown.items()):
        x = top[column]/1000 if column == 'log_prob' else top[column]
        plain = top.technique.isin(['none', 'cfg'])
        ax.scatter(x[~plain], top.fid_mnist[~plain], s=8, lw=0)
        ax.scatter(x[plain], top.fid_mnist[plain], s=16, lw=0, c='C3', marker='D')
        for row, o in top[plain].iterrows():
            words, at = PLACED[o.technique, column]
            ax.annotate(words, (x[row], o.fid_mnist), xytext=at, textcoords='offset points', fontsize=6.5)
        ax.set(yscale='log', xlabel=name, ylim=(7, 3000))
    axes[0].set_ylabel('FID, plain judge')
    fig.tight_layout(pad=.2, w_pad=.6)
    return fig


FIGURES = dict(
    guide=draw_guide, asked=draw_asked, best=draw_best, trained=draw_trained, stages=draw_stages, judges=draw_judges)


def draw_all(
    r:Results, # tables
    out:Path, # folder
)->None:
    "Draw all figures."
    matplotlib.use('Agg')
    out.mkdir(parents=True, exist_ok=True)
    for_print()
    for name, draw in FIGURES.items():
        fig = draw(r)
        fig.savefig(out/f'{name}.pdf', metadata=dict(CreationDate=None))
        plt.close(fig)
