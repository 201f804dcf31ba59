"""UniSpeech-SAT: the encoder of wav2vec 2.0; the vector of masked frames is there whatever its configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from petl.families import wav2vec2
from petl.shape import BackboneShape


def _shape(config: Mapping[str, Any]) -> BackboneShape:
    return replace(wav2vec2.shape_of(config), spec_embed=True, per_layer=0)


FAMILY = wav2vec2.family("unispeech-sat", "UniSpeechSatModel", shape=_shape)
