"""docs/own_data.md: its configs and commands, as they are printed, on images of many kinds."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tests.utils import ROOT, run_tool

PAGE = (ROOT / 'docs/own_data.md').read_text()
# Mode of the pixels, suffix and size
KINDS = [('RGB', 'jpg', (90, 60)), ('RGBA', 'png', (64, 80)), ('L', 'jpg', (50, 50)), ('P', 'png', (120, 40))]


def draw(path: Path, mode: str, size: tuple[int, int], color: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(color).integers(0, 60, (size[1], size[0], 3), np.uint8)
    pixels[size[1] // 4 : size[1] // 2, size[0] // 4 : size[0] // 2] += np.uint8(40 + 40 * color)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with what a clone has, and the configs of the page."""
    for name in ('tools', 'configs', 'halvit_mm'):
        (tmp_path / name).symlink_to(ROOT / name)
    for block in re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL):
        name = block.partition('\n')[0].removeprefix('# ')
        (tmp_path / name).write_text(block)
    return tmp_path


def run_commands(clone: Path, config: str, changes: dict[str, str], quick: list[str]) -> dict[str, str]:
    """Run the page's commands for a config, with less to compute; the output of each tool by its name."""
    shown = {}
    for block in re.findall(r'```bash\n(.*?)```', PAGE, re.DOTALL):
        for line in block.splitlines():
            if config in line or Path(config).stem in line:
                for given, changed in changes.items():
                    line = line.replace(given, changed)
                python, tool, *arguments = shlex.split(line)
                assert python == 'python'
                if tool in ('tools/train.py', 'tools/test.py', 'tools/infer.py'):
                    arguments += ['--cfg-options', *quick]
                shown[Path(tool).stem] = run_tool(tool, *arguments, cwd=clone, OMP_NUM_THREADS='1').stdout
    assert [*shown] == ['train', 'test', 'infer', 'export', 'publish_model']
    return shown


@pytest.mark.long
def test_a_folder_of_images(clone):
    names = [f'photo {i}.{suffix}' for i, (_, suffix, _) in enumerate(KINDS)]
    for color, animal in enumerate(('cat', 'dog', 'guinea pig')):
        for split, kinds in (('train', KINDS), ('val', KINDS[:2])):
            for name, (mode, _, size) in zip(names, kinds):
                draw(clone / 'data/pets' / split / animal / name, mode, size, color)
    quick = ['train_cfg.max_epochs=1', 'param_scheduler=None']
    for loader in ('train', 'val', 'test'):
        quick += [f'{loader}_dataloader.num_workers=0', f'{loader}_dataloader.persistent_workers=False']
    shown = run_commands(clone, 'pets.py', {'epoch_100': 'epoch_1'}, quick)
    assert 'accuracy/top1' in shown['train']
    assert 'accuracy/top1' in shown['test']
    lines = [line for line in shown['infer'].splitlines() if line.startswith('data/pets/val/')]
    assert len(lines) == 6
    for line in lines:
        path, _, answer = line.partition(': ')
        assert answer.rsplit(' ', 1)[0] in ('cat', 'dog', 'guinea pig')
        assert (clone / 'work_dirs/pets/drawn' / Path(path).relative_to('data/pets/val')).is_file()
    assert '6 images of 224 x 224 from data/pets' in shown['export']
    session = onnxruntime.InferenceSession(clone / 'work_dirs/pets/pets.onnx')
    assert [*session.run(None, {'images': np.zeros((1, 3, 224, 224), np.float32)})[0].shape] == [1, 3]
    assert len([*(clone / 'work_dirs/pets').glob('pets_*.safetensors')]) == 1


@pytest.mark.long
def test_a_coco_file(clone):
    categories = [dict(id=3, name='apple'), dict(id=7, name='pear')]
    for split, kinds in (('train', KINDS), ('val', KINDS[:2])):
        images, annotations = [], []
        for i, (mode, suffix, (width, height)) in enumerate(kinds, 1):
            images.append(dict(id=i, file_name=f'my photo {i}.{suffix}', width=width, height=height))
            draw(clone / 'data/shop' / split / images[-1]['file_name'], mode, (width, height), i)
            x, y, w, h = width // 4, height // 4, width // 4, height // 4
            annotations.append(
                dict(id=i, image_id=i, category_id=(3, 7)[i % 2], bbox=[x, y, w, h], area=w * h, iscrowd=0)
                | dict(segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])
            )
        content = dict(images=images, annotations=annotations, categories=categories)
        (clone / f'data/shop/{split}.json').write_text(json.dumps(content))
    quick = ['train_cfg.max_epochs=1', 'param_scheduler=None', 'train_dataloader.dataset.pipeline.2.scale=(96,96)']
    quick += ['model.test_cfg.rcnn.score_thr=0.0', 'model.test_cfg.rpn.max_per_img=20']
    quick += ['model.train_cfg.rpn_proposal.max_per_img=50', 'model.train_cfg.rcnn.sampler.num=16']
    for loader in ('train', 'val', 'test'):
        quick += [f'{loader}_dataloader.num_workers=0', f'{loader}_dataloader.persistent_workers=False']
    for loader in ('val', 'test'):
        quick += [f'{loader}_dataloader.dataset.pipeline.1.scale=(96,96)']
    shown = run_commands(
        clone, 'shop.py', {'epoch_12': 'epoch_1', '--shape 800 1344': '--shape 64 96 --verify 2'}, quick
    )
    assert 'coco/segm_mAP' in shown['train']
    assert 'coco/bbox_mAP' in shown['test']
    lines = [line for line in shown['infer'].splitlines() if line.startswith('data/shop/val/')]
    assert len(lines) == 2
    assert all(line.endswith(' above 0.3') for line in lines)
    assert len([*(clone / 'work_dirs/shop/drawn').iterdir()]) == 2
    assert (clone / 'work_dirs/shop/shop.onnx').is_file()
