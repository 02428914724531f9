"""Pipelines of diffusers under guidance of this course: a dozen cells of the tables that `tools/pipelines.py` makes, and bad input.

The pipelines are tiny, with random weights, and made from configurations (`tiny_pipelines.py`).
"""
import sys
from types import SimpleNamespace

import pytest, torch

pytest.importorskip('diffusers')
pytest.importorskip('transformers', minversion='5')

from cfg_course.catalogue import make_guidance
from cfg_course.core import InputError, present_run
from cfg_course.guidance import Rule, Term, guide
from cfg_course.pipelines import Heard, bank_of, from_pipeline
from cfg_course.rules import RULES, apg
from cfg_course.samplers import ddim_step, sample, trajectory
from cfg_course.scores import as_batch
from notebooks import ROOT
from tiny_pipelines import FAMILIES, IMG2IMG, OTHERS, class_unet, d, gen, hushed, latents_of

sys.path.insert(0, str(ROOT/'tools'))
import pipelines as tool

STEPS, Y = 3, torch.tensor([0, 1])

CELLS = [('SD 1.5', 'DDIM'), ('SD 1.5', 'DDIM, v, zero SNR'), ('SD 1.5', 'PNDM'), ('SD 1.5', 'Heun'), ('SD 1.5', 'KDPM2'), ('SDXL', 'Euler Karras'),
    ('SDXL', 'Euler ancestral'), ('SD3', 'flow Heun'), ('Flux', 'flow Euler'), ('Wan', 'flow UniPC'), ('CogVideoX', 'CogVideoX DPM'), ('Lumina 2', 'flow Euler'),
    ('Latte', 'UniPC'), ('DiT', 'DPM++ 2M')]


@pytest.fixture(autouse=True)
def quiet():
    with hushed(): yield


def make(name='SD 1.5', scheduler=None, dtype=torch.float32, steps=STEPS, prompts=None, negative='own', **more):
    "A tiny pipeline as a denoiser."
    family = FAMILIES.get(name) or OTHERS.get(name) or IMG2IMG
    negative = family.negative if negative == 'own' else negative
    return from_pipeline(family.pipe(scheduler, dtype), prompts or family.prompts, negative=negative, steps=steps, **{**family.call, **more})


@pytest.fixture(scope='module')
def shared():
    "One for all that leave it as it is."
    with hushed(): return make()


def run(denoise, guided, **call): return latents_of(denoise.pipe, denoise.within(guided), **{'generator': gen(), **call})


def clean(denoise): return 'forward' not in vars(denoise.net) and 'step' not in vars(denoise.pipe.scheduler) and present_run() is None


# Conditions

@pytest.mark.parametrize('family', ['SDXL', 'Flux'])
def test_conditions_are_what_differs_from_prompt_to_prompt(family):
    "Sizes and embedded scales are the same for every prompt: who covers a condition with noise leaves them alone."
    denoise, seen = make(family), {}
    def look(rows):
        seen.update(rows)
        return rows
    x = torch.randn(2, *denoise.shape)
    with torch.no_grad():
        denoise.conditioned(look)(x, 1., Y)
        assert seen and not any('time_ids' in name or name == 'guidance' for name in seen), list(seen)
        covered = make_guidance(denoise, 'cads', scale=1.)[0]
        assert sample(covered, Y, denoise.shape, 'ddim', sigmas=denoise.sigmas).isfinite().all()


# Parity

@pytest.mark.parametrize('family,scheduler', CELLS)
def test_the_line_is_their_guidance(family, scheduler, monkeypatch):
    monkeypatch.setattr(tool, 'STEPS', 6 if scheduler == 'flow Heun' else STEPS)  # which loses digits where steps are long
    row = tool.parity_row(family, FAMILIES[family], scheduler, torch.float32)
    assert row['error'] < 1e-5 and row['error_at_1'] < 1e-5 and row['image_error'] < 1e-6 and row['unchanged'] and row['effect'] > 1e-3


@pytest.mark.parametrize('family,scheduler', [('SDXL', 'DPM++ 2M'), ('Flux', 'flow Euler'), ('PixArt', 'DDIM, v, zero SNR')])
def test_in_double_precision(family, scheduler, monkeypatch):
    monkeypatch.setattr(tool, 'STEPS', STEPS)
    row = tool.parity_row(family, FAMILIES[family], scheduler, torch.float64)
    assert row['error'] < 1e-12 and row['error_at_1'] < 1e-12 and row['image_error'] < 1e-6


