"""The model card of a pretrained embedded backbone."""

from __future__ import annotations

import textwrap
from typing import Any

from transformers import ASTModel

from trainables.embedded.synthesis import ENVELOPES, KINDS


def model_card(model: ASTModel, record: dict[str, Any], evaluation: dict[str, Any] | None = None) -> str:
    """Markdown of the card for `model`, from the `record` of its pretraining run.

    `evaluation` is the result file of `benchmarks/embedded_backbone.py`, where there is one for these weights.
    """
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    recipe = record["recipe"]
    examples = (
        record["steps"]
        * ((recipe["long_every"] - 1) * 2 * recipe["pairs"] + 2 * recipe["long_pairs"])
        // recipe["long_every"]
    )
    kinds = textwrap.fill(", ".join(KINDS), 110)
    return f"""---
library_name: transformers
license: apache-2.0
pipeline_tag: feature-extraction
tags: [audio, audio-spectrogram-transformer, synthetic]
---
# ast-synth

A small audio spectrogram transformer pretrained on synthesised sound only. It is the backbone a search uses when
none is named: small enough to be carried in the repository and trained on two cores, pretrained well enough that
its frozen features mean something.

```python
from transformers import ASTFeatureExtractor, ASTModel

backbone = ASTModel.from_pretrained("petl/embedded")
features = ASTFeatureExtractor.from_pretrained("petl/embedded")
```

| | |
|---|---|
| parameters | {parameters:,}, float32 |
| layers, width, heads | {config.num_hidden_layers}, {config.hidden_size}, {config.num_attention_heads} |
| input | 128 log-mel bands (Kaldi), 16 kHz; {config.max_length} frames of 10 ms = {config.max_length / 100:.2f} s |
| patches | 16 x 16 without overlap: 8 bands x 8 columns, plus class and distillation token |

Longer clips: interpolate the position embeddings bilinearly over time. One in {recipe["long_every"]} batches of the
pretraining was of five-second clips with positions interpolated in this way.

## Training
{record["steps"]:,} steps ({examples:,} examples, {record["seconds"] / 60:.0f} minutes on one CPU
thread), seed {recipe["seed"]}, torch {record["torch"]}. Sound: {len(KINDS)} kinds of source under
{len(ENVELOPES)} envelopes, in rooms, through microphones, over backgrounds, and mixtures of two; all drawn by
`trainables/embedded/synthesis.py`. The kinds:
{kinds}.

Questions: the kinds that can be heard, envelope, pitch, rhythm, reverberation
and level of the loudest source; texture statistics of the spectrogram (band levels, modulation spectra,
correlations); which two recordings are takes of the same thing. About half of the patches were hidden in the first
four fifths of the run. No recorded audio was used.

{_repeating(record)}

`pretraining.json` has the settings and the last losses.

## Evaluation
`uv run python benchmarks/embedded_backbone.py` compares a linear probe on the frozen features with the same probe
on randomly initialised copies, on the ten classes and five official folds of ESC-10.

{_evaluated(evaluation)}

Those recordings were never trained on. The figure was looked at for two candidate runs (a five-minute trial of an
earlier set of questions, and this one); nothing was tuned on it.

## Limits
Synthesised sound is not the world: expect much less than from a model pretrained on AudioSet. Use it to try
things, to test, and as the default of the first search; name a larger backbone for real work.
"""


def _repeating(record: dict[str, Any]) -> str:
    """How to make these weights again, and how alike they will be."""
    recipe = record["recipe"]
    command = f"uv run python -m trainables.embedded.pretrain --out DIR --seed {recipe['seed']}"
    by_steps = f"```\n{command} --steps {record['steps']}\n```"
    if recipe["steps"] is not None:
        return f"To repeat it exactly on the same versions and kind of processor:\n\n{by_steps}"
    return (
        "This run was stopped by the clock, and its learning rate followed the clock, so that it cannot be repeated "
        "bit for bit.\nTo make equivalent weights, by a run that itself repeats exactly on the same versions and "
        f"kind of processor:\n\n{by_steps}"
    )


def _evaluated(evaluation: dict[str, Any] | None) -> str:
    """The figures of the probe, as a table."""
    if evaluation is None:
        return "These weights have not been evaluated yet."
    lines = ["| test accuracy, % | " + " | ".join(f"fold {i}" for i in range(1, 6)) + " | mean |", "|---" * 7 + "|"]
    for name in ("pretrained", "random"):
        row = evaluation[name]
        lines.append(f"| {name} | " + " | ".join(f"{x:.1f}" for x in row["folds"]) + f" | **{row['mean']:.1f}** |")
    return "\n".join(lines) + f"\n\nDifference: {evaluation['difference']:+.1f} points."
