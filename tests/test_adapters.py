"""Our rules as guiders in real modular pipelines of diffusers, tiny and with random weights; and what every scheduler means.

The pipelines are their blocks from the prompts' embeddings on: a guider has nothing to do with text. One test runs
all blocks, tokens and text encoders too, where transformers is installed.
"""
import contextlib, importlib, inspect

import diffusers, pytest, torch
from diffusers import (AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, DiTTransformer2DModel, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler, HeunDiscreteScheduler, KDPM2DiscreteScheduler, PNDMScheduler, SD3Transformer2DModel, UNet2DConditionModel, UNet2DModel, UniPCMultistepScheduler,
    WanTransformer3DModel)
from diffusers.guiders import AutoGuidance, ClassifierFreeGuidance, PerturbedAttentionGuidance, SkipLayerGuidance
from diffusers.hooks import LayerSkipConfig
from diffusers.models.attention_processor import PAGJointAttnProcessor2_0

from cfg_course.adapters import Weaker, describe, from_diffusers, pipeline_of, sigma_at, sigma_to_step, step_of, step_to_sigma, to_guider
from cfg_course.branches import WEAK
from cfg_course.core import NULL, InputError, Run, rng
from cfg_course.guidance import LINEAR, Rule, Term, guide, interval, make_method, ramp
from cfg_course.rules import RULES, apg
from cfg_course.samplers import ddim_step, heun_step, sample, trajectory
from cfg_course.scores import TO_X0, z_to_x
import cfg_course.bands, cfg_course.doses, cfg_course.histories  # noqa: F401

diffusers.utils.logging.set_verbosity_error()
SD = dict(beta_start=.00085, beta_end=.012, beta_schedule='scaled_linear')
ASK_AGAIN = {name for name, entry in RULES.items() if 'asks again' in entry.traits}


def blocks(family, name):
    "Blocks of modular pipelines; diffusers has none without transformers."
    pytest.importorskip('transformers')
    return getattr(importlib.import_module(f'diffusers.modular_pipelines.{family}.modular_blocks_{family}'), name)()


def randn(*shape, key=0): return torch.randn(shape, generator=rng(key))


def lively(net):
    "A network with no layer left at zero."
    for i, p in enumerate(net.parameters()):
        if p.ndim > 1 and p.abs().max() < .1: p.data.copy_(randn(*p.shape, key=i)/p[0].numel()**.5)
    return net.eval().requires_grad_(False)


def unet():
    torch.manual_seed(2)
    return lively(UNet2DConditionModel(block_out_channels=(16, 32), norm_num_groups=8, layers_per_block=1, sample_size=8, in_channels=4, out_channels=4, down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'),
        up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'), cross_attention_dim=16, addition_embed_type='text_time', addition_time_embed_dim=8, projection_class_embeddings_input_dim=80,
        attention_head_dim=(2, 4), use_linear_projection=True, transformer_layers_per_block=(1, 1)))


def transformer():
    torch.manual_seed(2)
    return lively(SD3Transformer2DModel(sample_size=8, patch_size=1, in_channels=4, num_layers=3, attention_head_dim=8, num_attention_heads=4, caption_projection_dim=32,
        joint_attention_dim=32, pooled_projection_dim=64, out_channels=4))


class Tiny:
    "A modular pipeline behind its text encoders: two prompts, each with a negative one of its own."
    def __init__(self, name):
        self.name, self.xl = name, name == 'sdxl'
        self.net, self.part = (unet(), 'unet') if self.xl else (transformer(), 'transformer')
        width, pooled = (16, 32) if self.xl else (32, 64)
        self.rows, self.pooled = randn(4, 7, width, key=1), randn(4, pooled, key=2)
        self.stack = 'mid_block.attentions.0.transformer_blocks' if self.xl else 'transformer_blocks'
        family, made = ('stable_diffusion_xl', 'StableDiffusionXLAutoBlocks') if self.xl else ('stable_diffusion_3', 'StableDiffusion3AutoBlocks')
        self.pipe = blocks(family, made).sub_blocks['denoise'].init_pipeline()
        self.pipe.update_components(**{self.part: self.net})
        self.pipe.set_progress_bar_config(disable=True)
        if self.xl:
            torch.manual_seed(1)
            self.pipe.update_components(vae=AutoencoderKL(block_out_channels=[8, 8], norm_num_groups=4, down_block_types=['DownEncoderBlock2D']*2, up_block_types=['UpDecoderBlock2D']*2, latent_channels=4))

    def scheduler(self): return EulerDiscreteScheduler(**SD, steps_offset=1) if self.xl else FlowMatchEulerDiscreteScheduler(shift=3.)

    def __call__(self, guider, scheduler=None, steps=4):
        "The latents at the end."
        scheduler = scheduler or self.scheduler()
        self.pipe.update_components(guider=guider(scheduler), scheduler=scheduler)
        side = 16 if self.xl else 64
        return self.pipe(prompt_embeds=self.rows[:2], negative_prompt_embeds=self.rows[2:], pooled_prompt_embeds=self.pooled[:2], negative_pooled_prompt_embeds=self.pooled[2:],
            num_inference_steps=steps, generator=rng(4), height=side, width=side, output='latents')

    def denoiser(self, scheduler, net=None):
        "The same network as a denoiser of ours, whose labels are the rows."
        ids = torch.tensor([[16., 16, 0, 0, 16, 16]])
        def ask(model, z, t, y):
            if not self.xl: return model(z, encoder_hidden_states=self.rows[y], pooled_projections=self.pooled[y], timestep=t).sample
            return model(z, t, encoder_hidden_states=self.rows[y], added_cond_kwargs=dict(text_embeds=self.pooled[y], time_ids=ids.expand(len(y), -1))).sample
        return from_diffusers(net or self.net, scheduler, null=4, ask=ask)

    def by_hand(self, step=ddim_step, scheduler=None, steps=4, damaged=None, **options):
        "What our own sampler makes of it, guided by `guide`."
        scheduler = scheduler or self.scheduler()
        scheduler.set_timesteps(steps)
        sigmas = scheduler.sigmas.double()
        if not self.xl: sigmas = torch.cat([step_to_sigma(scheduler.timesteps, None), torch.zeros(1)])
        if step is heun_step: sigmas = torch.cat([sigmas[:1], sigmas[1:-1:2], sigmas[-1:]])
        z = torch.randn(2, 4, 8, 8, generator=rng(4))
        start = z*scheduler.init_noise_sigma if self.xl else z_to_x(z, sigmas[0], 'rf')
        if damaged: options['more'] = [Term(self.denoiser(scheduler, net), w) for net, w in damaged]
        guided = guide(self.denoiser(scheduler), weak=Own(), **options)
        *_, last = trajectory(guided, start, sigmas, torch.arange(2), step)
        return last.x

    def attributes(self): return {name: (set(vars(part)), len(part._forward_hooks), len(part._forward_pre_hooks)) for name, part in self.net.named_modules()}


