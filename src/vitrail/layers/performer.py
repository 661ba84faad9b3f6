"""Linear attention by positive random features (Choromanski et al., "Performer", ICLR 2021, arXiv:2009.14794).

This is the form of Tokens-to-Token ViT (Yuan et al., ICCV 2021, arXiv:2101.11986) and ViTAE: one head, which may change
the width. The values are the skip connection, since the input has another width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PerformerAttention(nn.Module):
    """exp(q.k) is replaced by phi(q).phi(k), so that phi(k)^T v is computed once for all queries.

    phi(z) = exp(w z - |z|^2 / 2) / sqrt(m), with m fixed random directions w, without the factor 1/sqrt(d).

    MACs for n tokens, widths c -> d: n (3 c d + d^2) + n m (4 d + 1). Memory is linear in n.

    Args:
        dim, out_dim: widths of input and output.
        kernel_ratio: number of random directions over out_dim.
        drop: dropout after the projection.
        eps: constant added to the normaliser, so that features that all underflow give zeros instead of NaN.
    """

    def __init__(
        self, dim: int, out_dim: int, *, kernel_ratio: float = 0.5, drop: float = 0.0, eps: float = 1e-8
    ) -> None:
        super().__init__()
        num_features = int(out_dim * kernel_ratio)
        self.kqv = nn.Linear(dim, 3 * out_dim)
        self.proj = nn.Linear(out_dim, out_dim)
        self.drop = nn.Dropout(drop)
        self.eps = eps
        self.w = nn.Parameter(torch.empty(num_features, out_dim), requires_grad=False)
        nn.init.orthogonal_(self.w, gain=num_features**0.5)

    def features(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b n m"]:
        """phi, in float32 where the input has half precision, in which exp() overflows or loses accuracy."""
        z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
        w = self.w.to(z.dtype)
        return torch.exp(z @ w.T - (z * z).sum(-1, keepdim=True) / 2) / w.shape[0] ** 0.5

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n d"]:
        k, q, v = self.kqv(x).chunk(3, -1)  # the keys come first
        phi_k, phi_q = self.features(k), self.features(q)
        weighted = phi_q @ (phi_k.transpose(1, 2) @ v.to(phi_k.dtype))
        norm = phi_q @ phi_k.sum(1).unsqueeze(-1)
        # weighted / (norm + eps), in units of eps: the ONNX optimiser drops a term of 1e-8 as zero.
        mean = (weighted / self.eps) / (norm / self.eps + 1)
        return v + self.drop(self.proj(mean.to(v.dtype)))
