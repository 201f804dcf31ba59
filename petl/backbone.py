"""Loading a frozen backbone: an encoder of any family, and what spectrogram models need for other inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from petl.errors import UserError
from petl.families import ALIASES, Family, family_of
from petl.hub import EMBEDDED, EMBEDDED_DIR, check_room, locate, read_config, read_front_end, read_json
from petl.positions import Positions, resized_positions
from petl.pretrained import ast_from_image_model, read_encoder
from petl.shape import AST_TYPE, BackboneShape

__all__ = [
    "EMBEDDED",
    "EMBEDDED_DIR",
    "fingerprint",
    "load_backbone",
    "positions_mode",
    "read_config",
    "read_front_end",
]

_DEPENDS_ON_LENGTH = ("position_embeddings", "embed_positions.weight")
"""Endings of the names of tensors that differ between two inputs' lengths."""


def load_backbone(
    name: str = EMBEDDED,
    *,
    frames: int | None = None,
    positions: Positions = "interpolate",
    revision: str | None = None,
    frequency_stride: int | None = None,
    time_stride: int | None = None,
) -> PreTrainedModel:
    """Load an encoder: evaluation mode, float32, SDPA attention where its class supports it.

    `name` is a hub id, a local directory or "embedded"; checkpoints of task models are read without their heads,
    Whisper's without its decoder.

    * AST: `frames` is the length of the inputs, `frequency_stride` and `time_stride` the steps from patch to patch
      (each the checkpoint's own when not given). When the patch grid is another than the checkpoint's, `positions`
      says what happens to its position embeddings (see `petl.positions`). DeiT checkpoints become an AST for 1024
      frames of 128 mel bins with strides of 10, as in arXiv 2401.10544.
    * Whisper: `frames`, an even number of mel frames up to the checkpoint's (3000 are 30 s), shortens its input.
    * Models that read a waveform take any length; `frames` changes nothing.

    Loading draws no random numbers. Raises `UserError` when there is nothing under this name, when it is of an
    unknown family, has no usable safetensors weights, or does not fit these arguments.
    """
    source = locate(name, revision)
    config = read_json(source.directory / "config.json")
    shape = BackboneShape.from_config(config)
    family = family_of(shape.family)
    strides = {"frequency_stride": frequency_stride, "time_stride": time_stride}
    wanted = _wanted(shape, family, frames, {key: value for key, value in strides.items() if value is not None})
    check_room(source, family.parameters(shape, None), family.model)
    model: PreTrainedModel
    if config["model_type"] in ALIASES:
        model = ast_from_image_model(source, wanted, positions)
    else:
        model = read_encoder(source, family, shape)
        if family.model_type == AST_TYPE:
            _set_grid(model, shape, wanted, positions)
        elif wanted.max_frames != shape.max_frames:
            _shorten(model, wanted.max_frames)
    # transformers' own fields for where a model came from; adapters record them.
    settings: Any = model.config
    settings._name_or_path = source.name
    settings._commit_hash = source.revision
    return model.eval()


def positions_mode(state: Mapping[str, Tensor]) -> Positions:
    """ "zero" when the position embeddings of an AST's state are all zero, "interpolate" otherwise."""
    table = state.get("embeddings.position_embeddings")
    return "interpolate" if table is None or bool(table.any()) else "zero"


def fingerprint(state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> str:
    """A short digest that tells one backbone's weights from another's (not a cryptographic check).

    Covers names, shapes and up to 256 evenly spaced values of every tensor, rounded to `dtype`; position
    embeddings are left out, as they depend on the input length.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.endswith(_DEPENDS_ON_LENGTH):
            continue
        flat = state[name].detach().flatten()
        picked = torch.linspace(0, flat.numel() - 1, min(256, flat.numel()), dtype=torch.float64).long()
        values = flat[picked.to(flat.device)].to(dtype).to("cpu", torch.float32).numpy()
        digest.update(f"{name}{tuple(state[name].shape)}".encode() + values.tobytes())
    return digest.hexdigest()[:16]


def _wanted(shape: BackboneShape, family: Family, frames: int | None, strides: Mapping[str, int]) -> BackboneShape:
    """The shape of the backbone that was asked for; `UserError` when it cannot be had."""
    if family.model_type != AST_TYPE and strides:
        key = next(iter(strides))
        raise UserError(f"{key} is for spectrogram patches, which backbone family '{family.name}' does not have")
    for key, value in strides.items():
        if value < 1:
            raise UserError(f"{key} is {value}; it must be at least 1")
    if family.model_type == AST_TYPE:
        wanted = replace(shape, max_frames=shape.max_frames if frames is None else frames, **strides)  # type: ignore[arg-type]
        wanted.grid()  # raises when not even one patch fits
        return wanted
    if shape.samples or frames is None:
        return shape
    if not 2 <= frames <= shape.max_frames or frames % 2:
        raise UserError(
            f"frames is {frames}; the backbone halves its mel frames and knows {shape.max_frames} of them, "
            f"so an even number from 2 to {shape.max_frames} is needed"
        )
    return replace(shape, max_frames=frames)


def _set_grid(model: Any, shape: BackboneShape, wanted: BackboneShape, positions: Positions) -> None:
    """Give an AST another input length or other patch strides."""
    old = model.embeddings.position_embeddings
    if wanted.grid() != shape.grid():
        resized = resized_positions(old.detach(), shape.grid(), wanted.grid(), positions)
        model.embeddings.position_embeddings = nn.Parameter(resized.clone(), requires_grad=old.requires_grad)
    model.embeddings.patch_embeddings.projection.stride = (wanted.frequency_stride, wanted.time_stride)
    model.config.max_length = wanted.max_frames
    model.config.frequency_stride, model.config.time_stride = wanted.frequency_stride, wanted.time_stride


def _shorten(model: Any, frames: int) -> None:
    """Keep the positions of the first `frames` mel frames of a Whisper encoder."""
    table, kept = model.embed_positions, frames // 2
    table.weight = nn.Parameter(table.weight.detach()[:kept].clone(), requires_grad=table.weight.requires_grad)
    table.num_embeddings = model.max_source_positions = model.config.max_source_positions = kept
