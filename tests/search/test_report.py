"""The report: what is on the page, that it loads nothing, and that no search is too odd for it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from html.parser import HTMLParser

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord
from search.report import page, series, write_figures, write_report
from search.report.confusion import MOST_CLASSES
from search.report.importance import MIN_TRIALS, importances
from search.report.methods import method_rows
from search.report.pareto import pareto_front
from tests.search.fake_search import LABELS, fake_record, fake_task, with_folds

COMMANDS = ["mlflow ui", "petl-search predict runs/moa-demo/best clip.wav", "petl-search train best.yaml"]
HOSTILE = "</script><b>&\"'<img src=x onerror=alert(1)>{{ 7*7 }}"
SECTIONS = ["searched", "winner", "methods", "history", "curves", "size", "importances", "leaderboard"]
SECTIONS += ["errors", "environment"]
_VOID = {"meta", "link", "br", "img", "input", "hr"}


class _Page(HTMLParser):
    """Tags, attributes and text of a page, and whether every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.sections: dict[str, str] = {}
        self.text = ""
        self.scripts: list[str] = []
        self._open: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag == "section":
            self._section = dict(attrs)["id"]
            self.sections[self._section] = ""
        if tag == "script":
            self.scripts.append("")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
            return
        self.text += data
        if self._section:
            self.sections[self._section] += data


def _page(record: SearchRecord, **given) -> _Page:
    return _Page(page.render(record, command_lines=COMMANDS, script=False, **given))


def _figures(parsed: _Page) -> dict:
    return json.loads(parsed.scripts[0])


def _empty(name: str = "empty") -> SearchRecord:
    return SearchRecord(name, "runs/empty", [Objective("val/accuracy", "max")], {})


def test_file_holds_every_section_and_plotly_once(tmp_path):
    path = write_report(fake_record(), tmp_path / "report.html", command_lines=COMMANDS)
    text = path.read_text(encoding="utf-8")
    parsed = _Page(text)
    assert list(parsed.sections) == SECTIONS
    assert all(body.strip() for body in parsed.sections.values())
    assert text.count("plotly.js v") == 1 and len(parsed.scripts) == 3
    assert path.stat().st_size < 6_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_page_says_what_happened():
    record = fake_record()
    parsed = _page(record)
    winner = next(t for t in record.trials if t.id == record.winner)
    for words in (
        f"{winner.params['method']} is best: 85.8 % accuracy on the validation split, 75.8 % on the test split",
        f"{winner.trainable_params:,} trained parameters (8.14 % of the backbone)",
        "5 complete, 18 stopped, 1 failed, 1 rejected",
        "240 train, 120 val, 120 test, 10 classes, 1 skipped",
        "95 % interval 67.4 to 82.6 % over 120 clips",
        "4 min 02 s",
    ):
        assert words in parsed.text, words
    assert "audio/3-1-A.wav" in parsed.sections["searched"]
    assert "sha256:91be2207aa40" in parsed.sections["searched"]
    for key in winner.params:
        assert key in parsed.sections["winner"]
    assert "\n".join(COMMANDS) in parsed.sections["winner"]
    assert "the loss became NaN" in parsed.sections["leaderboard"]
    assert "over the bound of 1,000,000" in parsed.sections["leaderboard"]
    told = parsed.sections["leaderboard"]
    assert told.index("gave no answer for 600 s") < told.index("node it trained on was lost"), "by time"
    assert "goes on elsewhere after epoch 3" in told and "in forward" in told
    assert all(label in parsed.sections["errors"] for label in LABELS)
    for fact in ("3f2a9c1", "2.11.0", "2 CPU cores", "seed"):
        assert fact in parsed.sections["environment"]


def test_page_loads_nothing_from_anywhere():
    record = fake_record()
    text = page.render(record, command_lines=COMMANDS, script=False)
    parsed = _Page(text)
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            if name in attributes:
                assert attributes[name].startswith(("#", "data:")), (tag, attributes)
    assert "http://" not in text and "https://" not in text
    assert "url(" not in text and "@import" not in text
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy


