import torch
from torch import Tensor, nn

from halvit_mm._torch import is_compiling
from halvit_mm.arguments import Expect

from .recompute import recompute
from .shared import TiedModule


class FrugalGELU(nn.GELU):
    """GELU that writes over its input where no gradient is wanted: one hidden layer less in memory, and less time."""

    @classmethod
    def in_place_of(cls, activate: nn.Module) -> nn.Module:
        """This class for torch's GELU; any other activation as given."""
        return cls(activate.approximate) if type(activate) is nn.GELU else activate

    def forward(self, x: Tensor) -> Tensor:
        # Compilers and tracers choose for themselves.
        if torch.is_grad_enabled() or is_compiling() or torch.jit.is_tracing():
            return super().forward(x)
        return torch.ops.aten.gelu_(x, approximate=self.approximate)


class TiedMLP(TiedModule, nn.Module):
    """Feed-forward network with one matrix instead of two: ``W^T F(W x + b_1) + b_2``.

    Source and initialization: see :mod:`halvit_mm.layers`.

    Args:
        embed_dims (int): Features of a token, D.
        feedforward_channels (int): Width of the hidden layer, M.
        activate (nn.Module): The activation F.
        ffn_drop (float): Dropout rate after the activation and after the second map. Defaults to 0.
        bias (bool): Whether both maps have biases. Defaults to True.
        with_cp (bool): Whether the hidden layer is computed again in the backward pass instead of being kept: nothing
            is kept but the input, and one matrix product of six is done twice. Defaults to False.
        device (torch.device, optional): Where the parameters are. Defaults to None, which means torch's default.
        dtype (torch.dtype, optional): Type of the parameters. Defaults to None, which means torch's default.

    Attributes:
        weight (nn.Parameter): W, shape (M, D).
        hidden_bias (nn.Parameter or None): b_1, shape (M, ).
        out_bias (nn.Parameter or None): b_2, shape (D, ).
    """

    matrices = ('weight',)

    def __init__(
        self,
        embed_dims: int,
        feedforward_channels: int,
        activate: nn.Module,
        ffn_drop: float = 0.0,
        bias: bool = True,
        with_cp: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        expect = Expect(self)
        expect.positive(embed_dims=embed_dims, feedforward_channels=feedforward_channels)
        expect.fraction(ffn_drop=ffn_drop)
        expect.flag(bias=bias, with_cp=with_cp)
        super().__init__()
        self.embed_dims = embed_dims
        self.feedforward_channels = feedforward_channels
        self.with_cp = with_cp

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

        self.weight = parameter(feedforward_channels, embed_dims)
        self.hidden_bias = parameter(feedforward_channels) if bias else None
        self.out_bias = parameter(embed_dims) if bias else None
        self.reset_parameters()

        self.activate = activate
        self.ffn_drop = nn.Dropout(ffn_drop)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token by itself: shape (..., D) to (..., D), without the shortcut."""
        return recompute(self._transform, x) if self.with_cp else self._transform(x)

    def _transform(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, self.embed_dims)
        hidden = self.ffn_drop(self.activate(self.linear('weight', tokens, self.hidden_bias)))  # F(W x + b_1)
        out = self.transposed_linear('weight', hidden, self.out_bias)  # W^T F(W x + b_1) + b_2
        return self.ffn_drop(out).view(x.shape)
