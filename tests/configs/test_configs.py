from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load as load_yaml
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image, ImageOps

import halvit_mm  # noqa: F401 - makes 'halvit_mm::' known
from halvit_mm.cost import count_macs
from tests.utils import ROOT, groups_of

CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
# CvT is built in test_baselines.py, where transformers can be found.
CLASSIFIERS = [path for path in CONFIGS if 'coco' not in path.stem and not path.stem.startswith('cvt')]
IN1K = [path for path in CONFIGS if path.parent.name == 'halvit' and 'deit3' not in path.stem]
DEIT3 = [path for path in CONFIGS if path.parent.name == 'halvit' and 'deit3' in path.stem]


def build(cfg: Config) -> torch.nn.Module:
    # Upstream's ResNet and PVT read numbers from a tensor, and the meta device has none.
    with torch.device('meta' if cfg.model.get('backbone', {}).get('type') == 'halvit_mm.HaLViT' else 'cpu'):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('path', CLASSIFIERS, ids=lambda path: path.stem)
def test_model_and_optimizer_are_built(path):
    cfg = Config.fromfile(path)
    assert cfg.default_scope == 'mmpretrain'
    model = build(cfg)
    assert groups_of(cfg, model).keys() == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize('path', IN1K, ids=lambda path: path.stem)
class TestDeitRecipe:
    def test_learning_rate_fits_the_batch_in_the_name(self, path):
        cfg = Config.fromfile(path)
        assert cfg.train_dataloader.batch_size == 128
        assert cfg.auto_scale_lr.base_batch_size == 8 * 128
        assert cfg.optim_wrapper.optimizer.lr == 5e-4 * 8 * 128 / 512
        assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
        assert 'clip_grad' not in cfg.optim_wrapper

    def test_schedule(self, path):
        cfg = Config.fromfile(path)
        assert cfg.train_cfg.max_epochs == (600 if '600e' in path.stem else 300)
        warm_up, cosine = cfg.param_scheduler
        assert (warm_up.end, warm_up.start_factor) == (5, 1e-3)
        assert (cosine.begin, cosine.eta_min) == (5, 1e-5)

    def test_regularization(self, path):
        cfg = Config.fromfile(path)
        assert cfg.model.backbone.drop_path_rate == 0.1
        assert cfg.model.head.loss.label_smooth_val == 0.1
        assert [(a.type, a.alpha) for a in cfg.model.train_cfg.augments] == [('Mixup', 0.8), ('CutMix', 1.0)]
        assert cfg.train_dataloader.sampler == dict(_scope_='mmpretrain', type='RepeatAugSampler', num_repeats=3)
        steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
        randaugment, erasing = steps['RandAugment'], steps['RandomErasing']
        assert (randaugment.num_policies, randaugment.magnitude_level, randaugment.magnitude_std) == (2, 9, 0.5)
        assert (erasing.erase_prob, erasing.mode) == (0.25, 'rand')

    def test_decay(self, path):
        cfg = Config.fromfile(path)
        model = build(cfg)
        decayed = {name for name, group in groups_of(cfg, model).items() if group['weight_decay'] > 0}
        matrices = {'attn.q_weight', 'attn.kv_weight', 'ffn.weight'}
        layers = model.backbone.num_layers
        expected = {f'backbone.layers.{i}.{matrix}' for i in range(layers) for matrix in matrices}
        expected |= {'backbone.patch_embed.projection.weight', 'head.layers.head.weight'}
        assert decayed == expected


class TestDeit3Recipe:
    @pytest.mark.parametrize('path', DEIT3, ids=lambda path: path.stem)
    def test_schedule_and_decay(self, path):
        cfg = Config.fromfile(path)
        assert cfg.train_cfg.max_epochs == (800 if '800e' in path.stem else 400)
        assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 2048
        optimizer = cfg.optim_wrapper.optimizer
        assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('mmpretrain.Lamb', 4e-3, 0.05)
        warm_up, cosine = cfg.param_scheduler
        assert (warm_up.end, warm_up.start_factor * optimizer.lr) == (5, pytest.approx(1e-6))
        assert (cosine.begin, cosine.eta_min) == (5, 1e-5)
        groups = groups_of(cfg, build(cfg))
        decayed = {name.rpartition('.')[2] for name, group in groups.items() if group['weight_decay'] > 0}
        assert decayed == {'weight', 'q_weight', 'kv_weight'}
        assert groups['backbone.layers.0.ffn.gamma2.weight']['weight_decay'] == 0

    def test_each_layer_has_the_same_stochastic_depth(self):
        model = MODELS.build(Config.fromfile(DEIT3[0]).model)
        assert {layer.ffn.dropout_layer.drop_prob for layer in model.backbone.layers} == {0.05}
        assert {layer.attn.out_drop.drop_prob for layer in model.backbone.layers} == {0.05}

    def test_loss_is_the_mean_of_binary_cross_entropies(self):
        loss = MODELS.build(Config.fromfile(DEIT3[0]).model.head.loss)
        logits, target = torch.randn(4, 1000), torch.zeros(4, 1000)
        target[range(4), range(4)], target[range(4), range(4, 8)] = 0.3, 0.7
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        torch.testing.assert_close(loss(logits, target, avg_factor=4), expected)

    def test_three_augmentations(self):
        """Pillow's own, of which one in three images gets each."""
        steps = {step.type: step for step in Config.fromfile(DEIT3[0]).train_dataloader.dataset.pipeline}
        image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
        rgb = Image.fromarray(image[..., ::-1])
        gray, solarized, blurred = (
            TRANSFORMS.build(step)(dict(img=image.copy()))['img'].astype(int)
            for [step] in steps['RandomChoice'].transforms
        )
        assert abs(gray - np.array(rgb.convert('L').convert('RGB'), int)).max() <= 1
        assert np.array_equal(solarized, np.array(ImageOps.solarize(rgb))[..., ::-1])
        assert blurred.std() < image.std()
        blur = TRANSFORMS.build(steps['RandomChoice'].transforms[2][0])
        radii = [blur.random_magnitude() for _ in range(1000)]
        assert (min(radii), max(radii)) == (pytest.approx(0.1, abs=0.05), pytest.approx(2, abs=0.05))
        assert 'prob' not in steps['RandomChoice']
        jitter = steps['ColorJitter']
        assert (jitter.brightness, jitter.contrast, jitter.saturation) == (0.3, 0.3, 0.3)