def test_hostile_text_stays_text():
    parsed = _page(fake_record(hostile=HOSTILE))
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"img", "b", "iframe", "object"}
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    for section in ("searched", "leaderboard", "errors"):
        assert HOSTILE in parsed.sections[section], section
    figures = parsed.scripts[0]
    assert "<" not in figures and "&lt;" not in figures  # "&" is written as \u0026 as well
    assert "<img" not in json.dumps(_figures(parsed))  # Plotly gets entities, which it shows as text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium to run the page")
def test_page_draws_its_charts_in_a_browser(tmp_path):
    path = write_report(fake_record(hostile=HOSTILE), tmp_path / "report.html", command_lines=COMMANDS)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000", "--enable-logging=stderr"]
    done = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    body = done.stdout[done.stdout.index("<body") :]
    charts = body[: body.index("<script")]
    for name in ("history", "curves", "size", "confusion"):
        assert 'class="main-svg"' in charts.split(f'data-chart="{name}"')[1].split("</section>")[0], name
    assert "<img" not in charts and "<b>&" not in charts
    # No error, no load refused by the page's policy; the browser's own pages complain of their own accord.
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "source: file:" in line]
    assert said == []


def test_history_chart_follows_the_records():
    record = fake_record()
    data = _figures(_page(record))["history"]["data"]
    drawn = {
        (x, y) for trace in data if trace["mode"] == "markers" for x, y in zip(trace["x"], trace["y"], strict=True)
    }
    objective = record.objectives[0]
    assert drawn == {(t.number, t.value(objective)) for t in record.trials if t.epochs}
    best = next(t for t in data if t["name"] == "best so far")["y"]
    assert best == sorted(best) and best[-1] == max(y for _, y in drawn)
    hollow = {
        x
        for trace in data
        if isinstance(trace.get("marker", {}).get("symbol"), list)
        for x, symbol in zip(trace["x"], trace["marker"]["symbol"], strict=True)
        if symbol.endswith("-open")
    }
    assert hollow == {t.number for t in record.trials if t.status is Status.STOPPED}


def test_curves_mark_where_trials_were_stopped():
    record = fake_record()
    curves = _figures(_page(record))["curves"]
    assert next(iter(curves)) == "val/accuracy" and set(curves) == {"val/accuracy", "val/loss", "train/loss"}
    traces = {t["name"]: t for t in curves["val/accuracy"]["data"]}
    stops = sorted(zip(traces["stopped early"]["x"], traces["stopped early"]["y"], strict=True))
    stopped = [t for t in record.trials if t.status is Status.STOPPED]
    assert stops == sorted((t.epochs[-1].epoch, t.epochs[-1].metrics["val/accuracy"]) for t in stopped)
    winner = next(t for t in record.trials if t.id == record.winner)
    assert traces["winner"]["y"] == [e.metrics["val/accuracy"] for e in winner.epochs]


def test_every_chart_has_axis_titles():
    figures = _figures(_page(fake_record()))
    for figure in [figures["history"], figures["size"], figures["confusion"], *figures["curves"].values()]:
        assert figure["layout"]["xaxis"]["title"]["text"] and figure["layout"]["yaxis"]["title"]["text"]


def test_methods_are_compared_with_the_linear_probe():
    record = fake_record(60)
    rows = method_rows(record)
    best = {r.method: r.best or 0.0 for r in rows}
    assert list(best.values()) == sorted(best.values(), reverse=True) and min(best.values()) > 0.1
    gaps = {r.method: r.gap for r in rows}
    assert gaps.pop("linear") is None
    assert gaps == {m: pytest.approx(best[m] - best["linear"]) for m in gaps}
    assert sum(r.trials for r in rows) == 60


