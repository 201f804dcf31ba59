"""`petl-search sync`: deliver to MLflow what it lacks of a search that nobody is running any more."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from petl.errors import UserError
from search.journal import read_journal
from search.mlflow_address import complete, default_uri, resolve_uri, shown, trusted
from search.mlflow_files import is_own, left_out, only_own, results_of
from search.mlflow_probe import MlflowAway, as_user_error
from search.mlflow_spool import SPOOL, read_spool
from search.mlflow_store import Dataset, MlflowStore, is_local, is_permanent
from search.places import only_one
from search.prepare import tags
from search.records import SearchRecord, Status
from search.tracking_driver import ensure_here
from search.tracking_events import (
    Event,
    apply,
    dataset_of,
    describe,
    describing_tags,
    grouped,
    history,
    one_line,
    results,
)

_ENDS = {"finished": "FINISHED", "problem": "FAILED", "interrupted": "KILLED"}


def sync(directory: Path, uri: str | None, out: Console, err: Console) -> int:
    """Deliver what MLflow lacks of the search in `directory`, and end its runs.

    The journal says what there is; the spool adds how the search ended and what was meant for the parent run. Twice
    the same is delivered once.

    Args:
        directory: run directory of a search.
        uri: address of the store, where it is another than the search's or has a password (which is not kept).
        out: for what was done.
        err: for what was not.

    Returns:
        Exit status: 0 MLflow has everything, 1 MLflow did not take everything.

    Raises:
        UserError: not a search, a search that is running, here or elsewhere, a store that cannot be used, or one that
            only the directory names and that credentials would be shown to.
    """
    read_journal(directory)  # refuses what is no search before a lock is made in it
    with only_one(directory):
        search = _load(directory, uri)
        root, ended = str(search.record.info.get("storage_root") or ""), _last_word(directory)[0] is not None
        ensure_here(directory, root, ended, lambda line: err.print(escape(line), soft_wrap=True))
        if search.foreign:
            err.print(escape(left_out(search.foreign, directory)), soft_wrap=True)
        store = MlflowStore(search.uri, search.experiment)
        try:
            refused = _deliver(search, store)
        except Exception as error:
            problem = as_user_error(search.uri, error)
            if not isinstance(problem, MlflowAway):
                raise problem from error
            done = _counted(store) or "nothing"
            err.print(escape(f"{problem}\n{done} delivered; run it again when MLflow is back"), soft_wrap=True)
            return 1
        if not refused:
            search.spool.unlink(missing_ok=True)
    done = _counted(store)
    said = f"{done} delivered" if done else "nothing to do"
    if refused:
        lines = "".join(f"\n  {one}" for one in refused)
        err.print(escape(f"{said}; MLflow at {shown(search.uri)} refuses the rest:{lines}"), soft_wrap=True)
        return 1
    out.print(escape(f"{said}; MLflow at {shown(search.uri)} has everything"), soft_wrap=True)
    return 0


@dataclass
class _Search:
    """What the run directory says."""

    record: SearchRecord
    uri: str
    experiment: str
    search_id: str
    name: str
    tags: dict[str, Any]
    params: dict[str, Any]
    dataset: Dataset | None
    spool: Path
    events: list[Event]  # spooled
    foreign: list[str]  # what the spool names that is no file of the directory
    final: str | None  # how the search ended; None: nobody said
    closed: bool  # whether it said so to the spool
    time_ms: int  # of the last thing that happened


def _load(directory: Path, uri: str | None) -> _Search:
    record, path = read_journal(directory), directory / SPOOL
    head, spooled = read_spool(path) if path.is_file() else ({}, [])
    events, foreign = only_own(spooled, directory)
    foreign += [str(link) for link, _ in results_of(directory) if link.exists() and not is_own(link, directory)]
    final, last = _last_word(directory)
    closed = next((event for event in reversed(events) if event["event"] == "close"), None)
    kept = head.get("dataset")
    return _Search(
        record=record,
        uri=_address(str(head.get("uri") or record.info.get("mlflow") or ""), uri),
        experiment=head.get("experiment") or record.name,
        search_id=str(head.get("search_id") or record.info.get("search_id") or record.directory),
        name=head.get("name") or directory.absolute().name,
        tags=head.get("tags") or {**describing_tags(record), **_tags(record)},
        params=head.get("params") or _params(directory),
        dataset=Dataset(**kept) if kept else _dataset(record),
        spool=path,
        events=events,
        foreign=foreign,
        final=closed["status"] if closed else final,
        closed=closed is not None,
        time_ms=int(closed["time"]) if closed else int(last * 1000),
    )


def _deliver(search: _Search, store: MlflowStore) -> list[str]:
    """Returns what the store refuses for good."""
    record, refused = search.record, list[str]()

    def carry_out(events: list[Event]) -> None:
        for group in grouped(events):
            try:
                apply(store, group)
            except Exception as error:
                store.forget()
                if not (is_local(error) or (is_permanent(error) and store.answers())):
                    raise
                refused.append(f"{describe(group[0])}: {one_line(error)}")

    known = {trial.id: trial.params for trial in record.trials}
    store.open(search.search_id, search.name, search.tags, search.params, search.dataset, known=known, running=False)
    final = search.final
    if final is None or not search.closed:
        # What MLflow was told at the end counts, where it was told.
        final = store.parent_status if store.parent_status != "RUNNING" else final or "KILLED"
    doubtful = {event.get("trial") for event in search.events}
    for trial in record.trials:
        status = "interrupted" if trial.status is Status.RUNNING else str(trial.status)
        epochs = {epoch.epoch for epoch in trial.epochs}
        if not store.holds(trial.id, status, epochs, len(trial.incidents), thorough=trial.id in doubtful):
            carry_out(history(trial, record.objectives))
    if final in ("FINISHED", "FAILED"):
        spooled = [event for event in search.events if event["event"] == "results"]
        if spooled or not store.has_results():
            carry_out([spooled[-1] if spooled else results(record, {})])
        carry_out(list(_lacking(record, search.events, store)))
    if store.any_running() or final != store.parent_status:
        store.wrote["ends"] += 1
        store.end_search(final, search.time_ms)
    return refused


def _lacking(record: SearchRecord, events: list[Event], store: MlflowStore) -> Iterator[Event]:
    """The files of the results that are not among the parent's artifacts, or are there with another size."""
    directory = Path(record.directory)
    wanted = list(results_of(directory))
    known = {path.absolute() for path, _ in wanted}
    spooled = [(Path(e["path"]), str(e["folder"])) for e in events if e["event"] == "artifact"]
    wanted += [(path, folder) for path, folder in spooled if path not in known]
    there: dict[str, dict[str, int]] = {}
    for path, folder in wanted:
        if not is_own(path, directory):
            continue
        if folder not in there:
            there[folder] = store.artifacts(folder)
        if there[folder].get(path.name) != path.stat().st_size:
            yield {"event": "artifact", "path": str(path), "folder": folder}


