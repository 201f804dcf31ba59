"""What the embedded backbone is asked during pretraining, and the losses of its answers.

Supervised by the synthesiser: which kinds of source are audible, the envelope, pitch, rhythm and reverberation of
the loudest, its level over the rest. Computed from the features themselves: statistics of sound textures (level,
spread and skew of frequency bands over time, their modulation spectra and their correlations). Contrastive: which
two of the batch are recordings of the same thing.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainables.embedded.pool import PITCH_BINS, RHYTHM_BINS, ROOM_BINS, Batch
from trainables.embedded.synthesis import ENVELOPES, KINDS

_WEIGHTS = {"kind": 1.0, "cls": 0.5, "envelope": 0.4, "pitch": 0.4, "rhythm": 0.4, "room": 0.2}
_WEIGHTS |= {"snr": 0.3, "texture": 2.0, "same": 0.5}

_BANDS = 16
_MODULATIONS_HZ = (0.7, 1.6, 3.2, 6.3, 12.5, 25.0, 50.0)
_FRAMES_PER_SECOND = 100.0


def texture(features_BTM: Tensor) -> Tensor:
    """Texture statistics (B, 299) of normalised log-mel features (B, T, 128).

    Per band of 8 mel filters: mean, standard deviation and skew over time, power in six ranges of modulation
    frequency (logarithmic), correlation with the bands 1, 2, 4 and 8 above; and where time points: the linear
    and quadratic trend, the skew of the changes (sudden onsets or sudden ends), and how much sooner or later the
    bands 1 and 2 above do the same (energy that moves up or down).
    """
    bands_BTF = features_BTM.unflatten(2, (_BANDS, -1)).mean(dim=3)
    mean_BF = bands_BTF.mean(dim=1)
    centred_BTF = bands_BTF - mean_BF[:, None]
    spread_BF = centred_BTF.square().mean(dim=1).sqrt() + 0.02
    unit_BTF = centred_BTF / spread_BF[:, None]
    parts = [mean_BF, spread_BF.log(), unit_BTF.pow(3).mean(dim=1).clamp(-4, 4)]
    power_BHF = torch.fft.rfft(unit_BTF, dim=1).abs().square() / unit_BTF.shape[1] ** 2
    hertz = torch.fft.rfftfreq(unit_BTF.shape[1], 1 / _FRAMES_PER_SECOND)
    for low, high in pairwise(_MODULATIONS_HZ):
        inside = (hertz >= low) & (hertz < high)
        parts.append((power_BHF[:, inside].sum(dim=1) + 1e-3).log())
    for step in (1, 2, 4, 8):
        parts.append((unit_BTF[..., step:] * unit_BTF[..., :-step]).mean(dim=1))
    time_T = torch.linspace(-1.7, 1.7, unit_BTF.shape[1])
    parts.append((unit_BTF * time_T[:, None]).mean(dim=1))
    parts.append((unit_BTF * (time_T.square() - time_T.square().mean())[:, None]).mean(dim=1))
    change_BTF = unit_BTF[:, 2:] - unit_BTF[:, :-2]
    change_BTF = change_BTF / (change_BTF.square().mean(dim=1, keepdim=True).sqrt() + 0.02)
    parts.append(change_BTF.pow(3).mean(dim=1).clamp(-4, 4))
    for step in (1, 2):
        lower_BTF, upper_BTF = unit_BTF[..., :-step], unit_BTF[..., step:]
        for lag in (2, 6):
            later = (upper_BTF[:, lag:] * lower_BTF[:, :-lag]).mean(dim=1)
            parts.append(later - (lower_BTF[:, lag:] * upper_BTF[:, :-lag]).mean(dim=1))
    return torch.cat(parts, dim=1)


class Objectives(nn.Module):
    """Heads over the backbone's last hidden states, and the weighted sum of their losses.

    All but two heads are linear in the mean of the patch tokens, so that what they learn can be read linearly
    from it later. The class token answers for the kinds and the distillation token for the texture, so that both
    are worth pooling.
    """

    texture_mean: Tensor
    texture_std: Tensor

    def __init__(self, width: int, texture_mean: Tensor, texture_std: Tensor):
        super().__init__()
        self.register_buffer("texture_mean", texture_mean)
        self.register_buffer("texture_std", texture_std)
        sizes = {"kind": len(KINDS), "envelope": len(ENVELOPES), "pitch": PITCH_BINS, "rhythm": RHYTHM_BINS}
        sizes |= {"room": ROOM_BINS, "snr": 1, "texture": len(texture_mean)}
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        self.cls_head = nn.Linear(width, len(KINDS))
        self.distillation_head = nn.Linear(width, len(texture_mean))
        self.projection = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 96))

    def forward(self, hidden_BND: Tensor, batch: Batch, normalised_BTM: Tensor) -> dict[str, Tensor]:
        """Losses by name, each a scalar; `total` is their weighted sum."""
        pooled_BD = hidden_BND[:, 2:].mean(dim=1)
        losses = {"kind": _multilabel(self.heads["kind"](pooled_BD), batch.kinds_BK)}
        losses["cls"] = _multilabel(self.cls_head(hidden_BND[:, 0]), batch.kinds_BK)
        for name in ("envelope", "pitch", "rhythm", "room"):
            losses[name] = F.cross_entropy(self.heads[name](pooled_BD), batch.labels[name])
        losses["snr"] = F.mse_loss(self.heads["snr"](pooled_BD)[:, 0], batch.snr_B)
        goal = (texture(normalised_BTM) - self.texture_mean) / self.texture_std
        read = F.smooth_l1_loss(self.heads["texture"](pooled_BD), goal)
        losses["texture"] = read + 0.5 * F.smooth_l1_loss(self.distillation_head(hidden_BND[:, 1]), goal)
        losses["same"] = _same(self.projection(pooled_BD))
        losses["total"] = torch.stack([weight * losses[name] for name, weight in _WEIGHTS.items()]).sum()
        return losses


def _multilabel(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Binary cross-entropy, summed over kinds so that its size is that of a cross-entropy."""
    return F.binary_cross_entropy_with_logits(logits_BK, targets_BK, reduction="none").sum(dim=1).mean()


def _same(projected_BP: Tensor, temperature: float = 0.15) -> Tensor:
    """Normalised temperature-scaled cross-entropy (SimCLR): example i's partner is example i + B/2."""
    unit_BP = F.normalize(projected_BP, dim=1)
    similarity_BB = unit_BP @ unit_BP.T / temperature
    similarity_BB = similarity_BB.masked_fill(torch.eye(len(unit_BP), dtype=torch.bool), -1e9)
    partner = torch.arange(len(unit_BP)).roll(len(unit_BP) // 2)
    return F.cross_entropy(similarity_BB, partner)
