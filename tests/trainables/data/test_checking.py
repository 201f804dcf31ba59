"""Checking a copy of a data set: every kind of damage is found, counted, and told with all the others."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from petl.errors import ConfigError, UserError
from petl.frontend import AstFrontEnd
from tests.trainables.data.datasets.reading import edit
from tests.trainables.data.layouts import audio_snips, esd, fluent_speech_commands, librispeech, vctk, voxpopuli
from tests.trainables.data.layouts import esc50 as esc50_layout
from tests.trainables.data.sounds import class_folders, tone
from trainables.config import DataOptions
from trainables.data import open_data, plan
from trainables.data.checking import Finding, Report, check
from trainables.data.checking.listening import hear
from trainables.data.clips import SPLITS, BadFiles, Clip
from trainables.data.features import extract


def checked(name: str, root: Path, *, examples: int = 5, decode: bool = True, **options: Any) -> Report:
    asked = DataOptions.model_validate({"dataset": name, "path": str(root), **options})
    return check(asked, root, workers=2, examples=examples, decode=decode)


def kinds(report: Report) -> dict[str, int]:
    """{kind: how often}, without the published figures, which no miniature has."""
    return {finding.kind: finding.count for finding in report.findings if finding.kind != "figures"}


def the(report: Report, kind: str) -> Finding:
    found = [finding for finding in report.findings if finding.kind == kind]
    assert len(found) == 1, report.findings
    return found[0]


def manifest(root: Path, header: str, rows: Sequence[str], seconds: float = 0.3, audio: bool = True) -> Path:
    """A manifest whose first column is the path; every file is a tone of its own."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "manifest.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    for number, name in enumerate(dict.fromkeys(row.partition(",")[0] for row in rows)):
        if audio:
            tone(root / name, seconds, pitch=200 + 10 * number, seed=number)
    return root


def _zeros(path: Path) -> None:
    soundfile.write(path, np.zeros(3200, np.float32), 16000)


def _nan(path: Path) -> None:
    wave_S = np.full(3200, 0.1, np.float32)
    wave_S[7] = np.nan
    soundfile.write(path, wave_S, 16000, subtype="FLOAT")


def _half(path: Path) -> None:
    tone(path, 2.0, seed=sum(str(path).encode()))
    path.write_bytes(path.read_bytes()[:32044])  # one second behind the header


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b"") and None,
    "unreadable": lambda path: path.write_bytes(b"this is no audio at all") and None,
    "not_finite": _nan,
    "too_short": lambda path: soundfile.write(path, np.full(300, 0.1, np.float32), 16000),
    "silent": _zeros,
    "truncated": _half,
}
UNUSABLE = ("missing", "empty", "unreadable", "not_finite", "too_short")


def test_nothing_is_wrong_with_what_is_whole(tmp_path: Path) -> None:
    report = checked("folder", class_folders(tmp_path, classes=2, clips=10, seconds=0.25))
    assert report.findings == () and report.usable and report.listened
    assert report.facts["clips"] == 20 and report.facts["classes"] == 2
    assert report.facts["seconds"] == {"least": 0.25, "median": 0.25, "most": 0.25, "total": 5.0}
    assert report.facts["sample_rates"] == {"16000": 20} and report.facts["channels"] == {"1": 20}
    per_split = {split: held["clips"] for split, held in report.facts["splits"].items()}
    assert per_split == {"train": 12, "val": 4, "test": 4}
    assert report.facts["splits"]["train"]["hours"] == pytest.approx(3 / 3600, abs=1e-4)
    assert report.facts["splits"]["test"]["per_class"] == {"class0": 2, "class1": 2}


@given(st.lists(st.sampled_from(["", *DAMAGES]), min_size=8, max_size=8))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_every_damage_is_counted_beside_all_others(damages: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = class_folders(Path(folder), classes=2, clips=10, seconds=0.1)
        for number, damage in enumerate(damages):
            if damage:
                DAMAGES[damage](root / f"class{number % 2}" / f"clip{number // 2}.wav")
        (root / "manifest.csv").write_text(
            "path,label\n" + "".join(f"class{c}/clip{i}.wav,class{c}\n" for c in range(2) for i in range(10))
        )
        report = checked("manifest", root)
        expected = Counter(damage for damage in damages if damage)
        found = {kind: count for kind, count in kinds(report).items() if kind in DAMAGES}
        assert found == dict(expected)
        assert report.usable == (not any(damage in UNUSABLE for damage in damages))
        others = {"copies", "copies_across", "copies_differ"}  # two files of nothing are the same
        assert set(kinds(report)) <= {*DAMAGES, *others}


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "missing"])
def test_clips_are_judged_as_a_search_judges_them(tmp_path: Path, damage: str) -> None:
    path = tone(tmp_path / "a.wav", 0.3)
    DAMAGES[damage](path)
    for part in ((None, None), (0.05, 0.15), (0.2, 9.0), (5.0, 6.0)):
        clip = Clip(path=path, name="a.wav", start=part[0], end=part[1])
        heard, row = hear(clip), extract(clip, AstFrontEnd())
        assert (heard.reason, heard.detail) == (row.reason, row.detail)
        if not heard.reason:
            assert heard.seconds == pytest.approx(row.seconds, abs=1e-3)
            assert (heard.silent, heard.promised > 0) == (row.silent, row.truncated)


