"""The page in headless Chromium, on files that tools/export.py writes of trained models and on real digits."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import onnx
import psutil
import pytest
import torch
from filelock import FileLock
from mmengine.dataset import Compose, default_collate
from mmengine.registry import DefaultScope
from onnx import TensorProto, helper
from PIL import Image

from halvit_mm.data import write_digits
from halvit_mm.deploy import create_session
from halvit_mm.deploy.attention_maps import class_attention
from halvit_mm.deploy.export import export
from halvit_mm.deploy.network import load_network, read_images
from halvit_mm.io.checkpoints import find_latest_checkpoint
from halvit_mm.io.configs import load_config
from halvit_mm.io.datasets import test_pipeline as pipeline_of
from tests.deploy.conftest import DETECTOR, RESNET, read_small
from tests.utils import ROOT, free_port, kill_tree, run_tool

pytestmark = pytest.mark.long

CONFIG = 'configs/digits/halvit_2xb64_digits.py'
IMAGES = 50
WORDS = r'(\d+) % on the patches, at most (\d+) % on one'


def show(node: str, site: Path, *steps: dict, problems: tuple[str, ...] = ()) -> list[dict]:
    """What the page shows at first and after each step; the browser's console has no other problems."""
    done = subprocess.run(
        [node, ROOT / 'web/tests/page.mjs', site], input=json.dumps(steps), capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    states = [json.loads(line) for line in done.stdout.splitlines()]
    assert states[-1]['problems'] == [*problems]
    return states


@pytest.fixture(scope='module')
def digits(tmp_path_factory) -> Path:
    """A folder with the digits, and with a HaLViT and its untied counterpart that were trained on them."""
    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:  # whichever worker comes first trains for all
        folder = folder.parent
    folder = folder / 'web digits'
    with FileLock(f'{folder}.lock'):
        if not folder.exists():
            write_digits(folder / 'data/digits')
            for name, tie in (('digits', 'both'), ('digits-untied', 'none')):
                short = ['train_cfg.max_epochs=12', 'param_scheduler=None', 'optim_wrapper.optimizer.lr=1e-3']
                options = ['--cfg-options', f'model.backbone.tie={tie}', 'model.backbone.arch.num_layers=3']
                train = ['tools/train.py', ROOT / CONFIG, '--work-dir', name, '--no-validate', *options, *short]
                run_tool(*train, cwd=folder)
                weights = find_latest_checkpoint(folder / name)
                export = ['tools/export.py', ROOT / CONFIG, weights, '--out', f'{name}.onnx', '--attention', *options]
                run_tool(*export, cwd=folder)
    return folder


def model_of(folder: Path, tie: str = 'both'):
    cfg = load_config(str(ROOT / CONFIG), {'model.backbone.tie': tie, 'model.backbone.arch.num_layers': 3})
    cfg.test_dataloader.dataset.data_root = str(folder / 'data/digits')
    weights = find_latest_checkpoint(folder / ('digits' if tie == 'both' else 'digits-untied'))
    return cfg, load_network(cfg, str(weights)).model


@pytest.fixture
def with_models(site, digits, tmp_path) -> Path:
    """The page with the files of the demo, as web/build.sh would put them there."""
    folder = tmp_path / 'with models'
    shutil.copytree(site, folder)
    for name in ('digits.onnx', 'digits-untied.onnx'):
        shutil.copy(digits / name, folder / 'models')
    return folder


def test_classes_equal_those_of_pytorch(browser, with_models, digits):
    paths = sorted((digits / 'data/digits/val').rglob('*.png'))
    paths = [paths[i] for i in np.linspace(0, len(paths) - 1, IMAGES).astype(int)]
    first, *states = show(browser, with_models, *({'drop': [str(path)]} for path in paths))
    assert [model['file'] for model in first['models']] == ['digits.onnx', 'digits-untied.onnx']
    sizes = [(digits / name).stat().st_size for name in ('digits.onnx', 'digits-untied.onnx')]
    assert [model['bytes'] for model in first['models']] == [f'{size / 1e6:.2f} MB' for size in sizes]
    assert first['comparison'] == f'digits.onnx has {sizes[0] / sizes[1]:.2f} times the bytes of digits-untied.onnx.'
    wasm = (with_models / 'ort/ort-wasm-simd-threaded.wasm').stat().st_size / 1e6
    assert f', {wasm:.2f} MB of WebAssembly, loaded once; one thread of the processor.' in first['runtime']
    for number, tie in enumerate(('both', 'none')):
        cfg, model = model_of(digits, tie)
        cfg.test_dataloader.dataset.ann_file = str(digits / 'list.txt')
        cfg.test_dataloader.dataset.data_prefix = ''
        (digits / 'list.txt').write_text(
            ''.join(f'{p.relative_to(digits / "data/digits")} {p.parent.name}\n' for p in paths)
        )
        images = read_images(cfg, model, 'test_dataloader', IMAGES, (32, 32))
        assert len(images) == IMAGES
        with torch.no_grad():
            probabilities = model(images).softmax(1)
        attention = class_attention(model.backbone, images)[-1].mean(1).flatten(1)
        for row, weights, state in zip(probabilities, attention, states, strict=True):
            best = state['models'][number]['best']
            expected = row.topk(5)
            assert [one['label'] for one in best] == expected.indices.tolist()
            assert [one['name'] for one in best] == [str(label) for label in expected.indices.tolist()]
            assert np.allclose([one['probability'] for one in best], expected.values, atol=1e-4)
            assert re.fullmatch(r'\d+\.\d ms', state['models'][number]['time'])
            percents = [round(100 * value) for value in (weights.sum().item(), weights.max().item())]
            words = re.fullmatch(WORDS, state['models'][number]['attention'])
            assert np.allclose([int(word) for word in words.groups()], percents, atol=1)
        # A model that says the same of all images would be equal too.
        labels = torch.tensor([int(path.parent.name) for path in paths])
        assert (probabilities.argmax(1) == labels).float().mean() > 0.6


def test_drawings_layers_and_heads(browser, with_models, digits):
    angles = np.linspace(0, 2 * np.pi, 30)
    ring = [[0.5 + 0.2 * np.sin(a), 0.5 - 0.33 * np.cos(a)] for a in angles]
    steps = [{'draw': [ring]}, {'choose': {'layer': '0', 'head': '2'}, 'on': 0}, {'clear': True}]
    _, drawn, chosen, cleared = show(browser, with_models, *steps)
    assert [model['best'][0]['name'] for model in drawn['models']] == ['0', '0']
    assert drawn['message'] is None
    before, after = ([model['attention'] for model in state['models']] for state in (drawn, chosen))
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert [model['best'] for model in cleared['models']] == [[], []]


def test_files_of_other_models_classify_photographs(browser, site, tmp_path):
    """Without attention, in 8 bits, for any number of images, of a SharedStageResNet; and a photograph as JPEG."""
    cfg = read_small(RESNET)
    cfg.test_dataloader.dataset.metainfo = dict(classes=('cat', 'dog', 'Übersee', *'defghij'))
    path = tmp_path / 'resnet.onnx'
    export(cfg, None, path, 'int8', dynamic_batch=True, verify=2)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((640, 480), 0).save(tmp_path / 'photo.jpg')
    _, opened, shown = show(browser, site, {'open': str(path), 'on': 1}, {'open': str(tmp_path / 'photo.jpg')})
    assert opened['models'][1]['file'] == 'resnet.onnx'
    [untouched, model] = shown['models']
    assert untouched['file'].startswith('No file yet')
    assert {one['name'] for one in model['best']} <= {'cat', 'dog', 'Übersee', *'defghij'}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose(pipeline_of(cfg))
    sample = default_collate([pipeline(dict(img_path=str(tmp_path / 'photo.jpg')))])
    inputs = load_network(cfg).model.data_preprocessor(sample)['inputs']
    logits = torch.from_numpy(create_session(path).run(None, {'images': inputs.numpy()})[0][0])
    expected = logits.softmax(0).topk(5)
    assert [one['label'] for one in model['best']] == expected.indices.tolist()
    assert np.allclose([one['probability'] for one in model['best']], expected.values, atol=1e-3)
    assert model['attention'] is None
    assert shown['comparison'] == ''


def other_input(path: Path) -> None:
    """A model of text, as another exporter writes it."""
    tokens = helper.make_tensor_value_info('tokens', TensorProto.INT64, [1, 'length'])
    same = helper.make_tensor_value_info('same', TensorProto.INT64, [1, 'length'])
    graph = helper.make_graph([helper.make_node('Identity', ['tokens'], ['same'])], 'text', [tokens], [same])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)]), path)


