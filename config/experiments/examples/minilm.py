"""The forward pass of all-MiniLM-L6-v2 in torch: BERT, then the mean of its last layer at length 1."""

import torch
import torch.nn.functional as F  # noqa: N812  as everywhere
from safetensors.torch import load_file

LAYERS, HEADS, EPS = 6, 12, 1e-12


class MiniLM(torch.nn.Module):
    """Token ids, 1 × n, to an embedding, 1 × 384.

    Args:
        path: of the weights, `model.safetensors`.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.weights = load_file(path)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Without a mask: a text alone needs no padding."""
        w = self.weights
        words, places, kind = (
            w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        x = self._norm(words[ids] + places[: ids.shape[1]] + kind[0], "embeddings")
        for number in range(LAYERS):
            x = self._layer(x, f"encoder.layer.{number}")
        return F.normalize(x.mean(1))

    def _layer(self, x: torch.Tensor, layer: str) -> torch.Tensor:
        q, k, v = (
            self._dense(x, f"{layer}.attention.self.{name}")
            .unflatten(-1, (HEADS, -1))
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self._norm(
            x + self._dense(seen, f"{layer}.attention.output.dense"), f"{layer}.attention.output"
        )
        wide = F.gelu(self._dense(x, f"{layer}.intermediate.dense"))
        return self._norm(x + self._dense(wide, f"{layer}.output.dense"), f"{layer}.output")

    def _dense(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = (self.weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(x, weight.shape, weight, bias, EPS)
