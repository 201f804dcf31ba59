"""PETL_AST (arXiv 2312.03694, and 2402.00828 for the mixtures): how it trained each method on each data set.

Fluent Speech Commands, ESC-50, UrbanSound8K, Speech Commands v2 and IEMOCAP, with an AST, and the first and the last
two with wav2vec 2.0. Its accidents are part of what it trained wherever there is an option for them:

* `positions: zero`: for inputs of another length than 1024 frames its loader replaces the position embeddings by zeros;
* `adapter.init: published`: its loader overwrites the zeros that bottlenecks were meant to start with;
* `adapter.layernorm: false` on an AST, where the conformer computes its LayerNorm and drops the result (the published
  counts hold these tensors, ours then do not);
* `moa.legacy_double_add`, `moa.legacy_discard_conv`: a mixture at the attention is added twice, and the convolution of
  a convpass expert dropped;
* `data.protocol: petl_ast`, `data.normalize: audioset`, `optim.decay: all`, prompts in the place of the distillation
  token, and pooling over padding, too.

What differs from it:

* the best epoch's weights are judged where its code keeps a live view of the model and tests the last epoch's;
* LoRA and the experts of mixtures start at zero as they were written, where its loader overwrites them;
* on wav2vec 2.0 it calls the last three layers "full fine-tuning" in the code, and counts all but the convolutions in
  the paper: method `partial` trains the first, method `full` (without the feature encoder) the second. Its linear probe
  of wav2vec 2.0 leaves dropout on, ours off. How long its clips of speech commands were is not known: `data.frames` is
  left out, and batches are padded to the same length (`fixed`), as there is no mask;
* wav2vec 2.0 on IEMOCAP: the widths follow from the counts in table 3, the hyperparameters from nothing else;
* `prefix.split` belongs to the published length: a `prefix.length` given beside the recipe counts pairs;
* on an AST, adapters with blocks that it does not have (convpass, ConvAdapter, the tiny ones) train like its
  bottlenecks, with the sizes that are given or their own defaults;
* its seed (10) is not set: it means nothing to other code.
"""

from __future__ import annotations

from typing import Any

from petl.presets import PRESETS
from trainables.recipes.base import Case, Kind, Part, Recipe, Variant

_PAPER = "PETL_AST, arXiv 2312.03694"
_CODE = "PETL_AST, arXiv 2312.03694, code"
_YAML = f"{_CODE}, hparams/train.yaml"

_TARGETS = {
    "fluent_speech_commands": ("intent",),
    "esc50": ("sound",),
    "urbansound8k": ("sound",),
    "speech_commands_v2": ("word",),
    "iemocap": ("emotion",),
}
_AUDIO = ("esc50", "urbansound8k")  # kernel 8 and SpecAugment; the others are speech
_FOLDS = ("esc50", "urbansound8k", "iemocap")
_BATCH = {"speech_commands_v2": 128}
_FRAMES = {
    "fluent_speech_commands": 400,
    "esc50": 500,
    "urbansound8k": 400,
    "speech_commands_v2": 100,
    "iemocap": 800,
}
_EPOCHS = {
    "fluent_speech_commands": 75,
    "esc50": 50,
    "urbansound8k": 30,
    "speech_commands_v2": 75,
    "iemocap": 20,
}
_EPOCHS_WAVEFORM = {"fluent_speech_commands": 50, "speech_commands_v2": 50, "iemocap": 20}

_BLOCK, _PLACE = "adapter.block", "adapter.location"
_OTHER_BLOCKS = ("convpass", "conv", "tiny_attention", "tiny_external_attention", "tiny_conformer")
_BOTTLENECK: dict[str, tuple[Any, ...]] = {_BLOCK: (None, "bottleneck")}
_CONFORMER: dict[str, tuple[Any, ...]] = {_BLOCK: ("conformer",)}
_HOULSBY: dict[str, tuple[Any, ...]] = {_PLACE: ("both",)}


def _adapters(kernel: str = "") -> tuple[Variant, ...]:
    """Placements other than Houlsby's are given beside the recipe and keep the widths."""
    return (
        Variant("adapter", "houlsby", {**_BOTTLENECK, **_HOULSBY}),
        Variant("adapter", f"conformer_houlsby{kernel}", {**_CONFORMER, **_HOULSBY}),
        Variant("adapter", "hydra", {**_BOTTLENECK, "adapter.placement": ("hydra",)}),
        Variant("adapter", "pfeiffer", _BOTTLENECK),
        Variant("adapter", f"conformer_pfeiffer{kernel}", _CONFORMER),
    )