class Own:
    "The weak branch of which each prompt has its own."
    def labels(self, y): return y + 2


@pytest.fixture(scope='module')
def sdxl(): return Tiny('sdxl')


@pytest.fixture(scope='module')
def sd3(): return Tiny('sd3')


@pytest.fixture(params=['sdxl', 'sd3'])
def tiny(request): return request.getfixturevalue(request.param)


def gap(a, b): return ((a - b).abs().max()/b.abs().max()).item()


def guider(rule=LINEAR, scale=5., **options): return lambda scheduler: to_guider(rule, scale, scheduler, **options)


def cfg(scale=5., **options): return lambda scheduler: ClassifierFreeGuidance(scale, **options)


ON_IMAGES = Rule(lambda u, c, s, look: look.x + (u - look.x) + s*(c - u))  # the straight line, by way of the clean images and of the sample


# Two predictions

def test_plain_guidance_is_theirs(tiny):
    "In the model's own space, and by way of clean images, for which the guider must have seen what the network saw."
    theirs = tiny(cfg())
    assert gap(theirs, tiny(cfg(1.))) > 1e-2
    assert gap(tiny(guider()), theirs) < 1e-5
    assert gap(tiny(guider(ON_IMAGES)), theirs) < 1e-5
    assert gap(tiny(guider(scale=1.)), tiny(cfg(1.))) < 1e-5


SOLVERS = [lambda: DDIMScheduler(**SD, clip_sample=False), lambda: DDIMScheduler(prediction_type='v_prediction', rescale_betas_zero_snr=True, timestep_spacing='trailing', clip_sample=False),
    lambda: EulerDiscreteScheduler(**SD, use_karras_sigmas=True), lambda: DPMSolverMultistepScheduler(**SD, use_karras_sigmas=True), lambda: UniPCMultistepScheduler(**SD)]


@pytest.mark.parametrize('i', range(len(SOLVERS)))
def test_solvers(sdxl, i):
    theirs = sdxl(cfg(), SOLVERS[i]())
    for rule in (LINEAR, ON_IMAGES): assert gap(sdxl(guider(rule), SOLVERS[i]()), theirs) < 1e-5


PIXELS = {'threshold', 'static_threshold'}


@pytest.mark.parametrize('name', sorted(PIXELS))
def test_rules_for_pixels(sdxl, name):
    with pytest.raises(InputError, match='latents'): sdxl(guider(RULES[name].make()), steps=3)


@pytest.mark.parametrize('name', sorted(RULES.keys() - ASK_AGAIN - PIXELS))
def test_every_rule_of_two_predictions(sdxl, sd3, name):
    "In the pipeline it is what `guide` makes of it with a sampler of ours; on SD 3, which begins with noise alone, it runs."
    rule = RULES[name].make
    assert gap(sdxl(guider(rule()), steps=3), sdxl.by_hand(scale=5., rule=rule(), steps=3)) < 1e-4
    assert sd3(guider(rule()), steps=2).isfinite().all()


@pytest.mark.parametrize('name', sorted(ASK_AGAIN))
def test_rules_that_ask_again(tiny, name):
    with pytest.raises(InputError, match='asks the model again'): tiny(guider(RULES[name].make()))


@pytest.mark.parametrize('name', ['apg', 'rescale', 'cfg_zero', 'renorm'])
def test_flow(sd3, name):
    rule = RULES[name].make
    assert gap(sd3(guider(rule())), sd3.by_hand(scale=5., rule=rule())) < 1e-4