def test_layer_scale_does_not_decay():
    cfg = Config.fromfile(ROOT / 'configs/halvit/halvit-tiny_8xb128_in1k.py')
    cfg.model.backbone.update(arch='micro', layer_scale_init_value=1e-4)
    cfg.model.head.in_channels = 192
    groups = groups_of(cfg, build(cfg))
    assert groups['backbone.layers.0.attn.gamma1.weight']['weight_decay'] == 0
    assert groups['backbone.layers.0.ffn.gamma2.weight']['weight_decay'] == 0


def test_layer_wise_decay_gives_each_layer_its_rate():
    cfg = Config.fromfile(ROOT / 'configs/halvit/halvit-micro_8xb128_in1k.py')
    cfg.optim_wrapper.constructor = 'mmpretrain.LearningRateDecayOptimWrapperConstructor'
    cfg.optim_wrapper.paramwise_cfg = dict(layer_decay_rate=0.5)
    groups = groups_of(cfg, build(cfg))
    rates = {name: group['lr'] / cfg.optim_wrapper.optimizer.lr for name, group in groups.items()}
    assert rates['head.layers.head.weight'] == 1
    assert rates['backbone.layers.11.attn.q_weight'] == pytest.approx(0.5)
    assert rates['backbone.layers.0.ffn.weight'] == pytest.approx(0.5**12)
    assert rates['backbone.patch_embed.projection.weight'] == pytest.approx(0.5**13)


@pytest.mark.parametrize(
    ('name', 'parameters'), [('halvit-tiny_8xb128_in1k', 11_433_832), ('halvit-medium_8xb128_in1k', 44_100_328)]
)
def test_parameters_with_classifier(name, parameters):
    model = build(Config.fromfile(ROOT / f'configs/halvit/{name}.py'))
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_twin_of_the_digits_model_by_one_field():
    cfg = Config.fromfile(ROOT / 'configs/digits/halvit_2xb64_digits.py')
    cfg.merge_from_dict({'model.backbone.tie': 'none'})
    names = {name for name, _ in build(cfg).named_parameters()}
    assert 'backbone.layers.0.attn.qkv.weight' in names
    assert 'backbone.layers.0.attn.q_weight' not in names


INDEX = [
    model
    for metafile in load_yaml(ROOT / 'model-index.yml')['Import']
    for model in load_yaml(ROOT / metafile)['Models']
]
INDEXED_CLASSIFIERS = [model for model in INDEX if model['Name'].endswith('_in1k')]


def test_every_imagenet_config_of_ours_is_in_the_index():
    ours = {path for path in CONFIGS if path.stem.endswith('_in1k') and path.parent.name != 'baselines'}
    assert {ROOT / model['Config'] for model in INDEXED_CLASSIFIERS} == ours


@pytest.mark.parametrize('entry', INDEXED_CLASSIFIERS, ids=lambda entry: entry['Name'])
def test_index_tells_the_truth(entry):
    cfg = Config.fromfile(ROOT / entry['Config'])
    model = MODELS.build(cfg.model)
    assert entry['Name'] == Path(entry['Config']).stem
    assert entry['Metadata']['Epochs'] == cfg.train_cfg.max_epochs
    assert entry['Metadata']['Parameters'] == sum(p.numel() for p in model.parameters())
    assert entry['Metadata']['FLOPs'] == count_macs(model, (3, 224, 224))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_inherited_by_package_path(path, tmp_path):
    """mmengine gives the prefix as the scope to every typed dict that has none."""
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = 'halvit_mm::{path.relative_to(ROOT / 'configs').as_posix()}'\n")
    # What a config keeps for reuse in other fields is not read by a runner.
    reused = ('enlarge', 'train_pipeline', 'test_pipeline')
    inherited, own = (
        {key: value for key, value in Config.fromfile(file).to_dict().items() if key not in reused}
        for file in (child, path)
    )

    def scopes(cfg):
        if isinstance(cfg, dict):
            yield cfg.get('_scope_')
            cfg = cfg.values()
        elif not isinstance(cfg, (list, tuple)):
            return
        for value in cfg:
            yield from scopes(value)

    for cfg in (inherited, own):
        if '/' in (place := cfg['model'].get('model_name', '')):  # in an editable install a link to the same folder
            cfg['model']['model_name'] = Path(place).resolve()
    # The visualizer has no scope of its own, because mmpretrain's browse_dataset.py would hand it on.
    if inherited.get('visualizer', {}).get('_scope_') == 'halvit_mm':
        del inherited['visualizer']['_scope_']
    assert 'halvit_mm' not in {*scopes(inherited)}
    assert inherited == own