def _variants(dataset: str, target: str, kind: Kind) -> tuple[Variant, ...]:
    if kind == "waveform" and dataset in _EPOCHS_WAVEFORM:
        return (
            Variant("linear", "p_linear"),
            Variant("full", "p_full"),
            Variant("partial", "p_top3"),
            *(variant for variant in _adapters() if variant.preset != "hydra"),
        )
    if kind != "ast":
        return ()
    return (
        Variant("linear", "p_linear"),
        Variant("full", "p_full"),
        Variant("bitfit", "bitfit"),
        *_adapters("_k8" if dataset in _AUDIO else ""),
        *(Variant("adapter", "pfeiffer", {_BLOCK: (block,)}, own=False) for block in _OTHER_BLOCKS),
        Variant("lora", "lora_petl_ast"),
        Variant("prompt", "spt_300", {"prompt.deep": (False,)}),
        Variant("prompt", "dpt_25", {"prompt.deep": (None, True)}),
        Variant("prefix", "prefix_24"),
        Variant("dense_moa", "dense_moa_7", {"moa.expert": (None, "bottleneck", "convpass")}),
        Variant("soft_moa", "soft_moa_convpass", {"moa.expert": ("convpass",)}),
        Variant("soft_moa", "soft_moa_7", {"moa.expert": (None, "bottleneck")}),
    )


def _parts(case: Case) -> tuple[Part, ...]:
    name, audio = case.dataset, case.dataset in _AUDIO
    preset = PRESETS[case.variant.preset]
    common = (
        Part(
            f"{_CODE}, main.py",
            {
                "optim.beta1": 0.9,
                "optim.beta2": 0.98,
                "optim.eps": 1e-6,
                "optim.decay": "all",
                "schedule.name": "cosine",
                "train.loss": "cross_entropy",
                "train.precision": "float32",
                "data.target": case.target,
            },
        ),
        Part(
            _YAML,
            {
                "optim.lr": preset.lr,
                "optim.weight_decay": 0.1,
                "epochs": (_EPOCHS_WAVEFORM if case.kind == "waveform" else _EPOCHS)[name],
                "train.batch_size": _BATCH.get(name, 32),
                "pooling": "mean",
            },
        ),
        _method(case),
    )
    split = {"data.protocol": "petl_ast", **({"data.fold": "all"} if name in _FOLDS else {})}
    return (
        *common,
        Part(f"{_CODE}, main.py and dataset/", split),
        *(_waveform(case) if case.kind == "waveform" else _spectrogram(case, audio)),
    )


def _method(case: Case) -> Part:
    part = case.variant.part()
    if not case.variant.own:  # sizes mean something else in other blocks
        return Part(part.source, {})
    if "prefix.length" in case.given:  # is the user's, in pairs of a key and a value like everywhere
        return Part(part.source, {key: value for key, value in part.keys.items() if key != "prefix.split"})
    return part


def _spectrogram(case: Case, audio: bool) -> tuple[Part, ...]:
    return (
        Part(_YAML, {"data.frames": _FRAMES[case.dataset]}),
        Part(f"{_CODE}, loading with another max_length", {"positions": "zero", "adapter.init": "published"}),
        Part(f"{_CODE}, dataset/", {"data.normalize": "audioset"}),
        Part(f"{_CODE}, src/AST_adapters.py", {"adapter.layernorm": False}),
        Part(f"{_CODE}, src/MoA.py", {"moa.legacy_double_add": True, "moa.legacy_discard_conv": True}),
        *((Part(f"{_CODE}, dataset/", {"aug.freq_mask": 24, "aug.time_mask": 80}),) if audio else ()),
    )


def _waveform(case: Case) -> tuple[Part, ...]:
    parts = [
        Part(f"{_CODE}, src/Wav2Vec_adapter.py: no mask", {"data.padding": "fixed"}),
        Part(f"{_CODE}, loading", {"adapter.init": "published"}),
        Part(f"{_PAPER}, table 3: its count of parameters", {"full.feature_encoder": False}),
    ]
    if case.dataset == "iemocap":
        reduction = 24.0 if case.variant.preset.startswith("conformer") else 16.0
        parts += [
            Part(f"{_CODE}, main.py: 128,000 samples", {"data.frames": 800}),
            Part(f"{_PAPER}, table 3: their count of parameters", {"adapter.reduction": reduction}),
        ]
    return tuple(parts)


RECIPE = Recipe(
    name="petl_ast",
    summary="AST (and wav2vec 2.0) with adapters, LoRA, prompts, prefixes, BitFit and mixtures of adapters",
    source="PETL_AST, arXiv 2312.03694; Soft-MoA, arXiv 2402.00828",
    targets=_TARGETS,
    kinds=("ast", "waveform"),
    variants=_variants,
    parts=_parts,
)
