"""The last screen of a search, from records without a search."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from search.commands.finish import print_outcome
from search.records import SearchRecord
from search.request import Outcome
from tests.search.fake_search import fake_record, fake_task, with_folds


def _screen(record: SearchRecord) -> str:
    out = Console(width=120, file=io.StringIO(), record=True)
    outcome = Outcome(record, Path("out"), best=Path("out/best"), mlflow_uri="sqlite:///mlflow.db")
    assert print_outcome(outcome, out, out) == 0
    return out.export_text()


def test_errors_with_their_interval() -> None:
    text = _screen(fake_task("speech_recognition"))
    assert "val/wer 21.3 %, test 39.0 % (95 % bootstrap 35.1 to 42.9 %)  (70,650 trained parameters)" in text
    assert "5 training clips could not be learned from" in text and "too good" not in text


def test_folds_with_their_deviation_and_a_protocol_that_reads_the_test() -> None:
    record = with_folds(fake_record())
    record.info["reads_test"] = True
    winner = next(t for t in record.trials if t.id == record.winner)
    best = winner.best(record.objectives[0])
    assert best is not None
    mean, spread = 100 * best.metrics["val/accuracy"], 100 * best.metrics["val/accuracy_std"]
    text = _screen(record)
    tested = f"{100 * record.test['test/accuracy']:.1f} % ± {100 * record.test['test/accuracy_std']:.1f}"
    assert f"{winner.name}  val/accuracy {mean:.1f} % ± {spread:.1f} (5 folds), test {tested}  (" in text
    assert "epochs were chosen on test clips: the values are too good" in text


def test_the_command_to_continue_can_be_pasted() -> None:
    record = fake_record(directory="runs/the first one")
    record.info["asked"] = {"address": "127.0.0.1:6379"}
    out = Console(width=200, file=io.StringIO(), record=True)
    assert (
        print_outcome(
            Outcome(record, Path(record.directory), interrupted=True, mlflow_uri="sqlite:///mlflow.db"), out, out
        )
        == 130
    )
    assert "uv run launch.py --resume 'runs/the first one' --address 127.0.0.1:6379\n" in out.export_text()
