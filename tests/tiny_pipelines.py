"""Tiny pipelines of many families with random weights, made from configurations: nothing is downloaded.

`FAMILIES` says how each is made and called. Random weights of a trained model's size make the prompt matter, so that a
row that is mixed up, a forgotten condition or a wrong noise level changes what comes out.
"""
from __future__ import annotations

import contextlib, logging, warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

LETTERS = 'abcdefghijklmnopqrstuvwxyz'


@contextlib.contextmanager
def hushed():
    "Without the warnings of libraries that are asked for something unusual."
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally: logging.disable(before)


with hushed():
    import diffusers as d
    import transformers as t


# Words

def clip_tokenizer():
    words = ['<|startoftext|>', '<|endoftext|>', *(letter + end for letter in LETTERS for end in ('', '</w>'))]
    return t.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def t5_words(): return [('<pad>', 0.), ('</s>', 0.), ('<unk>', 0.), ('▁', -2.), *((letter, -3.) for letter in LETTERS)]


def t5_tokenizer(): return t.T5Tokenizer(vocab=t5_words(), extra_ids=0)


class Chatty(t.T5Tokenizer):
    "A tokenizer that knows of conversations."
    def apply_chat_template(self, messages, **_): return messages[0]['content']


# Networks

def seeded(seed, make, *args, **kwargs):
    "A module whose weights depend on a seed alone; the global random state stays as it was."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return lively(make(*args, **kwargs), seed)


@torch.no_grad()
def lively(net:nn.Module, seed:int)->nn.Module:
    "Weights of a trained network's size where they begin at zero or nearly so."
    g = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        if p.ndim > 1 and p.abs().max() < .1: p.copy_(torch.randn(p.shape, generator=g)/max(p[0].numel(), 1)**.5)
    return net.eval()


def clip(seed=0, projected=False, act='quick_gelu'):
    config = t.CLIPTextConfig(
        bos_token_id=0, eos_token_id=1, pad_token_id=1, hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=3,
        vocab_size=80, projection_dim=32, hidden_act=act)
    return seeded(seed, t.CLIPTextModelWithProjection if projected else t.CLIPTextModel, config)


def t5(): return seeded(5, t.T5EncoderModel, t.T5Config(vocab_size=40, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4))


def gemma():
    config = t.Gemma2Config(
        vocab_size=40, head_dim=4, hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=2, num_key_value_heads=2, sliding_window=2,
        attn_implementation='eager')
    return seeded(6, t.Gemma2Model, config)


def vae(channels=4, **kwargs):
    return seeded(1, d.AutoencoderKL, block_out_channels=[32, 64], in_channels=3, out_channels=3, down_block_types=['DownEncoderBlock2D']*2,
        up_block_types=['UpDecoderBlock2D']*2, latent_channels=channels, **kwargs)


SHIFTED = dict(shift_factor=.06, scaling_factor=1.5)


def unet(cross=32, **kwargs):
    net = dict(block_out_channels=(32, 64), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4, cross_attention_dim=cross,
        down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'), up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'))
    return seeded(2, d.UNet2DConditionModel, **{**net, **kwargs})


SIZED = dict(addition_embed_type='text_time', addition_time_embed_dim=8, projection_class_embeddings_input_dim=80,
    attention_head_dim=(2, 4), use_linear_projection=True, transformer_layers_per_block=(1, 2))

ADALN = dict(sample_size=8, patch_size=2, attention_head_dim=8, in_channels=4, out_channels=8, attention_bias=True,
    activation_fn='gelu-approximate', num_embeds_ada_norm=1000, norm_elementwise_affine=False)

UNCHECKED = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)


# Pipelines

def sd_parts(scheduler, **net): return dict(unet=unet(**net), scheduler=scheduler, vae=vae(), text_encoder=clip(), tokenizer=clip_tokenizer(), **UNCHECKED)


def sd(scheduler, **net): return d.StableDiffusionPipeline(**sd_parts(scheduler, **net))