def test_nothing_is_left_behind(tiny):
    "Neither hooks nor attributes, and the same answer to the last bit; after a pass, and after one that fails anywhere."
    before, plain, terms = tiny.attributes(), tiny(cfg()), [Weaker(LayerSkipConfig([0], fqn=tiny.stack), 1.)]
    class Stop(BaseException): "Not an `Exception`: as of a user who interrupts."
    block = dict(tiny.net.named_modules())[tiny.stack][0]
    for when in (1, 2, 3, 5, None):
        calls = []
        def count(*_, when=when, calls=calls):
            calls.append(1)
            if len(calls) == when: raise Stop if when % 2 else ValueError('no')
        hook = block.register_forward_pre_hook(count)
        with contextlib.suppress(Stop, ValueError): tiny(guider(apg(), terms=terms))
        hook.remove()
        assert tiny.attributes() == before and (when is None or len(calls) == when)
    assert torch.equal(tiny(cfg()), plain)


def test_a_network_that_fails_by_itself(tiny):
    "An exception of the network's own call, at each of the questions of a step."
    before = tiny.attributes()
    for when in (1, 2, 3):
        count, ask = [], tiny.net.forward
        def forward(*args, when=when, count=count, ask=ask, **kwargs):
            count.append(1)
            if len(count) == when: raise RuntimeError('out of memory')
            return ask(*args, **kwargs)
        tiny.net.forward = forward
        with pytest.raises(RuntimeError, match='out of memory'): tiny(guider(apg()))
        assert vars(tiny.net)['forward'] is forward
        del tiny.net.forward
        assert tiny.attributes() == before


def test_prepared_and_never_asked(sdxl):
    "What a pipeline prepares and does not use is undone at the guider's next step."
    before, made = sdxl.attributes(), guider(terms=[(LayerSkipConfig([0], fqn=sdxl.stack), 1.)])(sdxl.scheduler())
    for again in (lambda: made.set_state(1, 4, torch.tensor(300)), lambda: made.cleanup_models(sdxl.net)):
        made.set_state(0, 4, torch.tensor(500))
        for _ in range(3): made.prepare_models(sdxl.net)
        assert sdxl.attributes() != before
        again()
        assert sdxl.attributes() == before


# Scales

@pytest.mark.parametrize('rule', [LINEAR, apg()])
def test_a_scale_for_each_latent(tiny, rule):
    both = tiny(guider(rule, torch.tensor([1., 5.])))
    for i, s in enumerate((1., 5.)): assert gap(both[i], tiny(guider(rule, s))[i]) < 1e-5


SCALES = dict(constant=lambda sigma: 5., ramp=ramp(5.), step=lambda sigma: 5. if sigma > 1 else 1., interval=interval(5., .3, 4.), tensor=lambda sigma: torch.tensor(5.)/(1 + sigma))


@pytest.mark.parametrize('rule', [LINEAR, apg()])
@pytest.mark.parametrize('name', SCALES)
def test_a_scale_that_depends_on_the_noise(sdxl, sd3, rule, name):
    scale = SCALES[name]
    assert gap(sdxl(guider(rule, scale)), sdxl.by_hand(scale=scale, rule=rule)) < 1e-4
    if name == 'constant': assert torch.equal(sd3(guider(rule, scale)), sd3(guider(rule)))
    elif rule is LINEAR: assert gap(sd3(guider(rule, scale)), sd3.by_hand(scale=scale)) < 1e-4


@pytest.mark.parametrize('scale', [5., ramp(5.), torch.tensor([5., 2.])])
def test_an_interval_of_noise_levels(sdxl, scale):
    for span in ((.3, 4.), (0, 1.), (1., float('inf'))):
        assert gap(sdxl(guider(apg(), scale, interval=span)), sdxl.by_hand(scale=scale, rule=apg(), interval=span)) < 1e-4


def test_fractions_of_the_steps(tiny):
    for part in (dict(start=.5), dict(stop=.5), dict(start=.25, stop=.75), dict(start=.3, stop=.3)):
        assert gap(tiny(guider(**part)), tiny(cfg(**part))) < 1e-5


def test_no_question_without_use(sdxl):
    "Where the scale is 1 the negative prompt is not asked; nor after a rule has said that it guides no more."
    asked = []
    hook = sdxl.net.register_forward_pre_hook(lambda *_: asked.append(1))
    def stops(u, c, s, look):
        look.memory['done'] = torch.ones(2, dtype=torch.bool)
        return c
    counts = []
    for made in (guider(scale=1.), guider(scale=interval(5., .3, 4.)), guider(interval=(.3, 4.)), guider(Rule(stops)), guider(stop=.5), guider()):
        asked.clear()
        sdxl(made)
        counts.append(len(asked))
    hook.remove()
    assert counts == [4, 6, 6, 5, 6, 8]


def test_it_can_be_copied_shown_and_changed(sdxl):
    made = to_guider(apg(), 3., sdxl.scheduler())
    assert made.new(guidance_scale=5.).guidance_scale == 5. and 'guidance_scale' in repr(made)
    def change(scheduler):
        made = to_guider(LINEAR, 3., scheduler)
        made.guidance_scale = 5.
        return made
    assert torch.equal(sdxl(change), sdxl(guider()))
    assert gap(sdxl(lambda scheduler: to_guider(LINEAR, 3., scheduler).new(guidance_scale=5.)), sdxl(guider())) < 1e-6
    assert 'NaN' in repr(to_guider(LINEAR, ramp(3.), sdxl.scheduler()))


