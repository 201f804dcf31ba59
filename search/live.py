"""What a person sees while a search runs: one calm screen in a terminal, one line per event elsewhere.

Both views hear the same calls (`View`). A view must never harm the search: whatever goes wrong while drawing is
logged and dropped. Torch-free, Ray-free.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from search.metric_text import is_detail, with_deviation
from search.records import EpochRecord, Incident, SearchRecord, Status, TrialRecord
from search.screen import data_text, draw, state_line
from search.standing import Standing
from search.texts import format_duration, incident_text, plural, short_configuration, short_count

__all__ = ["LineView", "LiveView", "View", "make_view"]

_REFRESHES_A_SECOND = 4
_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_S = TypeVar("_S")


class View(Protocol):
    """Whoever shows a search while it runs. `phase`, `progress` and `note` may come before `start`."""

    def phase(self, text: str) -> None:
        """What is being done now, outside of trials ("reading the audio"); "" ends it."""

    def progress(self, done: int, total: int, text: str = "") -> None:
        """How far the present phase is; `text` names it if it is a new one."""

    def start(self, record: SearchRecord, total_trials: int | None, time_budget: float | None) -> None:
        """The search begins; its budget in trials and in seconds. `record` is read again with every event."""

    def note(self, text: str) -> None:
        """Something the person should know once."""

    def trial_started(self, trial: TrialRecord) -> None:
        """A trial begins, or goes on after an interruption."""

    def epoch(self, trial: TrialRecord, epoch: EpochRecord) -> None:
        """A trial has trained one more epoch."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """A trial has ended; its status says how."""

    def incident(self, trial: TrialRecord, incident: Incident) -> None:
        """Something went wrong with a trial and was dealt with."""

    def finish(self, record: SearchRecord) -> None:
        """The search has ended; show where it stands for the last time."""

    def stop(self) -> None:
        """Give the terminal back. May be called at any time and again."""


def make_view(console: Console | None = None, verbose: bool = False) -> View:
    """The live screen for a terminal that can redraw, lines for everything else; `verbose` adds every epoch."""
    console = console or Console()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(console)
    return LineView(console, verbose)


def _harmless(method: Callable[Concatenate[_S, _P], None]) -> Callable[Concatenate[_S, _P], None]:
    """Log what goes wrong in `method` and go on."""

    @functools.wraps(method)
    def guarded(self: _S, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            _log.debug("the view could not show an event", exc_info=True)

    return guarded


class LiveView:
    """One screen, redrawn in place at most four times a second; notes and failures scroll by above it."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._standing = Standing(clock)
        self._live: Live | None = None
        self._stopped = False

    @_harmless
    def phase(self, text: str) -> None:
        self._standing.set_phase(text)
        self._show()

    @_harmless
    def progress(self, done: int, total: int, text: str = "") -> None:
        self._standing.set_progress(done, total, text)
        self._show()

    @_harmless
    def start(self, record: SearchRecord, total_trials: int | None, time_budget: float | None) -> None:
        self._standing.set_phase("")
        self._standing.start(record, total_trials, time_budget)
        self._show()

    @_harmless
    def note(self, text: str) -> None:
        self._console.print(Text(text))

    @_harmless
    def trial_started(self, trial: TrialRecord) -> None:
        self._standing.trial_started(trial)

    @_harmless
    def epoch(self, trial: TrialRecord, epoch: EpochRecord) -> None:
        self._standing.epoch(trial, epoch)

    @_harmless
    def trial_ended(self, trial: TrialRecord) -> None:
        self._standing.trial_ended(trial)
        if trial.status is Status.FAILED:
            self._console.print(Text(f"{trial.name} failed: {trial.reason}", style="red"))

    @_harmless
    def incident(self, trial: TrialRecord, incident: Incident) -> None:
        self._console.print(Text(incident_text(trial, incident), style="yellow"))

    @_harmless
    def finish(self, record: SearchRecord) -> None:
        with self._standing.lock:
            self._standing.record, self._standing.finished = record, True
        self.stop()

    @_harmless
    def stop(self) -> None:
        self._stopped = True
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _show(self) -> None:
        if self._live is None and not self._stopped:
            self._live = Live(self, console=self._console, refresh_per_second=_REFRESHES_A_SECOND)
            self._live.start()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        try:
            with self._standing.lock:
                lines = draw(self._standing, options.max_width, console.height)
        except Exception:  # an error here would end the thread that redraws
            _log.debug("the screen could not be drawn", exc_info=True)
            return
        yield from lines


