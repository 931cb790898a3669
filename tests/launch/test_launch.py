import socket
import sys
from pathlib import Path

import mmdet
import pytest
import torch

from halvit_mm.errors import UserError, errors_in_one_line
from halvit_mm.launch.checks import check_run
from halvit_mm.launch.command import parse_command
from halvit_mm.launch.ranks import check_ranks, main
from tests.utils import ROOT, free_port, run

DIGITS = 'configs/digits/halvit_2xb64_digits.py'


def test_busy_port():
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f'port {port} .* expected a free one, such as PORT={port + 1}'):
            check_ranks(2, node_rank=0, master_addr='127.0.0.1', port=port)
        # The port is another machine's there.
        check_ranks(2, node_rank=1, master_addr='10.0.0.1', port=port)
    check_ranks(2, node_rank=0, master_addr='127.0.0.1', port=port)


def test_more_ranks_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    check_ranks(4, 0, '127.0.0.1', free_port())
    with pytest.raises(
        UserError, match='8 is not a number of ranks that this machine has GPUs for; expected at most 4'
    ):
        check_ranks(8, 0, '127.0.0.1', free_port())


def test_no_ranks():
    with pytest.raises(UserError, match='0 is not a number of ranks; expected at least 1'):
        check_ranks(0, 0, '127.0.0.1', free_port())


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['train.py', '2'], 'too few arguments'),
        (['train.py', 'two', DIGITS], "'two'; expected whole numbers"),
        (['train.py', '2', 'absent.py'], 'config absent.py does not exist'),
    ],
)
def test_bad_arguments(argv, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('PORT', str(free_port()))
    with pytest.raises(UserError, match=message):
        main(argv)


def check(tool: str, argv: list[str], **options) -> None:
    command = parse_command(tool, argv)
    command.cfg.merge_from_dict(options)
    check_run(command.cfg, tool, command.args)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for split in ('train', 'val'):
        (tmp_path / split).mkdir()
    return {f'{loader}_dataloader.dataset.data_root': str(tmp_path) for loader in ('train', 'val', 'test')}


class TestCheckRun:
    def test_sound(self, data, tmp_path):
        check('train', [DIGITS, '--work-dir', 'x', '--resume', '--auto-scale-lr'], **data)
        (tmp_path / 'a.pth').touch()
        check('test', [DIGITS, str(tmp_path / 'a.pth'), '--tta'], **data)
        check('train', [DIGITS, '--resume', str(tmp_path / 'a.pth')], **data)

    def test_missing_data(self, data, tmp_path):
        with pytest.raises(UserError, match=r'train_dataloader: absent does not exist .*train_dataloader\.dataset'):
            check('train', [DIGITS, '--cfg-options', 'train_dataloader.dataset.data_root=absent'])
        (tmp_path / 'val').rmdir()
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

    @pytest.mark.skipif(torch.cuda.is_available(), reason='mixed precision is refused only where there is no GPU')
    def test_mixed_precision_without_gpu(self, data):
        with pytest.raises(UserError, match='--amp.* needs a GPU'):
            check('train', [DIGITS, '--amp'], **data)
        with pytest.raises(UserError, match='AmpOptimWrapper.* needs a GPU'):
            check('train', [DIGITS], **data, **{'optim_wrapper.type': 'AmpOptimWrapper'})

    def test_scaling_from_nothing(self, data):
        with pytest.raises(UserError, match='--auto-scale-lr: .* expected auto_scale_lr.base_batch_size'):
            check('train', [DIGITS, '--auto-scale-lr'], **data, auto_scale_lr=dict(_delete_=True))


def test_only_the_first_rank_tells(capsys, monkeypatch):
    for rank, told in (('0', 'error: the reason\n'), ('1', '')):
        monkeypatch.setenv('RANK', rank)
        with pytest.raises(SystemExit) as ended, errors_in_one_line():
            raise UserError('the reason')
        assert ended.value.code == 2
        assert capsys.readouterr().err == told


def test_no_upstream_is_imported_before_it_is_needed():
    """They take seconds, and the process that starts the ranks stays beside them."""
    upstream = 'mmpretrain', 'mmdet', 'mmcv'
    run(sys.executable, '-c', f'import sys, halvit_mm.launch.ranks; assert not sys.modules.keys() & set({upstream})')
