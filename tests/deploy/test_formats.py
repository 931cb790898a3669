from importlib.util import find_spec

import pytest
import torch

from halvit_mm.deploy import formats
from halvit_mm.deploy.export import export
from halvit_mm.errors import UserError
from tests.deploy.conftest import DETECTOR, HALVIT, SEGMENTOR, read, read_small, unique_bytes


@pytest.mark.parametrize(
    ('suffix', 'precision'), [('pt2', 'fp32'), ('pt2', 'fp16'), ('pt', 'fp32'), ('pt', 'fp16'), ('xml', 'fp32')]
)
def test_runs_like_the_model(suffix, precision, checkpoint, tmp_path):
    cfg, said = read_small(HALVIT), []
    path = tmp_path / f'model.{suffix}'
    export(cfg, checkpoint(cfg), path, precision, None, suffix != 'xml', suffix == 'pt2', verify=2, say=said.append)
    assert any('largest difference' in line for line in said)
    assert (suffix == 'pt2') == any(
        'takes heights of 9 or more and widths of 9 or more pixels' in line for line in said
    )
    weights = path.with_suffix('.bin') if suffix == 'xml' else path
    kept = unique_bytes(cfg) // (2 if precision == 'fp16' else 1)
    assert weights.stat().st_size < 1.05 * kept + 2**20  # of a program the code as well


@pytest.mark.parametrize(('config', 'idle'), [(DETECTOR, 'rpn_head'), (SEGMENTOR, 'auxiliary_head')])
def test_a_file_is_without_the_heads_that_it_does_not_run(config, idle, tmp_path):
    cfg = read_small(config)
    if config == SEGMENTOR:  # whose digits config has none
        cfg.model.auxiliary_head = dict(type='FCNHead', in_channels=96, in_index=2, channels=32, num_classes=11)
    export(cfg, None, tmp_path / 'model.pt2', shape=(64, 64), verify=1)
    names = torch.export.load(tmp_path / 'model.pt2').state_dict
    assert any(name.startswith('model.backbone') for name in names)
    assert not [name for name in names if idle in name]


@pytest.mark.parametrize('options', [dict(precision='fp16'), dict(dynamic_batch=True), dict(dynamic_size=True)])
def test_openvino_for_shared_and_for_untied_matrices(options, checkpoint, tmp_path):
    cfg, path = read_small(HALVIT), tmp_path / 'model.xml'
    with pytest.raises(
        UserError, match='OpenVINO computes right in fp16, or with an open size, where a matrix is shared'
    ):
        export(cfg, checkpoint(cfg), path, **options)
    assert not [*tmp_path.glob('model*')]
    cfg.model.backbone.tie = 'none'
    export(cfg, checkpoint(cfg), path, **options, verify=2)
    assert path.exists()


def test_int8_of_openvino(checkpoint, digits, tmp_path):
    cfg = read_small(HALVIT, digits / 'data/digits')
    export(cfg, checkpoint(cfg), tmp_path / 'model.xml', 'int8', verify=8)
    assert (tmp_path / 'model.bin').stat().st_size < 0.4 * unique_bytes(cfg)


def test_int8_of_openvino_needs_nncf(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, 'find_spec', lambda name: None if name == 'nncf' else find_spec(name))
    with pytest.raises(UserError, match='model.xml: NNCF is not installed; pip install nncf'):
        export(read(HALVIT), None, tmp_path / 'model.xml', 'int8')


@pytest.mark.parametrize(
    ('out', 'options', 'message'),
    [
        ('model.tflite', {}, r'is not a file of a known format; expected \.onnx'),
        (
            'model.pt2',
            dict(precision='int8'),
            '--precision int8 is not a precision of torch.export; expected fp32 or fp16, or .onnx or .xml',
        ),
        ('model.pt', dict(dynamic_size=True), '--dynamic-size: a TorchScript trace keeps the size'),
        ('model.pt', dict(external_data=True), '--external-data is for ONNX files'),
        ('model.xml', dict(attention=True), 'computes right with --attention; expected .onnx'),
        ('no/such/model.onnx', {}, 'folder .*/no/such does not exist'),
    ],
)
def test_before_anything_is_computed(out, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        export(read(HALVIT), 'none.pth', tmp_path / out, **options)
    assert not [*tmp_path.iterdir()]
