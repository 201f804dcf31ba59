"""Adapter directories: what a trial trained, small, readable, and safe to load from a stranger.

| file | holds |
|---|---|
| `adapter_config.json` | peft's configuration for LoRA; `PETL_<METHOD>` and the dotted keys otherwise |
| `adapter_model.safetensors` | trained tensors only, named `base_model.model.<path>`, and `head.*` |
| `petl_config.json` | backbone (name, revision, sizes, fingerprint), method, labels, metadata |
| `preprocessor_config.json` | the front end, as `ASTFeatureExtractor.from_pretrained` reads it |
| `README.md` | model card |

Nothing is unpickled: the files are JSON, safetensors and text, and every tensor is checked against the
configuration before it is used.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from petl.adapted import Adapted, attach
from petl.backbone import fingerprint, load_backbone, positions_mode
from petl.card import model_card
from petl.config import MethodConfig
from petl.counts import BackboneShape, trainable_parameters
from petl.errors import ConfigError, UserError
from petl.frontend import FrontEnd
from petl.hub import EMBEDDED, EMBEDDED_DIR, read_json
from petl.model import AudioClassifier
from petl.peft_format import PREFIX, adapter_config
from petl.state import checked_state

SCHEMA = "petl.adapter/1"
TENSORS = "adapter_model.safetensors"
_WEIGHT_LIMIT = 4 * 2**30  # bytes; an adapter is megabytes
_FRAMES_LIMIT = 2**16  # eleven minutes


def save_adapter(
    directory: str | Path,
    classifier: AudioClassifier,
    *,
    card: Mapping[str, Any] | str | None = None,
    metadata: Mapping[str, Any] | None = None,
    backbone: str | None = None,
    revision: str | None = None,
) -> Path:
    """Write an adapter directory in one step (a half-written one is never seen) and return its path.

    `card` is the model card: ready text, or a mapping (see `petl.card.model_card`). `metadata` is any JSON
    kept in `petl_config.json`. `backbone` and `revision` default to where the backbone was loaded from. An
    adapter directory that stands there already is replaced; anything else there is an error, as is a place
    that cannot be written.
    """
    target = Path(directory)
    if (
        target.exists()
        and not (target / "petl_config.json").is_file()
        and (not target.is_dir() or any(target.iterdir()))
    ):
        raise UserError(f"{target} exists and is not an adapter directory; it is left alone, give another place")
    files = _contents(classifier, card, metadata, backbone, revision)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            for name, content in files.items():
                (fresh / name).write_bytes(content)
            fresh.chmod(0o755)
            _replace(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise UserError(f"the adapter cannot be written to {target}: {error.strerror or error}") from None
    return target


def load_adapter(
    directory: str | Path, *, backbone: str | None = None, device: str | torch.device = "cpu"
) -> AudioClassifier:
    """Build the classifier of an adapter directory: backbone, method and head, in evaluation mode.

    `backbone` overrides where the backbone is looked for (a hub id, a directory, "embedded"). Raises
    `UserError` when a file is missing, damaged or does not fit the configuration, or when the backbone is not
    the one the adapter was trained on.
    """
    path = Path(directory)
    if not (path / "petl_config.json").is_file():
        raise UserError(f"{path} is not an adapter directory: it has no petl_config.json")
    config = _Recorded(read_json(path / "petl_config.json"), path)
    front_end = FrontEnd.from_preprocessor(read_json(path / "preprocessor_config.json"))
    if front_end.frames > _FRAMES_LIMIT:
        raise UserError(f"{path / 'preprocessor_config.json'}: max_length {front_end.frames} is beyond {_FRAMES_LIMIT}")
    state = _read_tensors(path / TENSORS)
    model = load_backbone(
        backbone or config.backbone,
        frames=front_end.frames,
        positions=config.positions,  # type: ignore[arg-type]
        revision=config.revision if backbone is None else None,
    )
    config.check_fit(model, backbone or config.backbone)
    config.check_size(model, sum(tensor.numel() for tensor in state.values()))
    classifier = AudioClassifier(attach(model, config.method, seed=0), config.labels, front_end, seed=0)
    shapes = {_file_name(name): tuple(p.shape) for name, p in classifier.trainable().items()}
    checked = checked_state(state, shapes, str(path / TENSORS))
    classifier.load_adapter_state({name: checked[_file_name(name)] for name in classifier.trainable()})
    return classifier.to(device).eval()


def _contents(
    classifier: AudioClassifier,
    card: Mapping[str, Any] | str | None,
    metadata: Mapping[str, Any] | None,
    name: str | None,
    revision: str | None,
) -> dict[str, bytes]:
    adapted: Adapted = classifier.adapted
    method = adapted.method
    sizes = adapted.config
    state = adapted.original_state()
    name, revision = _origin(sizes, name, revision)
    tensors = {_file_name(k): v.detach().cpu().contiguous().clone() for k, v in classifier.trainable().items()}
    recorded = {
        "schema": SCHEMA,
        "backbone": {
            "name": name,
            "revision": revision,
            "model_type": sizes.model_type,
            "hidden_size": sizes.hidden_size,
            "num_hidden_layers": sizes.num_hidden_layers,
            "positions": positions_mode(state),
            "fingerprint": fingerprint(state),
        },
        "method": method.to_flat(),
        "labels": list(classifier.labels),
        "metadata": dict(metadata or {}),
    }
    peft = adapter_config(
        method,
        model_type=sizes.model_type,
        hidden=sizes.hidden_size,
        layers=sizes.num_hidden_layers,
        name=name,
        revision=revision,
    )
    if not isinstance(card, str):
        trainable = sum(p.numel() for p in classifier.trainable().values())
        card = model_card(
            method, labels=classifier.labels, backbone=name, revision=revision, trainable=trainable, card=card
        )
    return {
        "adapter_config.json": _json(peft),
        TENSORS: save(tensors, metadata={"format": "pt"}),
        "petl_config.json": _json(recorded),
        "preprocessor_config.json": _json(classifier.front_end.to_preprocessor()),
        "README.md": card.encode(),
    }


def _origin(config: Any, name: str | None, revision: str | None) -> tuple[str, str | None]:
    """Where the backbone can be found again: its name and, from the hub, the very commit."""
    loaded = str(config._name_or_path or "unknown")
    name = name or loaded
    if name != EMBEDDED and Path(name).expanduser().is_dir():
        name = str(Path(name).expanduser().resolve())
    commit = getattr(config, "_commit_hash", None) if name == loaded else None
    return (EMBEDDED if name == str(EMBEDDED_DIR) else name), revision or commit


class _Recorded:
    """The checked contents of `petl_config.json`."""

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        self.where = path / "petl_config.json"
        if values.get("schema") != SCHEMA:
            raise UserError(
                f"{self.where}: schema is {values.get('schema')!r}, this version reads '{SCHEMA}'; "
                "a newer petl-search may have written it"
            )
        backbone, method, labels = values.get("backbone"), values.get("method"), values.get("labels")
        if not isinstance(backbone, dict) or not isinstance(backbone.get("name"), str):
            raise UserError(f"{self.where}: 'backbone' must be an object with a name")
        if not isinstance(method, dict):
            raise UserError(f"{self.where}: 'method' must be an object of dotted keys")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise UserError(f"{self.where}: 'labels' must be a list of names")
        try:
            self.method = MethodConfig.from_flat(method)
        except ConfigError as error:
            raise UserError(f"{self.where}: {error}") from None
        self.sizes = backbone
        self.labels: list[str] = labels
        self.backbone: str = backbone["name"]
        self.revision: str | None = str(backbone["revision"]) if backbone.get("revision") else None
        self.positions: str = backbone.get("positions", "interpolate")
        if self.positions not in ("interpolate", "zero"):
            raise UserError(f"{self.where}: positions is {self.positions!r}; allowed: 'interpolate', 'zero'")

    def check_fit(self, model: torch.nn.Module, name: str) -> None:
        """Refuse a backbone of other sizes or other weights than the one the adapter was trained on."""
        sizes: Any = model.config
        for key in ("model_type", "hidden_size", "num_hidden_layers"):
            wanted, found = self.sizes.get(key), getattr(sizes, key)
            if wanted != found:
                raise UserError(
                    f"backbone '{name}' has {key} {found}, but the adapter was trained on '{self.backbone}' "
                    f"with {wanted}; pass the backbone it was trained on"
                )
        if self.sizes.get("fingerprint") != fingerprint(model.state_dict()):
            raise UserError(
                f"backbone '{name}' has the right sizes but other weights than '{self.backbone}', which the "
                "adapter was trained on; pass the backbone (and revision) it was trained on"
            )

    def check_size(self, model: torch.nn.Module, stored: int) -> None:
        """Refuse a configuration of far more numbers than are stored, before making room for them."""
        shape = BackboneShape.from_config(model.config.to_dict())  # type: ignore[operator,union-attr]
        needed = trainable_parameters(self.method, shape, len(self.labels))
        if needed > 2 * stored + 2**20:
            raise UserError(f"{self.where} describes {needed:,} trained numbers, but {stored:,} are stored")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.stat().st_size > _WEIGHT_LIMIT:
            raise UserError(f"{path}: larger than {_WEIGHT_LIMIT >> 30} GB, which no adapter is")
        return load(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a complete safetensors file ({str(error)[:200]})") from None


def _file_name(name: str) -> str:
    return name if name.startswith("head.") else PREFIX + name


def _json(values: Any) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _replace(fresh: Path, target: Path) -> None:
    """Put `fresh` in the place of `target`; a directory that stands there is moved aside first."""
    if not target.exists():
        fresh.replace(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    target.replace(aside / "old")
    try:
        fresh.replace(target)
    except OSError:
        (aside / "old").replace(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
