"""What tasks share that are learned by CTC (Graves et al. 2006): from symbols along time to text.

B clips, T tokens along time, V symbols with the blank, L symbols of the longest target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from petl.errors import ConfigError, UserError
from petl.outputs import Output
from petl.outputs.tokens import BLANK, Tokens, Unit
from trainables.config import TrainOptions
from trainables.data.clips import Clip
from trainables.tasks import text
from trainables.tasks.base import Targets, Task

if TYPE_CHECKING:
    from torch import Tensor


def vocabulary(unit: Unit, clips: Sequence[Clip], train: Sequence[int]) -> Tokens:
    """The symbols of the training clips. Those that only other clips have are unknown to the model (torch-free)."""
    return Tokens.of((_reference(clips[i], unit) for i in train), unit)


def unknown_symbols(output: Tokens, clips: Sequence[Clip]) -> dict[str, int]:
    """Symbols that are not among the labels -> in how many of the clips they occur, sorted (torch-free)."""
    known = set(output.labels)
    counted = Counter(symbol for clip in clips for symbol in set(output.spelled(_reference(clip, output.unit))) - known)
    return dict(sorted(counted.items()))


def needed_tokens(output: Tokens, clip: Clip) -> int:
    """The fewest tokens along time that can spell a clip's text: one a symbol, and a blank between equal neighbours.

    With fewer, no path gives the text, and its loss is infinite (torch-free).
    """
    ids = output.encode(_reference(clip, output.unit))
    return len(ids) + sum(left == right for left, right in pairwise(ids))


_LISTED = 30


class CtcTask(Task):
    """Text as `trainables.tasks.text` has it, spelled as the output says.

    The loss of a clip is that of CTC over the symbols of its target, so that long texts do not outweigh short ones:
    the mean over clips is torch's and transformers' reduction "mean". A text that its clip is too short for costs
    infinitely much (see `needed_tokens`): nothing is hidden. Answers are the numbers of the symbols heard.
    """

    mixes: ClassVar[bool] = False  # no path is right for both of two texts

    def __init__(self, output: Output, options: TrainOptions) -> None:
        if not isinstance(output, Tokens):
            raise TypeError(f"'{self.name}' answers with a sequence of symbols, not with '{output.kind}'")
        self.tokens = output
        super().__init__(output, options)

    def check_options(self) -> None:
        if self.options.loss != "auto":
            raise ConfigError(
                f"train.loss is '{self.options.loss}', but {self.name} is learned by CTC; leave it out or give 'auto'",
                "train.loss",
            )
        if self.options.label_smoothing:
            raise ConfigError(
                f"train.label_smoothing is {self.options.label_smoothing:g}, which means nothing to {self.name}; "
                "leave it out",
                "train.label_smoothing",
            )
        if self.options.balanced:
            raise ConfigError(
                f"train.balanced draws clips by their class, and those of {self.name} have none; leave it out",
                "train.balanced",
            )

    def targets(self, clips: Sequence[Clip]) -> Targets:
        """`tokens` (N, L) numbers of symbols, with blanks behind; `lengths` (N,) how many of them count."""
        import torch

        encoded = [torch.tensor(self.tokens.encode(t), dtype=torch.int32) for t in self.references(clips)]
        lengths_N = torch.tensor([len(ids) for ids in encoded], dtype=torch.int64)
        tokens_NL = torch.full((len(encoded), max([1, *map(len, encoded)])), BLANK, dtype=torch.int32)
        for row_L, ids in zip(tokens_NL, encoded, strict=True):
            row_L[: len(ids)] = ids
        return Targets({"tokens": tokens_NL, "lengths": lengths_N})

    def losses(self, logits: Tensor, lengths_B: Tensor | None, targets: Targets) -> Tensor:
        import torch
        from torch.nn import functional

        scores_TBV = logits.float().log_softmax(dim=-1).transpose(0, 1)
        if lengths_B is None:
            lengths_B = torch.full((scores_TBV.shape[1],), scores_TBV.shape[0], device=logits.device)
        wanted_BL, wanted_B = targets.values["tokens"].long(), targets.values["lengths"]
        loss_B = functional.ctc_loss(scores_TBV, wanted_BL, lengths_B, wanted_B, blank=BLANK, reduction="none")
        return loss_B / wanted_B.clamp(min=1)

    def answers(self, logits: Tensor, lengths_B: Tensor | None) -> list[Any]:
        """The numbers of the symbols on each clip's best path, collapsed."""
        return list(self.tokens.paths(logits, lengths_B))

    def references(self, clips: Sequence[Clip]) -> list[str]:
        """What was said in each clip, unknown symbols included."""
        return [_reference(clip, self.tokens.unit) for clip in clips]

    def heard(self, answers: Sequence[Any]) -> list[str]:
        """Answers as text."""
        return [self.tokens.text(ids) for ids in answers]

    def tables(self, answers: Sequence[Any], clips: Sequence[Clip]) -> dict[str, Any]:
        """`transcripts`: what was said and what was heard in the clips with the most edits, the worst first, and
        `unknown_symbols`: how many clips hold a symbol that no training clip has."""
        from trainables import metrics

        said, heard = self.references(clips), self.heard(answers)
        edits_B, _ = metrics.edits([one.split() for one in said], [one.split() for one in heard])
        worst = sorted(range(len(clips)), key=lambda i: (-int(edits_B[i]), clips[i].order))[:_LISTED]
        unknown = unknown_symbols(self.tokens, clips)
        return {
            "transcripts": [
                {"clip": clips[i].title, "edits": int(edits_B[i]), "said": said[i], "heard": heard[i]} for i in worst
            ],
            **({"unknown_symbols": [{"symbol": s, "clips": n} for s, n in unknown.items()]} if unknown else {}),
        }


def rate_intervals(references: Sequence[str], heard: Sequence[str]) -> dict[str, tuple[float, float]]:
    """95 % intervals of the wer and cer of all clips: edits and lengths of clips are resampled together."""
    from trainables import metrics

    found = {}
    for name, parts in (("wer", metrics.words_of), ("cer", metrics.characters_of)):
        counted = metrics.edits([parts(text) for text in references], [parts(text) for text in heard])
        _, low, high = metrics.interval_of_ratio(*counted)
        found[name] = (low, high)
    return found


def _reference(clip: Clip, unit: Unit) -> str:
    if clip.text is None:
        raise UserError(f"{clip.title}: there is no text, which every clip needs for this task ('' where none is said)")
    return text.reference(clip.text, unit)
