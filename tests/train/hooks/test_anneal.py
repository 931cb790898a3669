"""A small HaLViT on real digits, from an untied counterpart to a tied model."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

from halvit_mm.data.digits import write_digits
from halvit_mm.layers import add_deviations, remove_deviations
from halvit_mm.models import HaLViT
from halvit_mm.train import AnnealTyingHook, ResumableRunner
from halvit_mm.tying.checkpoint import build_model, tie_weights
from tests.utils import ROOT, TINY_ARCH, run_tool

CONFIG = ROOT / 'configs/digits/halvit-warm_2xb64_digits.py'
EMA = dict(type='EMAHook', momentum=0.1, _scope_='mmpretrain')


def test_schedules():
    for schedule in ('cosine', 'linear'):
        hook = AnnealTyingHook(end=0.5, schedule=schedule)
        values = [hook.alpha(i, 100) for i in range(100)]
        assert values[0] == 1
        assert values[25] == pytest.approx(0.5)
        assert values[49] > 0
        assert not any(values[50:])
        assert values == sorted(values, reverse=True)
    assert AnnealTyingHook(end=1.0).alpha(99, 100) == 0
    assert AnnealTyingHook(end=1.0).alpha(98, 100) > 0
    assert AnnealTyingHook().alpha(0, 1) == 1


@pytest.mark.parametrize(('cfg', 'told'), [(dict(end=0), 'end=0 '), (dict(schedule='step'), "schedule='step' is")])
def test_refusals(cfg, told):
    with pytest.raises(ValueError, match=told):
        AnnealTyingHook(**cfg)
    with pytest.raises(ValueError, match='no tied attention'):
        HaLViT(TINY_ARCH, img_size=32, tie='none', annealed=True)


def test_deviation_is_two_matrices():
    vit = HaLViT(TINY_ARCH, img_size=32, patch_size=8, annealed=True).double()
    ffn = vit.layers[0].ffn
    for parameter in ffn.parameters():
        torch.nn.init.normal_(parameter)
    ffn.deviation.alpha.fill_(0.25)
    x = torch.randn(3, 24, dtype=torch.double)
    way_in = ffn.weight + 0.25 * ffn.deviation.way_in['weight']
    way_out = ffn.weight + 0.25 * ffn.deviation.way_out['weight']
    expected = torch.nn.functional.gelu(x @ way_in.T + ffn.hidden_bias) @ way_out + ffn.out_bias
    torch.testing.assert_close(ffn(x, identity=torch.zeros_like(x)), expected, rtol=0, atol=1e-12)
    untouched = {name for name, _ in HaLViT(TINY_ARCH, img_size=32, patch_size=8).named_parameters()}
    remove_deviations(vit)
    assert {name for name, _ in vit.named_parameters()} == untouched


def test_a_tied_checkpoint_loads_into_an_annealed_model():
    tied = HaLViT(TINY_ARCH, img_size=32, patch_size=8).eval()
    annealed = HaLViT(TINY_ARCH, img_size=32, patch_size=8, annealed=True).eval()
    annealed.load_state_dict(tied.state_dict(), strict=False)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(annealed(x)[0], tied(x)[0])


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp('digits')
    write_digits(root, val_fraction=0.95)
    return str(root)


def make_cfg(data: str, work_dir, epochs: int = 2) -> Config:
    """Two iterations an epoch."""
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'model.backbone.arch': dict(TINY_ARCH),
            'model.head.in_channels': TINY_ARCH['embed_dims'],
            'model.backbone.annealed': True,
            'param_scheduler': None,
            'train_cfg.max_epochs': epochs,
            'train_cfg.val_interval': 100,
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
            'default_hooks.tying': dict(type='halvit_mm.AnnealTyingHook', end=0.5),
        }
    )
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = data
    cfg.train_dataloader.batch_size = 45
    cfg.experiment_name = f'anneal_{work_dir.name}'
    return cfg


def start(cfg: Config, path) -> torch.nn.Module:
    """Write the start of a training from a plain model of random weights, and give that model."""
    plain_cfg = copy.deepcopy(cfg)
    plain_cfg.model.backbone.update(annealed=False, tie='none')
    plain, tied = build_model(plain_cfg), build_model(cfg)
    tie_weights(plain, tied, 'mean')
    torch.save(dict(state_dict=tied.state_dict()), path)
    return plain.eval()


def trained(cfg: Config) -> Runner:
    runner = ResumableRunner.from_cfg(cfg)
    runner.train()
    return runner


def load(path) -> dict:
    return torch.load(path, weights_only=False)


def tied_model(cfg: Config, state: dict) -> torch.nn.Module:
    tied_cfg = copy.deepcopy(cfg)
    tied_cfg.model.backbone.annealed = False
    model = build_model(tied_cfg)
    model.load_state_dict(state, strict=True)
    return model.eval()


@pytest.mark.parametrize('hooks', [[], [EMA]], ids=['plain', 'ema'])
def test_from_untied_to_tied(data, tmp_path, hooks):
    cfg = make_cfg(data, tmp_path, 4)
    cfg.custom_hooks = hooks
    cfg.load_from = str(tmp_path / 'start.pth')
    plain = start(cfg, cfg.load_from)
    images = torch.randn(4, 3, 32, 32)
    annealed = build_model(cfg)
    annealed.load_state_dict(load(cfg.load_from)['state_dict'])
    torch.testing.assert_close(annealed.eval()(images), plain(images), rtol=0, atol=1e-5)

    runner = trained(cfg)
    assert runner.model.backbone.layers[0].ffn.deviation.way_in['weight'].abs().max() > 0
    assert any('.deviation.' in name for name in load(tmp_path / 'epoch_1.pth')['state_dict'])
    last = load(tmp_path / 'epoch_4.pth')
    assert not any('.deviation.' in key for name in last if 'state_dict' in name for key in last[name])
    model = runner.model.eval()
    if hooks:
        [ema] = [hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook']
        ema._swap_ema_parameters()
    assert torch.equal(tied_model(cfg, last['state_dict'])(images), model(images))


@pytest.mark.parametrize('epoch', [1, 3], ids=['while it is annealed', 'when it is tied'])
def test_resumes(data, tmp_path, epoch):
    cfg = make_cfg(data, tmp_path / 'whole', 4)
    cfg.custom_hooks = [EMA]
    cfg.load_from = str(tmp_path / 'start.pth')
    start(cfg, cfg.load_from)
    trained(copy.deepcopy(cfg))
    again = make_cfg(data, tmp_path / 'again', 4)
    again.custom_hooks = [EMA]
    again.load_from, again.resume = str(tmp_path / f'whole/epoch_{epoch}.pth'), True
    trained(again)
    whole, resumed = (load(tmp_path / f'{name}/epoch_4.pth')['state_dict'] for name in ('whole', 'again'))
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=1e-7)


def test_needs_a_model_with_deviations(data, tmp_path):
    cfg = make_cfg(data, tmp_path)
    cfg.model.backbone.annealed = False
    with pytest.raises(ValueError, match=r'model\.backbone\.annealed=True'):
        trained(cfg)


def test_trains_in_bfloat16():
    vit = MODELS.build(
        dict(type='halvit_mm.HaLViT', arch=TINY_ARCH, img_size=32, patch_size=8, annealed=True, _scope_='mmpretrain')
    )
    with torch.autocast('cpu', torch.bfloat16):
        vit(torch.randn(2, 3, 32, 32))[0].sum().backward()
    for name, parameter in vit.named_parameters():
        if 'deviation' in name:
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.long
def test_two_ranks(data, tmp_path):
    cfg = make_cfg(data, tmp_path, 2)
    cfg.load_from = str(tmp_path / 'start.pth')
    start(cfg, cfg.load_from)
    cfg.custom_hooks = [EMA]
    cfg.dump(tmp_path / 'annealed.py')
    run_tool('tools/train.py', tmp_path / 'annealed.py', '--launcher', 'pytorch', '--work-dir', tmp_path, ranks=2)
    images = torch.randn(2, 3, 32, 32)
    assert tied_model(cfg, load(tmp_path / 'epoch_2.pth')['state_dict'])(images).isfinite().all()


def test_deviations_need_something_tied():
    with pytest.raises(ValueError, match='Linear has no tied'):
        add_deviations(torch.nn.Linear(2, 2))
