import pytest
import torch
from torch import nn

from halvit_mm.cost.samples import (
    OBJECTS_PER_IMAGE,
    all_proposals,
    forward_tensor,
    ground_truth,
    is_detector,
    is_segmentor,
)
from tests.cost.conftest import build

CLASSIFIER, DETECTOR = 'halvit_2xb64_digits', 'mask-rcnn_halvit_digits-coco'
SEGMENTOR = 'upernet_halvit_digits-seg'
IMAGES = torch.rand(2, 3, 64, 96)


def test_detectors_are_told_from_other_models():
    model = build(DETECTOR)
    assert is_detector(model)
    assert is_detector(torch.compile(model))
    assert not is_detector(build(CLASSIFIER))
    assert not is_detector(nn.Linear(2, 2))
    assert not is_segmentor(model)


def test_segmentors_are_told_from_other_models():
    model = build(SEGMENTOR)
    assert is_segmentor(model)
    assert is_segmentor(torch.compile(model))
    assert not is_detector(model)
    assert not is_segmentor(build(CLASSIFIER))


def test_columns_of_all_classes():
    model = build(SEGMENTOR)
    first, second = ground_truth(model, IMAGES)
    assert first.gt_sem_seg.data.shape == (1, 64, 96)
    assert torch.equal(first.gt_sem_seg.data.unique(), torch.arange(11))
    losses, _ = model.parse_losses(model(IMAGES, [first, second], mode='loss'))
    assert losses.isfinite()
    # The head's maps are of stride 2, and are not resized.
    assert forward_tensor(model, IMAGES).shape == (2, 11, 32, 48)


def test_labels():
    samples = ground_truth(build(CLASSIFIER), torch.rand(3, 3, 32, 32))
    assert [sample.gt_label.item() for sample in samples] == [0, 1, 0]


def test_objects():
    """All of them within the image, of different sizes, with a mask as large as the box."""
    first, second = ground_truth(build(DETECTOR), IMAGES)
    boxes, labels, masks = (first.gt_instances[key] for key in ('bboxes', 'labels', 'masks'))
    assert torch.equal(boxes, second.gt_instances.bboxes)
    assert len(boxes) == OBJECTS_PER_IMAGE
    assert {*labels.tolist()} == {0, 1}
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([96, 64, 96, 64])).all()
    assert len({*(boxes[:, 2] - boxes[:, 0]).tolist()}) == OBJECTS_PER_IMAGE
    whole = boxes.long()
    areas = (whole[:, 2] - whole[:, 0]) * (whole[:, 3] - whole[:, 1])
    assert masks.masks.sum((1, 2)).tolist() == areas.tolist()
    assert min(areas) > 0
    assert len(first.ignored_instances) == 0


def test_a_detector_learns_from_them():
    model = build(DETECTOR)
    losses = model.loss(IMAGES, ground_truth(model, IMAGES))
    total, _ = model.parse_losses(losses)
    assert total.isfinite()


def test_as_many_proposals_as_there_may_be():
    model = build(DETECTOR).eval()
    number = model.test_cfg['rpn']['max_per_img']
    with torch.no_grad(), all_proposals(model):
        outputs = forward_tensor(model, IMAGES)
    assert number * len(IMAGES) in {len(output) for output in flat(outputs)}
    assert 'predict' not in vars(model.rpn_head)


@pytest.mark.parametrize('name', [CLASSIFIER, 'linear'])
def test_models_without_proposals_are_left_alone(name):
    model = nn.Linear(2, 2) if name == 'linear' else build(name)
    before = {*vars(model)}
    with all_proposals(model):
        assert {*vars(model)} == before


def flat(outputs) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for output in outputs if output is not None for tensor in flat(output)]
