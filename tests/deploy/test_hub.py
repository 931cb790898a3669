"""Folders for timm, read by the real library."""

import json

import pytest
import timm
import torch
from mmengine.config import Config
from mmpretrain.apis import get_model
from safetensors.torch import load_file

from halvit_mm.deploy.hub import _ratio, publish_on_hub
from halvit_mm.errors import UserError
from halvit_mm.names import to_timm
from halvit_mm.timm import HaLViT, from_pretrained
from tests.utils import ROOT, run_tool

CONFIG = ROOT / 'configs/digits/halvit_2xb64_digits.py'


def digits(**backbone) -> Config:
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.update(backbone)
    return cfg


def trained(cfg: Config, path) -> torch.nn.Module:
    """Write a checkpoint as a training does; its parameters, zeros among them, are random."""
    model = get_model(cfg)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(dict(meta=dict(epoch=1), state_dict=model.state_dict(), optimizer={}), path)
    return model.eval()


@pytest.mark.parametrize(
    'backbone',
    [{}, dict(arch='micro', patch_size=16, share=3, layer_scale_init_value=0.5), dict(tie='attn', tie_rank=2)],
    ids=str,
)
def test_the_model_and_its_images(backbone, tmp_path):
    cfg = digits(**backbone)
    if 'arch' in backbone:
        cfg.model.head.in_channels = 192
    model = trained(cfg, tmp_path / 'epoch_1.pth')
    cfg.test_dataloader.dataset.metainfo = dict(classes=[f'digit {i}' for i in range(10)])
    assert publish_on_hub(cfg, tmp_path / 'epoch_1.pth', tmp_path / 'halvit-digits') == str(tmp_path / 'halvit-digits')
    assert {file.name for file in tmp_path.iterdir()} == {'epoch_1.pth', 'halvit-digits'}
    assert len({file.stat().st_mode for file in (tmp_path / 'halvit-digits').iterdir()}) == 1
    written = load_file(tmp_path / 'halvit-digits/model.safetensors')
    assert all(torch.equal(written[name], value) for name, value in to_timm(model.state_dict()).items())
    x = torch.randn(2, 3, 32, 32)
    for ours in (
        from_pretrained(tmp_path / 'halvit-digits'),
        timm.create_model(f'local-dir:{tmp_path}/halvit-digits', pretrained=True),
    ):
        assert isinstance(ours, HaLViT)
        torch.testing.assert_close(ours.eval()(x), model(x), rtol=0, atol=1e-5)
    data = timm.data.resolve_data_config(model=ours)
    assert data['input_size'] == (3, 32, 32)
    torch.testing.assert_close(torch.tensor([data['mean'], data['std']]) * 255, torch.tensor([[78.0] * 3, [96.0] * 3]))
    assert (data['interpolation'], data['crop_pct'], data['crop_mode']) == ('bicubic', 1.0, 'squash')
    assert ours.pretrained_cfg['label_names'][3] == 'digit 3'
    assert from_pretrained(tmp_path / 'halvit-digits', num_classes=3).num_classes == 3


def test_ratio():
    pairs = [(hidden, width) for hidden in range(1, 3000) for width in (49, 93, 384)]
    assert not all(int(width * (hidden / width)) == hidden for hidden, width in pairs)
    assert all(int(width * _ratio(hidden, width)) == hidden for hidden, width in pairs)


def test_the_tool_and_the_card(tmp_path):
    trained(digits(), tmp_path / 'epoch_1.pth')
    (tmp_path / 'metrics.json').write_text(json.dumps({'accuracy/top1': 98.8888931274414}))
    (tmp_path / 'new').mkdir()
    arguments = ['--config', CONFIG, '--metrics', 'metrics.json', '--license', 'cc-by-4.0', '--hub', 'new']
    assert run_tool('tools/publish_model.py', 'epoch_1.pth', *arguments, cwd=tmp_path).stdout.splitlines()[-1] == 'new'
    card = (tmp_path / 'new/README.md').read_text()
    assert card.startswith('---\n')
    for line in (
        'license: cc-by-4.0',
        'library_name: timm',
        '| parameters | 360,682 |',
        '| accuracy/top1 | 98.89 |',
        "model = from_pretrained('new').eval()",
    ):
        assert line in card.splitlines()
    assert json.loads((tmp_path / 'new/config.json').read_text())['pretrained_cfg']['license'] == 'cc-by-4.0'
    for arguments, expected in (
        (['--hub', 'other'], '--hub needs the config of the training; expected --config FILE'),
        (
            ['--out', 'a.pth', '--metrics', 'metrics.json'],
            '--config and --metrics belong to --hub, and --out is given; ',
        ),
    ):
        refused = run_tool('tools/publish_model.py', 'epoch_1.pth', *arguments, cwd=tmp_path, check=False)
        assert refused.returncode == 2
        assert refused.stdout.splitlines()[-1].startswith(f'error: {expected}')


