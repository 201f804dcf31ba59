"""Checkpoints of the authors' own AST and SSAST code as a directory that `load_backbone` (and transformers) reads.

Those files are pickled state dictionaries in timm's naming: `v.blocks.0.attn.qkv.weight` and so on, often under
`module.`. They are read with `weights_only=True`, which admits tensors and nothing that can run. Heads, and what
SSAST's pretraining needs besides the encoder, are left out.

A state dictionary has no configuration. Patch size, width, depth and feed-forward width follow from the tensors.
Strides, input length and mel bins have to go with the number of position embeddings: with 128 mel bins, the strides
of 10 of the published AST and (SSAST, whose files also record the input) patches that do not overlap are tried. Where
both fit and it is no published size, the caller has to say which.
"""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ASTConfig, ASTModel

from petl.errors import UserError
from petl.frontend import AstFrontEnd
from petl.shape import BackboneShape

EPS = 1e-6  # of the LayerNorms in timm's DeiT, on which both codes build
HEAD_DIM = 64  # of all published sizes
_LONGEST = 2**16  # frames or mel bins

_NAMES = {
    r"cls_token": "embeddings.cls_token",
    r"dist_token": "embeddings.distillation_token",
    r"pos_embed": "embeddings.position_embeddings",
    r"patch_embed\.proj\.(weight|bias)": r"embeddings.patch_embeddings.projection.\1",
    r"norm\.(weight|bias)": r"layernorm.\1",
    r"blocks\.(\d+)\.norm1\.(weight|bias)": r"layers.\1.layernorm_before.\2",
    r"blocks\.(\d+)\.norm2\.(weight|bias)": r"layers.\1.layernorm_after.\2",
    r"blocks\.(\d+)\.attn\.proj\.(weight|bias)": r"layers.\1.attention.o_proj.\2",
    r"blocks\.(\d+)\.mlp\.(fc1|fc2)\.(weight|bias)": r"layers.\1.mlp.\2.\3",
}
_FUSED = re.compile(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
_POSITIONS = "embeddings.position_embeddings"
_KERNEL = "embeddings.patch_embeddings.projection.weight"
_FIRST = "layers.0.mlp.fc1.weight"
_PUBLISHED = {144: 10}  # position embeddings -> stride, where both would fit: Speech Commands, 12 x 12


def convert_ast(
    path: str | Path,
    directory: str | Path,
    *,
    frames: int | None = None,
    mel_bins: int | None = None,
    frequency_stride: int | None = None,
    time_stride: int | None = None,
    heads: int | None = None,
    mean: float | None = None,
    std: float | None = None,
) -> Path:
    """Write `directory` (config.json, model.safetensors, preprocessor_config.json) from an upstream `.pth` file.

    `path` is a checkpoint of YuanGongND/ast or of YuanGongND/ssast with square patches; `directory` must not exist,
    or be empty. `frames`, `mel_bins`, `frequency_stride` and `time_stride` say what it was trained on, where what
    is tried otherwise does not go with its position embeddings, or more than one thing does. `heads` defaults to a
    64th of the width, `mean` and `std` of the features to those of AudioSet.

    Returns the directory. Raises `UserError` when the file cannot be read safely, is no such checkpoint, has patches
    that are not square (frame-based SSAST: transformers has no such AST), or does not fit the arguments.
    """
    source, target = Path(path), Path(directory)
    given = {"frames": frames, "mel_bins": mel_bins, "heads": heads}
    for key, value in {**given, "frequency_stride": frequency_stride, "time_stride": time_stride}.items():
        if value is not None and value < 1:
            raise UserError(f"{key} is {value}; it must be at least 1")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not an empty directory; give another place for the converted model")
    state, recorded = _split(_read(source), source)
    wanted = {
        "mel_bins": mel_bins or recorded.get("p_input_fdim"),
        "max_frames": frames or recorded.get("p_input_tdim"),
        "frequency_stride": frequency_stride,
        "time_stride": time_stride,
    }
    shape = _fitted(_sizes(state, heads, source), {k: v for k, v in wanted.items() if v is not None}, state, source)
    model = _model(state, shape, source)
    default = AstFrontEnd()
    front_end = AstFrontEnd(
        mel_bins=shape.mel_bins,
        frames=shape.max_frames,
        mean=default.mean if mean is None else mean,
        std=default.std if std is None else std,
    )
    try:
        model.save_pretrained(target)
        text = json.dumps(front_end.to_preprocessor(), indent=2, sort_keys=True) + "\n"
        (target / "preprocessor_config.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror or error})") from None
    return target


def _read(source: Path) -> Mapping[str, Any]:
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror or error})") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{source}: not a PyTorch file of tensors alone; a pickle that holds more can run code and is not read. "
            "If you trust it, save its state dictionary again: torch.save(model.state_dict(), PATH)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{source}: not a complete PyTorch file ({str(error).splitlines()[0][:200]})") from None
    for key in ("model", "state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping):
        raise UserError(f"{source}: holds a {type(found).__name__}, not a state dictionary")
    return found


def _split(named: Mapping[str, Any], source: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The encoder's tensors under transformers' names, and the sizes of the input that SSAST writes beside them."""
    state: dict[str, Tensor] = {}
    recorded: dict[str, int] = {}
    for key, value in named.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            continue
        name = key.removeprefix("module.")
        if name in ("p_input_fdim", "p_input_tdim"):
            recorded[name] = _recorded(value, key, source)
        if name.startswith("v."):
            state |= _renamed(name.removeprefix("v."), value.detach(), key, source)
    if not {_KERNEL, _POSITIONS, _FIRST} <= set(state):
        raise UserError(
            f"{source}: not a checkpoint of AST or SSAST: no v.patch_embed.proj.weight, v.pos_embed and "
            f"v.blocks.0.mlp.fc1.weight among its tensors ({', '.join(list(named)[:3])}, …)"
        )
    for name, axes, key in ((_POSITIONS, 3, "v.pos_embed"), (_FIRST, 2, "v.blocks.0.mlp.fc1.weight")):
        if state[name].ndim != axes:
            raise UserError(f"{source}: {key} has the shape {tuple(state[name].shape)}, not one of {axes} axes")
    _check_layers(state, source)
    return state, recorded


def _recorded(value: Tensor, key: str, source: Path) -> int:
    if value.numel() != 1 or value.is_complex() or not (1 <= float(value) <= _LONGEST) or float(value) % 1:
        raise UserError(f"{source}: {key} is no whole number from 1 to {_LONGEST}")
    return int(value)


def _check_layers(state: Mapping[str, Tensor], source: Path) -> None:
    """Refuse gaps between the layers before room is made for all of them."""
    layers = {name.split(".")[1] for name in state if name.startswith("layers.")}
    strange = sorted(layers - {str(i) for i in range(len(layers))})
    if strange:
        missing = next(i for i in range(len(layers)) if str(i) not in layers)
        raise UserError(f"{source}: there are tensors of v.blocks.{strange[0][:20]}, but none of v.blocks.{missing}")


def _renamed(name: str, tensor: Tensor, key: str, source: Path) -> dict[str, Tensor]:
    """One tensor under transformers' names: none for heads, three for a fused projection."""
    if tensor.layout != torch.strided:
        raise UserError(f"{source}: {key} is a sparse tensor, which no published checkpoint holds")
    renamed = _names(name, tensor, key, source)
    if renamed and not (tensor.is_floating_point() and bool(torch.isfinite(tensor.float()).all())):
        raise UserError(f"{source}: {key} holds values that are NaN, infinite or no floating-point numbers")
    return {name: part.float() for name, part in renamed.items()}


def _names(name: str, tensor: Tensor, key: str, source: Path) -> dict[str, Tensor]:
    fused = _FUSED.fullmatch(name)
    if fused:
        layer, kind = fused.groups()
        if tensor.ndim < 1 or not len(tensor) or len(tensor) % 3:
            raise UserError(
                f"{source}: {key} has the shape {tuple(tensor.shape)}, which is not that of three projections"
            )
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"layers.{layer}.attention.{p}_proj.{kind}": part.clone() for p, part in parts}
    for pattern, new in _NAMES.items():
        if re.fullmatch(pattern, name):
            return {re.sub(pattern, new, name): tensor.contiguous()}
    return {}


def _sizes(state: Mapping[str, Tensor], heads: int | None, source: Path) -> BackboneShape:
    """What follows from the tensors alone."""
    kernel = state[_KERNEL]
    if kernel.ndim != 4 or kernel.shape[1] != 1 or kernel.shape[2] != kernel.shape[3] or not kernel.numel():
        raise UserError(
            f"{source}: its patch kernel has the shape {tuple(kernel.shape)}; transformers' AST has one channel and "
            "square patches, so frame-based SSAST (patches of 128 x 2) cannot be converted. Use the patch-based one"
        )
    hidden = kernel.shape[0]
    heads = heads or max(1, hidden // HEAD_DIM)
    if hidden % heads:
        raise UserError(f"{source}: a width of {hidden} does not divide into {heads} heads; give heads")
    return BackboneShape(
        hidden=hidden,
        layers=1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers.")),
        heads=heads,
        ffn=state[_FIRST].shape[0],
        patch=kernel.shape[2],
        qkv_bias="layers.0.attention.q_proj.bias" in state,
    )


def _fitted(
    sizes: BackboneShape, wanted: Mapping[str, Any], state: Mapping[str, Tensor], source: Path
) -> BackboneShape:
    """The shape whose patch grid has as many places as there are position embeddings; `UserError` if several have."""
    places = state[_POSITIONS].shape[1] - 2
    found: list[BackboneShape] = []
    for stride in (10, sizes.patch):
        shape = replace(sizes, **{"frequency_stride": stride, "time_stride": stride, **wanted})
        if min(shape.mel_bins, shape.max_frames) < shape.patch:
            continue
        rows, columns = shape.grid()
        if rows * columns != places and "max_frames" not in wanted and places > 0 and places % rows == 0:
            shape = replace(shape, max_frames=shape.patch + (places // rows - 1) * shape.time_stride)
        if shape not in found and math.prod(shape.grid()) == places:
            found.append(shape)
    if len(found) > 1 and wanted.keys() <= {"mel_bins"} and sizes.patch == 16:
        found = [s for s in found if s.time_stride == _PUBLISHED.get(places, s.time_stride)]
    if len(found) == 1:
        return found[0]
    if found:
        fitting = " and ".join(
            f"frequency_stride {s.frequency_stride}, time_stride {s.time_stride}, frames {s.max_frames}" for s in found
        )
        raise UserError(
            f"{source}: its {places} position embeddings go with {fitting}; give what it was trained on: frames, "
            "frequency_stride, time_stride"
        )
    given = ", ".join(f"{'frames' if k == 'max_frames' else k} {v}" for k, v in wanted.items()) or "the defaults"
    raise UserError(
        f"{source}: its {places} position embeddings do not go with {given}; give what it was trained on: frames, "
        "mel_bins, frequency_stride, time_stride"
    )


def _model(state: Mapping[str, Tensor], shape: BackboneShape, source: Path) -> ASTModel:
    config = ASTConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        layer_norm_eps=EPS,
        patch_size=shape.patch,
        qkv_bias=shape.qkv_bias,
        frequency_stride=shape.frequency_stride,
        time_stride=shape.time_stride,
        max_length=shape.max_frames,
        num_mel_bins=shape.mel_bins,
    )
    with torch.device("meta"):
        model = ASTModel(config)
    own = model.state_dict()
    wrong = sorted(name for name in own if name not in state or state[name].shape != own[name].shape)
    wrong += sorted(set(state) - set(own))
    if wrong:
        raise UserError(f"{source}: tensors are missing or of another shape: {', '.join(wrong[:3])}")
    model.load_state_dict(dict(state), assign=True)
    return model
