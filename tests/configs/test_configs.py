from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load as load_yaml
from mmengine.registry import PARAM_SCHEDULERS
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image, ImageOps

import halvit_mm  # noqa: F401 - makes 'halvit_mm::' known
from halvit_mm.cost import count_macs
from tests.utils import ROOT, groups_of

CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
# CvT is built in test_baselines.py, where transformers can be found.
OF_OTHERS = ('coco', 'ade20k', 'digits-seg')
CLASSIFIERS = [
    path for path in CONFIGS if not path.stem.startswith('cvt') and not any(name in path.stem for name in OF_OTHERS)
]
HALVIT = [path for path in CONFIGS if path.parent.name == 'halvit']
DEIT3 = [path for path in HALVIT if 'deit3' in path.stem and '20e' not in path.stem]
OTHERS = ('deit3', 'distilled', 'mmpretrain', 'plain')
IN1K = [path for path in HALVIT if not any(name in path.stem for name in OTHERS)]


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
        rate = 3e-3 if 'medium' in path.stem else 4e-3
        assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('mmpretrain.Lamb', rate, 0.05)
        warm_up, cosine = cfg.param_scheduler
        assert (warm_up.end, warm_up.start_factor * optimizer.lr) == (5, pytest.approx(1e-6))
        assert (cosine.begin, cosine.eta_min) == (5, 1e-5)
        groups = groups_of(cfg, build(cfg))
        decayed = {name.rpartition('.')[2] for name, group in groups.items() if group['weight_decay'] > 0}
        assert decayed == {'weight', 'q_weight', 'kv_weight'}
        assert groups['backbone.layers.0.ffn.gamma2.weight']['weight_decay'] == 0

    @pytest.mark.parametrize('path', DEIT3, ids=lambda path: path.stem)
    def test_each_layer_has_the_same_stochastic_depth(self, path):
        model = build(Config.fromfile(path))
        rate = 0.2 if 'medium' in path.stem else 0.05
        assert {layer.ffn.dropout_layer.drop_prob for layer in model.backbone.layers} == {rate}
        assert {layer.attn.out_drop.drop_prob for layer in model.backbone.layers} == {rate}

    def test_medium_is_trained_at_192_pixels(self):
        """As the authors train ViT-B; then at 224."""
        small = Config.fromfile(ROOT / 'configs/halvit/halvit-medium_8xb256-deit3-800e-192px_in1k.py')
        large = Config.fromfile(ROOT / 'configs/halvit/halvit-tiny_8xb256-deit3-800e_in1k.py')

        def at_192(value):
            if isinstance(value, (list, tuple)):
                return [at_192(one) for one in value]
            if isinstance(value, dict):
                return {key: at_192(one) for key, one in value.items()}
            return 192 if value == 224 else value

        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            assert at_192(large[loader].to_dict()) == at_192(small[loader].to_dict())
            assert '224' not in str(small[loader])
        assert small.model.backbone.img_size == 192
        assert small.model.head.loss == large.model.head.loss
        tuned = Config.fromfile(ROOT / 'configs/halvit/halvit-medium_8xb64-deit3-20e_in1k.py')
        assert (tuned.optim_wrapper.optimizer.type, tuned.optim_wrapper.optimizer.lr) == ('AdamW', 1e-5)
        assert tuned.optim_wrapper.optimizer.weight_decay == 0.1
        assert 8 * tuned.train_dataloader.batch_size == tuned.auto_scale_lr.base_batch_size == 512
        [warm_up] = tuned.param_scheduler
        assert (warm_up.end, warm_up.start_factor) == (5, 0.1)
        assert (tuned.train_cfg.max_epochs, tuned.model.head.loss.label_smooth_val) == (20, 0.1)
        assert tuned.model.backbone.layer_cfgs.drop_path_rate == 0.2
        weights = build(small).state_dict()
        weights = {name: torch.zeros(value.shape) for name, value in weights.items()}
        model = MODELS.build(tuned.model)
        assert not any(model.load_state_dict(weights, strict=False))

    @pytest.mark.parametrize('config', DEIT3)
    def test_loss_is_the_mean_of_binary_cross_entropies(self, config):
        """Of targets that are 1 for both classes of a mixed image, as in the authors' own training."""
        loss = MODELS.build(Config.fromfile(config).model.head.loss)
        logits, mixed = torch.randn(4, 1000), torch.zeros(4, 1000)
        mixed[range(4), range(4)], mixed[range(4), range(4, 8)] = 0.3, 0.7
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, (mixed > 0).float())
        torch.testing.assert_close(loss(logits, mixed, avg_factor=4), expected)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.eye(1000)[:4])
        torch.testing.assert_close(loss(logits, torch.arange(4), avg_factor=4), expected)

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


