"""Tables: what is in trials.parquet, with which types, and how the leaderboard ranks and reads."""

from __future__ import annotations

import csv
import io
import json
import math
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from search import tables
from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord
from tests.search.fake_search import fake_record

ACCURACY = Objective("val/accuracy", "max")


def _trial(number: int, values: list[float], **given: object) -> TrialRecord:
    trial = TrialRecord(f"t{number:04d}", number, f"t{number:04d}-x", {"method": "lora"}, 1000 + number)
    trial.status = Status.COMPLETE
    trial.epochs = [EpochRecord(i, {"val/accuracy": v}, 0.5) for i, v in enumerate(values, start=1)]
    for key, value in given.items():
        setattr(trial, key, value)
    return trial


def _record(*trials: TrialRecord, objective: Objective = ACCURACY) -> SearchRecord:
    return SearchRecord("demo", "runs/demo", [objective], {}, list(trials))


def _text(record: SearchRecord, rows: int = 10, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(tables.leaderboard_text(record, rows))
    return console.export_text()


def test_parquet_has_one_row_per_trial_and_epoch(tmp_path):
    record = fake_record()
    path = tables.write_trials(record, tmp_path / "trials.parquet")
    rows = pq.read_table(path).to_pylist()
    expected = [(t.id, e.epoch) for t in record.trials for e in t.epochs]
    assert [(r["trial_id"], r["epoch"]) for r in rows if r["epoch"] is not None] == expected
    failed = [r for r in rows if r["epoch"] is None]
    assert [(r["trial_id"], r["status"], r["is_best"], r["seconds"]) for r in failed] == [
        ("t0009", "failed", False, None)
    ]
    assert "NaN at epoch 1" in failed[0]["reason"]
    assert [p.name for p in tmp_path.iterdir()] == ["trials.parquet"]  # nothing half-written stays


def test_parquet_values_and_inactive_parameters(tmp_path):
    record = fake_record()
    table = pq.read_table(tables.write_trials(record, tmp_path / "trials.parquet"))
    by_key = {(r["trial_id"], r["epoch"]): r for r in table.to_pylist()}
    for trial in record.trials:
        for epoch in trial.epochs:
            row = by_key[trial.id, epoch.epoch]
            assert row["val/accuracy"] == epoch.metrics["val/accuracy"]
            assert row["seconds"] == epoch.seconds
            assert row["trainable_params"] == trial.trainable_params
            assert row["enqueued"] is trial.enqueued
            active = {k[6:]: v for k, v in row.items() if k.startswith("param/") and v is not None}
            assert active == trial.params


def test_parquet_is_best_agrees_with_the_records(tmp_path):
    record = fake_record(40, seed=3)
    rows = pq.read_table(tables.write_trials(record, tmp_path / "t.parquet")).to_pylist()
    marked = {r["trial_id"]: r["epoch"] for r in rows if r["is_best"]}
    best = {t.id: t.best(ACCURACY) for t in record.trials}
    assert marked == {k: b.epoch for k, b in best.items() if b is not None}
    assert sum(r["is_best"] for r in rows) == len(marked)  # one epoch each, ties included


def test_parquet_column_types():
    first = _trial(0, [0.5])
    second = _trial(1, [0.6])
    first.params = {"a.int": 3, "a.mixed": 1, "a.text": "x", "a.any": 1, "a.flag": True, "a.list": ["q", "v"]}
    second.params = {"a.int": 4, "a.mixed": 0.5, "a.any": "auto", "a.flag": False, "a.huge": 2**70}
    table = tables.trials_table(_record(first, second))
    types = {f.name: f.type for f in table.schema}
    assert types["param/a.int"] == pa.int64()
    assert types["param/a.mixed"] == pa.float64()
    assert types["param/a.text"] == pa.string()
    assert types["param/a.any"] == pa.string()
    assert types["param/a.flag"] == pa.bool_()
    assert types["param/a.huge"] == pa.float64()
    assert table["param/a.any"].to_pylist() == ["1", "auto"]
    assert json.loads(table["param/a.list"][0].as_py()) == ["q", "v"]
    assert types["number"] == types["epoch"] == types["trainable_params"] == pa.int64()
    assert types["val/accuracy"] == types["seconds"] == pa.float64()
    assert types["is_best"] == types["enqueued"] == pa.bool_()


def test_parquet_without_trials_keeps_its_types(tmp_path):
    table = pq.read_table(tables.write_trials(_record(), tmp_path / "t.parquet"))
    assert table.num_rows == 0
    assert table.schema.field("epoch").type == pa.int64()
    assert table.schema.field("name").type == pa.string()


def test_parquet_metric_named_like_a_column_does_not_hide_it():
    trial = _trial(0, [0.5])
    trial.epochs[0].metrics["seconds"] = 99.0
    table = tables.trials_table(_record(trial))
    assert table["seconds"].to_pylist() == [0.5]
    assert table["metric/seconds"].to_pylist() == [99.0]


def test_parquet_keeps_nan_apart_from_missing():
    trial = _trial(0, [math.nan, 0.4])
    trial.epochs[1].metrics["train/loss"] = 1.0
    table = tables.trials_table(_record(trial))
    assert math.isnan(table["val/accuracy"][0].as_py())
    assert table["train/loss"].to_pylist() == [None, 1.0]
    assert table["is_best"].to_pylist() == [False, True]


@pytest.mark.parametrize(("mode", "order"), [("max", [2, 0, 3, 1]), ("min", [1, 0, 3, 2])])
def test_leaderboard_order_ties_and_unranked(mode, order):
    trials = [_trial(0, [0.5]), _trial(1, [0.1]), _trial(2, [0.9]), _trial(3, [0.5])]
    nan = _trial(4, [math.nan])
    record = _record(nan, *trials, objective=Objective("val/accuracy", mode))
    rows = tables.leaderboard(record)
    assert [r.trial.number for r in rows] == [*order, 4]
    assert [r.rank for r in rows] == [1, 2, 3, 4, None]
    assert rows[-1].value is None


def test_leaderboard_agrees_with_the_records():
    record = fake_record(60, seed=5)
    ranked = [r.trial.id for r in tables.leaderboard(record) if r.rank is not None]
    assert ranked == [t.id for t in record.ranked()]
    assert [r.trial.id for r in tables.leaderboard(record) if r.is_winner] == [record.winner] == ranked[:1]


def test_leaderboard_with_size_as_first_objective():
    record = fake_record()
    record.objectives.reverse()
    assert tables.primary_objective(record).metric == "val/accuracy"
    assert tables.leaderboard(record)[0].trial.id == record.winner


def test_leaderboard_csv(tmp_path):
    record = fake_record()
    path = tables.write_leaderboard(record, tmp_path / "leaderboard.csv")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["trial_id"] for r in rows] == [r.trial.id for r in tables.leaderboard(record)]
    winner = next(t for t in record.trials if t.id == record.winner)
    assert float(rows[0]["val/accuracy"]) == winner.value(ACCURACY)
    assert rows[0]["param/method"] == winner.params["method"]
    assert rows[-1]["rank"] == "" and rows[-1]["status"] == "failed"


