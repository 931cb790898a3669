import pytest
import torch

from halvit_mm.deploy.verify import Difference, compare
from halvit_mm.errors import UserError


def test_comparison():
    ours, theirs = torch.tensor([[1.0, 2.0], [4.0, 3.0]]), torch.tensor([[1.0, 2.5], [3.0, 3.5]])
    found = compare([(ours,)], lambda _: (theirs,), [torch.zeros(2, 3, 1, 1)], classifies=True)
    assert (found.images, found.largest, found.scale, found.agreement) == (2, 1.0, 4.0, 0.5)
    assert found.error == pytest.approx((1.5 / 30) ** 0.5)


def test_file_that_differs(tmp_path):
    for precision, wrong in (
        ('fp32', Difference(4, largest=1e-2, scale=3.0, agreement=1.0)),
        ('fp32', Difference(4, largest=float('nan'), scale=3.0, agreement=1.0)),
        ('int8', Difference(4, agreement=0.5)),
        ('int8', Difference(4, error=0.5)),
    ):
        with pytest.raises(UserError, match='m.onnx differs from the model: .* nothing was written'):
            wrong.check('m.onnx', precision)


@pytest.mark.parametrize(('theirs', 'error'), [(0.0, 0.0), (0.5, 1.0)])
def test_outputs_of_zero(theirs, error):
    found = compare([(torch.zeros(2, 3),)], lambda _: (torch.full((2, 3), theirs),), [torch.zeros(2, 3, 1, 1)], False)
    assert (found.error, found.largest) == (error, theirs)
