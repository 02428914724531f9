"""Every technique against code that its authors released, or against a well-known implementation where they released none.

`conformance.npz` holds what that code answered, run elsewhere on the small exact worlds below, in float64; none of the
code is here. `conformance.json` says for every technique whose code that was (the authors', another, nobody's), which
file of which repository, and what was called. `python tests/test_conformance.py` measures our techniques against the
stored numbers and writes `nbs/results/conformance.csv`, the table of chapter 25a.
"""
import json, math, re
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np, pandas as pd, pytest, torch

from cfg_course.catalogue import SHELVES, make_guidance
from cfg_course.core import NULL, Run, rng
from cfg_course.denoisers import Denoiser
from cfg_course.energies import SURE, Aids
from cfg_course.networks import UNet, UNetConfig
from cfg_course.objectives import OBJECTIVES
from cfg_course.particles import weighed_step
from cfg_course.samplers import SAMPLERS, Now, ddim_step, ddpm_step, dpmpp_step, heun_step, trajectory
from cfg_course.schedules import karras_grid

HERE = Path(__file__).parent
CSV = HERE.parent/'nbs/results/conformance.csv'
Y = torch.tensor([0, 2, 1])
RUNS = [(1, 3.5), (2, 1.7)]  # seed, guidance scale
TOP, LAST, STEPS = 6., .05, 9
GRID = karras_grid(STEPS, LAST, TOP)
COLUMNS = ['technique', 'whose', 'repository', 'file', 'commit', 'called', 'input', 'one_step', 'euler', 'heun', 'note']
MEASURED = ['one_step', 'euler', 'heun']


class Toy:
    "The exact denoiser of three classes of pictures, each a mixture of two Gaussians; no network, no rounding."
    def __init__(self, shape=(1, 4, 4), blur=0.):
        self.shape, self.classes, size = shape, 3, math.prod(shape)
        self.means = torch.randn(3, 2, size, generator=rng(41), dtype=torch.float64).reshape(6, size)
        self.variances = torch.tensor([.3, .5, .4], dtype=torch.float64).repeat_interleave(2)**2 + blur**2

    def posterior(self, x, sigma):
        "Squared deviations give `(B, 6)` log densities, and `(B, 6, d)` what each Gaussian expects."
        flat = x.flatten(1)[:, None]
        s2 = (torch.as_tensor(sigma, dtype=x.dtype).expand(len(x))**2)[:, None]
        total = self.variances + s2
        logs = -((flat - self.means)**2).sum(2)/(2*total) - self.means.shape[1]/2*total.log()
        expected = (self.variances[:, None]*flat + s2[..., None]*self.means)/total[..., None]
        return logs, expected

    def __call__(self, x, sigma, y):
        logs, expected = self.posterior(x, sigma)
        known = (y[:, None] == NULL) | (y[:, None] == torch.arange(3).repeat_interleave(2))
        w = torch.where(known, logs, -math.inf).softmax(1)
        return (w[..., None]*expected).sum(1).reshape(x.shape)

    def logits(self, x, sigma):
        "The exact classifier of noisy pictures."
        logs, _ = self.posterior(x, sigma)
        return logs.reshape(len(x), 3, 2).logsumexp(2)


@cache
def small_net():
    "A U-Net of 8 x 8 pictures in float64 with no layer left at zero."
    unet = UNet(UNetConfig(image_size=8, patch=1, widths=(8, 16), emb=16, num_classes=3)).double().eval().requires_grad_(False)
    for i, (name, p) in enumerate(unet.named_parameters()):
        scale = 1/math.sqrt(p[0].numel()) if p.ndim > 1 else .2
        p.copy_(scale*torch.randn(p.shape, generator=rng(7, i), dtype=torch.float64))
        if p.ndim == 1 and name.endswith('weight'): p += 1
    return Denoiser(unet)


WORLDS = dict(toy=lambda: Toy(), soft=lambda: Toy(blur=1.2), worse=lambda: Toy(blur=.4), big=lambda: Toy((1, 8, 8)), net=small_net)
SHAPES = dict(toy=(1, 4, 4), soft=(1, 4, 4), worse=(1, 4, 4), big=(1, 8, 8), net=(1, 8, 8))


def start(seed, world='toy'):
    "The first noise of a run: the samples of a batch are unequal."
    x = TOP*torch.randn(3, *SHAPES[world], generator=rng(seed, 50), dtype=torch.float64)
    return x*torch.tensor([1., .5, 1.4], dtype=x.dtype).reshape(3, 1, 1, 1)


