import shutil
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config

from halvit_mm.data import write_digits_coco
from halvit_mm.errors import UserError
from halvit_mm.launch.checks import check_files, check_scaled_rate
from halvit_mm.launch.coco_check import check_coco
from halvit_mm.launch.command import parse_command
from tests.utils import ROOT

DIGITS = 'configs/digits/halvit_2xb64_digits.py'


def check(tool: str, argv: list[str], **options) -> None:
    command = parse_command(tool, argv)
    command.cfg.merge_from_dict(options)
    check_files(command.cfg, tool, command.args)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for split in ('train', 'val'):
        for digit in range(10):
            (tmp_path / split / str(digit)).mkdir(parents=True)
    return {f'{loader}_dataloader.dataset.data_root': str(tmp_path) for loader in ('train', 'val', 'test')}


class TestCheckFiles:
    def test_sound(self, data, tmp_path):
        check('train', [DIGITS, '--work-dir', 'x', '--resume', '--auto-scale-lr'], **data)
        (tmp_path / 'a.pth').touch()
        check('test', [DIGITS, str(tmp_path / 'a.pth'), '--tta'], **data)
        check('train', [DIGITS, '--resume', str(tmp_path / 'a.pth')], **data)

    def test_missing_data(self, data, tmp_path):
        with pytest.raises(UserError, match=r'train_dataloader: absent does not exist .*train_dataloader\.dataset'):
            check('train', [DIGITS, '--cfg-options', 'train_dataloader.dataset.data_root=absent'])
        shutil.rmtree(tmp_path / 'val')
        with pytest.raises(UserError, match=rf'val_dataloader: {tmp_path}/val does not exist'):
            check('train', [DIGITS], **data)
        check('train', [DIGITS, '--no-validate'], **data)
        with pytest.raises(UserError, match='test_dataloader'):
            check('test', [DIGITS, str(ROOT / 'README.md')], **data)

    def test_missing_data_of_detection(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        config = str(Path(mmdet.__file__).parent / '.mim/configs/retinanet/retinanet_r18_fpn_1x_coco.py')
        with pytest.raises(UserError, match='train_dataloader: data/coco does not exist'):
            check('train', [config])
        (tmp_path / 'data/coco/train2017').mkdir(parents=True)
        with pytest.raises(UserError, match=r'data/coco/annotations/instances_train2017\.json does not exist'):
            check('train', [config])

    def test_missing_checkpoint(self, data):
        with pytest.raises(UserError, match=r'checkpoint absent\.pth does not exist'):
            check('test', [DIGITS, 'absent.pth'], **data)
        with pytest.raises(UserError, match=r'checkpoint absent\.pth does not exist'):
            check('train', [DIGITS, '--resume', 'absent.pth'], **data)

    def test_missing_start(self, data, tmp_path):
        with pytest.raises(UserError, match=r"load_from='absent\.pth' is not a file .*; expected a checkpoint"):
            check('train', [DIGITS], **data, load_from='absent.pth')
        check('train', [DIGITS, '--resume'], **data, load_from='absent.pth')
        (tmp_path / 'a.pth').touch()
        check('train', [DIGITS], **data, load_from=str(tmp_path / 'a.pth'))

    def test_fewer_epochs_than_the_warm_up_has(self, data):
        with pytest.raises(UserError, match=r'param_scheduler\[1\] \(CosineAnnealingLR\) begins at epoch 5, .*=3 does'):
            check('train', [DIGITS], **data, **{'train_cfg.max_epochs': 3})
        check('train', [DIGITS], **data, **{'train_cfg.max_epochs': 3, 'param_scheduler': None})
        check('train', [DIGITS], **data, **{'train_cfg.max_epochs': 6})

    @pytest.mark.skipif(torch.cuda.is_available(), reason='mixed precision is refused only where there is no GPU')
    def test_mixed_precision_without_gpu(self, data):
        with pytest.raises(UserError, match='--amp.* needs a GPU'):
            check('train', [DIGITS, '--amp'], **data)
        with pytest.raises(UserError, match='AmpOptimWrapper.* needs a GPU'):
            check('train', [DIGITS], **data, **{'optim_wrapper.type': 'AmpOptimWrapper'})

    def test_operators_for_the_cpu_beside_a_gpu(self, monkeypatch, tmp_path, capsys):
        """The operators of this environment are compiled for the CPU: a detector that calls them is refused."""
        if torch.cuda.is_available():
            pytest.skip('with a GPU the operators may be compiled for it')
        monkeypatch.chdir(ROOT)
        write_digits_coco(tmp_path, train=1, val=1)
        options = {f'{split}_dataloader.dataset.data_root': str(tmp_path) for split in ('train', 'val')}
        detector = 'configs/digits/mask-rcnn_halvit_digits-coco.py'
        check('train', [detector], **options)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        with pytest.raises(
            UserError, match="mmcv's operators are compiled for the CPU only; .* CUDA_VISIBLE_DEVICES= "
        ):
            check('train', [detector], **options)
        assert not capsys.readouterr().err
        check('train', [detector], **options, model=dict(_delete_=True, type='DETR'))
        assert 'warning: mmcv' in capsys.readouterr().err

    @pytest.mark.parametrize(
        ('ranks', 'optimizer', 'told'),
        [(64, 'AdamW', True), (32, 'AdamW', False), (8, 'AdamW', False), (64, 'SGD', False), (500, 'AdamW', True)],
    )
    def test_more_gpus_than_the_recipe(self, capsys, ranks, optimizer, told):
        """A rate of 8e-3 is not what Adam is known to train with; ConvNeXt's 4e-3 for 4,096 images is."""
        cfg = Config.fromfile(ROOT / 'configs/halvit/halvit-tiny_8xb128_in1k.py')
        cfg.optim_wrapper.optimizer.type = optimizer
        check_scaled_rate(cfg, ranks)
        shown = capsys.readouterr().err
        assert bool(shown) == told
        if ranks == 64 and told:
            assert shown == (
                "warning: --auto-scale-lr: 64 x 128 = 8,192 images in a step make AdamW lr=0.008 of the recipe's 0.001 "
                "for 1,024; beyond 4 times the batch Adam's rate is advised to grow with the root: --cfg-options "
                'optim_wrapper.optimizer.lr=0.0028 without --auto-scale-lr, or train_dataloader.batch_size=64\n'
            )

    def test_scaling_from_nothing(self, data):
        with pytest.raises(UserError, match='--auto-scale-lr: .* expected auto_scale_lr.base_batch_size'):
            check('train', [DIGITS, '--auto-scale-lr'], **data, auto_scale_lr=dict(_delete_=True))

    def test_coco_files_behind_wrappers_are_looked_through(self, tmp_path):
        write_digits_coco(tmp_path, train=1, val=1)
        whole, broken = (
            dict(type='CocoDataset', data_root=str(tmp_path), ann_file=f'annotations/instances_{split}.json')
            for split in ('train', 'val')
        )
        for one in (whole, broken):
            one['metainfo'] = dict(classes=[*'0123456789'])
            one['data_prefix'] = dict(img='train' if one is whole else 'val')
        both = dict(type='ConcatDataset', datasets=[whole, broken])
        cfg = Config(dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=both))))
        check_coco(cfg, ['train_dataloader'])
        (tmp_path / broken['ann_file']).write_text('{')
        with pytest.raises(UserError, match=r'train_dataloader: .*instances_val\.json is not a JSON file'):
            check_coco(cfg, ['train_dataloader'])
