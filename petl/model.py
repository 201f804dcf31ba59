"""A ready classifier: adapted backbone, pooling, head, and prediction from audio.

B batch, S samples (or input positions), T rows of a front end, M numbers per row, N tokens, D model width, C classes.
In `mask_BT`, T counts the tokens of the body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from petl import plan
from petl.adapted import Adapted, seeded_generator
from petl.errors import UserError
from petl.frontend import FrontEnd, clip_features
from petl.heads import build_head
from petl.layout import Layout
from petl.pooling import MASKED, body_mask, pooled
from petl.state import checked_state, copy_state


@dataclass(frozen=True)
class Prediction:
    """The most probable label of one clip, and the probability of every label in the head's order."""

    label: str
    probability: float
    probabilities: dict[str, float]


class AudioClassifier(nn.Module):
    """Single-label clip classification on an adapted backbone.

    `pooling` says how the tokens of the output become what the head sees (see `petl.pooling`); `adapted.method.head`
    is the kind of head (see `petl.heads`), drawn from `seed` (see `attach`). The front end makes its inputs; it has
    to be one of the backbone's kind and, where the backbone takes one length only, of that length.
    """

    def __init__(
        self,
        adapted: Adapted,
        labels: Sequence[str],
        front_end: FrontEnd | Mapping[str, Any],
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(front_end, Mapping):  # as `petl.read_front_end` gives it
            front_end = FrontEnd.from_preprocessor(front_end)
        if len(labels) < 2 or len(set(labels)) != len(labels):
            raise UserError(f"a classifier needs at least two labels, all different; found {list(labels)[:5]}")
        front_end.check(adapted.shape)
        self.adapted = adapted
        self.labels = tuple(labels)
        self.front_end = front_end
        self.pooling = plan.pooling(adapted.method, adapted.family)
        reference = next(adapted.backbone.parameters())
        head = build_head(adapted.method.head, adapted.shape.hidden, self.pooling, len(labels), seeded_generator(seed))
        self.head = head.to(device=reference.device, dtype=reference.dtype)

    def forward(self, values: Tensor, mask_BS: Tensor | None = None) -> Tensor:
        """Inputs (B, ...) as the front end collates them, and which of their positions are real -> logits (B, C).

        A backbone that takes masks is given this one if the front end says so; poolings that leave padding out use
        it on every backbone.
        """
        if mask_BS is not None and self.front_end.masked and self.adapted.family.masks:
            output = self.adapted(values, attention_mask=mask_BS)
        else:
            output = self.adapted(values)
        x_BND = self.head.project(output.last_hidden_state)
        layout = self.adapted.layout
        if mask_BS is not None and layout.mask_BT is None and self.pooling in MASKED:
            mask_BT = body_mask(mask_BS, layout, self.adapted.shape)
            layout = Layout(layout.special, layout.prompts, layout.body, layout.grid, mask_BT)
        return self.head(pooled(x_BND, layout, self.pooling))

    def trainable(self) -> dict[str, nn.Parameter]:
        """Everything that trains, head included: name -> parameter."""
        head = {f"head.{name}": p for name, p in self.head.named_parameters()}
        return {**self.adapted.trainable(), **head}

    def stored(self) -> dict[str, Tensor]:
        """What a saved adapter holds: everything that trains, and statistics that training gathers."""
        return {**self.adapted.stored(), **self.trainable()}

    def adapter_state(self) -> dict[str, Tensor]:
        """Copies of the stored tensors, head included, on their device."""
        return {name: t.detach().clone() for name, t in self.stored().items()}

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy stored tensors in; `UserError` when names, shapes or values are not those of this model."""
        checked_state(state, {name: tuple(t.shape) for name, t in self.stored().items()}, "the adapter state")
        head = {f"head.{name}": p for name, p in self.head.named_parameters()}
        self.adapted.load_adapter_state({name: tensor for name, tensor in state.items() if name not in head})
        copy_state({name: state[name] for name in head}, head, "the adapter state")

    def features(self, clip: str | Path | Tensor | np.ndarray) -> Tensor:
        """A recording, or a mono waveform (S,) at the front end's sample rate, as the front end's rows (T, M).

        `front_end.collate` makes a batch of several. Raises `AudioError` for what cannot be used.
        """
        if isinstance(clip, (str, Path)):
            return clip_features(clip, self.front_end)
        wave_S = torch.as_tensor(clip, dtype=torch.float32).cpu()
        if wave_S.ndim != 1:
            raise UserError(f"a waveform has the shape (samples,); found {tuple(wave_S.shape)}")
        if not bool(torch.isfinite(wave_S).all()):
            raise UserError("the waveform holds samples that are NaN or infinite")
        return self.front_end.extract(wave_S)

    def predict(self, clip: str | Path | Tensor | np.ndarray) -> Prediction:
        """Classify one recording (a path), or a mono waveform (S,) at `front_end.sample_rate` Hz."""
        return self.predict_many([clip])[0]

    def predict_many(
        self, clips: Iterable[str | Path | Tensor | np.ndarray], *, batch_size: int = 16
    ) -> list[Prediction]:
        """Classify recordings or waveforms, in order, `batch_size` at a time."""
        reference = next(self.head.parameters())
        was_training = self.training
        self.eval()
        found: list[Prediction] = []
        remaining = iter(clips)
        try:
            with torch.inference_mode():
                while batch := [self.features(clip) for clip in islice(remaining, batch_size)]:
                    inputs = self.front_end.collate(batch).to(reference.device, reference.dtype)
                    logits_BC = self(inputs.values, inputs.mask)
                    found += [self._prediction(row) for row in logits_BC.float().softmax(-1).cpu()]
        finally:
            self.train(was_training)
        return found

    def _prediction(self, probabilities_C: Tensor) -> Prediction:
        values = dict(zip(self.labels, probabilities_C.tolist(), strict=True))
        label = self.labels[int(probabilities_C.argmax())]
        return Prediction(label, values[label], values)