def sd_img2img(scheduler): return d.StableDiffusionImg2ImgPipeline(**sd_parts(scheduler))


def sd_inpaint(scheduler): return d.StableDiffusionInpaintPipeline(**sd_parts(scheduler, in_channels=9))


def sd_control(scheduler):
    parts = sd_parts(scheduler)
    net = seeded(2, d.ControlNetModel.from_unet, parts['unet'], conditioning_channels=3, conditioning_embedding_out_channels=(16, 32))
    return d.StableDiffusionControlNetPipeline(controlnet=net, **parts)


def sdxl(scheduler):
    return d.StableDiffusionXLPipeline(unet=unet(64, **SIZED), scheduler=scheduler, vae=vae(), text_encoder=clip(), tokenizer=clip_tokenizer(),
        text_encoder_2=clip(7, True, 'gelu'), tokenizer_2=clip_tokenizer(), force_zeros_for_empty_prompt=True)


def sd3(scheduler):
    net = seeded(2, d.SD3Transformer2DModel, sample_size=16, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=32, pooled_projection_dim=64, out_channels=4)
    return d.StableDiffusion3Pipeline(transformer=net, scheduler=scheduler, vae=vae(**SHIFTED), text_encoder=clip(0, True), tokenizer=clip_tokenizer(),
        text_encoder_2=clip(7, True), tokenizer_2=clip_tokenizer(), text_encoder_3=t5(), tokenizer_3=t5_tokenizer())


SINGLE_STREAM = dict(patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
    joint_attention_dim=32, axes_dims_rope=[4, 4, 8])


def flux(scheduler, embeds=True):
    net = seeded(2, d.FluxTransformer2DModel, pooled_projection_dim=32, guidance_embeds=embeds, **SINGLE_STREAM)
    return d.FluxPipeline(transformer=net, scheduler=scheduler, vae=vae(1, **SHIFTED), text_encoder=clip(), tokenizer=clip_tokenizer(),
        text_encoder_2=t5(), tokenizer_2=t5_tokenizer())


def chroma(scheduler):
    net = seeded(2, d.ChromaTransformer2DModel, approximator_hidden_dim=32, approximator_layers=1, approximator_num_channels=16, **SINGLE_STREAM)
    return d.ChromaPipeline(transformer=net, scheduler=scheduler, vae=vae(1, **SHIFTED), text_encoder=t5(), tokenizer=t5_tokenizer())


def wan_net():
    return seeded(2, d.WanTransformer3DModel, patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32, freq_dim=256, ffn_dim=32, num_layers=2, cross_attn_norm=True, qk_norm='rms_norm_across_heads', rope_max_seq_len=32)


def wan(scheduler, **more):
    own = seeded(1, d.AutoencoderKLWan, base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True])
    return d.WanPipeline(transformer=wan_net(), scheduler=scheduler, vae=own, text_encoder=t5(), tokenizer=t5_tokenizer(), **more)


def wan22(scheduler): return wan(scheduler, transformer_2=wan_net(), boundary_ratio=.9)


def cogvideo(scheduler):
    net = seeded(2, d.CogVideoXTransformer3DModel, num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=32, num_layers=1, sample_width=2, sample_height=2, sample_frames=9, patch_size=2, temporal_compression_ratio=4, max_text_seq_length=16)
    own = seeded(1, d.AutoencoderKLCogVideoX, in_channels=3, out_channels=3, down_block_types=('CogVideoXDownBlock3D',)*4,
        up_block_types=('CogVideoXUpBlock3D',)*4, block_out_channels=(8,)*4, latent_channels=4, layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4)
    return d.CogVideoXPipeline(transformer=net, scheduler=scheduler, vae=own, text_encoder=t5(), tokenizer=t5_tokenizer())


