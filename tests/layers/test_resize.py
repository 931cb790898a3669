import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from halvit_mm.layers.resize import resize
from halvit_mm.models import HaLViT
from tests.utils import TINY_ARCH


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


class Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('mode', ['bicubic', 'bilinear', 'nearest'])
@pytest.mark.parametrize('size', [(9, 5), (3, 14), (1, 1)])
def test_deterministic_resizing_is_interpolation(deterministic, mode, size):
    grid = torch.randn(2, 3, 6, 7, requires_grad=True)
    expected = F.interpolate(grid, size, mode=mode, align_corners=None if mode == 'nearest' else False)
    weights = torch.randn(expected.shape)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), grid)
    found = resize(grid, size, mode)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), grid)[0], gradient)


def test_no_operator_of_a_larger_map_adds_in_any_order(deterministic):
    """The backward passes of these on a GPU are refused in deterministic mode."""
    model = HaLViT(arch=TINY_ARCH, img_size=32, patch_size=8)
    with Operators() as operators:
        model(torch.randn(1, 3, 48, 40))[0].sum().backward()
    assert not {name for name in operators.names if 'upsample' in name and 'backward' in name}
    torch.use_deterministic_algorithms(False)
    with Operators() as operators:
        expected = model(torch.ones(1, 3, 48, 40))[0]
        expected.sum().backward()
    assert 'upsample_bicubic2d_backward' in operators.names
    torch.use_deterministic_algorithms(True)
    torch.testing.assert_close(model(torch.ones(1, 3, 48, 40))[0], expected)