# Samples and memory

def test_a_sample_of_another_step_is_refused():
    scheduler, c, u, z = DDIMScheduler(), *(randn(2, 1, 8, 8, key=k) for k in (1, 2, 3))
    for rule in (apg(), LINEAR):
        made = to_guider(rule, 3., scheduler)
        made.set_state(0, 10, 500)
        made.see(z)
        made.forward(c, u)
        for step in (1, 2, 0):
            made.set_state(step, 10, 400)
            with pytest.raises(InputError, match="^latents: got 'those of another step or run'"): made.forward(c, u)
        made.see(z)
        made.forward(c, u)
    made = to_guider(apg(), 3., scheduler)
    made.see(z)
    made.set_state(0, 10, 500)
    with pytest.raises(InputError, match='another step'): made.forward(c, u)
    made.see(z[..., :4])
    with pytest.raises(InputError, match='latents: got'): made.forward(c, u)


def test_what_is_shown_by_hand_goes_first(sdxl):
    shown = []
    def make(scheduler):
        made = to_guider(Rule(lambda u, c, s, look: shown.append(look.x) or c), 3., scheduler)
        begin = made.set_state
        def set_state(*args, **kwargs):
            begin(*args, **kwargs)
            made.see(torch.full((2, 4, 8, 8), 7.))
        made.set_state = set_state
        return made
    sdxl(make)
    assert all(torch.equal(x, torch.full_like(x, 7.)) for x in shown) and len(shown) == 4


def counting(u, c, s, look):
    look.memory['n'] = look.memory.get('n', torch.zeros(())) + 1
    return c*0 + look.memory['n']


TWICE = {'Heun': (lambda: HeunDiscreteScheduler(**SD), [1, 2, 2, 3, 3, 4, 4]), 'KDPM2': (lambda: KDPM2DiscreteScheduler(**SD), [1, 2, 2, 3, 3, 4, 4]),
    'PNDM': (lambda: PNDMScheduler(**SD, skip_prk_steps=True), [1, 2, 2, 3, 4]),
    'PNDM, Runge and Kutta': (lambda: PNDMScheduler(**SD), [1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]),
    'Euler': (lambda: EulerDiscreteScheduler(**SD), [1, 2, 3, 4])}


@pytest.mark.parametrize('name', TWICE)
def test_samplers_that_look_twice(sdxl, name):
    "The first answer of a step is remembered, in every pass from the beginning, also after one that was interrupted."
    make, expected = TWICE[name]
    scheduler, counts = make(), []
    def count(u, c, s, look):
        counting(u, c, s, look)
        counts.append(int(look.memory['n']))
        if len(counts) == stop: raise KeyboardInterrupt
        return c
    made = to_guider(Rule(count, 'eps'), 3., scheduler)
    for stop in (None, 3, None):
        counts.clear()
        with contextlib.suppress(KeyboardInterrupt): sdxl(lambda _: made, scheduler)
        assert counts == expected[:stop]
    firsts = [i for i in range(len(expected)) if step_of(scheduler, i)[1]]
    assert [step_of(scheduler, i)[0] for i in firsts] == list(range(len(firsts)))


@pytest.mark.parametrize('rule', [LINEAR, apg(), RULES['momentum'].make()])
def test_heun(sdxl, rule):
    "A whole pass of the modular pipeline is ours. Their own guider stops half way: it counts questions as steps."
    ours = sdxl(guider(rule), HeunDiscreteScheduler(**SD), 5)
    assert gap(ours, sdxl.by_hand(heun_step, HeunDiscreteScheduler(**SD), 5, scale=5., rule=rule)) < 1e-4
    if rule is LINEAR:
        half = sdxl(guider(rule, stop=.4), HeunDiscreteScheduler(**SD), 5)
        assert gap(sdxl(cfg(), HeunDiscreteScheduler(**SD), 5), ours) > 1e-4 < gap(half, ours)


def test_flow_heun(sd3):
    counts = []
    def count(u, c, s, look):
        counts.append(int(counting(u, c, s, look).flatten()[0]))
        return c
    sd3(guider(Rule(count, 'flow')), FlowMatchHeunDiscreteScheduler(shift=3.))
    assert counts == [1, 2, 2, 3, 3, 4, 4]


def test_an_interval_is_decided_where_the_step_begins(sdxl):
    for span in ((.3, 2.), (1., 3.)):
        ours = sdxl(guider(apg(), interval=span), HeunDiscreteScheduler(**SD), 6)
        assert gap(ours, sdxl.by_hand(heun_step, HeunDiscreteScheduler(**SD), 6, scale=5., rule=apg(), interval=span)) < 1e-4


def test_two_guiders_of_one_pass():
    "Wan 2.2 has one for each half: the second one's first step is never 0, and its memory begins there all the same."
    made = to_guider(Rule(counting, 'eps'), 3., DDIMScheduler())
    c, u, counts = randn(1, 1, 4, 4), randn(1, 1, 4, 4, key=1), []
    for step in (5, 6, 7, 5, 6, 7, 7):
        made.set_state(step, 8, 500)
        counts.append(made.forward(c, u).pred.mean().item())
    assert counts == [1, 2, 3, 1, 2, 3, 1]


# Worse networks

