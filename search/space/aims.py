"""Objectives that the task of a space's data can have (torch-free)."""

from __future__ import annotations

from dataclasses import replace

from search.records import Objective
from search.space.model import Space
from trainables.config import TrialConfig
from trainables.data.datasets import chosen, dataset
from trainables.metric_names import METRICS, metric_of


def task_of(config: TrialConfig) -> str:
    """The task that the data set and target of a trial make; `ConfigError` for a target that it does not have."""
    return dataset(config.data.dataset).targets[chosen(config.data).target].task


def measurable(space: Space) -> Space:
    """The space with objectives that its task reports: one that it does not becomes the task's own, with a note.

    So that a space about methods can be taken to any data set.
    """
    task = task_of(space.trial_config(space.complete({})))
    own = metric_of(task)
    objectives: list[Objective] = []
    notes = []
    for objective in space.objectives:
        if METRICS[objective.metric].reported_by(task):
            wanted = objective
        else:
            wanted = Objective(own, METRICS[own].mode)
            notes.append(
                f"{objective.metric} is not measured in {task.replace('_', ' ')}: {own} is searched for instead"
            )
        if wanted.metric not in {known.metric for known in objectives}:
            objectives.append(wanted)
    return replace(space, objectives=tuple(objectives), notes=(*space.notes, *notes))
