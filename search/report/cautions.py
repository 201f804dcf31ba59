"""What a reader should know before trusting the numbers (torch-free)."""

from __future__ import annotations

from typing import Any

from search.metric_text import (
    format_value,
    is_percentage,
    name_with_split,
    parts_of,
    repeat_noun,
    repeats_of,
    repeats_text,
    with_deviation,
)
from search.ranking import LeaderboardRow, leaderboard, primary_objective, winner_of
from search.records import SearchRecord, Status, TrialRecord
from search.texts import plural

_SHARES_OF_CLIPS = ("accuracy", "exact_match")
_FEW_CLIPS = 50
_REASONS = 2


def cautions(record: SearchRecord) -> list[str]:
    """One sentence or two each, what weighs most first."""
    found = [_reads_test(record), _interrupted(record), _left_out(record), _dropped(record)]
    found += [str(sentence) for sentence in record.info.get("left_out") or ()]
    winner = winner_of(record)
    board = leaderboard(record)
    baseline = next((r for r in board if r.is_baseline and r.rank is not None), None)
    if winner is not None and baseline is not None and baseline.epochs < len(winner.epochs):
        found.append(_unequal(record, winner, baseline))
    found += [_best_of(record, sum(r.rank is not None for r in board)), _deviation(record), _validation_size(record)]
    return [text for text in found if text]


def test_value(record: SearchRecord) -> tuple[str, float] | None:
    """The test metric that stands for the objective, `(name, value)`."""
    plain = parts_of(primary_objective(record).metric).plain
    for name in (f"test/{plain}", plain):
        if name in record.test:
            return name, record.test[name]
    return None


def files_left_out(record: SearchRecord, key: str) -> list[tuple[str, str]]:
    """`(file, reason)` of the clips listed under `key`: "bad_files" or "dropped"."""
    listed = record.info.get(key) or []
    if not isinstance(listed, list | tuple):
        return []
    return [_file_and_reason(item) for item in listed]


def split_size(record: SearchRecord, name: str) -> int | None:
    """Clips of a split, of the first repeat; None where it is not known."""
    splits = record.info.get("splits")
    size = splits.get(name) if isinstance(splits, dict) else None
    return size if isinstance(size, int) and size > 0 else None


def _reads_test(record: SearchRecord) -> str:
    if not record.info.get("reads_test"):
        return ""
    return (
        "As in the published protocol, epochs were chosen on clips that the test counts, too, and the search chose "
        "among trials by them: validation and test values are too good. Compare them with published ones of the same "
        "protocol only; what to expect on new recordings, the standard protocol tells."
    )


def _interrupted(record: SearchRecord) -> str:
    unfinished = sum(t.status is Status.RUNNING for t in record.trials)
    if not record.info.get("interrupted") and not unfinished:
        return ""
    rest = f"; {unfinished} {plural(unfinished, 'trial')} did not finish" if unfinished else ""
    return f"The search was interrupted{rest}. It can be resumed from the run directory."


def _left_out(record: SearchRecord) -> str:
    bad = files_left_out(record, "bad_files")
    if not bad:
        return ""
    verb = "was" if len(bad) == 1 else "were"
    return f"{len(bad)} {plural(len(bad), 'audio file')} could not be used and {verb} left out (list below)."


def _dropped(record: SearchRecord) -> str:
    dropped = files_left_out(record, "dropped")
    if not dropped:
        return ""
    first = "; ".join(f"{name}: {reason}" if reason else name for name, reason in dropped[:_REASONS])
    more = f"; and {len(dropped) - _REASONS} more (list below)" if len(dropped) > _REASONS else ""
    verb = "was" if len(dropped) == 1 else "were"
    where = f" of {repeats_of(record.info)[0]}" if repeats_of(record.info) else ""
    return f"{len(dropped)} training {plural(len(dropped), 'clip')}{where} {verb} not learned from. {first}{more}."


def _unequal(record: SearchRecord, winner: TrialRecord, baseline: LeaderboardRow) -> str:
    """The fair comparison when the linear probe was not trained as long as the winner: at equal epochs."""
    objective = primary_objective(record)
    last = baseline.trial.epochs[-1].epoch
    text = f"The best linear probe ({baseline.trial.id}) ended after epoch {last}"
    early = TrialRecord(winner.id, winner.number, winner.name, {}, winner.trainable_params)
    early.epochs = [e for e in winner.epochs if e.epoch <= last]
    value = early.value(objective)
    if value is None:
        return f"{text}: its distance to the winner is not one at equal training."
    reached = with_deviation(objective.metric, baseline.value, baseline.deviation)
    return (
        f"{text} with {reached}. At equal training, up to epoch {last}, "
        f"the winner stood at {format_value(objective.metric, value)}."
    )


def _best_of(record: SearchRecord, trials: int) -> str:
    if trials < 2:
        return ""
    name = name_with_split(primary_objective(record).metric)
    text = f"The winner’s {name} is the best of {trials} trials and therefore optimistic"
    if test_value(record) is None or record.info.get("reads_test"):
        return f"{text}."
    return f"{text}; the test value is not, because the test split was read once, after the choice."


def _deviation(record: SearchRecord) -> str:
    titles = repeats_of(record.info)
    if not titles:
        return ""
    noun = repeat_noun(titles)
    same = " All draws are tested on the same clips." if noun == "draw" else ""
    return (
        f"Values are means over {repeats_text(titles)}, one training each; ± is the standard deviation of the {noun}s’ "
        f"values (divided by {len(titles)}), not the error of the mean.{same}"
    )


def _validation_size(record: SearchRecord) -> str:
    metric = primary_objective(record).metric
    name, clips = parts_of(metric), split_size(record, "val")
    if not clips or name.split != "val":
        return ""
    titles = repeats_of(record.info)
    where = f" of {titles[0]}" if titles else ""
    if name.plain in _SHARES_OF_CLIPS and is_percentage(metric):
        return f"One validation clip{where} is worth {100 / clips:.1f} points ({clips} clips)."
    if clips < _FEW_CLIPS:
        return f"Epochs and trials were chosen on {clips} validation clips{where} only."
    return ""


def _file_and_reason(item: Any) -> tuple[str, str]:
    if isinstance(item, dict):
        return str(item.get("file") or item.get("path") or ""), str(item.get("reason", ""))
    if isinstance(item, list | tuple) and len(item) == 2:
        return str(item[0]), str(item[1])
    return str(item), ""
