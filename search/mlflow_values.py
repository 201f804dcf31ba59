"""Values as MLflow takes them: keys, texts and numbers within its limits (torch-free).

`mlflow` is imported on first use only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_MAX_PARAM, _MAX_TAG, _MAX_KEY, _MAX_DIGEST = 6000, 8000, 250, 36


@dataclass(frozen=True)
class Dataset:
    """The data set as an MLflow input. `profile` holds counts (clips, classes, seconds, per split ...)."""

    name: str
    digest: str
    source: str  # a path or an address
    source_type: str = "local"
    schema: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)


def key(name: str) -> str:
    """`name` without the signs that MLflow refuses."""
    return re.sub(r"[^\w\-. /:]", "_", str(name)).strip("/")[:_MAX_KEY]


def as_params(values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow keeps them."""
    return {key(k): _text(v, _MAX_PARAM) for k, v in values.items()}


def as_tags(values: Mapping[str, Any]) -> dict[str, str]:
    """Tags as MLflow keeps them, without those that say nothing."""
    return {key(k): _text(v, _MAX_TAG) for k, v in values.items() if v is not None}


def metric(name: str, value: Any, time_ms: int, step: int) -> Any:
    """An MLflow metric, None when the value is no number."""
    from mlflow.entities import Metric

    try:
        return Metric(key(name), float(value), int(time_ms), int(step))
    except (TypeError, ValueError):
        return None


def same(a: float | None, b: Any) -> bool:
    """Whether two values of a metric are one; MLflow gives infinities back as the largest numbers."""
    if a is None:
        return False
    try:
        b = min(max(float(b), -1.7976931348623157e308), 1.7976931348623157e308)
    except (TypeError, ValueError):
        return True  # no number: nothing to write
    return a == b or (a != a and b != b)


def dataset_input(data: Dataset) -> Any:
    """The data set as an input of a run."""
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag

    source = json.dumps({"uri": data.source} if data.source_type == "local" else {"url": data.source})
    entity = Entity(
        name=data.name,
        digest=data.digest[:_MAX_DIGEST],
        source_type=data.source_type,
        source=source,
        schema=json.dumps(dict(data.schema), default=str) if data.schema else None,
        profile=json.dumps(dict(data.profile), default=str) if data.profile else None,
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", "search")])


def _text(value: Any, limit: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"
