"""Reading a checkpoint directory into transformers' bare encoder: safetensors only, nothing invented, nothing drawn."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from transformers import ASTConfig, ASTModel, DeiTModel, PreTrainedModel

from petl.errors import UserError
from petl.families import Family
from petl.hub import Source, no_safetensors
from petl.positions import Positions, resized_positions
from petl.shape import AST_TYPE, BackboneShape

_MASKED = "masked_spec_embed"
_WITHOUT_DECODER = {r"^(?:model\.)?encoder\.": ""}


def read_encoder(source: Source, family: Family, shape: BackboneShape) -> PreTrainedModel:
    """The family's encoder from a checkpoint of it or of a model built on it, whatever the age of its tensor names.

    A checkpoint may lack the vector that latent SpecAugment puts over masked frames (fine-tuned ones often do);
    it is zero then. Raises `UserError` for anything else that is missing or does not fit.
    """
    cls = getattr(import_module(family.extras.get("module", "transformers")), family.model)
    options: dict[str, Any] = {}
    if family.model_type == AST_TYPE:
        options["patch_size"] = shape.patch  # a configuration may write it as a pair
    if family.model_type == "whisper":
        options["key_mapping"] = _WITHOUT_DECODER
    model: Any = _read(source, cls, options)
    # What renamed the tensors on the way in would rename them on the way out.
    if "key_mapping" in options:
        model.__dict__.pop("_weight_conversions", None)
    for name in family.fixed:  # loading forgets that these do not train
        model.get_parameter(name).requires_grad_(False)
    return model


def ast_from_image_model(source: Source, shape: BackboneShape, positions: Positions) -> ASTModel:
    """An AST of the given shape from a distilled DeiT, as in AAT (arXiv 2401.10544).

    The patch kernel is the sum over the three colours, the square grid of positions is resized to the spectrogram's,
    classifiers and pooler are left out.
    """
    image: Any = _read(source, DeiTModel, {"add_pooling_layer": False})
    state = dict(image.state_dict())
    kernel, table = "embeddings.patch_embeddings.projection.weight", "embeddings.position_embeddings"
    state[kernel] = state[kernel].sum(dim=1, keepdim=True)
    height, width = image.embeddings.patch_embeddings.image_size
    grid = (height // shape.patch, width // shape.patch)
    state[table] = resized_positions(state[table], grid, shape.grid(), positions).clone()
    settings: dict[str, Any] = {
        "attn_implementation": "sdpa",
        "patch_size": shape.patch,
        "max_length": shape.max_frames,
        "num_mel_bins": shape.mel_bins,
        "frequency_stride": shape.frequency_stride,
        "time_stride": shape.time_stride,
        **{key: getattr(image.config, key) for key in _SHARED_WITH_IMAGES},
    }
    with torch.device("meta"):
        model = ASTModel(ASTConfig(**settings))
    model.load_state_dict(state, assign=True)
    return model


_SHARED_WITH_IMAGES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
    "qkv_bias",
)


def _read(source: Source, cls: Any, options: dict[str, Any]) -> PreTrainedModel:
    if not any(source.directory.glob("*.safetensors")):
        raise UserError(no_safetensors(source, cls.__name__))
    try:
        # Loading fills what a checkpoint lacks with random values, before anyone can say that it must not.
        with _quiet(), torch.random.fork_rng(devices=[]):
            model, report = cls.from_pretrained(
                source.directory,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                attn_implementation="sdpa" if cls._supports_sdpa else "eager",
                dtype=torch.float32,
                **options,
            )
    except Exception as error:  # transformers and safetensors raise many kinds for files that are damaged
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"backbone '{source.name}': its weights cannot be read ({first[:300]})") from None
    missing = set(report["missing_keys"])
    if _MASKED in missing:
        missing.remove(_MASKED)
        with torch.no_grad():
            model.get_parameter(_MASKED).zero_()
    wrong = sorted(str(key) for key in report["mismatched_keys"])
    if missing or wrong:
        raise UserError(
            f"backbone '{source.name}': the weights do not fit its config.json "
            f"(missing: {sorted(missing)[:3] or 'none'}, of another shape: {wrong[:3] or 'none'})"
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from listing heads that are meant to be left out; errors are raised anyway."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()
