"""IEMOCAP in miniature: five sessions, two dialogues in each, ten speakers."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

_PITCH = {"neu": 300, "hap": 450, "exc": 450, "sad": 600, "ang": 800}
_HEAD = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"


def write(root: Path, *, audio: bool = True) -> Path:
    """Every speaker has one turn of each of the four emotions (happy: one hap, one exc), one xxx and one fru."""
    for session in range(1, 6):
        folder = root / "IEMOCAP_full_release" / f"Session{session}"
        for dialogue, emotions in (("impro01", ("neu", "hap", "ang", "xxx")), ("script01_1b", ("sad", "exc", "fru"))):
            marked = "FM"[session % 2]
            name = f"Ses0{session}{marked}_{dialogue}"
            table = _HEAD
            for number, emotion in enumerate(emotions):
                for sex in "FM":
                    turn = f"{name}_{sex}{number:03d}"
                    start = 6.2901 + 2 * number
                    table += f"[{start:.4f} - {start + 1.9:.4f}]\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n"
                    table += "C-E2:\tNeutral;\t()\nC-E3:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
                    seed = 100 * session + 10 * number + (sex == "F")
                    path = folder / "sentences" / "wav" / name / f"{turn}.wav"
                    recording(path, audio, pitch=_PITCH.get(emotion, 1000), seed=seed)
            text(folder / "dialog" / "EmoEvaluation" / f"{name}.txt", table)
            # What real copies hold beside the tables.
            text(folder / "dialog" / "EmoEvaluation" / f"._{name}.txt", "Mac OS X")
            text(
                folder / "dialog" / "EmoEvaluation" / "Categorical" / f"{name}_e2_cat.txt",
                "Ses01F_impro01_F000 :Neutral; ()\n",
            )
    return root
