"""AAT (arXiv 2401.10544): how it trained each method on each data set, with an AST.

ESC-50, UrbanSound8K, Speech Commands v1 (30 words) and v2, GTZAN and OpenMIC, from the scripts under `tasks/` of its
code. They name one combination of adapters each; a data set's settings count for all of its methods here. An AST of
image weights (DeiT) has the higher rate of the scripts.

Its accidents are part of what it trained wherever there is an option for them: `data.protocol: aat` chooses the epoch
on the test clips of ESC-50, UrbanSound8K and OpenMIC; `data.subset: annotated` on OpenMIC takes every instrument that
was looked for as heard; `aug.mask_fill: zero` puts the masks on before the normalisation.

What differs from it:

* the mean and deviation of the features are those of this copy's training clips without padding; those in the scripts
  were computed with the zeros that fill short clips up;
* OpenMIC: the scripts ask for averaged weights of epochs 1 to 5 besides, whose files the same scripts tell the code not
  to write, so that it ends there without a result; `train.average_first` is left out. For some time its test clips were
  training clips;
* `prompt`: the prompts of the first layer, which no token comes from, do not exist here; beside adapters, prompts
  overwrite patches in the first layer, too;
* GTZAN was trained with an SSAST in its script; the settings are the same for an AST here. OpenMIC has a script for an
  SSAST, too, with the rate 1e-5; the rate here is that of its AST, 1e-4;
* UrbanSound8K: 1e-5 is the rate of its script from AudioSet's weights, the one it runs; 1e-4 stands in the same script
  for image weights;
* `adapter+prompt` with the spatial adapter alone is in no script and takes the settings of the others;
* the rate rises with every step of a warm-up, not every 50.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainables.recipes.base import Case, Kind, Part, Recipe, Variant

_CODE = "AAT, arXiv 2401.10544, code"


@dataclass(frozen=True)
class _Script:
    """One data set's script."""

    target: str
    lr: float
    lr_deit: float
    batch: int
    epochs: int
    frames: int
    masks: tuple[int, int]  # mel bins, frames
    loss: str
    mixup: float = 0.0
    noise: bool = False
    step: tuple[int, int, float] = (5, 1, 0.85)  # start, every, factor
    warmup: int = 0
    subset: str | None = None
    folds: bool = False


_SCRIPTS = {
    "esc50": _Script("sound", 1e-4, 1e-4, 42, 25, 512, (24, 96), "cross_entropy", folds=True),
    "urbansound8k": _Script("sound", 1e-5, 1e-4, 48, 25, 400, (24, 96), "cross_entropy", folds=True),
    "speech_commands_v1": _Script("word", 5e-4, 5e-4, 128, 30, 128, (48, 48), "bce", 0.6, True),
    "speech_commands_v2": _Script("word", 5e-4, 5e-4, 128, 30, 128, (48, 48), "bce", 0.6, True),
    "gtzan": _Script("genre", 1e-5, 1e-5, 2, 30, 3000, (48, 576), "cross_entropy"),
    "openmic": _Script(
        "instruments", 1e-4, 1e-4, 12, 30, 1024, (48, 192), "bce", 0.5, True, (10, 5, 0.5), 1000, "annotated"
    ),
}

_BLOCK, _PLACE = "adapter.block", "adapter.location"
_MLP: dict[str, tuple[Any, ...]] = {_BLOCK: (None, "bottleneck")}

_VARIANTS = (
    Variant("linear", "aat_head"),
    Variant("full", "aat_full"),
    Variant("partial", "aat_partial"),
    Variant("adapter", "aat_mlp", {**_MLP, _PLACE: (None, "ffn")}),
    Variant("adapter", "aat_spatial", {**_MLP, _PLACE: ("attention",)}),
    Variant("adapter", "aat_mlp_spatial", {**_MLP, _PLACE: ("both",)}),
    Variant("prompt", "aat_prompt"),
    Variant("adapter+prompt", "aat_mlp_spatial_prompt", {**_MLP, _PLACE: (None, "both")}),
    Variant("adapter+prompt", "aat_mlp_spatial_prompt", {**_MLP, _PLACE: ("ffn",)}),
    Variant("adapter+prompt", "aat_mlp_spatial_prompt", {**_MLP, _PLACE: ("attention",)}, own=False),
)


def _variants(dataset: str, target: str, kind: Kind) -> tuple[Variant, ...]:
    return _VARIANTS if kind in ("ast", "deit") else ()


def _parts(case: Case) -> tuple[Part, ...]:
    script = _SCRIPTS[case.dataset]
    start, every, factor = script.step
    variant = case.variant.part()
    place = case.variant.when.get(_PLACE, ())
    if place in (("ffn",), ("attention",)):  # "mixed" needs both sub-layers; it is parallel (the default) at the first
        rest = {k: v for k, v in variant.keys.items() if k not in (_PLACE, "adapter.placement")}
        variant = Part(
            variant.source, {**rest, **({"adapter.placement": "sequential"} if place == ("attention",) else {})}
        )
    settings = {
        "data.target": case.target,
        "data.protocol": "aat",
        "data.frames": script.frames,
        "data.normalize": "dataset",
        "optim.lr": script.lr_deit if case.kind == "deit" else script.lr,
        "train.batch_size": script.batch,
        "epochs": script.epochs,
        "aug.freq_mask": script.masks[0],
        "aug.time_mask": script.masks[1],
        "train.loss": script.loss,
        "schedule.name": "step",
        "schedule.step_start": start,
        "schedule.step_every": every,
        "schedule.step_factor": factor,
    }
    if script.subset:
        settings["data.subset"] = script.subset
    if script.folds:
        settings["data.fold"] = "all"
    if script.mixup:
        settings["aug.mixup"] = script.mixup
    if script.warmup:
        settings["schedule.warmup_steps"] = script.warmup
    parts = [
        Part(
            f"{_CODE}, src/traintest.py",
            {
                "optim.weight_decay": 0.05,
                "optim.decay": "all",
                "optim.beta1": 0.9,
                "optim.beta2": 0.999,
                "optim.eps": 1e-8,
                "train.precision": "float16",
            },
        ),
        Part(f"{_CODE}, src/models/ast_models.py", {"positions": "interpolate"}),
        Part(f"{_CODE}, src/dataloader.py", {"aug.mask_fill": "zero"}),
        variant,
        Part(f"{_CODE}, tasks/{_folder(case.dataset)}", settings),
    ]
    if script.mixup:
        parts.append(Part(f"{_CODE}, src/dataloader.py", {"aug.mixup_alpha": 10.0}))
    if script.noise:
        parts.append(Part(f"{_CODE}, src/dataloader.py", {"aug.feature_noise": 0.1, "aug.roll": 10}))
    if case.dataset == "esc50" and case.variant.method == "full":
        lr = 1e-4 if case.kind == "deit" else 1e-5
        parts.append(Part(f"{_CODE}, tasks/esc50/run_esc.sh", {"optim.lr": lr, "train.batch_size": 48}))
    return tuple(parts)


def _folder(dataset: str) -> str:
    return {"speech_commands_v1": "speechcommandsv1", "speech_commands_v2": "speechcommands"}.get(dataset, dataset)


RECIPE = Recipe(
    name="aat",
    summary="AST with adapters at both sub-layers, prompts over patches, partial and full fine-tuning",
    source="AAT, arXiv 2401.10544",
    targets={name: (script.target,) for name, script in _SCRIPTS.items()},
    kinds=("ast", "deit"),
    variants=_variants,
    parts=_parts,
)