def test_stopped_baseline_is_compared_at_equal_training():
    record = fake_record()
    winner = next(t for t in record.trials if t.id == record.winner)
    early = max(e.metrics["val/accuracy"] for e in winner.epochs[:3])
    text = f"At equal training, up to epoch 3, the winner stood at {100 * early:.1f} %."
    assert text in _page(record).sections["searched"]


def test_lower_is_better():
    record = fake_record()
    record.objectives = [Objective("val/loss", "min")]
    record.winner, record.test = record.ranked()[0].id, {"test/loss": 0.7}
    parsed = _page(record)
    best = next(t for t in _figures(parsed)["history"]["data"] if t["name"] == "best so far")["y"]
    assert best == sorted(best, reverse=True)
    rows = method_rows(record)
    assert [r.best for r in rows] == sorted(r.best or 0.0 for r in rows)
    assert all((r.gap or 0.0) > 0 for r in rows if r.method != "linear")  # better than the probe reads as positive
    front = series.front(record, series.history(record))
    assert [p.value for p in front] == sorted((p.value for p in front), reverse=True)


def test_folds_are_means_with_their_deviation_and_a_table_of_each():
    record = with_folds(fake_record())
    record.info["intervals"] = {"accuracy": [0.71, 0.803]}
    parsed = _page(record)
    winner = next(t for t in record.trials if t.id == record.winner)
    best = winner.best(record.objectives[0])
    assert best is not None
    mean, deviation = (f"{100 * best.metrics[name]:.1f}" for name in ("val/accuracy", "val/accuracy_std"))
    tested, spread = (f"{100 * record.test[name]:.1f}" for name in ("test/accuracy", "test/accuracy_std"))
    assert (
        f"{mean} % ± {deviation} accuracy on the validation split (5 folds), {tested} % ± {spread} on the test split"
    ) in parsed.text
    assert "95 % bootstrap 71.0 to 80.3 %" in parsed.text and "95 % interval" not in parsed.text
    for n in range(1, 6):
        for name in (f"val/accuracy/fold{n}", f"val/loss/fold{n}"):
            value = best.metrics[name]
            assert (f"{100 * value:.1f} %" if "accuracy" in name else f"{value:.4g}") in parsed.sections["winner"]
    assert f"{mean} % ± {deviation}" in parsed.sections["leaderboard"]
    assert f"{mean} % ± {deviation}" in parsed.sections["methods"]
    assert "Values are means over 5 folds, one training each" in parsed.sections["searched"]
    figures = _figures(parsed)
    assert set(figures["curves"]) == {"val/accuracy", "val/loss", "train/loss"}  # no curve for every fold
    texts = [text for t in figures["history"]["data"] if t["mode"] == "markers" for text in t.get("text", [])]
    assert f"{mean} % ± {deviation} (5 folds)" in "".join(texts)


def test_draws_share_their_test_clips_and_so_have_no_interval_over_all():
    record = with_folds(fake_record(), 3, kind="draw")
    record.info["intervals"] = {"accuracy": [0.71, 0.803]}
    parsed = _page(record)
    assert "bootstrap" not in parsed.text and "(3 draws)" in parsed.text
    assert "All draws are tested on the same clips." in parsed.sections["searched"]


@pytest.mark.parametrize(
    ("task", "said", "tile"),
    [
        ("speech_recognition", "21.3 % word error rate on the validation split, 39.0 % on the", "test word error rate"),
        ("verification", "7.1 % equal error rate on the validation split, 13.0 % on the", "test equal error rate"),
        ("tagging", "65.8 % mean average precision on the validation split, 54.0 % on the", "mean average precision"),
    ],
)
def test_tasks_are_told_in_their_own_words(task, said, tile):
    record = fake_task(task)
    parsed = _page(record)
    assert said in parsed.text and tile in parsed.text and "95 % bootstrap" in parsed.text
    assert f"{record.info['classes']} {record.info['labels_are']}" in parsed.sections["searched"]
    assert "accuracy" not in parsed.text and "One validation clip" not in parsed.text
    assert ("errors" in parsed.sections) == (task != "speech_recognition")


