"""Tiny checkpoints of models that are not an AST, as transformers saves them, with their feature extractors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

_WAVE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": (24, 24, 24, 24),
    "conv_kernel": (10, 8, 4, 2),
    "conv_stride": (5, 4, 4, 2),
    "num_feat_extract_layers": 4,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_length": 2,
    "layerdrop": 0.3,
}
_STABLE: dict[str, Any] = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
KINDS = ("wav2vec2", "wav2vec2-stable", "hubert", "wavlm", "whisper")


def save(kind: str, directory: Path, **sizes: int) -> Path:
    """Write the checkpoint directory of a tiny model of this kind; `sizes` are of models that read waveforms."""
    torch.manual_seed(0)
    model: Any
    if kind == "whisper":
        config = WhisperConfig(
            d_model=32,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=48,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=48,
            max_source_positions=60,
            vocab_size=20,
            pad_token_id=1,
            bos_token_id=2,
            eos_token_id=3,
            decoder_start_token_id=2,
        )
        model, extractor = WhisperModel(config), WhisperFeatureExtractor()
        with torch.no_grad():  # freshly drawn, they are drowned by the positions
            model.encoder.conv1.weight.mul_(5)
            model.encoder.conv2.weight.mul_(5)
    else:
        stable = "stable" in kind
        classes: dict[str, Any] = {
            "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
            "hubert": (HubertConfig, HubertModel),
            "wavlm": (WavLMConfig, WavLMModel),
        }
        config_class, model_class = classes[kind.partition("-")[0]]
        # transformers' WavLM lacks a setting that masking features needs.
        features = {} if kind == "wavlm" else {"mask_feature_prob": 0.1, "mask_feature_length": 2}
        model = model_class(config_class(**{**_WAVE, **sizes}, **features, **(_STABLE if stable else {})))
        extractor = Wav2Vec2FeatureExtractor(return_attention_mask=stable)
    model.save_pretrained(directory)
    extractor.save_pretrained(directory)
    return directory
