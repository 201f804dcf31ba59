"""The carried weights, and the script that makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ASTFeatureExtractor, ASTModel

from petl import EMBEDDED_DIR
from trainables.embedded.network import build, configuration, hidden_states, positions
from trainables.embedded.objectives import texture
from trainables.embedded.pool import Pool
from trainables.embedded.pretrain import main
from trainables.embedded.synthesis import synthesise


def test_the_carried_directory_loads_plainly_and_is_small() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED_DIR.iterdir()) <= 8_000_000
    loaded: Any = ASTModel.from_pretrained(EMBEDDED_DIR, output_loading_info=True)
    model, notes = loaded
    assert not notes["missing_keys"] and not notes["unexpected_keys"]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    assert float(model.embeddings.position_embeddings.detach().abs().mean()) > 0.01
    front = ASTFeatureExtractor.from_pretrained(EMBEDDED_DIR)
    assert (front.sampling_rate, front.num_mel_bins, front.max_length) == (16_000, 128, 128)


def test_the_carried_weights_hear_a_difference() -> None:
    """Two takes of one recipe are closer to each other than to other recipes, far beyond chance."""
    model = ASTModel.from_pretrained(EMBEDDED_DIR).eval()
    front = ASTFeatureExtractor.from_pretrained(EMBEDDED_DIR)
    waves = [synthesise((999, i), 20_720, take=take).signal for take in (0, 1) for i in range(24)]
    inputs = front(waves, sampling_rate=16_000, return_tensors="pt")["input_values"]
    with torch.no_grad():
        pooled = model(inputs).last_hidden_state.mean(dim=1)
    unit = torch.nn.functional.normalize(pooled - pooled.mean(dim=0), dim=1)
    nearest = (unit[:24] @ unit[24:].T).argmax(dim=1)
    assert int((nearest == torch.arange(24)).sum()) >= 8


def test_the_training_forward_is_the_models_own() -> None:
    model = build(configuration(), seed=1).eval()
    features = torch.randn(3, 128, 128)
    with torch.no_grad():
        everything = torch.arange(64).expand(3, -1)
        theirs = model(features).last_hidden_state
        torch.testing.assert_close(hidden_states(model, features), theirs, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(hidden_states(model, features, everything), theirs, atol=1e-5, rtol=1e-4)
        assert hidden_states(model, torch.randn(2, 498, 128)).shape == (2, 2 + 8 * 31, 128)
        assert positions(model, 64).shape == (1, 2 + 8 * 4, 128)


def test_a_pair_of_examples_is_of_one_recipe() -> None:
    pool = Pool(48, capacity=12, seed=3)
    pool.add(8)
    pool.add(8)
    assert len(pool) == 12
    batch = pool.draw(6)
    assert batch.features_BTM.shape == (12, 48, 128)
    assert bool(torch.isfinite(batch.features_BTM).all())
    kind = batch.labels["kind"]
    assert torch.equal(kind[:6], kind[6:])
    assert bool((batch.kinds_BK[torch.arange(12), kind] == 1).all())
    assert int(batch.kinds_BK.sum(dim=1).max()) <= 2


def test_texture_tells_up_from_down_and_survives_silence() -> None:
    assert bool(torch.isfinite(texture(torch.zeros(2, 128, 128))).all())
    rising = torch.zeros(1, 128, 128)
    rising[0, torch.arange(128), torch.arange(128)] = 10.0
    assert not torch.allclose(texture(rising), texture(rising.flip(1)), atol=0.1)


@pytest.mark.parametrize("unit", [["--steps", "3"], ["--minutes", "0.02"]])
def test_pretraining_writes_a_loadable_directory(tmp_path: Path, unit: list[str]) -> None:
    main(["--out", str(tmp_path / "out"), "--pool", "80", "--first", "60", *unit])
    model = ASTModel.from_pretrained(tmp_path / "out")
    assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    record = json.loads((tmp_path / "out" / "pretraining.json").read_text())
    assert record["steps"] >= 1
    assert f"--steps {record['steps']}" in (tmp_path / "out" / "README.md").read_text()


def test_pretraining_by_steps_repeats(tmp_path: Path) -> None:
    weights = []
    for name in ("one", "two"):
        main(["--out", str(tmp_path / name), "--pool", "80", "--first", "60", "--steps", "3"])
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    main(["--out", str(tmp_path / "other"), "--pool", "80", "--first", "60", "--steps", "3", "--seed", "1"])
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != weights[0]
