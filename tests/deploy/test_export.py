import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config
from mmpretrain.apis import get_model
from onnx.numpy_helper import to_array

from halvit_mm.cost import count_parameters
from halvit_mm.data import write_digits
from halvit_mm.deploy import create_session
from halvit_mm.deploy.export import export
from halvit_mm.deploy.network import input_shape, load_network, read_images
from halvit_mm.deploy.onnx import quantize
from halvit_mm.deploy.verify import Difference, compare
from halvit_mm.errors import UserError
from halvit_mm.io.configs import load_config
from tests.utils import ROOT, run_tool

HALVIT = 'configs/digits/halvit_2xb64_digits.py'
RESNET = 'configs/digits/resnet50-pe_2xb64_digits.py'
DETECTOR = 'configs/digits/mask-rcnn_halvit_digits-coco.py'
SHARED_DETECTOR = 'configs/digits/mask-rcnn_resnet50-pe_digits-coco.py'


def initializer_bytes(path: Path) -> int:
    """Each initializer counts once however often it is used."""
    return sum(to_array(tensor).nbytes for tensor in onnx.load(path).graph.initializer)


def read(config: str, **options) -> Config:
    return load_config(str(ROOT / config), options)


def randomize(model: torch.nn.Module) -> None:
    """Give biases, norms and statistics values of their own: what is zero or one is folded by exporters."""
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if value.is_floating_point() and value.ndim == 1 and not name.startswith('data_preprocessor'):
                value.add_(torch.rand_like(value) * 0.1)


@pytest.fixture
def checkpoint(tmp_path):
    def write(cfg: Config) -> str:
        torch.manual_seed(0)
        model = load_network(cfg).model
        randomize(model)
        path = tmp_path / 'weights.pth'
        torch.save(dict(state_dict=model.state_dict()), path)
        return str(path)

    return write


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp('digits')
    write_digits(folder / 'data/digits')
    return folder


def unique_bytes(cfg: Config) -> int:
    network = load_network(cfg)
    parts = [network.model.backbone, network.model.neck] if network.detector else [network.model]
    return 4 * sum(count_parameters(part) for part in parts)


