"""Every data set, target, subset and protocol through a whole trial: trained, judged, tested, saved, loaded, asked."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from petl.errors import UserError
from search.commands.evaluate import evaluate_adapter
from search.commands.predict import predict_files
from search.export import save_model
from tests.trainables.miniatures import EMBEDDED_CASE, REFUSED, Case, cases, defaults
from trainables.checkpoints import CheckpointStore
from trainables.config import TrialConfig
from trainables.data.planning import plan
from trainables.metric_names import METRICS
from trainables.session import Session

_DEFAULTS = defaults()
_ALL = [
    pytest.param(case, id=str(case), marks=() if case in _DEFAULTS else pytest.mark.slow)
    for case in (*cases(), EMBEDDED_CASE)
]


def _flat(case: Case, root: Path, tiny_ast: Path, tiny_wave: Path) -> dict[str, Any]:
    waves = case.sequence or case.protocol != "standard"  # the tokens of the tiny AST are too few for a sentence
    return {
        **case.flat(root),
        "backbone": str(tiny_wave if waves else tiny_ast),
        "method": "lora",
        "lora.rank": 2,
        "epochs": 2 if case in _DEFAULTS else 1,
        "train.batch_size": 16,
        "train.precision": "float32",
    }


@pytest.mark.parametrize("case", _ALL)
def test_a_whole_trial(
    case: Case,
    miniature: Callable[[Case], Path],
    tiny_ast: Path,
    tiny_wave: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    metric, mode = case.monitor
    root = Path() if case == EMBEDDED_CASE else miniature(case)
    flat = _flat(case, root, tiny_ast, tiny_wave)
    session = Session(CheckpointStore(str(tmp_path / "checkpoints")), torch.device("cpu"), None, (metric, mode))
    reports = [session.epoch("t", flat, fresh=True)]
    while not reports[-1]["done"]:
        reports.append(session.epoch("t", flat))
    for report in reports:
        for info in METRICS.values():
            if info.per_epoch and info.reported_by(case.task):
                assert math.isfinite(report[info.name]) or info.name == "val/loss", info.name

    best = (max if mode == "max" else min)(reports, key=lambda report: report[metric])
    judged = session.evaluate("t", flat, "val")["metrics"]
    assert judged == {name: best[f"val/{name}"] for name in judged}  # the best epoch's weights, bit for bit
    tested = session.evaluate("t", flat, "test")
    assert tested["metrics"].keys() == judged.keys()

    config = TrialConfig.from_flat(flat)
    (data,) = session.data(config)
    described = data.describe()
    assert described["reads_test"] == case.reads_test
    model = session.best_model("t", config)
    adapter = tmp_path / "adapter"
    save_model(model, adapter, config, validation={}, test={}, provenance={})
    heard = next(clip.path for clip in data.clips("test") if clip.start is None)
    quiet = Console(file=io.StringIO())
    assert predict_files(adapter, [heard], True, None, quiet, quiet) == 0
    answer = json.loads(capsys.readouterr().out)
    assert quiet.file.getvalue() == ""  # nothing was cut
    assert answer == {"path": str(heard), **model.predict(heard).to_json()}
    model.adapted.detach()

    evaluate_adapter(adapter, None, None, "test", True, [], None, quiet)
    again = json.loads(capsys.readouterr().out)
    assert (again["labels"], again["clips"]) == (list(data.labels), data.size("test"))
    for name, value in tested["metrics"].items():
        assert again[name] == pytest.approx(value, abs=1e-5, nan_ok=True), name


@pytest.mark.parametrize(("name", "target", "protocol"), sorted(REFUSED))
def test_what_does_not_go_together(name: str, target: str, protocol: str, miniature: Callable[[Case], Path]) -> None:
    case = Case(name, target, "", protocol)
    with pytest.raises(UserError, match=f"protocol '{protocol}'"):
        plan(case.options(miniature(case)))
