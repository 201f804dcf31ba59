"""Whether the search of a run directory is driven on another machine (torch-free)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shlex import quote

from petl.errors import UserError


def ensure_here(directory: Path, root: str, ended: bool, notify: Callable[[str], None]) -> None:
    """Refuse a run directory whose search is driven elsewhere, or was since: its trials would be ended, or called lost.

    Args:
        directory: holds the journal.
        root: where the search keeps its copy on shared storage; "" without one, then the directory is all there is.
        ended: whether the directory's journal says that the driver ended in order.
        notify: is told why this takes a while.

    Raises:
        UserError: it is, or nobody can tell, since the storage does not answer or is not there.
    """
    if not root:
        return
    from search.mirror_fetch import ensure_free
    from search.mirror_state import ahead, mirrored_journal, read_state
    from trainables.storage import Storage, StorageError

    try:
        ensure_free(root, notify=notify)
        storage = Storage(root, patience=20.0, full_patience=0.0)
        state = read_state(storage)
        behind = state is not None and ahead(directory, mirrored_journal(storage, state.sessions)) < 0
    except (UserError, StorageError) as error:
        raise UserError(f"{directory} is not delivered: {error}") from None
    if state is None and not ended:
        raise UserError(
            f"{directory} is not delivered: the search may be driven on another machine, and nothing of it is found at "
            f"{storage.root}. Mount the storage here, or sync where it can be reached"
        )
    if behind:
        raise UserError(
            f"{directory} is not delivered: the search was continued elsewhere, and {storage.root} knows more of it. "
            f"Sync where it was continued, or bring it here: --resume {quote(storage.root)}"
        )