def draws(seed, world='toy'):
    "A source of noise."
    g = rng(seed, 60)
    return lambda: torch.randn(3, *SHAPES[world], generator=g, dtype=torch.float64)


worse = Toy(blur=.4)
SHORT = 2., 2*(1 - 1e-6), 1.


class Case(NamedTuple):
    "One comparison."
    text: str  # the technique, as on the command line
    options: dict = {}
    world: str = 'toy'
    scaled: bool = True  # is the scale the run's? a procedure may have none
    classifier: bool = False  # does it take the world's own classifier?
    euler: bool = True  # is there a run with first-order steps?
    heun: bool = True  # is there one with Heun's?
    grid: object = GRID
    shrink: float = 1.  # of the first noise
    stored: str = ''  # another case whose numbers are these
    span: tuple|None = None  # noise levels in which to guide
    step: object = ddim_step  # what takes the place of Euler
    heunstep: object = heun_step
    part: float = 1.  # of the scale of the run


CASES = {
    'cfg': Case('cfg'),
    'no_label': Case('no_label', stored='cfg'),
    'autoguidance': Case('autoguidance', dict(model=worse)),
    'negative': Case('negative', dict(label=1)),
    'rescale': Case('rescale', dict(phi=.6)),
    'renorm': Case('renorm'),
    'threshold': Case('threshold', dict(quantile=.9)),
    'static_threshold': Case('static_threshold'),
    'apg': Case('apg', dict(eta=.3, threshold=2., momentum=-.6)),
    'cfg_zero': Case('cfg_zero', dict(zero_from=1.)),
    'cfg_zero/init': Case('cfg_zero', dict(zero_from=.85), heun=False),
    'tcfg': Case('tcfg'),
    'adg': Case('adg+autoguidance', dict(model=worse)),
    'mambo_g': Case('mambo_g', dict(alpha=1.5)),
    'fdg': Case('fdg', dict(gains=(1.3, .6), parallel=1.), 'big'),
    'fdg/parallel': Case('fdg', dict(gains=(1.3, .6), parallel=.4), 'big'),
    'power': Case('power', dict(alpha=.7, space='score')),
    'adaptive': Case('adaptive', dict(cosine=.97)),
    'fbg': Case('fbg', dict(pi=.9, t0=.5, t1=.4, steps=STEPS)),
    'reg': Case('reg'),
    'characteristic': Case('characteristic', dict(iterations=400, tol=1e-10)),
    'characteristic/damped': Case('characteristic', dict(iterations=400, tol=1e-10, damping=1., top=14.61)),
    'ep_cfg': Case('ep_cfg'),
    'cfgnorm': Case('cfgnorm', dict(strength=.8)),
    'pmc': Case('pmc', dict(cap=1.1)),
    'mahiro': Case('mahiro'),
    'vags': Case('vags'),
    'beta_cfg': Case('beta_cfg', dict(a=2.5, b=2., gamma=.6)),
    'mimic': Case('mimic', dict(like=1.2, quantile=.9)),
    'adamag': Case('adamag'),
    'fresca': Case('fresca', world='big'),
    'samg': Case('samg'),
    'higs': Case('higs', dict(window=(.1, .95)), 'big'),
    'smc_cfg': Case('smc_cfg', dict(push=.1)),
    'lf_cfg': Case('lf_cfg', dict(by=4), 'big'),
    'eps_scaling': Case('eps_scaling', dict(lam=1.03)),
    'tsr': Case('tsr', dict(k=.7, spread=.8)),
    'constant': Case('constant', stored='cfg'),
    'linear': Case('linear'),
    'decreasing': Case('decreasing'),
    'bump': Case('bump'),
    'cosine': Case('cosine'),
    'power_cosine': Case('power_cosine'),
    'and': Case('and', dict(labels=(1, 2), weights=(.7, -.4), own=1.2)),
    'not': Case('not', dict(label=1, weight=.8)),
    'perp_neg': Case('perp_neg', dict(label=1, weight=.8), 'soft'),
    'classifier': Case('classifier', classifier=True),
    'classifier/conditional': Case('classifier', dict(on='conditional'), classifier=True),
    'ddim': Case('', heun=False),
    'heun': Case('', euler=False),
    'heun/churn': Case('', euler=False, heunstep=partial(heun_step, gamma=3/STEPS, S_min=.2, S_max=4., S_noise=1.01)),
    'dpmpp': Case('', heun=False, step=dpmpp_step),
    'ddpm': Case('', heun=False, step=partial(ddpm_step, v=.3)),
    'ddpm/small': Case('', heun=False, step=partial(ddpm_step, v=0.)),
    'ddpm/large': Case('', heun=False, step=partial(ddpm_step, v=1.)),
    'zsampling': Case('zsampling', dict(inverse=.3), heun=False),
    'zsampling/twice': Case('zsampling', dict(inverse=.3, loops=2), heun=False),
    'fsg': Case('fsg', dict(inverse=.2, lam=.8, loops=((0., 2/9, 2), (2/9, 3/9, 1), (5/9, 1/9, 3))), heun=False),
    'cfgpp': Case('cfgpp', dict(lam=.7), scaled=False, heun=False),
    'cfgpp/euler': Case('cfgpp', dict(lam=.7), scaled=False, heun=False),
    'cfgpp/ancestral': Case('cfgpp', dict(lam=.7, form='ancestral'), scaled=False, heun=False),
    'cfgpp/dpmpp': Case('cfgpp', dict(lam=.7, form='dpmpp'), scaled=False, heun=False),
    'rectified': Case('rectified', dict(ahead=1 - 1e-12), heun=False, grid=GRID[:-1]),
    'cfgig': Case('cfgig', dict(level=1., sweeps=2, start=3/9)),
    'delayed': Case('delayed', dict(level=1., sweeps=2, start=3/9, delta='s - 1')),
    'delayed/released': Case('delayed', dict(level=1., sweeps=2, start=3/9, delta=.2)),
    'cfgig/karras': Case('cfgig', dict(level=1., sweeps=2, start=3/9)),
    'zsampling/released': Case('zsampling', dict(inverse=.3), heun=False),
    'rectified/released': Case('rectified', dict(ahead=.5), heun=False, grid=GRID[:-1]),
    'fkc': Case('fkc', dict(threshold=0.), heun=False, grid=SHORT, shrink=1/3),
    'fkc/coarse': Case('fkc', dict(threshold=0.), heun=False, grid=(2., 1.4, 1.), shrink=1/3),
    'icg': Case('icg', heun=False, step=partial(ddpm_step, v=0.)),
    'pag': Case('pag', world='net'),
    'seg': Case('seg', world='net'),
    'seg/blur': Case('seg', dict(blur=.6), 'net'),
    'slg': Case('slg', world='net'),
    'self_guidance': Case('self_guidance'),
    'swg': Case('swg', world='net'),
    'm_swg': Case('m_swg', world='net'),
    'sag': Case('sag', world='net'),
    'self_swap': Case('self_swap', world='net'),
    'cfg_mp': Case('cfg_mp', heun=False),
    'cfg_mp/plus': Case('cfg_mp', dict(plus=True), heun=False),
    'restart': Case('restart', dict(low=.5, high=2., points=3, repeats=2), euler=False),
    'tsg': Case('tsg', dict(strength=1.5, power=.7), 'net'),
    'cads': Case('cads', dict(start=.5, stop=.85, noise=.3, rescale=.8), 'net'),
    'interval': Case('cfg', span=(.3, 2.)),
    'clean_classifier': Case('clean_classifier', dict(on='unconditional'), heun=False, step=partial(ddpm_step, v=0.), part=1/4),
    'universal': Case('universal', dict(on='unconditional', backward=1, rate=1., clip=None), heun=False, part=1/4),
    'freedom': Case('freedom', dict(on='unconditional'), heun=False, part=1/4),
    'freedom/again': Case('freedom', dict(on='unconditional', repeats=2), heun=False, part=1/4),
    'mpgd': Case('mpgd', dict(on='unconditional'), heun=False, part=1/4),
    'tfg': Case('tfg', dict(on='unconditional', rho=.8, mu=.3, blur=.2, inner=1), heun=False, part=1/4),
    'tfg/again': Case('tfg', dict(on='unconditional', rho=.8, mu=.3, blur=.2, inner=1, repeats=2), heun=False, part=1/4),
    'dps': Case('dps', dict(on='unconditional', floor=0.), heun=False, part=1/4),
    'discriminator/first': Case('discriminator', dict(first=True), 'worse', euler=False),
    'discriminator/boost': Case('discriminator', dict(first=True, boost=True), 'worse', euler=False),
    'dng': Case('dng', dict(label=1, prior=.2, tau=.7, delta=.05, on='unconditional'), heun=False, step=partial(ddpm_step, v=1.)),
}


