"""The numbers a search can optimise, by name, and which tasks report them (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from petl.errors import UserError, nearest

_OBJECTIVES: Final = {
    "classification": "val/accuracy",
    "tagging": "val/map",
    "slots": "val/exact_match",
    "verification": "val/eer",
    "speech_recognition": "val/wer",
    "phonemes": "val/per",
    "slot_filling": "val/slot_type_f1",
}
TASKS: tuple[str, ...] = tuple(_OBJECTIVES)
"""Names of the tasks."""


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is: its good direction, whether every epoch reports it or it is known beforehand, and for what."""

    name: str
    mode: Literal["max", "min"]
    meaning: str
    per_epoch: bool = True
    tasks: tuple[str, ...] = ()  # that report it; empty: all

    def reported_by(self, task: str) -> bool:
        """Whether a trial of this task has the metric."""
        return not self.tasks or task in self.tasks


METRICS: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        MetricInfo(
            "val/accuracy",
            "max",
            "share of validation clips labelled right; of several slots the mean over them",
            tasks=("classification", "slots"),
        ),
        MetricInfo(
            "val/macro_f1",
            "max",
            "F1 on the validation clips, mean over the classes that occur",
            tasks=("classification",),
        ),
        MetricInfo(
            "val/weighted_f1",
            "max",
            "F1 on the validation clips, mean over the classes by their number of clips",
            tasks=("classification",),
        ),
        MetricInfo("val/exact_match", "max", "share of validation clips with every slot right", tasks=("slots",)),
        MetricInfo("val/map", "max", "average precision, mean over the labels", tasks=("tagging",)),
        MetricInfo("val/mauc", "max", "area under the ROC curve, mean over the labels", tasks=("tagging",)),
        MetricInfo("val/d_prime", "max", "d' that belongs to val/mauc", tasks=("tagging",)),
        MetricInfo(
            "val/eer", "min", "rate of false acceptances where that of refusals equals it", tasks=("verification",)
        ),
        MetricInfo(
            "val/min_dcf", "min", "least detection cost, normalised, target prior 0.01", tasks=("verification",)
        ),
        MetricInfo(
            "val/wer", "min", "word edits over words of the references", tasks=("speech_recognition", "slot_filling")
        ),
        MetricInfo(
            "val/cer",
            "min",
            "character edits over characters of the references",
            tasks=("speech_recognition", "slot_filling"),
        ),
        MetricInfo("val/per", "min", "phone edits over phones of the references", tasks=("phonemes",)),
        MetricInfo(
            "val/slot_type_f1", "max", "F1 of the set of slot types, mean over utterances", tasks=("slot_filling",)
        ),
        MetricInfo(
            "val/slot_value_cer",
            "min",
            "character edits over characters of the references' slot values",
            tasks=("slot_filling",),
        ),
        MetricInfo(
            "val/loss",
            "min",
            "mean loss on the validation clips, nats",
            # The loss of a verification task knows the speakers of the training clips only.
            tasks=tuple(task for task in TASKS if task != "verification"),
        ),
        MetricInfo(
            "train/accuracy",
            "max",
            "share of training clips labelled right during the epoch; of several slots the mean over them",
            tasks=("classification", "slots", "verification"),
        ),
        MetricInfo("train/loss", "min", "mean loss over the training clips of the epoch, nats"),
        MetricInfo("trainable_params", "min", "numbers that are trained, head included", per_epoch=False),
    )
}
"""Metric name -> what it is. Test metrics are missing on purpose: no search may look at the test split."""


def metric_of(task: str) -> str:
    """Name of the metric a search of this task optimises unless told otherwise; its mode is in `METRICS`.

    Raises:
        UserError: for a task that does not exist.
    """
    if task not in _OBJECTIVES:
        raise UserError(f"'{task}' is not a task{nearest(task, TASKS)}; tasks are {', '.join(TASKS)}")
    return _OBJECTIVES[task]
