"""Whole configs, held against what reads them."""

import argparse

import pytest
from mmengine.registry import MODELS

from halvit_mm.errors import UserError
from halvit_mm.io.configs import load_config
from halvit_mm.launch.config import check_config, check_numbers, try_to_build
from tests.utils import ROOT

DIGITS = str(ROOT / 'configs/digits/halvit_2xb64_digits.py')
DETECTOR = str(ROOT / 'configs/digits/mask-rcnn_halvit_digits-coco.py')
ARGS = argparse.Namespace(resume=None, checkpoint=None, trust_checkpoint=False)


def check(options: dict, config: str = DIGITS, tool: str = 'train') -> None:
    cfg = load_config(config, options)
    check_numbers(cfg)
    check_config(cfg, tool, ARGS)
    if tool == 'train':
        try_to_build(cfg, tool, ARGS)


@pytest.mark.parametrize(
    'config', ['digits/halvit_2xb64_digits', 'digits/mask-rcnn_pvt_digits-coco', 'tied/tied-detr_r50_8xb2-150e_coco']
)
def test_configs_pass(config, capsys):
    for tool in ('train', 'test'):
        check({}, str(ROOT / f'configs/{config}.py'), tool)
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        (
            'train_dataloader.batchsize',
            2,
            "batchsize is not a key that is read; did you mean 'batch_size'",
        ),
        ('train_dataloader.batch_size', 'all', "batch_size='all' is not a whole number; expected an int"),
        ('train_dataloader.dataset.dataroot', 'x', "is not an argument of CustomDataset; did you mean 'data_root'"),
        ('train_dataloader.sampler.type', 'DefaultSmpler', "did you mean 'DefaultSampler'"),
        ('train_dataloader.dataset.pipeline.0.type', 'Lod', 'pipeline.0 cannot be built: .*Lod'),
        ('train_dataloader.dataset.pipeline.0.x', 1, 'pipeline.0.x is not an argument of LoadImageFromFile; there are'),
        ('val_evaluator.type', 'Acuracy', "did you mean 'Accuracy'"),
        (
            'train_cfg.max_epoch',
            1,
            "train_cfg.max_epoch is not .* EpochBasedTrainLoop; did you mean 'max_epochs'",
        ),
        ('train_dataloader.batch_size', 0, 'train_dataloader.batch_size=0 is too small; expected 1 or more'),
        ('train_dataloader.num_workers', -1, 'train_dataloader.num_workers=-1 is too small; expected 0 or more'),
        ('train_cfg.max_epochs', 0, 'train_cfg.max_epochs=0 is too small; expected 1 or more'),
        ('train_cfg.val_interval', 0, 'train_cfg.val_interval=0 is too small; expected 1 or more'),
        ('randomness.seed', -1, 'randomness.seed=-1 is not a seed; expected an int from 0'),
        ('randomness.seed', 2**32, 'randomness.seed=4294967296 is not a seed'),
        ('randomness.seed', 'a', "randomness.seed='a' is not a seed"),
        ('train_cfg.val_interval', 0.5, 'train_cfg.val_interval=0.5 is not a whole number'),
        ('optim_wrapper.optimizer.type', 'AdamWW', "optim_wrapper.optimizer.type='AdamWW' .* did you mean 'AdamW'"),
        (
            'optim_wrapper.optimizer.lrr',
            1,
            "optimizer.lrr is not an argument of AdamW; did you mean 'lr'",
        ),
        ('optim_wrapper.optimizer.lr', 'big', 'optim_wrapper cannot be built: TypeError'),
        ('optim_wrapper.accumulative_count', 2, "did you mean 'accumulative_counts'"),
        ('optim_wrapper.constructor', 'DefaultOptimWraperConstructor', "did you mean 'DefaultOptimWrapperConstructor'"),
        ('optim_wrapper.paramwise_cfg.norm_decay_mul', 0, "did you mean 'norm_decay_mult'"),
        ('param_scheduler.0.type', 'LinearLr', "param_scheduler.0.type='LinearLr' .* did you mean 'LinearLR'"),
        ('param_scheduler.0.start_factor', 2, 'param_scheduler.0 cannot be built: ValueError: Starting multiplicative'),
        ('default_hooks.loger.interval', 1, "default_hooks.loger has no 'type'; did you mean 'logger'"),
        ('default_hooks.logger.intervall', 1, "is not an argument of LoggerHook; did you mean 'interval'"),
        ('visualizer.type', 'UniversalVisualiser', "did you mean 'UniversalVisualizer'"),
        ('runner_type', 'ResumableRunner', "runner_type='ResumableRunner' .* did you mean 'halvit_mm.ResumableRunner'"),
        ('randomness.sed', 1, "randomness.sed is not a key that is read; did you mean 'seed'"),
        ('default_scope', 'mmdet', 'train_dataloader.dataset.pipeline.2 cannot be built: .*magnitude_range'),
        ('model.backbone.patch_size', 'big', "model cannot be built: .*patch_size='big' is not a height and a width"),
    ],
)
def test_mistakes_are_named(key, value, message):
    with pytest.raises(UserError, match=message):
        check({key: value})