PARTS = dict(block={}, attention=dict(skip_ff=False), feedforward=dict(skip_attention=False), scores=dict(skip_attention=False, skip_attention_scores=True, skip_ff=False),
    some=dict(dropout=.5), some_attention=dict(dropout=.5, skip_ff=False))


def part_of(tiny, name, layer=0): return LayerSkipConfig([layer], fqn=tiny.stack, **PARTS[name])


def seeded(f):
    "Dropout draws from the global generator."
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return f()


def their_term(tiny, name):
    if name == 'scores': return PerturbedAttentionGuidance(5., 2.8, 0., 1., perturbed_guidance_config=part_of(tiny, name))
    return SkipLayerGuidance(5., 2.8, 0., 1., skip_layer_config=part_of(tiny, name))


@pytest.mark.parametrize('name', PARTS)
def test_three_terms_are_theirs(sdxl, name):
    "PAG and SLG of diffusers, whose start is a step late: theirs from 0 is ours from a quarter of four steps."
    theirs = seeded(lambda: sdxl(lambda _: their_term(sdxl, name)))
    ours = seeded(lambda: sdxl(guider(terms=[Weaker(part_of(sdxl, name), 2.8, start=.25)])))
    assert gap(ours, theirs) < 1e-5 and gap(ours, sdxl(cfg())) > 1e-4


@pytest.mark.parametrize('name', ['block', 'some'])
def test_autoguidance_is_theirs(sdxl, name):
    "Theirs asks the worse network about the negative prompt."
    theirs = seeded(lambda: sdxl(lambda _: AutoGuidance(5., auto_guidance_config=part_of(sdxl, name))))
    ours = seeded(lambda: sdxl(guider(scale=1., terms=[Weaker(part_of(sdxl, name), 4., negative=True)])))
    assert gap(ours, theirs) < 1e-5


THEIR_FAULTS = dict(block=RuntimeError, attention=ValueError, scores=ValueError, some=TypeError, some_attention=ValueError)


@pytest.mark.parametrize('name', PARTS)
def test_three_terms_on_stable_diffusion_3(sd3, name):
    "Where theirs fail, in 0.42.1 all but the skipped feed-forward network, ours run."
    ours = seeded(lambda: sd3(guider(terms=[Weaker(part_of(sd3, name), 2.8, start=.25)])))
    assert ours.isfinite().all() and gap(ours, sd3(cfg())) > 1e-3
    if name not in THEIR_FAULTS: assert gap(ours, sd3(lambda _: their_term(sd3, name))) < 1e-5


def net_without(tiny, layer):
    "The transformer without one of its blocks, by surgery."
    net = transformer()
    del net.transformer_blocks[layer]
    return net


def net_apart(tiny, layer):
    "The transformer with diffusers' own processor for PAG, which damages the second half of its batch."
    net = transformer()
    attention, process = net.transformer_blocks[layer].attn, PAGJointAttnProcessor2_0()
    class Half:
        def __call__(self, attn, hidden_states, encoder_hidden_states, **unused):
            both = process(attn, torch.cat([hidden_states]*2), torch.cat([encoder_hidden_states]*2))
            return tuple(o.chunk(2)[1] for o in both)
    attention.processor = Half()
    return net


@pytest.mark.parametrize('rule', [LINEAR, apg()])
@pytest.mark.parametrize('layer', [0, 1])
@pytest.mark.parametrize('name,make', [('block', net_without), ('scores', net_apart)])
def test_what_is_skipped(sd3, name, make, layer, rule):
    "A skipped block is as if it were not there, and perturbed attention is that of its authors: no image token sees another."
    other = make(sd3, layer)
    ours = sd3(guider(rule, terms=[(part_of(sd3, name, layer), 2.)]))
    assert gap(ours, sd3(guider(rule, terms=[(other, 2.)]))) < 1e-5
    assert gap(ours, sd3.by_hand(scale=5., rule=rule, damaged=[(other, 2.)])) < 1e-4


def test_formula_of_three_terms():
    "D_c + (s - 1)(D_c - D_u) + w (D_c - D_weaker), for several of them, and each with its own w."
    c, u, one, two = (randn(2, 1, 8, 8, key=k) for k in range(4))
    config = LayerSkipConfig([0])
    made = to_guider(LINEAR, 3., DDIMScheduler(), terms=[(config, .5), Weaker(config, torch.tensor([0., 2.]), stop=.5), Weaker(config, lambda sigma: 0.)])
    made.set_state(0, 10, 500)
    given = {question.name: p for question, p in zip(made.questions[1:], (one, two))}
    pred = made.forward(c, u, **given).pred
    w = torch.tensor([0., 2.]).reshape(2, 1, 1, 1)
    assert gap(pred, c + 2*(c - u) + .5*(c - one) + w*(c - two)) < 1e-5
    made.set_state(5, 10, 300)
    assert len(made.questions) == 2
    with pytest.raises(InputError, match='^pred_weaker_0: got None'): made.forward(c, u)