def test_files_that_are_refused_give_one_line(browser, with_models, digits, tmp_path):
    whole = (digits / 'digits.onnx').read_bytes()
    for part in (0.3, 0.999):
        (tmp_path / f'cut{part}.onnx').write_bytes(whole[: int(len(whole) * part)])
    (tmp_path / 'empty.onnx').touch()
    (tmp_path / 'text.onnx').write_text('not a model')
    Image.effect_noise((20, 30), 90).save(tmp_path / 'image.onnx', format='png')
    (tmp_path / 'zeros.onnx').write_bytes(bytes(1000))
    (tmp_path / 'noise.onnx').write_bytes(b'\x08\x08' + np.random.default_rng(0).bytes(1000))
    (tmp_path / 'notes.txt').write_text('no image')
    other_input(tmp_path / 'tokens.onnx')
    cfg = read_small(DETECTOR)
    export(cfg, None, tmp_path / 'detector.onnx', shape=(64, 96), verify=0)
    export(read_small(RESNET), None, tmp_path / 'beside.onnx', external_data=True, verify=0)
    old = onnx.load(digits / 'digits.onnx')
    kept = [entry for entry in old.metadata_props if entry.key != 'pipeline']
    del old.metadata_props[:]
    old.metadata_props.extend(kept)
    onnx.save(old, tmp_path / 'old.onnx')
    expected = {
        'cut0.3.onnx': 'cut0.3.onnx is cut: its content ends before its end; expected a whole file of tools/export.py',
        'cut0.999.onnx': 'cut0.999.onnx is cut: its content ends before its end; expected a whole file',
        'empty.onnx': 'empty.onnx is not an ONNX file; expected one of tools/export.py --out NAME.onnx',
        'text.onnx': 'text.onnx is not an ONNX file; expected one',
        'image.onnx': 'image.onnx is not an ONNX file; expected one',
        'zeros.onnx': 'zeros.onnx is not an ONNX file; expected one',
        'noise.onnx': 'noise.onnx is ',
        'notes.txt': 'notes.txt is neither an ONNX file nor an image that this browser reads; expected .onnx, .jpg or',
        'tokens.onnx': 'tokens.onnx takes tokens (int64, 1 x length); expected images (float32, N x 3 x H x W)',
        'detector.onnx': 'detector.onnx returns map0 (float32, 1 x 64 x 16 x 24), map1',
        'beside.onnx': 'beside.onnx has its weights in another file; export it without --external-data',
        'old.onnx': 'old.onnx does not say how its images are made; export it again with this version of',
    }
    image = next((digits / 'data/digits/val/7').iterdir())
    steps = [{'drop': [str(image)]}, *({'drop': [str(tmp_path / name)], 'on': 0} for name in expected)]
    _, good, *states = show(browser, with_models, *steps, {'drop': [str(image)]})
    for (name, message), state in zip(expected.items(), states[:-1], strict=True):
        assert state['message'].startswith(message), name
        assert '\n' not in state['message']
        # What was there stays.
        assert [model['file'] for model in state['models']] == ['digits.onnx', 'digits-untied.onnx']
        assert state['models'][0]['best'] == good['models'][0]['best']
    assert states[-1]['message'] is None


