"""From an audio file to what a backbone eats: one small class per kind of feature extractor (torch-free to import).

`decode` reads a file, `FrontEnd.extract` computes what is worth keeping of a clip (log-mel frames, or the samples
themselves), `FrontEnd.collate` makes a batch of it. `FrontEnd.from_preprocessor` picks the class from the contents
of a `preprocessor_config.json`.
"""

from __future__ import annotations

from petl.frontend.audio import AudioError, AudioFault, decode
from petl.frontend.base import FrontEnd, clip_features
from petl.frontend.inputs import ModelInput
from petl.frontend.kinds import completed
from petl.frontend.spectrogram import AstFrontEnd, fbank
from petl.frontend.waveform import WaveformFrontEnd, waveform_store
from petl.frontend.whisper import WhisperFrontEnd

__all__ = [
    "AstFrontEnd",
    "AudioError",
    "AudioFault",
    "FrontEnd",
    "ModelInput",
    "WaveformFrontEnd",
    "WhisperFrontEnd",
    "clip_features",
    "completed",
    "decode",
    "fbank",
    "waveform_store",
]
