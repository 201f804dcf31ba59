"""Where methods attach: one table of named sites per backbone family (torch-free).

Paths are those of the transformers model, counted from the backbone for `layers` and `final_norm`, and from a
transformer layer for everything else. A new family is a new row of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from petl.errors import UserError


class UnknownBackbone(UserError):
    """The model is of a family that has no table of sites, or lacks one of its modules."""


@dataclass(frozen=True)
class Family:
    """Sites of one backbone family.

    `blocks` are the sub-layers a method can run beside or after: their input is the normalised hidden state
    of a pre-norm layer, their output is what the layer adds to its residual. `norms` gives the LayerNorm in
    front of each block, `projections` the linear maps inside them.
    """

    name: str
    layers: str
    final_norm: str
    blocks: Mapping[str, str] = field(default_factory=dict)
    norms: Mapping[str, str] = field(default_factory=dict)
    projections: Mapping[str, str] = field(default_factory=dict)

    def path(self, layer: int, site: str) -> str:
        """Dotted path of a site ("attention", "ffn", "layer", "q", …) in layer `layer`."""
        if site == "layer":
            return f"{self.layers}.{layer}"
        inner = self.blocks.get(site) or self.projections.get(site)
        if inner is None:
            raise UnknownBackbone(f"backbone family '{self.name}' has no site '{site}'")
        return f"{self.layers}.{layer}.{inner}"

    def norm_path(self, layer: int, site: str) -> str:
        """Dotted path of the LayerNorm in front of a block."""
        return f"{self.layers}.{layer}.{self.norms[site]}"


AST = Family(
    name="audio-spectrogram-transformer",
    layers="layers",
    final_norm="layernorm",
    blocks={"attention": "attention", "ffn": "mlp"},
    norms={"attention": "layernorm_before", "ffn": "layernorm_after"},
    projections={
        "q": "attention.q_proj",
        "k": "attention.k_proj",
        "v": "attention.v_proj",
        "o": "attention.o_proj",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    },
)

FAMILIES: dict[str, Family] = {AST.name: AST}
"""`model_type` of a transformers configuration -> its sites."""


def family_of(model_type: str | None) -> Family:
    """The table for a transformers `model_type`; `UnknownBackbone` names what was found and what is known."""
    if model_type not in FAMILIES:
        raise UnknownBackbone(
            f"the backbone is of type '{model_type}', which has no table of sites; "
            f"supported: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]