def test_rows_sounds_and_figures_in_one_report(tmp_path: Path) -> None:
    root = esc50_layout.write(tmp_path)
    (root / "audio" / "1-103000-A-30.wav").unlink()
    _zeros(root / "audio" / "2-201000-A-10.wav")
    edit(root / "meta" / "esc50.csv", "1-100000-A-0.wav,1,0,dog", "1-100000-A-0.wav,one,0,dog")
    edit(root / "meta" / "esc50.csv", "5-503401-B-34.wav,5,34,can_opening", "5-503401-B-34.wav,5,34,")
    report = checked("esc50", root)
    assert kinds(report) == {"rows": 2, "missing": 1, "silent": 1, "sample_rates": 2} and not report.usable
    rows = the(report, "rows")
    assert rows.message.startswith(str(root / "meta" / "esc50.csv"))
    assert rows.examples[0] == "row 2: 'fold' is 'one'; it must be a whole number, at least 1"
    assert rows.examples[1].startswith("row 61: 'category' is missing")
    assert the(report, "missing").examples == ("audio/1-103000-A-30.wav",)
    figures = the(report, "figures")
    assert figures.count == 7 and figures.examples[0] == "58 clips; there should be 2,000"
    assert [finding.severity for finding in report.findings] == ["error", "error", "warning", "warning", "note"]
    assert report.facts["folds"] == {"1": 11, "2": 12, "3": 12, "4": 12, "5": 11}


def test_the_tables_of_all_splits_are_read(tmp_path: Path) -> None:
    root = fluent_speech_commands.write(tmp_path, audio=False)
    home = root / "fluent_speech_commands_dataset" / "data"
    edit(home / "train_data.csv", "activate,lights", "activate,light")
    edit(home / "test_data.csv", "increase,volume", "increase,volumes")
    report = checked("fluent_speech_commands", root, decode=False)
    problems = [finding for finding in report.findings if finding.kind == "rows"]
    assert [Path(p.message.partition(":")[0]).name for p in problems] == ["train_data.csv", "test_data.csv"]
    assert "did you mean 'lights'" in problems[0].examples[0] and "row 5" in problems[1].examples[0]
    assert report.facts["clips"] == 30 and not report.listened


def test_lists_that_are_not_there(tmp_path: Path) -> None:
    root = fluent_speech_commands.write(tmp_path, audio=False)
    for name in ("train", "test"):
        (root / "fluent_speech_commands_dataset" / "data" / f"{name}_data.csv").unlink()
    report = checked("fluent_speech_commands", root)
    assert kinds(report) == {"layout": 1} and report.facts == {} and not report.listened
    assert "no data/train_data.csv, no data/test_data.csv" in the(report, "layout").message


def test_figures_of_another_subset_are_recognised(tmp_path: Path) -> None:
    rows = ["filename,fold,target,category,esc10"]
    rows += [f"{fold}-{n}.wav,{fold},{n % 10},kind{n % 10},True" for fold in range(1, 6) for n in range(80)]
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("\n".join(rows))
    report = checked("esc50", tmp_path, decode=False)
    assert the(report, "figures").message.endswith("These are the figures of subset 'esc10': --subset esc10")
    assert "figures" not in [f.kind for f in checked("esc50", tmp_path, subset="esc10", decode=False).findings]


