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
from search.leaderboard import leaderboard_text, write_leaderboard
from search.metric_text import (
    deviation_of,
    format_mean,
    format_value,
    gap_text,
    is_detail,
    is_percentage,
    name_with_split,
    parts_of,
    phrase,
    repeats_text,
)
from search.ranking import leaderboard, primary_objective
from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord
from search.result_tables import class_table, confused_pairs, intervals_of, write_tables
from search.texts import format_duration, short_configuration, short_count
from tests.search.fake_search import LABELS, fake_record, fake_task, with_folds

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
    console.print(leaderboard_text(record, rows))
    return console.export_text()


def test_what_still_ran_when_the_search_ended_was_interrupted():
    text = _text(_record(_trial(1, [0.5]), _trial(2, [0.4], status=Status.RUNNING)))
    assert "running" not in text
    assert [word for line in text.splitlines() for word in line.split() if word in ("complete", "interrupted")] == [
        "complete",
        "interrupted",
    ]


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
            assert row["incidents"] == len(trial.incidents)
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
    rows = leaderboard(record)
    assert [r.trial.number for r in rows] == [*order, 4]
    assert [r.rank for r in rows] == [1, 2, 3, 4, None]
    assert rows[-1].value is None


def test_leaderboard_agrees_with_the_records():
    record = fake_record(60, seed=5)
    ranked = [r.trial.id for r in leaderboard(record) if r.rank is not None]
    assert ranked == [t.id for t in record.ranked()]
    assert [r.trial.id for r in leaderboard(record) if r.is_winner] == [record.winner] == ranked[:1]


def test_leaderboard_with_size_as_first_objective():
    record = fake_record()
    record.objectives.reverse()
    assert primary_objective(record).metric == "val/accuracy"
    assert leaderboard(record)[0].trial.id == record.winner


def test_leaderboard_csv(tmp_path):
    record = fake_record()
    path = write_leaderboard(record, tmp_path / "leaderboard.csv")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["trial_id"] for r in rows] == [r.trial.id for r in leaderboard(record)]
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
    best_probe = next(r for r in leaderboard(record) if r.is_baseline)
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
    assert short_configuration(params) == "lr=0.0044 experts=7 adapter.width=8 moa.width=4 warmup=2"


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
        ("val/accuracy/fold1", 0.5, "50.0 %"),
        ("val/wer", 1.234, "123.4 %"),  # more words heard wrongly than were said
        ("val/slot_value_cer", 1.5, "150.0 %"),
        ("test/per", 0.081, "8.1 %"),
        ("val/eer", 0.0312, "3.1 %"),
        ("val/exact_match", 0.5, "50.0 %"),
        ("val/map", 0.4587, "45.9 %"),
        ("val/slot_type_f1", 0.9, "90.0 %"),
        ("val/d_prime", 2.7182, "2.718"),
        ("val/min_dcf", 0.31, "0.31"),
        ("train/data_wait", 0.2, "0.2"),
    ],
)
def test_format_value(metric, value, text):
    assert format_value(metric, value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.96, "1 min 00 s"), (242, "4 min 02 s"), (7500, "2 h 05 min"), (math.nan, "–")],
)
def test_format_duration(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (868, "868"), (70_650, "70.7k"), (668_000, "668k"), (1_200_000, "1.2M")]
)
def test_short_count(number, text):
    assert short_count(number) == text