def sana(scheduler):
    net = seeded(2, d.SanaTransformer2DModel, patch_size=1, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8, sample_size=32)
    own = seeded(1, d.AutoencoderDC, in_channels=3, latent_channels=4, attention_head_dim=2, encoder_block_types=('ResBlock', 'EfficientViTBlock'),
        decoder_block_types=('ResBlock', 'EfficientViTBlock'), encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)), encoder_layers_per_block=(1, 1), decoder_layers_per_block=[1, 1],
        downsample_block_type='conv', upsample_block_type='interpolate', decoder_norm_types='rms_norm', decoder_act_fns='silu', scaling_factor=.41)
    return d.SanaPipeline(transformer=net, scheduler=scheduler, vae=own, text_encoder=gemma(), tokenizer=t5_tokenizer())


def lumina(scheduler):
    net = seeded(2, d.Lumina2Transformer2DModel, sample_size=4, patch_size=2, in_channels=4, hidden_size=8, num_layers=2, num_attention_heads=1,
        num_kv_heads=1, multiple_of=16, axes_dim_rope=[4, 2, 2], cap_feat_dim=8)
    return d.Lumina2Pipeline(transformer=net, scheduler=scheduler, vae=vae(**SHIFTED), text_encoder=gemma(), tokenizer=t5_tokenizer())


def pixart(scheduler):
    net = seeded(2, d.PixArtTransformer2DModel, num_layers=2, num_attention_heads=3, caption_channels=32, cross_attention_dim=24,
        norm_type='ada_norm_single', norm_eps=1e-6, **ADALN)
    return d.PixArtAlphaPipeline(transformer=net, scheduler=scheduler, vae=vae(), text_encoder=t5(), tokenizer=t5_tokenizer())


def latte(scheduler):
    net = seeded(2, d.LatteTransformer3DModel, video_length=2, num_layers=1, num_attention_heads=3, caption_channels=32, cross_attention_dim=24,
        norm_type='ada_norm_single', norm_eps=1e-6, **ADALN)
    return d.LattePipeline(transformer=net, scheduler=scheduler, vae=vae(), text_encoder=t5(), tokenizer=t5_tokenizer())


def dit(scheduler, **size):
    net = seeded(2, d.DiTTransformer2DModel, **{**ADALN, **dict(num_layers=2, num_attention_heads=2, norm_type='ada_norm_zero'), **size})
    return d.DiTPipeline(transformer=net, scheduler=scheduler, vae=vae())


def auraflow(scheduler):
    net = seeded(2, d.AuraFlowTransformer2DModel, sample_size=32, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
        attention_head_dim=8, num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=32, out_channels=4, pos_embed_max_size=256)
    return d.AuraFlowPipeline(transformer=net, scheduler=scheduler, vae=vae(), text_encoder=t5(), tokenizer=t5_tokenizer())


def zimage(scheduler):
    net = seeded(2, d.ZImageTransformer2DModel, in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[8, 4, 4], axes_lens=[256, 32, 32])
    text = seeded(3, t.Qwen3Model, t.Qwen3Config(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, vocab_size=40, head_dim=8))
    return d.ZImagePipeline(transformer=net, scheduler=scheduler, vae=vae(**SHIFTED), text_encoder=text, tokenizer=Chatty(vocab=t5_words(), extra_ids=0))


def deepfloyd(scheduler):
    net = seeded(2, d.UNet2DConditionModel, sample_size=16, layers_per_block=1, block_out_channels=[32, 64], in_channels=3, out_channels=6,
        down_block_types=['ResnetDownsampleBlock2D', 'SimpleCrossAttnDownBlock2D'], mid_block_type='UNetMidBlock2DSimpleCrossAttn',
        up_block_types=['SimpleCrossAttnUpBlock2D', 'ResnetUpsampleBlock2D'], cross_attention_dim=32, encoder_hid_dim=32, attention_head_dim=8,
        addition_embed_type='text', addition_embed_type_num_heads=2, cross_attention_norm='group_norm', resnet_time_scale_shift='scale_shift', act_fn='gelu')
    return d.IFPipeline(unet=net, text_encoder=t5(), tokenizer=t5_tokenizer(), scheduler=scheduler, watermarker=None, **UNCHECKED)


