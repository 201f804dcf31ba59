"""Published recipes: golden values, what they cover, how they join with what is given beside them."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from petl.config import MethodConfig, why_unread
from petl.counts import BackboneShape, trainable_parameters
from petl.errors import ConfigError
from petl.shape import AST_TYPE
from trainables.augment import check_masks
from trainables.config import TrialConfig, trial_keys
from trainables.recipes import RECIPES, Row, expanded, recipe, recipes, sources

AST = "MIT/ast-finetuned-audioset-10-10-0.4593"
BASE = "facebook/wav2vec2-base-960h"
XLSR = "jonatasgrosman/wav2vec2-large-xlsr-53-english"
ROWS = recipes()
_LARGE = {
    "model_type": "wav2vec2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}
_SHAPE = {
    ("petl_ast", "ast"): BackboneShape(),
    ("petl_ast", "waveform"): BackboneShape.from_config({"model_type": "wav2vec2"}),
    ("sure", "waveform"): BackboneShape.from_config(_LARGE),
    ("aat", "ast"): BackboneShape(),
    ("aat", "deit"): BackboneShape(),
}
_FAMILY = {"ast": AST_TYPE, "deit": "deit", "waveform": "wav2vec2"}


def _of(name: str, dataset: str, method: str, backbone: str = AST, **more: Any) -> dict[str, Any]:
    beside = {key.replace("__", "."): value for key, value in more.items()}
    return recipe(name, {"dataset": dataset, "method": method, "backbone": backbone, **beside})


def _has(found: dict[str, Any], **expected: Any) -> None:
    wanted = {key.replace("__", "."): value for key, value in expected.items()}
    assert {key: found.get(key) for key in wanted} == wanted


def _id(row: Row) -> str:
    return "-".join([row.name, row.dataset, row.target, row.backbone, *map(str, row.given.values())])


# -- golden values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "frames", "batch", "epochs"),
    [
        ("fluent_speech_commands", 400, 32, 75),
        ("esc50", 500, 32, 50),
        ("urbansound8k", 400, 32, 30),
        ("speech_commands_v2", 100, 128, 75),
        ("iemocap", 800, 32, 20),
    ],
)
def test_petl_ast_by_dataset(dataset: str, frames: int, batch: int, epochs: int) -> None:
    found = _of("petl_ast", dataset, "lora")
    _has(found, data__frames=frames, train__batch_size=batch, epochs=epochs)
    _has(found, optim__weight_decay=0.1, optim__decay="all", optim__beta2=0.98, optim__eps=1e-6)
    _has(found, schedule__name="cosine", train__precision="float32", pooling="mean", positions="zero")
    _has(found, data__normalize="audioset", train__loss="cross_entropy")
    assert not [key for key in found if key.startswith("schedule.warmup")] and "train.grad_clip" not in found
    masks = (found.get("aug.freq_mask"), found.get("aug.time_mask"))
    assert masks == ((24, 80) if dataset in ("esc50", "urbansound8k") else (None, None))
    assert found["data.protocol"] == "petl_ast"
    assert found.get("data.fold") == ("all" if dataset in ("esc50", "urbansound8k", "iemocap") else None)


@pytest.mark.parametrize(
    ("method", "lr", "more"),
    [
        ("linear", 1e-3, {}),
        ("full", 5e-5, {}),
        ("bitfit", 5e-3, {}),
        ("adapter", 5e-3, {"adapter.reduction": 64.0, "adapter.init": "published"}),
        ("lora", 5e-3, {"lora.reduction": 128.0, "lora.alpha": 16.0, "lora.scaling": "alpha/RR"}),
        ("prompt", 1e-2, {"prompt.length": 25, "prompt.insertion": "replace_dist"}),
        ("prefix", 1e-2, {"prefix.length": 24, "prefix.split": True}),
        ("dense_moa", 5e-3, {"moa.experts": 7, "moa.reduction": 128.0, "moa.legacy_double_add": True}),
        ("soft_moa", 5e-3, {"moa.experts": 7, "moa.slots": 1, "moa.legacy_double_add": True}),
    ],
)
def test_petl_ast_by_method(method: str, lr: float, more: dict[str, Any]) -> None:
    for dataset in ("esc50", "speech_commands_v2"):
        found = _of("petl_ast", dataset, method)
        assert found["optim.lr"] == lr
        assert {key: found[key] for key in more} == more


def test_petl_ast_variants_are_told_by_what_is_given() -> None:
    spt = _of("petl_ast", "esc50", "prompt", prompt__deep=False)
    _has(spt, prompt__length=300, optim__lr=1e-2)
    assert "prompt.deep" not in spt, "given beside it"
    for dataset, kernel in (("esc50", 8), ("urbansound8k", 8), ("speech_commands_v2", 31), ("iemocap", 31)):
        conformer = _of("petl_ast", dataset, "adapter", adapter__block="conformer")
        _has(conformer, adapter__reduction=96.0, adapter__kernel=kernel, adapter__axis="sequence")
        _has(conformer, adapter__layernorm=False)
    convpass = _of("petl_ast", "esc50", "soft_moa", moa__expert="convpass")
    _has(convpass, moa__experts=2, moa__slots=2, moa__location="both", moa__legacy_discard_conv=True)
    assert "moa.legacy_double_add" not in convpass, "nothing is added twice at both sub-layers"


def test_petl_ast_on_wav2vec2() -> None:
    speech = _of("petl_ast", "speech_commands_v2", "adapter", BASE)
    _has(speech, epochs=50, train__batch_size=128, optim__lr=5e-3, adapter__reduction=64.0, data__padding="fixed")
    assert not {"positions", "data.normalize", "adapter.layernorm", "data.frames"} & set(speech)
    _has(_of("petl_ast", "fluent_speech_commands", "linear", BASE), epochs=50, optim__lr=1e-3)
    emotion = _of("petl_ast", "iemocap", "adapter", BASE)
    _has(emotion, epochs=20, data__frames=800, adapter__reduction=16.0)
    _has(_of("petl_ast", "iemocap", "adapter", BASE, adapter__block="conformer"), adapter__reduction=24.0)
    _has(_of("petl_ast", "iemocap", "partial", BASE), partial__last=3, optim__lr=5e-5)
    _has(_of("petl_ast", "iemocap", "full", BASE), full__feature_encoder=False, optim__lr=5e-5)


def test_petl_asts_counts_on_wav2vec2() -> None:
    """Table 3: 895K and 927K on IEMOCAP; without LayerNorms, which the code leaves frozen, 250K is 231K, 272K 252K."""
    base = BackboneShape.from_config({"model_type": "wav2vec2"})
    counts = {
        (dataset, block): trainable_parameters(
            MethodConfig.from_flat(
                {
                    "method": "adapter",
                    "adapter.block": block,
                    **{
                        key: value
                        for key, value in _of("petl_ast", dataset, "adapter", BASE, adapter__block=block).items()
                        if key.startswith("adapter.")
                    },
                }
            ),
            base,
        )
        for dataset in ("iemocap", "speech_commands_v2")
        for block in ("bottleneck", "conformer")
    }
    assert counts == {
        ("iemocap", "bottleneck"): 894_528,
        ("iemocap", "conformer"): 926_208,
        ("speech_commands_v2", "bottleneck"): 230_544,
        ("speech_commands_v2", "conformer"): 252_288,
    }


@pytest.mark.parametrize(
    ("dataset", "target", "rates"),
    [  # full, bottleneck, LoRA, prefix, ConvAdapter
        ("meld", "emotion", (2e-3, 2e-3, 2e-3, 2e-3, 2e-3)),
        ("vctk", "speaker", (8e-6, 8e-6, 2e-4, 2e-3, 2e-3)),
        ("esd", "speaker", (8e-6, 8e-6, 8e-6, 8e-6, 2e-3)),
        ("speech_commands_v1", "word", (8e-6, 8e-6, 8e-6, 2e-4, 2e-4)),
        ("fluent_speech_commands", "slots", (2e-4, 2e-4, 2e-4, 2e-3, 2e-4)),
        ("fleurs", "text", (2e-3, 2e-3, 2e-3, 2e-3, 2e-3)),
        ("librispeech", "phonemes", (2e-2, 2e-3, 2e-2, 2e-2, 2e-2)),
        ("audio_snips", "slots", (2e-4, 2e-4, 2e-4, 2e-3, 2e-5)),
    ],
)
def test_sures_rates(dataset: str, target: str, rates: tuple[float, ...]) -> None:
    methods: list[dict[str, Any]] = [
        {"method": "full"},
        {"method": "adapter"},
        {"method": "lora"},
        {"method": "prefix"},
        {"method": "adapter", "adapter.block": "conv"},
    ]
    case = {"dataset": dataset, "data.target": target, "backbone": XLSR}
    assert tuple(recipe("sure", {**case, **method})["optim.lr"] for method in methods) == rates


@pytest.mark.parametrize(
    ("dataset", "target", "batch", "parts", "epochs", "patience", "frames"),
    [
        ("esd", "emotion", 512, 4, 100, 5, 250),
        ("iemocap", "emotion", 512, 4, 100, 5, 250),
        ("vctk", "speaker", 512, 4, 100, 5, 250),
        ("speech_commands_v1", "word", 512, 4, 100, 5, 250),
        ("fluent_speech_commands", "slots", 64, 4, 100, 3, 1375),
        ("fleurs", "text", 64, 1, 50, None, 1250),
        ("esd", "text", 64, 1, 50, None, 250),
        ("librispeech", "phonemes", 128, 4, 30, 5, 3500),
        ("audio_snips", "slots", 16, 1, 4, None, 1250),
    ],
)
def test_sure_by_task(
    dataset: str, target: str, batch: int, parts: int, epochs: int, patience: int | None, frames: int
) -> None:
    found = _of("sure", dataset, "lora", XLSR, data__target=target)
    _has(found, train__batch_size=batch, train__accumulate=parts, epochs=epochs)
    _has(found, train__patience=patience, data__frames=frames)
    _has(found, optim__beta2=0.999, optim__eps=1e-8, train__grad_clip=1.0, backbone_mode="train", norms="none")
    _has(found, data__protocol="sure", data__subset="11" if dataset in ("iemocap", "speech_commands_v1") else None)


def test_sures_schedules() -> None:
    short = _of("sure", "meld", "lora", XLSR)
    _has(short, schedule__name="linear", schedule__warmup_ratio=0.1, optim__weight_decay=0.0)
    speech = _of("sure", "fleurs", "lora", XLSR)
    _has(speech, schedule__name="tri_stage", schedule__warmup_steps=1000, schedule__hold_ratio=0.4)
    _has(speech, optim__weight_decay=0.005, train__precision="float16", train__gradient_checkpointing=True)
    _has(speech, train__batching="bucketed")
    phonemes = _of("sure", "librispeech", "adapter", XLSR, data__target="phonemes")
    _has(phonemes, schedule__name="linear", schedule__warmup_steps=1000, epochs=100, optim__weight_decay=0.005)
    slots = _of("sure", "audio_snips", "lora", XLSR)
    _has(slots, schedule__name="tri_stage", schedule__warmup_ratio=0.1, train__precision="float32")


def test_sures_heads() -> None:
    clips = _of("sure", "meld", "full", XLSR)
    _has(clips, head__kind="projector", head__width=256, pooling="masked_mean")
    assert "full.feature_encoder" not in clips
    frames = _of("sure", "fleurs", "full", XLSR)
    _has(frames, full__feature_encoder=False)
    assert not [key for key in frames if key.startswith("head.")] and "pooling" not in frames
    _has(_of("sure", "vctk", "partial", XLSR), partial__last=4, optim__lr=8e-6)
    _has(_of("sure", "vctk", "full", XLSR, data__target="verification"), optim__lr=2e-4, pooling="stats", epochs=2)
    _has(_of("sure", "vctk", "full", XLSR, data__target="verification"), train__batch_size=8, train__loss="am_softmax")


def test_fifty_thousand_steps_are_whole_epochs() -> None:
    """Of LibriSpeech's 28,539 and Audio SNIPS' 209,344 training clips."""
    for dataset, clips, beside in (
        ("librispeech", 28_539, {}),
        ("librispeech", 28_539, {"adapter.block": "conv"}),
        ("audio_snips", 209_344, {}),
    ):
        found = recipe("sure", {"dataset": dataset, "method": "adapter", "backbone": XLSR, **beside})
        steps = found["epochs"] * clips / found["train.batch_size"]
        assert abs(steps - 50_000) <= clips / found["train.batch_size"] / 2


@pytest.mark.parametrize(
    ("dataset", "lr", "batch", "epochs", "masks", "frames", "mixup", "loss", "fold"),
    [
        ("esc50", 1e-4, 42, 25, (24, 96), 512, None, "cross_entropy", "all"),
        ("urbansound8k", 1e-5, 48, 25, (24, 96), 400, None, "cross_entropy", "all"),
        ("speech_commands_v1", 5e-4, 128, 30, (48, 48), 128, 0.6, "bce", None),
        ("speech_commands_v2", 5e-4, 128, 30, (48, 48), 128, 0.6, "bce", None),
        ("gtzan", 1e-5, 2, 30, (48, 576), 3000, None, "cross_entropy", None),
        ("openmic", 1e-4, 12, 30, (48, 192), 1024, 0.5, "bce", None),
    ],
)
def test_aat_by_dataset(
    dataset: str,
    lr: float,
    batch: int,
    epochs: int,
    masks: tuple[int, int],
    frames: int,
    mixup: float | None,
    loss: str,
    fold: str | None,
) -> None:
    found = _of("aat", dataset, "adapter")
    _has(found, optim__lr=lr, train__batch_size=batch, epochs=epochs, data__frames=frames, aug__mixup=mixup)
    _has(found, aug__freq_mask=masks[0], aug__time_mask=masks[1], aug__mask_fill="zero", train__loss=loss)
    _has(found, optim__weight_decay=0.05, optim__decay="all", optim__beta2=0.999, train__precision="float16")
    _has(
        found, data__fold=fold, data__protocol="aat", pooling="cls+dist", head__kind="norm_linear", adapter__ratio=0.25
    )
    noisy = mixup is not None
    _has(found, aug__feature_noise=0.1 if noisy else None, aug__roll=10 if noisy else None)
    shape = (found["schedule.step_start"], found["schedule.step_every"], found["schedule.step_factor"])
    assert shape == ((10, 5, 0.5) if dataset == "openmic" else (5, 1, 0.85))
    assert found.get("data.subset") == ("annotated" if dataset == "openmic" else None)
    assert found.get("schedule.warmup_steps") == (1000 if dataset == "openmic" else None)


def test_aats_variants_and_rates() -> None:
    _has(_of("aat", "esc50", "full"), optim__lr=1e-5, train__batch_size=48)
    deit = recipe("aat", {"dataset": "esc50", "method": "full", "backbone": "x"}, family="deit")
    _has(deit, optim__lr=1e-4, train__batch_size=48)
    _has(recipe("aat", {"dataset": "urbansound8k", "method": "full"}, family="deit"), optim__lr=1e-4)
    _has(_of("aat", "esc50", "adapter"), adapter__location="ffn", adapter__placement=None)
    _has(_of("aat", "esc50", "adapter", adapter__location="both"), adapter__placement="mixed")
    _has(_of("aat", "esc50", "adapter", adapter__location="attention"), adapter__placement="sequential")
    _has(_of("aat", "esc50", "prompt"), prompt__length=12, prompt__insertion="overwrite", layers__first=1)
    _has(_of("aat", "esc50", "partial"), partial__last="half", norms="none")
    _has(_of("aat", "esc50", "prompt+adapter"), adapter__location="both", adapter__placement="mixed")
    _has(_of("aat", "esc50", "adapter+prompt", adapter__location="ffn"), adapter__placement=None, prompt__length=12)


def test_aats_prompts_beside_the_spatial_adapter_alone() -> None:
    found = _of("aat", "esc50", "adapter+prompt", adapter__location="attention")
    _has(found, adapter__placement="sequential", adapter__ratio=0.25, prompt__length=12, optim__lr=1e-4)


def test_a_given_prefix_length_counts_pairs() -> None:
    """24 published "prefixes" are 12 keys and 12 values."""
    published = _of("petl_ast", "esc50", "prefix")
    _has(published, prefix__length=24, prefix__split=True)
    for length in (12, 7):
        given = _of("petl_ast", "esc50", "prefix", prefix__length=length)
        assert "prefix.split" not in given and given["optim.lr"] == 1e-2
    flat = {"method": "prefix", "recipe": "petl_ast", "dataset": "esc50", "data": "/x", "backbone": AST}
    counts = [
        trainable_parameters(TrialConfig.from_flat({**flat, **more}).method, BackboneShape(), 50)
        for more in ({}, {"prefix.length": 12})
    ]
    assert counts[0] == counts[1]


def test_blocks_that_petl_ast_lacks_train_like_its_bottlenecks() -> None:
    bottleneck = _of("petl_ast", "esc50", "adapter")
    for block in ("convpass", "conv", "tiny_attention", "tiny_external_attention", "tiny_conformer"):
        found = _of("petl_ast", "esc50", "adapter", adapter__block=block)
        assert {k for k in found if k.startswith("adapter.")} <= {"adapter.init"}
        assert found.items() >= {k: v for k, v in bottleneck.items() if not k.startswith("adapter.")}.items()
        assert not any(row.given.get("adapter.block") == block for row in recipes("petl_ast")), "not its own"


def test_sures_linear_probe() -> None:
    for dataset in ("esd", "speech_commands_v1"):
        probe = _of("sure", dataset, "linear", XLSR)
        _has(probe, optim__lr=2e-3, head__kind="projector", head__width=256, norms="none", backbone_mode="train")
        _has(probe, train__batch_size=512, epochs=100)
    speech = _of("sure", "librispeech", "linear", XLSR, data__target="text")
    assert speech["optim.lr"] == 2e-3 and not [key for key in speech if key.startswith("head.")]
    where = sources("sure", {"dataset": "esd", "method": "linear", "backbone": XLSR})
    assert "projector and classifier alone" in where["optim.lr"]


# -- every case ------------------------------------------------------------------------------------------------------


def _flat(row: Row) -> dict[str, Any]:
    backbone = {"ast": AST, "deit": "facebook/deit-base-distilled-patch16-384"}.get(row.backbone)
    if backbone is None:
        backbone = BASE if row.name == "petl_ast" else XLSR
    return {
        "recipe": row.name,
        "dataset": row.dataset,
        "data": "/somewhere",
        "data.target": row.target,
        "backbone": backbone,
        **row.given,
    }


@pytest.mark.parametrize("row", ROWS, ids=_id)
def test_every_case_is_a_configuration(row: Row) -> None:
    flat = _flat(row)
    full = expanded(flat, _FAMILY[row.backbone])
    config = TrialConfig.from_flat(full)
    assert full.items() <= config.to_flat().items(), "every value is read"
    assert full == {**flat, **row.settings}
    again = expanded(config.to_flat(), _FAMILY[row.backbone])
    assert TrialConfig.from_flat(again) == config, "expanding what is expanded changes nothing"
    assert {"optim.lr", "epochs", "train.batch_size", "schedule.name"} <= set(row.settings)
    assert trainable_parameters(config.method, _SHAPE[row.name, row.backbone], 5) > 0, "the backbone can have it"
    check_masks(config.aug, spectrogram=row.backbone != "waveform")
    assert set(row.sources) == set(row.settings) and all("arXiv" in source for source in row.sources.values())


def test_every_dataset_and_method_of_the_papers_is_there() -> None:
    cases = {(row.name, row.backbone, row.dataset, row.method) for row in ROWS}
    for dataset in ("fluent_speech_commands", "esc50", "urbansound8k", "speech_commands_v2", "iemocap"):
        for method in ("linear", "full", "bitfit", "adapter", "lora", "prompt", "prefix", "dense_moa", "soft_moa"):
            assert ("petl_ast", "ast", dataset, method) in cases
    for dataset in ("meld", "esd", "iemocap", "vctk", "speech_commands_v1", "fleurs", "librispeech", "audio_snips"):
        for method in ("full", "adapter", "lora", "prefix"):
            assert ("sure", "waveform", dataset, method) in cases
    for dataset in ("esc50", "urbansound8k", "speech_commands_v1", "speech_commands_v2", "gtzan", "openmic"):
        for method in ("linear", "full", "partial", "adapter", "prompt", "adapter+prompt"):
            assert ("aat", "ast", dataset, method) in cases
    assert len({_id(row) for row in ROWS}) == len(ROWS)
    assert {row.name for row in recipes("sure")} == {"sure"} and len(recipes("sure")) < len(ROWS)


def test_targets_and_protocols_are_those_of_the_datasets() -> None:
    from trainables.data.datasets import chosen

    checked = set()
    for row in ROWS:
        if find_spec(f"trainables.data.datasets.{row.dataset}") is None:
            continue
        config = TrialConfig.from_flat(expanded(_flat(row), _FAMILY[row.backbone]))
        assert chosen(config.data).target == row.target
        checked.add(row.dataset)
    assert "esc50" in checked


# -- joining with what is given ---------------------------------------------------------------------------------------


def test_what_is_given_wins_and_the_name_stays() -> None:
    flat = {"recipe": "petl_ast", "dataset": "esc50", "method": "lora", "optim.lr": 1e-4, "lora.rank": 3, "data": "/d"}
    full = expanded(flat)
    assert flat.items() <= full.items() and full["epochs"] == 50
    assert "lora.reduction" not in full, "the rank is given already"
    config = TrialConfig.from_flat(full)
    assert (config.recipe, config.optim.lr, config.method.lora.rank) == ("petl_ast", 1e-4, 3)
    assert expanded({"method": "lora"}) == {"method": "lora"}
    assert expanded({"method": "lora", "recipe": None}) == {"method": "lora", "recipe": None}


@pytest.mark.parametrize("given", [{"train.patience": None}, {"train.patience": None, "data.frames": None}])
def test_what_is_turned_off_stays_off(given: dict[str, Any]) -> None:
    """Resolved configurations leave Nones out; read again, they are no invitation to fill them in."""
    flat = {"recipe": "sure", "dataset": "meld", "method": "adapter", "backbone": XLSR, "data": "/d", **given}
    config = TrialConfig.from_flat(expanded(flat))
    assert config.train.patience is None
    again = config.to_flat()
    assert expanded(again) == again and TrialConfig.from_flat(expanded(again)) == config


def test_nothing_stays_that_goes_against_what_is_given() -> None:
    sure = {"recipe": "sure", "dataset": "meld", "method": "adapter", "backbone": XLSR, "data": "/d"}
    wide = expanded({**sure, "adapter.width": 100, "schedule.warmup_steps": 10, "train.batch_size": 2})
    assert not {"adapter.ratio", "schedule.warmup_ratio", "train.accumulate"} & set(wide)
    TrialConfig.from_flat(wide)
    assert expanded({**sure, "train.batch_size": 8})["train.accumulate"] == 4
    plain = expanded({**sure, "train.patience": None})
    assert TrialConfig.from_flat(plain).train.patience is None
    # An option beside which others of the preset mean nothing.
    moa = {"recipe": "petl_ast", "dataset": "esc50", "method": "soft_moa", "moa.location": "ffn", "data": "/d"}
    assert "moa.legacy_double_add" not in expanded(moa)
    TrialConfig.from_flat(expanded(moa))


def test_the_recipes_own_target() -> None:
    slots = expanded({"recipe": "sure", "dataset": "fluent_speech_commands", "method": "lora", "backbone": XLSR})
    intent = expanded({"recipe": "petl_ast", "dataset": "fluent_speech_commands", "method": "lora", "backbone": AST})
    assert (slots["data.target"], intent["data.target"]) == ("slots", "intent")
    assert sources("sure", {"dataset": "esd", "method": "lora", "backbone": XLSR})["optim.lr"].endswith(
        "emo_cls_meld.sh"
    )


def test_the_kind_of_backbone_is_read_from_its_config(tmp_path: Path) -> None:
    for family, epochs in ((AST_TYPE, 75), ("hubert", 50), ("wavlm", 50)):
        (tmp_path / family).mkdir()
        (tmp_path / family / "config.json").write_text(f'{{"model_type": "{family}"}}')
        assert _of("petl_ast", "speech_commands_v2", "adapter", str(tmp_path / family))["epochs"] == epochs
    assert recipe("petl_ast", {"dataset": "esc50"})["optim.lr"] == 1e-3, "the embedded backbone, a linear probe"


@pytest.mark.parametrize(
    ("flat", "words"),
    [
        ({"recipe": "petl_asd"}, ["'petl_asd' is not known", "did you mean 'petl_ast'", "sure", "aat"]),
        ({"recipe": "petl_ast", "dataset": "gtzan"}, ["'gtzan'", "it covers: fluent_speech_commands, esc50"]),
        ({"recipe": "aat"}, ["dataset 'embedded'", "openmic"]),
        ({"recipe": "aat", "dataset": "gtzan", "method": "lora"}, ["method 'lora'", "'gtzan'", "'partial'"]),
        (
            {
                "recipe": "petl_ast",
                "dataset": "iemocap",
                "backbone": BASE,
                "method": "adapter",
                "adapter.block": "convpass",
            },
            ["adapter.block: convpass", "'adapter' with adapter.block: conformer"],
        ),
        ({"recipe": "petl_ast", "dataset": "esc50", "backbone": BASE}, ["reads waveforms", "it covers: an AST"]),
        ({"recipe": "sure", "dataset": "esd", "backbone": AST}, ["an AST", "it covers: a model that reads waveforms"]),
        ({"recipe": "sure", "dataset": "esd", "backbone": XLSR, "data.target": "age"}, ["'age'", "speaker, text"]),
        ({"recipe": "petl_ast", "dataset": "esc50", "method": "adapter+lora"}, ["method 'adapter+lora'"]),
    ],
)
def test_what_a_recipe_does_not_cover_is_said(flat: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        expanded(flat)
    assert caught.value.key == "recipe"
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_keys_are_known_and_never_the_users() -> None:
    known = {info.key for info in trial_keys()}
    for row in ROWS:
        assert set(row.settings) <= known
        assert not {"recipe", "method", "backbone", "data", "dataset", "seed"} & set(row.settings)
        assert not [key for key in row.settings if why_unread(key, {**row.settings, **row.given})]
    assert {key for key, found in RECIPES.items() if found.name == key} == {"petl_ast", "sure", "aat"}


def test_planning_with_recipes_takes_no_torch() -> None:
    code = (
        "import sys; from trainables.recipes import recipes, expanded; recipes(); "
        "expanded({'recipe': 'aat', 'dataset': 'esc50'}); sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