def test_imagenet_s_crop(tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/halvit/halvit-micro_8xb128_in1k.py')
    model = trained(cfg, tmp_path / 'epoch_1.pth')
    publish_on_hub(cfg, tmp_path / 'epoch_1.pth', tmp_path / 'halvit')
    config = json.loads((tmp_path / 'halvit/config.json').read_text())
    assert config['architecture'] == 'halvit_micro_patch16_224'
    data = config['pretrained_cfg']
    assert (data['input_size'], data['crop_pct'], data['crop_mode']) == ([3, 224, 224], 0.875, 'center')
    assert data['mean'] == pytest.approx([0.485, 0.456, 0.406], abs=1e-3)
    assert 'The accuracy was not given' in (tmp_path / 'halvit/README.md').read_text()
    assert sum(p.numel() for p in model.parameters()) == 3_063_208


def test_refusals(tmp_path):
    path, new = tmp_path / 'epoch_1.pth', tmp_path / 'new'
    trained(digits(), path)
    with pytest.raises(
        UserError, match=r'outputs of timm.s HaLViT differ by .* without windows, with GELU, whose head'
    ):
        publish_on_hub(digits(layer_cfgs=dict(act_cfg=dict(type='ReLU'))), path, new)
    with pytest.raises(UserError, match='is not a checkpoint of this model'):
        publish_on_hub(digits(tie='none'), path, new)
    with pytest.raises(UserError, match=r'is not the config of a classifier with halvit_mm\.HaLViT; expected one'):
        cfg = digits()
        cfg.model.backbone.type = 'mmpretrain.VisionTransformer'
        del cfg.model.backbone['tie']
        torch.save(dict(state_dict=get_model(cfg).state_dict()), tmp_path / 'vit.pth')
        publish_on_hub(cfg, tmp_path / 'vit.pth', new)
    with pytest.raises(UserError, match="eps=1e-05 is not that of the norms of timm's HaLViT; expected 1e-06"):
        publish_on_hub(digits(norm_cfg=dict(type='LN', eps=1e-5)), path, new)
    bgr = digits()
    bgr.data_preprocessor.to_rgb = False
    with pytest.raises(UserError, match=r'data_preprocessor\.to_rgb is not True; timm reads images as RGB'):
        publish_on_hub(bgr, path, new)
    with pytest.raises(UserError, match='folder .*none does not exist'):
        publish_on_hub(digits(), path, tmp_path / 'none/new')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full/file.json').touch()
    for full in (path, tmp_path / 'full'):
        with pytest.raises(UserError, match=f'--hub {full} is not empty; expected a new folder, or hf-hub:NAME/MODEL'):
            publish_on_hub(digits(), path, full)
    (tmp_path / 'metrics.json').write_text('["a"]')
    with pytest.raises(UserError, match='metrics.json is not a file of figures by name'):
        publish_on_hub(digits(), path, new, tmp_path / 'metrics.json')
    with pytest.raises(UserError, match=r'--metrics .*absent\.json does not exist'):
        publish_on_hub(digits(), path, new, tmp_path / 'absent.json')
    assert not new.exists()
    assert {file.suffix for file in tmp_path.rglob('*.*')} == {'.pth', '.json'}


def test_a_hub_that_is_not_reached(tmp_path, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', 'http://127.0.0.1:9')
    monkeypatch.setenv('HF_TOKEN', 'hf_none')
    trained(digits(), tmp_path / 'epoch_1.pth')
    with pytest.raises(UserError, match='--hub hf-hub:me/halvit cannot be written to: .*127.0.0.1') as error:
        publish_on_hub(digits(), tmp_path / 'epoch_1.pth', 'hf-hub:me/halvit')
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='hf-hub:me/a/b cannot be written to: Repo id'):
        publish_on_hub(digits(), tmp_path / 'epoch_1.pth', 'hf-hub:me/a/b')