def class_unet(**net):
    own = dict(sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, num_class_embeds=9,
        down_block_types=('DownBlock2D', 'AttnDownBlock2D'), up_block_types=('AttnUpBlock2D', 'UpBlock2D'), attention_head_dim=4)
    return seeded(2, d.UNet2DModel, **{**own, **net})


# Schedulers

SD = dict(beta_start=.00085, beta_end=.012, beta_schedule='scaled_linear')
LINEAR = dict(beta_schedule='linear')
LOST = dict(prediction_type='v_prediction', rescale_betas_zero_snr=True, timestep_spacing='trailing')


def diffusions(betas:dict)->dict[str, Callable]:
    "Schedulers that keep the variance, by name."
    return {
        'DDIM': partial(d.DDIMScheduler, **betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        'DDIM, v, zero SNR': partial(d.DDIMScheduler, **betas, clip_sample=False, **LOST),
        'Euler': partial(d.EulerDiscreteScheduler, **betas, steps_offset=1),
        'Euler Karras': partial(d.EulerDiscreteScheduler, **betas, use_karras_sigmas=True),
        'Euler ancestral': partial(d.EulerAncestralDiscreteScheduler, **betas),
        'DPM++ 2M': partial(d.DPMSolverMultistepScheduler, **betas),
        'DPM++ 2M Karras': partial(d.DPMSolverMultistepScheduler, **betas, use_karras_sigmas=True),
        'UniPC': partial(d.UniPCMultistepScheduler, **betas),
        'PNDM': partial(d.PNDMScheduler, **betas, skip_prk_steps=True, steps_offset=1),
        'PNDM, Runge-Kutta': partial(d.PNDMScheduler, **betas, skip_prk_steps=False, steps_offset=1),
        'Heun': partial(d.HeunDiscreteScheduler, **betas),
        'KDPM2': partial(d.KDPM2DiscreteScheduler, **betas)}


def flows(shift:float, **more)->dict[str, Callable]:
    "Schedulers of flow matching, by name."
    named = dict(prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=shift)
    return {
        'flow Euler': partial(d.FlowMatchEulerDiscreteScheduler, shift=shift, **more),
        'flow Heun': partial(d.FlowMatchHeunDiscreteScheduler, shift=shift),
        'flow UniPC': partial(d.UniPCMultistepScheduler, **named),
        'flow DPM++ 2M': partial(d.DPMSolverMultistepScheduler, **named)}


def some(schedulers:dict, *names)->dict: return {name: schedulers[name] for name in names}


COG = {
    'CogVideoX DDIM': partial(d.CogVideoXDDIMScheduler, **LOST),
    'CogVideoX DPM': partial(d.CogVideoXDPMScheduler, **LOST)}


# How each is called

@dataclass
class Family:
    "A kind of pipeline: how it is made, and how the tiny one is called."
    make:Callable # scheduler -> pipeline
    schedulers:dict[str, Callable] # name -> makes one; the first is the usual one
    call:dict[str, Any] = field(default_factory=dict) # options of every call
    own:dict[str, Any] = field(default_factory=dict) # options of a call with its own guidance
    prompts:tuple = ('a cat', 'a dog')
    negative:str|None = 'blurry'
    scale:str = 'guidance_scale' # its name for the strength of guidance

    def pipe(self, scheduler:str|None=None, dtype:torch.dtype=torch.float32, **kwargs):
        "A tiny pipeline, without progress bar."
        made = self.schedulers[scheduler or next(iter(self.schedulers))]()
        with hushed(): pipe = self.make(made, **kwargs).to(dtype)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def word(self): return 'prompt' if isinstance(self.prompts[0], str) else 'class_labels'

    def ask(self, scale:float, steps:int, **more)->dict[str, Any]:
        "The words of a call with its own guidance."
        negative = {} if self.negative is None else dict(negative_prompt=[self.negative]*len(self.prompts))
        return {self.word: list(self.prompts), 'num_inference_steps': steps, **self.call, **negative, **self.own, self.scale: scale, **more}


SMALL, LONG = dict(height=16, width=16), dict(max_sequence_length=16)

FAMILIES = {
    'SD 1.5': Family(sd, diffusions(SD), SMALL),
    'SDXL': Family(sdxl, diffusions(SD), SMALL),
    'SD3': Family(sd3, some(flows(3.), 'flow Euler', 'flow Heun'), SMALL),
    'Flux': Family(flux, some(flows(3., use_dynamic_shifting=True), 'flow Euler'), dict(height=8, width=8, max_sequence_length=48), scale='true_cfg_scale'),
    'Chroma': Family(chroma, some(flows(3.), 'flow Euler'), dict(height=8, width=8, **LONG)),
    'Wan': Family(wan, some(flows(3.), 'flow UniPC', 'flow Euler', 'flow DPM++ 2M'), dict(**SMALL, num_frames=9, **LONG)),
    'CogVideoX': Family(cogvideo, COG, dict(**SMALL, num_frames=8, **LONG)),
    'Sana': Family(sana, some(flows(3.), 'flow DPM++ 2M', 'flow Euler', 'flow UniPC'), dict(height=32, width=32, **LONG, use_resolution_binning=False, complex_human_instruction=None)),
    'Lumina 2': Family(lumina, some(flows(1.), 'flow Euler'), dict(height=32, width=32, max_sequence_length=256), dict(cfg_normalization=False, cfg_trunc_ratio=1.)),
    'PixArt': Family(pixart, diffusions(LINEAR), dict(**SMALL, use_resolution_binning=False, clean_caption=False)),
    'Latte': Family(latte, diffusions(LINEAR), dict(**SMALL, video_length=2, clean_caption=False)),
    'DiT': Family(dit, some(diffusions(LINEAR), 'DDIM', 'DPM++ 2M', 'PNDM', 'UniPC'), prompts=(3, 7), negative=None),
    'AuraFlow': Family(auraflow, some(flows(1.73), 'flow Euler'), dict(**SMALL, **LONG)),
}

PICTURE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))