def test_image_to_image(monkeypatch):
    monkeypatch.setattr(tool, 'STEPS', 5)
    for scheduler in ('Heun', 'PNDM'):
        row = tool.parity_row('img2img', IMG2IMG, scheduler, torch.float32)
        assert row['error'] < 1e-5 and row['image_error'] < 1e-6
    assert make('img2img', 'Euler', steps=5).sigmas[0] < 3  # it begins where the picture has little noise


@pytest.mark.parametrize('family,dtype', [('SD 1.5', torch.float16), ('Flux', torch.bfloat16)])
def test_half_precision_networks(family, dtype):
    denoise, fam = make(family, dtype=dtype), FAMILIES[family]
    x = torch.randn(2, *denoise.shape, generator=gen())
    assert denoise.dtype == dtype and denoise(x, 1., Y).dtype == torch.float32
    theirs = latents_of(denoise.pipe, denoise.pipe, **fam.ask(3., STEPS, generator=gen())).float()
    assert (run(denoise, guide(denoise, scale=3.)).float() - theirs).abs().max() < .1*theirs.abs().max()
    assert run(denoise, guide(denoise, scale=3., rule=RULES['tcfg'].make())).isfinite().all()


def test_one_prompt_and_prompts_in_another_order(shared):
    both, swapped_ = run(shared, guide(shared, scale=3.)), run(shared, guide(shared, scale=3.), prompt=['a dog', 'a cat', 'a cat'], latents=None)
    assert both.shape[0] == 2 and swapped_.shape[0] == 3
    noise = torch.randn(1, *shared.shape, generator=gen())
    one = run(shared, guide(shared, scale=3.), prompt='a dog', latents=noise)
    two = run(shared, guide(shared, scale=3.), prompt=['a cat', 'a dog'], latents=torch.cat([noise, noise]))
    assert (one[0] - two[1]).abs().max() < 1e-5*one.abs().max()


def test_their_euler_is_our_ddim():
    denoise = make(scheduler='Euler')
    noise = torch.randn(2, *denoise.shape, generator=gen())
    theirs = run(denoise, guide(denoise, scale=3.), latents=noise)
    start = noise*float(denoise.pipe.scheduler.init_noise_sigma)
    with torch.no_grad(): *_, last = trajectory(guide(denoise, scale=3.), start, denoise.sigmas, Y, ddim_step)
    assert (last.x - theirs).abs().max() < 1e-4*theirs.abs().max()


def test_a_known_answer_is_reached_and_decoded():
    denoise = make('SD3')
    answer = torch.randn(2, *denoise.shape, generator=gen())
    assert (run(denoise, lambda x, sigma, y: answer) - answer).abs().max() < 1e-5
    pictures = denoise.within(lambda x, sigma, y: answer)(output_type='pt').images
    assert (denoise.decode(answer) - (2*pictures - 1)).abs().max() < 1e-4


@pytest.mark.parametrize('family,shape', [('DiT', (2, 3, 16, 16)), ('Flux', (2, 3, 8, 8)), ('Wan', (2, 9, 3, 16, 16)), ('CogVideoX', (2, 8, 3, 16, 16))])
def test_pictures_of_latents(family, shape):
    denoise = make(family)
    pictures = denoise.decode(torch.randn(2, *denoise.shape, generator=gen()))
    assert pictures.shape == shape and pictures.abs().max() <= 1 and clean(denoise)


# The negative

def test_negatives_are_overheard():
    pipe, size = FAMILIES['SDXL'].pipe(), FAMILIES['SDXL'].call
    zeros, empty, blurry = (from_pipeline(pipe, ['a cat'], negative=negative, **size).bank.rows['encoder_hidden_states'] for negative in (None, '', 'blurry'))
    assert zeros[-1].abs().max() == 0 and empty[-1].abs().max() > 0 and not torch.equal(empty[-1], blurry[-1]) and torch.equal(empty[0], blurry[0])


