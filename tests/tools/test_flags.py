"""Options that several tools have."""

import os

import pytest
import torch
from PIL import Image

from halvit_mm.data import write_digits
from tests.utils import ROOT, run_tool

CONFIG = 'configs/digits/halvit_2xb64_digits.py'
# What comes before and after the checkpoint
TOOLS = {
    'test.py': ([CONFIG], []),
    'infer.py': ([CONFIG], ['image.png']),
    'export.py': ([CONFIG], ['--out', 'model.onnx', '--verify', '0']),
    'publish_model.py': ([], ['--out', 'model.pth']),
    'save_logits.py': ([CONFIG, CONFIG], ['--out', 'logits']),
    'tie_checkpoint.py': ([CONFIG], [CONFIG, '--out', 'tied.pth', '--source-options', 'model.backbone.tie=none']),
    'visualize_attention.py': ([CONFIG], ['image.png', '--out', 'pictures']),
}


class Code:
    def __reduce__(self):
        return os.mkdir, ('executed',)


@pytest.fixture
def folder(tmp_path):
    write_digits(tmp_path / 'data/digits')
    Image.new('RGB', (8, 8)).save(tmp_path / 'image.png')
    torch.save(dict(state_dict={}, meta=dict(code=Code())), tmp_path / 'code.pth')
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize('tool', TOOLS)
def test_what_the_refusal_advises_is_there(tool, folder):
    """A checkpoint that carries code is refused with the advice of an option; the tool has that option."""
    before, after = TOOLS[tool]
    command = (f'tools/{tool}', *(ROOT / word if word == CONFIG else word for word in before), 'code.pth')
    command += tuple(ROOT / word if word == CONFIG else word for word in after)
    refused = run_tool(*command, cwd=folder, check=False)
    assert 'carries code (posix.mkdir) and was not loaded' in refused.stdout
    assert '--trust-checkpoint' in refused.stdout
    assert refused.returncode == 2
    assert not (folder / 'executed').exists()
    # What reads the file at last is one function, so that one tool will do.
    if tool == 'publish_model.py':
        trusted = run_tool(*command, '--trust-checkpoint', cwd=folder, check=False)
        assert (folder / 'executed').exists(), trusted.stdout
    else:
        assert '--trust-checkpoint' in run_tool(f'tools/{tool}', '--help', cwd=folder).stdout


def test_the_old_name_of_export():
    shown = run_tool('tools/export_onnx.py', '--help').stdout
    assert 'export_onnx.py is now called export.py' in shown
    assert '--dynamic-batch' in shown
