from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from petl.errors import UserError
from search.journal import Journal, read_journal
from search.places import as_before, asked, only_one, place, storage_root
from search.records import Objective, SearchRecord
from search.request import Request
from search.space import dump, load_space
from trainables.storage import Storage

ROOT = Path(__file__).parents[2]


def _begun(directory: Path, **info: object) -> SearchRecord:
    """A run directory as a search leaves it that was killed."""
    directory.mkdir(parents=True)
    shutil.copy(ROOT / "spaces" / "moa.yaml", directory / "space.yaml")
    facts = {"search_id": "abc", "storage_root": "", **asked(Request()), **info}
    Journal.create(directory, SearchRecord("moa", str(directory), [Objective("val/accuracy", "max")], facts)).close()
    return read_journal(directory)


def test_a_directory_of_a_search_that_said_nothing_is_as_good_as_empty(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (".lock", "space.yaml"):
        (out / name).touch()
    request = Request(space=ROOT / "spaces" / "moa.yaml", output=out)
    assert place(request).directory == out
    (out / "journal.jsonl").write_text('{"event": "sea')
    assert place(request).directory == out
    (out / "journal.jsonl").write_text('{"event": "search"}\n')
    with pytest.raises(UserError, match=f"continue it with --resume {out}"):
        place(request)


@pytest.mark.parametrize("resume", ["nowhere", "empty"])
def test_what_cannot_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    said = {"nowhere": "there is no such directory", "empty": "not the directory of a search"}[resume]
    with pytest.raises(UserError, match=said):
        place(Request(resume=resume))


def test_a_resumed_search_may_find_its_recordings_in_another_place_and_wait_for_longer(tmp_path: Path) -> None:
    space = load_space(ROOT / "spaces" / "moa.yaml", {"dataset": "folder", "data": str(tmp_path / "here")})
    (tmp_path / "space.yaml").write_text(dump(space))
    free = {"data": str(tmp_path / "there"), "train.deadline": 900.0}
    found = place(Request(resume=str(tmp_path), overrides=free)).space
    assert {key: found.base[key] for key in free} == free
    with pytest.raises(UserError, match=r"other values for data\.val_fraction: .*--data"):
        place(Request(resume=str(tmp_path), overrides={**free, "data.val_fraction": 0.3}))


def test_a_search_that_runs_cannot_be_resumed(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(UserError, match="is being searched by another process"), only_one(tmp_path):
        pass
    with only_one(tmp_path):
        pass


def test_a_resumed_search_leaves_its_cluster_unless_told_otherwise(tmp_path: Path) -> None:
    on_cluster = Request(address="auto", gpus_per_worker=1.0, concurrent=8)
    earlier = _begun(tmp_path / "out", **asked(on_cluster))
    here = as_before(Request(resume="out"), earlier)
    assert (here.address, here.gpus_per_worker, here.concurrent) == (None, None, None), "another machine, other sizes"
    there = as_before(Request(resume="out", address="10.0.0.1:6379", concurrent=2), earlier)
    assert (there.address, there.gpus_per_worker, there.concurrent) == ("10.0.0.1:6379", 1.0, 2)


def test_a_search_begun_on_one_machine_can_go_on_on_shared_storage(tmp_path: Path) -> None:
    out = tmp_path / "out"
    earlier = _begun(out)
    kept = out / "checkpoints" / "t0001" / "last-000003-0123456789abcdef.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"weights")
    said: list[str] = []
    request = Request(resume=str(out), storage=str(tmp_path / "shared"))
    root = storage_root(request, place(request), earlier, said.append)
    assert root == str(tmp_path / "shared" / "out")
    assert Storage(root).read(f"checkpoints/t0001/{kept.name}") == b"weights"
    assert said == [f"copying 1 checkpoints to {root}"]

    Journal.reopen(out, {"storage_root": root}).close()
    again = read_journal(out)
    plain = Request(resume=str(out))
    assert storage_root(plain, place(plain), again, said.append) == root, "and stays there"
    elsewhere = Request(resume=str(out), storage=str(tmp_path / "other"))
    with pytest.raises(UserError, match="it goes on there"):
        storage_root(elsewhere, place(elsewhere), again, said.append)
    assert len(said) == 1


def test_without_storage_there_is_no_root(tmp_path: Path) -> None:
    request = Request(space=ROOT / "spaces" / "moa.yaml", output=tmp_path / "out")
    assert storage_root(request, place(request), None, print) == ""
