"""The model card (`README.md`) of an adapter directory (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from petl.config import MethodConfig
from petl.hub import EMBEDDED


def model_card(
    method: MethodConfig,
    *,
    labels: Sequence[str],
    backbone: str,
    revision: str | None,
    trainable: int,
    card: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    plain_peft: bool = False,
) -> str:
    """Write a model card in Markdown with the hub's YAML header.

    `card` may hold `title`, `task` and `description` (text), `metrics` (a list of mappings with `name`,
    `value`, `split`, or a mapping of "split/name" to value), `configuration` (dotted keys of the whole
    trial), `provenance` (mapping: data digest, seed, commit, versions, …) and `license`. What is absent is
    left out. `loading` are the arguments (besides name and revision) with which `load_backbone` gives the backbone
    that the adapter goes on, `dtype` its number format, `plain_peft` whether peft alone can load the adapter.
    """
    card = card or {}
    metrics = _metrics(card.get("metrics") or [])
    task = card.get("task", "audio classification")
    title = card.get("title", f"{method.method} adapter for {task}")
    parts = [_header(method, backbone, card), f"# {title}\n"]
    if card.get("description"):
        parts.append(f"{card['description']}\n")
    parts.append(
        _table(
            "Item",
            "Value",
            {
                "Backbone": f"`{backbone}`" + (f" at revision `{revision}`" if revision else ""),
                "Method": f"`{method.method}`",
                "Task": task,
                "Trained parameters": f"{trainable:,}",
                "Labels": f"{len(labels)}: " + ", ".join(_cell(label) for label in labels),
            },
        )
    )
    if metrics:
        rows = [f"| {m['name']} | {m['split']} | {_number(m['value'])} |" for m in metrics]
        parts.append("## Results\n\n| Metric | Split | Value |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    configuration = card.get("configuration") or method.to_flat()
    parts.append(
        "## Configuration\n\n" + _table("Key", "Value", {f"`{k}`": f"`{v}`" for k, v in configuration.items()})
    )
    if card.get("provenance"):
        parts.append("## Provenance\n\n" + _table("Item", "Value", card["provenance"]))
    parts.append(_usage(backbone, {"revision": revision, **(loading or {})}, dtype, plain_peft))
    return "\n".join(parts)


def _header(method: MethodConfig, backbone: str, card: Mapping[str, Any]) -> str:
    header: dict[str, Any] = {
        "library_name": "peft",
        "pipeline_tag": "audio-classification",
        "tags": ["audio-classification", "petl-search", *method.methods],
    }
    # The hub knows its own repositories only; a directory of this machine would be a broken link.
    if backbone != EMBEDDED and not Path(backbone).is_absolute():
        header["base_model"] = backbone
    if card.get("license"):
        header["license"] = card["license"]
    return "---\n" + yaml.safe_dump(header, sort_keys=True, allow_unicode=True) + "---\n"


def _usage(backbone: str, loading: Mapping[str, Any], dtype: str, plain_peft: bool) -> str:
    lines = [
        "## Use\n",
        "```python",
        "import petl",
        "",
        'model = petl.load_adapter("path/to/this/directory")',
        'print(model.predict("clip.wav").label)',
        "```",
        "",
    ]
    if plain_peft:
        given = [f"    {key}={value!r}," for key, value in loading.items() if value is not None]
        other = dtype != "float32"
        keep = ", autocast_adapter_dtype=False" if other else ""
        lines += [
            "The low-rank update and the LayerNorms also load with plain peft (the head is `head.*` in",
            "`adapter_model.safetensors`; input length and scaling are in `preprocessor_config.json`):",
            "",
            "```python",
            *(["import torch"] if other else []),
            "from peft import PeftModel",
            "",
            "backbone = petl.load_backbone(",
            f"    {backbone!r},",
            *given,
            f").to(torch.{dtype})" if other else ")",
            f'adapted = PeftModel.from_pretrained(backbone, "path/to/this/directory"{keep})',
            "```",
            "",
        ]
    return "\n".join(lines)


def _metrics(metrics: Any) -> list[dict[str, Any]]:
    if isinstance(metrics, Mapping):
        pairs = [(str(key).rpartition("/"), value) for key, value in metrics.items()]
        return [{"name": name, "split": split or "–", "value": value} for (split, _, name), value in pairs]
    return [{"name": m["name"], "split": m.get("split", "–"), "value": m["value"]} for m in metrics]


def _table(left: str, right: str, rows: Mapping[str, Any]) -> str:
    body = "\n".join(f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items())
    return f"| {left} | {right} |\n|---|---|\n{body}\n"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
