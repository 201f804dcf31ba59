"""The batched features are those of transformers' extractor."""

from __future__ import annotations

import numpy as np
import torch
from transformers import ASTFeatureExtractor

from trainables.embedded.mel import frames, log_mel, samples
from trainables.embedded.synthesis import synthesise


def test_batched_features_equal_the_extractors() -> None:
    waves = np.stack([synthesise(seed, 20_720).signal for seed in range(6)])
    extractor = ASTFeatureExtractor(max_length=128, do_normalize=False)
    theirs = extractor(list(waves), sampling_rate=16_000, return_tensors="np")["input_values"]
    ours = log_mel(torch.from_numpy(waves)).numpy()
    assert ours.shape == theirs.shape == (6, 128, 128)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_digital_silence_is_the_floor() -> None:
    silent = log_mel(torch.zeros(1, 4000))
    assert torch.all(silent == float(np.float32(np.log(np.finfo(np.float32).eps))))


def test_frames_and_samples_are_inverse() -> None:
    assert samples(128) == 20_720
    assert frames(20_720) == 128
    assert frames(20_719) == 127
