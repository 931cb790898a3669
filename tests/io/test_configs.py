import pytest

from halvit_mm.errors import UserError
from halvit_mm.io.configs import load_config


def test_config_that_cannot_be_read(tmp_path):
    (tmp_path / 'broken.py').write_text("_base_ = 'absent.py'\n")
    with pytest.raises(UserError, match=r'broken\.py cannot be read: .*absent\.py'):
        load_config(str(tmp_path / 'broken.py'))
