"""Guidance against any number of weak branches: the formula written out, what is asked and how often, and who may be added."""
import copy, itertools, json, math
from importlib import resources

import numpy as np, pytest, torch

from cfg_course.catalogue import RULES, WEAK, cost_of, make_guidance, parse_guidance
from cfg_course.cli import sample_main
from cfg_course.core import NULL, InputError, Run, rng
from cfg_course.denoisers import count_rows, load_denoiser
from cfg_course.guidance import LINEAR, Label, Rule, Term, guide, make_method, ramp
from cfg_course.mixtures import Mixture, three_gaussians
from cfg_course.samplers import sample

MODEL = load_denoiser(resources.files('cfg_course')/'weights'/'digits.safetensors')[0].requires_grad_(False)
DOUBLE = copy.deepcopy(MODEL).double()
WORSE = copy.deepcopy(DOUBLE)
for k, p in enumerate(WORSE.parameters()): p.mul_(1 + .1*torch.randn(p.shape, generator=rng(k)).double())
WORLD = three_gaussians()
BLURRED = Mixture(WORLD.means, WORLD.eigs[:, 0] + .4, WORLD.weights, WORLD.labels)
OPTIONS = dict(negative=dict(label=2), in_situ=dict(rate=.1))
X, Y, SIGMA = 2*torch.randn(3, 1, 8, 8, generator=rng(1)).double(), torch.tensor([0, 3, 8]), 1.5
AT, CLASSES = 2*torch.randn(6, 2, generator=rng(2)).double(), torch.tensor([0, 1, 2, 0, 1, 2])
IN_WORLD = 'no_label', 'negative', 'autoguidance', 'icg'


def options_of(name, model): return dict(model=BLURRED if model is WORLD else WORSE) if name == 'autoguidance' else OPTIONS.get(name, {})
def make(name, model): return make_method(WEAK, name, model, **options_of(name, model))
def bare(branch, model, x, y): return model(x, SIGMA, branch.labels(y)) if callable(getattr(branch, 'labels', None)) else branch(x, SIGMA, y)


def check_formula(model, x, y, names, strengths, s, **how):
    "Guidance with terms is what its formula says."
    branches = [make(name, model) for name in names]
    with Run():
        got = guide(model, scale=s, more=[Term(b, a) for b, a in zip(branches, strengths)], **how)(x, SIGMA, y)
        D_c, D_u = model(x, SIGMA, y), model(x, SIGMA, torch.full_like(y, NULL))
        want = D_c + (s - 1)*(D_c - D_u) + sum(a*(D_c - bare(b, model, x, y)) for b, a in zip(branches, strengths))
    assert (got - want).abs().max() < 1e-12*max(1, want.abs().max()), (names, strengths, s)


@pytest.mark.parametrize('each', [False, True])
@pytest.mark.parametrize('s', [-1., 0., 1., 2.5])
def test_formula_in_an_exact_world(s, each):
    for n in (1, 2, 3):
        for names in itertools.combinations(IN_WORLD, n): check_formula(WORLD, AT, CLASSES, names, (3., -.5, .75)[:n], s, each=each)


@pytest.mark.parametrize('pair', list(itertools.combinations(WEAK, 2)), ids='+'.join)
def test_formula_with_the_network(pair): check_formula(DOUBLE, X, Y, pair, (1.5, .5), 2.)


def test_three_terms_with_the_network():
    for names in (('pag', 'slg', 'icg'), ('autoguidance', 's2', 'tsg'), ('negative', 'icg', 'seg')): check_formula(DOUBLE, X, Y, names, (2., 1., -.25), 1.5)


@pytest.mark.parametrize('s,a,b', [(1., 2., -2.), (3., -1., -1.), (.9, .1, 0.), (1.3, -.1, -.2), (0., .5, .5)])
def test_strengths_that_cancel(s, a, b):
    check_formula(WORLD, AT, CLASSES, ('autoguidance', 'negative'), (a, b), s)
    bent = Rule(lambda u, c, s, look: c + (s - 1)*(c - u).tanh())
    assert guide(WORLD, scale=s, rule=bent, more=[Term(BLURRED, a), Term(Label(2), b)])(AT, SIGMA, CLASSES).isfinite().all()