class TestOnnx:
    @pytest.mark.parametrize(
        ('config', 'options', 'shape'),
        [
            (HALVIT, {}, (32, 32)),
            (HALVIT, {'model.backbone.tie': 'none'}, (32, 32)),
            (HALVIT, {'model.backbone.tie': 'ffn', 'model.backbone.with_cls_token': False}, (32, 32)),
            (RESNET, {}, (32, 32)),
            (RESNET, {'model.backbone.shared_stages': (2, 3)}, (32, 32)),
            (DETECTOR, {'model.backbone.window_size': 4, 'model.backbone.global_attn_layers': [5]}, (64, 96)),
            (SHARED_DETECTOR, {}, (64, 96)),
        ],
        ids=str,
    )
    def test_each_matrix_is_there_once_and_any_size_is_taken(self, config, options, shape, checkpoint, tmp_path):
        if options.get('model.backbone.with_cls_token') is False:
            options['model.backbone.out_type'] = 'avg_featmap'
        cfg, said = read(config, **options), []
        dynamic = 'window_size' not in str(options)  # windows are laid out for one size
        cfg.test_dataloader.dataset.data_root = 'nowhere'
        path = tmp_path / 'model.onnx'
        export(cfg, checkpoint(cfg), path, 'fp32', shape, dynamic, dynamic, verify=2, say=said.append)
        # Statistics of batch norms are no parameters, and are there too.
        network = load_network(cfg)
        buffers = sum(4 * value.numel() for name, value in network.model.named_buffers() if 'running' in name)
        assert initializer_bytes(path) <= 1.02 * (unique_bytes(cfg) + buffers)
        assert said[0].startswith('2 images of noise')
        assert {file.name for file in tmp_path.iterdir()} == {'weights.pth', 'model.onnx'}

    def test_transposition_is_an_attribute(self, checkpoint, tmp_path):
        cfg = read(HALVIT)
        cfg.test_dataloader.dataset.data_root = 'nowhere'
        export(cfg, checkpoint(cfg), tmp_path / 'model.onnx', verify=0)
        graph = onnx.load(tmp_path / 'model.onnx').graph
        uses = {}
        for node in graph.node:
            if node.op_type == 'Gemm':
                [transposed] = [bool(a.i) for a in node.attribute if a.name == 'transB'] or [False]
                uses.setdefault(node.input[1].removeprefix('model.backbone.'), []).append(transposed)
        for layer in range(6):
            assert uses[f'layers.{layer}.attn.q_weight'] == [True, False]
            assert uses[f'layers.{layer}.attn.kv_weight'] == [True, False]
            assert uses[f'layers.{layer}.ffn.weight'] == [True, False]

    def test_weights_beside_the_graph(self, checkpoint, tmp_path):
        cfg = read(HALVIT)
        cfg.test_dataloader.dataset.data_root = 'nowhere'
        export(cfg, checkpoint(cfg), tmp_path / 'model.onnx', external_data=True, verify=1)
        assert (tmp_path / 'model.onnx').stat().st_size < 2**18
        assert (tmp_path / 'model.onnx.data').stat().st_size == pytest.approx(unique_bytes(cfg), rel=0.02)

    def test_facts_are_in_the_file(self, checkpoint, tmp_path):
        cfg = read(DETECTOR)
        cfg.test_dataloader.dataset.data_root = 'nowhere'
        export(cfg, checkpoint(cfg), tmp_path / 'model.onnx', shape=(64, 64), verify=0)
        facts = {entry.key: json.loads(entry.value) for entry in onnx.load(tmp_path / 'model.onnx').metadata_props}
        assert facts['classes'] == [str(i) for i in range(10)]
        assert len(facts['mean']) == len(facts['std']) == 3

    @pytest.mark.parametrize('config', [HALVIT, RESNET])
    def test_int8_keeps_one_copy(self, config, checkpoint, tmp_path):
        cfg = read(config)
        cfg.test_dataloader.dataset.data_root = 'nowhere'
        path = tmp_path / 'model.onnx'
        export(cfg, checkpoint(cfg), path, verify=0)
        quantize(path, tmp_path / 'int8.onnx', torch.randn(4, 3, 32, 32))
        assert initializer_bytes(tmp_path / 'int8.onnx') < 0.35 * initializer_bytes(
            path
        )  # the first layer stays as it is
        session = create_session(tmp_path / 'int8.onnx')
        assert np.isfinite(session.run(None, {'images': np.zeros((1, 3, 32, 32), np.float32)})[0]).all()


class TestOtherFormats:
    @pytest.mark.parametrize(
        ('suffix', 'precision'), [('pt2', 'fp32'), ('pt2', 'fp16'), ('pt', 'fp32'), ('pt', 'fp16'), ('xml', 'fp32')]
    )
    def test_runs_like_the_model(self, suffix, precision, checkpoint, tmp_path):
        cfg, said = read(HALVIT), []
        cfg.test_dataloader.dataset.data_root = 'nowhere'
        path = tmp_path / f'model.{suffix}'
        export(cfg, checkpoint(cfg), path, precision, None, suffix != 'xml', suffix == 'pt2', verify=2, say=said.append)
        assert any('largest difference' in line for line in said)
        weights = path.with_suffix('.bin') if suffix == 'xml' else path
        kept = unique_bytes(cfg) // (2 if precision == 'fp16' else 1)
        assert weights.stat().st_size < 1.05 * kept + 2**20  # of a program the code as well


