import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import halvit_mm.models.classifiers.distilled
from halvit_mm.errors import UserError
from halvit_mm.models.classifiers.distilled import soft_loss
from tests.utils import ROOT, TINY_ARCH

CONFIG = ROOT / 'configs/digits/halvit_2xb64_digits.py'
OPTIONS = {
    'model.backbone.arch': TINY_ARCH,
    'model.backbone.tie': 'none',
    'model.head.in_channels': TINY_ARCH['embed_dims'],
}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> str:
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(OPTIONS)
    model = MODELS.build({**cfg.model, '_scope_': 'mmpretrain'})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)


def make_student(checkpoint: str, tie: str = 'both', window_size: int = 0, **cfg):
    model = Config.fromfile(CONFIG)
    model.merge_from_dict({**OPTIONS, 'model.backbone.tie': tie, 'model.backbone.window_size': window_size})
    model = {**model.model, '_scope_': 'mmpretrain', 'type': 'halvit_mm.DistilledClassifier'}
    teacher = dict(teacher=str(CONFIG), teacher_checkpoint=checkpoint, teacher_options=OPTIONS)
    student = MODELS.build({**model, **teacher, **cfg})
    student.init_weights()
    return student


def batch() -> tuple[torch.Tensor, list[DataSample]]:
    return torch.randn(4, 3, 32, 32), [DataSample().set_gt_label(i) for i in range(4)]


LAYERS = dict(feature=2.0, feature_layers=['backbone.layers.0', 'backbone.layers.2'])


@pytest.mark.parametrize('window_size', [0, 2])
def test_losses_are_what_they_say(checkpoint, window_size):
    weights = dict(label=0.3, soft=0.7, hard=0.2, temperature=3.0)
    student = make_student(checkpoint, window_size=window_size, **weights, **LAYERS)
    images, samples = batch()
    losses = student.loss(images, samples)
    logits, wanted = student(images), student.teacher(images)
    label = student.head.loss(student.extract_feat(images), samples)['loss']
    torch.testing.assert_close(losses['loss_label'], 0.3 * label)
    total, logged = student.parse_losses(losses)
    assert logged['loss'] == total == sum(losses.values())
    torch.testing.assert_close(losses['loss_hard'], 0.2 * F.cross_entropy(logits, wanted.argmax(1)))
    p, q = (wanted / 3).softmax(1), (logits / 3).softmax(1)
    torch.testing.assert_close(losses['loss_soft'], 0.7 * 9 * (p * (p / q).log()).sum(1).mean())
    assert soft_loss(logits, logits, 2.0).item() == pytest.approx(0, abs=1e-6)

    outputs = {}
    for model in (student, student.teacher):
        for name in LAYERS['feature_layers']:
            model.get_submodule(name).register_forward_hook(
                lambda module, args, output, key=(model is student, name): outputs.update({key: output})
            )
        model(images)
    errors = [
        F.mse_loss(outputs[True, name], outputs[False, name]) / outputs[False, name].square().mean()
        for name in LAYERS['feature_layers']
    ]
    torch.testing.assert_close(losses['loss_feature'], sum(errors))


def test_a_student_that_is_the_teacher_has_nothing_to_learn_from_it(checkpoint):
    student = make_student(checkpoint, tie='none', **LAYERS).eval()
    student.load_state_dict(student.teacher.state_dict())
    losses = student.loss(*batch())
    assert losses['loss_soft'].item() == pytest.approx(0, abs=1e-5)
    assert losses['loss_feature'].item() == 0


