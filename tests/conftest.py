"""Things many tests need: a tiny AST checkpoint, a small labelled audio folder, a cache of their own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from search import environment

environment.quiet_libraries()
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's feature cache; within a session they share one."""
    monkeypatch.setenv("PETL_CACHE", str(tmp_path_factory.getbasetemp() / "petl-cache"))


@pytest.fixture(scope="session")
def tiny_ast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AST of width 32 and two layers on 64 frames, saved as transformers saves it."""
    return make_tiny_ast(tmp_path_factory.mktemp("tiny-ast"))


def make_tiny_ast(directory: Path) -> Path:
    """Save it in `directory`."""
    import torch
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    torch.manual_seed(0)
    model = ASTModel(
        ASTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            patch_size=16,
            frequency_stride=16,
            time_stride=16,
            max_length=64,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    torch.nn.init.trunc_normal_(model.embeddings.position_embeddings, std=0.02)
    model.save_pretrained(directory)
    ASTFeatureExtractor(max_length=64).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 noisy tones of 0.64 s, in a folder per class."""
    return make_tones(tmp_path_factory.mktemp("tones"))


def make_tones(root: Path) -> Path:
    """Write them below `root`."""
    root.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    time = np.arange(10240) / 16000
    for label, pitch in (("low", 200), ("middle", 800), ("high", 3200)):
        (root / label).mkdir()
        for i in range(20):
            tone = np.sin(2 * np.pi * pitch * (1 + 0.1 * draw.standard_normal()) * time)
            noise = draw.standard_normal(len(time))
            soundfile.write(root / label / f"{i:02d}.wav", (0.2 * tone + 0.05 * noise).astype("float32"), 16000)
    return root
