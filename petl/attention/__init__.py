"""Where transformers gives methods no hook into attention: keys and values in front, WavLM, longer masks."""

from __future__ import annotations

from petl.attention.interface import AddPrefix, Prefix
from petl.attention.masks import extended_mask
from petl.attention.wavlm import CallProjections, projection_calls

__all__ = ["AddPrefix", "CallProjections", "Prefix", "extended_mask", "projection_calls"]
