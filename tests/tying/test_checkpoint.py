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


@pytest.mark.parametrize('tie', ['both', 'attn', 'ffn', 'none'])
def test_layers_that_share_start_at_the_mean(tie):
    """Of all matrices that each replaces, in the three layers of which two share; the errors are those of the means."""
    plain, tied = make_vit('none'), make_vit(tie, share=2)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    layers = tie_weights(plain, tied, 'mean')
    last = ['layers.2.attn'] * (tie in ('both', 'attn')) + ['layers.2.ffn'] * (tie in ('both', 'ffn'))
    assert [layer.name for layer in layers] == [f'layers.{i}.{part}' for i in (0, 1) for part in ('attn', 'ffn')] + last
    for i, layer in enumerate(tied.layers):
        group = plain.layers[:2] if i < 2 else plain.layers[2:]
        ffns, attns = ([getattr(one, part) for one in group] for part in ('ffn', 'attn'))
        way_in, way_out = (
            [f(one) for one in ffns] for f in (lambda f: f.layers[0][0].weight, lambda f: f.layers[1].weight)
        )
        if tie in ('both', 'ffn'):
            mean = sum(way_in + [way.T for way in way_out]) / (2 * len(group))
            torch.testing.assert_close(layer.ffn.matrix('weight'), mean)
            own = torch.cat((way_in[i % 2], way_out[i % 2].T))
            error = ((own - torch.cat((mean, mean))).norm() / own.norm()).item()
            assert layers[2 * i + 1 if tie == 'both' or i < 2 else -1].weights == {'weight': pytest.approx(error)}
        else:
            torch.testing.assert_close(layer.ffn.layers[0][0].weight, sum(way_in) / len(group))
            torch.testing.assert_close(layer.ffn.layers[1].weight, sum(way_out) / len(group))
            if i < 2:
                error = (way_in[i] - way_in[1 - i]).norm() / 2 / way_in[i].norm()
                assert layers[2 * i + 1].weights['layers.0.0'] == pytest.approx(error.item())
                assert layers[2 * i + 1].weights.keys() == {'layers.0.0', 'layers.1'}
        if tie in ('ffn', 'none'):
            torch.testing.assert_close(layer.attn.qkv.weight, sum(one.qkv.weight for one in attns) / len(group))
        else:
            keys = [part for one in attns for part in (one.qkv.weight.chunk(3)[0], one.proj.weight.T)]
            assert layer.attn.matrix('q_weight').shape == keys[0].shape
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_errors_are_those_with_slack():
    """With slack of full rank only the way in is off."""
    plain, tied = make_vit('none'), make_vit('both', tie_rank=24)
    layers = {layer.name: layer.weights for layer in tie_weights(plain, tied, 'mean')}
    first, last = plain.layers[1].ffn.layers[0][0].weight, plain.layers[1].ffn.layers[1].weight.T
    error = (first - last).norm() / 2 / torch.cat((first, last)).norm()
    assert layers['layers.1.ffn']['weight'] == pytest.approx(error.item())


@pytest.mark.parametrize(
    ('change', 'told'), [(dict(num_layers=2), 'layers.2.'), (dict(feedforward_channels=48), r'instead of \(48, 24\)')]
)
@pytest.mark.parametrize('tie', ['attn', 'none'])
def test_sharing_models_that_do_not_fit_are_refused(tie, change, told):
    with pytest.raises(UserError, match=told):
        tie_weights(make_vit('none'), HaLViT({**TINY_ARCH, **change}, **SMALL, tie=tie, share=2))


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        (dict(steps=0), '--steps 0 is not a number of steps'),
        (dict(images=-4), '--images -4 is not a number of images'),
        (dict(lr=-1.0), r'--lr -1\.0 is not a learning rate; expected a number above 0'),
        (dict(lr=float('nan')), '--lr nan is not'),
    ],
)
def test_options_out_of_range(options, told, tmp_path):
    cfg = Config.fromfile(CONFIG)
    with pytest.raises(UserError, match=told):
        tie_checkpoint(cfg, 'none.pth', cfg, str(tmp_path / 'out.pth'), **options)


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