class TestRefusals:
    @pytest.mark.parametrize(
        ('out', 'options', 'message'),
        [
            ('model.tflite', {}, r'the suffix says the format; choose from \.onnx'),
            ('model.pt2', dict(precision='int8'), '--precision int8 is for ONNX; torch.export is written in fp32'),
            ('model.pt', dict(dynamic_size=True), '--dynamic-size: a TorchScript trace keeps the size'),
            ('model.pt', dict(external_data=True), '--external-data is for ONNX files'),
            ('model.xml', dict(dynamic_batch=True), 'OpenVINO computes wrong numbers'),
            ('model.xml', dict(precision='fp16'), 'OpenVINO computes wrong numbers'),
            ('no/such/model.onnx', {}, 'folder .*/no/such does not exist'),
        ],
    )
    def test_before_anything_is_computed(self, out, options, message, tmp_path):
        with pytest.raises(UserError, match=message):
            export(read(HALVIT), 'none.pth', tmp_path / out, **options)
        assert not [*tmp_path.iterdir()]

    def test_checkpoint_of_another_model(self, checkpoint, tmp_path):
        weights = checkpoint(read(RESNET))
        with pytest.raises(
            UserError, match='is not a checkpoint of this model: .* the first being backbone.cls_token is'
        ):
            export(read(HALVIT), weights, tmp_path / 'model.onnx')
        assert [file.name for file in tmp_path.iterdir()] == ['weights.pth']

    def test_size_that_no_pipeline_names(self, tmp_path):
        with pytest.raises(UserError, match='has no size for its test images; name one with --shape'):
            export(read(DETECTOR), None, tmp_path / 'model.onnx')

    def test_file_that_differs(self, tmp_path):
        for precision, wrong in (
            ('fp32', Difference(4, largest=1e-2, scale=3.0, agreement=1.0)),
            ('fp32', Difference(4, largest=float('nan'), scale=3.0, agreement=1.0)),
            ('int8', Difference(4, agreement=0.5)),
            ('int8', Difference(4, error=0.5)),
        ):
            with pytest.raises(UserError, match='m.onnx differs from the model: .* nothing was written'):
                wrong.check('m.onnx', precision)

    def test_session(self, tmp_path):
        with pytest.raises(UserError, match=r'no\.onnx does not exist'):
            create_session(tmp_path / 'no.onnx')
        (tmp_path / 'bad.onnx').write_text('no graph')
        with pytest.raises(UserError, match=r'ONNX Runtime cannot open .*bad\.onnx'):
            create_session(tmp_path / 'bad.onnx')
        with pytest.raises(UserError, match="prefer='speed' is unknown; choose from 'memory', 'time'"):
            create_session(tmp_path / 'bad.onnx', prefer='speed')
        with pytest.raises(UserError, match='provider TPU is not in this build of ONNX Runtime; it has '):
            create_session(tmp_path / 'bad.onnx', provider='TPU')


def test_comparison():
    ours, theirs = torch.tensor([[1.0, 2.0], [4.0, 3.0]]), torch.tensor([[1.0, 2.5], [3.0, 3.5]])
    found = compare([(ours,)], lambda _: (theirs,), [torch.zeros(2, 3, 1, 1)], classifies=True)
    assert (found.images, found.largest, found.scale, found.agreement) == (2, 1.0, 4.0, 0.5)
    assert found.error == pytest.approx((1.5 / 30) ** 0.5)


def test_shapes_of_test_pipelines():
    assert input_shape(read('configs/halvit/halvit-tiny_8xb128_in1k.py')) == (224, 224)
    assert input_shape(read(HALVIT)) == (32, 32)
    assert input_shape(read('configs/mask_rcnn/mask-rcnn_halvit-medium_fpn_1x_coco.py')) == (800, 1344)


@pytest.mark.long
def test_tool_with_real_images(digits, checkpoint):
    cfg = read(HALVIT)
    weights = checkpoint(cfg)
    tool = ['tools/export.py', ROOT / HALVIT, weights, '--verify', '20', '--out']
    shown = run_tool(*tool, 'm.onnx', cwd=digits).stdout
    assert '20 images of 32 x 32 from data/digits' in shown
    assert 'same top-1 100.0 %' in shown
    cfg.test_dataloader.dataset.data_root = str(digits / 'data/digits')
    model = get_model(cfg, weights).eval()
    images = read_images(cfg, model, 'test_dataloader', 360, (32, 32))
    assert len(images) == 360
    session = create_session(digits / 'm.onnx')
    classes = [session.run(None, {'images': image[None].numpy()})[0].argmax() for image in images]
    with torch.no_grad():
        assert classes == model(images).argmax(1).tolist()
    failed = run_tool(*tool, 'no/m.onnx', cwd=digits, check=False)
    assert failed.returncode == 2
    assert failed.stdout.splitlines()[-1].startswith('error: --out no/m.onnx: folder no does not exist')


def test_lists_of_packages():
    """What is imported only by the exporter is in the extra that the README names."""
    named = (Path(ROOT) / 'requirements/export.txt').read_text()
    assert all(package in named for package in ('onnx', 'onnxscript', 'onnxruntime', 'openvino', 'safetensors'))
