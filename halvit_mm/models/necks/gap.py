from collections.abc import Sequence

from mmpretrain.models import necks
from torch import Tensor

from halvit_mm.registry import MODELS


@MODELS.register_module()
class GlobalAveragePooling(necks.GlobalAveragePooling):
    """mmpretrain's global average pooling, which also takes the lists that mmdet's backbones return."""

    def forward(self, inputs: Tensor | Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """Average over height and width.

        Args:
            inputs (Tensor or Sequence[Tensor]): Maps, each of shape (B, C, H, W).

        Returns:
            Tensor or tuple[Tensor]: Shape (B, C).
        """
        return super().forward(inputs if isinstance(inputs, Tensor) else tuple(inputs))
