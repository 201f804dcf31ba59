"""The live screen and the lines: what they say, how much room they take, and that they never do harm."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from search.live import LineView, LiveView, View, make_view
from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord
from search.screen import MAX_LINES, curve, data_text, number
from search.standing import Standing

ACCURACY = Objective("val/accuracy", "max")


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def console(width: int, terminal: bool = False, height: int = 40) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=terminal,
        record=True,
        color_system=None,
        _environ={"TERM": "xterm", "COLUMNS": str(width), "LINES": str(height)},
    )


def search() -> SearchRecord:
    info = {"backbone": "embedded", "dataset": "embedded", "epochs": 27, "data": None, "classes": 10}
    info |= {"splits": {"train": 240, "val": 80, "test": 80}, "labels_are": "classes"}
    return SearchRecord("moa", "runs/moa", [ACCURACY, Objective("trainable_params", "min")], info)


def trial(n: int, **more: Any) -> TrialRecord:
    params = {"method": "soft_moa", "moa.experts": 7, "moa.reduction": 128, "optim.lr": 0.00512}
    return TrialRecord(f"t{n:04d}", n, f"t{n:04d}-soft_moa-e7-r128", params, 70_701, **more)


def train(view: View, t: TrialRecord, scores: list[float], clock: Clock | None = None) -> None:
    for score in scores:
        epoch = EpochRecord(len(t.epochs) + 1, {"train/loss": 2 - score, "val/accuracy": score}, 1.25)
        t.epochs.append(epoch)
        if clock is not None:
            clock.now += 1.5
        view.epoch(t, epoch)


def run_some(view: View, record: SearchRecord, clock: Clock | None = None, running: int = 2) -> list[TrialRecord]:
    """Three trials ended (one failed), `running` running, one rejected."""
    view.start(record, 24, 600.0)
    trials = [trial(n) for n in range(3 + running)]
    record.trials = trials
    for t in trials:
        view.trial_started(t)
        train(view, t, [0.41, 0.47, 0.52 + t.number / 100, 0.5], clock)
    for t, status, reason in zip(
        trials, (Status.COMPLETE, Status.STOPPED, Status.FAILED), ("", "rung 3", "diverged: nan"), strict=False
    ):
        t.status, t.reason = status, reason
        view.trial_ended(t)
    record.rejected.append({"params": {}, "trainable_params": 2_000_000, "reason": "over the bound"})
    return trials


def screen(view: LiveView, width: int, height: int = 40) -> str:
    target = console(width, height=height)
    target.print(view)
    return target.export_text()


@pytest.mark.parametrize("width", [80, 140])
def test_live_screen_says_where_the_search_stands(width: int) -> None:
    clock, record = Clock(), search()
    view = LiveView(console(width, terminal=True), clock)
    run_some(view, record, clock)
    text = screen(view, width)
    view.stop()
    assert "moa  backbone embedded  data embedded, 400 clips, 10 classes" in text
    assert "3/24 trials" in text
    assert "2 running · 1 complete · 1 stopped · 1 failed · 1 rejected" in text
    assert "best val/accuracy 56.0 %  t0004-soft_moa-e7-r128  epoch 3, 70.7k parameters" in text
    assert "lr=0.0051 experts=7 reduction=128" in text
    row = next(line for line in text.splitlines() if line.startswith("t0003-soft_moa-e7-r128"))
    curve_shown = ".410 .470 .550 .500" if width == 140 else ".41 .47 .55 .50"
    assert "4/27" in row and curve_shown in row and "1.5" in row and "1.2" in row
    assert "epochs/min" in text and "trials/min" in text and "elapsed 0:30" in text and "left" in text
    assert all(len(line) <= width for line in text.splitlines())
    assert len(text.splitlines()) <= MAX_LINES


def test_many_running_trials_and_long_names_still_fit() -> None:
    record = search()
    view = LiveView(console(80, terminal=True))
    trials = run_some(view, record, running=40)
    trials[-1].name += "-with-a-name-that-nobody-would-want-to-read-to-its-end" * 3
    record.name = "a search with a name " * 10
    for height, limit in ((40, MAX_LINES), (15, 14)):
        lines = screen(view, 80, height).splitlines()
        assert len(lines) <= limit and all(len(line) <= 80 for line in lines)
        assert any("more" in line for line in lines)
    view.stop()


def test_live_screen_before_the_first_trial_and_in_a_phase() -> None:
    clock = Clock()
    view = LiveView(console(80, terminal=True), clock)
    view.phase("reading the audio")
    assert "reading the audio …  0:00" in screen(view, 80)
    view.progress(30, 120, "computing features")
    assert "30/120  computing features" in screen(view, 80)
    view.start(search(), 24, None)
    clock.now += 7
    text = screen(view, 80)
    assert "0/24 trials" in text and "starting the workers …" in text and "elapsed 0:07" in text
    view.stop()


def test_live_view_writes_to_a_terminal_and_gives_it_back() -> None:
    out = console(100, terminal=True)
    view, record = LiveView(out), search()
    view.note("2 workers; bf16 off: this processor has no fast bf16")
    run_some(view, record)
    view.finish(record)
    view.stop()
    view.stop()
    written = out.file.getvalue()  # type: ignore[attr-defined]
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # cursor hidden once, shown once
    assert "2 workers; bf16 off" in written
    assert "t0002-soft_moa-e7-r128 failed: diverged: nan" in written
    assert "left" not in written.splitlines()[-2]


def test_curve_and_number() -> None:
    assert curve([0.1, 0.25, 0.333, 1.0, 0.0], 40) == ".10 .25 .33 1 .00"
    assert curve([0.111] * 9, 40) == " ".join([".11"] * 6)
    assert curve([0.111] * 9, 8) == ".11 .11"
    assert [number(v) for v in (float("nan"), -0.5, 0.9999, 123.456, 2e7)] == ["nan", "-.50", "1", "123", "2e+07"]


def test_lines_one_per_event() -> None:
    out = console(80)
    view, record = LineView(out), search()
    trials = run_some(view, record)
    train(view, trials[4], [0.9])
    trials[4].status = Status.COMPLETE
    view.trial_ended(trials[4])
    view.note("the space has\nno configuration left")
    view.finish(record)
    lines = out.export_text().splitlines()
    assert lines[0].endswith(
        "search moa · backbone embedded · data embedded, 400 clips, 10 classes · 24 trials · at most 10 min 00 s"
    )
    started = [line for line in lines if " started: " in line]
    assert len(started) == 5 and "lr=0.0051 experts=7 reduction=128 (70.7k parameters)" in started[0]
    assert any(
        "t0001-soft_moa-e7-r128 stopped (rung 3), val/accuracy 53.0 % at epoch 3, 4 epochs [2/24]" in x for x in lines
    )
    assert any("t0002-soft_moa-e7-r128 failed (diverged: nan)" in x for x in lines)
    assert any(
        "t0004-soft_moa-e7-r128 complete, val/accuracy 90.0 % at epoch 5, 5 epochs, best so far [4/24]" in x
        for x in lines
    )
    assert any(line.endswith("the space has no configuration left") for line in lines)
    assert lines[-1].endswith("search ended: 1 interrupted · 2 complete · 1 stopped · 1 failed · 1 rejected")
    assert len(lines) == 1 + 5 + 3 + 1 + 1 + 1  # no epochs


def test_verbose_lines_have_every_epoch() -> None:
    out = console(80)
    view = LineView(out, verbose=True)
    run_some(view, search(), running=0)
    epochs = [line for line in out.export_text().splitlines() if " epoch " in line and "train/loss" in line]
    assert len(epochs) == 12 and epochs[0].endswith("epoch 1: train/loss 1.59 val/accuracy 0.41 (1.2 s)")


def test_lines_show_progress_by_quarters_only() -> None:
    out = console(80)
    view = LineView(out)
    for done in range(401):
        view.progress(done, 400, "computing features")
    lines = out.export_text().splitlines()
    assert [line.split(": ")[-1] for line in lines] == ["1/400", "100/400", "200/400", "300/400", "400/400"]


def test_lines_survive_an_old_encoding() -> None:
    buffer = io.BytesIO()
    out = Console(file=io.TextIOWrapper(buffer, encoding="ascii"), width=80)
    LineView(out).note("größer · 90 %")
    out.file.flush()
    assert b"gr??er ? 90 %" in buffer.getvalue()


def test_views_are_chosen_by_the_terminal() -> None:
    assert isinstance(make_view(console(80, terminal=True)), LiveView)
    assert isinstance(make_view(console(80)), LineView)
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(make_view(dumb), LineView)


@pytest.mark.parametrize("kind", [LiveView, LineView])
def test_nothing_a_view_meets_reaches_the_search(kind: type[LiveView] | type[LineView]) -> None:
    out = console(80, terminal=kind is LiveView)
    view, record = kind(out), search()
    record.objectives = []
    record.info = {"epochs": "many", "splits": {"train": None}, "repeats": 5}
    view.start(record, 0, 0.0)
    t = trial(1)
    t.params = {"odd": object()}
    view.trial_started(t)
    view.epoch(t, EpochRecord(1, {"val/accuracy": float("nan"), "train/loss": "?"}, 0.0))  # type: ignore[dict-item]
    out.file.close()  # the terminal went away
    view.note("still here")
    view.trial_ended(t)
    view.finish(record)
    view.stop()


def test_time_left_follows_the_rate_and_the_budget() -> None:
    clock = Clock()
    standing, record = Standing(clock), search()
    standing.start(record, 10, None)
    assert standing.left() is None
    for n in range(2):
        t = trial(n)
        standing.trial_started(t)
        for epoch in range(1, 11):
            clock.now += 1.0
            standing.epoch(t, EpochRecord(epoch, {"val/accuracy": 0.5}, 1.0))
        t.status = Status.STOPPED
        standing.trial_ended(t)
    assert standing.epochs_a_minute() == pytest.approx(60.0)
    assert standing.trials_a_minute() == pytest.approx(6.0)
    assert standing.left() == pytest.approx(80.0)  # 8 trials of 10 epochs at one a second
    budget = Standing(clock)
    budget.start(record, None, 100.0)
    clock.now += 30
    assert budget.left() == pytest.approx(70.0)


def test_resumed_search_counts_earlier_trials() -> None:
    record = search()
    earlier = trial(0)
    earlier.status, earlier.epochs = Status.COMPLETE, [EpochRecord(1, {"val/accuracy": 0.7}, 1.0)]
    waiting = trial(1)
    waiting.epochs = [EpochRecord(1, {"val/accuracy": 0.6}, 1.0)]
    record.trials = [earlier, waiting]
    view = LineView(out := console(120))
    view.start(record, 4, None)
    view.trial_started(waiting)
    text = out.export_text()
    assert "already ended: 1" in text and "continues after epoch 1" in text
    standing = Standing()
    standing.start(record, 4, None)
    assert standing.counts()["running"] == 0 and standing.ended == 1 and standing.best is earlier


def test_errors_are_best_when_they_are_low() -> None:
    out = console(140)
    view, record = LineView(out), search()
    record.objectives = [Objective("val/wer", "min")]
    view.start(record, 3, None)
    for n, errors in enumerate(([1.31, 0.42, 0.47], [0.9, 0.45], [0.8, 0.4123])):
        t = trial(n, status=Status.COMPLETE)
        view.trial_started(t)
        for e, error in enumerate(errors, start=1):
            view.epoch(t, EpochRecord(e, {"val/wer": error}, 1.0))
        view.trial_ended(t)
    ended = [line.split(" complete, ")[1] for line in out.export_text().splitlines() if " complete, " in line]
    assert ended == [
        "val/wer 42.0 % at epoch 2, 3 epochs, best so far [1/3]",
        "val/wer 45.0 % at epoch 2, 2 epochs [2/3]",
        "val/wer 41.2 % at epoch 2, 2 epochs, best so far [3/3]",
    ]


def test_repeats_are_a_mean_and_its_deviation() -> None:
    out, record = console(140), search()
    record.info["repeats"] = ["fold1", "fold2"]
    live, lines = LiveView(console(140, terminal=True)), LineView(out, verbose=True)
    t = trial(1)
    metrics = {"train/loss": 1.0, "val/accuracy": 0.838, "val/accuracy_std": 0.012, "val/accuracy/fold1": 0.85}
    for view in (live, lines):
        view.start(record, 2, None)
        view.trial_started(t)
        view.epoch(t, EpochRecord(1, metrics, 1.0))
    assert "best val/accuracy 83.8 % ± 1.2  t0001" in screen(live, 140)
    t.status = Status.COMPLETE
    lines.trial_ended(t)
    text = out.export_text()
    assert "10 classes, 2 folds" in text and "val/accuracy 83.8 % ± 1.2 at epoch 1" in text
    assert "fold1" not in text.split("epoch 1:")[1] and "_std" not in text
    live.stop()


def test_the_data_in_a_few_words() -> None:
    info: dict[str, Any] = {"dataset": "librispeech", "target": "transcript", "classes": 31, "labels_are": "symbols"}
    info["splits"] = {"train": 2000, "val": 300, "test": 300}
    assert data_text(info) == "librispeech (transcript), 2,600 clips, 31 symbols"
    assert data_text({**info, "reads_test": True}) == "librispeech (transcript), 2,300 clips, 31 symbols"
    assert data_text({}) == ""
