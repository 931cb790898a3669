import copy
import re

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from halvit_mm.data.digits import write_digits
from halvit_mm.errors import UserError
from halvit_mm.models import HaLViT, SharedStageResNet
from halvit_mm.tying.checkpoint import read_images, tie_checkpoint, tie_weights
from tests.tying.conftest import SMALL, make_vit
from tests.utils import ROOT, TINY_ARCH, run_tool, untie_state_dict

CONFIG = ROOT / 'configs/digits/halvit_2xb64_digits.py'


def test_a_tied_model_written_out_is_found_again():
    target, plain, tied = make_vit('both'), make_vit('none'), make_vit('both')
    plain.load_state_dict(untie_state_dict(target.state_dict()))
    layers = tie_weights(plain, tied, 'mean')
    assert max(error for layer in layers for error in layer.weights.values()) < 1e-12
    for name, value in target.state_dict().items():
        torch.testing.assert_close(tied.state_dict()[name], value, rtol=0, atol=1e-12)


def test_weights_of_another_shape_are_refused(tmp_path):
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.tie = 'none'
    state = MODELS.build({**cfg.model, '_scope_': 'mmpretrain'}).state_dict()
    state['backbone.layers.0.attn.proj.weight'] = torch.zeros(3, 3)
    del state['backbone.layers.0.ln1.weight']
    torch.save(state, tmp_path / 'plain.pth')
    told = (
        r'plain\.pth is not a checkpoint of this model: backbone\.layers\.0\.ln1\.weight missing instead of \(96,\); '
        r'backbone\.layers\.0\.attn\.proj\.weight \(3, 3\) instead of \(96, 96\)\. '
    )
    with pytest.raises(UserError, match=told):
        tie_checkpoint(cfg, str(tmp_path / 'plain.pth'), Config.fromfile(CONFIG), str(tmp_path / 'out.pth'))


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (dict(embed_dims=48), r'cls_token \(1, 1, 24\) instead of \(1, 1, 48\); pos_embed .* and \d+ more'),
        (dict(feedforward_channels=48), r'layers\.0\.ffn\.weight \(40, 24\) instead of \(48, 24\)'),
        (dict(num_layers=2), r'layers\.2\.ln1\.weight has no place'),
    ],
)
def test_models_that_do_not_fit_are_refused(change, told):
    plain = make_vit('none')
    tied = HaLViT({**TINY_ARCH, **change}, **SMALL)
    before = {name: value.clone() for name, value in tied.state_dict().items()}
    with pytest.raises(UserError, match=told):
        tie_weights(plain, tied)
    assert all(torch.equal(value, before[name]) for name, value in tied.state_dict().items())
    with pytest.raises(UserError, match='no tied layer'):
        tie_weights(plain, make_vit('none'))


def test_nothing_is_written_where_it_does_not_fit(tmp_path):
    cfg = Config.fromfile(CONFIG)
    state = MODELS.build({**cfg.model, '_scope_': 'mmpretrain'}).state_dict()
    torch.save(state, tmp_path / 'tied.pth')
    cfg.model.backbone.tie = 'none'
    with pytest.raises(
        UserError, match=r'tied\.pth is not a checkpoint of this model: backbone\.layers\.0\.attn\.qkv\.weight missing'
    ):
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


def test_blocks_from_the_tenth_on_are_compared():
    """Of ResNet-101's third stage, which has 23."""
    cfg = dict(depth=101, stem_channels=8, base_channels=8)
    plain, tied = SharedStageResNet(shared_stages=(), **cfg), SharedStageResNet(shared_stages=(2,), **cfg)
    tie_weights(plain, tied, 'mean')
    plain.layer3[12].conv2 = torch.nn.Conv2d(32, 32, 5, bias=False)
    with pytest.raises(UserError, match=r'layer3\.12\.conv2\.weight \(32, 32, 5, 5\) instead of \(32, 32, 3, 3\)$'):
        tie_weights(plain, tied, 'mean')


def test_data_that_cannot_be_built_is_told_in_one_line(tmp_path):
    cfg = Config.fromfile(CONFIG)
    cfg.val_dataloader.dataset.data_root = str(tmp_path)
    with pytest.raises(UserError, match=r'^the data loader cannot be built: FileNotFoundError: .*val'):
        read_images(make_vit('none'), cfg.val_dataloader, 8)
