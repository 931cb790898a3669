from pathlib import Path

import pytest
import torch
from mmpretrain.apis import get_model

from halvit_mm.data import write_digits
from halvit_mm.deploy import create_session
from halvit_mm.deploy.export import export
from halvit_mm.deploy.network import load_network, read_images
from halvit_mm.errors import UserError
from tests.deploy.conftest import HALVIT, RESNET, read
from tests.utils import ROOT, run_tool


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp('digits')
    write_digits(folder / 'data/digits')
    return folder


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


def test_checkpoint_of_another_model(checkpoint, tmp_path):
    weights = checkpoint(read(RESNET))
    with pytest.raises(UserError, match=r'is not a checkpoint of this model: backbone\.cls_token missing'):
        export(read(HALVIT), weights, tmp_path / 'model.onnx')
    assert [file.name for file in tmp_path.iterdir()] == ['weights.pth']


def test_a_model_that_has_not_been_trained(tmp_path):
    """Its head starts at zero. Its logits start at zero too."""
    cfg = read(HALVIT)
    network = load_network(cfg)
    network.model.init_weights()
    torch.nn.init.zeros_(network.model.head.layers.head.weight)
    torch.save(dict(state_dict=network.model.state_dict()), tmp_path / 'fresh.pth')
    for suffix in ('.onnx', '.pt2', '.pt'):
        export(cfg, str(tmp_path / 'fresh.pth'), tmp_path / f'model{suffix}', verify=2)
        assert (tmp_path / f'model{suffix}').is_file()


def test_images_of_one_channel(tmp_path):
    cfg = read(HALVIT, **{'model.backbone.in_channels': 1})
    cfg.data_preprocessor = dict(mean=[33.0], std=[78.6], to_rgb=False)
    cfg.test_dataloader.dataset.pipeline[0].color_type = 'grayscale'
    export(cfg, None, tmp_path / 'm.onnx', verify=2)
    [given] = create_session(tmp_path / 'm.onnx').get_inputs()
    assert given.shape == [1, 1, 32, 32]


def test_wrapped_data_gives_real_images(tmp_path, monkeypatch):
    """Through ``RepeatDataset`` and its like."""
    monkeypatch.chdir(tmp_path)
    write_digits(tmp_path / 'data/digits')
    cfg = read(HALVIT)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset = dict(type='RepeatDataset', times=2, dataset=loader.dataset)
    said = []
    export(cfg, None, tmp_path / 'model.onnx', 'int8', verify=4, say=said.append)
    assert [line for line in said if 'images of 32 x 32 from data/digits' in line] == [
        '512 images of 32 x 32 from data/digits',
        '4 images of 32 x 32 from data/digits',
    ]