def test_errors_are_drawn_and_compared_as_errors():
    record = fake_task("speech_recognition")
    parsed = _page(record)
    figures = _figures(parsed)
    best = next(t for t in figures["history"]["data"] if t["name"] == "best so far")["y"]
    assert best == sorted(best, reverse=True)
    front = next(t for t in figures["size"]["data"] if t["name"] == "Pareto front")
    assert front["x"] == sorted(front["x"]) and front["y"] == sorted(front["y"], reverse=True)
    for figure in (figures["history"], figures["size"], figures["curves"]["val/wer"]):
        assert figure["layout"]["yaxis"]["title"]["text"] == "val/wer (lower is better)"
        assert "%" in figure["layout"]["yaxis"]["tickformat"]
    assert "lower" not in figures["curves"]["train/loss"]["layout"]["yaxis"]["title"]["text"]
    rows = method_rows(record)
    worst = max(r.best for r in rows if r.best is not None)
    assert [r.bar for r in rows] == [pytest.approx((r.best or 0) / worst) for r in rows]  # from zero: shorter is better
    probe = next(r for r in rows if r.method == "linear")
    assert probe.best is not None and rows[0].best is not None
    assert f"{100 * (probe.best - rows[0].best):.1f} points below" in parsed.sections["methods"]
    assert "shorter is better" in parsed.sections["methods"]


def test_what_was_not_learned_from_is_said_and_listed():
    record = fake_task("speech_recognition")
    record.info["left_out"] = ["3 clips of 'unknown' are not used"]
    text = _page(record).sections["searched"]
    assert "5 training clips were not learned from. 84/121123/84-121123-0000.flac: its target needs 90 tokens" in text
    assert "and 3 more (list below)" in text and "84/121123/84-121123-0004.flac" in text
    assert "3 clips of 'unknown' are not used" in text


def test_a_protocol_that_reads_the_test_is_a_caution():
    record = fake_record()
    record.info |= {"reads_test": True, "protocol": "aat: test on fold 1, and epochs chosen on the same clips"}
    parsed = _page(record)
    assert "on the test split, whose clips also chose the epochs" in parsed.text
    assert "epochs were chosen on clips that the test counts" in parsed.sections["searched"]
    assert "aat: test on fold 1" in parsed.sections["searched"]
    assert "the test value is not" not in parsed.text and "evaluated once" not in parsed.text


def test_few_validation_clips_are_a_caution():
    record = fake_task("verification")
    record.info["splits"]["val"] = 30
    assert "chosen on 30 validation clips only" in _page(record).sections["searched"]


def test_many_classes_have_their_confusions_listed_instead_of_drawn():
    record = fake_record()
    count = MOST_CLASSES + 1
    matrix = [[5 if i == j else 0 for j in range(count)] for i in range(count)]
    matrix[7][9] = 4
    record.info["confusion"] = {"labels": [f"word {i}" for i in range(count)], "matrix": matrix}
    parsed = _page(record)
    assert _figures(parsed)["confusion"] is None
    assert "Most often confused" in parsed.sections["errors"]
    squeezed = " ".join(parsed.sections["errors"].split())
    assert "word 7word 9444.4 %" in squeezed  # 4 of 9 clips
    first = squeezed[squeezed.index("Class by class") :]
    assert first.index("word 7") < first.index("word 0")


def test_tables_of_tasks_are_shown_and_not_listed_as_environment():
    record = fake_task("verification")
    record.info |= {"tables": ["trials", "odd"], "odd": [{"x_y": 0.5, "who": "<b>"}, {"x_y": None, "who": "z"}]}
    parsed = _page(record)
    assert "What was compared" in parsed.sections["errors"] and "drawn" in parsed.sections["errors"]
    assert "<b>" in parsed.sections["errors"] and "x y" in parsed.sections["errors"]
    assert "trials" not in parsed.sections["environment"] and "odd" not in parsed.sections["environment"]
    numbers = [a["data-value"] for t, a in parsed.tags if t == "td" and "data-value" in a]
    assert "0.5" in numbers


