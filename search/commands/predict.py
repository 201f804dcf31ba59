"""`petl-search predict`: labels for recordings."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from rich.console import Console

from petl.errors import UserError
from search.commands.devices import chosen_device
from trainables.data.clips import AUDIO_SUFFIXES, audio_files


def predict_files(
    adapter: Path,
    files: list[Path],
    as_json: bool,
    backbone: str | None,
    out: Console,
    err: Console,
    *,
    device: str | None = None,
) -> int:
    """Predict every file; one that cannot be read is reported and does not stop the others. Returns the status."""
    import petl

    clips = _expanded(files)
    model = petl.load_adapter(adapter, backbone=backbone, device=chosen_device(device))
    failed = cut = 0
    front_end = model.front_end
    rate = front_end.sample_rate
    width = max(len(str(clip)) for clip in clips)
    for clip in clips:
        try:
            found = model.predict(clip)
            cut += front_end.frames_of(int(_seconds(clip) * rate)) > front_end.frames
        except (UserError, RuntimeError, MemoryError) as error:
            failed += 1
            said = str(error) if isinstance(error, UserError) else f"{clip}: {_first_line(error)}"
            if as_json:
                print(jsonlib.dumps({"path": str(clip), "error": said}, ensure_ascii=False), flush=True)
            else:
                err.print(said, markup=False, soft_wrap=True)
            continue
        if as_json:
            print(jsonlib.dumps({"path": str(clip), **found.to_json()}, ensure_ascii=False), flush=True)
        else:
            out.print(f"{clip!s:<{width}}  {found.shown}", markup=False, soft_wrap=True)
    if cut:
        what = "recording is" if cut == 1 else "recordings are"
        heard = front_end.samples_in(front_end.frames) / rate
        err.print(f"{cut} {what} longer than the {heard:.2f} s this model takes in; what follows was not listened to")
    if failed:
        err.print(f"{failed} of {len(clips)} recordings could not be used")
    return 1 if failed else 0


def _seconds(clip: Path) -> float:
    import soundfile

    try:
        return float(soundfile.info(str(clip)).duration)
    except (soundfile.SoundFileError, OSError):
        return 0.0


def _first_line(error: BaseException) -> str:
    """What went wrong with a file in a way that nobody foresaw: too little memory, say."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason is given'])[0]}"


def _expanded(files: list[Path]) -> list[Path]:
    clips: list[Path] = []
    for path in files:
        if path.is_dir():
            try:
                inside = list(audio_files(path))
            except OSError as error:
                raise UserError(f"{error.filename or path}: cannot be searched ({error.strerror})") from None
            if not inside:
                raise UserError(
                    f"{path}: no recordings in this folder (looked for {', '.join(sorted(AUDIO_SUFFIXES))})"
                )
            clips += inside
        elif path.exists():
            clips.append(path)
        else:
            raise UserError(f"{path}: there is no such file or folder")
    return clips
