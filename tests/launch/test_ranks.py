import socket
import sys

import pytest
import torch

from halvit_mm.errors import UserError
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


def test_no_upstream_is_imported_before_it_is_needed():
    """They take seconds, and the process that starts the ranks stays beside them."""
    upstream = 'mmpretrain', 'mmdet', 'mmcv'
    run(sys.executable, '-c', f'import sys, halvit_mm.launch.ranks; assert not sys.modules.keys() & set({upstream})')


def test_restarts_are_refused_where_they_make_no_sense(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('PORT', str(free_port()))
    for argv, told in (
        (
            ['train.py', '2', DIGITS, '--max-restarts', '-1'],
            '--max-restarts -1 is not a number of restarts; expected 0 or more',
        ),
        (
            ['train.py', '2', DIGITS, '--max-restarts', '1', '--resume', 'a.pth'],
            'is not an option of a test or of --resume FILE',
        ),
        (['test.py', '2', DIGITS, 'a.pth', '--max-restarts', '1'], 'expected a training'),
    ):
        with pytest.raises(UserError, match=told):
            main(argv)