def test_importances_in_groups_that_share_their_parameters():
    record = fake_record(80)
    groups = {g.title: g for g in importances(record)}
    assert set(groups["All trials"].shares) == {"method", "optim.lr", "optim.weight_decay"}
    assert set(groups["lora"].shares) == {"optim.lr", "optim.weight_decay", "lora.rank", "lora.alpha"}
    assert "moa.slots" in groups["soft_moa"].shares and "moa.slots" not in groups["dense_moa"].shares
    assert "linear" not in groups  # it has no settings of its own
    for group in groups.values():
        assert sum(group.shares.values()) == pytest.approx(1.0)
        assert list(group.shares.values()) == sorted(group.shares.values(), reverse=True)
    # The made-up results depend on the learning rate and the method, hardly on weight decay.
    shares = groups["All trials"].shares
    assert shares["optim.weight_decay"] < 0.1 < min(shares["optim.lr"], shares["method"])
    assert importances(record) == importances(record)


def test_importances_find_the_parameter_that_matters_and_leave_optuna_alone():
    trials = []
    for n in range(30):
        rank = 2 + n % 5
        params = {"method": "lora", "optim.lr": 10 ** (-4 + n % 6 / 2), "lora.rank": rank, "lora.bias": True}
        trial = TrialRecord(f"t{n:04d}", n, f"t{n:04d}", params, 100, status=Status.COMPLETE)
        trial.epochs = [EpochRecord(1, {"val/accuracy": 0.1 * rank}, 1.0)]
        trials.append(trial)
    record = _empty()
    record.trials = trials
    verbosity = optuna.logging.get_verbosity()
    study = optuna.create_study()
    study.enqueue_trial({})
    study.ask({"optim.lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)})
    (group,) = importances(record, study)
    assert group.shares["lora.rank"] > 0.9 and group.constant == ["lora.bias"]
    assert optuna.logging.get_verbosity() == verbosity


def test_importances_say_why_not():
    few = fake_record(MIN_TRIALS - 1)
    assert importances(few)[0].reason == f"needs {MIN_TRIALS} trials with a result, has {MIN_TRIALS - 1}"
    same = fake_record(20)
    for trial in same.trials:
        trial.epochs = [EpochRecord(1, {"val/accuracy": 0.5}, 1.0)]
    assert importances(same)[0].reason == "every trial reached the same value"
    for trial in same.trials:
        trial.params = {"method": "lora"}
    assert importances(same)[0].reason == "every trial had the same settings"
    assert "Not computed: needs 8 trials" in _page(few).sections["importances"]


def _only(record: SearchRecord, count: int) -> SearchRecord:
    record.trials = record.trials[:count]
    return record


def _failures() -> SearchRecord:
    record = fake_record(12)
    for trial in record.trials:
        trial.status, trial.epochs, trial.reason = Status.FAILED, [], "CUDA out of memory"
    record.winner, record.test = None, {}
    return record


def _nan() -> SearchRecord:
    record = fake_record(12)
    for i, trial in enumerate(record.trials):
        for epoch in trial.epochs:
            epoch.metrics["val/loss"] = math.nan if i % 2 else math.inf
            if i % 3 == 0:
                epoch.metrics["val/accuracy"] = math.nan
    record.test = {"test/accuracy": math.nan}
    record.winner = record.ranked()[0].id
    return record


def _infinite() -> SearchRecord:
    record = fake_record(12)
    record.trials[3].epochs[-1].metrics["val/accuracy"] = math.inf
    record.trials[4].epochs[-1].metrics["val/accuracy"] = -math.inf
    return record


def _without_complete() -> SearchRecord:
    record = fake_record(12)
    for trial in record.trials:
        if trial.status is Status.COMPLETE:
            trial.status = Status.RUNNING
    record.winner, record.test, record.info = None, {}, {"interrupted": True}
    return record


def _size_first() -> SearchRecord:
    record = fake_record()
    record.objectives.reverse()
    record.trials[0].trainable_params = 0
    return record


def _fixed_method() -> SearchRecord:
    record = fake_record()
    for trial in record.trials:
        del trial.params["method"]
    record.info = {"confusion": {"labels": ["a"], "matrix": [[1, 2]]}, "bad_files": ["x.wav"], "splits": None}
    record.rejected = [{"params": {}, "trainable_params": None, "reason": ""}, {}]
    return record


def _malformed() -> SearchRecord:
    record = with_folds(fake_record(12))
    record.info |= {"repeats": ["fold1", "fold9"], "intervals": {"accuracy": [None, math.nan], "loss": 3}, "splits": {}}
    record.info |= {"tables": ["a", "per_class", "missing"], "a": 3, "per_class": [{"label": "x"}, {"clips": math.nan}]}
    record.info |= {
        "dropped": "three",
        "reads_test": True,
        "classes": None,
        "protocol": None,
        "confusion": {"labels": ""},
    }
    return record


ODD = {
    "malformed tables": _malformed,
    "folds of errors": lambda: with_folds(fake_task("speech_recognition")),
    "tags without a score": lambda: fake_task("tagging", trials=3),
    "nothing": _empty,
    "one trial": lambda: _only(fake_record(1), 1),
    "one epoch": lambda: fake_record(10, epochs=1),
    "failures only": _failures,
    "nan metrics": _nan,
    "infinite metrics": _infinite,
    "none complete": _without_complete,
    "size is the first objective": _size_first,
    "method fixed, facts malformed": _fixed_method,
    "unknown winner": lambda: _only(fake_record(), 3),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_searches_have_a_sound_page(name, tmp_path):
    record = ODD[name]()
    parsed = _page(record)  # _Page checks the nesting, StrictUndefined the template
    assert {"searched", "importances", "leaderboard", "environment"} <= set(parsed.sections)
    _figures(parsed)
    assert "nan" not in parsed.text.lower().replace("the loss became nan", "")
    assert "\n".join(COMMANDS) in parsed.text
    pictures = write_figures(record, tmp_path / "figures")
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)
    charts = {t["data-chart"] for _, t in parsed.tags if "data-chart" in t}
    assert bool(pictures) == ("history" in charts)


def test_odd_headlines():
    assert "No trial was started." in _page(_empty()).text
    assert "No trial reported val/accuracy: 12 of 12 failed." in _page(_failures()).text
    interrupted = _page(_without_complete())
    assert "So far, soft_moa is best" in interrupted.text
    assert "The search was interrupted" in interrupted.sections["searched"]


def test_pictures(tmp_path):
    record = fake_task("speech_recognition", hostile="$x_{$ _a")
    files = write_figures(record, tmp_path / "new" / "folder")
    assert [f.name for f in files] == ["history.png", "curves.png", "pareto.png"]
    assert all(f.stat().st_size > 5_000 for f in files)


_NUMBERS = st.one_of(st.integers(-5, 5).map(float), st.floats(allow_nan=True, allow_infinity=True))


@given(st.lists(st.tuples(_NUMBERS, _NUMBERS), max_size=30), st.booleans())
def test_pareto_front_is_exactly_what_nothing_dominates(points, maximise):
    def dominates(a, b):
        score = a[1] >= b[1] if maximise else a[1] <= b[1]
        return a[0] <= b[0] and score and a != b

    finite = [i for i, p in enumerate(points) if all(map(math.isfinite, p))]
    expected = {i for i in finite if not any(dominates(points[j], points[i]) for j in finite)}
    front = pareto_front(points, maximise=maximise)
    assert set(front) == expected and len(front) == len(expected)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
