"""The configs to measure, and the settings of a measurement."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from halvit_mm.errors import UserError
from halvit_mm.io.build import build_model
from halvit_mm.io.configs import load_config, scope_of

from .measure import set_tf32
from .samples import input_channels


@dataclass
class Settings:
    """Settings of a measurement.

    Attributes:
        shape (tuple[int, int]): Height and width of an image. Defaults to ``(224, 224)``.
        batches (tuple[int, ...]): Images in a batch. Defaults to ``(1, 16)``.
        modes (tuple[str, ...]): ``'infer'``, ``'train'``. Defaults to both.
        device (str): ``'cpu'`` or ``'cuda'``. Defaults to ``'cpu'``.
        precisions (tuple[str, ...]): Of ``'fp32'``, ``'amp-bf16'``, ``'amp-fp16'``. Defaults to ``('fp32',)``.
        compile (bool): Whether each model is timed under ``torch.compile`` as well. Defaults to False.
        channels_last (bool): Whether images and weights have that layout. Defaults to False.
        rounds (int): Timed runs in each process. Defaults to 10.
        processes (int): Processes that times are taken in, one after the other. Times differ with the load of the
            machine and with the place of the memory. Defaults to 1.
        memory (bool): Whether peaks of memory are read, in a fresh process each. Defaults to True.
        tf32 (bool): Whether a GPU rounds fp32 to TF32 in products of matrices and in convolutions. Defaults to False.
    """

    shape: tuple[int, int] = (224, 224)
    batches: tuple[int, ...] = (1, 16)
    modes: tuple[str, ...] = ('infer', 'train')
    device: str = 'cpu'
    precisions: tuple[str, ...] = ('fp32',)
    compile: bool = False
    channels_last: bool = False
    rounds: int = 10
    processes: int = 1
    memory: bool = True
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.device == 'cuda' and not torch.cuda.is_available():
            raise UserError('--device cuda is not a device of this machine; expected cpu')
        if self.device == 'cpu' and 'amp-fp16' in self.precisions:
            raise UserError('--precision amp-fp16 is not a precision of a CPU; expected amp-bf16 or fp32')
        for name in ('shape', 'batches', 'rounds', 'processes'):
            values = getattr(self, name)
            if (least := min(values, default=1) if isinstance(values, tuple) else values) < 1:
                option = f'--{name.replace("batches", "batch")}'
                raise UserError(f'{option} {least} is not a positive number; expected 1 or more')

    @property
    def combinations(self) -> list[tuple[int, str, str]]:
        """Each batch size with each mode and precision."""
        return [(b, m, p) for p in self.precisions for b in self.batches for m in self.modes]


@dataclass
class Subject:
    """A config to measure.

    Attributes:
        path (str): A file, or ``package::path`` for one that an installed package carries.
        name (str): Its name in tables. Defaults to the file's name and the options.
        options (dict): Values by dotted key that are merged into the config. Defaults to none.
    """

    path: str
    name: str = ''
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        changed = (f'{key.rpartition(".")[2]}={value}' for key, value in self.options.items())
        self.name = self.name or ', '.join((Path(self.path).stem, *changed))

    def config(self) -> Config:
        """Read the config, without a classifier's augmentations that mix labels."""
        cfg = load_config(self.path, self.options)
        if 'train_cfg' in cfg.model and 'augments' in cfg.model.train_cfg:
            del cfg.model.train_cfg
        return cfg

    def model(self, settings: Settings) -> nn.Module:
        """Build the model, with random weights, on the settings' device and in their layout; set TF32 as they say."""
        set_tf32(settings.tf32)
        model = build_model(self.config())
        if settings.device == 'cpu':  # for which torch has no batch norms of all ranks
            model = revert_sync_batchnorm(model)
        return model.to(settings.device, memory_format=layout(settings))

    def optim_wrapper(self, model: nn.Module, precision: str = 'fp32') -> OptimWrapper:
        """Build the config's optimizer in a wrapper, which scales the loss for ``'amp-fp16'``."""
        cfg = self.config()
        wrapper = {key: value for key, value in cfg.optim_wrapper.items() if key not in ('loss_scale', 'dtype')}
        wrapper['type'] = 'AmpOptimWrapper' if precision == 'amp-fp16' else 'OptimWrapper'
        with DefaultScope.overwrite_default_scope(scope_of(cfg)):
            return build_optim_wrapper(model, wrapper)


def layout(settings: Settings) -> torch.memory_format:
    return torch.channels_last if settings.channels_last else torch.contiguous_format


def random_images(model: nn.Module, settings: Settings, batch: int) -> torch.Tensor:
    """Images of noise of the settings' size, device and layout, shape (batch, C, H, W)."""
    images = torch.randn(batch, input_channels(model), *settings.shape, device=settings.device)
    return images.to(memory_format=layout(settings))
