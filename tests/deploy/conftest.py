"""Networks to export, with weights that no exporter folds."""

import pytest
import torch
from mmengine.config import Config

from halvit_mm.cost import count_parameters
from halvit_mm.data import write_digits
from halvit_mm.deploy.export import export
from halvit_mm.deploy.network import load_network
from halvit_mm.io.configs import load_config
from tests.utils import ROOT

HALVIT = 'configs/digits/halvit_2xb64_digits.py'
RESNET = 'configs/digits/resnet50-pe_2xb64_digits.py'
DETECTOR = 'configs/digits/mask-rcnn_halvit_digits-coco.py'
SHARED_DETECTOR = 'configs/digits/mask-rcnn_resnet50-pe_digits-coco.py'
SEGMENTOR = 'configs/digits/upernet_halvit_digits-seg.py'


# What makes the models of these configs as small as their exports need them. Export takes its time for each layer.
SMALL = {
    HALVIT: {'model.backbone.arch.num_layers': 2},
    RESNET: {
        'model.backbone.num_stages': 2,
        'model.backbone.strides': (1, 2),
        'model.backbone.dilations': (1, 1),
        'model.backbone.out_indices': (1,),
        'model.backbone.shared_stages': (1,),
        'model.head.in_channels': 128,
    },
    DETECTOR: {'model.backbone.arch.num_layers': 3, 'model.backbone.out_indices': (0, 1, 2)},
    SHARED_DETECTOR: {},
    SEGMENTOR: {'model.backbone.arch.num_layers': 3, 'model.backbone.out_indices': (0, 1, 2)},
}


def read(config: str, **options) -> Config:
    return load_config(str(ROOT / config), options)


def read_small(config: str, data: str | None = None, **options) -> Config:
    """A small model's config whose data lies in a folder, or does not exist."""
    cfg = read(config, **SMALL[config], **options)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(data or 'nowhere')
    return cfg


@pytest.fixture(scope='session')
def digits(tmp_path_factory):
    """A folder with the digits in ``data/digits``."""
    folder = tmp_path_factory.mktemp('digits')
    write_digits(folder / 'data/digits')
    return folder


def randomize(model: torch.nn.Module) -> None:
    """Give biases, norms and statistics values of their own: what is zero or one is folded by exporters."""
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if value.is_floating_point() and value.ndim == 1 and not name.startswith('data_preprocessor'):
                value.add_(torch.rand_like(value) * 0.1)


def unique_bytes(cfg: Config) -> int:
    network = load_network(cfg)
    parts = [network.model.backbone, network.model.neck] if network.detector else [network.model]
    return 4 * sum(count_parameters(part) for part in parts)


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


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
    """The graph of a small HaLViT, with its weights beside it, and its config."""
    path = tmp_path_factory.mktemp('exported') / 'model.onnx'
    cfg = read_small(HALVIT)
    cfg.test_dataloader.dataset.metainfo = dict(classes=('one', 'two'))
    torch.manual_seed(0)
    export(cfg, None, path, external_data=True, verify=1)
    return path, cfg