def test_any_damage(tiny):
    "A function that makes a context of the network, as of chapter 41a; and layers by diffusers' own automatic choice."
    @contextlib.contextmanager
    def louder(net):
        ask = net.forward
        net.forward = lambda *args, **kwargs: tuple(1.5*o for o in ask(*args, **kwargs))
        try: yield
        finally: del net.forward
    by_damage = tiny(guider(terms=[(louder, 1.)]))
    c_only = tiny(guider(scale=1., terms=[(louder, 1.)])) # c + (c - 1.5 c)
    assert gap(by_damage, tiny(cfg())) > 1e-2 and gap(c_only, tiny(cfg(1.))) > 1e-2
    if not tiny.xl: assert torch.equal(tiny(guider(terms=[(LayerSkipConfig(0), 1.)])), tiny(guider(terms=[(part_of(tiny, 'block'), 1.)])))


BAD = {
    'term: got 3': lambda s: to_guider(LINEAR, 3., s, terms=[3]),
    'term: got (1,)': lambda s: to_guider(LINEAR, 3., s, terms=[(1,)]),
    'damage: got 1': lambda s: to_guider(LINEAR, 3., s, terms=[(1, 2.)]),
    'damage: got []': lambda s: to_guider(LINEAR, 3., s, terms=[([], 2.)]),
    'strength: got nan': lambda s: to_guider(LINEAR, 3., s, terms=[(LayerSkipConfig([0]), float('nan'))]),
    'start, stop: got (0.5, 0.2)': lambda s: to_guider(LINEAR, 3., s, terms=[(LayerSkipConfig([0]), 1., .5, .2)]),
    'scale: got inf': lambda s: to_guider(LINEAR, float('inf'), s),
    'scale: got [1.0, inf]': lambda s: to_guider(LINEAR, torch.tensor([1., float('inf')]), s),
    "interval: got 'all'": lambda s: to_guider(LINEAR, 3., s, interval='all'),
    'interval: got (nan, 1.0)': lambda s: to_guider(LINEAR, 3., s, interval=(float('nan'), 1.)),
    "scheduler: got 'int'": lambda s: to_guider(LINEAR, 3., 5),
}


@pytest.mark.parametrize('message', BAD)
def test_one_line_that_says_what_to_do(message):
    with pytest.raises(InputError) as e: BAD[message](DDIMScheduler())
    assert str(e.value).startswith(message) and 'allowed' in str(e.value) and '\n' not in str(e.value)


def test_damage_that_the_network_cannot_bear(sdxl, sd3):
    "Named in one line before the worse network is asked, and everything is as it was."
    cases = [(sdxl, LayerSkipConfig([0]), 'fqn of LayerSkipConfig.*mid_block.attentions.0.transformer_blocks'), (sd3, LayerSkipConfig([9]), 'LayerSkipConfig: got transformer_blocks, .9.'),
        (sd3, LayerSkipConfig([0], fqn='nowhere'), 'LayerSkipConfig: got nowhere'), (sd3, lambda net: net, "damage: got 'SD3Transformer2DModel'")]
    for tiny, damage, message in cases:
        before = tiny.attributes()
        with pytest.raises(InputError, match=message): tiny(guider(terms=[(damage, 1.)]))
        assert tiny.attributes() == before


def test_wan():
    "A third family, of videos, which hands its embeddings over in another way, and whose attention theirs cannot skip."
    torch.manual_seed(2)
    net = lively(WanTransformer3DModel(patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16, text_dim=16, freq_dim=32, ffn_dim=32, num_layers=2,
        cross_attn_norm=True, qk_norm='rms_norm_across_heads', rope_max_seq_len=32))
    pipe = blocks('wan', 'WanBlocks').sub_blocks['denoise'].init_pipeline()
    pipe.set_progress_bar_config(disable=True)
    def video(make):
        scheduler = UniPCMultistepScheduler(prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=3.)
        pipe.update_components(transformer=net, scheduler=scheduler, guider=make(scheduler))
        return pipe(prompt_embeds=randn(2, 7, 16, key=1), negative_prompt_embeds=randn(2, 7, 16, key=2), num_inference_steps=4, generator=rng(4), height=16, width=16, num_frames=5, output='latents')
    theirs = video(cfg())
    for rule in (LINEAR, ON_IMAGES): assert gap(video(guider(rule)), theirs) < 1e-5
    def skipped(name, make=None):
        term = LayerSkipConfig([0], fqn='blocks', **PARTS[name])
        return video(make(term) if make else guider(terms=[Weaker(term, 2.8, start=.25)]))
    slg = skipped('block', lambda term: lambda _: SkipLayerGuidance(5., 2.8, 0., 1., skip_layer_config=term))
    assert gap(skipped('block'), slg) < 1e-5
    with pytest.raises(ValueError, match='not registered'): skipped('attention', lambda term: lambda _: SkipLayerGuidance(5., 2.8, 0., 1., skip_layer_config=term))
    @contextlib.contextmanager
    def blind(net):
        net.blocks[0].attn1.forward = lambda hidden_states, *unused: hidden_states
        try: yield
        finally: del net.blocks[0].attn1.forward
    assert gap(skipped('attention'), video(guider(terms=[Weaker(blind, 2.8, start=.25)]))) < 1e-5
    assert gap(skipped('scores'), theirs) > 1e-3 < gap(skipped('scores'), skipped('attention'))


# Their models

def small_net(**options):
    torch.manual_seed(0)
    return lively(UNet2DModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, down_block_types=('DownBlock2D', 'DownBlock2D'), up_block_types=('UpBlock2D', 'UpBlock2D'), **options))