class LineView:
    """One line per event, each with the time since the start: for logs, pipes and small terminals."""

    def __init__(self, console: Console, verbose: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._verbose = console, verbose
        self._standing = Standing(clock)
        self._clock, self._began = clock, clock()
        self._quarter = -1
        self._finished = False

    @_harmless
    def phase(self, text: str) -> None:
        if text and text != self._standing.phase:
            self._quarter = -1
            self._line(text)
        self._standing.set_phase(text)

    @_harmless
    def progress(self, done: int, total: int, text: str = "") -> None:
        """A line for every quarter of the way, not for every clip."""
        if text and text != self._standing.phase:
            self._quarter = -1
        self._standing.set_progress(done, total, text)
        quarter = math.floor(4 * done / total) if total > 0 else -1
        if quarter > self._quarter and done > 0:
            self._quarter = quarter
            self._line(f"{self._standing.phase}: {done}/{total}")

    @_harmless
    def start(self, record: SearchRecord, total_trials: int | None, time_budget: float | None) -> None:
        self._standing.set_phase("")
        self._standing.start(record, total_trials, time_budget)
        words = [f"search {record.name}"]
        words += [f"backbone {record.info['backbone']}"] if record.info.get("backbone") else []
        words += [f"data {data_text(record.info)}"] if data_text(record.info) else []
        words += [f"{total_trials} trials"] if total_trials is not None else []
        words += [f"at most {format_duration(time_budget)}"] if time_budget is not None else []
        words += [f"already ended: {self._standing.ended}"] if record.trials else []
        self._line(" · ".join(words))

    @_harmless
    def note(self, text: str) -> None:
        self._line(text)

    @_harmless
    def trial_started(self, trial: TrialRecord) -> None:
        self._standing.trial_started(trial)
        again = f"continues after epoch {trial.epochs[-1].epoch}" if trial.epochs else "started"
        size = f"{short_count(trial.trainable_params)} parameters"
        self._line(f"{trial.name} {again}: {short_configuration(trial.params)} ({size})")

    @_harmless
    def epoch(self, trial: TrialRecord, epoch: EpochRecord) -> None:
        self._standing.epoch(trial, epoch)
        if self._verbose:
            values = " ".join(f"{k} {v:.4g}" for k, v in epoch.metrics.items() if not is_detail(k))
            self._line(f"{trial.name} epoch {epoch.epoch}: {values} ({epoch.seconds:.2g} s)")

    @_harmless
    def trial_ended(self, trial: TrialRecord) -> None:
        self._standing.trial_ended(trial)
        words = [str(trial.status) + (f" ({trial.reason})" if trial.reason else "")]
        value, objective = self._standing.value(trial), self._standing.objective
        if value is not None and objective is not None:
            reached = with_deviation(objective.metric, value[0], self._standing.deviation(trial))
            words.append(f"{objective.metric} {reached} at epoch {value[1]}")
        epochs = len(self._standing.epochs_of(trial))
        words.append(f"{epochs} {plural(epochs, 'epoch')}")
        if self._standing.best is not None and self._standing.best.id == trial.id:
            words.append("best so far")
        total = "" if self._standing.total is None else f"/{self._standing.total}"
        self._line(f"{trial.name} {', '.join(words)} [{self._standing.ended}{total}]")

    @_harmless
    def incident(self, trial: TrialRecord, incident: Incident) -> None:
        self._line(incident_text(trial, incident))

    @_harmless
    def finish(self, record: SearchRecord) -> None:
        self._standing.record, self._standing.finished = record, True
        if not self._finished:
            self._finished = True
            self._line(f"search ended: {state_line(self._standing) or 'no trial was trained'}")

    @_harmless
    def stop(self) -> None:
        """Nothing to give back."""

    def _line(self, text: str) -> None:
        minutes, seconds = divmod(int(self._clock() - self._began), 60)
        line = f"{minutes:>3}:{seconds:02d} {' '.join(text.split())}"
        # A log in an old encoding gets "?" for what it cannot hold rather than nothing.
        line = line.encode(self._console.encoding, "replace").decode(self._console.encoding)
        self._console.print(Text(line), soft_wrap=True)
