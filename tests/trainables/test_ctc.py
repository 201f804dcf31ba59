"""Sequence tasks: what they learn from clips, what a wrong answer costs, and how answers are judged."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import HubertForCTC, Wav2Vec2ForCTC

from petl import AudioModel, ConfigError, UserError, attach
from petl.frontend import WaveformFrontEnd
from petl.outputs import Classes
from petl.outputs.tokens import Tokens
from tests.petl.models import MODELS, drawn
from trainables import metrics
from trainables.config import TrainOptions
from trainables.data.clips import Clip
from trainables.data.datasets.base import Target, TaskName
from trainables.tasks import build_task, output_of
from trainables.tasks.ctc import CtcTask, needed_tokens, unknown_symbols

TASKS: tuple[TaskName, ...] = ("speech_recognition", "phonemes", "slot_filling")
WAVE = {model.name: model for model in MODELS}


def _clips(*texts: str | None) -> list[Clip]:
    return [Clip(Path(f"{i}.wav"), f"{i}.wav", text=text) for i, text in enumerate(texts)]


def _task(name: TaskName, clips: Sequence[Clip], train: Sequence[int] | None = None, **options: Any) -> CtcTask:
    output = output_of(Target(name, ""), clips, range(len(clips)) if train is None else train)
    task = build_task(name, output, TrainOptions(**options))
    assert isinstance(task, CtcTask)
    return task


def _ids(task: CtcTask, text: str) -> list[int]:
    return task.tokens.encode(text)


# -- clips ----------------------------------------------------------------------------------------------------


def test_symbols_come_from_the_training_clips_only() -> None:
    clips = _clips("Ab, a!", "Zebra; 7", "ba", "7 zz")
    task = _task("speech_recognition", clips, train=[0, 2])
    assert task.output.labels == ("[PAD]", "[UNK]", "|", "a", "b")
    assert task.output == output_of(Target("speech_recognition", ""), clips[::-1], [1, 3])
    assert unknown_symbols(task.tokens, clips) == {"7": 2, "e": 1, "r": 1, "z": 2}
    assert list(unknown_symbols(task.tokens, clips)) == ["7", "e", "r", "z"]
    targets = task.targets(clips)
    assert targets.values["tokens"].tolist() == [
        [3, 4, 2, 3, 0, 0, 0],
        [1, 1, 4, 1, 3, 2, 1],
        [4, 3, 0, 0, 0, 0, 0],
        [1, 2, 1, 1, 0, 0, 0],
    ]
    assert targets.values["lengths"].tolist() == [4, 7, 2, 4]
    assert task.references(clips) == ["ab a", "zebra 7", "ba", "7 zz"]


def test_symbols_of_the_other_tasks() -> None:
    phones = _task("phonemes", _clips("HH AH0 L L OW1"))
    assert phones.output.labels == ("[PAD]", "[UNK]", "AH0", "HH", "L", "OW1")
    assert unknown_symbols(phones.tokens, _clips("ZH L", "ZH ZH")) == {"ZH": 2}
    slots = _task("slot_filling", _clips("In B-city Rome E-city ."))
    assert slots.output.labels == ("[PAD]", "[UNK]", "|", "B-city", "E-city", "I", "R", "e", "m", "n", "o")
    assert unknown_symbols(slots.tokens, _clips("B-date E-date")) == {"B-date": 1, "E-date": 1}


def test_targets_go_with_their_clips() -> None:
    clips = _clips("one two", "", "three", "four five")
    task = _task("speech_recognition", clips)
    order = [2, 0, 3, 1]
    shuffled, straight = task.targets([clips[i] for i in order]), task.targets(clips)
    for name in ("tokens", "lengths"):
        assert torch.equal(straight.at(torch.tensor(order)).values[name], shuffled.values[name])
    assert len(straight) == 4 and straight.values["lengths"].tolist() == [7, 0, 5, 9]
    assert task.targets([]).values["tokens"].shape == (0, 1)


def test_the_same_numbers_with_another_hash_seed_and_without_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from trainables.data.clips import Clip; "
        "from trainables.data.datasets.base import Target; from trainables.tasks import output_of; "
        "from trainables.tasks.ctc import needed_tokens, unknown_symbols; "
        "clips = [Clip(Path('a'), 'a', text=t) for t in ('zyx b', 'Cab', 'QQ 99')]; "
        "out = output_of(Target('speech_recognition', ''), clips, [0, 1]); "
        "print(out.labels, unknown_symbols(out, clips), needed_tokens(out, clips[2])); "
        "assert 'torch' not in sys.modules"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {"('[PAD]', '[UNK]', '|', 'a', 'b', 'c', 'x', 'y', 'z') {'9': 1, 'q': 1} 7\n"}


@pytest.mark.parametrize("name", TASKS)
def test_clips_without_a_text_are_named(name: TaskName) -> None:
    clips = _clips("a", None)
    with pytest.raises(UserError, match=r"1\.wav: there is no text"):
        output_of(Target(name, ""), clips, [0, 1])
    with pytest.raises(UserError, match=r"1\.wav: there is no text"):
        _task(name, clips, train=[0]).targets(clips)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    "options", [{"loss": "cross_entropy"}, {"loss": "bce"}, {"label_smoothing": 0.1}, {"balanced": True}]
)
def test_options_that_mean_nothing_are_refused(name: TaskName, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="leave it out") as caught:
        _task(name, _clips("a"), **options)
    assert caught.value.key == f"train.{next(iter(options))}"


def test_two_texts_are_not_mixed() -> None:
    assert not any(_task(name, _clips("a")).mixes for name in TASKS)


# -- the loss -------------------------------------------------------------------------------------------------


def _probability(probabilities_TV: np.ndarray, wanted: list[int]) -> float:
    """Of all paths that collapse to this, by going through every path there is."""
    frames, symbols = probabilities_TV.shape
    return sum(
        math.prod(probabilities_TV[t, v] for t, v in enumerate(path))
        for path in itertools.product(range(symbols), repeat=frames)
        if metrics.collapsed(path, 0) == wanted
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_is_that_of_all_paths_by_symbols_of_the_target(dtype: torch.dtype) -> None:
    clips = _clips("ab", "a", "aa", "", "ba b")
    task = _task("speech_recognition", clips)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, 5, generator=generator).to(dtype)
    lengths = torch.tensor([4, 2, 3, 4, 4])
    losses_B = task.losses(logits, lengths, task.targets(clips))
    probabilities = logits.double().softmax(-1).numpy()
    assert losses_B.dtype == torch.float32 and losses_B.shape == (5,)
    for clip, loss, p, length in zip(clips, losses_B, probabilities, lengths.tolist(), strict=True):
        wanted = _ids(task, clip.text or "")
        expected = -math.log(_probability(p[:length], wanted)) / max(len(wanted), 1)
        assert float(loss) == pytest.approx(expected, rel=2e-5), clip.text
    # The empty text: every token a blank.
    blanks = -float(logits[3].float().log_softmax(-1)[:, 0].sum())
    assert float(losses_B[3]) == pytest.approx(blanks, rel=1e-5)


def test_the_mean_over_clips_is_torchs_own() -> None:
    clips = _clips("abc", "b", "", "cab ab")
    task = _task("speech_recognition", clips)
    logits = torch.randn(4, 20, task.output.size, generator=torch.Generator().manual_seed(1))
    targets = task.targets(clips)
    for lengths in (None, torch.tensor([20, 11, 3, 17])):
        expected = torch.nn.functional.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            torch.tensor([i for clip in clips for i in _ids(task, clip.text or "")]),
            torch.full((4,), 20) if lengths is None else lengths,
            targets.values["lengths"],
        )
        assert float(task.losses(logits, lengths, targets).mean()) == pytest.approx(float(expected), rel=1e-6)
    assert torch.equal(
        task.losses(logits, None, targets).flip(0), task.losses(logits.flip(0), None, task.targets(clips[::-1]))
    )


def test_texts_that_are_empty_throughout() -> None:
    task = _task("speech_recognition", _clips("a"))
    clips = _clips("", "!")
    losses_B = task.losses(torch.zeros(2, 3, 4), None, task.targets(clips))
    assert losses_B.tolist() == pytest.approx([3 * math.log(4)] * 2)


@given(st.text(alphabet="aabz ", max_size=12))
def test_a_text_needs_as_many_tokens_as_give_a_finite_loss(text: str) -> None:
    clips = _clips(text, "ab")
    task = _task("speech_recognition", clips, train=[1])
    needed = needed_tokens(task.tokens, clips[0])
    targets = task.targets(clips[:1])
    assert math.isfinite(float(task.losses(torch.zeros(1, max(needed, 1), 5), None, targets)))
    if needed > 1:
        assert math.isinf(float(task.losses(torch.zeros(1, needed - 1, 5), None, targets)))


@pytest.mark.parametrize(
    ("name", "text", "needed"),
    [
        ("speech_recognition", "hello", 6),
        ("speech_recognition", "", 0),
        ("speech_recognition", "All, all", 9),
        ("speech_recognition", "xy", 3),  # two unknown symbols are the same one
        ("phonemes", "L L OW1", 4),
        ("slot_filling", "o B-ow e E-ow", 7),
    ],
)
def test_tokens_that_a_text_needs(name: TaskName, text: str, needed: int) -> None:
    texts = {"speech_recognition": "hello al", "phonemes": "L OW1", "slot_filling": "o e B-ow E-ow"}
    task = _task(name, _clips(texts[name]))
    assert needed_tokens(task.tokens, _clips(text)[0]) == needed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_loss_on_a_gpu_is_that_on_the_cpu() -> None:
    clips = _clips("abc", "b", "", "cab ab")
    task = _task("speech_recognition", clips)
    logits = torch.randn(4, 20, task.output.size, generator=torch.Generator().manual_seed(1), requires_grad=True)
    for lengths in (None, torch.tensor([20, 11, 3, 17])):
        for chosen in ([0, 1, 2, 3], [2, 2, 2, 2]):
            targets = task.targets([clips[i] for i in chosen])
            expected = task.losses(logits, lengths, targets)
            (slope,) = torch.autograd.grad(expected.sum(), logits)
            there = logits.detach().cuda().requires_grad_()
            moved = None if lengths is None else lengths.cuda()
            found = task.losses(there, moved, targets.to("cuda"))
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)
            (found_slope,) = torch.autograd.grad(found.sum(), there)
            torch.testing.assert_close(found_slope.cpu(), slope, rtol=1e-4, atol=1e-5)
            assert task.answers(there.detach(), moved) == task.answers(logits.detach(), lengths)


# -- how answers are judged -----------------------------------------------------------------------------------


def test_speech_is_judged_by_words_and_characters() -> None:
    """Symbols that no training clip has count as well."""
    clips = _clips("The cat sat.", "Zürich")
    task = _task("speech_recognition", [*clips, *_clips("the cats at urich")], train=[2])
    answers = [_ids(task, "the cats at"), _ids(task, "urich")]
    # "the cat sat" against "the cats at": two words of three; a space less and one more. "zürich": two characters.
    assert task.measure(answers, clips) == pytest.approx({"wer": 3 / 4, "cer": 4 / 17})
    perfect = [_ids(task, "the cat sat")]
    assert task.measure(perfect, clips[:1]) == {"wer": 0.0, "cer": 0.0}
    assert task.measure([[], []], clips) == {"wer": 1.0, "cer": 1.0}


def test_phones_are_judged_with_repeats_collapsed() -> None:
    """Two equal phones of the reference are two, a phone heard over several tokens is one."""
    clips = _clips("HH AH0 L L OW1", "OW1")
    task = _task("phonemes", clips)
    h, a, l, o = _ids(task, "HH AH0 L OW1")  # noqa: E741
    paths = torch.tensor([[h, h, a, l, 0, l, l, o, 0], [0, o, o, o, 0, 0, a, a, 0]])
    logits = torch.nn.functional.one_hot(paths, task.output.size).float()
    answers = task.answers(logits, None)
    assert answers == [[h, a, l, l, o], [o, a]]
    assert task.measure(answers, clips) == {"per": pytest.approx(1 / 6)}
    assert task.measure(task.answers(logits, torch.tensor([9, 6])), clips) == {"per": 0.0}


def test_slots_are_judged_by_their_types_and_values() -> None:
    clips = _clips("fly to B-city New York E-city on B-date May E-date", "no slot at all", "B-city Rome E-city")
    task = _task("slot_filling", clips)
    heard = ["fly to B-city New Yor E-city on May", "no slot at all", "Rome"]
    found = task.measure([_ids(task, text) for text in heard], clips)
    # Types: {city, date} against {city}: 2/3; none against none: 1; {city} against none: 0. Values: New York against
    # New Yor 1, May against nothing 3, Rome against nothing 4, of 8 + 3 + 4 characters.
    assert found["slot_type_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found["slot_value_cer"] == pytest.approx(8 / 15)
    # Words without markers: "fly to New York on May" against "fly to New Yor on May": 1 of 6 + 4 + 1; 22 + 14 + 4.
    assert found["wer"] == pytest.approx(1 / 11) and found["cer"] == pytest.approx(1 / 40)


def test_the_worst_transcripts_come_first_and_unknown_symbols_are_counted() -> None:
    clips = _clips("one two", "three", "two ñ three")
    task = _task("speech_recognition", clips, train=[0, 1])
    tables = task.tables([_ids(task, text) for text in ("one one", "three", "one one one")], clips)
    assert [(row["edits"], row["said"], row["heard"]) for row in tables["transcripts"]] == [
        (3, "two ñ three", "one one one"),
        (1, "one two", "one one"),
        (0, "three", "three"),
    ]
    assert tables["unknown_symbols"] == [{"symbol": "ñ", "clips": 1}]


@pytest.mark.parametrize("name", TASKS)
def test_intervals_hold_what_was_measured_and_repeat_themselves(name: TaskName) -> None:
    texts = {
        "speech_recognition": ("one two", "three four five", "six"),
        "phonemes": ("W AH N", "T UW", "S IH K S"),
        "slot_filling": ("a B-x one two E-x", "B-y five E-y b", "six"),
    }[name]
    clips = _clips(*texts * 8)
    task = _task(name, clips)
    answers = [_ids(task, text) for text in (*texts * 4, *("", *texts[:2]) * 4)]
    measured, found = task.measure(answers, clips), task.intervals(answers, clips)
    assert found.keys() == measured.keys()
    for metric, (low, high) in found.items():
        assert low < measured[metric] < high, metric
    assert task.intervals(answers, clips) == found
    right = task.intervals([_ids(task, text) for text in texts * 8], clips)
    assert all(pair == ((1, 1) if metric == "slot_type_f1" else (0, 0)) for metric, pair in right.items())


def test_intervals_of_rates_resample_edits_and_lengths_together() -> None:
    """Of two clips, one with 1 of 1 words wrong and one with 0 of 9: the rates are 1, 0.1 and 0."""
    clips = _clips("a", "b c d e f g h i j")
    task = _task("speech_recognition", clips)
    assert task.intervals([_ids(task, "b"), _ids(task, "b c d e f g h i j")], clips)["wer"] == (0.0, 1.0)
    assert task.measure([_ids(task, "b"), _ids(task, "b c d e f g h i j")], clips)["wer"] == pytest.approx(0.1)


# -- models ---------------------------------------------------------------------------------------------------


def _waves(sizes: Sequence[int]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.random.default_rng(i).normal(0, 0.1, n)).float() for i, n in enumerate(sizes)]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("wav2vec2", (700, 700, 700)),
        ("wav2vec2-stable", (700, 700, 700)),
        ("wav2vec2-stable", (700, 1500, 430)),
        ("hubert-stable", (700, 1500, 430)),
    ],
)
def test_transformers_own_model_gives_the_same_logits_and_loss(name: str, sizes: tuple[int, ...]) -> None:
    """Where the first convolution is normalised over time, only without padding: see `petl.padding`."""
    clips = _clips("ab ba", "abcab", "")
    task = _task("speech_recognition", clips)
    config = WAVE[name].config()
    config.update({"vocab_size": task.output.size, "pad_token_id": 0, "ctc_loss_reduction": "mean"})
    theirs = drawn((HubertForCTC if "hubert" in name else Wav2Vec2ForCTC)(config), 0)
    front_end = WaveformFrontEnd(masks=True)
    x = front_end.collate([front_end.extract(wave) for wave in _waves(sizes)])
    assert (x.mask is None) == (len(set(sizes)) == 1)
    targets = task.targets(clips)
    labels = targets.values["tokens"].long()
    labels[torch.arange(labels.shape[1]) >= targets.values["lengths"][:, None]] = -100
    mask = torch.ones_like(x.values, dtype=torch.long) if x.mask is None else x.mask.long()
    with torch.no_grad():
        expected = theirs(x.values, attention_mask=mask, labels=labels)
        backbone = getattr(theirs, theirs.base_model_prefix)
        model = AudioModel(attach(backbone, {"method": "linear"}, seed=0), task.output, front_end).eval()
        model.head.load_state_dict(theirs.lm_head.state_dict())
        logits_BTV = model(x.values, x.mask)
        lengths_B = model.lengths(x.mask)
        losses_B = task.losses(logits_BTV, lengths_B, targets)
    torch.testing.assert_close(logits_BTV, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses_B.mean(), expected.loss, rtol=1e-5, atol=1e-5)
    if lengths_B is not None:
        assert lengths_B.tolist() == theirs._get_feat_extract_output_lengths(torch.tensor(sizes)).tolist()


def test_four_clips_are_learned_by_heart() -> None:
    """Tones of three pitches, one a letter, spelled out to the last word by LoRA and a linear head."""
    clips = _clips("Ab.", "cab a", "b ca", "ac bab")
    task = _task("speech_recognition", clips)
    pitches = {"a": 300.0, "b": 900.0, "c": 2100.0, " ": 0.0}
    generator = torch.Generator().manual_seed(0)
    front_end = WaveformFrontEnd(masks=True)
    rows = []
    for text in task.references(clips):
        time = torch.arange(240) / 16000
        wave_S = torch.cat([torch.sin(2 * torch.pi * pitches[letter] * time) for letter in text])
        rows.append(front_end.extract(wave_S + 0.01 * torch.randn(len(wave_S), generator=generator)))
    x = front_end.collate(rows)
    flat = {"method": "lora", "lora.rank": 4, "lora.targets": "q,k,v,o,fc1,fc2", "norms": "site+final"}
    model = AudioModel(attach(WAVE["wav2vec2-stable"].build(), flat, seed=0), task.output, front_end, seed=0).train()
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=3e-3)
    targets = task.targets(clips)
    for _ in range(800):
        loss = task.losses(model(x.values, x.mask), model.lengths(x.mask), targets).mean()
        if loss.item() < 0.02:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        answers = task.answers(model(x.values, x.mask), model.lengths(x.mask))
    assert task.heard(answers) == ["ab", "cab a", "b ca", "ac bab"]
    assert task.measure(answers, clips) == {"wer": 0.0, "cer": 0.0}


def test_other_outputs_are_refused() -> None:
    with pytest.raises(TypeError, match="not with 'classes'"):
        build_task("phonemes", Classes(("a", "b")), TrainOptions())
    assert isinstance(_task("phonemes", _clips("A")).output, Tokens)