def odds(x, sigma, y):
    "What an exact discriminator says of the worse model, clipped as its authors do."
    ratio = Toy().logits(x, sigma) - worse.logits(x, sigma)
    return ratio[torch.arange(len(y)), y].clamp(-SURE, SURE)


AIDS = Aids(judge=lambda x: Toy().logits(x, 2.), discriminator=odds)


def states(case, seed, s, step):
    "Every state of a run of ours."
    denoise, loop = WORLDS[case.world](), trajectory
    if case.text:
        logits = denoise.logits if case.classifier else None
        options = {k: s - 1 if value == 's - 1' else value for k, value in case.options.items()}
        denoise, loop = make_guidance(denoise, case.text, scale=case.part*s if case.scaled else None, options=options, interval=case.span, classifier=logits, aids=AIDS)
    steps = loop(denoise, case.shrink*start(seed, case.world), case.grid, Y, step, draws(seed, case.world), Run(range(3)))
    return [record.x for record in steps]


def gap(mine, theirs):
    "Largest relative difference."
    return ((mine - theirs).abs().max()/theirs.abs().max()).item()


def measure(name, stored):
    "Largest differences of a case over its runs: after one step, after a run of first-order steps, and of Heun's."
    case, found = CASES[name], []
    for (seed, s), (one, last, heun) in zip(RUNS, torch.as_tensor(stored)):
        first = states(case, seed, s, case.step) if case.euler else None
        second = states(case, seed, s, case.heunstep) if case.heun else None
        found.append([gap((first or second)[0], one), gap(first[-1], last) if first else math.nan, gap(second[-1], heun) if second else math.nan])
    return np.max(found, 0)


