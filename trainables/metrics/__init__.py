"""What is measured on a split: pure functions of outputs and targets, one module for each kind of task.

Every function takes whole splits: the mean of a metric over batches is not the metric. A value that the clips do not
define (no clips at all, no class with both positives and negatives, scores that are not finite) is NaN and never an
error, so that one bad epoch does not end a trial; `trainables.metric_names` says which direction is good.
"""

from __future__ import annotations

from trainables.metrics.classes import ClassRow, class_table, classification, confusion, single_label
from trainables.metrics.ensemble import EpochEnsemble
from trainables.metrics.intervals import Interval, interval, interval_of_mean, interval_of_ratio, over_folds
from trainables.metrics.slots import multi_slot, per_slot
from trainables.metrics.spans import slot_filling, slot_spans
from trainables.metrics.tags import TagRow, d_prime, map_interval, multi_label, tag_table
from trainables.metrics.verification import eer, min_dcf, same_or_different
from trainables.metrics.words import characters_of, collapsed, edits, error_rates, phones, words_of

__all__ = [
    "ClassRow",
    "EpochEnsemble",
    "Interval",
    "TagRow",
    "characters_of",
    "class_table",
    "classification",
    "collapsed",
    "confusion",
    "d_prime",
    "edits",
    "eer",
    "error_rates",
    "interval",
    "interval_of_mean",
    "interval_of_ratio",
    "map_interval",
    "min_dcf",
    "multi_label",
    "multi_slot",
    "over_folds",
    "per_slot",
    "phones",
    "same_or_different",
    "single_label",
    "slot_filling",
    "slot_spans",
    "tag_table",
    "words_of",
]
