from pathlib import Path

import pytest
import torch
from mmpretrain.apis import get_model

from halvit_mm.deploy import create_session
from halvit_mm.deploy.export import export, other_sizes
from halvit_mm.deploy.formats import read as read_file
from halvit_mm.deploy.network import load_network, read_images
from halvit_mm.errors import UserError
from halvit_mm.io.configs import load_config
from halvit_mm.models import HaLViT
from halvit_mm.registry import MODELS
from tests.deploy.conftest import DETECTOR, HALVIT, RESNET, SEGMENTOR, read, read_small, unique_bytes
from tests.utils import ROOT, run_tool


@pytest.mark.long
def test_tool_with_real_images(digits, checkpoint):
    cfg = read_small(HALVIT, digits / 'data/digits')
    weights = checkpoint(cfg)
    tool = ['tools/export.py', ROOT / HALVIT, weights, '--verify', '20', '--out']
    small = ['--cfg-options', 'model.backbone.arch.num_layers=2']
    shown = run_tool(*tool, 'm.onnx', *small, cwd=digits).stdout
    assert '20 images of 32 x 32 from data/digits' in shown
    assert 'same top-1 100.0 %' in shown
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


def test_checkpoint_of_another_model(checkpoint, tmp_path):
    weights = checkpoint(read(RESNET))
    with pytest.raises(UserError, match=r'is not a checkpoint of this model: backbone\.cls_token missing'):
        export(read(HALVIT), weights, tmp_path / 'model.onnx')
    assert [file.name for file in tmp_path.iterdir()] == ['weights.pth']


def test_a_model_that_has_not_been_trained(tmp_path):
    """Its head starts at zero. Its logits start at zero too."""
    cfg = read_small(HALVIT)
    network = load_network(cfg)
    network.model.init_weights()
    torch.nn.init.zeros_(network.model.head.layers.head.weight)
    torch.save(dict(state_dict=network.model.state_dict()), tmp_path / 'fresh.pth')
    export(cfg, str(tmp_path / 'fresh.pth'), tmp_path / 'model.pt', verify=2)
    assert (tmp_path / 'model.pt').is_file()


def test_images_of_one_channel(digits, tmp_path, capfd):
    cfg = read_small(HALVIT, digits / 'data/digits', **{'model.backbone.in_channels': 1})
    cfg.data_preprocessor = dict(mean=[33.0], std=[78.6], to_rgb=False)
    with pytest.raises(
        UserError, match=r'does not take images of shape \(1, 3, 32, 32\); expected .* to have 1 channels'
    ):
        export(cfg, None, tmp_path / 'm.pt', verify=2)
    cfg.test_dataloader.dataset.pipeline[0].color_type = 'grayscale'
    export(cfg, None, tmp_path / 'm.pt', verify=2)
    assert 'warning' not in capfd.readouterr().err
    cfg.test_dataloader.dataset.data_root = 'nowhere'
    export(cfg, None, tmp_path / 'm.pt', verify=2)
    line = 'warning: the file is compared on 2 images of noise, since nowhere does not exist; expected images'
    assert line in capfd.readouterr().err


def test_wrapped_data_gives_real_images(digits, tmp_path, capfd):
    """Through ``RepeatDataset`` and its like."""
    cfg = read_small(HALVIT, digits / 'data/digits')
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset = dict(
            type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[loader.dataset])
        )
    said = []
    export(cfg, None, tmp_path / 'model.onnx', 'int8', verify=4, calibrate=64, say=said.append)
    assert [line.partition(' from ')[0] for line in said[:2]] == ['64 images of 32 x 32', '4 images of 32 x 32']
    assert 'warning' not in capfd.readouterr().err


def test_images_that_cannot_be_read(digits, tmp_path):
    cfg = read_small(HALVIT, digits / 'data/digits')
    cfg.test_dataloader.dataset.pipeline[0].imdecode_backend = 'nothing'
    with pytest.raises(UserError, match='test_dataloader: image 0 cannot be read for this model: ValueError'):
        export(cfg, None, tmp_path / 'model.pt', verify=2)
    cfg.test_dataloader.dataset.type = 'Absent'
    with pytest.raises(UserError, match='^test_dataloader.dataset cannot be built: KeyError'):
        export(cfg, None, tmp_path / 'model.pt', verify=2)


@pytest.mark.parametrize('name', ['model.pt2', 'model.pt'])
def test_attention_in_other_formats(name, tmp_path):
    said = []
    export(read_small(HALVIT), None, tmp_path / name, verify=2, attention=True, say=said.append)
    assert said[0].startswith('2 images: largest difference')
    logits, attention = read_file(tmp_path / name)(torch.randn(1, 3, 32, 32))
    assert (logits.shape, attention.shape) == ((1, 10), (1, 2, 3, 4, 4))
    assert (0 < attention.sum((-2, -1))).all()
    assert (attention.sum((-2, -1)) < 1).all()