def test_teacher_is_no_part_of_the_student(checkpoint):
    student = make_student(checkpoint)
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({**OPTIONS, 'model.backbone.tie': 'both'})
    plain = MODELS.build({**cfg.model, '_scope_': 'mmpretrain'})
    assert student.state_dict().keys() == plain.state_dict().keys()
    assert {name for name, _ in student.named_parameters()} == {name for name, _ in plain.named_parameters()}
    before = {name: value.clone() for name, value in student.teacher.state_dict().items()}
    student.train()
    assert not student.teacher.training
    images, samples = batch()
    wrapper = build_optim_wrapper(student, dict(optimizer=dict(type='SGD', lr=0.1)))
    weights = student.head.layers.head.weight.clone()
    student.train_step(dict(inputs=[*(images.abs() * 50).byte()], data_samples=samples), wrapper)
    assert not torch.equal(student.head.layers.head.weight, weights)
    assert all(parameter.grad is None for parameter in student.teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in student.teacher.state_dict().items())
    assert copy.deepcopy(student).teacher is student.teacher
    assert next(student.double().teacher.parameters()).dtype == torch.double


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(soft=0.0), r'soft=0\.0, hard=0\.0, feature=0\.0'),
        (dict(temperature=0), 'temperature=0 is not above 0'),
        (dict(feature=1.0), 'go together'),
        (dict(feature_layers=['backbone']), 'go together'),
        (dict(feature=1.0, feature_layers=['backbone.layers.9']), r"'backbone\.layers\.9', which"),
        (dict(teacher=None), r"teacher=None, teacher_checkpoint='.*' and .* do not name a teacher; expected"),
        (dict(teacher=None, teacher_checkpoint=None), 'do not name a teacher'),
        (dict(teacher_logits=''), "teacher_logits='' is not a path; expected one, or None"),
        (dict(teacher_logits='x', **LAYERS), r"feature=2\.0 with teacher_logits='x': outputs of layers are not stored"),
    ],
)
def test_refusals(checkpoint, cfg, message):
    with pytest.raises(TypeError, match="teacher_options='{}' is not"):
        make_student(checkpoint, teacher_options='{}')
    with pytest.raises(ValueError, match=message):
        make_student(checkpoint, **cfg)


@pytest.mark.parametrize(('given', 'meant'), [('temprature', 'temperature'), ('train_cfgs', 'train_cfg')])
def test_misspelled_arguments(given, meant):
    message = rf"^DistilledClassifier: there is no argument '{given}'; did you mean '{meant}'\?$"
    with pytest.raises(TypeError, match=message):
        make_student('none.pth', **{given: 2.0})


def test_stored_logits_that_are_missing():
    with pytest.raises(UserError, match=r'none is not a folder of logits'):
        make_student('none.pth', teacher_logits='none')


def test_a_teacher_of_other_pixels(checkpoint, monkeypatch):
    """It is given the student's."""
    lines = []
    monkeypatch.setattr(halvit_mm.models.classifiers.distilled, 'print_log', lambda *args: lines.append(args[0]))
    preprocessor = Config.fromfile(CONFIG).data_preprocessor
    make_student(checkpoint, data_preprocessor=dict(preprocessor))
    assert not lines
    options = {**OPTIONS, 'data_preprocessor.mean': [1.0] * 3}
    make_student(checkpoint, data_preprocessor=dict(preprocessor), teacher_options=options)
    assert lines == ['The teacher was trained with mean=[1.0, 1.0, 1.0] of pixels; the student has others.']


def test_a_teacher_that_is_missing():
    with pytest.raises(UserError, match=r'none\.pth does not exist'):
        make_student('none.pth')


def test_a_test_needs_no_teacher():
    cfg = Config.fromfile(ROOT / 'configs/warm_start/halvit-tiny_8xb128-30e-from-deit_in1k.py')
    cfg.model.backbone.arch, cfg.model.feature_layers = TINY_ARCH, cfg.model.feature_layers[:3]
    cfg.model.head.in_channels = TINY_ARCH['embed_dims']
    student = MODELS.build({**cfg.model, '_scope_': 'mmpretrain'}).eval()
    images = torch.randn(2, 3, 224, 224)
    assert student(images).shape == (2, 1000)
    with pytest.raises(RuntimeError, match=r'init_weights\(\), which was not called'):
        student.loss(images, batch()[1][:2])
