"""What `petl_config.json` of an adapter says, checked: whoever wrote it, nothing in it can do harm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from petl.backbone import fingerprint
from petl.config import MethodConfig
from petl.counts import backbone_parameters, trainable_parameters
from petl.errors import ConfigError, UserError
from petl.frontend import FrontEnd
from petl.outputs import from_json
from petl.positions import Positions
from petl.shape import AST_TYPE, BackboneShape

SCHEMA = "petl.adapter/1"
HOSTILE = (ValueError, TypeError, KeyError, ArithmeticError, RecursionError)
"""What values that no adapter was ever saved with may raise, wherever they are first used."""
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ("float32", "float64", "bfloat16", "float16")}
_WEIGHT_LIMIT = 4 * 2**30  # bytes besides the weights of the backbone itself; an adapter is megabytes
FRAMES_LIMIT = 2**16  # eleven minutes
_PATCH_LIMIT = 2**17  # of a spectrogram as long as that, in steps of 10


class Recorded:
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
        except (ConfigError, *HOSTILE) as error:
            raise UserError(f"{self.where}: {error}") from None
        self.sizes = backbone
        described = values.get("output")  # adapters from before there were other outputs have none
        if described is not None and not isinstance(described, dict):
            raise UserError(f"{self.where}: 'output' must be an object")
        try:
            "".join(labels).encode()  # half a surrogate pair could be shown nowhere
            self.output = from_json(labels, described)
            self.output.check()
        except (UserError, *HOSTILE) as error:
            raise UserError(f"{self.where}: {error}") from None
        self.backbone: str = backbone["name"]
        self.revision: str | None = str(backbone["revision"]) if backbone.get("revision") else None
        positions = backbone.get("positions", "interpolate")
        if positions not in ("interpolate", "zero"):
            raise UserError(f"{self.where}: positions is {positions!r}; allowed: 'interpolate', 'zero'")
        self.positions: Positions = positions
        dtype = backbone.get("dtype", "float32")  # nothing else could be loaded before it was recorded
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise UserError(f"{self.where}: dtype is {dtype!r}; allowed: {', '.join(map(repr, DTYPES))}")
        self.dtype = DTYPES[dtype]
        self.strides: dict[str, int] = {}
        for key in ("frequency_stride", "time_stride"):
            value = backbone.get(key)
            if value is None:
                continue  # written before patches could be moved, or for a backbone without
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= FRAMES_LIMIT:
                raise UserError(f"{self.where}: {key} is {value!r}; a whole number from 1 to {FRAMES_LIMIT} is needed")
            self.strides[key] = value

    def check_grid(self, front_end: FrontEnd, backbone: BackboneShape) -> None:
        """Refuse strides so small that the patches would fill the memory."""
        if backbone.family != AST_TYPE:
            return
        strides = {"frequency_stride": backbone.frequency_stride, "time_stride": backbone.time_stride, **self.strides}
        if math.prod(strides.values()) * _PATCH_LIMIT < front_end.frames * front_end.width:
            raise UserError(f"{self.where}: strides {strides} cut the input into more than {_PATCH_LIMIT} patches")

    def check_sizes(self, shape: BackboneShape, name: str) -> None:
        """Refuse a backbone of other sizes than the one the adapter was trained on."""
        sizes = {"model_type": shape.family, "hidden_size": shape.hidden, "num_hidden_layers": shape.layers}
        for key, found in sizes.items():
            wanted = self.sizes.get(key)
            if wanted != found:
                raise UserError(
                    f"backbone '{name}' has {key} {found}, but the adapter was trained on '{self.backbone}' "
                    f"with {wanted}; pass the backbone it was trained on"
                )

    def check_fit(self, model: torch.nn.Module, name: str) -> None:
        """Refuse a backbone of other weights than the one the adapter was trained on."""
        if self.sizes.get("fingerprint") != fingerprint(model.state_dict(), self.dtype):
            raise UserError(
                f"backbone '{name}' has the right sizes but other weights than '{self.backbone}', which the "
                "adapter was trained on; pass the backbone (and revision) it was trained on"
            )

    def check_size(self, shape: BackboneShape, stored: int) -> None:
        """Refuse a configuration of far more numbers than are stored, before making room for them."""
        try:
            needed = trainable_parameters(self.method, shape, self.output)
        except HOSTILE as error:
            raise UserError(f"{self.where}: 'method' cannot be built ({error})") from None
        if needed > 2 * stored + 2**20:
            raise UserError(f"{self.where} describes {needed:,} trained numbers, but {stored:,} are stored")

    def weight_limit(self, shape: BackboneShape) -> int:
        """Bytes that the tensors may take: fine-tuned backbones are as large as the backbone (in float64, twice)."""
        own = 8 * backbone_parameters(shape) if self.method.trains_backbone else 0
        return _WEIGHT_LIMIT + own
