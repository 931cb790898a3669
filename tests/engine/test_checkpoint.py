import os

import pytest
import torch

from halvit_mm.engine.checkpoint import find_latest_checkpoint, read_seed, written_whole


def save(path, **content) -> None:
    torch.save(content or dict(weight=torch.rand(4)), path)


def test_a_file_is_there_only_when_it_is_whole(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'old')
    with pytest.raises(KeyboardInterrupt), written_whole(path) as part:
        part.write_bytes(b'ne')
        assert path.read_bytes() == b'old'
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ['epoch_1.pth']
    with written_whole(path) as part:
        part.write_bytes(b'new')
    assert path.read_bytes() == b'new'
    assert [file.name for file in tmp_path.iterdir()] == ['epoch_1.pth']


def test_latest_is_the_highest_number(tmp_path):
    for i, epoch in enumerate((10, 9, 2)):
        save(tmp_path / f'epoch_{epoch}.pth')
        os.utime(tmp_path / f'epoch_{epoch}.pth', (i, i))
    save(tmp_path / 'best_accuracy_epoch_99.pth')
    (tmp_path / 'epoch_11.pth.part').write_bytes(b'')
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_10.pth')


def test_cut_files_are_passed_over(tmp_path, caplog):
    save(tmp_path / 'epoch_1.pth')
    whole = (tmp_path / 'epoch_1.pth').read_bytes()
    for epoch, length in ((2, len(whole) // 2), (3, len(whole) - 1), (4, 0)):
        (tmp_path / f'epoch_{epoch}.pth').write_bytes(whole[:length])
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_4.pth'))
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_1.pth')


@pytest.mark.parametrize('pointer', ['', None])
def test_without_the_pointer(tmp_path, pointer):
    assert find_latest_checkpoint(tmp_path) is None
    assert find_latest_checkpoint(tmp_path / 'absent') is None
    if pointer is not None:
        (tmp_path / 'last_checkpoint').write_text(pointer)
    save(tmp_path / 'iter_20.pth')
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'iter_20.pth')


def test_checkpoints_that_are_kept_elsewhere(tmp_path):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    save(tmp_path / 'elsewhere' / 'epoch_3.pth')
    (tmp_path / 'work' / 'last_checkpoint').write_text(str(tmp_path / 'elsewhere' / 'epoch_2.pth'))
    assert find_latest_checkpoint(tmp_path / 'work') == str(tmp_path / 'elsewhere' / 'epoch_3.pth')


def test_the_kind_that_was_written_last(tmp_path):
    save(tmp_path / 'iter_500.pth')
    os.utime(tmp_path / 'iter_500.pth', (1, 1))
    save(tmp_path / 'epoch_2.pth')
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_2.pth')


def test_seed(tmp_path):
    save(tmp_path / 'a.pth', meta=dict(seed=41), state_dict=dict(weight=torch.rand(4)))
    assert read_seed(tmp_path / 'a.pth') == 41
    save(tmp_path / 'b.pth', state_dict=dict(weight=torch.rand(4)))
    assert read_seed(tmp_path / 'b.pth') is None