def test_every_fold_is_held_out_in_turn(tmp_path: Path) -> None:
    rows = [f"{fold}{kind}{n}.wav,{kind},{fold}" for fold in (1, 2, 4) for kind in "ab" for n in range(4)]
    rows += [f"4c{n}.wav,c,4" for n in range(3)]
    report = checked("manifest", manifest(tmp_path, "path,label,fold", rows, audio=False), decode=False)
    splits = the(report, "splits")
    assert splits.message.startswith("fold4: ") and "class 'c' is in test" in splits.message
    assert the(report, "folds").examples == ("fold 3",)
    assert the(report, "classes").examples == ("'c' has no clip in test (fold1)", "'c' has no clip in test (fold2)")


def test_copies_within_and_across_splits(tmp_path: Path) -> None:
    rows = [f"{split}{kind}{n}.wav,{kind},{split}" for split in SPLITS for kind in "ab" for n in (0, 1)]
    root = manifest(tmp_path, "path,label,split", rows)
    for copy, of in (("traina1", "traina0"), ("testa0", "vala0"), ("testb1", "testa1")):
        (root / f"{copy}.wav").write_bytes((root / f"{of}.wav").read_bytes())
    report = checked("manifest", root)
    assert kinds(report) == {"copies_across": 1, "copies_differ": 1, "copies": 1}
    assert the(report, "copies_across").examples == ("testa0.wav (test) = vala0.wav (val)",)
    assert the(report, "copies_differ").examples == ("testa1.wav (test) = testb1.wav (test): a | b",)
    assert the(report, "copies").examples == ("traina0.wav (train) = traina1.wav (train)",)


def test_recordings_and_voices_in_two_splits(tmp_path: Path) -> None:
    rows = [
        f"{split}{kind}{n}.wav,{kind},{split},g{split}{kind}{n},s{split}"
        for split in SPLITS
        for kind in "ab"
        for n in (0, 1)
    ]
    rows[0] = rows[0].replace("gtraina0,strain", "gtesta0,sval")
    report = checked("manifest", manifest(tmp_path, "path,label,split,group,speaker", rows, audio=False), decode=False)
    assert kinds(report) == {"missing": 12, "groups_across": 1, "speakers_across": 1}
    assert the(report, "groups_across").examples == ("'gtesta0': 1 in test, 1 in train",)
    assert the(report, "speakers_across").examples == ("'sval': 1 in train, 4 in val",)


def test_parts_that_overlap(tmp_path: Path) -> None:
    rows = ["a.wav,x,train,0,1", "a.wav,y,test,0.9,2", "a.wav,y,train,2,3", "b.wav,x,test,0,1", "b.wav,x,test,0.5,2"]
    rows += [f"c.wav,{kind},val,{n},{n + 1}" for n, kind in enumerate("xy")]
    report = checked("manifest", manifest(tmp_path, "path,label,split,start,end", rows, 3.0))
    assert the(report, "overlaps").examples == ("a.wav [0 s to 1 s] (train) and a.wav [0.9 s to 2 s] (test)",)
    assert kinds(report) == {"overlaps": 1, "groups_across": 1}  # one file is one group


@pytest.mark.parametrize(
    ("layout", "name", "target"),
    [(esd, "esd", "emotion"), (audio_snips, "audio_snips", "intent"), (vctk, "vctk", "speaker")],
)
def test_voices_may_recur_where_the_data_set_has_it_so(tmp_path: Path, layout: Any, name: str, target: str) -> None:
    report = checked(name, layout.write(tmp_path, audio=False), target=target, decode=False)
    assert report.facts["speakers"] > 1 and "speakers_across" not in kinds(report)


def test_voices_of_verification_are_others(tmp_path: Path) -> None:
    rows = [f"{s}{n}.wav,{s},{split}" for split, names in _SPEAKERS.items() for s in names for n in range(2)]
    report = checked("manifest", manifest(tmp_path, "path,speaker,split", rows), target="speaker")
    assert kinds(report) == {}
    rows += ["a9.wav,a,test"]
    report = checked("manifest", manifest(tmp_path, "path,speaker,split", rows), target="speaker")
    assert the(report, "speakers_across").examples == ("'a': 1 in test, 2 in train",)


_SPEAKERS = {"train": "abc", "val": "de", "test": "fg"}


def test_what_a_reader_left_out_is_told(tmp_path: Path) -> None:
    report = checked("voxpopuli", voxpopuli.write(tmp_path, audio=False), decode=False)
    assert the(report, "left_out").message == "voxpopuli en: 1 of 8 utterances have no text and are left out"


def test_what_a_reader_left_out_reaches_the_plan_and_the_data(tmp_path: Path) -> None:
    root = voxpopuli.write(tmp_path)
    options = DataOptions(dataset="voxpopuli", path=str(root))
    left_out = ["voxpopuli en: 1 of 8 utterances have no text and are left out"]
    assert plan(options).describe()["left_out"] == left_out
    assert open_data(options, AstFrontEnd(), workers=1).describe()["left_out"] == left_out


