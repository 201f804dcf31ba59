"""What a method must know of a backbone family: where its sub-layers are, and what its sizes mean (torch-free).

Paths are those of the transformers model that `load_backbone` gives: counted from the backbone for `layers`,
`final_norm` and the front end, and from a transformer layer for blocks, norms and projections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from petl.errors import UserError
from petl.shape import BackboneShape, Conv


class UnknownBackbone(UserError):
    """The model is of a family that has no table of sites, or lacks one of its modules."""


@dataclass(frozen=True)
class Block:
    """A sub-layer a method can run beside, before or after.

    `entry` is the module that takes its input, `exit` the one that gives its output; most models have one module
    that does both. `norm` is the LayerNorm that belongs to it: in front of it in a pre-norm layer, behind the
    residual sum in a post-norm one.
    """

    entry: str
    exit: str
    norm: str


@dataclass(frozen=True)
class Family:
    """One backbone family; a new one is one new module of this package and one line in its table.

    `model_type` is transformers' name, `model` the class that loads it. `layers` is the path of the list of
    transformer layers, `blocks` their two sub-layers ("attention", "ffn"), `projections` the six linear maps
    ("q", "k", "v", "o", "fc1", "fc2"). `final_norm` is the LayerNorm behind the last layer of a pre-norm model (the
    layers of a post-norm one end in their own). `special` counts the tokens in front of patches or frames.
    `layout` says how the tokens lie: patches of a spectrogram (frequency-major), or frames in time.
    `watched` is the module whose input tells the layout of a forward pass. `convs` are the convolutional layers
    of the front end that a feature adapter can go into. `fixed` names parameters that no method trains.
    `position_convs` is the list of convolutions that add positions where there are several in a row,
    `position_norm` the BatchNorm in front of them that some checkpoints have.
    `attention` says how attention is computed: through transformers' attention interface, or in a way of its own
    that needs a wrapper of the same name in `petl.attention`. `extractor` is transformers' class that makes the
    model's inputs; a preprocessor_config.json that names none is read as one of its. `extras` may name the "module"
    that `model` is imported from where that is not transformers itself.
    """

    model_type: str
    model: str
    layers: str
    final_norm: str
    blocks: Mapping[str, Block]
    projections: Mapping[str, str]
    layout: Literal["grid", "frames"]
    watched: str
    shape: Callable[[Mapping[str, Any]], BackboneShape]
    parameters: Callable[[BackboneShape, int | None], int]
    special: int = 0
    convs: str | tuple[str, ...] = ()
    feature_encoder: str | None = None
    masks: bool = False
    fixed: tuple[str, ...] = ()
    attention: Literal["interface", "wavlm"] = "interface"
    norms: bool = False  # whether the published recipes train LayerNorms beside the methods on this family
    extractor: str = "Wav2Vec2FeatureExtractor"
    position_convs: str | None = None
    position_norm: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.model_type

    def layer(self, index: int) -> str:
        """Dotted path of a whole transformer layer."""
        return f"{self.layers}.{index}"

    def block(self, index: int, site: str) -> Block:
        """Full paths of block "attention" or "ffn" of layer `index`."""
        block = self.blocks[site]
        prefix = self.layer(index)
        return Block(f"{prefix}.{block.entry}", f"{prefix}.{block.exit}", f"{prefix}.{block.norm}")

    def projection(self, index: int, target: str) -> str:
        """Dotted path of projection "q", "k", "v", "o", "fc1" or "fc2" of layer `index`."""
        return f"{self.layer(index)}.{self.projections[target]}"

    def last_norm(self, shape: BackboneShape) -> str:
        """Dotted path of the LayerNorm that the output of the last layer passes."""
        return self.final_norm if shape.pre_norm else self.block(shape.layers - 1, "ffn").norm


def size(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A whole number above 0 from a transformers configuration; `UserError` names the key otherwise."""
    value = config.get(key, default)
    if isinstance(value, (list, tuple)) and len(set(value)) == 1:
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"the backbone's config.json has {key} = {value!r}; a whole number above 0 is needed")
    return value


def sizes(config: Mapping[str, Any], key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list of whole numbers above 0 from a transformers configuration; `UserError` names the key otherwise."""
    values = config.get(key, default)
    if not isinstance(values, (list, tuple)) or not values:
        raise UserError(f"the backbone's config.json has {key} = {values!r}; a list of whole numbers is needed")
    return tuple(size({key: value}, key) for value in values)


def number(config: Mapping[str, Any], key: str, default: float) -> float:
    """A number of at least 0 from a transformers configuration (null is 0); `UserError` names the key otherwise."""
    value = config.get(key, default)
    if value is None:
        return 0.0
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
        raise UserError(f"the backbone's config.json has {key} = {value!r}; a number of at least 0 is needed")
    return float(value)


def conv_parameters(convs: tuple[Conv, ...]) -> int:
    """Parameters of front-end convolutions and their norms."""
    return sum(
        c.inputs * c.outputs * c.kernel + (c.outputs if c.bias else 0) + (2 * c.outputs if c.norm != "none" else 0)
        for c in convs
    )
