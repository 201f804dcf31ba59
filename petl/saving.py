"""Adapter directories: what a trial trained, small, readable, and safe to load from a stranger.

| file | holds |
|---|---|
| `adapter_config.json` | peft's configuration for LoRA; `PETL_<METHOD>` and the dotted keys otherwise |
| `adapter_model.safetensors` | what was trained (and gathered), named `base_model.model.<path>`, and `head.*` |
| `petl_config.json` | backbone (name, revision, sizes, fingerprint), method, labels, metadata |
| `preprocessor_config.json` | the front end, in the format of transformers' feature extractors |
| `README.md` | model card |
| `vocab.json`, `tokenizer_config.json` | of transcripts only: the symbols, as tokenizers of transformers read them |

Nothing is unpickled: the files are JSON, safetensors and text, and every tensor is checked against the
configuration before it is used.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from petl.adapted import Adapted, attach
from petl.backbone import fingerprint, load_backbone, positions_mode
from petl.card import model_card
from petl.errors import UserError
from petl.frontend import AstFrontEnd, FrontEnd, WaveformFrontEnd
from petl.guarded import header, own_file, said_in_short
from petl.hub import EMBEDDED, EMBEDDED_DIR, read_config, read_json
from petl.model import AudioModel
from petl.peft_format import PREFIX, adapter_config
from petl.recorded import DTYPES, FRAMES_LIMIT, HOSTILE, SCHEMA, Recorded
from petl.shape import AST_TYPE, BackboneShape
from petl.state import checked_names, checked_state

TENSORS = "adapter_model.safetensors"


def save_adapter(
    directory: str | Path,
    classifier: AudioModel,
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
    that cannot be written, and a classifier that could not be loaded again.
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
) -> AudioModel:
    """Build the classifier of an adapter directory: backbone, method and head, in evaluation mode.

    `backbone` overrides where the backbone is looked for (a hub id, a directory, "embedded"). Raises
    `UserError` when a file is missing, damaged or does not fit the configuration, or when the backbone is not
    the one the adapter was trained on.
    """
    path = Path(directory)
    if not (path / "petl_config.json").is_file():
        raise UserError(f"{path} is not an adapter directory: it has no petl_config.json")
    with said_in_short():
        classifier = _load(path, backbone)
    return classifier.to(device).eval()


def _load(path: Path, asked: str | None) -> AudioModel:
    """Nothing is made before it is known that what is stored is of that size."""
    config = Recorded(read_json(own_file(path, "petl_config.json"), strict=True), path)
    front_end = _read_front_end(own_file(path, "preprocessor_config.json"))
    weights = _weights(path)
    name, revision = (config.backbone, config.revision) if asked is None else (asked, None)
    shape = BackboneShape.from_config(read_config(name, revision))
    config.check_sizes(shape, name)
    config.check_grid(front_end, shape)
    stored = header(weights, config.weight_limit(shape))
    config.check_size(shape, sum(math.prod(sizes) for sizes, _ in stored.values()))
    model = load_backbone(
        name, frames=front_end.backbone_frames, positions=config.positions, revision=revision, **config.strides
    )
    torch.nn.Module.to(model, config.dtype)
    config.check_fit(model, name)
    try:
        classifier = AudioModel(attach(model, config.method, seed=0), config.output, front_end, seed=0)
    except (*HOSTILE, RuntimeError, MemoryError) as error:
        raise UserError(f"{config.where}: what it describes cannot be built ({error})") from None
    shapes = {_file_name(name): tuple(t.shape) for name, t in classifier.stored().items()}
    checked_names({name: sizes for name, (sizes, _) in stored.items()}, shapes, str(weights))
    checked = checked_state(_read_tensors(weights), shapes, str(weights))
    classifier.load_adapter_state({name: checked[_file_name(name)] for name in classifier.stored()})
    return classifier


def _contents(
    classifier: AudioModel,
    card: Mapping[str, Any] | str | None,
    metadata: Mapping[str, Any] | None,
    name: str | None,
    revision: str | None,
) -> dict[str, bytes]:
    adapted: Adapted = classifier.adapted
    method = adapted.method
    shape = adapted.shape
    state = adapted.original_state()
    dtype = _dtype(classifier)
    _check_length(classifier.front_end, "the front end")
    grid = _grid(shape, state)
    name, revision = _origin(adapted.config, name, revision)
    tensors = {_file_name(k): v.detach().cpu().contiguous().clone() for k, v in classifier.stored().items()}
    recorded = {
        "schema": SCHEMA,
        "backbone": {
            "name": name,
            "revision": revision,
            "model_type": shape.family,
            "hidden_size": shape.hidden,
            "num_hidden_layers": shape.layers,
            **grid,
            "dtype": _name(dtype),
            "fingerprint": fingerprint(state, dtype),
        },
        "method": method.to_flat(),
        "output": classifier.output.to_json(),
        "labels": list(classifier.labels),
        "metadata": dict(metadata or {}),
    }
    peft = adapter_config(method, shape=shape, name=name, revision=revision)
    if not isinstance(card, str):
        trainable = sum(p.numel() for p in classifier.trainable().values())
        card = model_card(
            method,
            output=classifier.output,
            backbone=name,
            revision=revision,
            trainable=trainable,
            card=card,
            loading={"frames": classifier.front_end.backbone_frames, **grid},
            dtype=_name(dtype),
            plain_peft=peft["peft_type"] == "LORA",
        )
    return {
        **classifier.output.files(),
        "adapter_config.json": _json(peft),
        TENSORS: save(tensors, metadata={"format": "pt"}),
        "petl_config.json": _json(recorded),
        "preprocessor_config.json": _json(classifier.front_end.to_preprocessor()),
        "README.md": card.encode(),
    }


def _grid(shape: BackboneShape, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `load_backbone` needs to make an AST of the same patches again; other families have none of it."""
    if shape.family != AST_TYPE:
        return {}
    strides = {"frequency_stride": shape.frequency_stride, "time_stride": shape.time_stride}
    return {"positions": positions_mode(state), **strides}