def asked(model, x, y, **how):
    "How many rows were asked for, and in how many passes."
    calls = []
    def counted(x, sigma, y): calls.append(len(x)); return model(x, sigma, y)
    with Run(): guide(counted, **how)(x, SIGMA, y)
    return sum(calls)/len(x), len(calls)


def test_labels_share_a_pass_and_nothing_is_asked_twice():
    one, two = Term(Label(1), 2.), Term(Label(2), 1.)
    assert asked(WORLD, AT, CLASSES, scale=2., more=[one, two]) == (4, 1)
    assert asked(WORLD, AT, CLASSES, scale=2., more=[one, one, Term(Label(), 3.)]) == (3, 1)
    assert asked(WORLD, AT, CLASSES, scale=1., more=[one]) == (2, 1)
    assert asked(WORLD, AT, CLASSES, scale=1., more=[Term(Label(1), 0.)]) == (1, 1)
    assert asked(WORLD, AT, CLASSES, scale=0., more=[Term(Label(1), 0.)]) == (1, 1)
    assert asked(WORLD, AT, CLASSES, scale=2., more=[Term(BLURRED, 1.)]) == (2, 1)
    assert asked(WORLD, AT, CLASSES, scale=2., more=[Term(Label(1), lambda sigma: 0.)]) == (2, 1)


@pytest.mark.parametrize('text', ['cfg', 'cfg+pag@3', 'pag@', 'apg+pag@2+slg@1', 'cfg+no_label@2', 'pag+pag@2', 'pag+icg@1+cosine', 'icg@0', 'reg+icg@1', 'cads+icg@1'])
@pytest.mark.parametrize('scale', [0., 1., 2.])
def test_cost_is_the_number_of_distinct_predictions(text, scale):
    model = copy.deepcopy(MODEL)
    counter = count_rows(model.net)
    guided, _ = make_guidance(model, text, scale=scale)
    with Run(): guided(X.float(), SIGMA, Y)
    assert counter.rows/len(X) == cost_of(parse_guidance(text), scale)


def test_float16_and_scales_of_samples():
    half = lambda x, sigma, y: WORLD(x.double(), sigma, y).half()
    bad = lambda x, sigma, y: BLURRED(x.double(), sigma, y).half()
    got = guide(half, scale=3., more=[Term(bad, 2.)])(AT.half(), SIGMA, CLASSES)
    want = guide(WORLD, scale=3., more=[Term(BLURRED, 2.)])(AT.half().double(), SIGMA, CLASSES)
    assert got.dtype == torch.float16 and (got - want).abs().max() < .03
    scales, strengths = torch.tensor([0., 1, 1, 2, 3, 3]).double(), torch.tensor([1., 0, 2, -1, 0, -2]).double()
    bent = Rule(lambda u, c, s, look: c + (s - 1)*(c - u).tanh())
    for rule in (LINEAR, bent):
        for each in (False, True):
            whole = guide(WORLD, scale=scales, more=[Term(BLURRED, strengths)], rule=rule, each=each)
            with Run(range(6)): together = whole(AT, SIGMA, CLASSES)
            for i in range(6):
                alone = guide(WORLD, scale=scales[i].item(), more=[Term(BLURRED, strengths[i].item())], rule=rule, each=each)
                with Run(): assert (alone(AT[i:i+1], SIGMA, CLASSES[i:i+1]) - together[i]).abs().max() < 1e-12, i
            with Run(range(2, 5)): assert (whole(AT[2:5], SIGMA, CLASSES[2:5]) - together[2:5]).abs().max() < 1e-12


