"""The page's own resizing and cropping make the pixels of mmpretrain's test pipelines."""

import json
import subprocess

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, default_collate
from mmengine.registry import DefaultScope
from PIL import Image

from halvit_mm.deploy.network import description, load_network
from halvit_mm.io.configs import load_config
from halvit_mm.io.datasets import test_pipeline as pipeline_of
from tests.utils import ROOT

DIGITS = 'configs/digits/halvit_2xb64_digits.py'
GREY = {
    'model.backbone.in_channels': 1,
    'data_preprocessor': dict(mean=[33.0], std=[78.6], to_rgb=False),
    'test_dataloader.dataset.pipeline.0.color_type': 'grayscale',
}
BGR = {'data_preprocessor': dict(mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], to_rgb=False)}
SIZES = [(8, 8), (100, 80), (300, 451), (451, 300), (512, 512), (1024, 700)]


@pytest.mark.parametrize(
    ('config', 'options'),
    [
        (DIGITS, {}),
        (DIGITS, GREY),
        (DIGITS, BGR),
        ('configs/halvit/halvit-micro_8xb128_in1k.py', {}),
        ('configs/shared_resnet/resnet50-pe1_8xb32_in1k.py', {}),
    ],
    ids=['pillow, whole', 'grey', 'BGR', 'pillow, edge and crop', 'cv2, edge and crop'],
)
def test_inputs_equal_those_of_the_test_pipeline(config, options, node, tmp_path):
    cfg = load_config(str(ROOT / config), options)
    network = load_network(cfg)
    metadata = json.loads(json.dumps(description(cfg, network)))
    lines, expected = [], []
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose(pipeline_of(cfg))
    for height, width in SIZES:
        # Edges and flat places, which noise alone has not
        coarse = np.random.default_rng(height).integers(0, 256, (7, 5, 3), dtype=np.uint8)
        noise = np.random.default_rng(width).integers(-30, 30, (height, width, 3))
        picture = np.clip(np.asarray(Image.fromarray(coarse).resize((width, height), 0)) + noise, 0, 255)
        path = tmp_path / 'picture.png'
        Image.fromarray(picture.astype(np.uint8)).save(path)
        inputs = network.model.data_preprocessor(default_collate([pipeline(dict(img_path=str(path)))]))['inputs']
        expected.append(inputs)
        data = cv2.imread(str(path))[..., ::-1].flatten().tolist()
        picture = dict(width=width, height=height, channels=3, data=data)
        lines.append(json.dumps(dict(picture=picture, metadata=metadata, dims=[1, inputs.shape[1], 'h', 'w'])))
    shown = subprocess.run(
        [node, ROOT / 'web/tests/prepare.mjs'], input='\n'.join(lines), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for size, inputs, line in zip(SIZES, expected, shown, strict=True):
        made = json.loads(line)
        assert made['dims'] == [*inputs.shape], size
        ours = torch.tensor(made['data']).view(inputs.shape)
        # Codecs turn colors to grey levels themselves, each in its own way: up to 2 of 255 levels apart.
        most = 2 / metadata['std'][0] if metadata['channels'] == 'grey' else 0
        assert torch.allclose(ours, inputs, atol=most + 1e-6), (size, (ours - inputs).abs().max())


@pytest.mark.parametrize(
    ('transform', 'message'),
    [
        (dict(type='Rotate'), 'Rotate is not a transform of this page; it has Resize, ResizeEdge, CenterCrop'),
        (
            dict(type='Resize', scale=32, interpolation='area'),
            "interpolation 'area' of cv2 is not one that this page computes; expected 'bilinear' of cv2, or box",
        ),
        (dict(type='Resize', scale=32, keep_ratio=True), 'Resize with keep_ratio or scale_factor is not known'),
        (dict(type='CenterCrop', crop_size=40, auto_pad=True), 'CenterCrop with auto_pad is not known to this page'),
    ],
)
def test_what_the_page_cannot_compute_is_named(transform, message, node):
    picture = dict(width=4, height=4, channels=3, data=[0] * 48)
    line = json.dumps(dict(picture=picture, metadata=dict(pipeline=[transform]), dims=[1, 3, 4, 4]))
    refused = subprocess.run([node, ROOT / 'web/tests/prepare.mjs'], input=line, capture_output=True, text=True)
    assert refused.returncode
    assert message in refused.stderr
