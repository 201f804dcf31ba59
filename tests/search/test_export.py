"""The winner's files: of several repeats `best/` comes last, so that it stands for all of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from petl.errors import UserError
from search.engine import _is_over
from search.export import export_winner
from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord
from search.space import parse_space
from tests.trainables.miniatures import Case, write
from trainables.checkpoints import CheckpointStore
from trainables.config import TrialConfig
from trainables.session import Session

_SPACE = "{schema: petl.space/1, budget: {trials: 1}, base: {epochs: 1}, params: {method: {choice: [linear]}}}"


def test_a_search_is_over_when_every_adapter_is_written(
    tiny_ast: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("esc50", "sound", "esc50", "standard")
    flat = {
        **case.flat(write(case.copy, tmp_path / "data")),
        "backbone": str(tiny_ast),
        "method": "linear",
        "epochs": 1,
        "data.fold": "1,2,3",
    }
    config, space = TrialConfig.from_flat(flat), parse_space(_SPACE)
    checkpoints = str(tmp_path / "checkpoints")
    objective = Objective("val/accuracy", "max")
    report = Session(CheckpointStore(checkpoints), torch.device("cpu"), None, ("val/accuracy", "max")).epoch("t", flat)
    epoch = EpochRecord(1, {k: v for k, v in report.items() if "/" in k}, 1.0)
    winner = TrialRecord("t", 0, "t-linear", {}, 1, status=Status.COMPLETE, epochs=[epoch])
    run = tmp_path / "run"
    info = {"data_digest": "d", "space_digest": "s", "repeats": ["fold1", "fold2", "fold3"]}
    record = SearchRecord("n", str(run), [objective], info, [winner], test={"test/accuracy": 0.5}, winner="t")

    def export() -> Path:
        return export_winner(space, record, winner, config, checkpoints, run)

    (run / "best").mkdir(parents=True)
    for name in ("petl_config.json", "adapter_model.safetensors"):
        (run / "best" / name).write_text("{}")  # an earlier winner's
    (run / "best-fold3").write_text("in the way")
    built: list[Any] = []
    original = Session.best_model
    monkeypatch.setattr(Session, "best_model", lambda *given: built.append(original(*given)) or built[-1])
    with pytest.raises(UserError, match="best-fold3 exists and is not an adapter"):
        export()
    assert (run / "best-fold2" / "petl_config.json").is_file()
    assert not (run / "best" / "petl_config.json").exists()
    assert not _is_over(record, space)
    assert len(built) == 2
    for model in built:  # given back, whether it could be saved or not
        with pytest.raises(RuntimeError, match="detached already"):
            model.adapted.detach()
    (run / "best-fold3").unlink()
    assert export() == run / "best"
    assert _is_over(record, space)
    written = {path.parent.name for path in run.glob("*/adapter_model.safetensors")}
    assert written == {"best", "best-fold2", "best-fold3"}
    (run / "best-fold2" / "petl_config.json").unlink()
    assert not _is_over(record, space)
    assert not _is_over(record, SimpleNamespace(budget=SimpleNamespace(trials=2)))  # type: ignore[arg-type]