def _last_word(directory: Path) -> tuple[str | None, float]:
    """How the last session of a search ended, None if it says nothing, and when the last thing happened."""
    final, last = None, 0.0
    for line in (directory / "journal.jsonl").read_text(encoding="utf-8", errors="replace").split("\n"):
        with contextlib.suppress(json.JSONDecodeError):  # a torn last line
            event = json.loads(line)
            last = max(last, float(event.get("time", 0.0)))
            final = None if event.get("event") == "resumed" else _ENDS.get(event.get("event"), final)
    return final, last


def _address(before: str, asked: str | None) -> str:
    """Where to deliver: as asked, else where the search was tracked."""
    if asked or not before:
        return resolve_uri(asked or default_uri())
    if complete(before):
        return trusted(resolve_uri(before))
    # Passwords are never written down, so the address of the search is not complete.
    if shown(default_uri()) == before:
        return default_uri()
    raise UserError(
        f"the search was tracked at {before}; give the address with its password again: --mlflow URI, or "
        "MLFLOW_TRACKING_URI in the environment"
    )


def _tags(record: SearchRecord) -> dict[str, str]:
    with contextlib.suppress(KeyError):
        return tags(record)
    return {}


def _params(directory: Path) -> dict[str, Any]:
    from search.space import load_space

    with contextlib.suppress(UserError):
        return dict(load_space(directory / "space.yaml", {}).base)
    return {}


def _dataset(record: SearchRecord) -> Dataset | None:
    info = record.info
    if "data_digest" not in info:
        return None
    facts: dict[str, Any] = {"dataset": info.get("dataset"), "digest": info["data_digest"], "path": info.get("data")}
    counts: dict[str, Any] = {key: info[key] for key in ("splits", "classes", "task", "target") if key in info}
    return dataset_of({**facts, **counts, "bad_files": info.get("bad_files", ())})


def _counted(store: MlflowStore) -> str:
    """What was new to the store, in words; "" for nothing."""
    wrote = store.wrote
    parts = []
    if store.trials:
        parts.append(f"{_many(len(store.trials), 'run')}, {_many(wrote['epochs'], 'epoch')}")
    if wrote["results"]:
        parts.append("results")
    if wrote["artifacts"]:
        parts.append(_many(wrote["artifacts"], "file"))
    if wrote["lost"]:
        parts.append(f"{_many(wrote['lost'], 'lost run')} marked")
    if wrote["ends"] and not parts:
        parts.append("the end of the search")
    return ", ".join(parts)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
