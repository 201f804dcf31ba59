"""What stays in a worker process from trial to trial: backbone, data, and the trial in progress.

Commands are idempotent: asking twice for the next epoch of a trial that is not the one in progress closes the
old one, restores the backbone and continues the new one from its last checkpoint, if it has any. It knows
nothing of Ray; a group of processes with `torch.distributed` initialised gives each one a `Session`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from petl.errors import UserError
from petl.model import AudioModel
from trainables.answering import Answer, out_of_memory, parts_of, past_of, repeated, reported
from trainables.checkpoints import Checkpoint, CheckpointStore
from trainables.config import TrialConfig
from trainables.data import AudioData, Busy, idle
from trainables.evaluation import Answers, answers_on, intervals_of, tables_of
from trainables.holdings import Holdings
from trainables.kept import Kept, digest_of
from trainables.loop import Diverged, Monitor, Report, mean_of, train
from trainables.memory import OutOfMemory, release
from trainables.storage import StorageError


@dataclass
class _Running:
    """The trial in progress. `history` holds its epochs; `unsaved` is a trained one that could not be written yet."""

    trial: str
    digest: str
    parts: int
    history: list[dict[str, Any]]
    model: AudioModel
    reports: Iterator[Report]
    unsaved: Report | None = None


class Session(Holdings):
    """One process's share of a worker group.

    Args:
        store: where checkpoints go; only rank 0 writes. None keeps nothing.
        device: where models run.
        cache_root: the feature cache of this node; None: features are not kept.
        monitor: the metric that chooses the best epoch.
        waiting: a context for what waits for the storage, which has a patience of its own.
    """

    def __init__(
        self,
        store: CheckpointStore | None,
        device: torch.device,
        cache_root: Path | None,
        monitor: Monitor,
        waiting: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        super().__init__(device, cache_root)
        self._store, self._kept, self._monitor = store, Kept(store, waiting), monitor
        self._running: _Running | None = None
        self._parts = 1  # of what was computed last

    def prepare(self, flat: dict[str, Any], busy: Busy = idle) -> Answer:
        """Open data and backbone, so that an epoch's time is training: `prepared`, or why it is `refused`.

        `busy` is called after every step: features of a large data set take hours.
        """
        try:
            config = TrialConfig.from_flat(flat)
            repeats = self.data(config, busy)
            if self._running is None:
                self.backbone(config, repeats[0])
        except UserError as error:
            return {"refused": str(error)}
        return {"prepared": True}

    def epoch(self, trial: str, flat: dict[str, Any], *, fresh: bool = False, parts: int = 1) -> Answer:
        """Train the next epoch of `trial`; its metrics, and `done` when there is none after it.

        `fresh`: whoever asks knows no epoch of the trial from this session. If the trial has a checkpoint, its
        report is given again and nothing is trained: the driver may have died before it heard of it. The answer's
        `past` holds the epochs before. `parts`: see `trainables.memory`; a trial never goes back to fewer.

        Instead of a report the answer may be `oom` (memory ran out: ask again with more parts), `error` (with a
        single clip at a time), or `storage` (what is trained cannot be written, or read, for now: ask again).
        """
        arrived = time.time()
        config = TrialConfig.from_flat(flat)
        return self._guarded(lambda: self._epoch(trial, config, fresh, parts, arrived))

    def evaluate(self, trial: str, flat: dict[str, Any], split: str, *, parts: int = 1) -> Answer:
        """Metrics, their intervals, and tables of the trial's best epoch on `split`, and which `epoch` that is.

        Of several repeats the metrics are their mean and deviation, tables and intervals those of all clips together,
        as far as that can be (see `tables_of`, `intervals_of`). `warning`: why it is not the best epoch after all.
        `oom`, `error` and `storage` are as of `epoch`.
        """
        config = TrialConfig.from_flat(flat)
        return self._guarded(lambda: self._evaluate(trial, config, split, parts))

    def _guarded(self, act: Callable[[], Answer]) -> Answer:
        try:
            return act()
        except StorageError as error:
            return {"storage": str(error)}
        except OutOfMemory as error:
            answer = out_of_memory(error, self._parts)
        self.close()  # only now: the error's frames held the tensors of the computation
        release()
        return answer

    def _epoch(self, trial: str, config: TrialConfig, fresh: bool, parts: int, arrived: float) -> Answer:
        digest = digest_of(config)
        running = self._running
        if running is not None and (running.trial, running.digest) != (trial, digest):
            running = None
        if fresh and (running is None or running.unsaved is None):
            self.close()
            running, last = None, self._kept.read(trial, "last", digest)
            if last is not None:
                return repeated(last, config, self._kept.notes(trial), past_of(last))
        if running is None or (running.unsaved is None and parts > running.parts):
            try:
                running = self._begin(trial, config, digest, parts)
            except UserError as error:  # the same every time
                self.close()
                return {"done": True, "refused": str(error)}
        ready = time.time()
        if running.unsaved is None:
            try:
                running.unsaved = next(running.reports, None)
            except Diverged as diverged:
                self.close()
                return {"done": True, "diverged": str(diverged)}
            except BaseException:
                self.close()
                raise
        report = running.unsaved
        if report is None:  # asked once more after the last epoch: its report was lost on the way
            self.close()
            last = self._kept.read(trial, "last", digest)
            if last is None:
                raise RuntimeError(f"trial {trial} is over and left no checkpoint")
            return repeated(last, config, self._kept.notes(trial), None)
        self._save(running, report)
        if report.over:
            self.close()
        # Seconds since 1970; turn-around is measured from these.
        stamps = {"began": arrived, "first_step": ready, "ended": time.time()}
        past = running.history if fresh else None
        return {**reported(report, running.parts, self._kept.notes(trial), past), **stamps}

    def _evaluate(self, trial: str, config: TrialConfig, split: str, parts: int) -> Answer:
        self.close()
        checkpoint, warning = self._kept.best(trial, digest_of(config), self._monitor)
        self._parts = max(parts, parts_of(checkpoint))
        repeats = self.data(config)
        found: list[Answers] = []
        for data in repeats:
            model = self._restored(checkpoint, config, data)
            try:
                found.append(answers_on(config, model, data, split, self._parts))
            finally:
                model.adapted.detach()
        measured = [answers.metrics() for answers in found]
        spread = intervals_of(found) if split == "test" else {}  # nobody looks at those of the validation
        return {
            "epoch": checkpoint.meta["epoch"],
            "metrics": mean_of(measured, [data.title for data in repeats]),
            "intervals": {name: [float(bound) for bound in ends] for name, ends in spread.items()},
            "tables": tables_of(found),
            **({"warning": warning} if warning else {}),
        }

    def best_model(self, trial: str, config: TrialConfig, repeat: int = 0) -> AudioModel:
        """The trial's model with the weights of its best epoch, of one repeat. The caller detaches it."""
        self.close()
        return self._restored(
            self._kept.best(trial, digest_of(config), self._monitor)[0], config, self.data(config)[repeat]
        )

    def _restored(self, checkpoint: Checkpoint, config: TrialConfig, data: AudioData) -> AudioModel:
        model = self.build(config, data)
        try:
            model.load_adapter_state(checkpoint.part(f"{data.title}/model" if data.title else "model"))
        except BaseException:
            model.adapted.detach()
            raise
        return model

    def close(self) -> None:
        """Forget the trial in progress and give the backbone back as it was."""
        running, self._running = self._running, None
        if running is not None:
            running.reports.close()  # type: ignore[attr-defined]
            running.model.adapted.detach()

    def _begin(self, trial: str, config: TrialConfig, digest: str, parts: int) -> _Running:
        self.close()
        repeats = self.data(config)
        resume = self._kept.read(trial, "last", digest)
        if resume is None:  # else it was done when the trial began
            self._kept.claim(trial, digest)
        before = parts_of(resume)
        self._parts = max(parts, before)
        if self._parts > before:
            self._kept.note(trial, f"memory ran out: what is computed at a time is cut into {self._parts} parts")
        model = self.build(config, repeats[0])
        reports = train(config, model, repeats, resume=resume, monitor=self._monitor, parts=self._parts)
        history = past_of(resume) if resume is not None else []
        self._running = _Running(trial, digest, self._parts, history, model, reports)
        return self._running

    def _save(self, running: _Running, report: Report) -> None:
        now = {"epoch": report.epoch, "seconds": report.seconds, "metrics": report.metrics}
        history = [*running.history, now]
        known = {"config": running.digest, "parts": running.parts, "history": history}
        self._kept.write(running.trial, report, known)
        running.history, running.unsaved = history, None
