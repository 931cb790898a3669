import pytest
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS, MODELS
from torch import nn

from halvit_mm.errors import UserError
from halvit_mm.io.components import arguments_of, candidates, check_components, quiet, words
from halvit_mm.models.backbones import HaLViT

CLASSIFIER = dict(
    type='ImageClassifier',
    backbone=dict(type='halvit_mm.HaLViT', arch='micro'),
    head=dict(type='VisionTransformerClsHead', num_classes=10, in_channels=192),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]),
    init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.02, override=dict(type='Normal', name='head', std=0.01))],
)


def check(key: str, value: object, scope: str = 'mmpretrain') -> None:
    *path, last = key.split('.')
    cfg = place = {**CLASSIFIER}
    for name in path:
        place[name] = place = {**place[name]}
    place[last] = value
    check_components(cfg, 'model', scope, 'MODELS')


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('neck', None),
        ('backbone', dict(type=HaLViT, arch='micro')),
        ('backbone', dict(type='mmdet.ResNet', depth=50, norm_cfg=dict(type='BN', requires_grad=True))),
        ('backbone', dict(type='halvit_mm.models.backbones.HaLViT', arch='micro')),
        # What is not known to be wrong: the class takes any argument.
        ('backbone', dict(type='TIMMBackbone', model_name='resnet18', anything=1)),
        ('backbone', dict(type='LoRAModel', module=CLASSIFIER['backbone'], targets=[dict(type='qkv')])),
        # The head of a DETR takes this out of its loss's config.
        ('head', dict(type='mmdet.DETRHead', loss_cls=dict(type='mmdet.CrossEntropyLoss', bg_cls_weight=0.1))),
        ('backbone', dict(_scope_='mmdet', type='CSPDarknet', act_cfg=dict(type='Swish'))),
    ],
)
def test_what_upstream_builds_passes(key, value):
    check(key, value)


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        (
            'backbone.type',
            'HalViT',
            "model.backbone.type='HalViT' is not .*; did you mean 'halvit_mm.HaLViT'",
        ),
        ('backbone.type', 'HaLViT', "did you mean 'halvit_mm.HaLViT'"),
        ('backbone.type', 'halvit_mm.HaLVit', "did you mean 'halvit_mm.HaLViT'"),
        ('backbone.type', 'PyramidVisionTransformr', "did you mean 'mmdet.PyramidVisionTransformer'"),
        ('type', 'Absent', "model.type='Absent' is not a registered class; expected one that mmpretrain has"),
        ('backbone', 'HaLViT', r"model.backbone='HaLViT' is not the config of a component; expected dict\(type"),
        ('bakbone', {}, "model.bakbone is not an argument of ImageClassifier; did you mean 'backbone'"),
        (
            'backbone.drop_path',
            0.1,
            "model.backbone.drop_path is not an argument of HaLViT; did you mean 'drop_pa",
        ),
        # Through two constructors that hand the rest to the next
        ('head.num_clases', 3, "not an argument of VisionTransformerClsHead; did you mean 'num_classes'"),
        ('head.loss', dict(type='LabelSmoothLoss', valu=3), 'model.head.loss.valu is not an argument of LabelSm'),
        (
            'train_cfg.augments',
            [dict(type='Mixup', alph=1)],
            'train_cfg.augments.0.alph is not an argument of Mixup',
        ),
        ('init_cfg', dict(type='TruncNorml'), "model.init_cfg.type='TruncNorml' is not .*; did you mean 'TruncNormal'"),
    ],
)
def test_what_is_not_there_is_named(key, value, message):
    with pytest.raises(UserError, match=message):
        check(key, value)


def test_what_a_users_class_does_with_its_arguments_is_its_own():
    @MODELS.register_module(name='OfAUser', force=True)
    class OfAUser(nn.Module):
        def __init__(self, part, **kwargs):
            self.part = part.pop('mine')

    check('backbone', dict(type='OfAUser', part=dict(type='HaLViTT', mine=1), other=2))
    check('backbone', dict(type='OfAUser', part=dict(type='halvit_mm.HaLViT', mine=1)))
    with pytest.raises(UserError, match='model.backbone.part.yours is not an argument of HaLViT'):
        check('backbone', dict(type='OfAUser', part=dict(type='halvit_mm.HaLViT', yours=1)))
    MODELS.module_dict.pop('OfAUser')


def test_hooks_have_a_priority():
    check_components([dict(type='EMAHook', priority=49)], 'custom_hooks', 'mmdet', 'HOOKS')
    check_components([Hook()], 'custom_hooks', 'mmdet', 'HOOKS')
    with pytest.raises(UserError, match="custom_hooks.0='EMAHook' is not the config of a component"):
        check_components(['EMAHook'], 'custom_hooks', 'mmdet', 'HOOKS')


def test_candidates():
    assert candidates('halvit_mm.HaLViT', 'mmdet') == [HaLViT]
    assert candidates('HaLViT', 'mmdet') == []
    # mmpretrain has one of its own.
    assert candidates('EMAHook', 'mmdet', 'HOOKS') == [HOOKS.get('EMAHook')]
    assert candidates('EMAHook', 'mmpretrain', 'HOOKS') == [HOOKS.get('mmpretrain.EMAHook')]


def test_arguments():
    assert arguments_of(dict) is None
    assert arguments_of(nn.Identity) is None  # drops what it is given
    assert [*arguments_of(nn.Dropout)] == ['p', 'inplace']
    assert 'tie_rank' in arguments_of(HaLViT)


def test_arguments_that_go_to_a_base_class():
    class Base:
        def __init__(self, a):
            self.a = a

    class Between(Base):
        def __init__(self, b):
            super().__init__(b)

    class Next(Between):
        def __init__(self, c, **kwargs):
            super().__init__(**kwargs)

    class Past(Between):
        def __init__(self, c, **kwargs):
            super(Between, self).__init__(**kwargs)

    class Keeps(Between):
        def __init__(self, c, **kwargs):
            super().__init__(**kwargs)
            self.kept = kwargs

    assert [*arguments_of(Next)] == ['c', 'b']
    assert [*arguments_of(Past)] == ['c', 'a']
    assert arguments_of(Keeps) is None


def test_quiet_ends(caplog):
    """mmengine's loggers would stay disabled for what was logged within."""
    logger = MMLogger.get_instance('quiet')
    logger.addHandler(caplog.handler)
    with quiet():
        logger.warning('within')
    logger.warning('after')
    assert caplog.messages == ['after']


def test_words_are_those_of_the_base_classes_too():
    assert 'cls_token' in words((HaLViT,))
    assert 'drop_path' not in words((HaLViT,))


def test_models_that_cannot_be_imported(monkeypatch, tmp_path):
    """As OpenMMLab's mmsegmentation 1.2.2 without ftfy, which it does not ask for; mmengine passes over it."""
    (tmp_path / 'broken/models').mkdir(parents=True)
    (tmp_path / 'broken/registry.py').write_text(
        'from mmengine.registry import MODELS as ALL, Registry\n'
        "MODELS = Registry('model', parent=ALL, scope='broken', locations=['broken.models'])\n"
    )
    (tmp_path / 'broken/models/__init__.py').write_text('import absent_package\n')
    (tmp_path / 'broken/__init__.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"'ImageClassifer' is .*; broken\.models cannot be .*: No module named 'absent_p"
    ):
        check('type', 'ImageClassifer', 'broken')
