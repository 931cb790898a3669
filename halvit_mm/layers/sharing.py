"""Layers that use the same matrices.

Source: "Go Wider Instead of Deeper" (WideNet, `arXiv 2107.11817 <https://arxiv.org/abs/2107.11817>`_), where norms stay
each layer's own, and "MiniViT" (CVPR 2022, `arXiv 2204.07154 <https://arxiv.org/abs/2204.07154>`_).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from .shared import Borrower, TiedModule


class BorrowingLinear(Borrower, nn.Linear):
    """A linear map with a bias of its own and the matrix of another linear map.

    Args:
        linear (nn.Linear): The map whose bias this is.
        lender (nn.Linear): The map whose matrix this is, of the same shape; it must be a part of the same model.
    """

    matrices = ('weight',)

    def __init__(self, linear: nn.Linear, lender: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self._lender = (lender,)

    @property
    def weight(self) -> Tensor:
        return self.matrix('weight')

    def reset_parameters(self) -> None:
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def share_matrices(layers: Sequence[nn.Module]) -> None:
    """Let layers use the matrices of the first: those of tied modules and of linear maps.

    Norms, biases, layer scales and slack stay each layer's own. A matrix is a parameter of the first layer
    alone: in ``parameters()``, in the state dict and in an exported file there is one.

    Args:
        layers (Sequence[nn.Module]): Layers of the same structure, which are changed.

    Raises:
        ValueError: If a layer has other parts than the first, or a matrix of another shape.
    """
    first, *others = layers
    lenders = _parts(first)
    for layer in others:
        borrowers = _parts(layer)
        for name in {**lenders, **borrowers}:
            kinds = [type(parts[name]).__name__ if name in parts else 'none' for parts in (lenders, borrowers)]
            if kinds[0] != kinds[1]:
                raise ValueError(f'{name} is {kinds[0]} and {kinds[1]}; expected the same parts in layers that share')
        for name, lender in lenders.items():
            module = borrowers[name]
            names = lender.matrices if isinstance(lender, TiedModule) else ('weight',)
            shapes = [[tuple(getattr(one, matrix).shape) for matrix in names] for one in (lender, module)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f'{name} has matrices of {shapes[0]} and of {shapes[1]}; expected one shape in layers that share'
                )
            if isinstance(module, TiedModule):
                module.borrow(lender)
            else:
                parent, _, leaf = name.rpartition('.')
                setattr(layer.get_submodule(parent), leaf, BorrowingLinear(module, lender))


def _parts(layer: nn.Module) -> dict[str, nn.Module]:
    return {name: part for name, part in layer.named_modules() if isinstance(part, (TiedModule, nn.Linear))}


def groups_that_share(model: nn.Module, names: Sequence[str]) -> list[list[str]]:
    """Group modules of a model by the matrices that they use, each group in the order of the names.

    Args:
        model (nn.Module): The model.
        names (Sequence[str]): Names of modules, of which none is within another.

    Returns:
        list[list[str]]: The names; a module that shares with no other is alone.
    """
    owner_of = {part: part.owner for part in model.modules() if isinstance(part, Borrower)}
    owner_of |= {owner: owner for owner in owner_of.values()}  # a linear map that lends is not a Borrower
    groups: dict[nn.Module | str, list[str]] = {}
    for name in names:
        used = (owner_of[part] for part in model.get_submodule(name).modules() if part in owner_of)
        groups.setdefault(next(used, name), []).append(name)
    return [*groups.values()]
