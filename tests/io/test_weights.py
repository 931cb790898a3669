"""Files whose weights are another model's are refused, whatever loads them; a call of load_state_dict is not."""

import pytest
import timm
import torch
import torchvision
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpretrain.models.backbones import ResNet, VisionTransformer
from torch import nn

from halvit_mm.errors import UserError
from halvit_mm.io.build import build_model
from halvit_mm.io.configs import load_config
from halvit_mm.io.weights import Comparison, fill, read_weights, reading_file, require_filled
from halvit_mm.models import HaLViT, SharedStageResNet
from halvit_mm.names import to_mmpretrain
from tests.utils import ROOT, TINY_ARCH

SMALL = dict(arch=TINY_ARCH, img_size=32, patch_size=8)
DEEP = dict(arch={**TINY_ARCH, 'num_layers': 12})
RESNET = dict(depth=50, stem_channels=8, base_channels=8)
SWIN = dict(arch=dict(embed_dims=24, depths=[1, 1], num_heads=[3, 3]), img_size=32, window_size=2, out_indices=(1,))


def swin(**cfg) -> nn.Module:
    return MODELS.build(dict(type='halvit_mm.TiedModel', of='mmpretrain.SwinTransformer', **SWIN, **cfg))


def tied_vit(**cfg) -> HaLViT:
    return HaLViT(**{**SMALL, **cfg})


def shared(**cfg) -> SharedStageResNet:
    return SharedStageResNet(**RESNET, **cfg)


def plain_swin() -> nn.Module:
    return MODELS.build(dict(type='mmpretrain.SwinTransformer', **SWIN))


UNTIED = "The weights are the untied counterpart's. tools/tie_checkpoint.py"
CASES = {
    'vit': (tied_vit, lambda: VisionTransformer(**SMALL), UNTIED),
    'untied vit': (lambda **cfg: tied_vit(tie='none', **cfg), tied_vit, "The weights are a tied model's"),
    'resnet': (shared, lambda: ResNet(**RESNET), UNTIED),
    'half a resnet': (lambda **cfg: shared(shared_stages=(2, 3), **cfg), lambda: ResNet(**RESNET), UNTIED),
    'swin': (swin, plain_swin, UNTIED),
    'width': (
        tied_vit,
        lambda: HaLViT(**{**SMALL, 'arch': {**TINY_ARCH, 'embed_dims': 48}}),
        'is of another width, size or number of classes',
    ),
    'untied share': (lambda **cfg: tied_vit(tie='none', share=2, **cfg), tied_vit, "The weights are a tied model's"),
    'less share': (
        lambda **cfg: tied_vit(**DEEP, share=4, **cfg),
        lambda: tied_vit(**DEEP, share=12),
        'of another share',
    ),
    'less untied share': (
        lambda **cfg: tied_vit(**DEEP, tie='none', share=6, **cfg),
        lambda: tied_vit(**DEEP, tie='none', share=12),
        'of another share, tie or number of layers',
    ),
    'other rank': (
        lambda **cfg: tied_vit(tie_rank=5, **cfg),
        lambda: tied_vit(tie_rank=3),
        'has tie_rank=3, the model 5',
    ),
    'no rank': (tied_vit, lambda: tied_vit(tie_rank=3), 'has tie_rank=3, the model 0'),
    'no scale': (
        tied_vit,
        lambda: tied_vit(layer_scale_init_value=0.1),
        'entries of its tied layers would be left out',
    ),
    'depth': (tied_vit, lambda: HaLViT(**{**SMALL, 'arch': {**TINY_ARCH, 'num_layers': 2}}), 'share, tie or number of'),
}