META = json.loads((HERE/'conformance.json').read_text())
STORED = {k: v for path in sorted(HERE.glob('conformance*.npz')) for k, v in np.load(path, allow_pickle=False).items()}
OWN = {row['case'] for row in META}  # cases with a row of their own; other variants count in that of their technique


def cases_of(row):
    "The cases that a row of the table stands for."
    return [name for name in CASES if name == row['case'] or name not in OWN and name.split('/')[0] == row['case']]


@cache
def measured(name):
    "Differences of one case."
    return measure(name, STORED[CASES[name].stored or name])


def floor(value):
    "One significant digit; what is smaller than 1e-12 is rounding, and called 1e-12."
    return value if math.isnan(value) else float(f'{max(value, 1e-12):.0e}')


def table():
    "The rows of `conformance.csv`, from our techniques and the stored numbers."
    rows = []
    for row in META:
        found = [measured(name) for name in cases_of(row)]
        worst = np.nanmax([*found, [-math.inf]*3], 0) if found else [-math.inf]*3
        values = {k: floor(v if v >= 0 else math.nan) for k, v in zip(MEASURED, worst)}
        rows.append({k: {**row, **values}[k] for k in COLUMNS})
    return pd.DataFrame(rows)


ROWS = pd.read_csv(CSV, keep_default_na=False, na_values={k: [''] for k in MEASURED}) if CSV.exists() else None


@pytest.mark.parametrize('i', range(len(META)), ids=[row['case'] for row in META])
def test_the_table_says_what_is_measured(i):
    "To one digit, or both are rounding."
    row, shown = META[i], ROWS.iloc[i]
    assert {k: shown[k] for k in COLUMNS if k not in MEASURED} == {k: row[k] for k in COLUMNS if k not in MEASURED}
    found = [measured(name) for name in cases_of(row)]
    for k, values in zip(MEASURED, zip(*found)):
        known = [v for v in values if not math.isnan(v)]
        assert math.isnan(shown[k]) == (not known), k
        assert not known or max(known) < 1e-7 and shown[k] < 1e-7 or math.isclose(max(known), shown[k], rel_tol=.5), (k, known)


def test_every_technique_has_a_row():
    "A difference or a reason; and where more differs than rounding, a sentence that says why."
    names = {name for shelf in SHELVES.values() for name in shelf} | set(SAMPLERS)
    missing = sorted(names - set(ROWS.technique))
    assert not missing, f'a row in tests/conformance.json, with the code it was compared with or the reason why there is none, for {missing}'
    assert set(ROWS.technique) <= names | set(OBJECTIVES) | {'interval'}
    compared = ROWS[MEASURED].notna().any(axis=1)
    assert compared.sum() >= 30 and (ROWS.note[~compared] != '').all()
    assert (ROWS.note[(ROWS[MEASURED] > 1e-5).any(axis=1)] != '').all()
    assert set(CASES) == {name for row in META for name in cases_of(row)} and {c.stored or name for name, c in CASES.items()} | {'fkc/weights'} == set(STORED)


