"""What stays in a worker process from trial to trial: backbone, data, and the trial in progress.

Commands are idempotent: asking twice for the next epoch of a trial that is not the one in progress closes the
old one, restores the backbone and continues the new one from its last checkpoint, if it has any. It knows
nothing of Ray; a group of processes with `torch.distributed` initialised gives each one a `Session`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import petl
from petl.errors import UserError
from petl.model import AudioModel
from trainables import augment, checks
from trainables.checkpoints import Checkpoint, CheckpointStore
from trainables.config import TrialConfig
from trainables.data import AudioData
from trainables.evaluation import Answers, answers_on, intervals_of, tables_of
from trainables.loop import Diverged, Monitor, Report, mean_of, train
from trainables.opening import open_for, waveforms_needed

_KEPT = 3
"""Data that stay open: a trial may sample what they depend on, and every opening holds files and tables."""


class Session:
    """One process's share of a worker group.

    Args:
        store: where checkpoints go; only rank 0 writes. None keeps nothing.
        device: where models run.
        cache_root: the feature cache of this node.
        monitor: the metric that chooses the best epoch.
    """

    def __init__(
        self, store: CheckpointStore | None, device: torch.device, cache_root: Path | None, monitor: Monitor
    ) -> None:
        self._store, self._device, self._cache_root, self._monitor = store, device, cache_root, monitor
        self._rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        self._backbones: dict[tuple[Any, ...], Any] = {}
        self._data: dict[tuple[Any, ...], list[AudioData]] = {}
        self._trial: str | None = None
        self._reports: Iterator[Report] | None = None
        self._model: AudioModel | None = None

    def epoch(self, trial: str, flat: dict[str, Any], *, fresh: bool = False) -> dict[str, Any]:
        """Train the next epoch of `trial`; its metrics, and `done` when there is none after it.

        `fresh`: whoever asks knows no epoch of the trial from this session. If the trial has a checkpoint, its
        report is given again and nothing is trained: the driver may have died before it heard of it.
        """
        arrived = time.time()
        config = TrialConfig.from_flat(flat)
        if fresh:
            self.close()
            last = self._store.read(trial, "last") if self._store else None
            if last is not None:
                return self._again(last, config)
        if trial != self._trial or self._reports is None:
            try:
                self._begin(trial, config)
            except UserError as error:  # the same every time
                self.close()
                return {"done": True, "refused": str(error)}
        assert self._reports is not None
        ready = time.time()
        try:
            report = next(self._reports, None)
        except Diverged as diverged:
            self.close()
            return {"done": True, "diverged": str(diverged)}
        except BaseException:
            self.close()
            raise
        if report is None:  # asked once more after the last epoch: its report was lost on the way
            self.close()
            last = self._store.read(trial, "last") if self._store else None
            if last is None:
                raise RuntimeError(f"trial {trial} is over and left no checkpoint")
            return self._again(last, config)
        self._save(trial, report)
        done = report.over
        if done:
            self.close()
        return {
            "epoch": report.epoch,
            "seconds": report.seconds,
            "done": done,
            "last": done,  # Tune sets `done` for trials it stops, too
            "began": arrived,  # seconds since 1970; turn-around is measured from these
            "first_step": ready,
            "ended": time.time(),
            **report.metrics,
        }

    def evaluate(self, trial: str, flat: dict[str, Any], split: str) -> dict[str, Any]:
        """Metrics, their intervals, and tables of the trial's best epoch on `split`.

        Of several repeats the metrics are their mean and deviation, tables and intervals those of all clips together,
        as far as that can be (see `tables_of`, `intervals_of`).
        """
        config = TrialConfig.from_flat(flat)
        repeats = self.data(config)
        found: list[Answers] = []
        for number, data in enumerate(repeats):
            model = self.best_model(trial, config, number)
            try:
                found.append(answers_on(config, model, data, split))
            finally:
                model.adapted.detach()
        measured = [answers.metrics() for answers in found]
        spread = intervals_of(found) if split == "test" else {}  # nobody looks at those of the validation
        return {
            "metrics": mean_of(measured, [data.title for data in repeats]),
            "intervals": {name: [float(bound) for bound in ends] for name, ends in spread.items()},
            "tables": tables_of(found),
        }

    def best_model(self, trial: str, config: TrialConfig, repeat: int = 0) -> AudioModel:
        """The trial's model with the weights of its best epoch, of one repeat. The caller detaches it."""
        assert self._store is not None
        checkpoint = self._store.read(trial, "best") or self._store.read(trial, "last")
        if checkpoint is None:
            raise RuntimeError(f"trial {trial} has no readable checkpoint in {self._store.root}")
        self.close()
        data = self.data(config)[repeat]
        model = self.build(config, data)
        try:
            model.load_adapter_state(checkpoint.part(f"{data.title}/model" if data.title else "model"))
        except BaseException:
            model.adapted.detach()
            raise
        return model

    def build(self, config: TrialConfig, data: AudioData) -> AudioModel:
        """A freshly initialised model for the data on the kept backbone."""
        augment.check(config.aug, data.front_end)
        checks.check(config, data)
        strides = {"frequency_stride": config.frequency_stride, "time_stride": config.time_stride}
        frames = data.front_end.backbone_frames
        key = (config.backbone, config.revision, config.positions, frames, *strides.values())
        if key not in self._backbones:
            self._backbones.clear()  # one at a time: they are the largest thing in the process
            backbone: nn.Module = petl.load_backbone(
                config.backbone,
                frames=frames,
                positions=config.positions,
                revision=config.revision,
                **strides,
            )
            self._backbones[key] = backbone.to(self._device)
        adapted = petl.attach(self._backbones[key], config.method, seed=config.seed)
        try:
            if config.train.gradient_checkpointing:
                adapted.gradient_checkpointing()
            return AudioModel(adapted, data.output, data.front_end, seed=config.seed).to(self._device)
        except BaseException:  # out of memory, say: the next trial must find the backbone as it was
            adapted.detach()
            raise

    def data(self, config: TrialConfig) -> list[AudioData]:
        """The data of every repeat of this configuration as its backbone reads them; the last few stay open."""
        key = (
            config.data,
            config.backbone,
            config.revision,
            config.time_stride,
            config.aug.speed,  # training clips that are too short for their transcript when sped up are left out
            waveforms_needed(config),
        )
        found = self._data.pop(key, None)
        if found is None:
            found = open_for(config, cache_root=self._cache_root)
        self._data[key] = found  # the last one is the latest used
        while len(self._data) > _KEPT:
            del self._data[next(iter(self._data))]
        return found

    def close(self) -> None:
        """Forget the trial in progress and give the backbone back as it was."""
        if self._reports is not None:
            self._reports.close()  # type: ignore[attr-defined]
        if self._model is not None:
            self._model.adapted.detach()
        self._trial = self._reports = self._model = None

    def _begin(self, trial: str, config: TrialConfig) -> None:
        self.close()
        repeats = self.data(config)
        self._model = self.build(config, repeats[0])
        resume = self._store.read(trial, "last") if self._store else None
        self._trial = trial
        self._reports = train(config, self._model, repeats, resume=resume, monitor=self._monitor)

    def _save(self, trial: str, report: Report) -> None:
        if self._store is None or self._rank != 0:
            return
        if report.is_best:
            self._store.write(trial, "best", Checkpoint(report.judged, report.checkpoint.meta))
        self._store.write(trial, "last", report.checkpoint)

    @staticmethod
    def _again(last: Checkpoint, config: TrialConfig) -> dict[str, Any]:
        """The report of an epoch that was trained before."""
        over = last.meta.get("over", False) or last.meta["epoch"] >= config.epochs
        return {
            "epoch": last.meta["epoch"],
            "seconds": last.meta["seconds"],
            "done": over,
            "last": over,
            **last.meta["metrics"],
        }
