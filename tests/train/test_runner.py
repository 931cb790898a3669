import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop

from halvit_mm.data import write_digits
from halvit_mm.errors import UserError
from halvit_mm.io.build import build_model
from halvit_mm.io.checkpoints import load_file
from halvit_mm.train import (
    BadImageHook,
    FiniteStepHook,
    HangHook,
    IterationSeedHook,
    LabelHook,
    LogHistoryHook,
    ResultHook,
    ResumableRunner,
    StoredLogitsHook,
    WholeCheckpointHook,
)
from tests.train.test_seeds import NoisyNumbers
from tests.utils import ROOT, assert_identical, run_tool

OWN = [IterationSeedHook, LabelHook, StoredLogitsHook, LogHistoryHook, FiniteStepHook, BadImageHook, HangHook]
OWN += [ResultHook]


def own_hooks(runner) -> list[type]:
    return sorted({type(hook) for hook in runner.hooks} & {*OWN}, key=lambda kind: kind.__name__)


class TestHooks:
    def test_all_are_there(self, build_runner):
        runner = build_runner()
        assert {*own_hooks(runner)} == {*OWN}
        assert any(isinstance(hook, WholeCheckpointHook) for hook in runner.hooks)

    def test_none_leaves_one_out(self, build_runner):
        for name, kind in dict(
            finite=FiniteStepHook, hang=HangHook, labels=LabelHook, checkpoint=CheckpointHook
        ).items():
            runner = build_runner(name, **{f'default_hooks.{name}': None})
            assert not any(isinstance(hook, kind) for hook in runner.hooks)

    def test_a_config_without_them_has_them(self, build_runner):
        """As a user's own, which inherits from mmpretrain."""
        names = ('seeds', 'labels', 'history', 'finite', 'bad_images', 'hang', 'result')
        hooks = {key: value for key, value in Config.fromfile(CONFIG).default_hooks.items() if key not in names}
        hooks['checkpoint'] = dict(type='CheckpointHook', interval=1)
        runner = build_runner(default_hooks=dict(_delete_=True, **hooks))
        assert {*own_hooks(runner)} == {*OWN}
        assert any(isinstance(hook, WholeCheckpointHook) for hook in runner.hooks)

    def test_arguments_by_hook_and_by_shorthand(self, build_runner):
        def action(runner) -> list:
            return [hook.action for hook in runner.hooks if isinstance(hook, (FiniteStepHook, BadImageHook))]

        assert action(build_runner('a')) == ['stop', 'stop']
        short = {'reliability.not_finite': 'skip', 'reliability.bad_images': 'skip'}
        assert action(build_runner('b', **short)) == ['skip', 'skip']
        assert action(build_runner('c', **{'default_hooks.finite.action': 'skip'})) == ['skip', 'stop']
        with pytest.raises(UserError, match=r"reliability\.not_finite='skip' and default_hooks\.finite\.action='stop'"):
            build_runner('d', **short, **{'default_hooks.finite.action': 'stop'})


def test_the_dumped_config_is_what_was_given(build_runner, tmp_path):
    options = {'reliability.bad_images': 'skip'}
    build_runner(**options, **{'randomness.seed': None}).train()
    dumped = Config.fromfile(tmp_path / 'run/halvit_2xb64_digits.py')
    resumed = build_runner(resume=True, **options, **{'randomness.seed': None})
    resumed.train()
    again = Config.fromfile(tmp_path / 'run/halvit_2xb64_digits.py')
    for cfg in (dumped, again):
        assert 'bad_images' not in cfg.train_dataloader
        assert cfg.randomness.seed is None
        assert cfg.load_from is None
        assert 'model_wrapper_cfg' not in cfg
        assert 'device_ids' not in cfg.pretty_text
        assert cfg.env_cfg == Config.fromfile(CONFIG).env_cfg
    assert resumed.seed is not None