def test_a_class_may_be_the_negative():
    pipe = FAMILIES['DiT'].pipe()
    five, none = from_pipeline(pipe, [3, 7], negative=5), from_pipeline(pipe, [3, 7])
    assert five.bank.rows['class_labels'].tolist() == [3, 7, 5] and none.bank.rows['class_labels'].tolist() == [3, 7, 1000]
    x = torch.randn(1, *five.shape, generator=gen())
    with torch.no_grad(): assert torch.equal(five(x, 2., torch.tensor([-1])), from_pipeline(pipe, [5])(x, 2., torch.tensor([0])))


# Guidance within

def test_a_scale_for_each_sample(shared):
    each = run(shared, guide(shared, scale=torch.tensor([1., 6.])))
    for i, scale in enumerate((1., 6.)):
        assert (each - run(shared, guide(shared, scale=scale)))[i].abs().max() < 1e-5*each.abs().max()


def test_intervals_hold(shared):
    levels, asked = shared.sigmas.tolist(), []
    def counted(x, sigma, y):
        asked.append((as_batch(sigma, x)[0].item(), len(x)))
        return shared(x, sigma, y)
    run(shared, guide(counted, scale=3., interval=(levels[1]*.99, levels[1]*1.01)))
    assert [n for _, n in asked] == [4 if i == 1 else 2 for i in range(STEPS)]
    assert [level for level, _ in asked] == pytest.approx(levels[:-1], rel=1e-5)


LOOKS = {'DDIM': [1, 2, 3], 'Heun': [1, 2, 2, 3, 3], 'KDPM2': [1, 2, 2, 3, 3], 'PNDM': [1, 2, 2, 3], 'Euler': [1, 2, 3], 'UniPC': [1, 2, 3]}


@pytest.mark.parametrize('scheduler', LOOKS)
def test_memory_moves_once_a_step(scheduler):
    "A second look within a step finds what the first found."
    seen, denoise = [], make(scheduler=scheduler)
    def remember(u, c, s, look):
        look.memory['n'] = look.memory.get('n', torch.tensor(0)) + 1
        seen.append(int(look.memory['n']))
        return c
    for _ in range(2): run(denoise, guide(denoise, scale=2., rule=Rule(remember)))  # and a new call begins anew
    assert seen == LOOKS[scheduler]*2


def test_the_first_steps_of_pndm_look_four_times():
    denoise, steps = make(scheduler='PNDM, Runge-Kutta', steps=4), []
    def spy(x, sigma, y):
        steps.append(present_run().step)
        return denoise(x, sigma, y)
    run(denoise, spy)
    assert steps == [1]*4 + [2]*4 + [3]*4 + [4]


@pytest.mark.parametrize('name', ['apg', 'higs', 'icg', 'momentum', 'cfg+icg@2+cosine', 'self_guidance', 'negative', 'perp_neg', 'tv_cfg', 'reg'])
def test_techniques_run(shared, name):
    guided, _ = make_guidance(shared, name, scale=3., options=dict(label=1) if name in ('negative', 'perp_neg') else {})
    x = run(shared, guided)
    assert x.isfinite().all() and (x - run(shared, guide(shared, scale=3.))).abs().max() > 1e-4


def test_other_branches_are_terms(shared):
    half = shared.conditioned(lambda rows: {name: .5*row for name, row in rows.items()})
    assert not torch.equal(run(shared, guide(shared, scale=3., weak=half)), run(shared, guide(shared, scale=3., more=[Term(half, 1.)])))


def test_conditions_are_changed_in_turn(shared):
    x, seen = torch.randn(2, *shared.shape, generator=gen()), []
    def double(rows): seen.append({name: row.shape for name, row in rows.items()}); return {name: 2*row for name, row in rows.items()}
    def halve(rows): return {name: row/2 for name, row in rows.items()}
    with torch.no_grad(): assert torch.equal(shared.conditioned(double).conditioned(halve)(x, 1., Y), shared(x, 1., Y))
    assert seen == [{'encoder_hidden_states': (2, 77, 32)}] and shared.change is None


@pytest.mark.parametrize('family', ['SD3', 'SD 1.5'])
@pytest.mark.parametrize('rule', ['tcfg', 'ep_cfg', 'rescale'])
def test_rules_see_the_image_in_noise_alone(family, rule):
    "At the first step of a flow the level is infinite, and float32 holds no image beside the noise."
    scheduler = 'DDIM, v, zero SNR' if family == 'SD 1.5' else None
    single, double = (make(family, scheduler, dtype) for dtype in (torch.float32, torch.float64))
    noise = torch.randn(2, *single.shape, generator=gen(), dtype=torch.float64)
    a, b = (run(denoise, guide(denoise, scale=4., rule=RULES[rule].make()), latents=noise.to(denoise.dtype)) for denoise in (single, double))
    assert (a - b).abs().max() < .02*b.abs().max()


