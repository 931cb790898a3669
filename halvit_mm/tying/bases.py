"""Changes of basis that keep the function of a plain layer, chosen so that it comes close to a tied one.

Attention, head by head: for any invertible A and B

- ``q = A W_q x + A b_q`` and ``k = A^-T W_k x + A^-T b_k`` have the products that they had,
- ``v = B W_v x + B b_v`` goes through ``W_o B^-1`` to the output that it had.

Both ``b_k`` and ``b_v`` may be 0: ``b_k`` adds the same to all scores of a query, which the softmax cancels, and
``b_v`` adds ``W_o b_v`` to every output, which ``b_o`` can add instead.

A feed-forward network: hidden units may change places and, where the activation is ReLU, grow by any positive factor
that the second matrix takes back. Places make no difference to tying: W_1's rows and W_2's columns move together. GELU
allows no factors, so that no change of basis brings such a network closer to a tied one.

Close matrices are not close functions. Where A and B may be any invertible maps, those that bring the matrices closest
let a few features grow and the others vanish: on a trained ViT the matrices agreed to 0.3, and the output of the tied
attention was further off than without any change of basis. So A and B are chosen by the products ``W_q^T W_k`` and
``W_o W_v`` of each head, which are all that an attention computes with (:func:`align_products`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

# Of L-BFGS
STEPS = 500


@dataclass
class AttentionWeights:
    """Matrices and biases of a plain attention, as ``nn.Linear`` holds them.

    Attributes:
        query, key, value, out (Tensor): Shape (D, D).
        query_bias, key_bias, value_bias (Tensor): Shape (D, ); zeros where there are none.
        out_bias (Tensor or None): Shape (D, ).
        num_heads (int): Number of heads H.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor
    query_bias: Tensor
    key_bias: Tensor
    value_bias: Tensor
    out_bias: Tensor | None
    num_heads: int

    def to(self, dtype: torch.dtype) -> 'AttentionWeights':
        """The attention with tensors of another type, without gradients."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value.detach().to(dtype) for name, value in tensors.items()})

    def pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The tied pairs: ``W_q`` with ``W_o^T`` and ``W_k`` with ``W_v^T``, each of shape (D, D)."""
        return {'q_weight': (self.query, self.out.T), 'kv_weight': (self.key, self.value.T)}

    def products(self) -> tuple[Tensor, Tensor]:
        """``W_q^T W_k`` and ``W_o W_v`` of each head, both of shape (H, D, D)."""
        heads = (self.query, self.key, self.out.T, self.value)
        query, key, out, value = (matrix.unflatten(0, (self.num_heads, -1)) for matrix in heads)
        return query.mT @ key, out.mT @ value

    def tied(self) -> 'AttentionWeights':
        """The attention with the mean of each pair in place of both."""
        query, key = ((way_in + way_out) / 2 for way_in, way_out in self.pairs().values())
        return replace(self, query=query, key=key, value=key.T, out=query.T)


@dataclass
class FFNWeights:
    """Matrices and biases of a plain feed-forward network.

    Attributes:
        way_in (Tensor): W_1, shape (M, D).
        way_out (Tensor): W_2, shape (D, M).
        hidden_bias (Tensor or None): Shape (M, ).
        out_bias (Tensor or None): Shape (D, ).
        scalable (bool): Whether the activation is ReLU and nothing stands between it and the matrices.
    """

    way_in: Tensor
    way_out: Tensor
    hidden_bias: Tensor | None
    out_bias: Tensor | None
    scalable: bool = False

    def pairs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The tied pair: ``W_1`` with ``W_2^T``, each of shape (M, D)."""
        return {'weight': (self.way_in, self.way_out.T)}


def relative_error(matrices: Sequence[Tensor], shared: Sequence[Tensor]) -> float:
    """Relative error of what stands in place of matrices.

    Args:
        matrices (Sequence[Tensor]): Such as W_1 and W_2^T.
        shared (Sequence[Tensor]): What stands in place of each, of the same shape.

    Returns:
        float: Norm of the differences over the norm of the matrices; 0 for matrices of zeros. Of W_1 and W_2^T, and
        their mean in place of both, 0 where the two are equal and ``0.5 ** 0.5`` where they are independent.
    """
    error = sum((one.double() - other.double()).square().sum().item() for one, other in zip(matrices, shared))
    norm = sum(one.double().square().sum().item() for one in matrices)
    return (error / norm) ** 0.5 if norm else 0.0


def by_heads(maps: Tensor, rows: Tensor) -> Tensor:
    """Apply maps of shape (H, d, d) to each head's rows, shape (H * d, ...)."""
    return torch.einsum('hij,hj...->hi...', maps, rows.unflatten(0, maps.shape[:2])).flatten(0, 1)