def test_weights_of_another_model_are_refused(build_runner, tmp_path):
    """In load_from, where upstream would start from the norms and embeddings alone."""
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.update(tie='none', arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=40))
    cfg.model.head.in_channels = 24
    torch.save(dict(state_dict=build_model(cfg).state_dict()), tmp_path / 'plain.pth')
    runner = build_runner(load_from=str(tmp_path / 'plain.pth'))
    with pytest.raises(
        UserError, match="HaLViT cannot take these weights: .* The weights are the untied counterpart's"
    ):
        runner.train()


def test_weights_that_do_not_fill_the_model(build_runner, tmp_path):
    """A training may start from them; a test or a resumed training would be of weights as they were drawn."""
    loop = dict(by_epoch=True, max_epochs=1, val_begin=9)
    build_runner(loop=loop).train()
    options = {'load_from': str(tmp_path / 'run/epoch_1.pth'), 'model.head.num_classes': 12}
    build_runner('other', loop=loop, **options).train()
    message = r'epoch_1\.pth is not a checkpoint of this model: 2 of its .* head\.layers\.head\.weight \(10, 24\)'
    with pytest.raises(UserError, match=message):
        build_runner('other', **options).test()
    with pytest.raises(UserError, match=message):
        build_runner('other', **options, resume=True).train()


def test_a_loop_of_the_users_own_is_kept(build_runner):
    class Loop(EpochBasedTrainLoop):
        pass

    assert (
        type(build_runner(loop=dict(type=Loop, max_epochs=1)).build_train_loop(dict(type=Loop, max_epochs=1))) is Loop
    )


CONFIG = ROOT / 'configs/digits/halvit_2xb64_digits.py'
DETECTOR = ROOT / 'configs/digits/mask-rcnn_resnet50-pe_digits-coco.py'


def upstream_tool(package: str, tool: str) -> Path:
    return Path(__import__(package).__file__).parent / f'.mim/tools/{tool}.py'


@pytest.mark.long
def test_upstreams_own_tools_train_resume_and_test(tmp_path):
    """mmpretrain's, unmodified, on two ranks; a run that is cut and resumed ends as one that is not, bit for bit."""
    write_digits(tmp_path / 'data/digits')
    train, test = (upstream_tool('mmpretrain', tool) for tool in ('train', 'test'))
    options = ['--launcher', 'pytorch', '--cfg-options', 'param_scheduler=None', 'default_hooks.checkpoint.interval=1']
    options += [
        'model.backbone.arch.num_layers=2',
        'train_dataloader.dataset.indices=300',
        'model.backbone.drop_path_rate=0.3',
    ]
    for name, epochs, flags in (('whole', 2, []), ('cut', 1, []), ('cut', 2, ['--resume'])):
        command = [train, CONFIG, '--work-dir', name, *flags, *options, f'train_cfg.max_epochs={epochs}']
        run_tool(*command, ranks=2, cwd=tmp_path)
    whole, cut = (torch.load(tmp_path / f'{name}/epoch_2.pth', weights_only=False) for name in ('whole', 'cut'))
    assert_identical(whole['state_dict'], cut['state_dict'])
    assert_identical(whole['optimizer'], cut['optimizer'])
    # What is dumped is what was given, and runs too.
    dumped = tmp_path / 'whole' / CONFIG.name
    for word in ('gloo', 'device_ids', 'model_wrapper_cfg', 'CheckedDataset', 'Seeded'):
        assert word not in dumped.read_text()
    tested = run_tool(test, dumped, 'cut/epoch_2.pth', '--launcher', 'pytorch', ranks=2, cwd=tmp_path).stdout
    assert 'accuracy/top1' in tested


