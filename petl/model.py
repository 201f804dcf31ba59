"""A ready model: adapted backbone, pooling, head, and prediction from audio.

B batch, S samples (or input positions), T rows of a front end, M numbers per row, N tokens, D model width, C classes.
In `mask_BT`, T counts the tokens of the body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from petl.outputs import Output, Prediction, as_output
from petl.pooling import MASKED, along_time, body_mask, pooled
from petl.shape import AST_TYPE
from petl.state import checked_state, copy_state


class AudioModel(nn.Module):
    """An adapted backbone with a head that answers as its output says (see `petl.outputs`): classes, tags, text, …

    `pooling` says how the tokens of the output become what the head sees (see `petl.pooling`); `adapted.method.head`
    is the kind of head (see `petl.heads`), drawn from `seed` (see `attach`). The front end makes its inputs; it has
    to be one of the backbone's kind and, where the backbone takes one length only, of that length.
    """

    def __init__(
        self,
        adapted: Adapted,
        output: Output | Sequence[str],
        front_end: FrontEnd | Mapping[str, Any],
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(front_end, Mapping):  # as `petl.read_front_end` gives it
            front_end = FrontEnd.from_preprocessor(front_end)
        self.output = as_output(output)
        self.output.check()
        front_end.check(adapted.shape)
        self.adapted = adapted
        self.front_end = front_end
        self.pooling = plan.pooling(adapted.method, adapted.family)
        reference = next(adapted.backbone.parameters())
        options, generator = adapted.method.head, seeded_generator(seed)
        head = build_head(options, adapted.shape.hidden, self.pooling, self.output, generator)
        self.head = head.to(device=reference.device, dtype=reference.dtype)

    @property
    def labels(self) -> tuple[str, ...]:
        """What the model answers with, in the head's order."""
        return self.output.labels

    def forward(self, values: Tensor, mask_BS: Tensor | None = None) -> Tensor:
        """Inputs (B, ...) as the front end collates them, and which of their positions are real -> logits.

        They are (B, C); for sequences (B, T, C), T tokens along time of which `lengths` says how many are of the
        recording; for speakers see `petl.heads.Cosine`. A backbone that takes masks is given this one if the front end
        says so; poolings that leave padding out use it on every backbone.
        """
        if mask_BS is not None and self.front_end.masked and self.adapted.family.masks:
            output = self.adapted(values, attention_mask=mask_BS)
        else:
            output = self.adapted(values)
        x_BND = self.head.project(output.last_hidden_state)
        layout = self.adapted.layout
        if self.output.sequence:
            return self.head(along_time(x_BND, layout))
        if mask_BS is not None and layout.mask_BT is None and self.pooling in MASKED:
            mask_BT = body_mask(mask_BS, layout, self.adapted.shape)
            layout = Layout(layout.special, layout.prompts, layout.body, layout.grid, mask_BT)
        return self.head(pooled(x_BND, layout, self.pooling))

    def lengths(self, mask_BS: Tensor | None) -> Tensor | None:
        """Tokens along time that hold recording, (B,), for the mask of the last call; None: all of them do."""
        if mask_BS is None:
            return None
        mask_BT = body_mask(mask_BS, self.adapted.layout, self.adapted.shape)
        rows = self.adapted.layout.grid[0] if self.adapted.shape.family == AST_TYPE else 1
        return mask_BT.sum(dim=1) // rows

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

        `front_end.collate` makes a batch of several. A recording is read as far as the input reaches, a waveform is
        taken whole. Raises `AudioError` for what cannot be used.
        """
        if isinstance(clip, (str, Path)):
            return clip_features(clip, self.front_end, end=self._heard_seconds())
        wave_S = torch.as_tensor(clip, dtype=torch.float32).cpu()
        if wave_S.ndim != 1:
            raise UserError(f"a waveform has the shape (samples,); found {tuple(wave_S.shape)}")
        if not bool(torch.isfinite(wave_S).all()):
            raise UserError("the waveform holds samples that are NaN or infinite")
        return self.front_end.extract(wave_S)

    def _heard_seconds(self) -> float:
        """How far into a recording any input reaches, and two windows more, so that resampling sees no end there."""
        front_end = self.front_end
        return (front_end.samples_in(front_end.frames) + 2 * front_end.window) / front_end.sample_rate

    def predict(self, clip: str | Path | Tensor | np.ndarray) -> Prediction:
        """Answer for one recording (a path), or a mono waveform (S,) at `front_end.sample_rate` Hz."""
        return self.predict_many([clip])[0]

    def predict_many(
        self, clips: Iterable[str | Path | Tensor | np.ndarray], *, batch_size: int = 16
    ) -> list[Prediction]:
        """Answer for recordings or waveforms, in order, `batch_size` at a time."""
        reference = next(self.head.parameters())
        was_training = self.training
        self.eval()
        found: list[Prediction] = []
        remaining = iter(clips)
        try:
            with torch.inference_mode():
                while batch := [self.features(clip) for clip in islice(remaining, batch_size)]:
                    inputs = self.front_end.collate(batch).to(reference.device, reference.dtype)
                    logits = self(inputs.values, inputs.mask)
                    found += self.output.predictions(logits, self.lengths(inputs.mask))
        finally:
            self.train(was_training)
        return found
