"""Small backbones and the table of cases that every method is put through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import transformers
from torch import Tensor, nn
from transformers import ASTConfig, ASTForAudioClassification, ASTModel

from petl import Adapted, attach
from petl.config import MethodConfig
from petl.shape import BackboneShape

HIDDEN, LAYERS, FFN, FRAMES, MELS = 32, 3, 48, 64, 32
TINY: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": FFN,
    "max_length": FRAMES,
    "num_mel_bins": MELS,
}
TINY_SHAPE = BackboneShape(hidden=HIDDEN, layers=LAYERS, heads=4, ffn=FFN, mel_bins=MELS, max_frames=FRAMES)
LABELS = ("dog", "rain", "sea")


M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Case:
    """One configuration; `identity`: whether it must equal the frozen backbone before training."""

    flat: dict[str, Any]
    identity: bool = True

    @property
    def method(self) -> MethodConfig:
        return MethodConfig.from_flat(self.flat)

    def __str__(self) -> str:
        short = (f"{k.rpartition('.')[2]}={v}" for k, v in self.flat.items() if k != "method")
        return "-".join([self.flat["method"], *short])


def _case(method: str, identity: bool = True, **options: Any) -> Case:
    flat = {k.replace("__", "."): v for k, v in options.items()}
    return Case({"method": method, **flat}, identity)


_MOA: dict[str, Any] = {"moa__experts": 2, "moa__reduction": 8}

CORE: list[Case] = [
    _case("linear", norms="final"),
    _case("full", backbone_mode="eval"),
    _case("partial", partial__last=2),
    _case("bitfit"),
    _case("adapter", adapter__width=4),
    _case("adapter", adapter__width=4, adapter__location="both", norms="site+final", layers__first=1),
    _case("adapter", adapter__block="conformer", adapter__width=4, adapter__kernel=5, identity=False),
    _case("adapter", adapter__block="convpass", adapter__width=4, adapter__location="attention"),
    _case("adapter", adapter__block="conv", adapter__location="layer", adapter__placement="sequential", identity=False),
    _case("adapter", adapter__block="tiny_attention", adapter__location="layer", identity=False),
    _case("adapter", adapter__block="tiny_external_attention", identity=False),
    _case("adapter", adapter__block="tiny_conformer", adapter__reduction=8, identity=False),
    _case("adapter", adapter__width=4, adapter__placement="mixed", adapter__location="both", norms="none"),
    _case("adapter", adapter__width=4, adapter__placement="sequential", adapter__order="before"),
    _case("lora", lora__rank=2, lora__targets="q,k,v,o,fc1,fc2"),
    _case("lora", lora__rank=2, lora__dropout=0.1, layers__last=1),
    _case("prompt", identity=False, prompt__length=3),
    _case("prompt", identity=False, prompt__length=3, prompt__deep=False, layers__first=1),
    _case("prompt", identity=False, prompt__length=2, prompt__insertion="overwrite"),
    _case("prefix", identity=False, prefix__length=3),
    _case("prefix", identity=False, prefix__length=3, prefix__table="embedding", prefix__reparam=True),
    _case("dense_moa", **_MOA),
    _case("soft_moa", **_MOA, moa__location="both"),
    _case("soft_moa", **_MOA, moa__slots=3, moa__expert="convpass", moa__location="ffn"),
    _case("adapter+lora", adapter__width=4, lora__rank=2),
    _case("adapter+lora", adapter__width=4, lora__rank=2, lora__targets="fc1,fc2"),
    _case("adapter+soft_moa", adapter__width=4, adapter__placement="sequential", adapter__order="before", **_MOA),
    _case("prompt+adapter+lora", identity=False, prompt__length=2, adapter__width=4, lora__rank=2, layers__first=1),
    _case("prompt+prefix+soft_moa+bitfit", identity=False, prompt__length=2, prefix__length=2, **_MOA),
]
"""Cases for every family."""

FEATURES: list[Case] = [
    _case("feature_adapter", feature_adapter__width=3),
    _case("feature_adapter+adapter+lora", adapter__width=4, lora__rank=2),
]
"""Cases for families with a convolutional front end."""

CASES: list[Case] = [
    *CORE,
    _case("linear", pooling="cls"),
    _case("partial"),
    _case("partial+lora", partial__last=1, lora__rank=2),
    _case("bitfit", layers__first=1, norms="final"),
    _case("adapter", adapter__reduction=8, adapter__activation="relu", norms="none"),
    _case("adapter", adapter__ratio=0.25, adapter__dropout=0.1),
    _case("adapter", adapter__width=4, adapter__init="published", identity=False),
    _case("adapter", adapter__width=4, adapter__location="both", adapter__placement="sequential"),
    _case("adapter", adapter__width=4, adapter__location="layer", adapter__placement="sequential"),
    _case("adapter", adapter__width=4, adapter__location="layer", norms="final"),
    _case("adapter", identity=False, adapter__width=4, adapter__placement="sequential", adapter__residual=False),
    _case("adapter", identity=False, adapter__width=4, adapter__residual=True),
    _case("adapter", adapter__width=4, adapter__order="after"),
    _case("adapter", adapter__width=4, adapter__placement="hydra"),
    _case("adapter", adapter__width=4, adapter__placement="hydra", adapter__location="attention"),
    _case(
        "adapter",
        adapter__width=4,
        adapter__placement="sequential",
        adapter__order="before",
        adapter__location="attention",
    ),
    _case(
        "adapter",
        identity=False,
        adapter__width=4,
        adapter__placement="sequential",
        adapter__order="before",
        adapter__residual=False,
    ),
    _case("adapter", adapter__block="conformer", adapter__width=4, adapter__init="zero", adapter__layernorm=False),
    _case(
        "adapter", adapter__block="conformer", adapter__width=4, adapter__kernel=3, adapter__axis="grid", identity=False
    ),
    _case(
        "adapter",
        adapter__block="conformer",
        adapter__width=4,
        adapter__kernel=4,
        adapter__axis="sequence",
        adapter__location="both",
        identity=False,
    ),
    _case("adapter", adapter__block="convpass", adapter__width=4, adapter__axis="grid"),
    _case(
        "adapter",
        adapter__block="convpass",
        adapter__width=4,
        adapter__legacy_discard_conv=True,
        adapter__init="published",
        identity=False,
    ),
    _case("adapter", adapter__block="conv", adapter__width=8, adapter__gate=False, adapter__kernel=0, identity=False),
    _case("adapter", adapter__block="conv", adapter__init="zero", adapter__axis="grid"),
    _case("adapter", adapter__block="tiny_conformer", adapter__reduction=8, adapter__init="zero"),
    _case("adapter", adapter__block="tiny_attention", adapter__init="zero"),
    _case("lora", lora__rank=3),
    _case("lora", lora__reduction=8, lora__scaling="alpha/RR", lora__targets="q,k,v,o"),
    _case("lora", lora__rank=2, lora__targets="fc1,fc2", norms="site+final", layers__last=1),
    _case("lora", lora__rank=2, lora__targets="q,k,v,o,fc1,fc2", norms="none", lora__alpha=1),
    _case("lora", lora__rank=2, lora__targets="q,k,fc1", lora__shared=True),
    _case("prompt", identity=False, prompt__length=3, prompt__insertion="replace_dist", pooling="prompts"),
    _case(
        "prompt",
        identity=False,
        prompt__length=3,
        prompt__insertion="replace_dist",
        prompt__deep=False,
        pooling="speech",
    ),
    _case(
        "prompt", identity=False, prompt__length=2, prompt__insertion="overwrite", layers__first=1, prompt__deep=False
    ),
    _case(
        "prompt",
        identity=False,
        prompt__length=3,
        layers__first=1,
        layers__last=1,
        pooling="prompts+speech",
        prompt__dropout=0.2,
    ),
    _case("prefix", identity=False, prefix__length=4, prefix__split=True, layers__first=1, prefix__dropout=0.1),
    _case("prefix", identity=False, prefix__length=3, prefix__table="embedding", norms="site"),
    _case("dense_moa", moa__experts=1, moa__reduction=16, moa__location="ffn"),
    _case("dense_moa", **_MOA, moa__location="both", pooling="cls+dist"),
    _case("dense_moa", **_MOA, moa__legacy_double_add=True),
    _case("dense_moa", **_MOA, moa__expert="convpass", moa__axis="grid"),
    _case("dense_moa", **_MOA, moa__expert="conformer", moa__kernel=3, identity=False),
    _case("soft_moa", moa__experts=3, moa__reduction=8),
    _case("soft_moa", **_MOA, moa__slots=2, moa__normalize="soft_moe"),
    _case("soft_moa", **_MOA, moa__slots=2, moa__normalize="published"),
    _case("soft_moa", moa__experts=4, moa__reduction=16, moa__location="both", layers__first=1, layers__last=1),
    _case("soft_moa", **_MOA, moa__location="ffn", pooling="patches", head__kind="norm_linear"),
    _case("soft_moa", **_MOA, moa__legacy_double_add=True, head__kind="projector", head__width=6),
    _case("soft_moa", **_MOA, moa__slots=3, moa__expert="conformer", identity=False),
    _case("lora+soft_moa", lora__rank=2, **_MOA),
    _case("adapter+lora+dense_moa", adapter__width=4, lora__rank=2, **_MOA, pooling="stats"),
]
"""Cases for an AST: those of every family and all options."""


def tiny_backbone(seed: int = 0, **changed: Any) -> ASTModel:
    """A small AST whose every tensor, LayerNorms and positions included, is drawn from `seed`."""
    return drawn(ASTModel(ASTConfig(**{**TINY, **changed})), seed)


def tiny_tagger(seed: int = 0) -> ASTForAudioClassification:
    """The same with transformers' classification head."""
    return drawn(ASTForAudioClassification(ASTConfig(**TINY)), seed)


