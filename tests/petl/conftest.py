"""Which of the small models every test run covers."""

from __future__ import annotations

import pytest

from tests.petl.models import TinyModel

EVERY_TIME = ("ast", "wav2vec2")
"""One spectrogram and one waveform model. The others run with the slow tests, which takes minutes."""


@pytest.hookimpl(tryfirst=True)  # before -m takes its choice
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        values = callspec.params.values() if callspec is not None else ()
        if any(isinstance(value, TinyModel) and value.name not in EVERY_TIME for value in values):
            item.add_marker(pytest.mark.slow)
