from pathlib import Path

import numpy as np
import pytest

from halvit_mm.io.checkpoints import load_file

LOOP = dict(by_epoch=True, max_epochs=3, val_interval=1)


def history(runner, name: str = 'train/loss') -> np.ndarray:
    return runner.message_hub.get_scalar(name).data[0]


@pytest.fixture
def whole(build_runner):
    """The losses of three epochs of five iterations, of which all are kept for the log."""
    runner = build_runner(
        'whole',
        LOOP,
        log_processor=dict(custom_cfg=[dict(data_src='loss', method_name='mean', window_size='global')]),
    )
    runner.train()
    return history(runner)


@pytest.mark.parametrize(
    ('log_processor', 'length'),
    [
        (dict(window_size=2), 5),
        (dict(window_size=7), 7),
        (dict(window_size=2, custom_cfg=[dict(data_src='loss', method_name='max', window_size=8)]), 8),
        (dict(window_size=2, custom_cfg=[dict(data_src='loss', method_name='max', window_size='epoch')]), 5),
        (dict(window_size=2, custom_cfg=[dict(data_src='loss', method_name='current')]), 5),
        (dict(window_size=2, custom_cfg=[dict(data_src='loss', method_name='max')]), 15),
    ],
)
def test_as_much_is_kept_as_the_log_looks_back_at(build_runner, whole, log_processor, length):
    runner = build_runner('cut', LOOP, log_processor=log_processor)
    runner.train()
    assert len(whole) == 15
    assert history(runner).tolist() == whole[-length:].tolist()
    saved = load_file(Path(runner.work_dir, 'epoch_3.pth'))['message_hub']['log_scalars']
    assert {len(buffer.data[0]) for name, buffer in saved.items() if name.startswith('train/')} == {length}


def test_a_longer_history_is_cut_when_resumed(build_runner):
    build_runner('run', LOOP, log_processor=dict(window_size=50)).train()
    runner = build_runner('run', {**LOOP, 'max_epochs': 4}, log_processor=dict(window_size=2), resume=True)
    runner.train()
    assert len(history(runner)) == 5