@pytest.mark.parametrize(
    ('config', 'options', 'boxes', 'message'),
    [
        (RESNET, {}, False, 'SharedStageResNet is not a vision transformer; expected ViT or HaLViT'),
        (HALVIT, {'model.backbone.window_size': 2}, False, 'window_size=2 is not a model whose tokens attend to the'),
        (DETECTOR, {}, False, '--attention: MaskRCNN is not a classifier; expected one'),
        (DETECTOR, {}, True, '--attention is for classifiers, and --boxes is of a detector; expected one of them'),
    ],
)
def test_models_without_attention_of_a_class_token(config, options, boxes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        export(read_small(config, **options), None, tmp_path / 'm.onnx', shape=(32, 32), boxes=boxes, attention=True)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(shape=(0, 0)), '--shape 0 0 is not a size of images; expected a height and a width of 1 pixel or more'),
        (dict(verify=-1), '--verify -1 is not a number of images; expected 0 or more'),
        (dict(calibrate=0), '--calibration-images 0 is not a number of images; expected 1 or more'),
    ],
)
def test_numbers_that_are_none(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        export(read(HALVIT), None, tmp_path / 'model.onnx', **options)


def test_sizes_that_a_file_is_tried_at():
    sizes = other_sizes((224, 224))
    assert all(h % 16 and w % 16 and (h, w) != (224, 224) for h, w in sizes)
    assert (
        {h > 224 for h, _ in sizes} == {h > 2 * w for h, w in sizes} == {w > 2 * h for h, w in sizes} == {True, False}
    )


def test_open_sizes_that_torch_cannot_export(tmp_path):
    """mmpretrain's own transformer keeps the size of the example, and windows keep their number in a ``.pt2``."""
    cfg = read_small(HALVIT)
    del cfg.model.backbone.tie
    cfg.model.backbone.type = 'VisionTransformer'
    with pytest.raises(UserError, match=r'model.pt2 cannot be run on images of shape \(1, 3, 39, 33\), and nothing'):
        export(cfg, None, tmp_path / 'model.pt2', dynamic_size=True, verify=1)
    cfg = read_small(DETECTOR, **{'model.backbone.window_size': 4})
    with pytest.raises(UserError, match='window_size=4; write .onnx instead'):
        export(cfg, None, tmp_path / 'model.pt2', shape=(64, 64), dynamic_size=True)
    assert not [*tmp_path.iterdir()]


def test_a_segmentor_with_windows_takes_any_size(tmp_path):
    cfg, said = read_small(SEGMENTOR, **{'model.backbone.window_size': 4}), []
    export(cfg, None, tmp_path / 'model.onnx', shape=(48, 64), dynamic_size=True, verify=1, say=said.append)
    sizes = [f'an image of {h} x {w}' for h, w in other_sizes((48, 64))]
    assert [line.partition(':')[0] for line in said if line.startswith('an image of')] == sizes


def test_the_reason_is_the_first_error(tmp_path):
    """Not the advice that torch.onnx puts around it."""

    @MODELS.register_module(force=True)
    class Branching(HaLViT):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    cfg = read_small(HALVIT)
    cfg.model.backbone.type = 'halvit_mm.Branching'
    told = r'model.onnx cannot be written in fp32: GuardOnDataDependentSymNode: Could not guard'
    with pytest.raises(UserError, match=told):
        export(cfg, None, tmp_path / 'model.onnx', verify=1)
    assert not [*tmp_path.iterdir()]


def test_a_precision_that_the_model_cannot_compute_in(tmp_path):
    """Swin makes the masks of its shifted windows in single precision."""
    depths = {'depths': [2], 'num_heads': [3], 'embed_dims': 24}
    cfg = load_config('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', {'model.head.in_channels': 24})
    cfg.model.backbone = dict(type='SwinTransformer', arch=depths, img_size=64, out_indices=(0,))
    with pytest.raises(UserError, match='model.pt cannot be written in fp16: RuntimeError: .*dtype'):
        export(cfg, None, tmp_path / 'model.pt', 'fp16', (64, 64), verify=1)
    assert not [*tmp_path.iterdir()]


def test_a_student_is_exported_without_its_teacher(tmp_path):
    cfg = read_small(HALVIT)
    cfg.model |= dict(type='halvit_mm.DistilledClassifier', teacher=cfg.filename, teacher_checkpoint='none.pth')
    export(cfg, None, tmp_path / 'model.pt', verify=1)
    assert (tmp_path / 'model.pt').stat().st_size < 1.05 * unique_bytes(read_small(HALVIT)) + 2**20
