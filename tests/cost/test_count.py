import pytest
import torch
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.models import VisionTransformer
from mmpretrain.registry import MODELS
from torch import nn

from halvit_mm.cost import count_macs, count_parameters
from halvit_mm.models import HaLViT
from tests.utils import ROOT


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 4)
        self.head = nn.Linear(4, 5)


class TestParameters:
    def test_with_and_without_head(self):
        model = Classifier()
        assert count_parameters(model) == 3 * 4 + 4 + 4 * 5 + 5
        assert count_parameters(model, without_head=True) == 3 * 4 + 4

    def test_under_two_names_count_once(self):
        model = Classifier()
        model.alias = model.backbone
        assert count_parameters(model) == 41
        model.head.weight = model.backbone.weight
        assert count_parameters(model, without_head=True) == 16

    def test_frozen_ones_count(self):
        model = Classifier()
        model.backbone.requires_grad_(False)
        assert count_parameters(model) == 41

    def test_several_heads(self):
        model = Classifier()
        model.mask_head, model.rpn_head = nn.Linear(4, 2), nn.Linear(4, 1)
        assert count_parameters(model, without_head=True) == 16

    def test_head_of_a_wrapped_model(self):
        model = MODELS.build(Config.fromfile(ROOT / 'configs/baselines/pvt-v2-b2-li_8xb128_in1k.py').model)
        assert count_parameters(model) - count_parameters(model, without_head=True) == 1000 * 512 + 1000

    @pytest.mark.parametrize('tie', ['both', 'none'])
    def test_vit_of_any_width(self, tie):
        d, m, layers = 24, 40, 3
        arch = dict(embed_dims=d, num_layers=layers, num_heads=3, feedforward_channels=m)
        model = HaLViT(arch, img_size=32, patch_size=16, tie=tie)
        matrices = (2 * d * d + d * m) if tie == 'both' else (4 * d * d + 2 * d * m)
        vectors = 3 * d + d + m + d + 2 * 2 * d  # of q, k, v, the projection, both of the FFN, two norms
        around = 3 * 16 * 16 * d + d + d + (1 + 4) * d + 2 * d  # patches, class token, positions, the last norm
        assert count_parameters(model) == layers * (matrices + vectors) + around


def bottlenecks(widths: list[int], blocks: list[int]) -> int:
    """Multiply-accumulates of a ResNet's stages at 224 pixels, the stride on the 3x3 convolution."""
    macs, inputs, side = 0, 64, 56
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(count):
            before = side
            side = side // 2 if stage and not block else side
            macs += before**2 * inputs * width + side**2 * (9 * width * width + 4 * width * width)
            macs += side**2 * inputs * 4 * width if not block else 0
            inputs = 4 * width
    return macs


class TestMacs:
    def test_convolution_and_its_transpose(self):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 1))
        assert count_macs(model, (3, 6, 5)) == 30 * (3 * 8 * 9 + 8 * 4)

    @pytest.mark.parametrize('backbone', [VisionTransformer, HaLViT])
    def test_attention(self, backbone):
        arch = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=40)
        tokens, patches = 1 + 4, 4
        layer = tokens * (4 * 24 * 24 + 2 * 24 * 40) + 2 * tokens * tokens * 24
        assert count_macs(backbone(arch, img_size=32), (3, 32, 32)) == 2 * layer + patches * 3 * 16 * 16 * 24

    def test_resnet(self):
        model = MODELS.build(dict(type='ResNet', depth=50))
        stem = 112**2 * 3 * 64 * 49
        assert count_macs(model) == stem + bottlenecks([64, 128, 256, 512], [3, 4, 6, 3])

    def test_detector(self):
        """RPN, box and mask heads, on the proposals that there are."""
        cfg = Config.fromfile(ROOT / 'configs/digits/mask-rcnn_resnet50-pe_digits-coco.py').model
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = DETECTORS.build(cfg)
            backbone, neck = (count_macs(part, (3, 64, 96)) for part in (model.backbone, _Body(model)))
        levels = sum((64 // stride) * (96 // stride) for stride in (4, 8, 16))
        rpn = levels * (9 * 64 * 64 + 64 * 3 + 64 * 12)
        heads = count_macs(model, (3, 64, 96)) - neck - rpn
        box = 7 * 7 * 64 * 256 + 256 * 256 + 256 * (11 + 4)
        mask = 2 * 49 * 9 * 64 * 64 + 4 * 49 * 64 * 64 + 14 * 14 * 64 * 1
        proposals = 100
        assert heads == proposals * (box + mask)
        assert 0 < backbone < neck

    def test_detectors_of_one_shape_count_alike(self):
        """Whatever proposals their random weights make."""
        cfg = Config.fromfile(ROOT / 'configs/digits/mask-rcnn_halvit_digits-coco.py').model
        with DefaultScope.overwrite_default_scope('mmdet'):
            models = [DETECTORS.build({**cfg, 'backbone': {**cfg.backbone, 'tie': tie}}) for tie in ('both', 'none')]
        assert count_macs(models[0], (3, 96, 64)) == count_macs(models[1], (3, 96, 64))
        assert 'predict' not in vars(models[0].rpn_head)

    @pytest.mark.parametrize('training', [True, False])
    def test_leaves_the_model_as_it_was(self, training):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train(training)
        model[1].eval()
        count_macs(model, (3, 8, 8))
        assert model.training is training
        assert not model[1].training
        assert torch.equal(model[1].running_mean, torch.zeros(8))


class _Body(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor):
        return self.model.extract_feat(images)