def test_text_fits_and_shows_winner_and_baseline():
    record = fake_record(60)
    text = _text(record, rows=5)
    lines = text.rstrip("\n").split("\n")
    assert max(len(line) for line in lines) <= 100
    assert record.winner is not None and record.winner in lines[1]
    best_probe = next(r for r in tables.leaderboard(record) if r.is_baseline)
    assert best_probe.rank is not None and best_probe.rank > 5
    assert lines[6].split()[:4] == [str(best_probe.rank), best_probe.trial.id, "linear", "*"]
    assert len([line for line in lines if " t0" in line]) == 6
    assert "* linear probe, the baseline, 53 more in trials.parquet, 1 without a result, 1 rejected" in text


def test_text_does_not_read_markup_in_settings():
    trial = _trial(0, [0.5])
    trial.params = {"method": "[bold]m[/bold]", "a.b": "[red]x"}
    text = _text(_record(trial))
    assert "[bold]m[/bold]" in text and "[red]x" in text


@pytest.mark.parametrize("trials", [[], [_trial(0, [])], [_trial(0, [math.nan])]])
def test_text_without_results(trials):
    text = _text(_record(*trials))
    assert "val/accuracy" in text and (not trials or "1 without a result" in text)


def test_short_configuration_orders_and_keeps_keys_apart():
    params = {"method": "soft_moa", "schedule.warmup": 2, "moa.experts": 7, "optim.lr": 0.0043784}
    params |= {"adapter.width": 8, "moa.width": 4}
    assert tables.short_configuration(params) == "lr=0.0044 experts=7 adapter.width=8 moa.width=4 warmup=2"


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("val/accuracy", 0.8583, "85.8 %"),
        ("val/f1_macro", 1.0, "100.0 %"),
        ("val/loss", 0.12345, "0.1235"),
        ("val/accuracy", None, "–"),
        ("val/accuracy", math.nan, "–"),
        ("val/loss", math.inf, "∞"),
        ("trainable_params", 1_500_000.0, "1,500,000"),
        ("val/accuracy", 85.8, "85.8"),  # reported in per cent already
    ],
)
def test_format_value(metric, value, text):
    assert tables.format_value(metric, value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.96, "1 min 00 s"), (242, "4 min 02 s"), (7500, "2 h 05 min"), (math.nan, "–")],
)
def test_format_duration(seconds, text):
    assert tables.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (868, "868"), (70_650, "70.7k"), (668_000, "668k"), (1_200_000, "1.2M")]
)
def test_short_count(number, text):
    assert tables.short_count(number) == text


def test_importing_tables_and_report_is_light():
    import subprocess

    code = (
        "import sys, search.tables, search.report, search.report.page, search.report.figures\n"
        "heavy = {'torch', 'ray', 'optuna', 'pandas', 'pyarrow', 'plotly', 'matplotlib', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
