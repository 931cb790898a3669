"""No file executes anything: each carries a call that would leave a folder named ``executed``."""

import os
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint
from safetensors.torch import save_file

from halvit_mm.errors import UserError
from halvit_mm.io.checkpoints import (
    DamagedCheckpoint,
    check_writable,
    find_damage,
    find_latest_checkpoint,
    load_file,
    read_only_data,
    read_seed,
    trained_classes,
    written_whole,
)
from tests.reliability.files import old_format, reach_by_getattr


class Code:
    def __reduce__(self):
        return os.mkdir, ('executed',)


class Evaluated:
    def __reduce__(self):
        return eval, ("__import__('os').mkdir('executed')",)


def save(path, **meta) -> None:
    torch.save(dict(meta=meta, state_dict=dict(weight=torch.rand(4)), message_hub=dict()), path)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')  # not for the tests of others
    read_only_data()
    yield
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize('code', [Code(), Evaluated()])
@pytest.mark.parametrize('zipped', [True, False])
def test_code_is_refused(code, zipped):
    torch.save(dict(state_dict=dict(weight=code)), 'x.pth', _use_new_zipfile_serialization=zipped)
    name = 'posix.mkdir' if isinstance(code, Code) else 'eval'
    message = rf'x\.pth carries code \({name}\) and was not loaded; nothing .* --trust-checkpoint'
    for load in (load_file, CheckpointLoader.load_checkpoint):
        with pytest.raises(UserError, match=message) as error:
            load('x.pth')
        assert '\n' not in str(error.value)


def test_plain_pickle_is_refused():
    with open('x.pth', 'wb') as file:
        pickle.dump(dict(state_dict=Code()), file)
    with pytest.raises(UserError):
        load_file('x.pth')


def test_attributes_are_no_way_round():
    Path('x.pth').write_bytes(old_format(reach_by_getattr()))
    # mmengine's own list lets it through.
    torch.serialization.clear_safe_globals()
    with torch.serialization.safe_globals([HistoryBuffer, getattr]):
        assert 'linalg' in torch.load('x.pth')
    for load in (load_file, CheckpointLoader.load_checkpoint):
        with pytest.raises(UserError, match=r'carries code \(getattr'):
            load('x.pth')


def test_torchscript_is_refused():
    torch.jit.script(torch.nn.Linear(2, 2)).save('x.pth')
    with pytest.raises(UserError, match='carries code'):
        load_file('x.pth')


def test_text_of_a_config_is_left_out():
    """mmengine executes ``meta['config']`` on resuming."""
    torch.save(dict(meta=dict(config="import os; os.mkdir('executed')", cfg='kept', epoch=3)), 'x.pth')
    assert load_file('x.pth')['meta'] == dict(cfg='kept', epoch=3)


def test_every_way_of_loading(monkeypatch):
    torch.save(dict(state_dict=OrderedDict(weight=Code())), 'x.pth')
    model = BaseModule(dict(type='Pretrained', checkpoint='x.pth'))
    with pytest.raises(UserError, match='carries code'):
        model.init_weights()
    with pytest.raises(UserError, match='carries code'):
        load_checkpoint(torch.nn.Linear(2, 2), 'x.pth')
    for weights_only in (None, False):
        with pytest.raises(pickle.UnpicklingError):
            torch.load('x.pth', weights_only=weights_only)
    # A download is read from the cache that torch keeps.
    cache = 'home/hub/checkpoints'
    os.makedirs(cache)
    os.rename('x.pth', f'{cache}/x.pth')
    monkeypatch.setenv('TORCH_HOME', 'home')
    with pytest.raises(UserError, match=r'http://127\.0\.0\.1/x\.pth carries code'):
        CheckpointLoader.load_checkpoint('http://127.0.0.1/x.pth')


def test_old_checkpoints_of_the_hosts():
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    content = dict(
        meta=dict(epoch=3, CLASSES=('a', 'b'), PALETTE=[(1, 2, 3)], hook_msgs={}, seed=np.int64(3)),
        state_dict=OrderedDict(weight=torch.rand(2)),
        optimizer=dict(state={0: dict(step=torch.tensor(1.0))}, param_groups=[dict(betas=(0.9, 0.999), params=[0])]),
        message_hub=dict(
            log_scalars=OrderedDict({'train/loss': buffer}),
            runtime_info=OrderedDict(
                best_score=np.float32(77.5), map=np.arange(3), flags=np.array([True]), part=slice(2)
            ),
        ),
    )
    torch.save(content, 'x.pth')
    loaded = load_file('x.pth')
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == 1.5
    assert loaded['message_hub']['runtime_info']['best_score'] == np.float32(77.5)
    # Written beside NumPy 1, and beside NumPy 2
    torch.save(content, 'x.pth', _use_new_zipfile_serialization=False)
    written = Path('x.pth').read_bytes()
    for module in (b'numpy.core.multiarray', b'numpy._core.multiarray'):
        renamed, count = re.subn(rb'numpy\._?core\.multiarray', module, written)
        assert count
        Path('x.pth').write_bytes(renamed)
        loaded = load_file('x.pth')
        assert loaded['meta']['seed'] == 3
        assert loaded['message_hub']['log_scalars']['train/loss'].mean() == 1.5


