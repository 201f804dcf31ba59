"""The one configuration object below the sampler: what a trial trains, on what, and how (torch-free).

`TrialConfig.from_flat` takes the dotted keys of a space (fixed part and sampled part together) and gives a
frozen, checked object; `to_flat` gives back exactly the keys that are active for its method.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args

from pydantic import Field, model_validator

from petl.config import MethodConfig, Options, PositiveInt, method_keys
from petl.errors import ConfigError, nearest
from petl.keys import KeyInfo, flatten, keys_of, nest, validated

EMBEDDED: Final = "embedded"
"""Name of the backbone and of the data set that come with the project."""

DatasetName = Literal[
    "embedded",
    "audioset",
    "audio_snips",
    "esc50",
    "esd",
    "fleurs",
    "fluent_speech_commands",
    "folder",
    "gtzan",
    "huggingface",
    "iemocap",
    "librispeech",
    "manifest",
    "meld",
    "openmic",
    "speech_commands_v1",
    "speech_commands_v2",
    "timit",
    "urbansound8k",
    "vctk",
    "voxpopuli",
]
DATASETS: tuple[str, ...] = get_args(DatasetName)
"""Names of the modules of `trainables.data.datasets`."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]

WHEREABOUTS: Final = ("data", "train.deadline", "train.storage_patience", "train.loaders")
"""Keys that may differ from machine to machine, and change no number."""


class DataOptions(Options):
    """Where the clips come from, what is learned of them, and how they are split and cut."""

    dataset: DatasetName = EMBEDDED
    path: str | None = None
    target: str | None = None  # what is learned, one of the data set's targets; None: its first
    subset: str | None = None  # which part of the data set, where it has several; None: its first
    # standard: nothing that chooses ever reads a test clip. Otherwise as the code of that system split the data.
    protocol: Literal["standard", "petl_ast", "sure", "aat"] = "standard"
    # Of data with folds: the one held out for the test, several ("1,3"), or "all". A trial then trains on each.
    fold: PositiveInt | str = 1
    shots: PositiveInt | None = None  # training clips per class, drawn; None: all of them
    draw: PositiveInt | str = 1  # which draw of them; several ("1,2,3"): a trial trains on each
    val_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2
    split_seed: Count = 0  # apart from `seed`, so that repeats of a trial share their split
    lexicon: str | None = None  # word -> phonemes, where phonemes are learned from text
    # Of 10 ms. None: what 99 % of the clips fit into, but at most 1024 for an AST, 2000 for a waveform model, and the
    # positions of a Whisper encoder.
    frames: Annotated[int, Field(ge=16, le=4096)] | None = None
    # Whose mean and deviation scale an AST's features: the training clips', the checkpoint's, or AudioSet's.
    normalize: Literal["dataset", "backbone", "audioset"] = "dataset"
    # Of waveforms. masked: to the longest clip of the batch, and the backbone is told, so that a clip gives the same
    # whatever it is batched with; checkpoint: the same, but told only if preprocessor_config.json says so (the
    # published base models: no); fixed: always to `frames`. What is told to the backbone is not told to every pooling:
    # mean, patches, speech and prompts+speech take padding in, as the published systems do, so that with them the
    # outputs of shorter clips depend on the longest clip of their batch unless this is `fixed`. The poolings
    # masked_mean and stats leave padding out.
    padding: Literal["masked", "checkpoint", "fixed"] = "masked"
    skip_bad_files: bool = False

    @model_validator(mode="after")
    def _repeats_named(self) -> Self:
        for key, value, words in (("fold", self.fold, ("all",)), ("draw", self.draw, ())):
            if isinstance(value, str) and value not in words:
                numbers = [part.strip() for part in value.split(",")]
                if not all(n.isdecimal() and int(n) > 0 for n in numbers) or len(set(numbers)) < len(numbers):
                    several = ' or several ("1,3")' + "".join(f', or "{word}"' for word in words)
                    raise ValueError(f"data.{key} is '{value}'; it is a number from 1 on{several}")
        if self.draw != 1 and self.shots is None:
            raise ValueError("data.draw names a draw of data.shots clips per class; give data.shots, too")
        return self


class OptimOptions(Options):
    """AdamW; the defaults are those of PETL_AST (arXiv 2312.03694), but that LayerNorms and biases do not decay."""

    lr: Annotated[float, Field(gt=0)] = 5e-3
    head_lr: Annotated[float, Field(gt=0)] | None = None  # None: the same as lr
    weight_decay: NonNegative = 0.1
    decay: Literal["matrices", "all"] = "matrices"  # all: vectors (biases, LayerNorms) too, as PETL_AST
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    eps: Annotated[float, Field(gt=0)] = 1e-6


