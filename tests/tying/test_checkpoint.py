import copy
import re

import pytest
import timm
import torch
import torchvision
from mmengine.config import Config
from mmpretrain.registry import MODELS

from halvit_mm.data.digits import write_digits
from halvit_mm.errors import UserError
from halvit_mm.io.weights import read_weights, to_mmpretrain
from halvit_mm.models import HaLViT, SharedStageResNet
from halvit_mm.tying.calibrate import fit_units, output_error
from halvit_mm.tying.checkpoint import load_plain, tie_checkpoint, tie_weights, units_of
from tests.utils import ROOT, TINY_ARCH, run_tool, untie_state_dict

CONFIG = ROOT / 'configs/digits/halvit_2xb64_digits.py'
SMALL = dict(img_size=32, patch_size=8, layer_scale_init_value=0.5)


def make_vit(tie: str, **cfg) -> HaLViT:
    vit = HaLViT(TINY_ARCH, tie=tie, **SMALL, **cfg).double().eval()
    for name, parameter in vit.named_parameters():
        if 'deviation' not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return vit


def images(number: int = 4) -> torch.Tensor:
    return torch.randn(number, 3, 32, 32, dtype=torch.double)


@pytest.mark.parametrize('way', ['mean', 'bases', 'products'])
@pytest.mark.parametrize('tie', ['both', 'attn', 'ffn'])
def test_annealed_model_starts_as_the_plain_one(way, tie):
    plain, tied = make_vit('none'), make_vit(tie, annealed=True)
    layers = tie_weights(plain, tied, way)
    assert len(layers) == (6 if tie == 'both' else 3)
    x = images()
    torch.testing.assert_close(tied(x)[0], plain(x)[0], rtol=0, atol=1e-9)


def test_a_tied_model_written_out_is_found_again():
    target, plain, tied = make_vit('both'), make_vit('none'), make_vit('both')
    plain.load_state_dict(untie_state_dict(target.state_dict()))
    layers = tie_weights(plain, tied, 'mean')
    assert max(error for layer in layers for error in layer.weights.values()) < 1e-12
    for name, value in target.state_dict().items():
        torch.testing.assert_close(tied.state_dict()[name], value, rtol=0, atol=1e-12)


def test_fit_brings_outputs_closer():
    plain, tied = make_vit('none'), make_vit('both')
    layers = [layer.name for layer in tie_weights(plain, tied, 'products')]
    assert units_of(layers) == ['layers.0', 'layers.1', 'layers.2']
    reported, batches = {}, [images(16) for _ in range(4)]
    fit_units(plain, tied, units_of(layers), batches, 60, 1e-2, lambda name, *errors: reported.update({name: errors}))
    assert [*reported] == units_of(layers)
    assert all(after < 0.7 * before for before, after in reported.values()), reported
    assert not tied.training


def test_fit_of_an_annealed_model_leaves_it_the_plain_one():
    plain, tied = make_vit('none'), make_vit('both', annealed=True)
    layers = [layer.name for layer in tie_weights(plain, tied, 'mean')]
    before = tied.layers[0].ffn.weight.clone()
    fit_units(plain, tied, units_of(layers), [images(16)], 3)
    assert not torch.equal(tied.layers[0].ffn.weight, before)
    x = images()
    torch.testing.assert_close(tied(x)[0], plain(x)[0], rtol=0, atol=1e-9)


def test_output_error_leaves_the_shortcut_out():
    plain, tied = make_vit('none'), make_vit('both', annealed=True)
    tie_weights(plain, tied, 'mean')
    assert output_error(plain, tied, 'layers.1.ffn', [images()]) < 1e-9
    with torch.no_grad():
        tied.layers[1].ffn.gamma2.weight.zero_()
    assert output_error(plain, tied, 'layers.1.ffn', [images()]) == pytest.approx(1)


def resnet(shared: tuple[int, ...], **cfg) -> SharedStageResNet:
    return (
        SharedStageResNet(50, shared, stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3), **cfg).double().eval()
    )


