"""WavLM: the encoder of wav2vec 2.0 with a gated relative position bias, whose buckets the lowest layer holds.

Its attention hands the weights of the projections to torch instead of calling the modules, so what hooks onto them
needs the wrapper of `petl.attention`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from petl.families import wav2vec2
from petl.families.base import size
from petl.shape import BackboneShape


def _shape(config: Mapping[str, Any]) -> BackboneShape:
    shape = wav2vec2.shape_of(config)
    gate = shape.heads + 8 * (shape.hidden // shape.heads) + 8
    buckets = size(config, "num_buckets", 320) * shape.heads
    return replace(shape, per_layer=gate, first_layer=buckets)


FAMILY = wav2vec2.family("wavlm", "WavLMModel", shape=_shape, attention="wavlm")