def test_mmpretrains_recipe_is_whole():
    """All but the backbone, the runner and the number of kept checkpoints is mmpretrain's."""
    for ours, theirs in (
        ('halvit-tiny_4xb256-mmpretrain', 'deit-small_4xb256'),
        ('halvit-medium_16xb64-mmpretrain', 'deit-base_16xb64'),
    ):
        cfg = Config.fromfile(ROOT / f'configs/halvit/{ours}_in1k.py').to_dict()
        upstream = Config.fromfile(ROOT / f'configs/baselines/{theirs}_in1k.py').to_dict()
        assert cfg.pop('runner_type') == 'halvit_mm.ResumableRunner'
        assert cfg['default_hooks']['checkpoint'].pop('max_keep_ckpts') == 3
        backbones = [one['model'].pop('backbone') for one in (cfg, upstream)]
        assert cfg == upstream
        rates = [backbone.get('drop_path_rate', 0) for backbone in backbones]
        assert rates[0] == rates[1]
        whole = Config.fromfile(ROOT / f'configs/halvit/{ours}_in1k.py')
        groups = groups_of(whole, build(whole))
        decayed = {name.rpartition('.')[2] for name, group in groups.items() if group['weight_decay'] > 0}
        assert decayed == {'weight', 'q_weight', 'kv_weight'}


def test_mini_deits_distillation():
    """DeiT's recipe without stochastic depth, and no loss but that of the teacher's soft labels."""
    cfg, deit = (
        Config.fromfile(ROOT / f'configs/halvit/halvit-tiny_8xb128{name}_in1k.py') for name in ('-distilled', '')
    )
    assert {key: value for key, value in cfg.items() if key != 'model'} == {
        key: value for key, value in deit.items() if key != 'model'
    }
    assert cfg.model.backbone.drop_path_rate == 0
    assert cfg.model.train_cfg == deit.model.train_cfg
    assert (cfg.model.label, cfg.model.soft, cfg.model.temperature) == (0.0, 1.0, 1.0)
    teacher = Config.fromfile(ROOT / 'configs/baselines/regnety-16gf_8xb128_in1k.py')
    assert teacher.model.model_name == 'regnety_160'


class TestPlainVitRecipe:
    """arXiv 2205.01580, with the values of its authors' config."""

    PATHS = [path for path in HALVIT if 'plain' in path.stem]

    @pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)
    def test_schedule(self, path):
        cfg = Config.fromfile(path)
        assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 1024
        optimizer = cfg.optim_wrapper.optimizer
        assert optimizer.type == 'AdamW'
        assert optimizer.lr == 1e-3
        # In torch a step takes lr * weight_decay of a weight; theirs takes 1e-4.
        assert optimizer.lr * optimizer.weight_decay == pytest.approx(1e-4)
        assert cfg.optim_wrapper.clip_grad.max_norm == 1.0
        assert cfg.train_cfg.max_epochs == 90
        model = build(cfg)
        decayed = {n.rpartition('.')[2] for n, g in groups_of(cfg, model).items() if g['weight_decay'] > 0}
        assert decayed == {'weight', 'q_weight', 'kv_weight'}
        assert model.backbone.cls_token is None
        assert not any(isinstance(part, torch.nn.Dropout) and part.p for part in model.modules())
        assert {layer.ffn.dropout_layer.drop_prob for layer in model.backbone.layers} == {0}

    def test_rates(self):
        """Of every 1,251 steps an epoch: linear to 1e-3 in 10,000 steps, then a cosine to 0."""
        cfg = Config.fromfile(self.PATHS[-1])
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
        schedulers = []
        for one in cfg.param_scheduler:
            one = {**one, 'end': one.get('end', 90)}
            kind = PARAM_SCHEDULERS.get(one.pop('type'))
            del one['convert_to_iter_based'], one['_scope_']
            schedulers.append(kind.build_iter_from_epoch(optimizer=optimizer, epoch_length=1251, **one))
        rates = []
        for _ in range(90 * 1251):
            rates.append(optimizer.param_groups[0]['lr'])
            for scheduler in schedulers:
                scheduler.step()
        steps = np.arange(len(rates))
        warm = steps < 10_008
        expected = np.where(
            warm, 1e-3 * steps / 10_008, 5e-4 * (1 + np.cos(np.pi * (steps - 10_008) / (len(rates) - 10_008)))
        )
        assert np.abs(rates - expected).max() < 2e-7

    def test_data_and_loss(self):
        cfg = Config.fromfile(self.PATHS[0])
        steps = {step.type: TRANSFORMS.build(step) for step in cfg.train_dataloader.dataset.pipeline}
        crop, augment = steps['RandomResizedCrop'], steps['RandAugment']
        assert (crop.scale, crop.crop_ratio_range, crop.interpolation) == ((224, 224), (0.05, 1.0), 'bilinear')
        assert (augment.num_policies, augment.magnitude_level, augment.magnitude_std) == (2, 10, 0)
        assert augment.total_level == 10
        normalized = MODELS.build({**cfg.data_preprocessor, 'type': 'mmpretrain.ClsDataPreprocessor'})
        images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
        assert normalized(dict(inputs=images))['inputs'].unique().tolist() == [-1, 1]
        assert [(one.type, one.alpha) for one in cfg.model.train_cfg.augments] == [('Mixup', 0.2)]
        loss = MODELS.build(cfg.model.head.loss)
        logits, target = torch.randn(4, 1000), torch.rand(4, 1000).softmax(1)
        expected = -(target * logits.log_softmax(1)).sum(1).mean()
        torch.testing.assert_close(loss(logits, target), expected)


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