# Our samplers

@pytest.mark.parametrize('family', ['SD 1.5', 'Flux', 'Wan', 'DiT'])
def test_our_samplers_follow_their_levels(family):
    denoise = make(family)
    for sampler in ('ddim', 'heun', 'dpmpp', 'ddpm'):
        x = sample(guide(denoise, scale=2., rule=apg()), Y, denoise.shape, sampler, sigmas=denoise.sigmas)
        assert x.isfinite().all() and x.shape == (2, *denoise.shape)
    assert denoise.sigmas.dtype == torch.float64 and (denoise.sigmas.diff() < 0).all() and denoise.sigmas[-1] == 0


@pytest.mark.parametrize('name', ['cfgpp', 'fsg', 'cfgig', 'pcg', 'zsampling'])
def test_procedures_in_latent_space(shared, name):
    unguided, loop = make_guidance(shared, name, scale=None if name == 'cfgpp' else 2.)
    assert sample(unguided, Y, shared.shape, 'ddim', sigmas=make(steps=8).sigmas, loop=loop).isfinite().all()


def test_a_grid_stays_within_the_model(shared):
    asked = []
    def spy(x, sigma, y):
        asked.append(float(sigma))
        return shared(x, sigma, y)
    spy.sigmas = shared.sigmas
    sample(guide(spy, scale=1.), Y, shared.shape, 'ddim', steps=5)
    assert asked[0] == pytest.approx(shared.sigmas[0].item()) and asked[-1] == pytest.approx(shared.sigmas[-2].item())


@pytest.mark.parametrize('bad', [dict(sigmas=[1., 2., 0.]), dict(sigmas=[2., 1.]), dict(sigmas=[0.]), dict(sigmas=[float('inf'), 1., 0.]), dict(sigmas=[2., 1., 0.], steps=2),
    dict(sigmas=[2., 1., 0.], grid='karras'), dict(sigmas=[2., float('nan'), 0.]), dict(sigmas=[[2., 0.]])])
def test_bad_levels_are_refused(bad):
    with pytest.raises(InputError, match='sigmas'): sample(lambda x, sigma, y: x, Y, (2,), **bad)


# Bad input

@pytest.mark.parametrize('name', OTHERS)
def test_what_cannot_be_heard_is_refused(name):
    family = OTHERS[name]
    pipe = family.pipe()
    with pytest.raises(InputError) as refusal: from_pipeline(pipe, family.prompts, negative=family.negative, steps=2, **family.call)
    net = pipe.components.get('unet') or pipe.transformer
    assert '\n' not in str(refusal.value) and 'forward' not in vars(net) and 'step' not in vars(pipe.scheduler)


class Nothing: components, scheduler = {}, None


BAD = {
    'no pipeline': lambda pipe: from_pipeline(torch.nn.Linear(2, 2), ['a cat']),
    'no network': lambda pipe: from_pipeline(Nothing(), ['a cat']),
    'unconditional': lambda pipe: from_pipeline(d.DDPMPipeline(class_unet(), d.DDPMScheduler()), ['a cat']),
    'no prompts': lambda pipe: from_pipeline(pipe, []),
    'one string': lambda pipe: from_pipeline(pipe, 'a cat'),
    'unequal kinds': lambda pipe: from_pipeline(pipe, ['a cat', 7]),
    'classes for texts': lambda pipe: from_pipeline(pipe, [7]),
    'a negative of another kind': lambda pipe: from_pipeline(pipe, ['a cat'], negative=3),
    'copies': lambda pipe: from_pipeline(pipe, ['a cat'], num_images_per_prompt=2),
    'guidance': lambda pipe: from_pipeline(pipe, ['a cat'], guidance_scale=2.),
    'a negative prompt': lambda pipe: from_pipeline(pipe, ['a cat'], negative_prompt='blurry'),
    'an unknown option': lambda pipe: from_pipeline(pipe, ['a cat'], hight=16),
    'what is not for every call': lambda pipe: from_pipeline(pipe, ['a cat'], generator=gen())}


