import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import print_log
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.io.build import load_model
from halvit_mm.io.configs import load_config
from halvit_mm.io.logits import StoredLogits
from halvit_mm.registry import MODELS


class _Outside:
    """Holds a teacher outside the model: not in the model's parameters, state dict or copies."""

    module: nn.Module | None = None
    logits: StoredLogits | None = None

    def __deepcopy__(self, memo: dict) -> '_Outside':
        return self


@MODELS.register_module()
class DistilledClassifier(ImageClassifier):
    """An image classifier that learns from labels and from a trained teacher, such as its untied counterpart.

    The classifier itself is the student. Its arguments and keys are those of mmpretrain's ``ImageClassifier``, and its
    checkpoints fit the config without the teacher. The teacher gets the same images, mixed ones included, stays in
    evaluation mode and has no gradients. In its place may stand the logits that ``tools/save_logits.py`` has stored.

    The loss is the sum of

    - ``label`` times the head's own loss,
    - ``soft`` times ``T^2 KL(teacher / T || student / T)`` of the class probabilities (Hinton et al.,
      `arXiv 1503.02531 <https://arxiv.org/abs/1503.02531>`_),
    - ``hard`` times the cross entropy with the class that the teacher finds likeliest (DeiT, `arXiv 2012.12877
      <https://arxiv.org/abs/2012.12877>`_, equation 3, with the class token's own head),
    - ``feature`` times the mean over ``feature_layers`` of the squared error of the layer's output, relative to the
      teacher's mean square.

    Args:
        teacher (str, optional): Config of the teacher, a file or a package's, such as ``'mmpretrain::deit/...'``. May
            be left out with ``teacher_logits``. Defaults to None.
        teacher_checkpoint (str, optional): Weights of the teacher, of mmpretrain, timm or torchvision. ``init_weights``
            reads them, before training; a test needs no teacher. Defaults to None.
        teacher_logits (str, optional): Folder of stored logits, which are read instead of running the teacher. A
            ``teacher`` beside them must be the one that they are of; see :class:`~halvit_mm.train.StoredLogitsHook`.
            Defaults to None.
        teacher_options (dict): Values by dotted key that are merged into the teacher's config. Defaults to ``dict()``.
        label (float): Weight. Defaults to 0.5.
        soft (float): Weight. Defaults to 0.5.
        hard (float): Weight. Defaults to 0.
        feature (float): Weight. Defaults to 0.
        temperature (float): T. Defaults to 1.
        feature_layers (Sequence[str]): Names of modules of both models, such as ``'backbone.layers.5'``; their outputs
            have one shape. Defaults to ``()``.
        **kwargs: Arguments of ``ImageClassifier``: the student.

    Raises:
        ValueError: If there is no teacher, if no weight of a teacher's loss is above 0, if ``temperature`` is not above
            0, if only one of ``feature`` and ``feature_layers`` is given, if a model lacks one of ``feature_layers``,
            or if ``feature`` is given with ``teacher_logits``.
        TypeError: If a path, ``teacher_options`` or a number is of another type.
        UserError: In ``init_weights``, if the teacher's checkpoint or its logits are missing or do not fit.
    """

    @functools.partial(refuse_unknown_arguments, parent=ImageClassifier)
    def __init__(
        self,
        *args,
        teacher: str | None = None,
        teacher_checkpoint: str | None = None,
        teacher_logits: str | None = None,
        teacher_options: dict = dict(),
        label: float = 0.5,
        soft: float = 0.5,
        hard: float = 0.0,
        feature: float = 0.0,
        temperature: float = 1.0,
        feature_layers: Sequence[str] = (),
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        expect = Expect(self)
        expect.config(teacher_options=teacher_options)
        named = dict(teacher=teacher, teacher_checkpoint=teacher_checkpoint, teacher_logits=teacher_logits)
        given = {name: value for name, value in named.items() if value is not None}
        expect.instance((str,), 'is not a path', 'one, or None', bool, **given)
        expect.number(label=label, soft=soft, hard=hard, feature=feature, temperature=temperature)
        if (teacher is None) != (teacher_checkpoint is None) or (teacher is None and teacher_logits is None):
            raise ValueError(
                f'teacher={teacher!r}, teacher_checkpoint={teacher_checkpoint!r} and teacher_logits={teacher_logits!r} '
                'do not name a teacher; expected a config and its checkpoint, or a folder of tools/save_logits.py'
            )
        if teacher_logits is not None and feature:
            raise ValueError(
                f'feature={feature} with teacher_logits={teacher_logits!r}: outputs of layers are not stored; expected '
                'feature=0 and feature_layers=(), or a teacher that runs'
            )
        if not max(soft, hard, feature) > 0:
            raise ValueError(f'soft={soft}, hard={hard}, feature={feature} are not above 0; expected one of them to be')
        if temperature <= 0:
            raise ValueError(f'temperature={temperature} is not above 0; expected a positive number')
        if bool(feature) != bool(feature_layers):
            raise ValueError(f'feature={feature} and feature_layers={tuple(feature_layers)} go together')
        self.weights = dict(label=label, soft=soft, hard=hard, feature=feature)
        self.temperature = temperature
        self.feature_layers = tuple(feature_layers)
        self.teacher_source = None if teacher is None else (teacher, dict(teacher_options), teacher_checkpoint)
        self._logits_folder = teacher_logits
        self._teacher = _Outside()
        self._check_layers(self)

    def _check_layers(self, model: nn.Module) -> None:
        for name in self.feature_layers:
            if name not in dict(model.named_modules()):
                raise ValueError(f'feature_layers names {name!r}, which is not a layer of {type(model).__name__}')

    def init_weights(self) -> None:
        """Initialize the student and read the teacher, which only training needs."""
        super().init_weights()
        if self._logits_folder is not None:
            self._teacher.logits = StoredLogits(self._logits_folder)
            return
        config, options, checkpoint = self.teacher_source
        module = load_teacher(load_config(config, options), checkpoint, self.data_preprocessor)
        self._check_layers(module)
        self._teacher.module = module.to(next(self.parameters()))

    @property
    def teacher_logits(self) -> StoredLogits | None:
        """StoredLogits or None: The stored logits in place of a teacher, once ``init_weights`` has read them."""
        return self._teacher.logits

    @property
    def teacher(self) -> nn.Module | None:
        """nn.Module or None: The teacher, once ``init_weights`` has read it."""
        return self._teacher.module

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> 'DistilledClassifier':
        # Devices and precisions
        if self._teacher.module is not None:
            self._teacher.module._apply(fn)
        return super()._apply(fn, recurse)

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            inputs (Tensor): Images, shape (B, C, H, W).
            data_samples (list[DataSample]): Labels of the images.

        Returns:
            dict[str, Tensor]: The head's, whose ``loss`` is named ``loss_label`` here, and those of ``loss_soft``,
            ``loss_hard`` and ``loss_feature`` that have a weight.

        Raises:
            RuntimeError: If ``init_weights`` was not called, as a runner does before training.
        """
        wanted = {}
        if self.teacher_logits is not None:
            teacher_logits = self.teacher_logits.teach(inputs, [one.metainfo.get('place') for one in data_samples])
        elif self.teacher is None:
            raise RuntimeError('the teacher is read by init_weights(), which was not called')
        else:
            with torch.no_grad(), _outputs(self.teacher, self.feature_layers) as wanted:
                teacher_logits = self.teacher(inputs).detach()
        with _outputs(self, self.feature_layers) as given:
            feats = self.extract_feat(inputs)
        # mmengine logs the sum as `loss`, and a part of that name in its place.
        losses = {
            'loss_label' if name == 'loss' else name: value * self.weights['label'] if 'loss' in name else value
            for name, value in self.head.loss(feats, data_samples).items()
        }
        logits = self.head(feats)
        if weight := self.weights['soft']:
            losses['loss_soft'] = weight * soft_loss(logits, teacher_logits, self.temperature)
        if weight := self.weights['hard']:
            losses['loss_hard'] = weight * F.cross_entropy(logits, teacher_logits.argmax(1))
        if weight := self.weights['feature']:
            errors = [(given[name] - wanted[name]).square().mean() / wanted[name].square().mean() for name in wanted]
            losses['loss_feature'] = weight * sum(errors) / len(errors)
        return losses


def load_teacher(cfg: Config, checkpoint: str, preprocessor: nn.Module) -> nn.Module:
    """Load a teacher, in evaluation mode and without gradients or a preprocessor: the student's serves both.

    Args:
        cfg (Config): The whole config of the teacher.
        checkpoint (str): Its weights.
        preprocessor (nn.Module): The student's preprocessor. If the teacher's own has other means or deviations of
            pixels, a warning says so.

    Raises:
        UserError: If the checkpoint is missing or does not fit.
    """
    module = load_model(cfg, checkpoint)
    for name in ('mean', 'std'):
        own, given = (getattr(one, name, None) for one in (module.data_preprocessor, preprocessor))
        if own is not None and (given is None or not torch.allclose(own.cpu(), given.cpu())):
            message = f'The teacher was trained with {name}={own.flatten().tolist()} of pixels; the student has others.'
            print_log(message, 'current', logging.WARNING)
    del module.data_preprocessor
    return module.requires_grad_(False)


def soft_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """``T^2 KL(teacher / T || student / T)``, the mean over images; both logits have the shape (B, classes)."""
    student, teacher = (F.log_softmax(value.float() / temperature, 1) for value in (logits, teacher_logits))
    return F.kl_div(student, teacher, reduction='batchmean', log_target=True) * temperature**2


@contextmanager
def _outputs(model: nn.Module, names: Sequence[str]):
    """A dict that holds the output of each named module once the model has run."""
    gathered: dict[str, Tensor] = {}

    def hook_of(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output) -> None:
            gathered[name] = (output[0] if isinstance(output, (tuple, list)) else output).float()

        return hook

    handles = [model.get_submodule(name).register_forward_hook(hook_of(name)) for name in names]
    try:
        yield gathered
    finally:
        for handle in handles:
            handle.remove()