IMG2IMG = Family(sd_img2img, diffusions(SD), dict(image=PICTURE, strength=.6))

OTHERS = { # that are refused
    'Z-Image': Family(zimage, flows(3.), dict(**SMALL, **LONG)),
    'Wan 2.2': Family(wan22, flows(3.), dict(**SMALL, num_frames=9, **LONG)),
    'DeepFloyd': Family(deepfloyd, {'DDPM': partial(d.DDPMScheduler, variance_type='learned_range')}, dict(**SMALL, clean_caption=False)),
    'inpainting': Family(sd_inpaint, diffusions(SD), dict(**SMALL, image=PICTURE, mask_image=torch.ones(1, 1, 16, 16))),
    'ControlNet': Family(sd_control, diffusions(SD), dict(image=PICTURE)),
    'EDM': Family(sd, {'EDM': d.EDMEulerScheduler}, SMALL)}


# What they do

@contextlib.contextmanager
def watched(thing:Any, name:str, seen:Callable):
    "Show what a method is given and what it gives."
    old = getattr(thing, name)
    def watching(*args, **kwargs):
        out = old(*args, **kwargs)
        seen(out, *args, **kwargs)
        return out
    setattr(thing, name, watching)
    try: yield
    finally: delattr(thing, name)


def latents_of(pipe:Any, run:Callable, **call)->Tensor:
    "The latents at the end of a call: those that the decoder gets, where a pipeline gives no others."
    if not isinstance(pipe, d.DiTPipeline): return run(**call, output_type='latent', return_dict=False)[0]
    found = []
    with watched(pipe.vae, 'decode', lambda out, z, *_, **__: found.append(z*pipe.vae.config.scaling_factor)): run(**call, output_type='pt')
    return found[0]


def gen(seed:int=4)->torch.Generator: return torch.Generator().manual_seed(seed)
