"""Backbone families: one small module each, and the table that knows them (torch-free).

Adding a family: write a module with a `FAMILY` (see `petl.families.base.Family`) and add it to `_MODULES`.
"""

from __future__ import annotations

from petl.families import audio_spectrogram_transformer, data2vec_audio, hubert, unispeech_sat, wav2vec2, wavlm, whisper
from petl.families.base import Block, Family, UnknownBackbone
from petl.shape import AST_TYPE

__all__ = ["ALIASES", "FAMILIES", "Block", "Family", "UnknownBackbone", "family_of"]

_MODULES = (audio_spectrogram_transformer, data2vec_audio, hubert, unispeech_sat, wav2vec2, wavlm, whisper)

FAMILIES: dict[str, Family] = {module.FAMILY.model_type: module.FAMILY for module in _MODULES}
"""`model_type` of a transformers configuration -> its family."""


ALIASES = {"deit": AST_TYPE}
"""`model_type` of checkpoints that are read as another family's."""


def family_of(model_type: str | None) -> Family:
    """The family of a transformers `model_type`; `UnknownBackbone` names what was found and what is known."""
    known = ALIASES.get(str(model_type), model_type)
    if known not in FAMILIES:
        raise UnknownBackbone(
            f"the backbone is of type '{model_type}', which has no table of sites; "
            f"supported: {', '.join(sorted([*FAMILIES, *ALIASES]))}. A new family is one module of petl/families: the "
            "class that loads it, the paths of its layers, sub-layers, LayerNorms and projections, and its sizes"
        )
    return FAMILIES[known]