def change_basis(weights: AttentionWeights, query_maps: Tensor, value_maps: Tensor) -> AttentionWeights:
    """Change the bases of queries and keys and of values and outputs; the attention keeps its function.

    Args:
        weights (AttentionWeights): The attention.
        query_maps (Tensor): A of each head, invertible, shape (H, d, d).
        value_maps (Tensor): B of each head, invertible, shape (H, d, d).

    Returns:
        AttentionWeights: The same attention in the new bases.
    """
    key_maps = torch.linalg.inv(query_maps).mT
    out_maps = torch.linalg.inv(value_maps).mT
    return replace(
        weights,
        query=by_heads(query_maps, weights.query),
        key=by_heads(key_maps, weights.key),
        value=by_heads(value_maps, weights.value),
        out=by_heads(out_maps, weights.out.T).T,
        query_bias=by_heads(query_maps, weights.query_bias),
        key_bias=by_heads(key_maps, weights.key_bias),
        value_bias=by_heads(value_maps, weights.value_bias),
    )


def move_biases(weights: AttentionWeights) -> AttentionWeights:
    """Drop the bias of the keys and move that of the values to the output's, if there is one."""
    weights = replace(weights, key_bias=torch.zeros_like(weights.key_bias))
    if weights.out_bias is None:
        return weights
    out_bias = weights.out_bias + weights.out @ weights.value_bias
    return replace(weights, value_bias=torch.zeros_like(weights.value_bias), out_bias=out_bias)


def align_products(weights: AttentionWeights) -> AttentionWeights:
    """Choose each head's bases so that the products of the tied attention come closest to the plain one's.

    A and B, any invertible maps, minimize the relative squared errors of ``S_q^T S_k`` and ``S_q^T S_v`` of all heads,
    S being the mean of each pair, by L-BFGS from identities.

    Args:
        weights (AttentionWeights): The attention.

    Returns:
        AttentionWeights: The same attention in the new bases.
    """
    start = weights.to(torch.double)
    wanted = start.products()
    d = len(start.query) // weights.num_heads
    identity = torch.eye(d, dtype=torch.double, device=start.query.device).repeat(weights.num_heads, 1, 1)
    maps = [identity.clone().requires_grad_() for _ in range(2)]
    optimizer = torch.optim.LBFGS(maps, max_iter=STEPS, history_size=20, line_search_fn='strong_wolfe')

    def closure() -> Tensor:
        optimizer.zero_grad()
        got = change_basis(start, *maps).tied().products()
        loss = sum((g - w).square().sum() / w.square().sum() for g, w in zip(got, wanted))
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return change_basis(start, *maps).to(weights.query.dtype)


def align_ffn(weights: FFNWeights) -> FFNWeights:
    """Give each hidden unit of a ReLU network one norm on both ways; any other network is returned unchanged."""
    if not weights.scalable:
        return weights
    way_in, way_out = weights.way_in.norm(dim=1), weights.way_out.norm(dim=0)
    factor = torch.where((way_in > 0) & (way_out > 0), (way_out / way_in).sqrt(), 1.0)
    return replace(
        weights,
        way_in=weights.way_in * factor[:, None],
        way_out=weights.way_out / factor,
        hidden_bias=None if weights.hidden_bias is None else weights.hidden_bias * factor,
    )


def assign_units(similarity: Tensor, groups: int = 1) -> Tensor:
    """Assign units to places so that the sum of the similarities is largest.

    Args:
        similarity (Tensor): Of place i to unit j, shape (M, M).
        groups (int): Number of groups of places and units; a unit stays in its group. Defaults to 1.

    Returns:
        Tensor: Number of the unit at each place, shape (M, ).
    """
    size = len(similarity) // groups
    chosen = []
    for start in range(0, len(similarity), size):
        block = similarity[start : start + size, start : start + size].cpu()
        chosen.append(torch.as_tensor(linear_sum_assignment(block, maximize=True)[1]) + start)
    return torch.cat(chosen).to(similarity.device)