def _dtype(classifier: AudioModel) -> torch.dtype:
    """The one number format of a classifier."""
    found = sorted({_name(p.dtype) for p in classifier.parameters()})
    if len(found) != 1 or found[0] not in DTYPES:
        raise UserError(
            f"the classifier's parameters are in {', '.join(found)}; only one number format, of {', '.join(DTYPES)}, "
            "can be saved, so cast all of it with .to(dtype) before"
        )
    return DTYPES[found[0]]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_length(front_end: FrontEnd, where: str) -> None:
    """Refuse inputs so long that they would fill the memory; where they follow the clips, the limit is only theirs."""
    if front_end.frames > FRAMES_LIMIT and not (isinstance(front_end, WaveformFrontEnd) and not front_end.fixed):
        longest = "max_length" if isinstance(front_end, AstFrontEnd) else "the longest input"
        raise UserError(f"{where}: {longest} {front_end.frames} is beyond {FRAMES_LIMIT} frames")


def _origin(config: Any, name: str | None, revision: str | None) -> tuple[str, str | None]:
    """Where the backbone can be found again: its name and, from the hub, the very commit."""
    loaded = str(config._name_or_path or "unknown")
    name = name or loaded
    if name != EMBEDDED and Path(name).expanduser().is_dir():
        name = str(Path(name).expanduser().resolve())
    commit = getattr(config, "_commit_hash", None) if name == loaded else None
    return (EMBEDDED if name == str(EMBEDDED_DIR) else name), revision or commit


def _read_front_end(path: Path) -> FrontEnd:
    try:
        front_end = FrontEnd.from_preprocessor(read_json(path, strict=True))
    except HOSTILE as error:
        raise UserError(f"{path}: {error}") from None
    _check_length(front_end, str(path))
    return front_end


def _weights(path: Path) -> Path:
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in path.glob(pattern))
    if pickles and not (path / TENSORS).exists():
        raise UserError(
            f"{path} has no {TENSORS}, but {', '.join(pickles[:3])}: pickled weights can run code and are not read. "
            "Ask who made it for safetensors"
        )
    return own_file(path, TENSORS)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
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