def test_a_search_says_where_to_learn_what_else_is_wrong(tmp_path: Path) -> None:
    root = class_folders(tmp_path, classes=2, clips=5, seconds=0.1)
    options = DataOptions(dataset="folder", path=str(root))
    (root / "class0" / "clip0.wav").write_bytes(b"")
    with pytest.raises(BadFiles, match=f"petl-search datasets check folder {root}") as caught:
        open_data(options, AstFrontEnd(), workers=1)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # workers send it to the driver


def test_texts(tmp_path: Path) -> None:
    rows = [
        "t0.wav,hello there,train",
        "t1.wav,the other hero,train",  # 14 symbols; 0.2 s give (3200 - 400) // 320 + 1 = 9
        "t2.wav,oh!,train",
        "v0.wav,hello zoé,val",
        "v1.wav,zero 0,val",
        "x0.wav,...,test",
        "x1.wav,hеllo \ufffd,test",  # its e is Cyrillic
    ]
    report = checked("manifest", manifest(tmp_path, "path,text,split", rows, 0.2), target="text", examples=9)
    found = kinds(report)
    assert found == {
        "empty_texts": 1, "unknown_symbols": 5, "too_much_text": 2, "broken_characters": 1, "unusual_characters": 1
    }  # fmt: skip
    assert the(report, "empty_texts").examples == ("x0.wav",)
    assert the(report, "unknown_symbols").examples == (
        "'0' (U+0030 digit zero) in 1 of 2 val clips",
        "'z' (U+007A latin small letter z) in 2 of 2 val clips",
        "'é' (U+00E9 latin small letter e with acute) in 1 of 2 val clips",
        "'е' (U+0435 cyrillic small letter ie) in 1 of 2 test clips",
        "'\ufffd' (U+FFFD replacement character) in 1 of 2 test clips",
    )
    # "hello there": 11 symbols and a blank between the two l.
    assert the(report, "too_much_text").examples[0] == "t0.wav: 12 tokens for 'hello there', its 0.20 s give 9"
    assert "U+FFFD" in the(report, "broken_characters").examples[0]
    assert the(report, "unusual_characters").examples == ("'0' (U+0030 digit zero) in 1 clips, first v1.wav",)
    assert report.facts["symbols"] == 3 + len(set("hellotheotherherooh"))


def test_letters_of_another_script_are_noted(tmp_path: Path) -> None:
    rows = [f"{n}.wav,hello,{split}" for split in SPLITS for n in range(40)]
    rows = [f"{n}{row}" for n, row in enumerate(rows)]
    rows[3] = rows[3].replace("hello", "hеllo")
    root = manifest(tmp_path, "path,text,split", rows, audio=False)
    noted = the(checked("manifest", root, target="text", decode=False), "unusual_characters").examples
    assert noted == ("'е' (U+0435 cyrillic small letter ie) in 1 clips, first 33.wav; other letters are latin",)


def test_phones_have_names_of_any_kind(tmp_path: Path) -> None:
    root = librispeech.write(tmp_path)
    report = checked("librispeech", root, target="phonemes", lexicon=str(root / "librispeech-lexicon.txt"))
    assert kinds(report) == {} and report.facts["symbols"] == 2 + 13


def test_labels_and_balance(tmp_path: Path) -> None:
    rows = [f"a{n}.wav,Dog bark,{split}" for split, count in _COUNTS for n in range(*count)]
    rows += [
        f"b{n}.wav,dog_bark,{split}" for split, count in (("train", (0, 2)), ("test", (2, 3))) for n in range(*count)
    ]
    report = checked("manifest", manifest(tmp_path, "path,label,split", rows))
    assert kinds(report) == {"labels": 1, "classes": 1, "balance": 2}
    assert the(report, "labels").examples == ("'Dog bark' (16 clips), 'dog_bark' (3 clips)",)
    assert the(report, "classes").examples == ("'dog_bark' has no clip in val",)
    assert "'Dog bark' has 6 times as many training clips as 'dog_bark'" in the(report, "balance").message


_COUNTS = (("train", (0, 12)), ("val", (12, 14)), ("test", (14, 16)))