def test_make_web_serves_to_this_machine_only(site):
    port = free_port()
    server = subprocess.Popen(
        ['make', 'web', f'WEB_PORT={port}'], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        for name in ('', 'main.js', 'ort/ort-wasm-simd-threaded.wasm'):
            assert fetch(f'http://127.0.0.1:{port}/{name}') == (site / (name or 'index.html')).read_bytes()
        listening = [line.laddr for line in psutil.net_connections('tcp') if line.laddr.port == port]
        assert {address.ip for address in listening} == {'127.0.0.1'}
    finally:
        kill_tree(server)
    assert f'open http://127.0.0.1:{port}/' in server.stdout.read()


def fetch(url: str) -> bytes:
    for _ in range(100):
        try:
            with urlopen(url, timeout=10) as response:
                return response.read()
        except URLError:
            time.sleep(0.2)
    raise AssertionError(f'nothing answers at {url}')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_nothing_is_wider_than_the_screen(scheme, browser, with_models, digits, tmp_path):
    image = next((digits / 'data/digits/val/3').iterdir())
    pictures = [
        dict(screenshot=str(tmp_path / f'{width}.png'), width=width, scheme=scheme) for width in (1280, 800, 360)
    ]
    for state in show(browser, with_models, {'drop': [str(image)]}, *pictures):
        assert not state['wide']
    for picture in pictures:
        with Image.open(picture['screenshot']) as shown:
            assert shown.width == picture['width']
            brightness = np.asarray(shown.convert('L'))[2, 2]
            assert brightness > 200 if scheme == 'light' else brightness < 60