def test_safetensors():
    save_file(dict(weight=torch.arange(4.0)), 'x.safetensors')
    assert torch.equal(load_file('x.safetensors')['weight'], torch.arange(4.0))
    layer = torch.nn.Linear(4, 1, bias=False)
    save_file(dict(weight=torch.ones(1, 4)), 'x.safetensors')
    load_checkpoint(layer, 'x.safetensors')
    assert layer.weight.sum() == 4
    Path('x.safetensors').write_bytes(Path('x.safetensors').read_bytes()[:-3])
    with pytest.raises(DamagedCheckpoint, match='not a whole safetensors file'):
        load_file('x.safetensors')


def test_files_that_are_no_checkpoints():
    for content in (b'', b'hello', b'\x80', bytes(range(256)) * 8, pickle.dumps([1])):
        Path('x.pth').write_bytes(content)
        with pytest.raises(UserError, match=r'x\.pth'):
            load_file('x.pth')
    with pytest.raises(UserError, match=r'absent\.pth does not exist'):
        load_file('absent.pth')
    torch.save([1, 2], 'x.pth')
    with pytest.raises(UserError, match='holds a list; expected a dict'):
        load_file('x.pth')


def test_trust():
    torch.save(dict(state_dict=Code()), 'x.pth')
    read_only_data(trust=True)
    try:
        for load in (load_file, CheckpointLoader.load_checkpoint):
            load('x.pth')
            os.rmdir('executed')
    finally:
        read_only_data()
    with pytest.raises(UserError, match='carries code'):
        CheckpointLoader.load_checkpoint('x.pth')


@pytest.mark.parametrize('method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_any_wrong_byte_is_told_and_not_raised(method, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    with zipfile.ZipFile(path, 'w', method) as archive:
        archive.writestr('epoch_1/data.pkl', bytes(range(256)) * 3)
    whole = path.read_bytes()
    assert find_damage(path) is None
    damage = []
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :])
        damage.append(find_damage(path))
    # Bytes of dates, names and rights are under no checksum.
    assert sum(map(bool, damage)) > len(whole) / 4


def test_an_error_of_the_call_is_no_damage(monkeypatch):
    """Else a training would be taken up from an older file."""
    torch.save(dict(meta={}, state_dict={}, message_hub={}), 'epoch_2.pth')
    torch.save(dict(meta={}, state_dict={}, message_hub={}), 'epoch_1.pth')
    load = torch.load

    def older(*args, mmap=None, **kwargs):
        if mmap:
            raise ValueError('f must be a string filename in order to use mmap argument')
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, 'load', older)
    with pytest.raises(ValueError, match='mmap argument'):
        find_latest_checkpoint('.')
    monkeypatch.setattr(torch, 'load', lambda *args: None)
    with pytest.raises(TypeError, match='unexpected keyword'):
        load_file('epoch_1.pth')


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


def test_classes_that_a_checkpoint_was_trained_on(tmp_path):
    path = str(tmp_path / 'epoch_1.pth')
    for meta, expected in (
        (dict(meta=dict(dataset_meta=dict(classes=('a', 'b')))), ['a', 'b']),
        (dict(meta=dict(dataset_meta=None)), None),
        (dict(meta=dict(epoch=1)), None),
        ({}, None),
    ):
        torch.save(dict(state_dict=dict(w=torch.zeros(1)), **meta), path)
        assert trained_classes(path) == expected
    assert trained_classes(None) is None


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
    save(tmp_path / 'a.pth', seed=41)
    assert read_seed(tmp_path / 'a.pth') == 41
    save(tmp_path / 'b.pth')
    assert read_seed(tmp_path / 'b.pth') is None


def test_a_damaged_byte_is_found(tmp_path):
    save(tmp_path / 'epoch_1.pth')
    save(tmp_path / 'epoch_2.pth')
    content = bytearray((tmp_path / 'epoch_2.pth').read_bytes())
    content[content.index(b'data/0') + 80] ^= 1  # within the weights
    (tmp_path / 'epoch_2.pth').write_bytes(content)
    torch.save(dict(weight=torch.rand(4)), tmp_path / 'epoch_3.pth')
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_1.pth')


def test_code_in_the_newest_is_refused_and_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / 'epoch_1.pth')
    save(tmp_path / 'epoch_2.pth', code=Code())
    with pytest.raises(UserError, match=r'epoch_2\.pth carries code \(posix\.mkdir\)'):
        find_latest_checkpoint(tmp_path)
    assert not (tmp_path / 'executed').exists()


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'old')
    (tmp_path / 'epoch_1.pth.part').symlink_to('/dev/full')
    message = r'epoch_1\.pth cannot be written \(No space left on device\)'
    with pytest.raises(UserError, match=message), written_whole(path) as part:
        part.write_bytes(b'new')
    assert [file.name for file in tmp_path.iterdir()] == ['epoch_1.pth']
    assert path.read_bytes() == b'old'


@pytest.mark.parametrize('folder', ['/proc/training', 'file/training'])
def test_folder_that_cannot_be_written_to(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('file').touch()
    with pytest.raises(
        UserError, match=f'^--out {folder} is not a folder that can be written to .*; expected another --out$'
    ):
        check_writable(folder, '--out')
    check_writable('made/by/it')
    assert [*Path('made/by/it').iterdir()] == []