@pytest.mark.parametrize('case', CASES)
def test_pretrained(case, tmp_path):
    """By the module itself, and by a model around it."""
    build, other, told = CASES[case]
    torch.save(dict(state_dict=other().state_dict()), tmp_path / 'a.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    with pytest.raises(UserError, match='cannot take these weights: ') as error:
        build(init_cfg=init_cfg).init_weights()
    assert told in str(error.value)
    state = {f'backbone.{name}': value for name, value in other().state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    classifier = MODELS.build(
        dict(type='mmpretrain.ImageClassifier', backbone=dict(type='mmpretrain.VisionTransformer'), init_cfg=init_cfg)
    )
    classifier.backbone = build()
    with pytest.raises(UserError, match='cannot take these weights: '):
        classifier.init_weights()


@pytest.mark.parametrize('case', CASES)
def test_calls_of_load_state_dict_are_left_alone(case):
    build, other, _ = CASES[case]
    model, state = build(), other().state_dict()
    fitting = {name: v for name, v in state.items() if model.state_dict().get(name, v).shape == v.shape}
    model.load_state_dict(fitting, strict=False)
    model.load_state_dict({}, strict=False)


def test_prefix():
    state = {f'backbone.{name}': value for name, value in tied_vit().state_dict().items()}
    with pytest.raises(UserError, match=r"Their names have a prefix\. .*prefix='backbone\.'"), reading_file():
        tied_vit().load_state_dict(state, strict=False)


@pytest.mark.parametrize('build', [tied_vit, shared, swin])
def test_own_weights_are_taken(build, tmp_path):
    model = build()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'a.pth')
    other = build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth')))
    other.init_weights()
    for (name, value), own in zip(other.named_parameters(), model.parameters()):
        assert torch.equal(value, own), name


def test_a_file_without_slack_is_a_start():
    state, model = tied_vit().state_dict(), tied_vit(tie_rank=3)
    with reading_file():
        model.load_state_dict(state, strict=False)
    assert torch.equal(model.state_dict()['layers.0.ffn.weight'], state['layers.0.ffn.weight'])


def test_a_missing_tenth_is_let_through():
    state = tied_vit().state_dict()
    for name in ('ln1.weight', 'ln1.bias', 'cls_token'):
        del state[name]
    with reading_file():
        tied_vit().load_state_dict(state, strict=False)
        del state['pos_embed'], state['layers.0.ln1.weight']
        with pytest.raises(UserError, match='5 of its 39 entries'):
            tied_vit().load_state_dict(state, strict=False)


def test_comparison():
    model = nn.BatchNorm1d(3)
    given = {**model.state_dict(), 'bias': torch.zeros(4), 'extra': torch.zeros(1)}
    del given['weight'], given['num_batches_tracked']
    comparison = Comparison(model.state_dict(), given)
    assert comparison.summary() == 'weight missing instead of (3,); bias (4,) instead of (3,); extra has no place'
    assert comparison.summary(1, prefix='x.') == 'x.weight missing instead of (3,) and 2 more'
    with pytest.raises(UserError, match='there is not a checkpoint of this model: weight missing'):
        fill(model, given, 'there')
    assert not Comparison(model.state_dict(), model.state_dict())


class TestRequireFilled:
    """What upstream loads without ``strict``, as its inferencers and its runner do."""

    def model(self, **options):
        return build_model(load_config(str(ROOT / 'configs/digits/halvit_2xb64_digits.py'), options))

    def test_whole(self):
        model = self.model()
        require_filled(model, {f'module.{name}': value for name, value in model.state_dict().items()}, 'a.pth')

    def test_entries_that_a_module_resizes_as_it_loads_them(self):
        other = self.model(**{'model.backbone.img_size': 64}).state_dict()
        require_filled(self.model(), other, 'a.pth')

    def test_other_buffers_than_statistics(self):
        model = torch.nn.BatchNorm1d(3)
        state = model.state_dict()
        del state['num_batches_tracked']
        require_filled(model, state, 'a.pth')
        del state['running_var']
        with pytest.raises(UserError, match=r'a\.pth is not a checkpoint of this model: 1 of its 4 entries'):
            require_filled(model, state, 'a.pth')

    def test_another_number_of_classes(self):
        other = self.model(**{'model.head.num_classes': 3}).state_dict()
        with pytest.raises(UserError, match=r'2 of its .* head\.layers\.head\.weight \(3, 96\) instead of \(10, 96\)'):
            require_filled(self.model(), other, 'a.pth')

    def test_another_model(self):
        with pytest.raises(UserError, match=r'backbone\.cls_token missing .* more\. Check that the checkpoint'):
            require_filled(self.model(), {'fc.weight': torch.zeros(1)}, 'a.pth')


def test_timm_and_torchvision_are_read(tmp_path):
    vit = timm.create_model('vit_tiny_patch16_224', img_size=32, patch_size=8, num_classes=5, depth=2, init_values=0.5)
    ours = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmpretrain.VisionTransformer',
                arch=dict(embed_dims=192, num_layers=2, num_heads=3, feedforward_channels=768),
                img_size=32,
                patch_size=8,
                layer_scale_init_value=1.0,
            ),
            head=dict(type='mmpretrain.VisionTransformerClsHead', num_classes=5, in_channels=192),
        )
    ).eval()
    x = torch.randn(2, 3, 32, 32)
    torch.save({'model': {f'module.{k}': v for k, v in vit.state_dict().items()}}, tmp_path / 'vit.pth')
    ours.load_state_dict(read_weights(str(tmp_path / 'vit.pth')))
    torch.testing.assert_close(ours(x), vit.eval()(x), rtol=1e-4, atol=1e-4)

    theirs = torchvision.models.resnet50(num_classes=5).eval()
    cfg = Config.fromfile(ROOT / 'configs/baselines/resnet50_8xb32_in1k.py').model
    ours = MODELS.build({**cfg, 'head': {**cfg.head, 'num_classes': 5}, '_scope_': 'mmpretrain'}).eval()
    ours.load_state_dict(to_mmpretrain(theirs.state_dict()))
    torch.testing.assert_close(ours(x)[0] if isinstance(ours(x), tuple) else ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_safetensors_are_read(tmp_path):
    from safetensors.torch import save_file

    save_file({'blocks.0.attn.qkv.weight': torch.ones(3, 1)}, tmp_path / 'a.safetensors')
    assert [*read_weights(str(tmp_path / 'a.safetensors'))] == ['backbone.layers.0.attn.qkv.weight']


def test_files_that_are_no_checkpoints(tmp_path):
    (tmp_path / 'text.pth').write_text('no')
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(UserError, match=r'none\.pth does not exist'):
        read_weights(str(tmp_path / 'none.pth'))
    with pytest.raises(UserError, match=r'text\.pth cannot be read'):
        read_weights(str(tmp_path / 'text.pth'))
    with pytest.raises(UserError, match=r'list\.pth holds a list'):
        read_weights(str(tmp_path / 'list.pth'))