def test_rates_and_channels(tmp_path: Path) -> None:
    root = class_folders(tmp_path, classes=2, clips=5)
    for n in range(5):
        tone(root / "class1" / f"clip{n}.wav", 0.2, rate=8000, channels=2, seed=50 + n)
    report = checked("folder", root)
    assert kinds(report) == {"rates_by_class": 2, "low_rate": 5, "channels": 5}
    assert the(report, "rates_by_class").examples == ("16,000 Hz: 5 clips", "8,000 Hz: 5 clips")
    assert report.facts["channels"] == {"1": 5, "2": 5}
    tone(root / "class1" / "clip0.wav", 0.2, seed=50)
    assert "sample_rates" in kinds(checked("folder", root))


def test_long_clips(tmp_path: Path) -> None:
    root = class_folders(tmp_path, classes=2, clips=5, seconds=0.1)
    soundfile.write(root / "class0" / "clip0.wav", np.full(8000 * 42, 0.1, np.float32), 8000)
    assert the(checked("folder", root), "long").examples == ("class0/clip0.wav: 42.0 s",)


def test_peoples_own_folders(tmp_path: Path) -> None:
    root = class_folders(tmp_path, classes=2, clips=5, seconds=0.1)
    (root / "class2").mkdir()
    (root / "class2" / "a.m4a").write_bytes(b"x")
    (root / "class2" / "notes.txt").write_text("x")
    tone(root / "above.wav", 0.1)
    report = checked("folder", root)
    assert kinds(report) == {"other_formats": 1, "empty_classes": 1, "unused": 1, "left_out": 1} and report.usable
    assert the(report, "other_formats").examples == ("class2/a.m4a",)
    assert the(report, "empty_classes").examples == ("class2",)
    assert the(report, "unused").examples == ("above.wav",)


def test_what_is_left_has_to_be_enough(tmp_path: Path) -> None:
    root = class_folders(tmp_path, classes=2, clips=3, seconds=0.1)
    (root / "class1" / "clip1.wav").write_bytes(b"no audio")
    report = checked("folder", root)
    assert kinds(report) == {"unreadable": 1, "splits_without_bad": 1}
    assert "class 'class1' has 2 clips" in the(report, "splits_without_bad").message


def test_protocols_that_read_the_test(tmp_path: Path) -> None:
    report = checked("esc50", esc50_layout.write(tmp_path), protocol="aat")
    assert kinds(report) == {"reads_test": 1} and report.usable
    assert checked("esc50", tmp_path).usable


def test_only_so_many_examples(tmp_path: Path) -> None:
    report = checked("esc50", esc50_layout.write(tmp_path, audio=False), examples=3)
    empty = the(report, "empty")
    assert (empty.count, len(empty.examples)) == (60, 3)
    again = {finding["kind"]: finding for finding in report.to_json()["findings"]}
    assert again["empty"]["count"] == 60 and again["empty"]["examples"] == empty.examples


def test_requests_that_mean_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        checked("esc50", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="did you mean 'esc10'"):
        checked("esc50", tmp_path, subset="esc11")
    with pytest.raises(UserError, match="no copy of it"):
        check(DataOptions(), tmp_path)


def test_torch_is_not_imported(tmp_path: Path) -> None:
    root = manifest(tmp_path, "path,text,split", [f"{s}{n}.wav,one,{s}" for s in SPLITS for n in "ab"])
    code = (
        "import sys; from pathlib import Path; from trainables.config import DataOptions; "
        "from trainables.data.checking import check; "
        f"r = check(DataOptions(dataset='manifest', path={str(root)!r}, target='text'), Path({str(root)!r})); "
        "assert r.usable, r; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_overlaps_with_a_long_part_before(tmp_path: Path) -> None:
    rows = ["a.wav,x,train,0,0.3", "a.wav,y,train,0.1,0.15", "a.wav,x,test,0.2,0.25", "b.wav,y,test,0,"]
    root = manifest(tmp_path, "path,label,split,start,end", [*rows, "c.wav,x,val,0,", "d.wav,y,val,0,"])
    found = the(checked("manifest", root, decode=False), "overlaps")
    assert found.count == 1 and "[0 s to 0.3 s] (train) and a.wav [0.2 s to 0.25 s] (test)" in found.examples[0]


def test_gaps_between_folds_are_runs(tmp_path: Path) -> None:
    rows = [f"{fold}{label}.wav,{label},{fold}" for fold in (1, 2, 9998, 10000) for label in "xy"]
    found = the(checked("manifest", manifest(tmp_path, "path,label,fold", rows), decode=False), "folds")
    assert found.examples == ("folds 3 to 9997", "fold 9999") and found.count == 9996
