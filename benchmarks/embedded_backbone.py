"""Is the embedded backbone pretrained in any useful sense? A linear probe on real recordings says.

    uv run python benchmarks/embedded_backbone.py [--data ../shared/data/esc10]

The probe: last hidden states over the whole five-second clip (position embeddings interpolated over time), mean
over all tokens, standardised, multinomial logistic regression with one fixed strength; the official five folds,
trained on four, tested on one. Exactly the same probe is run on randomly initialised copies of the network with
other seeds. Prints the table, writes `benchmarks/results/embedded_backbone.json`.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
import transformers
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchaudio.compliance import kaldi
from transformers import ASTFeatureExtractor, ASTModel

from petl import EMBEDDED_DIR
from trainables.embedded.network import hidden_states

_ROOT = Path(__file__).resolve().parent.parent


def log_mels(data: Path) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Raw log-mel features (clips, 498, 128), class numbers and folds of a folder in ESC-50's layout."""
    with (data / "meta" / "esc50.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["filename"])
    names = sorted({row["category"] for row in rows})
    features = []
    for row in rows:
        found = sorted((data / "audio").glob(Path(row["filename"]).stem + ".*"))
        wave, rate = soundfile.read(found[0], dtype="float32", always_2d=True)
        mono = torch.from_numpy(wave.mean(axis=1))[None]
        mono = torchaudio.functional.resample(mono, rate, 16_000)[:, : 5 * 16_000]
        mono = torch.nn.functional.pad(mono, (0, 5 * 16_000 - mono.shape[1]))
        features.append(kaldi.fbank(mono, sample_frequency=16_000, window_type="hanning", num_mel_bins=128))
    labels = np.array([names.index(row["category"]) for row in rows])
    return torch.stack(features), labels, np.array([int(row["fold"]) for row in rows])


@torch.no_grad()
def embeddings(model: ASTModel, normalised_BTM: torch.Tensor) -> np.ndarray:
    """Mean last hidden state of every clip, (clips, width)."""
    parts = [hidden_states(model, part).mean(dim=1) for part in normalised_BTM.split(50)]
    return torch.cat(parts).numpy()


def fold_accuracies(embedded: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> list[float]:
    """Test accuracy in per cent of the probe on every official fold."""
    scores = []
    for fold in np.unique(folds):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=3000))
        probe.fit(embedded[folds != fold], labels[folds != fold])
        scores.append(100 * float(probe.score(embedded[folds == fold], labels[folds == fold])))
    return scores


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data" / "esc10")
    parser.add_argument("--backbone", type=Path, default=EMBEDDED_DIR)
    parser.add_argument("--copies", type=int, default=5, help="randomly initialised copies to average over")
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results" / "embedded_backbone.json")
    given = parser.parse_args()
    if not (given.data / "meta" / "esc50.csv").is_file():
        parser.error(f"--data {given.data}: no meta/esc50.csv there; give a folder in ESC-50's layout")
    raw, labels, folds = log_mels(given.data)
    model = ASTModel.from_pretrained(given.backbone).eval()
    front = ASTFeatureExtractor.from_pretrained(given.backbone)
    normalised = (raw - front.mean) / (2 * front.std)
    pretrained = fold_accuracies(embeddings(model, normalised), labels, folds)
    copies = []
    for seed in range(given.copies):
        torch.manual_seed(seed)
        copies.append(fold_accuracies(embeddings(ASTModel(model.config).eval(), normalised), labels, folds))
    random = np.mean(copies, axis=0)
    difference = float(np.mean(pretrained) - np.mean(random))
    print(f"linear probe, test accuracy (%), {len(labels)} clips, {len(set(labels))} classes")
    print("fold        " + "".join(f"{fold:>8}" for fold in np.unique(folds)) + "    mean")
    print("pretrained  " + "".join(f"{score:8.1f}" for score in pretrained) + f"{np.mean(pretrained):8.1f}")
    print("random      " + "".join(f"{score:8.1f}" for score in random) + f"{np.mean(random):8.1f}")
    print(
        f"difference {difference:+.1f} points (random: mean of {given.copies} copies, each "
        f"{', '.join(f'{np.mean(copy):.1f}' for copy in copies)})"
    )
    result = {
        "what": "linear probe on frozen features, test accuracy in per cent per official fold",
        "clips": len(labels),
        "pretrained": {"folds": pretrained, "mean": float(np.mean(pretrained))},
        "random": {"folds": random.tolist(), "mean": float(np.mean(random)), "copies": copies},
        "difference": difference,
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "processor": platform.machine(),
        },
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()
