"""Loading a frozen backbone: any AST checkpoint, for inputs of any length."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ASTModel

from petl.counts import BackboneShape
from petl.errors import UserError
from petl.hub import EMBEDDED, EMBEDDED_DIR, Source, locate, read_config, read_front_end, read_json
from petl.positions import Positions, resized_positions

__all__ = [
    "EMBEDDED",
    "EMBEDDED_DIR",
    "fingerprint",
    "load_backbone",
    "positions_mode",
    "read_config",
    "read_front_end",
]


def load_backbone(
    name: str = EMBEDDED,
    *,
    frames: int | None = None,
    positions: Positions = "interpolate",
    revision: str | None = None,
) -> ASTModel:
    """Load an AST encoder for inputs of `frames` × mel bins: evaluation mode, float32, SDPA attention.

    `name` is a hub id, a local directory or "embedded"; checkpoints of `ASTForAudioClassification` are read
    too, without their classifier. When `frames` gives another patch grid than the checkpoint's, `positions`
    says what happens to its position embeddings (see `petl.positions`). Raises `UserError` when there is
    nothing under this name, when it is not an AST, or has no usable safetensors weights.
    """
    source = locate(name, revision)
    shape = BackboneShape.from_config(read_json(source.directory / "config.json"))
    model = _read(source)
    if frames is not None and frames != shape.max_frames:
        _set_frames(model, shape, frames, positions)
    # transformers' own fields for where a model came from; adapters record them.
    model.config._name_or_path = source.name
    model.config._commit_hash = source.revision
    return model.eval()


def positions_mode(state: Mapping[str, Tensor]) -> Positions:
    """ "zero" when the position embeddings of an AST's state are all zero, "interpolate" otherwise."""
    return "interpolate" if bool(state["embeddings.position_embeddings"].any()) else "zero"


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """A short digest that tells one backbone's weights from another's (not a cryptographic check).

    Covers names, shapes and up to 256 evenly spaced values of every tensor in float32; position embeddings
    are left out, as they depend on the input length.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if name.endswith("position_embeddings"):
            continue
        flat = state[name].detach().flatten()
        picked = torch.linspace(0, flat.numel() - 1, min(256, flat.numel()), dtype=torch.float64).long()
        values = flat[picked.to(flat.device)].to("cpu", torch.float32).numpy()
        digest.update(f"{name}{tuple(state[name].shape)}".encode() + values.tobytes())
    return digest.hexdigest()[:16]


def _read(source: Source) -> ASTModel:
    if not any(source.directory.glob("*.safetensors")):
        raise UserError(_no_safetensors(source))
    try:
        with _quiet():
            loaded: Any = ASTModel.from_pretrained(
                source.directory,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                attn_implementation="sdpa",
                dtype=torch.float32,
            )
    except Exception as error:  # transformers and safetensors raise many kinds for files that are damaged
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"backbone '{source.name}': its weights cannot be read ({first[:300]})") from None
    model, report = loaded
    missing = sorted(report["missing_keys"])
    wrong = sorted(str(key) for key in report["mismatched_keys"])
    if missing or wrong:
        raise UserError(
            f"backbone '{source.name}': the weights do not fit its config.json "
            f"(missing: {missing[:3] or 'none'}, of another shape: {wrong[:3] or 'none'})"
        )
    return model


def _set_frames(model: ASTModel, shape: BackboneShape, frames: int, positions: Positions) -> None:
    old = model.embeddings.position_embeddings
    resized = resized_positions(old.detach(), shape.grid(), shape.grid(frames), positions)
    model.embeddings.position_embeddings = nn.Parameter(resized.clone(), requires_grad=old.requires_grad)
    model.config.max_length = frames


def _no_safetensors(source: Source) -> str:
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in source.directory.glob(pattern))
    if pickles or source.revision is not None:
        return (
            f"backbone '{source.name}' has no safetensors weights"
            + (f" (found {', '.join(pickles)})" if pickles else "")
            + "; pickled weights can run code and are not read. If you trust them, convert them "
            "once, ASTModel.from_pretrained(…, use_safetensors=False).save_pretrained(DIRECTORY), "
            "and pass DIRECTORY"
        )
    return f"backbone '{source.name}': {Path(source.directory)} has no model.safetensors"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from listing a classifier that is meant to be left out; errors are raised anyway."""
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