def test_what_a_model_says_about_itself():
    grey, latent = small_net(in_channels=1, out_channels=1, num_class_embeds=5), small_net(in_channels=4, out_channels=4, num_class_embeds=11)
    dit = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8, norm_num_groups=4, num_embeds_ada_norm=1000)
    s = DDIMScheduler()
    def facts(denoise): return denoise.classes, denoise.latents
    assert facts(from_diffusers(grey, s, null=4)) == (4, None)
    assert facts(from_diffusers(latent, s, null=0)) == (11, True)
    assert facts(from_diffusers(latent, s, null=10, latents=False, classes=7)) == (7, False)
    assert facts(from_diffusers(dit, s, null=1000)) == (1000, True)
    assert facts(from_diffusers(lambda *_: None, s, null=0)) == (None, None)
    assert all(from_diffusers(net, s, null=4).net is net for net in (grey, latent, dit))
    for bad in (dict(null=-1), dict(null=None), dict(null=4, classes=0)):
        with pytest.raises(InputError): from_diffusers(grey, s, **bad)


def test_the_negative_prompt_of_exercise_2():
    "`negative` with another row number, `icg` and the labels of `sample` know how many prompts there are."
    torch.manual_seed(0)
    speaker = lively(UNet2DConditionModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, cross_attention_dim=8, attention_head_dim=4,
        down_block_types=('CrossAttnDownBlock2D', 'DownBlock2D'), up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D')))
    scheduler, prompts = DDIMScheduler(clip_sample=False), randn(4, 6, 8, key=5)
    spoken = from_diffusers(speaker, scheduler, null=3, ask=lambda model, z, t, y: model(z, t, encoder_hidden_states=prompts[y]).sample)
    x, y = 3*randn(2, 1, 8, 8), torch.tensor([0, 1])
    guided = guide(spoken, scale=7.5, weak=make_method(WEAK, 'negative', spoken, label=2))
    D_u, D_c = spoken(x, 1., torch.tensor([2, 2])), spoken(x, 1., y)
    assert gap(guided(x, 1., y), D_u + 7.5*(D_c - D_u)) < 1e-4 and gap(D_u, D_c) > 1e-3
    with Run().next_step(): assert guide(spoken, scale=2., weak=make_method(WEAK, 'icg', spoken))(x, 1., y).isfinite().all()
    with pytest.raises(InputError, match='label: got 3'): make_method(WEAK, 'negative', spoken, label=3)
    with pytest.raises(InputError, match='label: got 3'): sample(spoken, torch.tensor([3]), (1, 8, 8))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_another_precision(dtype):
    "Noise in float32 outside, the network in its own type inside, and the other way round."
    net = small_net(in_channels=1, out_channels=1, num_class_embeds=5)
    x, y, scheduler = 3*randn(2, 1, 8, 8), torch.tensor([0, NULL]), DDIMScheduler()
    full = from_diffusers(net, scheduler, null=4)(x, 1., y)
    other = small_net(in_channels=1, out_channels=1, num_class_embeds=5).to(dtype)
    ours = from_diffusers(other, scheduler, null=4)(x, 1., y)
    assert ours.dtype == torch.float32 and gap(ours, full) < .05
    assert from_diffusers(net, scheduler, null=4)(x.double(), 1., y).dtype == torch.float64


# What a scheduler means

NAMES = [name for name in dir(diffusers) if name.endswith('Scheduler') and inspect.isclass(getattr(diffusers, name))]
OPTIONS = [{}, *(dict(num_train_timesteps=n) for n in (50, 1500, 4000)), dict(rescale_betas_zero_snr=True, timestep_spacing='trailing'), dict(rescale_betas_zero_snr=True, timestep_spacing='trailing', prediction_type='v_prediction'),
    dict(rescale_betas_zero_snr=True, num_train_timesteps=3000), dict(SD, rescale_betas_zero_snr=True), dict(use_flow_sigmas=True, prediction_type='flow_prediction'), dict(use_flow_sigmas=True, prediction_type='flow_prediction', flow_shift=3., num_train_timesteps=500),
    dict(use_karras_sigmas=True), dict(use_exponential_sigmas=True), dict(beta_schedule='squaredcos_cap_v2'), dict(shift=3.), dict(prediction_type='sample'), dict(snr_shift_scale=1.), dict(timestep_spacing='linspace')]


def made_schedulers(name):
    "All that can be made of a name and the options that it knows, and that speak a language of ours."
    make = getattr(diffusers, name)
    known = inspect.signature(make.__init__).parameters
    for options in OPTIONS:
        if not options.keys() <= known.keys(): continue
        if name.startswith('KDPM2') and options not in OPTIONS[:2]: continue # theirs take seconds to make
        options = options | ({'clip_sample': False} if 'clip_sample' in known else {})
        with contextlib.suppress(TypeError, ImportError, ValueError, InputError, NotImplementedError):
            scheduler = make(**options)
            yield scheduler, describe(scheduler)


def their_image(scheduler, out, t, z):
    "What a scheduler itself takes for the clean image, where it says that."
    name, told = type(scheduler).__name__, inspect.signature(scheduler.step).parameters
    image = None
    if hasattr(scheduler, 'convert_model_output') and not name.startswith('DEIS') and 'Inverse' not in name:
        if getattr(scheduler, 'step_index', None) is None: scheduler._init_step_index(t)
        image = scheduler.convert_model_output(out, sample=z)
    step = scheduler.step(out, t, z, **(dict(generator=rng(0)) if 'generator' in told else {}))
    return getattr(step, 'pred_original_sample', None) if image is None else image


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', NAMES)
def test_every_scheduler(name):
    """Timesteps, whole or not, and noise levels are each other's inverse, to the thousandth to which they are rounded;
    levels rise; and where the scheduler says what it takes for the clean image, it is that of our coordinates."""
    for scheduler, (kind, coords, table) in made_schedulers(name):
        steps = scheduler.config.num_train_timesteps
        t = torch.rand(300, generator=rng(7), dtype=torch.float64)*(steps - 1)
        if table is None: t = t.clamp(min=1e-3*steps)
        sigma = step_to_sigma(t, table, steps)
        assert (sigma_to_step(sigma, table, steps) - t).abs().max() < 1.1e-3, scheduler.config
        levels = step_to_sigma(torch.arange(1, steps), table, steps)
        assert (levels[1:] > levels[:-1]).all() and levels.isfinite().all()
        assert step_to_sigma(torch.tensor([steps + 0.]), table, steps).isfinite().all()
        if name in ('DDIMInverseScheduler', 'CogVideoXDPMScheduler'): continue # one looks back, the other at two steps
        agrees(scheduler, kind)


def agrees(scheduler, kind):
    try: scheduler.set_timesteps(5)
    except ValueError: return
    pipe = pipeline_of(scheduler)
    for i, t in enumerate(scheduler.timesteps):
        z, out = (randn(2, 1, 4, 4, key=k).double() for k in (2*i, 2*i + 1))
        if not torch.as_tensor(t).isfinite(): return # KDPM2, ancestral, with the cosine schedule
        sigma = sigma_at(pipe, t, i)
        try: theirs = their_image(scheduler, out, t, z)
        except (NotImplementedError, ValueError): return # no such kind of prediction
        if theirs is not None and theirs.isfinite().all():
            assert gap(TO_X0[kind](out, z_to_x(z, sigma, pipe.latents), sigma), theirs) < 1e-5, (scheduler.config, i)


def test_schedulers_are_swept():
    "The sweep meets most of the library."
    described = [name for name in NAMES if next(made_schedulers(name), None)]
    assert len(described) >= 24 and {'SASolverScheduler', 'DEISMultistepScheduler', 'DPMSolverSinglestepScheduler', 'FlowMatchLCMScheduler', 'UnCLIPScheduler'} <= set(described)


@pytest.mark.parametrize('name', ['UniPCMultistepScheduler', 'DPMSolverMultistepScheduler', 'DPMSolverSinglestepScheduler', 'DEISMultistepScheduler', 'SASolverScheduler'])
def test_flows_that_are_not_called_so(name):
    make = getattr(diffusers, name)
    assert describe(make(use_flow_sigmas=True, prediction_type='flow_prediction', flow_shift=3.))[:2] == ('flow', 'rf')
    with pytest.raises(InputError, match='use_flow_sigmas=True'): describe(make(prediction_type='flow_prediction'))


def test_no_timestep():
    for bad in (float('nan'), float('inf')):
        with pytest.raises(InputError, match='timestep: got'): step_to_sigma(torch.tensor(bad), None)
    with pytest.raises(InputError, match='alphas_cumprod: got 1'): describe(DDIMScheduler(num_train_timesteps=1))


# From the words on

def test_all_blocks():
    "Tokens, text encoders and all; twice, with an interval of steps, after which their own guider forgets the negative prompt."
    transformers = pytest.importorskip('transformers')
    letters = {'<|startoftext|>': 0, '<|endoftext|>': 1}
    for c in 'abcdefghijklmnopqrstuvwxyz': letters |= {c: len(letters), c + '</w>': len(letters) + 1}
    tokens = transformers.CLIPTokenizer(vocab=letters, merges=[], model_max_length=77)
    config = transformers.CLIPTextConfig(bos_token_id=0, eos_token_id=1, pad_token_id=1, hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=2, vocab_size=80, projection_dim=32)
    torch.manual_seed(0)
    texts = [transformers.CLIPTextModel(config).eval(), transformers.CLIPTextModelWithProjection(config).eval()]
    tiny = Tiny('sdxl')
    pipe = blocks('stable_diffusion_xl', 'StableDiffusionXLAutoBlocks').init_pipeline()
    pipe.update_components(unet=tiny.net, vae=tiny.pipe.vae, tokenizer=tokens, tokenizer_2=tokens, text_encoder=texts[0], text_encoder_2=texts[1], force_zeros_for_empty_prompt=False)
    pipe.set_progress_bar_config(disable=True)
    def images(make, times=2):
        scheduler = tiny.scheduler()
        pipe.update_components(scheduler=scheduler, guider=make(scheduler))
        return [pipe(prompt=['a cat', 'a dog'], negative_prompt=['blur']*2, height=16, width=16, num_inference_steps=4, generator=rng(1), output_type='pt', output='images') for _ in range(times)]
    (theirs,), (ours, again) = images(cfg(stop=.5), 1), images(guider(stop=.5))
    assert gap(ours, theirs) < 1e-4 and torch.equal(ours, again)
    first, second = images(guider(apg(), ramp(5.)))
    assert first.isfinite().all() and torch.equal(first, second) and gap(first, ours) > 1e-3