def test_the_splits_that_a_run_does_not_use_are_not_looked_at():
    cfg = load_config(DIGITS, {'test_evaluator.type': 'Acuracy', 'val_evaluator.type': 'Acuracy'})
    check_config(cfg, 'train', argparse.Namespace(no_validate=True))
    with pytest.raises(UserError, match="test_evaluator.type='Acuracy'"):
        check_config(cfg, 'test')


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        (
            'env_cfg.cudnn_benchmrk',
            "is not a key that a run reads; did you mean 'cudnn_benchmark'",
        ),
        ('auto_scale_lr.base_batchsize', "did you mean 'base_batch_size'"),
    ],
)
def test_where_in_doubt_it_warns(key, message, capsys):
    check({key: 1})
    assert message in capsys.readouterr().err


def test_a_key_of_the_file_that_no_one_reads(tmp_path, capsys):
    (tmp_path / 'mine.py').write_text(
        f'_base_ = {DIGITS!r}\ntrain_dataloder = dict(batch_size=2)\ntrain_pipelines = []\nmy_size = 3\n'
    )
    check({}, str(tmp_path / 'mine.py'))
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("mine.py: train_dataloder is not a key that a run reads; did you mean 'train_dataloader'?")


def test_a_runner_of_the_users_reads_what_it_likes(tmp_path):
    (tmp_path / 'mine.py').write_text(
        f'_base_ = {DIGITS!r}\nrunner_type = "FlexibleRunner"\ntrain_dataloader = dict(size=3)\n'
    )
    check({}, str(tmp_path / 'mine.py'))


@pytest.mark.parametrize('where', ['load_from', 'resume', 'init_cfg', 'test'])
def test_checkpoints_that_cannot_be_read(where, tmp_path):
    path = tmp_path / 'cut.pth'
    path.write_bytes(b'PK no checkpoint')
    options = {'model.backbone.init_cfg': dict(type='Pretrained', checkpoint=str(path))} if where == 'init_cfg' else {}
    if where == 'load_from':
        options['load_from'] = str(path)
    args = argparse.Namespace(resume=str(path) if where == 'resume' else None, checkpoint=str(path))
    with pytest.raises(UserError, match='cut.pth cannot be read'):
        try_to_build(load_config(DIGITS, options), 'test' if where == 'test' else 'train', args)


def test_a_checkpoint_of_the_old_format_can_be_read(tmp_path):
    import torch

    torch.save(dict(state_dict={}), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    try_to_build(load_config(DIGITS, dict(load_from=str(tmp_path / 'old.pth'))), 'train', ARGS)


def test_what_needs_joined_ranks_is_left_to_the_ranks():
    norm = {'model.backbone.norm_cfg': dict(type='MMSyncBN')}
    with pytest.raises(ValueError, match='process group'):
        MODELS.build(dict(type='MMSyncBN', num_features=4))
    check(norm, str(ROOT / 'configs/digits/resnet50-pe_2xb64_digits.py'))


def test_options_of_a_validation_that_is_left_out():
    cfg = load_config(DIGITS, options := {'val_dataloader.batch_size': 2})
    with pytest.raises(
        UserError, match='val_dataloader.batch_size: --no-validate removes val_dataloader; leave out one'
    ):
        check_config(cfg, 'train', argparse.Namespace(no_validate=True, cfg_options=options))
