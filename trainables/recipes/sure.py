"""SURE (arXiv 2303.03267): how it trained each method on each task, with wav2vec 2.0 (XLSR-53, tuned to English).

Emotion recognition (ESD, MELD, IEMOCAP), speaker recognition (VCTK, ESD), keyword spotting (eleven words of Speech
Commands v1), intents as three slots (Fluent Speech Commands), speech recognition, phoneme recognition (LibriSpeech),
slot filling (Audio SNIPS), and, from the history of its code, speaker verification (VCTK). The values are those of the
commands in its readmes and scripts; batches are those of its two GPUs and all accumulated parts together. The frozen
backbone keeps dropout, LayerDrop and latent SpecAugment (`backbone_mode: train`), as it did there.

What differs from it:

* `train.patience` counts epochs; there it counts evaluations, every 25 to 200 steps, against a best value that is only
  renewed where a checkpoint is written (every 200 to 5,000 steps), which no rule by epochs repeats;
* slot filling, and speech recognition on LibriSpeech, run for 50,000 steps: the nearest number of epochs on the whole
  data set. LibriSpeech's values for speech recognition are those of the runs that its code history holds, on 100 hours;
  on the other data sets they are those of its example, FLEURS. Its MELD transcripts could not be read by the code;
* speaker recognition, "full" fine-tuning: its code freezes the layers below the last four. Method `partial` trains
  these; method `full` everything, with the same rate;
* projector and classifier alone (method `linear`, no flag set there): no script trains it; it takes the scripts' most
  frequent rate, 2e-3;
* the phoneme recogniser takes samples that are not scaled, and no mask; here they are, and there is one. Its TIMIT
  branch is empty: the settings are LibriSpeech's. Batches of clips of like length stand for its batches, which are
  sorted by the length of the labels;
* speech recognition and slot filling pad every batch to 12.5 s; here batches are padded to their longest clip;
* verification: a linear map before mean and deviation in the place of the x-vector's convolutions;
* its seeds (1314, 42) are not set: they mean nothing to other code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from petl.presets import PRESETS
from trainables.recipes.base import Case, Kind, Part, Recipe, Variant

_CODE = "SURE, arXiv 2303.03267, code"

_LINEAR = Variant("linear", "sure_linear")
_FULL = Variant("full", "sure_full")
_FULL_SPEECH = Variant("full", "sure_full_speech")
_TOP4 = Variant("partial", "sure_top4")
_BOTTLENECK = Variant("adapter", "sure_bottleneck", {"adapter.block": (None, "bottleneck")})
_CONV = Variant("adapter", "sure_conv_adapter", {"adapter.block": ("conv",)})
_LORA = Variant("lora", "sure_lora")
_PREFIX = Variant("prefix", "sure_prefix")

_COLUMNS: dict[str, tuple[Variant, ...]] = {
    "full": (_FULL,),
    "bottleneck": (_BOTTLENECK,),
    "lora": (_LORA,),
    "prefix": (_PREFIX,),
    "conv": (_CONV,),
}


def _rates(full: float, bottleneck: float, lora: float, prefix: float, conv: float) -> dict[str, float]:
    return {"full": full, "bottleneck": bottleneck, "lora": lora, "prefix": prefix, "conv": conv}


@dataclass(frozen=True)
class _Task:
    """One script: rates by method, clips on a device, devices, parts; `own` are keys of its own."""

    script: str
    rates: Mapping[str, float]
    device_batch: int
    parts: int
    epochs: int
    own: Mapping[str, Any]
    devices: int = 2
    speech: bool = False  # CTC: every frame is judged, and the convolutions stay frozen
    top: bool = False  # its full fine-tuning is that of the last four layers
    epochs_of: Mapping[str, int] = field(default_factory=dict)  # of single methods
    device_batch_of: Mapping[str, int] = field(default_factory=dict)


_RATIO = {"schedule.name": "linear", "schedule.warmup_ratio": 0.1}
_STAGES = {"schedule.name": "tri_stage", "schedule.warmup_ratio": 0.1, "schedule.hold_ratio": 0.4}
_SHORT = {**_RATIO, "data.frames": 250, "train.patience": 5, "train.loss": "cross_entropy"}  # 40,000 samples
_LONG_TRAINING = {
    "optim.weight_decay": 0.005,
    "train.precision": "float16",
    "train.gradient_checkpointing": True,
    "train.batching": "bucketed",
}
_WARM_1000 = {"schedule.warmup_steps": 1000}
_CLIP_12S = {"data.frames": 1250}  # 200,000 samples
_FLEURS = {**_LONG_TRAINING, **_WARM_1000, "schedule.name": "tri_stage", "schedule.hold_ratio": 0.4}
_EVERY = _rates(2e-3, 2e-3, 2e-3, 2e-3, 2e-3)

_EMOTION = _Task("train.sh, emo_cls_meld.sh", _EVERY, 64, 4, 100, _SHORT)
_SPEECH = _Task("tasks/asr/readme.md", _EVERY, 32, 1, 50, {**_FLEURS, **_CLIP_12S}, speech=True)
_PHONEMES = _Task(
    "tasks/phoneme_recognition/pr.sh",
    _rates(2e-2, 2e-3, 2e-2, 2e-2, 2e-2),
    16,
    4,
    30,
    # 35 s: nothing is cut.
    {**_LONG_TRAINING, **_WARM_1000, "schedule.name": "linear", "train.patience": 5, "data.frames": 3500},
    speech=True,
    epochs_of={"bottleneck": 100},
)

_TASKS: dict[tuple[str, str], _Task] = {
    ("esd", "emotion"): _EMOTION,
    ("meld", "emotion"): _EMOTION,
    ("iemocap", "emotion"): _Task("emo_cls_iemocap.sh", _EVERY, 64, 4, 100, _SHORT),
    ("vctk", "speaker"): _Task(
        "tasks/speaker_classification/sp_cls.sh",
        _rates(8e-6, 8e-6, 2e-4, 2e-3, 2e-3),
        64,
        4,
        100,
        _SHORT,
        top=True,
    ),
    ("esd", "speaker"): _Task(
        "tasks/speaker_classification/sp_cls_esd.sh", _rates(8e-6, 8e-6, 8e-6, 8e-6, 2e-3), 64, 4, 100, _SHORT, top=True
    ),
    ("speech_commands_v1", "word"): _Task(
        "tasks/keyword_spotting/ks.sh",
        _rates(8e-6, 8e-6, 8e-6, 2e-4, 2e-4),
        64,
        4,
        100,
        _SHORT,
    ),
    ("fluent_speech_commands", "slots"): _Task(
        "tasks/intent_classification/ic.sh",
        _rates(2e-4, 2e-4, 2e-4, 2e-3, 2e-4),
        8,
        4,
        100,
        {**_RATIO, "data.frames": 1375, "train.patience": 3},  # 220,000 samples
    ),
    ("fleurs", "text"): _SPEECH,
    ("voxpopuli", "text"): _SPEECH,
    ("meld", "text"): _SPEECH,
    ("esd", "text"): _Task("tasks/asr/readme.md", _EVERY, 32, 1, 50, {**_FLEURS, "data.frames": 250}, speech=True),
    ("librispeech", "text"): _Task(
        "code history, tasks/asr/asr_librispeech.sh: 50,000 steps",
        _rates(3e-5, 3e-4, 3e-4, 3e-4, 2e-4),
        8,
        1,
        28,
        {**_LONG_TRAINING, **_STAGES, **_CLIP_12S},
        speech=True,
        epochs_of={"conv": 224},
        device_batch_of={"conv": 64},
    ),
    ("librispeech", "phonemes"): _PHONEMES,
    ("timit", "phonemes"): _PHONEMES,
    ("audio_snips", "slots"): _Task(
        "tasks/slot_filling/sf.sh: 50,000 steps",
        _rates(2e-4, 2e-4, 2e-4, 2e-3, 2e-5),
        8,
        1,
        4,
        {**_STAGES, **_CLIP_12S},
        speech=True,
    ),
    ("vctk", "verification"): _Task(
        "code history, tasks/speaker_verification/sv.sh",
        {"full": 2e-4},
        2,
        4,
        2,
        {**_RATIO, "train.loss": "am_softmax", "train.patience": 3, "pooling": "stats"},
        devices=1,
    ),
}

_SUBSETS = {"iemocap": {"data.subset": "11"}, "speech_commands_v1": {"data.subset": "11"}}  # labels; words

_BY_DATASET: dict[str, tuple[str, ...]] = {}
for _dataset, _target in _TASKS:
    _BY_DATASET[_dataset] = (*_BY_DATASET.get(_dataset, ()), _target)


def _variants(dataset: str, target: str, kind: Kind) -> tuple[Variant, ...]:
    if kind != "waveform":
        return ()
    task = _TASKS[dataset, target]
    found = [variant for column in task.rates for variant in _COLUMNS[column]]
    if task.speech:
        found = [_FULL_SPEECH if variant is _FULL else variant for variant in found]
    top = (_TOP4,) if task.top else ()
    return (*found, *top, *((_LINEAR,) if "conv" in task.rates else ()))


def _parts(case: Case) -> tuple[Part, ...]:
    task = _TASKS[case.dataset, case.target]
    column = next(
        (name for name, variants in _COLUMNS.items() if case.variant in variants), "full"
    )  # its other kinds of full fine-tuning
    batch = task.device_batch_of.get(column, task.device_batch) * task.devices * task.parts
    method = case.variant.part()
    if task.speech:  # one linear map on every frame
        method = Part(method.source, {k: v for k, v in method.keys.items() if not k.startswith("head.")})
    return (
        Part(
            f"{_CODE}: transformers' Trainer by default",
            {
                "optim.weight_decay": 0.0,
                "optim.decay": "matrices",
                "optim.beta1": 0.9,
                "optim.beta2": 0.999,
                "optim.eps": 1e-8,
                "train.grad_clip": 1.0,
                "train.precision": "float32",
            },
        ),
        Part(
            f"{_CODE}, data.py",
            {
                "data.padding": "masked",
                "data.target": case.target,
                "data.protocol": "sure",
                **_SUBSETS.get(case.dataset, {}),
            },
        ),
        method,
        *(() if task.speech else (Part(f"{_CODE}, modeling_wav2vec2.py", {"pooling": "masked_mean"}),)),
        Part(
            f"{_CODE}, {task.script}",
            {
                "optim.lr": task.rates[column],
                "train.batch_size": batch,
                "train.accumulate": task.parts,
                "epochs": task.epochs_of.get(column, task.epochs),
                **task.own,
            },
        ),
        *((Part(method.source, {"optim.lr": PRESETS[_LINEAR.preset].lr}),) if case.variant is _LINEAR else ()),
    )


RECIPE = Recipe(
    name="sure",
    summary="wav2vec 2.0 on speech tasks with ConvAdapter, bottlenecks, LoRA, prefixes and full fine-tuning",
    source="SURE, arXiv 2303.03267",
    targets=_BY_DATASET,
    kinds=("waveform",),
    variants=_variants,
    parts=_parts,
)
