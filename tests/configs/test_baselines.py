import os
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from halvit_mm.cost import count_parameters
from tests.configs.test_configs import CONFIGS
from tests.utils import ROOT, run

FOLDER = ROOT / 'configs/baselines'
OWN = [path for path in CONFIGS if path.parent == FOLDER and path.stem.startswith(('cvt', 'pvt', 'tnt-b'))]


@pytest.mark.parametrize('path', OWN, ids=lambda path: path.stem)
def test_recipe_is_whole(path):
    """Upstream has no config of these."""
    cfg = Config.fromfile(path)
    images = cfg.train_dataloader.batch_size * int(path.stem.rpartition('_')[0].rpartition('_')[2].partition('xb')[0])
    assert cfg.auto_scale_lr.base_batch_size == images == 1024
    assert cfg.train_cfg.max_epochs == 300
    assert cfg.optim_wrapper.optimizer.lr == 1e-3
    if not path.stem.startswith('tnt'):
        assert [augment.type for augment in cfg.model.train_cfg.augments] == ['Mixup', 'CutMix']


@pytest.mark.parametrize(('size', 'millions', 'drop_path'), [('tiny', 3, 0.0), ('small', 11, 0.0), ('base', 44, 0.1)])
def test_mini_deit_has_its_published_size(size, millions, drop_path):
    cfg = Config.fromfile(FOLDER / f'mini-deit-{size}_8xb128_in1k.py')
    model = MODELS.build(cfg.model)
    assert round(count_parameters(model) / 1e6) == millions
    assert model.backbone.layers[-1].ffn.dropout_layer.drop_prob == drop_path
    assert (cfg.model.label, cfg.model.soft, cfg.model.temperature) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize('name', ['pvt-v2-b2-li', 'pvt-t'])
def test_learns_from_mixed_labels(name):
    learn(name)


@pytest.mark.long
def test_cvt_learns():
    """In a process that finds transformers, which set-up has put beside the other packages."""
    script = 'from tests.configs.test_baselines import learn; print(learn("cvt-13"), learn("cvt-21"))'
    done = run(sys.executable, '-c', script, PYTHONPATH=os.pathsep.join([f'{sys.prefix}/transformers', str(ROOT)]))
    # Of both, the classifier has 385,000.
    assert '(19997480, 19612480) (31622696, 31237696)' in done.stdout


def learn(name: str) -> tuple[int, int]:
    """Train one step as a runner does, images normalized and mixed; give the parameters with and without classifier."""
    cfg = Config.fromfile(FOLDER / f'{name}_8xb128_in1k.py')
    model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
    assert model.data_preprocessor.batch_augments is not None
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    images = torch.randint(0, 256, (4, 3, 224, 224), dtype=torch.uint8)
    samples = [DataSample().set_gt_label(label) for label in range(4)]
    losses = model.train_step(dict(inputs=[*images], data_samples=samples), wrapper)
    assert losses['loss'].isfinite()
    # Stochastic depth leaves out a layer now and then.
    changed = [not torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True)]
    assert sum(changed) > 0.8 * len(changed)
    return count_parameters(model), count_parameters(model, without_head=True)
