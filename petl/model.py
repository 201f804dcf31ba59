"""A ready classifier: adapted backbone, pooling, linear head, and prediction from audio.

B batch, T frames, M mel bins, N tokens, D model width, C classes, S samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from petl.adapted import Adapted, seeded_generator
from petl.errors import UserError
from petl.frontend import FrontEnd, clip_features, fbank, model_input
from petl.state import checked_state

HEAD_STD = 0.02


@dataclass(frozen=True)
class Prediction:
    """The most probable label of one clip, and the probability of every label in the head's order."""

    label: str
    probability: float
    probabilities: dict[str, float]


class AudioClassifier(nn.Module):
    """Single-label clip classification on an adapted backbone.

    `adapted.method.pooling` says what the head sees: the mean of all tokens, CLS, (CLS + distillation) / 2,
    or the mean of the patch tokens. The head is drawn from `seed` (see `attach`), its bias is zero.
    """

    def __init__(
        self, adapted: Adapted, labels: Sequence[str], front_end: FrontEnd, *, seed: int | None = None
    ) -> None:
        super().__init__()
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise UserError(f"a classifier needs at least two labels, all different; found {list(labels)[:5]}")
        frames, bins = adapted.config.max_length, adapted.config.num_mel_bins
        if (front_end.frames, front_end.mel_bins) != (frames, bins):
            raise UserError(
                f"the front end gives {front_end.frames} frames of {front_end.mel_bins} mel bins, but the "
                f"backbone was loaded for {frames} of {bins}; "
                f"load it with load_backbone(…, frames={front_end.frames})"
            )
        self.adapted = adapted
        self.labels = tuple(labels)
        self.front_end = front_end
        self.pooling = adapted.method.pooling
        hidden = adapted.config.hidden_size
        reference = next(adapted.backbone.parameters())
        self.head = nn.utils.skip_init(nn.Linear, hidden, len(labels))
        with torch.no_grad():
            self.head.weight.normal_(0, HEAD_STD, generator=seeded_generator(seed))
            self.head.bias.zero_()
        self.head.to(device=reference.device, dtype=reference.dtype)

    def forward(self, input_values_BTM: Tensor) -> Tensor:
        """Normalised log-mel features (B, T, M) -> logits (B, C)."""
        tokens_BND = self.adapted(input_values_BTM).last_hidden_state
        return self.head(pooled(tokens_BND, self.pooling))

    def trainable(self) -> dict[str, nn.Parameter]:
        """Everything that trains, head included: name -> parameter."""
        head = {f"head.{name}": p for name, p in self.head.named_parameters()}
        return {**self.adapted.trainable(), **head}

    def adapter_state(self) -> dict[str, Tensor]:
        """Copies of the trained tensors, head included, on their device."""
        return {name: p.detach().clone() for name, p in self.trainable().items()}

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy trained tensors in; `UserError` when names, shapes or values are not those of this model."""
        own = self.trainable()
        checked = checked_state(state, {name: tuple(p.shape) for name, p in own.items()}, "the adapter state")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(checked[name])

    def features(self, clip: str | Path | Tensor | np.ndarray) -> Tensor:
        """A recording, or a mono waveform (S,) at the front end's sample rate, as model input (T, M).

        Longer clips are cut, shorter ones padded. Raises `AudioError` for what cannot be used.
        """
        if isinstance(clip, (str, Path)):
            return model_input(clip_features(clip, self.front_end), self.front_end)
        wave_S = torch.as_tensor(clip, dtype=torch.float32).cpu()
        if wave_S.ndim != 1:
            raise UserError(f"a waveform has the shape (samples,); found {tuple(wave_S.shape)}")
        if not bool(torch.isfinite(wave_S).all()):
            raise UserError("the waveform holds samples that are NaN or infinite")
        return model_input(fbank(wave_S, self.front_end), self.front_end)

    def predict(self, clip: str | Path | Tensor | np.ndarray) -> Prediction:
        """Classify one recording (a path), or a mono waveform (S,) at `front_end.sample_rate` Hz."""
        return self.predict_many([clip])[0]

    def predict_many(
        self, clips: Iterable[str | Path | Tensor | np.ndarray], *, batch_size: int = 16
    ) -> list[Prediction]:
        """Classify recordings or waveforms, in order, `batch_size` at a time."""
        device = self.head.weight.device
        was_training = self.training
        self.eval()
        found: list[Prediction] = []
        remaining = iter(clips)
        try:
            with torch.inference_mode():
                while batch := [self.features(clip) for clip in islice(remaining, batch_size)]:
                    logits_BC = self(torch.stack(batch).to(device, self.head.weight.dtype))
                    found += [self._prediction(row) for row in logits_BC.float().softmax(-1).cpu()]
        finally:
            self.train(was_training)
        return found

    def _prediction(self, probabilities_C: Tensor) -> Prediction:
        values = dict(zip(self.labels, probabilities_C.tolist(), strict=True))
        label = self.labels[int(probabilities_C.argmax())]
        return Prediction(label, values[label], values)


def pooled(tokens_BND: Tensor, pooling: str) -> Tensor:
    """Pool a sequence CLS, distillation token, patches to (B, D)."""
    if pooling == "mean":
        return tokens_BND.mean(dim=1)
    if pooling == "cls":
        return tokens_BND[:, 0]
    if pooling == "cls+dist":
        return (tokens_BND[:, 0] + tokens_BND[:, 1]) / 2
    if pooling == "patches":
        return tokens_BND[:, 2:].mean(dim=1)
    raise ValueError(f"unknown pooling '{pooling}'")
