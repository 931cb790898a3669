"""A folder that cannot be read; tests/deploy/test_hub.py reads one that was written."""

import json

import pytest
import torch

from halvit_mm.errors import UserError
from halvit_mm.timm import from_pretrained


@pytest.mark.parametrize('made', [False, True])
def test_no_folder(made, tmp_path):
    if made:
        (tmp_path / 'folder').mkdir()
    with pytest.raises(UserError, match=r'folder is not a folder with a config\.json; expected one that tools/publish'):
        from_pretrained(tmp_path / 'folder')


def test_no_code_is_read_from_it(tmp_path):
    """Not even where the weights are a pickle, as in other folders of timm's."""

    class Attack:
        def __reduce__(self):
            return (tmp_path / 'harm').touch, ()

    config = dict(architecture='halvit_micro_patch16_224', model_args=dict(depth=1, img_size=32), pretrained_cfg={})
    (tmp_path / 'config.json').write_text(json.dumps(config))
    torch.save(dict(head=Attack()), tmp_path / 'pytorch_model.bin')
    with pytest.raises(Exception, match='Weights only load failed|weights_only'):
        from_pretrained(tmp_path)
    assert not (tmp_path / 'harm').exists()