@pytest.mark.parametrize('name', BAD)
def test_bad_input(shared, name):
    with pytest.raises(InputError) as refusal: BAD[name](shared.pipe)
    assert '\n' not in str(refusal.value) and 'allowed' in str(refusal.value) and clean(shared)


WITHIN = {
    'another prompt': dict(prompt='a cow'), 'no prompt': dict(prompt=[]), 'guidance on': dict(prompt='a cat', guidance_scale=3.), 'a negative': dict(prompt='a cat', negative_prompt='x'),
    'copies': dict(prompt='a cat', num_images_per_prompt=2), 'another size': dict(prompt='a cat', height=32, width=32), 'an unknown option': dict(prompt='a cat', step=3)}


@pytest.mark.parametrize('name', WITHIN)
def test_bad_calls(shared, name):
    with pytest.raises(InputError) as refusal: shared.within(guide(shared, scale=2.))(**WITHIN[name])
    assert '\n' not in str(refusal.value) and clean(shared)


@pytest.mark.parametrize('family,name', [('SD 1.5', '_guidance_scale'), ('SDXL', '_guidance_scale'), ('SD3', '_guidance_scale')])
def test_guidance_that_is_switched_on_inside(family, name):
    denoise = make(family)
    def switch(pipe, i, t, kept):
        setattr(pipe, name, 5.)
        return kept
    with pytest.raises((InputError, RuntimeError)): run(denoise, guide(denoise, scale=2.), callback_on_step_end=switch)
    assert clean(denoise)


def test_another_condition_is_noticed():
    denoise = make('SDXL')
    with pytest.raises(InputError, match='time_ids'): run(denoise, denoise, crops_coords_top_left=(9, 9))
    flux = make('Flux')
    with pytest.raises(InputError, match='guidance'): run(flux, flux, guidance_scale=9.)
    assert clean(denoise) and clean(flux)


def test_another_scheduler_or_network_is_noticed():
    "A pipeline that was changed after it was heard: its new network would run unguided."
    denoise = make(prompts=['a cat'])
    old, denoise.pipe.scheduler = denoise.pipe.scheduler, d.EulerDiscreteScheduler.from_config(denoise.pipe.scheduler.config)
    for f in (lambda: run(denoise, denoise), lambda: denoise.decode(torch.zeros(1, *denoise.shape))):
        with pytest.raises(InputError, match='scheduler.*from_pipeline'): f()
    denoise.pipe.scheduler, denoise.pipe.unet = old, FAMILIES['SD 1.5'].pipe().unet
    with pytest.raises(InputError, match='network.*from_pipeline'): run(denoise, denoise)


def test_conditions_in_lists():
    "Lists and pairs of tensors that are the same for all are passed on; those with a row for each prompt inside are refused."
    def heard(value): return Heard([dict(z=torch.zeros(len(value[0]) if len(value) == 1 else 3, 2), t=torch.tensor(1), extra=value)], torch.zeros(1), torch.zeros(1), 1., torch.zeros(1))
    parts = SimpleNamespace(noisy='z', time='t')
    pair = [torch.ones(4), torch.zeros(4)]
    assert bank_of(heard(pair), heard(pair), parts).shared == dict(extra=pair)
    with pytest.raises(InputError, match='extra'): bank_of(heard([torch.ones(1, 5)]), heard([torch.ones(3, 5)]), parts)
    with pytest.raises(InputError, match='extra'): bank_of(heard(pair), heard([torch.ones(4), torch.ones(4)]), parts)


def test_a_compiled_network():
    pipe = FAMILIES['SD 1.5'].pipe()
    pipe.unet = torch.compile(pipe.unet, backend='eager')
    denoise = from_pipeline(pipe, ['a cat', 'a dog'], negative='blurry', steps=STEPS, height=16, width=16)
    before = dict(vars(pipe.unet))
    x = run(denoise, guide(denoise, scale=3.))
    assert x.isfinite().all() and vars(pipe.unet).keys() == before.keys()
    own = latents_of(pipe, pipe, **FAMILIES['SD 1.5'].ask(3., STEPS, generator=gen()))
    assert (x - own).abs().max() < 1e-5*own.abs().max()