def test_schedule_and_interval_are_about_the_scale_alone():
    more = [Term(BLURRED, 2.)]
    D_c, D_u, D_w = WORLD(AT, SIGMA, CLASSES), WORLD(AT, SIGMA), BLURRED(AT, SIGMA, CLASSES)
    outside, inside = (guide(WORLD, scale=3., interval=span, more=more) for span in ((2., 9.), (1., 9.)))
    with Run(): assert (outside(AT, SIGMA, CLASSES) - (D_c + 2*(D_c - D_w))).abs().max() < 1e-12
    with Run(): assert (inside(AT, SIGMA, CLASSES) - (D_c + 2*(D_c - D_u) + 2*(D_c - D_w))).abs().max() < 1e-12
    s = ramp(3., 'cosine')(SIGMA)
    falling = guide(WORLD, scale=ramp(3., 'cosine'), more=[Term(BLURRED, lambda sigma: 1/sigma)])(AT, SIGMA, CLASSES)
    assert (falling - (D_c + (s - 1)*(D_c - D_u) + (D_c - D_w)/SIGMA)).abs().max() < 1e-12


@pytest.mark.parametrize('name', ['apg', 'adaptive', 'fbg'])
def test_each_term_has_a_memory(name):
    "Three steps of a rule that remembers, on each of two terms, beside two runs with one term each."
    rule = RULES[name].make()
    both = guide(WORLD, scale=3., rule=rule, more=[Term(BLURRED, 1.5)], each=True)
    alone = guide(WORLD, scale=3., rule=rule), guide(WORLD, scale=2.5, weak=BLURRED, rule=rule)
    runs = Run(), Run(), Run()
    for sigma in (3., 1., .3):
        answers = []
        for denoise, run in zip((both, *alone), runs):
            with run.next_step(): answers.append(denoise(AT*sigma, sigma, CLASSES))
        D_c = WORLD(AT*sigma, sigma, CLASSES)
        assert (answers[0] - (answers[1] + answers[2] - D_c)).abs().max() < 1e-12


@pytest.mark.parametrize('name', RULES)
def test_every_rule_bears_terms(name):
    x, y = X.float(), Y
    for each in (False, True):
        denoise = guide(MODEL, scale=2., rule=RULES[name].make(), more=[Term(Label(2), 1.), Term(make('pag', MODEL), .5)], each=each)
        with Run(): assert denoise(x, SIGMA, y).isfinite().all()


@pytest.mark.parametrize('sampler', ['heun', 'ddim', 'ddpm'])
def test_a_sample_does_not_know_its_batch(sampler):
    def run(**how):
        more = [Term(make(name, MODEL), .5) for name in ('icg', 's2', 'pag')]
        return sample(guide(MODEL, scale=2., rule=RULES['apg'].make(), more=more, interval=(.3, 3.)), torch.arange(4), (1, 8, 8), sampler=sampler, steps=4, **how)
    assert (run(batch_size=3) - run()).abs().max() < 1e-5*run().abs().max()
    assert (run(seed=1) - run()).abs().max() > 1e-2


def test_wrapped():
    more = [Term(BLURRED, 2.), Term(Label(1), .5)]
    want = guide(WORLD, scale=3., more=more)(AT, SIGMA, CLASSES)
    wrapped = guide(lambda x, sigma, y: WORLD(x, sigma, y), scale=3., more=more)
    assert torch.equal(wrapped(AT, SIGMA, CLASSES), want)
    nested = guide(guide(WORLD, scale=3., more=[Term(BLURRED, 2.)]), scale=1., more=[Term(Label(1), .0)])
    assert (nested(AT, SIGMA, CLASSES) - guide(WORLD, scale=3., more=[Term(BLURRED, 2.)])(AT, SIGMA, CLASSES)).abs().max() < 1e-12