@pytest.mark.long
def test_mmdets_own_tools_train_resume_and_test(tmp_path):
    from halvit_mm.data import write_digits_coco

    write_digits_coco(tmp_path / 'data/digits_coco', train=8, val=4)
    options = ['--launcher', 'pytorch', '--cfg-options', 'param_scheduler=None', 'default_hooks.checkpoint.interval=1']
    options += ['train_dataloader.batch_size=2']
    for epochs, flags in ((1, []), (2, ['--resume'])):
        command = [upstream_tool('mmdet', 'train'), DETECTOR, '--work-dir', 'run', *flags, *options]
        trained = run_tool(*command, f'train_cfg.max_epochs={epochs}', ranks=2, cwd=tmp_path).stdout
    assert 'resumed epoch: 1, iter: 2' in trained
    command = [upstream_tool('mmdet', 'test'), DETECTOR, 'run/epoch_2.pth', '--launcher', 'pytorch']
    assert 'coco/bbox_mAP' in run_tool(*command, ranks=2, cwd=tmp_path).stdout


class TestNotices:
    """Lines of a resumed training that is not what its config says."""

    COSINE = [dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)]

    @pytest.fixture
    def warned(self, build_runner):
        """Train two epochs, then resume with other options; the warnings of the second training."""

        def warned(before: dict, options: dict, epochs: int = 2) -> str:
            loop = dict(by_epoch=True, max_epochs=2, val_interval=10)
            build_runner('run', loop, **before).train()
            runner = build_runner('run', {**loop, 'max_epochs': epochs}, resume=True, **{**before, **options})
            said = []
            runner.logger.warning = lambda message, *_: said.append(str(message))
            runner.train()
            return '\n'.join(line for line in said if 'dataset metainfo' not in line)

        return warned

    def test_nothing_is_said_of_a_run_that_goes_on_as_it_began(self, warned):
        assert warned(dict(param_scheduler=self.COSINE), {}) == ''

    def test_raised_epochs(self, warned):
        said = warned(dict(param_scheduler=self.COSINE), {}, epochs=3)
        assert 'schedule of the learning rate (CosineAnnealingLR) ends at iteration 10 of 15; from there on' in said

    def test_another_rate(self, warned):
        said = warned(dict(param_scheduler=self.COSINE), {'optim_wrapper.optimizer.lr': 0.5})
        assert 'lr=0.5 of the config is not used: a resumed optimizer goes on with lr=' in said


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmengine'])
def test_averaged_weights_into_another_number_of_classes(build_runner, scope, tmp_path):
    """The backbone has the averages, as without the hook; the head begins anew."""
    hook = dict(type=f'{scope}.EMAHook', momentum=0.5)
    build_runner('first', custom_hooks=[hook]).train()
    path = tmp_path / 'first/epoch_2.pth'
    begun = {}

    class Look(Hook):
        def before_train(self, runner) -> None:
            begun.update({name: value.clone() for name, value in runner.model.state_dict().items()})

    more = {'model.head.num_classes': 12, 'load_from': str(path)}
    runner = build_runner('second', custom_hooks=[hook], **more)
    runner.register_hook(Look(), 'LOWEST')
    runner.train()
    averages = load_file(path)['state_dict']
    different = {name for name, value in averages.items() if not torch.equal(value, begun[name])} if begun else None
    assert different == {name for name in averages if name.startswith('head.layers.head')}


def test_memory_is_pinned_where_there_is_a_gpu(monkeypatch):
    """As mmpretrain's tool asks for it; mmdet's does not."""
    loader = dict(batch_size=2, num_workers=0, dataset=dict(type=NoisyNumbers), sampler=dict(type='DefaultSampler'))
    for device, pinned in (('cuda', True), ('cpu', False)):
        monkeypatch.setattr('halvit_mm.train.runner.get_device', lambda device=device: device)
        assert ResumableRunner.build_dataloader(loader, seed=3).pin_memory == pinned
        assert not ResumableRunner.build_dataloader({**loader, 'pin_memory': False}, seed=3).pin_memory


def test_products_in_deterministic_mode(build_runner, monkeypatch):
    """torch refuses them on a GPU unless cuBLAS has been told."""
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', '')
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG')
    try:
        build_runner(**{'randomness.deterministic': True})
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
