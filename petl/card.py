"""The model card (`README.md`) of an adapter directory (torch-free)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from petl.config import MethodConfig
from petl.hub import EMBEDDED
from petl.outputs import Output

_LABELS_SHOWN = 200
# Kind of output -> what the task is called, and the hub's name of it where it has one.
_TASKS: dict[str, tuple[str, str | None]] = {
    "classes": ("audio classification", "audio-classification"),
    "tags": ("audio tagging", "audio-classification"),
    "slots": ("spoken intent classification", "audio-classification"),
    "tokens": ("speech recognition", "automatic-speech-recognition"),
    "speakers": ("speaker verification", None),
}
_MARKUP = re.compile(r"[\\`*\[\]<>|~$&@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.ASCII)


def model_card(
    method: MethodConfig,
    *,
    output: Output,
    backbone: str,
    revision: str | None,
    trainable: int,
    card: Mapping[str, Any] | None = None,
    loading: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    plain_peft: bool = False,
) -> str:
    """Write a model card in Markdown with the hub's YAML header.

    `card` may hold `title`, `task` and `data` (text), `description` (Markdown), `metrics` (a list of mappings with
    `name`, `value`, `split`, or a mapping of "split/name" to value), `intervals` (name of a test metric -> its 95 %
    bounds), `protocol` (how the data were split, a sentence), `reads_test` (whether epochs were chosen on test clips),
    `configuration` (dotted keys of the whole trial), `provenance` (mapping: data digest, seed, commit, versions, …)
    and `license`. What is absent is left out. `loading` are the arguments (besides name and revision) with which
    `load_backbone` gives the backbone that the adapter goes on, `dtype` its number format, `plain_peft` whether peft
    alone can load the adapter.
    """
    card = card or {}
    task = str(card.get("task") or _TASKS[output.kind][0])
    title = card.get("title", f"{method.method} adapter for {task}")
    parts = [_header(method, output, backbone, card), f"# {_text(title)}\n"]
    if card.get("description"):
        parts.append(f"{card['description']}\n")
    items = {
        "Backbone": _code(backbone) + (f" at revision {_code(revision)}" if revision else ""),
        "Method": _code(method.method),
        "Task": _text(task),
        "Trained parameters": f"{trainable:,}",
        **_labels(output),
        **{name: _text(card[key]) for name, key in (("Data", "data"), ("Protocol", "protocol")) if card.get(key)},
    }
    parts.append(_table("Item", "Value", items))
    parts += _results(card)
    configuration = card.get("configuration") or method.to_flat()
    parts.append(
        "## Configuration\n\n" + _table("Key", "Value", {_code(k): _code(v) for k, v in configuration.items()})
    )
    if card.get("provenance"):
        known = {_text(k): _text(v) for k, v in card["provenance"].items()}
        parts.append("## Provenance\n\n" + _table("Item", "Value", known))
    parts.append(_usage(output, backbone, {"revision": revision, **(loading or {})}, dtype, plain_peft))
    return "\n".join(parts)


def _header(method: MethodConfig, output: Output, backbone: str, card: Mapping[str, Any]) -> str:
    name, pipeline = _TASKS[output.kind]
    header: dict[str, Any] = {
        "library_name": "peft",
        "tags": [pipeline or name.replace(" ", "-"), "petl-search", *method.methods],
    }
    if pipeline is not None:
        header["pipeline_tag"] = pipeline
    # The hub knows its own repositories only; a directory of this machine would be a broken link.
    if backbone != EMBEDDED and not Path(backbone).is_absolute():
        header["base_model"] = backbone
    if card.get("license"):
        header["license"] = card["license"]
    return "---\n" + yaml.safe_dump(header, sort_keys=True, allow_unicode=True) + "---\n"


def _labels(output: Output) -> dict[str, str]:
    """What the adapter answers with; symbols of a transcript are in files of their own, speakers no answers."""
    if output.sequence:
        return {"Symbols": f"{len(output.labels)}, listed in `vocab.json`"}
    if output.embeds:
        return {"Answers with": f"a vector for each voice, learned from {len(output.labels)} speakers"}
    shown = ", ".join(_text(label) for label in output.labels[:_LABELS_SHOWN])
    more = len(output.labels) - _LABELS_SHOWN
    rest = f" and {more} more, listed in `petl_config.json`" if more > 0 else ""
    name = "Labels" if output.kind == "classes" else output.noun.capitalize()
    return {name: f"{len(output.labels)}: {shown}{rest}"}


def _results(card: Mapping[str, Any]) -> list[str]:
    metrics = _metrics(card.get("metrics") or [])
    if not metrics:
        return []
    bounds = card.get("intervals") or {}
    intervals = {m["name"]: bounds[m["name"]] for m in metrics if m["split"] == "test" and m["name"] in bounds}
    lines = ["## Results\n", "| Metric | Split | Value |", "|---|---|---|"]
    if intervals:
        lines[1:] = ["| Metric | Split | Value | 95 % bootstrap |", "|---|---|---|---|"]
    for m in metrics:
        cells = [_text(m["name"]), _text(m["split"]), _number(m["value"])]
        if intervals:
            ends = intervals.get(m["name"]) if m["split"] == "test" else None
            cells.append(f"{_number(ends[0])} to {_number(ends[1])}" if ends else "")
        lines.append(f"| {' | '.join(cells)} |")
    if card.get("reads_test"):
        lines += [
            "",
            "As in the published protocol, epochs were chosen on clips that the test counts, too: these values are "
            "better than what is to be expected on new recordings.",
        ]
    return ["\n".join(lines) + "\n"]


def _usage(output: Output, backbone: str, loading: Mapping[str, Any], dtype: str, plain_peft: bool) -> str:
    lines = [
        "## Use\n",
        "```python",
        "import petl",
        "",
        'model = petl.load_adapter("path/to/this/directory")',
        *(
            ['one, other = model.predict_many(["one.wav", "other.wav"])', "print(model.output.similarity(one, other))"]
            if output.embeds
            else ['print(model.predict("clip.wav").shown)']
        ),
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
        pairs = [(str(key).partition("/") if "/" in str(key) else ("", "", str(key)), v) for key, v in metrics.items()]
        return [{"name": name, "split": split or "–", "value": value} for (split, _, name), value in pairs]
    return [{"name": m["name"], "split": m.get("split", "–"), "value": m["value"]} for m in metrics]


def _table(left: str, right: str, rows: Mapping[str, str]) -> str:
    """Of cells that are Markdown already."""
    body = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"| {left} | {right} |\n|---|---|\n{body}\n"


def _text(value: Any) -> str:
    """A stranger's text as Markdown that shows just that text: no emphasis, links, HTML, formulas or mentions."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", _line(value))


def _code(value: Any) -> str:
    """A stranger's text as a code span in a table, whatever backticks it has itself."""
    if "\\|" in str(value):
        return _text(value)  # tables would take the backslash for that of the bar
    text = _line(value).replace("|", "\\|") or " "
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"{fence}{text}{fence}"


def _line(value: Any) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _text(value)
