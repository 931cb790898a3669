import json

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import to_array

from halvit_mm.deploy import create_session
from halvit_mm.deploy.attention_maps import class_attention
from halvit_mm.deploy.export import export, other_sizes
from halvit_mm.deploy.network import load_network
from halvit_mm.deploy.onnx import quantize
from tests.deploy.conftest import DETECTOR, HALVIT, RESNET, read, read_small, unique_bytes


def initializer_bytes(path) -> int:
    """Each initializer counts once however often it is used."""
    return sum(to_array(tensor).nbytes for tensor in onnx.load(path).graph.initializer)


@pytest.mark.parametrize(
    ('config', 'options', 'shape'),
    [
        (HALVIT, {}, (32, 32)),
        (HALVIT, {'model.backbone.tie': 'none'}, (32, 32)),
        (HALVIT, {'model.backbone.tie': 'ffn', 'model.backbone.with_cls_token': False}, (32, 32)),
        (RESNET, {}, (32, 32)),
        (DETECTOR, {'model.backbone.window_size': 4, 'model.backbone.global_attn_layers': [2]}, (64, 96)),
    ],
    ids=str,
)
def test_each_matrix_is_there_once_and_any_size_is_taken(config, options, shape, checkpoint, tmp_path):
    """The sizes include those that patches or windows do not fill: see ``other_sizes``."""
    if options.get('model.backbone.with_cls_token') is False:
        options['model.backbone.out_type'] = 'avg_featmap'
    cfg, said = read_small(config, **options), []
    path = tmp_path / 'model.onnx'
    export(cfg, checkpoint(cfg), path, 'fp32', shape, True, True, verify=2, say=said.append)
    # Statistics of batch norms are not parameters, but are in the file.
    network = load_network(cfg)
    buffers = sum(4 * value.numel() for name, value in network.model.named_buffers() if 'running' in name)
    assert initializer_bytes(path) <= 1.02 * (unique_bytes(cfg) + buffers)
    assert said[0].startswith('4 images: largest difference')
    sizes = [f'an image of {h} x {w}' for h, w in other_sizes(shape)]
    assert [line.partition(':')[0] for line in said[1:6]] == sizes
    assert {file.name for file in tmp_path.iterdir()} == {'weights.pth', 'model.onnx'}
    # Linear layers are products in two dimensions, tied or not.
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    if 'SharedStageResNet' not in str(cfg.model.backbone.type):
        layers = cfg.model.backbone.arch.num_layers
        assert kinds.count('MatMul') == 2 * layers  # attention's
        assert kinds.count('Gemm') >= 4 * layers


def test_transposition_is_an_attribute(exported):
    graph = onnx.load(exported[0]).graph
    uses = {}
    for node in graph.node:
        if node.op_type == 'Gemm':
            [transposed] = [bool(a.i) for a in node.attribute if a.name == 'transB'] or [False]
            uses.setdefault(node.input[1].removeprefix('model.backbone.'), []).append(transposed)
    for layer in range(2):
        assert uses[f'layers.{layer}.attn.q_weight'] == [True, False]
        assert uses[f'layers.{layer}.attn.kv_weight'] == [True, False]
        assert uses[f'layers.{layer}.ffn.weight'] == [True, False]


def test_weights_beside_the_graph(exported):
    path, cfg = exported
    assert path.stat().st_size < 2**18
    assert path.with_name('model.onnx.data').stat().st_size == pytest.approx(unique_bytes(cfg), rel=0.03)


def test_facts_are_in_the_file(exported):
    facts = {entry.key: json.loads(entry.value) for entry in onnx.load(exported[0]).metadata_props}
    resize = dict(type='Resize', scale=32, interpolation='bicubic', backend='pillow')
    assert facts == dict(
        config='halvit_2xb64_digits.py',
        task='classes',
        channels='RGB',
        pipeline=[resize],
        mean=[78.0] * 3,
        std=[96.0] * 3,
        classes=['one', 'two'],
    )


@pytest.mark.parametrize(
    ('config', 'options'),
    [
        (HALVIT, {}),
        (HALVIT, {'model.backbone.tie': 'none'}),
        (HALVIT, {'model.backbone.with_cls_token': False, 'model.backbone.out_type': 'avg_featmap'}),
    ],
    ids=str,
)
def test_attention_equals_that_of_pytorch(config, options, checkpoint, tmp_path):
    """At each size, and without a second copy of a matrix."""
    cfg, said = read_small(config, **options), []
    weights, path = checkpoint(cfg), tmp_path / 'model.onnx'
    export(cfg, weights, path, dynamic_batch=True, dynamic_size=True, verify=2, attention=True, say=said.append)
    assert said[0].endswith('same top-1 100.0 %')
    assert initializer_bytes(path) <= 1.02 * unique_bytes(cfg)
    session = create_session(path)
    assert [output.name for output in session.get_outputs()] == ['logits', 'attention']
    model = load_network(cfg, weights).model
    for shape in ((2, 3, 32, 32), (1, 3, 37, 50)):
        images = torch.randn(shape)
        logits, attention = session.run(None, {'images': images.numpy()})
        expected = class_attention(model.backbone, images).transpose(0, 1)
        assert attention.shape == (shape[0], 2, 3, -(-shape[2] // 8), -(-shape[3] // 8))
        np.testing.assert_allclose(attention, expected, atol=1e-5)
        with torch.no_grad():
            np.testing.assert_allclose(logits, model(images), atol=1e-4)


def test_int8_keeps_one_copy(exported, tmp_path):
    path = exported[0]
    quantize(path, tmp_path / 'int8.onnx', torch.randn(4, 3, 32, 32))
    assert initializer_bytes(tmp_path / 'int8.onnx') < 0.4 * initializer_bytes(path)  # the first layer stays as it is
    session = create_session(tmp_path / 'int8.onnx')
    assert np.isfinite(session.run(None, {'images': np.zeros((1, 3, 32, 32), np.float32)})[0]).all()


def test_biases_of_parts_that_differ_in_size(tmp_path):
    """PVT v2's attention has queries of D and, behind a convolution, keys and values of 2 D."""
    cfg = read('configs/baselines/pvt-v2-b0_8xb128_in1k.py', **{'model.head.in_channels': 128})
    cfg.model.backbone |= dict(embed_dims=16, num_layers=[1, 1, 1, 1])
    torch.manual_seed(0)
    export(cfg, None, tmp_path / 'model.onnx', shape=(64, 64), verify=2)
