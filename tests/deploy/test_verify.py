import pytest
import torch

from halvit_mm.deploy.verify import Difference, compare, compare_boxes
from halvit_mm.errors import UserError


def test_comparison():
    ours, theirs = torch.tensor([[1.0, 2.0], [4.0, 3.0]]), torch.tensor([[1.0, 2.5], [3.0, 3.5]])
    found = compare([(ours,)], lambda _: (theirs,), [torch.zeros(2, 3, 1, 1)], 'classes')
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
    found = compare([(torch.zeros(2, 3),)], lambda _: (torch.full((2, 3), theirs),), [torch.zeros(2, 3, 1, 1)], None)
    assert (found.error, found.largest) == (error, theirs)


def test_what_is_compared_follows_the_task():
    ours, images = torch.randn(2, 3, 4, 5), torch.zeros(2, 3, 4, 5)
    theirs = ours.clone()
    theirs[0, :, 0, 0] = -ours[0, :, 0, 0]
    found = compare([(ours,)], lambda _: (theirs,), [images], 'pixels')
    assert found.agreement == pytest.approx(39 / 40)
    assert str(found).endswith('same class of a pixel 97.5 %')
    one = torch.tensor([1.0, -1.0, 2.0, 3.0]).view(1, 1, 2, 2)
    assert compare([(one,)], lambda _: (one - 1.5,), [images[:1]], 'pixels').agreement == 0.75
    labels = torch.tensor([[2.0, 1.0, -1.0], [-1.0, 1.0, -2.0]])
    found = compare([(labels,)], lambda _: (labels - 1.5,), [images], 'labels')
    assert str(found).endswith('same set of labels 0.0 %')
    assert compare([(labels,)], lambda _: (labels - 1.5,), [images], 'classes').agreement == 1
    assert compare([(ours, labels)], lambda _: (theirs, labels), [images], None).agreement is None


def test_outputs_of_another_shape():
    with pytest.raises(UserError, match=r'has the shape \(2, 3\) for images .*; expected \(2, 4\)'):
        compare([(torch.zeros(2, 4),)], lambda _: (torch.zeros(2, 3),), [torch.zeros(2, 3, 1, 1)], None)


def test_comparison_of_boxes():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [60, 60, 70, 70]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 1, 2, 0])
    # In another order, one shifted a little, one of another class, one of another score
    theirs = boxes + torch.tensor([[0.25], [0], [0], [0]]), scores - torch.tensor([0, 0, 0, 0.1]), labels.clone()
    theirs[2][2] = 0
    theirs = tuple(value.flip(0) for value in theirs)
    image = torch.zeros(1, 3, 1, 1)
    found = compare_boxes([(boxes, scores, labels)], lambda _: theirs, [image])
    assert (found.agreement, found.largest) == (0.5, 0.25)
    with pytest.raises(UserError, match='m.onnx differs from the model: .*same box 50.0 %; 95% are expected in fp32'):
        found.check('m.onnx', 'fp32')
    masks = torch.rand(len(boxes), 2, 2)
    for other, agreement in ((masks, 1.0), (1 - masks, 0.0)):
        pair = (boxes, scores, labels, masks), (boxes, scores, labels, other)
        assert compare_boxes(pair[:1], lambda _, theirs=pair[1]: theirs, [image]).agreement == agreement
    none = boxes[:0], scores[:0], labels[:0]
    assert compare_boxes([none], lambda _: none, [image]).agreement is None
    assert compare_boxes([none], lambda _: theirs, [image]).agreement == 0