@pytest.mark.parametrize('cfg', [dict(), dict(groups=2, width_per_group=4)], ids=['resnet', 'resnext'])
def test_a_shared_stage_hidden_in_a_plain_one_is_found_again(cfg):
    """Hidden channels in other places and scales; the stage's first block apart, which has no plain form."""
    plain, tied, sought = resnet((), **cfg), resnet((2,), **cfg), resnet((2,), **cfg)
    stage, blocks = sought.layer3, plain.layer3
    mid, groups = stage.weight.shape[0], stage[0].conv2.groups
    for module in stage.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                torch.nn.init.normal_(value, 0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        for block, own in zip(blocks, stage):
            block.load_state_dict(own.state_dict(), strict=False)
            block.conv1.weight.copy_(stage.weight[:, -block.conv1.in_channels :])
            block.conv3.weight.copy_(stage.weight.transpose(0, 1))
            # The norm in front of conv1 takes a factor back, the norm behind conv2 the inverse of conv3's
            order = torch.cat([torch.randperm(mid // groups) + g * mid // groups for g in range(groups)])
            block.conv3.weight.copy_(block.conv3.weight[:, order] * 2)
            block.conv2.weight.copy_(block.conv2.weight[order])
            for name in ('weight', 'bias'):
                value = getattr(block.norm2, name)
                value.copy_(value[order] / 2)
            block.norm2.running_mean.copy_(block.norm2.running_mean[order])
            block.norm2.running_var.copy_(block.norm2.running_var[order])
            factor = torch.rand(mid, dtype=torch.double) + 0.5
            block.conv1.weight.mul_(factor.view(-1, 1, 1, 1))
            block.norm1.running_mean.mul_(factor)
            block.norm1.running_var.copy_((block.norm1.running_var + 1e-5) * factor**2 - 1e-5)
    tie_weights(plain, tied, 'bases')
    x = torch.randn(2, stage.weight.shape[1], 5, 5, dtype=torch.double)
    for own, block in [*zip(tied.layer3, blocks)][1:]:
        torch.testing.assert_close(own(x, tied.layer3.weight), block(x), rtol=0, atol=1e-6)


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
    ours = MODELS.build({**cfg, 'head': {**cfg.head, 'num_classes': 5}}).eval()
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


def test_weights_of_another_shape_are_refused(tmp_path):
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.tie = 'none'
    state = MODELS.build({**cfg.model, '_scope_': 'mmpretrain'}).state_dict()
    state['backbone.layers.0.attn.proj.weight'] = torch.zeros(3, 3)
    del state['backbone.layers.0.ln1.weight']
    torch.save(state, tmp_path / 'plain.pth')
    message = (
        r'plain\.pth does not fit .*: backbone\.layers\.0\.ln1\.weight missing instead of \(96,\); '
        r'backbone\.layers\.0\.attn\.proj\.weight \(3, 3\) instead of \(96, 96\)$'
    )
    with pytest.raises(UserError, match=message):
        load_plain(cfg, str(tmp_path / 'plain.pth'))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(embed_dims=48), r'cls_token \(1, 1, 24\) instead of \(1, 1, 48\); pos_embed .* and \d+ more'),
        (dict(feedforward_channels=48), r'layers\.0\.ffn\.weight \(40, 24\) instead of \(48, 24\)'),
        (dict(num_layers=2), r'layers\.2\.ln1\.weight has no place'),
    ],
)
def test_models_that_do_not_fit_are_refused(change, message):
    plain = make_vit('none')
    tied = HaLViT({**TINY_ARCH, **change}, **SMALL)
    before = {name: value.clone() for name, value in tied.state_dict().items()}
    with pytest.raises(UserError, match=message):
        tie_weights(plain, tied)
    assert all(torch.equal(value, before[name]) for name, value in tied.state_dict().items())
    with pytest.raises(UserError, match='no tied layer'):
        tie_weights(plain, make_vit('none'))


def test_nothing_is_written_where_it_does_not_fit(tmp_path):
    cfg = Config.fromfile(CONFIG)
    state = MODELS.build({**cfg.model, '_scope_': 'mmpretrain'}).state_dict()
    torch.save(state, tmp_path / 'tied.pth')
    cfg.model.backbone.tie = 'none'
    with pytest.raises(UserError, match=r'tied\.pth does not fit .*: backbone\.layers\.0\.attn\.qkv\.weight missing'):
        tie_checkpoint(cfg, str(tmp_path / 'tied.pth'), Config.fromfile(CONFIG), str(tmp_path / 'out.pth'))
    assert [file.name for file in tmp_path.iterdir()] == ['tied.pth']


def test_a_start_follows_from_the_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_digits(tmp_path / 'data/digits')
    target = Config.fromfile(ROOT / 'configs/digits/resnet50-pe_2xb64_digits.py')
    target.train_dataloader.batch_size = 4
    target.val_dataloader.dataset.indices = 4
    source = copy.deepcopy(target)
    source.model.backbone.shared_stages = ()
    torch.save(MODELS.build({**source.model, '_scope_': 'mmpretrain'}).state_dict(), 'plain.pth')

    def start(seed: int) -> dict[str, torch.Tensor]:
        target.randomness = dict(seed=seed)
        tie_checkpoint(source, 'plain.pth', target, 'out.pth', calibrate_cfg=target, images=8, steps=1)
        return torch.load('out.pth')['state_dict']

    first, again, other = start(1), start(1), start(2)
    same = [all(torch.equal(first[name], state[name]) for name in first) for state in (again, other)]
    assert same == [True, False]


@pytest.mark.long
def test_tool_on_the_digits(tmp_path):
    write_digits(tmp_path / 'data/digits')
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.tie = 'none'
    state = MODELS.build({**cfg.model, '_scope_': 'mmpretrain'}).state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'plain.pth')
    tool = ('tools/tie_checkpoint.py', CONFIG, 'plain.pth', CONFIG, '--out', 'tied.pth')
    options = ('--source-options', 'model.backbone.tie=none', '--calibrate', CONFIG, '--images', '128', '--steps', '3')
    done = run_tool(*tool, *options, cwd=tmp_path).stdout
    assert re.search(r'backbone\.layers\.5\.ffn: weight 0\.\d{3}, output \d\.\d{3}\n', done)
    assert re.search(r'backbone\.layers\.0: \d\.\d{3} -> \d\.\d{3}\n', done)
    assert re.search(r'top-1 before any fine-tuning: \d+\.\d\d %', done)
    model = MODELS.build({**Config.fromfile(CONFIG).model, '_scope_': 'mmpretrain'})
    model.load_state_dict(torch.load(tmp_path / 'tied.pth')['state_dict'])