def test_effective_scale_is_that_of_the_straight_line():
    seen = []
    D_c, D_u = WORLD(AT, SIGMA, CLASSES), WORLD(AT, SIGMA)
    D = guide(WORLD, scale=3., more=[Term(BLURRED, 2.)], record=seen)(AT, SIGMA, CLASSES)
    delta = D_c - D_u
    assert (seen[0]['effective'] - ((D - D_u)*delta).sum(1)/(delta**2).sum(1)).abs().max() < 1e-12
    guide(WORLD, scale=1., more=[Term(BLURRED, 2.)], record=seen)(AT, SIGMA, CLASSES)
    assert (seen[1]['effective'] - 3).abs().max() < 1e-9


@pytest.mark.parametrize('strength', [float('nan'), math.inf, '3', torch.tensor([1., float('nan')])])
def test_strengths_are_finite(strength):
    with pytest.raises(InputError, match='strength'): guide(WORLD, scale=2., more=[Term(BLURRED, strength)])


# Expressions

def draw(line, out, capsys, model='digits'):
    "Samples of a command, or its complaint."
    try: sample_main([*line.split(), '--model', model, '--num', '10', '--steps', '3', '--device', 'cpu', '--out', str(out)])
    except SystemExit as e: return e.code, capsys.readouterr().err.strip()
    return np.load(out/'samples.npz')['images'], json.loads((out/'samples.json').read_text())


GOOD = {'cfg+pag@3': 3, 'cfg+slg@2': 3, 'cfg+autoguidance@0.5': 3, 'apg+pag@2': 3, 'apg+pag@2+slg@1': 4, 'pag@': 3, 'icg@1+cosine': 3}


@pytest.mark.parametrize('text', GOOD)
def test_expressions_draw_at_their_cost(text, tmp_path, capsys):
    given = ' --guidance-arg model=digits' if 'autoguidance' in text else ''
    x, note = draw(f'--guidance {text} --guidance-scale 2 --sampler ddim{given}', tmp_path/'out', capsys)
    assert getattr(x, 'shape', x) == (10, 8, 8, 1), note
    assert note['nfe_per_image'] == 3*GOOD[text] and note['guidance'] == text


def test_expression_is_what_is_said_by_hand():
    by_name, _ = make_guidance(MODEL, 'cfg+pag@3+negative@.5', scale=2., options=dict(label=8))
    by_hand = guide(MODEL, scale=2., more=[Term(make('pag', MODEL), 3.), Term(Label(8), .5)])
    assert torch.equal(by_name(X.float(), SIGMA, Y), by_hand(X.float(), SIGMA, Y))
    assert parse_guidance('pag@')['terms']['pag'] == WEAK['pag'].strength == 3


BAD = {
    '--guidance cfg@2': ['cfg@2', 'weak branch'], '--guidance apg@2': ['apg@2', 'weak branch'], '--guidance cfg+pag@x': ['pag@x', 'number'],
    '--guidance cfg+pagg@2': ['pagg@2', 'pag'], '--guidance cfg+pag@nan': ['pag@nan', 'number'], '--guidance pag@1+pag@2': ['pag@ once'],
    '--guidance cfgpp+pag@2': ['cfgpp alone'], '--guidance apg+rescale+pag@1': ['at most one rule'], '--guidance negative@': ['negative@', 'number'],
    '--guidance cfg+slg@2 --guidance-arg skip=("mid.9",)': ['skip', 'mid.9'], '--guidance cfg+icg@1 --guidance-arg blur=2': ['blur', 'icg'],
    '--guidance classifier+pag@1': ['classifier with'], '--guidance cfg+@3': ['@3'], '--guidance cfg+': ["''"],
}


@pytest.mark.parametrize('line', BAD)
def test_bad_expressions_are_refused_in_one_line(line, tmp_path, capsys):
    code, said = draw(f'{line} --guidance-scale 2', tmp_path/'out', capsys)
    assert code == 2 and '\n' not in said and not (tmp_path/'out').exists()
    assert [w for w in BAD[line] if w not in said] == [], said


def test_a_model_without_the_part_is_refused_by_name():
    with pytest.raises(InputError, match='guidance pag@3, model'): make_guidance(WORLD, 'cfg+pag@3', scale=2.)