def drawn(model: nn.Module, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            value = torch.randn(p.shape, generator=generator) * 0.15
            norm = ("norm" in name and name.endswith("weight")) or name.endswith("original0")
            p.copy_(1 + value if norm else value)
    return model.eval()


def tiny_checkpoint(directory: Path, seed: int = 0) -> Path:
    """A checkpoint directory of `tiny_backbone(seed)`."""
    tiny_backbone(seed).save_pretrained(directory)
    return directory


def inputs(batch: int = 2, frames: int = FRAMES, seed: int = 1) -> Tensor:
    return torch.randn(batch, frames, MELS, generator=torch.Generator().manual_seed(seed))


def trained(model: M, seed: int = 2) -> M:
    """Move every trainable tensor away from its initial value, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in cast(Any, model).trainable().values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def adapted_tiny(case: Case, seed: int = 3) -> Adapted:
    return attach(tiny_backbone(), case.flat, seed=seed)


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# -- other families ------------------------------------------------------------------------------------------

_WAVE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": FFN,
    "conv_dim": (12, 12, 10),
    "conv_kernel": (8, 4, 2),
    "conv_stride": (4, 3, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 4,
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    "feat_proj_dropout": 0.1,
    "layerdrop": 0.1,
    "mask_time_length": 2,
    "vocab_size": 8,
}
_STABLE: dict[str, Any] = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
_WHISPER: dict[str, Any] = {
    "d_model": HIDDEN,
    "encoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": FFN,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": FFN,
    "num_mel_bins": 8,
    "max_source_positions": 12,
    "vocab_size": 20,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 2,
    "dropout": 0.1,
}
BUCKETS = {"num_buckets": 8, "max_bucket_distance": 16}
SAMPLES = 400  # 15 frames of the waveform models


@dataclass(frozen=True)
class TinyModel:
    """A small model of one family; `masked`: it takes an attention mask and keeps to it."""

    name: str
    kind: str  # transformers' name without Config and Model
    options: dict[str, Any]
    masked: bool = True
    cases: tuple[Case, ...] = (*CORE, *FEATURES)

    def config(self) -> Any:
        return getattr(transformers, f"{self.kind}Config")(**self.options)

    def build(self, seed: int = 0) -> Any:
        """The bare encoder, in evaluation mode, every tensor drawn from `seed`."""
        model = getattr(transformers, f"{self.kind}Model")(self.config())
        return drawn(model.encoder if self.kind == "Whisper" else model, seed)

    def inputs(self, batch: int = 2, seed: int = 1) -> Tensor:
        """Input values as the model takes them."""
        generator = torch.Generator().manual_seed(seed)
        if self.kind == "AST":
            return torch.randn(batch, FRAMES, MELS, generator=generator)
        if self.kind == "Whisper":
            return torch.randn(batch, 8, 24, generator=generator)
        return torch.randn(batch, SAMPLES, generator=generator)

    @property
    def shape(self) -> BackboneShape:
        return BackboneShape.from_config(self.config().to_dict())

    def __str__(self) -> str:
        return self.name


AST_TINY = TinyModel("ast", "AST", TINY, masked=False, cases=tuple(CASES))
MODELS: tuple[TinyModel, ...] = (
    AST_TINY,
    TinyModel("wav2vec2", "Wav2Vec2", _WAVE),
    TinyModel("wav2vec2-stable", "Wav2Vec2", {**_WAVE, **_STABLE}),
    TinyModel("hubert-stable", "Hubert", {**_WAVE, **_STABLE}),
    TinyModel("mhubert", "Hubert", {**_WAVE, "conv_pos_batch_norm": True}),
    TinyModel("wavlm", "WavLM", {**_WAVE, **BUCKETS}),
    TinyModel("wavlm-stable", "WavLM", {**_WAVE, **_STABLE, **BUCKETS}),
    TinyModel("data2vec", "Data2VecAudio", {**_WAVE, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}),
    TinyModel("unispeech-sat", "UniSpeechSat", _WAVE),
    TinyModel("whisper", "Whisper", _WHISPER, masked=False),
)
"""One small model per family and variant. The first convolution of `wav2vec2` is normalised over time, as in the base
checkpoints."""

PAIRS: list[tuple[TinyModel, Case]] = [(model, case) for model in MODELS for case in model.cases]
