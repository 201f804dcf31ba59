"""The one configuration object below the sampler: what a trial trains, on what, and how (torch-free).

`TrialConfig.from_flat` takes the dotted keys of a space (fixed part and sampled part together) and gives a
frozen, checked object; `to_flat` gives back exactly the keys that are active for its method.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from petl.config import MethodConfig, Options, PositiveInt, method_keys
from petl.errors import ConfigError, nearest
from petl.keys import KeyInfo, flatten, keys_of, nest, validated

EMBEDDED: Final = "embedded"
"""Name of the backbone and of the data set that come with the project."""

DATASETS = (EMBEDDED, "esc50", "folder", "manifest")

Fraction = Annotated[float, Field(gt=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]


class DataOptions(Options):
    """Where the clips come from and how they are split and cut."""

    dataset: Literal["embedded", "esc50", "folder", "manifest"] = EMBEDDED
    path: str | None = None
    protocol: Literal["standard", "petl_ast"] = "standard"  # esc50 only: 4/1 with validation cut out, or 3/1/1
    fold: PositiveInt = 1  # the fold held out for the test, where the data set has folds
    val_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2
    split_seed: Annotated[int, Field(ge=0)] = 0  # apart from `seed`, so that repeats of a trial share their split
    # Of 10 ms. None: what 99 % of the clips fit into, but at most 1024 for an AST, 2000 for a waveform model, and the
    # positions of a Whisper encoder.
    frames: Annotated[int, Field(ge=16, le=4096)] | None = None
    normalize: Literal["dataset", "backbone"] = "dataset"  # whose mean and deviation scale an AST's features
    # Of waveforms. masked: to the longest clip of the batch, and the backbone is told, so that a clip gives the same
    # whatever it is batched with; checkpoint: the same, but told only if preprocessor_config.json says so (the
    # published base models: no); fixed: always to `frames`. What is told to the backbone is not told to every pooling:
    # mean, patches, speech and prompts+speech take padding in, as the published systems do, so that with them the
    # outputs of shorter clips depend on the longest clip of their batch unless this is `fixed`. The poolings
    # masked_mean and stats leave padding out.
    padding: Literal["masked", "checkpoint", "fixed"] = "masked"
    skip_bad_files: bool = False


class OptimOptions(Options):
    """AdamW, as in the published recipe (beta 0.9/0.98, eps 1e-6); LayerNorms and biases are not decayed."""

    lr: Annotated[float, Field(gt=0)] = 5e-3
    head_lr: Annotated[float, Field(gt=0)] | None = None  # None: the same as lr
    weight_decay: NonNegative = 0.1


class ScheduleOptions(Options):
    """Learning rate over the steps: linear warm-up, then cosine or linear to zero, or constant."""

    name: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_epochs: NonNegative = 0.0


class AugOptions(Options):
    """SpecAugment masks on the normalised features of spectrogram models; 0 turns a mask off."""

    freq_mask: Annotated[int, Field(ge=0, le=128)] = 0  # mel bins
    time_mask: Annotated[int, Field(ge=0)] = 0  # frames


class TrainOptions(Options):
    """The loop around the method."""

    batch_size: PositiveInt = 32  # of all workers together
    eval_batch_size: PositiveInt = 64
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    grad_clip: NonNegative = 0.0  # 0: none
    deadline: Annotated[float, Field(gt=0)] = 3600.0  # seconds an epoch may take before its workers count as hung
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


_SECTIONS: dict[str, type[Options]] = {
    "data": DataOptions,
    "optim": OptimOptions,
    "schedule": ScheduleOptions,
    "aug": AugOptions,
    "train": TrainOptions,
}
_SHORT = {"data.dataset": "dataset", "data.path": "data"}
_LONG = {short: long for long, short in _SHORT.items()}


class TrialConfig(Options):
    """Everything a trial depends on besides the bytes of its data."""

    backbone: str = EMBEDDED  # hub id, local directory, or "embedded"
    revision: str | None = None
    positions: Literal["interpolate", "zero"] = "interpolate"  # "zero": as the published code trained
    frequency_stride: PositiveInt | None = None  # of an AST's patches; None: the checkpoint's own
    time_stride: PositiveInt | None = None
    epochs: PositiveInt = 27
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataOptions = DataOptions()
    optim: OptimOptions = OptimOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    aug: AugOptions = AugOptions()
    train: TrainOptions = TrainOptions()
    method: MethodConfig = MethodConfig()

    @model_validator(mode="after")
    def _data_named(self) -> Self:
        if self.data.dataset == EMBEDDED and self.data.path is not None:
            raise ValueError(
                f"data '{self.data.path}' is given, but dataset is 'embedded'; "
                f"say what it is with dataset: {' | '.join(DATASETS[1:])} (--dataset)"
            )
        if self.data.dataset != EMBEDDED and self.data.path is None:
            raise ValueError(f"dataset '{self.data.dataset}' needs data: PATH (--data PATH)")
        if self.data.val_fraction + self.data.test_fraction >= 1:
            raise ValueError("data.val_fraction and data.test_fraction leave nothing to train on")
        return self

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> Self:
        """Build from dotted keys; raise `ConfigError` naming the key for anything unknown, wrong or unused."""
        known = {info.key: info for info in trial_keys()}
        for key, value in flat.items():
            if key not in known:
                raise ConfigError(f"'{key}' is not a known key{nearest(key, known)}", key)
            known[key].check(value)
        of_method = {info.key for info in method_keys()}
        method = MethodConfig.from_flat({k: v for k, v in flat.items() if k in of_method})
        rest = {_LONG.get(k, k): v for k, v in flat.items() if k not in of_method}
        return validated(cls, {**nest(rest, _SECTIONS), "method": method})

    def to_flat(self) -> dict[str, Any]:
        """Every active key under its dotted name; `from_flat(to_flat())` is the same configuration."""
        flat = {_SHORT.get(k, k): v for k, v in flatten(self, _SECTIONS).items() if k != "method"}
        return {**self.method.to_flat(), **{k: v for k, v in flat.items() if v is not None}}


@cache
def trial_keys() -> tuple[KeyInfo, ...]:
    """Every dotted key a space may fix or sample."""
    own = (i for i in keys_of(TrialConfig, _SECTIONS, renamed=_SHORT) if i.key != "method")
    return (*own, *method_keys())