def test_where_it_was_compared():
    "A commit for each repository that has one, and a file."
    known = ROWS[ROWS.repository.str.contains('/')]
    assert (known.commit.str.fullmatch('[0-9a-f]{40}|release [0-9.]+')).all() and (known.file != '').all() and (known.called != '').all()


def test_whose_code_it_was():
    "The notes say the same: where the authors released nothing it is another's code, or nobody's."
    whose = ROWS.groupby('technique').whose.unique()
    assert set(ROWS.whose) <= {'authors', 'another', 'nobody'} and (whose.map(len) == 1).all()
    unreleased = ROWS.note.str.contains('paper came without code|[Nn]o code of the authors|a README and no code')
    assert (ROWS.whose[unreleased] != 'authors').all()
    assert (ROWS.repository[ROWS.whose == 'nobody'] == '').all() and (ROWS.repository[ROWS.whose == 'another'] != '').all()


def page_rows():
    "The cells of every line of a table on the page of chapter 25a."
    cells = json.loads((CSV.parents[1]/'25a_conformance.ipynb').read_text(encoding='utf-8'))['cells']
    shown = [''.join(o['data']['text/markdown']) for c in cells for o in c.get('outputs', []) if 'text/markdown' in o.get('data', {})]
    return [line[1:-1].replace('\\_', '_').split(' | ') for text in shown for line in text.splitlines() if line.startswith('|')]


def test_the_page_shows_every_row():
    "None is cut: each with its name, the file and all three numbers, as in the table."
    rows, text = page_rows(), pd.read_csv(CSV, keep_default_na=False, dtype=str)
    for row in text.itertuples():
        asked = [row.one_step, row.euler, row.heun]
        found = [r for r in rows if r[0].strip().startswith(f'`{row.technique}`,') and [v.strip() for v in r[-3:]] == asked]
        assert any(row.file.rsplit('/')[-1] in r[2] for r in found), row.technique
    assert len([r for r in rows if len(r) == 6 and r[0].strip().startswith('`')]) == len(text)


def test_the_page_counts_what_the_table_has():
    "How many were compared with whose code, and how many agree, counted here from the file once more."
    kept = ROWS[~ROWS.technique.isin(OBJECTIVES)].assign(most=ROWS[MEASURED].max(axis=1))
    each = kept.groupby('technique').agg(whose=('whose', 'first'), most=('most', 'max'))
    known = each.most.notna()
    counts = [(each.whose[known] == w).sum() for w in ('authors', 'another')] + [(each.whose[~known] == w).sum() for w in ('authors', 'nobody')]
    agree = [(each.most <= 1e-12).sum(), ((each.most > 1e-12) & (each.most <= 1e-5)).sum(), (each.most > 1e-5).sum()]
    answer = next(''.join(o['data']['text/markdown']) for c in json.loads((CSV.parents[1]/'25a_conformance.ipynb').read_text(encoding='utf-8'))['cells']
                  for o in c.get('outputs', []) if 'text/markdown' in o.get('data', {}))
    said = [int(n) for n in re.findall(r'\b\d+\b', answer)]
    assert said == [len(each), *counts, known.sum(), len(each), known.sum(), *agree]


def test_worlds_are_lively():
    "Guidance moves the samples, and runs differ, so that agreement means something."
    guided, plain = STORED['cfg'], [states(Case(''), seed, 1., ddim_step)[-1].numpy() for seed, _ in RUNS]
    assert all(np.abs(g[1] - p).max() > .05 for g, p in zip(guided, plain)) and np.abs(guided[0, 1] - guided[1, 1]).max() > .5


def test_weights_of_fkc():
    "What the log weights gain in a short step, less their mean, as in the authors' sampler."
    for (seed, s), theirs in zip(RUNS, torch.as_tensor(STORED['fkc/weights'])):
        noise = draws(seed)
        _, gain = weighed_step(Toy(), Now(start(seed)/3, SHORT[0], SHORT[1], Y, noise), s)
        assert gap(gain - gain.mean(), theirs) < 1e-5


def test_stored_numbers_are_small():
    assert (HERE/'conformance.npz').stat().st_size < 400_000 and all(v.dtype == np.float64 for v in STORED.values())


if __name__ == '__main__':
    table().to_csv(CSV, index=False)