def test_a_batch_that_is_split():
    "A pipeline that asks its network about one sample at a time."
    pipe = FAMILIES['SD 1.5'].pipe()
    class Split(type(pipe.unet)):
        def __call__(self, z, *args, encoder_hidden_states, **kwargs):
            rows = [super(Split, self).__call__(z[i:i+1], *args, encoder_hidden_states=encoder_hidden_states[i:i+1], **kwargs)[0] for i in range(len(z))]
            return (torch.cat(rows),)
    pipe.unet.__class__ = Split
    with pytest.raises(InputError, match='splits no batch'): from_pipeline(pipe, ['a cat', 'a dog'], steps=2, height=16, width=16)
    assert 'forward' not in vars(pipe.unet)


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt, InputError])
@pytest.mark.parametrize('own', [False, True])
def test_the_network_is_restored(error, own):
    "After an exception too, and if somebody had changed it before."
    denoise, asked = make(), []
    if own: denoise.net.forward = denoise.net.forward
    before, weights = dict(vars(denoise.net)), tool.weights_of(denoise.net)
    def bad(x, sigma, y):
        asked.append(1)
        if len(asked) == 2: raise error('the second')
        return denoise(x, sigma, y)
    with pytest.raises(error): run(denoise, guide(bad, scale=1.))
    assert vars(denoise.net).keys() == before.keys() and all(vars(denoise.net)[k] is v for k, v in before.items()) and present_run() is None
    assert tool.unchanged(weights, denoise.net) and run(denoise, denoise).isfinite().all()


def test_an_interrupted_call():
    "The pipeline ends as it does by itself; the network is its own again."
    denoise, asked = make(), []
    def stop(pipe, i, t, kept):
        pipe._interrupt = True
        return kept
    def spy(x, sigma, y):
        asked.append(sigma)
        return denoise(x, sigma, y)
    run(denoise, spy, callback_on_step_end=stop)
    assert len(asked) == 1 and clean(denoise)


def test_a_pipeline_that_never_asks():
    pipe = FAMILIES['SD 1.5'].pipe()
    class Idle(type(pipe)):
        interrupt = property(lambda self: True)
    pipe.__class__ = Idle
    with pytest.raises(InputError, match='ended after 0 questions'): from_pipeline(pipe, ['a cat'], height=16, width=16)


def test_a_network_on_another_device():
    pipe = FAMILIES['SD 1.5'].pipe()
    denoise = from_pipeline(pipe, ['a cat'], steps=2, height=16, width=16)
    pipe.unet.to('meta')
    for f in (lambda: denoise(torch.zeros(1, *denoise.shape), 1., torch.tensor([0])), lambda: run(denoise, denoise), lambda: from_pipeline(pipe, ['a cat'], steps=2, height=16, width=16)):
        with pytest.raises(InputError, match='device'): f()
        assert clean(denoise)


@pytest.mark.parametrize('y', [[0, 2], [-2, 0]])
def test_unknown_labels(shared, y):
    with pytest.raises(InputError, match='negative prompt'): shared(torch.zeros(2, *shared.shape), 1., torch.tensor(y))
    with pytest.raises(InputError): sample(shared, torch.tensor(y), shared.shape, steps=2)


def test_random_state_is_left_alone():
    pipe = IMG2IMG.pipe()
    before = torch.random.get_rng_state()
    denoise = from_pipeline(pipe, ['a cat'], **IMG2IMG.call)
    denoise.decode(torch.zeros(1, *denoise.shape))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize('rule', ['threshold', 'static_threshold'])
def test_rules_for_pixels_refuse_latents(shared, rule):
    clip = RULES[rule].make()
    strong = make_guidance(shared, 'and', scale=1., options=dict(labels=(1,)))[0].denoise
    for f in (lambda: run(shared, guide(shared, scale=2., rule=clip)), lambda: run(shared, guide(strong, scale=2., rule=clip)),
              lambda: sample(guide(shared, scale=2., rule=clip), Y, shared.shape, steps=2),
              lambda: sample(guide(strong, scale=2., rule=clip), Y, shared.shape, steps=2),
              lambda: guide(shared, scale=2., rule=clip)(torch.zeros(2, *shared.shape).half(), 1., Y)):
        with pytest.raises(InputError, match='pixels'): f()
    assert guide(lambda x, sigma, y: x, scale=2., rule=clip)(torch.ones(1, 1, 4, 4), 1., torch.tensor([0])).isfinite().all()
