"""IEMOCAP: acted dialogues of ten speakers in five sessions, with emotions (torch-free)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from petl.errors import nearest
from trainables.config import DataOptions
from trainables.data.clips import Clip
from trainables.data.datasets._files import files, folders, lines, relative
from trainables.data.datasets._reading import refuse
from trainables.data.datasets.base import Choice, Dataset, Expected, LayoutError, Protocol, Target, needed
from trainables.data.splits import SplitError, Splits, folds_of, held_out_fold

_FOUR = {"neu": "neutral", "hap": "happy", "exc": "happy", "sad": "sad", "ang": "angry"}
_ALL = ("ang", "dis", "exc", "fea", "fru", "hap", "neu", "oth", "sad", "sur", "xxx")
_SURE = {1: "train", 2: "train", 3: "train", 4: "val", 5: "test"}

_TURN = re.compile(r"\[\s*([\d.]+)\s*-\s*([\d.]+)\s*\]\t(\S+)\t(\S+)\t\[.*\]")
_NAME = re.compile(r"Ses0([1-5])[FM]_\w+_([FM])\w+")


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the turns of every session with the emotion that most annotators gave.

    `speaker` and `group` are session and sex, as in 'Ses01-F': the letter after the last `_` of a turn's name (the one
    after the session says who wore the markers). `fold` is the session; for protocol petl_ast every speaker is one:
    2k - 1 for the woman of session k, 2k for the man. For protocol sure clips have splits instead.
    """
    release = _release(root)
    sessions = [folder for folder in folders(release) if re.fullmatch("Session[1-5]", folder.name)]
    needed(release, *[f"Session{k}/dialog/EmoEvaluation" for k in range(1, 6)], dataset="iemocap")
    clips, wrong = [], []
    for session in sessions:
        for table in files(session / "dialog" / "EmoEvaluation", ".txt"):
            for number, line in lines(table, "utf-8-sig", "cp1252", "latin-1"):
                if not line.startswith("["):
                    continue
                turn = _TURN.fullmatch(line.strip())
                name = _NAME.fullmatch(turn[3]) if turn else None
                where = f"{relative(table, root)}, row {number}"
                if turn is None or name is None or f"Session{name[1]}" != session.name:
                    wrong.append(
                        f"{where}: '{line.strip()}'; expected [start - end], turn, emotion, [V, A, D] with tabs"
                    )
                elif turn[4] not in _ALL:
                    wrong.append(f"{where}: emotion '{turn[4]}'{nearest(turn[4], _ALL)}; allowed: {', '.join(_ALL)}")
                elif choice.subset == "11" or turn[4] in _FOUR:
                    label = turn[4] if choice.subset == "11" else _FOUR[turn[4]]
                    path = session / "sentences" / "wav" / turn[3].rpartition("_")[0] / f"{turn[3]}.wav"
                    clips.append(_clip(path, root, label, int(name[1]), name[2], choice.protocol))
    if wrong:
        refuse(root, wrong)
    if not clips:
        raise LayoutError(f"{release}: the tables in dialog/EmoEvaluation name no turn")
    return clips


def _clip(path: Path, root: Path, label: str, session: int, sex: str, protocol: str) -> Clip:
    fold: int | None = session
    if protocol == "petl_ast":
        fold = 2 * session - (sex == "F")
    speaker = f"Ses0{session}-{sex}"
    split = _SURE[session] if protocol == "sure" else None
    return Clip(
        path=path,
        name=relative(path, root),
        label=label,
        split=split,
        fold=None if split else fold,
        group=speaker,
        speaker=speaker,
    )


def _by_session(clips: Sequence[Clip], options: DataOptions) -> Splits:
    """Test on session k, validate on the one before it, train on the other three: no speaker in two splits."""
    folds, fold = folds_of(clips), held_out_fold(clips, options)
    if len(folds) < 3:
        raise SplitError(f"iemocap needs clips of at least 3 sessions to split by; there are {len(folds)}")
    before = folds[folds.index(fold) - 1]
    parts = {fold: "test", before: "val"}
    names = [parts.get(clip.fold or 0, "train") for clip in clips]
    return _of_names(clips, names, f"standard: test on session {fold}, val on session {before}, train on the others")


def _by_speaker(clips: Sequence[Clip], options: DataOptions) -> Splits:
    """Test on one speaker, validate on the other one of the session, train on the other four sessions."""
    fold = held_out_fold(clips, options)
    partner = fold + 1 if fold % 2 else fold - 1
    parts = {fold: "test", partner: "val"}
    names = [parts.get(clip.fold or 0, "train") for clip in clips]
    woman, man = ("test", "val") if fold % 2 else ("val", "test")
    session = (fold + 1) // 2
    return _of_names(clips, names, f"petl_ast: of session {session} the woman is {woman} and the man {man}, rest train")


def _sure(clips: Sequence[Clip], options: DataOptions) -> Splits:
    names = [clip.split or "train" for clip in clips]
    return _of_names(clips, names, "sure: train on sessions 1 to 3, val on session 4, test on session 5")


def _of_names(clips: Sequence[Clip], names: Sequence[str], protocol: str) -> Splits:
    """Splits by name, less the clips of emotions that no training clip has: of the 11, two have under five clips."""
    learned = {clip.label for clip, name in zip(clips, names, strict=True) if name == "train"}
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for i, (clip, name) in enumerate(zip(clips, names, strict=True)):
        if clip.label in learned:
            parts[name].append(i)
    lost = len(clips) - sum(len(part) for part in parts.values())
    words = f"; {lost} clips of emotions that no training clip has are left out" if lost else ""
    return Splits.of_parts(train=parts["train"], val=parts["val"], test=parts["test"], protocol=protocol + words)


def _release(root: Path) -> Path:
    inner = root / "IEMOCAP_full_release"
    return inner if inner.is_dir() else root


def looks_like(root: Path) -> bool:
    return (_release(root) / "Session1" / "dialog" / "EmoEvaluation").is_dir()


DATASET = Dataset(
    name="iemocap",
    summary="IEMOCAP: emotions in acted English dialogues, ten speakers, five sessions",
    layout=(
        "PATH/IEMOCAP_full_release/ or PATH itself with\n"
        "  Session1/dialog/EmoEvaluation/*.txt\n"
        "  Session1/sentences/wav/<dialogue>/<turn>.wav   and the same for Session2 to Session5"
    ),
    targets={"emotion": Target("classification", "the emotion that most annotators gave")},
    protocols={
        "standard": Protocol(
            "test on session k of five, validate on the one before it, train on the others", _by_session
        ),
        "petl_ast": Protocol(
            "ten runs: train on four sessions; of the fifth one speaker validates and the other one tests. Fold 2k - 1 "
            "tests the woman of session k, fold 2k the man",
            _by_speaker,
        ),
        "sure": Protocol("sessions 1 to 3 train, session 4 validates, session 5 tests", _sure),
    },
    read=read,
    looks_like=looks_like,
    subsets={
        "4": "neutral, happy (with excited), sad and angry; other turns are left out",
        "11": "all eleven labels as they are, among them xxx (no agreement) and oth",
    },
    expected=(
        Expected(subset="4", clips=5531, classes=4, source="Busso et al. 2008, counted by many"),
        Expected(subset="11", clips=10039, classes=11, source="Busso et al. 2008"),
    ),
    citation='C. Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", LREC journal 2008',
    licence="on request from USC SAIL, for research",
)
