"""Which front end belongs to a backbone, by the name transformers gives it (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from petl.errors import UserError
from petl.families import ALIASES, family_of
from petl.frontend.base import FrontEnd, whole
from petl.frontend.spectrogram import AstFrontEnd
from petl.frontend.waveform import WaveformFrontEnd
from petl.frontend.whisper import WhisperFrontEnd
from petl.shape import BackboneShape

KINDS: dict[str, type[FrontEnd]] = {cls.kind: cls for cls in (AstFrontEnd, WaveformFrontEnd, WhisperFrontEnd)}
"""transformers' `feature_extractor_type` -> the class that does the same."""


def class_of(values: Mapping[str, Any]) -> type[FrontEnd]:
    """The class for the contents of a `preprocessor_config.json`; AST's where it does not say."""
    kind = values.get("feature_extractor_type", AstFrontEnd.kind)
    if kind not in KINDS:
        raise UserError(
            f"preprocessor_config.json: feature_extractor_type is '{kind}'; known are {', '.join(sorted(KINDS))}. "
            "Use a backbone of one of the supported families"
        )
    return KINDS[kind]


def completed(values: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of a checkpoint's `preprocessor_config.json` ({}: it has none), and what its `config.json` adds.

    The kind follows from the family where the file does not name it. Whether a waveform model is told what is
    padding is the file's word, else `feat_extract_norm`'s: models with a GroupNorm were trained without. Whisper's
    input is no longer than the encoder has positions. Raises `UserError` for a family that is not known, and for a file
    that names another family's kind.
    """
    shape = BackboneShape.from_config(config)
    kind = family_of(shape.family).extractor
    # A checkpoint that is read as another family's (DeiT): what its file says is about pictures.
    own = {} if config.get("model_type") in ALIASES else {k: v for k, v in values.items() if v is not None}
    if own.setdefault("feature_extractor_type", kind) != kind:
        raise UserError(
            f"preprocessor_config.json names a {own['feature_extractor_type']}, but the backbone is of the family "
            f"'{shape.family}', which takes a {kind}; use the preprocessor_config.json that belongs to the backbone"
        )
    default: FrontEnd
    if kind == WaveformFrontEnd.kind:
        default = WaveformFrontEnd(masks=shape.convs[0].norm == "layer")
    elif kind == WhisperFrontEnd.kind:
        default = WhisperFrontEnd(mel_bins=shape.mel_bins, frames=shape.max_frames)
    else:
        default = AstFrontEnd(mel_bins=shape.mel_bins, frames=shape.max_frames)
    found = {**default.to_preprocessor(), **own}
    if kind == WaveformFrontEnd.kind:
        found = {key: value for key, value in found.items() if key != "max_length" or key in own}  # any length will do
    if kind == WhisperFrontEnd.kind:
        found["nb_max_frames"] = min(shape.max_frames, whole(found, "nb_max_frames", shape.max_frames))
    return found
