"""The notebook, from top to bottom, with less to train on."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.utils import ROOT


@pytest.mark.long
def test_quickstart(tmp_path):
    notebook = nbformat.read(ROOT / 'docs/quickstart.ipynb', as_version=4)
    [parameters] = [cell for cell in notebook.cells if 'parameters' in cell.metadata.get('tags', ())]
    parameters.source = f'EPOCHS, CANVASES, FOLDER = 6, 16, {str(tmp_path)!r}'
    NotebookClient(notebook, timeout=300, kernel_name='python3').execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    said = ''.join(output.get('text', '') for output in outputs)
    assert "tie='none': 692,458 parameters\ntie='both': 360,682 parameters" in said
    assert '360 images: ONNX Runtime agrees with PyTorch on 360 and is right on ' in said
    pictures = [output.data for output in outputs if 'image/png' in output.get('data', ())]
    assert len(pictures) == 1 + 1 + 2  # a canvas, attention, detections