class ScheduleOptions(Options):
    """Learning rate over the steps: linear warm-up, then a decay.

    cosine, linear: to zero at the last step. tri_stage (SURE): constant until the share `hold_ratio` + `warmup_ratio`
    of all steps, then linear to zero. step (AAT): times `step_factor` after `step_start` epochs and every `step_every`
    epochs from there. constant: no decay. At most one of the three warm-ups is given.
    """

    name: Literal["cosine", "linear", "constant", "tri_stage", "step"] = "cosine"
    warmup_epochs: NonNegative = 0.0
    warmup_steps: Count = 0
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of all steps
    hold_ratio: Share = 0.4
    step_start: PositiveInt = 1
    step_every: PositiveInt = 1
    step_factor: Annotated[float, Field(gt=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        given = [name for name in ("warmup_epochs", "warmup_steps", "warmup_ratio") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"schedule.{given[1]} and schedule.{given[0]} are both given; give one warm-up")
        return self


class AugOptions(Options):
    """Augmentation of training batches. Each one is off at its default.

    Of the waveform: mixup, noise, speed, gain. Of the features of spectrogram models: the masks of SpecAugment and
    `feature_noise`. `roll` shifts whatever the backbone reads. `WAVEFORM` names the keys of the first kind.
    """

    WAVEFORM: ClassVar[frozenset[str]] = frozenset({"aug.mixup", "aug.noise", "aug.speed", "aug.gain"})

    freq_mask: Annotated[int, Field(ge=0, le=128)] = 0  # widest SpecAugment mask, mel bins
    time_mask: Count = 0  # the same in frames
    # What a mask leaves: the mean level, or (AAT) 0 before the normalisation, which is louder than most sounds.
    mask_fill: Literal["mean", "zero"] = "mean"
    mixup: Share = 0.0  # share of the clips that get another one mixed in
    mixup_alpha: Annotated[float, Field(gt=0)] = 10.0  # its weight is drawn from Beta(alpha, alpha)
    noise: Share = 0.0  # share of the clips that get white noise
    noise_snr: float = 10.0  # dB, the least; drawn uniformly up to 30 dB above it
    feature_noise: NonNegative = 0.0  # AAT: 0.1; each clip's level, drawn up to it, times uniform noise
    roll: Count = 0  # most frames of 10 ms that a clip is shifted by, round its end
    speed: Annotated[float, Field(ge=0, lt=0.5)] = 0.0  # a clip runs at 1 - speed, 1 or 1 + speed
    gain: NonNegative = 0.0  # dB, most; drawn uniformly from [-gain, gain]

    @property
    def of_waveform(self) -> bool:
        """Whether anything is done to the waveform itself, so that features cannot come out of a cache."""
        return any(getattr(self, key.removeprefix("aug.")) for key in self.WAVEFORM)


class TrainOptions(Options):
    """The loop around the method."""

    batch_size: PositiveInt = 32  # clips of one step, of all workers together
    accumulate: PositiveInt = 1  # parts that a batch is computed in, one after the other
    # Seconds of audio in one step, padding included; batches are then of as many clips as fit, batch_size at most.
    batch_seconds: Annotated[float, Field(gt=0)] | None = None
    batching: Literal["shuffled", "bucketed"] = "shuffled"  # bucketed: clips of like length together
    balanced: bool = False  # draw clips so that every class is as frequent as the others
    eval_batch_size: PositiveInt = 64
    loaders: PositiveInt = 1  # threads that make batches
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gradient_checkpointing: bool = False
    grad_clip: NonNegative = 0.0  # 0: none
    deadline: Annotated[float, Field(ge=1)] = 3600.0  # seconds an epoch may take before its workers count as hung
    storage_patience: Annotated[float, Field(ge=0)] = 300.0  # seconds to try again for where checkpoints cannot be kept
    # auto: the task's own. bce: a single label as one yes and many noes, as AAT.
    loss: Literal["auto", "cross_entropy", "bce", "am_softmax"] = "auto"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    margin: NonNegative = 0.2  # of am_softmax
    scale: Annotated[float, Field(gt=0)] = 30.0  # of am_softmax
    patience: PositiveInt | None = None  # a trial ends after so many epochs without a better one
    # Weights are averaged over these epochs, the averages judged; average_last may be left out. None: no averaging.
    average_first: PositiveInt | None = None
    average_last: PositiveInt | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.average_last is not None and self.average_first is None:
            raise ValueError("train.average_last needs train.average_first, the epoch from which on is averaged")
        if self.average_last is not None and self.average_first is not None and self.average_last < self.average_first:
            raise ValueError(
                f"train.average_last ({self.average_last}) is below train.average_first ({self.average_first})"
            )
        if self.accumulate > self.batch_size:
            raise ValueError(f"train.accumulate ({self.accumulate}) parts of train.batch_size {self.batch_size} clips")
        if self.batch_seconds is not None and self.balanced:
            raise ValueError("train.balanced draws clips one by one; leave train.batch_seconds out beside it")
        return self


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

    # A published recipe; it sets whatever is not set beside it, and then says where a run's numbers came from.
    recipe: Literal["petl_ast", "sure", "aat"] | None = None
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

    @model_validator(mode="after")
    def _averaged(self) -> Self:
        if self.train.average_first is not None and self.train.average_first > self.epochs:
            raise ValueError(
                f"train.average_first ({self.train.average_first}) is beyond the last of {self.epochs} epochs"
            )
        return self

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> Self:
        """Build from dotted keys, those of a `recipe` under the others.

        Raises `ConfigError` naming the key for anything unknown, wrong or unused.
        """
        if flat.get("recipe") is not None:
            from trainables.recipes import expanded

            flat = expanded(flat)
        known = {info.key: info for info in trial_keys()}
        for key, value in flat.items():
            if key not in known:
                raise ConfigError(f"'{key}' is not a known key{nearest(key, known)}", key)
            known[key].check(value)
        flat = {key: known[key].read(value) for key, value in flat.items()}
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
