"""Convolutions of tokens: along time, over the grid of patches, or along the whole sequence.

* `time`: within each row of equal frequency (a waveform's frames are one row), so that nothing wraps from the end of
  a row to the start of the next;
* `grid`: over rows and columns, with a square kernel;
* `sequence`: along the flattened sequence with the tokens in front in it, which is what the published code does.

In `time` and `grid` every token in front (CLS, distillation token, prompts) is a sequence of its own: it meets the
centre of the kernel and no neighbour. Padded frames count as zeros, as what lies beyond the ends does; a clip gives
the same alone and padded.

B batch, N tokens, L tokens in front, F rows of frequency, T columns of time, C channels in, O out, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl.layout import Layout, masked_mean


class TokenConv(nn.Module):
    """(B, N, C) -> (B, N, O); keeps the number of tokens ("same" padding, the longer side behind for even kernels).

    `weight` is that of a Conv1d (O, C/G, k), or with axis `grid` of a Conv2d (O, C/G, k, k).
    """

    def __init__(self, weight: Tensor, bias_O: Tensor | None, axis: str, groups: int = 1) -> None:
        super().__init__()
        self.axis, self.groups, self.kernel = axis, groups, weight.shape[-1]
        self.before, self.behind = (self.kernel - 1) // 2, self.kernel // 2
        self.weight = nn.Parameter(weight)
        self.bias = None if bias_O is None else nn.Parameter(bias_O)

    def forward(self, x_BNC: Tensor, layout: Layout) -> Tensor:
        mask_BN = layout.mask(x_BNC)
        if mask_BN is not None:
            x_BNC = x_BNC.masked_fill(~mask_BN.unsqueeze(-1), 0)
        if self.axis == "sequence":
            return self._over(x_BNC.unsqueeze(1)).squeeze(1)
        front_BLC, body_BMC = layout.split(x_BNC)
        out_BMO = self._over(body_BMC.unflatten(1, layout.grid)).flatten(1, 2)
        if layout.lead(x_BNC) == 0:
            return out_BMO
        return torch.cat([self._alone(front_BLC), out_BMO], dim=1)

    def _over(self, x_BFTC: Tensor) -> Tensor:
        # Tokens are an image with the channels last: no copy brings the channels to the front.
        if self.weight.ndim == 3:
            weight, pads = self.weight.unsqueeze(2), (0, self.before)
        else:
            weight, pads = self.weight, (self.before, self.before)
        if self.before != self.behind:
            x_BFTC = functional.pad(x_BFTC, (0, 0, 0, 1, 0, 1) if self.weight.ndim == 4 else (0, 0, 0, 1))
        image_BCFT = x_BFTC.permute(0, 3, 1, 2)
        out_BOFT = functional.conv2d(image_BCFT, weight, self.bias, padding=pads, groups=self.groups)
        return out_BOFT.permute(0, 2, 3, 1)

    def _alone(self, x_BLC: Tensor) -> Tensor:
        """Each token as a sequence of length one: the tap that falls on it."""
        centre_OI = self.weight[..., self.before]
        if self.weight.ndim == 4:
            centre_OI = centre_OI[..., self.before]
        if self.groups == 1:
            return functional.linear(x_BLC, centre_OI, self.bias)
        grouped_BLGI = x_BLC.unflatten(-1, (self.groups, -1))
        weight_GPI = centre_OI.unflatten(0, (self.groups, -1))
        out_BLO = torch.einsum("blgi,gpi->blgp", grouped_BLGI, weight_GPI).flatten(-2)
        return out_BLO if self.bias is None else out_BLO + self.bias


def kernel_shape(kernel: int, axis: str) -> tuple[int, ...]:
    """Trailing sizes of a convolution's weight."""
    return (kernel, kernel) if axis == "grid" else (kernel,)


def mean_of_body(x_BNC: Tensor, layout: Layout) -> Tensor:
    """Mean over the patches or frames that are no padding: (B, C)."""
    return masked_mean(layout.split(x_BNC)[1], layout.mask_BT)