def test_importing_tables_and_report_is_light():
    import subprocess

    code = (
        "import sys, search.tables, search.leaderboard, search.result_tables\n"
        "import search.report, search.report.page, search.report.figures\n"
        "heavy = {'torch', 'ray', 'optuna', 'pandas', 'pyarrow', 'plotly', 'matplotlib', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_names_of_metrics_are_taken_apart():
    assert parts_of("val/accuracy/fold3-draw2") == ("val", "accuracy", "fold3-draw2", False)
    assert parts_of("test/macro_f1_std") == ("test", "macro_f1", "", True)
    assert parts_of("trainable_params") == ("", "trainable_params", "", False)
    details = ["val/accuracy", "val/accuracy_std", "val/accuracy/draw1", "val/loss/fold2", "train/loss"]
    assert [is_detail(name) for name in details] == [False, True, True, True, False]
    assert not is_percentage("seconds/per_step") and not is_percentage("val/loss/fold1")
    assert name_with_split("val/wer") == "validation word error rate" and name_with_split("test/eer/fold1") == (
        "test equal error rate"
    )


def test_every_metric_of_the_project_has_a_way_to_be_written():
    from trainables.metric_names import METRICS

    shares = {name for name in METRICS if is_percentage(name)}
    assert set(METRICS) - shares == {"val/d_prime", "val/min_dcf", "val/loss", "train/loss", "trainable_params"}


def test_means_deviations_and_repeats():
    metrics = {"val/accuracy": 0.838, "val/accuracy_std": 0.0123, "val/loss": 0.5, "val/loss_std": 0.031}
    assert format_mean("val/accuracy", metrics) == "83.8 % ± 1.2" and format_mean("val/loss", metrics) == "0.5 ± 0.031"
    assert format_mean("val/wer", {"val/wer": 0.12}) == "12.0 %" and format_mean("val/wer", {}) == "–"
    assert format_mean("val/accuracy", {"val/accuracy": math.nan, "val/accuracy_std": 0.1}) == "–"
    assert deviation_of("val/loss", {"val/loss": 1.0}) is None
    assert (
        repeats_text([f"fold{n}" for n in range(1, 6)]) == "5 folds" and repeats_text(["draw1", "draw2"]) == "2 draws"
    )
    assert repeats_text([f"fold{f}-draw{d}" for f in (1, 2) for d in (1, 2, 3)]) == "2 folds x 3 draws"
    assert repeats_text([]) == "" and repeats_text(["a", "b"]) == "2 repeats"


def test_values_in_sentences_and_gaps_to_the_baseline():
    assert phrase("val/wer", "12.3 %") == "12.3 % word error rate" and phrase("val/min_dcf", "0.31") == (
        "minimum detection cost 0.31"
    )
    assert gap_text("val/accuracy", 0.031, "max") == "+3.1 points" and gap_text("val/accuracy", -0.2, "max") == (
        "-20.0 points"
    )
    assert gap_text("val/wer", 0.031, "min") == "3.1 points below" and gap_text("val/wer", -0.5, "min") == (
        "50.0 points above"
    )
    assert gap_text("val/loss", 0.25, "min") == "0.25 below" and gap_text("val/loss", 0.0, "min") == "equal"
    assert gap_text("val/d_prime", 0.5, "max") == "+0.5" and gap_text("val/wer", None, "min") == ""


def test_errors_rank_from_below():
    record = fake_task("speech_recognition")
    rows = [r for r in leaderboard(record) if r.rank is not None]
    assert [r.value for r in rows] == sorted(r.value for r in rows) and rows[0].is_winner
    text = _text(record)
    assert "val/wer" in text and rows[0].value < 0.3 and f"{100 * rows[0].value:.1f} %" in text.splitlines()[1]


def test_folds_are_in_the_leaderboard_and_its_file(tmp_path):
    record = with_folds(fake_record(12))
    rows = leaderboard(record)
    best = rows[0].trial.best(ACCURACY)
    assert best is not None and rows[0].deviation == best.metrics["val/accuracy_std"] > 0
    text = _text(record)
    assert f"{100 * rows[0].value:.1f} % ± {100 * rows[0].deviation:.1f}" in text
    assert "mean of 5 folds ± standard deviation" in text and max(map(len, text.splitlines())) <= 100
    with write_leaderboard(record, tmp_path / "l.csv").open(encoding="utf-8", newline="") as stream:
        first = next(csv.DictReader(stream))
    folds = [float(first[f"val/accuracy/fold{n}"]) for n in range(1, 6)]
    assert sum(folds) / 5 == pytest.approx(float(first["val/accuracy"])) and "val/loss/fold1" not in first
    assert float(first["val/accuracy_std"]) == rows[0].deviation


def _csv(path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def test_tables_of_the_evaluation_are_files(tmp_path):
    record = with_folds(fake_record(6))
    record.info |= {"confusion": {"labels": ["a,b", "c"], "matrix": [[3, 1], [0, 2]]}, "tables": ["confusion", "../up"]}
    record.info |= {
        "../up": [{"x": 1, "y": "z"}, {"x": None}],
        "intervals": {"accuracy": [0.5, 0.75], "loss": [None, 1], "macro_f1": [0.3, 0.5]},
    }
    record.test["test/accuracy"] = 0.6
    files = write_tables(record, tmp_path / "tables")
    assert {f.name for f in (tmp_path / "tables").iterdir()} == {f.name for f in files}
    found = {f.name: _csv(f) for f in files}
    assert found["confusion.csv"] == [["true \\ predicted", "a,b", "c"], ["a,b", "3", "1"], ["c", "0", "2"]]
    assert found["_up.csv"] == [["x", "y"], ["1", "z"], ["", ""]]  # whatever a table is called, it stays in the folder
    assert found["intervals.csv"] == [["metric", "test", "low", "high"], ["accuracy", "0.6", "0.5", "0.75"]]
    repeats = found["repeats.csv"]
    assert [row[0] for row in repeats] == ["fold", *(f"fold{n}" for n in range(1, 6)), "mean", "standard deviation"]
    assert repeats[0][1:3] == ["val/accuracy", "test/accuracy"]
    folds = [float(row[1]) for row in repeats[1:6]]
    assert float(repeats[6][1]) == pytest.approx(sum(folds) / 5)
    assert write_tables(_record(_trial(0, [0.5])), tmp_path / "none") == [] and not (tmp_path / "none").exists()


def test_classes_are_listed_worst_first_with_what_they_were_taken_for():
    record = fake_record(3)
    record.info["confusion"] = {"labels": ["a", "b", "c"], "matrix": [[8, 1, 1], [0, 0, 0], [3, 2, 5]]}
    found = class_table(record)
    assert found is not None
    table, score = found
    assert score == "recall" and table.columns == ("label", "clips", "recall", "most often taken for")
    assert table.rows == [["c", 10, 0.5, "a"], ["a", 10, 0.8, "b"], ["b", 0, None, None]]
    pairs = confused_pairs(["a", "b", "c"], [[8.0, 1.0, 1.0], [0.0, 0.0, 0.0], [3.0, 2.0, 5.0]], limit=2)
    assert pairs.rows == [["c", "a", 3, 0.3], ["c", "b", 2, 0.2]]
    tags = class_table(fake_task("tagging", trials=3))
    assert tags is not None and tags[1] == "average_precision" and tags[0].title == "Tag by tag"
    assert tags[0].column("label") == [*reversed([label for label in LABELS if label != LABELS[4]]), LABELS[4]]


def test_intervals_are_kept_where_they_are_about_the_value_beside_them():
    record = fake_record(3)
    record.info["intervals"] = {
        "accuracy": [0.5, 0.75],
        "wer": [0.1, 0.2],
        "eer": [0.3, 0.3],
        "map": [None, 1],
        "f1": 3,
    }
    assert intervals_of(record) == {"accuracy": (0.5, 0.75), "wer": (0.1, 0.2)}
    assert intervals_of(with_folds(record)) == {"accuracy": (0.5, 0.75)}  # the mean of rates is not that of all clips
    assert intervals_of(with_folds(fake_record(3), kind="draw")) == {}
