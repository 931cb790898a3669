import errno
import os

import pytest

from halvit_mm.errors import UserError
from halvit_mm.io.checkpoints import written_whole
from halvit_mm.io.disk import UNSUPPORTED


@pytest.fixture
def folders_answer(monkeypatch):
    """Let ``os.fsync`` of a folder fail, as on some file systems."""
    fsync = os.fsync

    def answer(number: int) -> None:
        def fail(descriptor: int) -> None:
            if os.path.isdir(f'/proc/self/fd/{descriptor}'):
                raise OSError(number, os.strerror(number))
            fsync(descriptor)

        monkeypatch.setattr(os, 'fsync', fail)

    return answer


@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='only Linux shows what a descriptor is of')
def test_a_folder_that_cannot_be_synced(folders_answer, tmp_path):
    """Where the file system cannot do it, the checkpoint counts as written; where the disk fails, it does not."""
    for number in UNSUPPORTED:
        folders_answer(number)
        with written_whole(tmp_path / 'a') as part:
            part.write_text(str(number))
        assert (tmp_path / 'a').read_text() == str(number)
    folders_answer(errno.EIO)
    with pytest.raises(UserError, match='a cannot be written'), written_whole(tmp_path / 'a') as part:
        part.write_text('')


def test_no_descriptor_is_left(tmp_path):
    before = len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else 0
    for _ in range(3):
        with written_whole(tmp_path / 'a') as part:
            part.write_text('')
    assert before == (len(os.listdir('/proc/self/fd')) if before else 0)
