"""Turn the checkpoint of a plain model into the start of its tied form."""

import copy
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn

from halvit_mm.errors import UserError
from halvit_mm.io.build import build_model, in_one_line, load_model
from halvit_mm.io.checkpoints import written_whole
from halvit_mm.io.datasets import local_files, walk_datasets
from halvit_mm.io.weights import Comparison
from halvit_mm.layers import SharedBottleneckStage, TiedModule, set_matrix
from halvit_mm.layers.sharing import BorrowingLinear

from .bases import relative_error
from .calibrate import fit_units, output_error
from .kinds import align, is_tied, kind_of
from .stages import fill_stage

# Images on which outputs are compared
COMPARED = 256


@dataclass
class TiedLayer:
    """A module of the plain model that is tied in the other, or shares its matrices there.

    Attributes:
        name (str): Name of the module in both.
        weights (dict[str, float]): Relative error of what stands in place of each pair of matrices, or of each matrix;
            see :func:`~halvit_mm.tying.bases.relative_error`.
    """

    name: str
    weights: dict[str, float]


@torch.no_grad()
def tie_weights(plain: nn.Module, tied: nn.Module, way: str = 'products') -> list[TiedLayer]:
    """Fill a tied model with the weights of its plain form.

    A matrix that layers share is the mean of theirs.

    Args:
        plain (nn.Module): The plain model.
        tied (nn.Module): The tied model, or one whose layers share, in which a module has the name that it has in the
            plain model. The tied model is changed.
        way (str): As in :func:`~halvit_mm.tying.tie_model`. Defaults to ``'products'``.

    Returns:
        list[TiedLayer]: The tied layers, and those that share, in the order of the model.

    Raises:
        UserError: If the two differ in keys or shapes, with the first of these; nothing is changed.
    """
    references = dict(plain.named_modules())
    pairs = [
        (name, module, references[name])
        for name, module in tied.named_modules()
        if name in references and _is_tied_form(module, references[name])
    ]
    groups = _sharing_maps(tied)
    if not pairs and not groups:
        raise UserError('the target model has no tied layer where the source model has a plain one')
    inside = tuple(f'{name}.' for name, *_ in pairs)
    ours, given = tied.state_dict(), plain.state_dict()
    # With a matrix for each of the maps that share one
    whole = {**ours, **{f'{name}.weight': ours[f'{names[0]}.weight'] for names in groups for name in names}}
    outside = ({name: v for name, v in state.items() if not name.startswith(inside)} for state in (whole, given))
    differences = Comparison(*outside).summary()
    for name, module, reference in pairs:
        differences = differences or Comparison(*_forms(module, reference)).summary(prefix=f'{name}.')
    if differences:
        raise UserError(f'the source model is not the plain form of the target model: {differences}')

    for name, value in ours.items():
        if name in given and given[name].shape == value.shape:
            value.copy_(given[name])
    errors: dict[str, dict[str, float]] = {}
    shared: dict[nn.Module, list] = {}
    for name, module, reference in pairs:
        if isinstance(module, SharedBottleneckStage):
            errors[name] = fill_stage(module, reference, way)
            continue
        kind = kind_of(reference)
        weights = align(kind.read(reference), way)
        kind.fill(module, weights)
        ways = weights.pairs()
        errors[name] = {matrix: relative_error(pair, [sum(pair) / 2] * 2) for matrix, pair in ways.items()}
        if isinstance(module, TiedModule):
            shared.setdefault(module.owner, []).append((name, module, ways))
    for owner, users in shared.items():
        for matrix in owner.matrices:
            if len(users) > 1:
                set_matrix([module for _, module, _ in users], matrix, [ways[matrix] for *_, ways in users])
            for name, module, ways in users:
                now = (module.matrix(matrix), module.way_out(matrix))
                errors[name][matrix] = relative_error(ways[matrix], [one.view_as(ways[matrix][0]) for one in now])
    for names in groups:
        own = [given[f'{name}.weight'] for name in names]
        mean = ours[f'{names[0]}.weight'].copy_(sum(own) / len(own))
        for name, matrix in zip(names, own, strict=True):
            # Its error stands with the network or the attention that the map is a part of.
            part = next((one for one in _parents(name) if kind_of(references[one])), name)
            label = name[len(part) :].strip('.') or 'weight'
            errors.setdefault(part, {})[label] = relative_error([matrix], [mean])
    return [TiedLayer(name, errors[name]) for name, _ in tied.named_modules() if name in errors]


def _sharing_maps(model: nn.Module) -> list[list[str]]:
    """Names of the linear maps that share each matrix, its owner first."""
    names = {module: name for name, module in model.named_modules()}
    groups: dict[nn.Module, list[str]] = {}
    for module, name in names.items():
        if isinstance(module, BorrowingLinear):
            groups.setdefault(module.owner, [names[module.owner]]).append(name)
    return [*groups.values()]


def _parents(name: str) -> Iterator[str]:
    while name := name.rpartition('.')[0]:
        yield name


def _is_tied_form(module: nn.Module, reference: nn.Module) -> bool:
    if isinstance(module, SharedBottleneckStage):
        return not isinstance(reference, SharedBottleneckStage)
    return kind_of(reference) is not None and is_tied(module)


def _forms(module: nn.Module, reference: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State dicts of a tied module and of the plain one once it is tied, without entries that may differ."""
    ours = {name: value for name, value in module.state_dict().items() if 'slack' not in name.split('.')}
    if isinstance(module, SharedBottleneckStage):
        # The depthwise convolutions and the shared matrix are not in the plain stage.
        return tuple(
            {name: value for name, value in state.items() if re.match(r'\d+\.(conv2|bn)', name)}
            for state in (ours, reference.state_dict())
        )
    given = kind_of(reference).tie(copy.deepcopy(reference)).state_dict()
    borrowed = module.matrices if isinstance(module, TiedModule) and module.owner is not module else ()
    return ours, {name: value for name, value in given.items() if name not in borrowed}


def units_of(names: Sequence[str]) -> list[str]:
    """Names of the blocks around tied layers, such as encoder layers; no block is within another."""
    parents = dict.fromkeys(name.rpartition('.')[0] or name for name in names)
    return [name for name in parents if not any(name.startswith(f'{other}.') for other in parents)]


def read_images(model: nn.Module, loader_cfg: dict, number: int) -> list[Tensor]:
    """Batches of normalized images, (B, C, H, W), from a config's data loader: as few as hold the wanted number."""
    batches = []
    with in_one_line('the data loader'):
        loader = Runner.build_dataloader(loader_cfg, seed=0)
    for data in loader:
        batches.append(model.data_preprocessor(data, training=False)['inputs'])
        if sum(map(len, batches)) >= number:
            break
    return batches


@torch.no_grad()
def accuracy(model: nn.Module, cfg: Config) -> float:
    """Top-1 of a classifier on a config's validation images, in percent."""
    loader = Runner.build_dataloader(cfg.val_dataloader)
    evaluator = Evaluator(cfg.val_evaluator)
    model.eval()
    for data in loader:
        evaluator.process(data_samples=model.val_step(data), data_batch=data)
    return evaluator.evaluate(len(loader.dataset))['accuracy/top1']


def tie_checkpoint(
    source_cfg: Config,
    checkpoint: str,
    target_cfg: Config,
    out: str,
    way: str = 'products',
    calibrate_cfg: Config | None = None,
    images: int = 1024,
    steps: int = 300,
    lr: float = 1e-3,
) -> None:
    """Write the start of a tied model from a plain one's checkpoint, and print the errors of the tied layers.

    Parts without a counterpart in the plain model start at random, and training images are drawn and augmented at
    random, both from the target config's ``randomness.seed``, or 0.

    Args:
        source_cfg (Config): Config of the plain model.
        checkpoint (str): Weights of the plain model.
        target_cfg (Config): Config of the tied model.
        out (str): File to write.
        way (str): As in :func:`~halvit_mm.tying.tie_model`. Defaults to ``'products'``.
        calibrate_cfg (Config, optional): Config whose training images the tied layers are fitted on. Defaults to None:
            they are not fitted.
        images (int): Number of those images. Defaults to 1024.
        steps (int): Steps for each block. Defaults to 300.
        lr (float): Learning rate of the fit. Defaults to 1e-3.

    Raises:
        UserError: If the weights do not fit the plain model, if the two models do not fit, or if data is missing;
            nothing is written then.
    """
    for option, value in (('--images', images), ('--steps', steps)):
        if value < 1:
            raise UserError(f'{option} {value} is not a number of {option.strip("-")}; expected 1 or more')
    if not 0 < lr < math.inf:
        raise UserError(f'--lr {lr} is not a learning rate; expected a number above 0')
    if not Path(out).absolute().parent.is_dir():
        raise UserError(f'--out {out} is not in an existing folder; expected {Path(out).absolute().parent} to exist')
    data_cfg = calibrate_cfg or target_cfg
    datasets = (one for name in ('train', 'val') for _, one in walk_datasets(data_cfg.get(f'{name}_dataloader')))
    missing = [path for dataset in datasets for path in local_files(dataset) if not path.exists()]
    if calibrate_cfg is not None and (missing or 'train_dataloader' not in data_cfg):
        raise UserError(
            f'--calibrate {data_cfg.filename}: {missing[0] if missing else "train_dataloader"} does not exist'
        )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        set_random_seed(target_cfg.get('randomness', {}).get('seed') or 0)
        device = get_device()
        plain = load_model(source_cfg, checkpoint).to(device)
        tied = build_model(target_cfg).to(device)
        layers = tie_weights(plain, tied, way)
        compared: Iterable[Tensor] = ()
        if missing or 'val_dataloader' not in data_cfg:
            print(f'No outputs and no accuracy: {missing[0] if missing else "val_dataloader"} does not exist.')
        else:
            compared = read_images(plain, data_cfg.val_dataloader, COMPARED)
        print('relative errors of weights and outputs')
        for layer in layers:
            errors = [f'{name} {error:.3f}' for name, error in layer.weights.items()]
            if compared:
                errors.append(f'output {output_error(plain, tied, layer.name, compared):.3f}')
            print(f'{layer.name}: {", ".join(errors)}', flush=True)
        if calibrate_cfg is not None:
            batches = read_images(plain, calibrate_cfg.train_dataloader, images)
            print('relative error of the outputs of each block, before and after the fit')
            units = units_of([layer.name for layer in layers])
            fit_units(plain, tied, units, batches, steps, lr, lambda *row: print('{}: {:.3f} -> {:.3f}'.format(*row)))
        if compared:
            print(f'top-1 of the source model: {accuracy(plain, data_cfg):.2f} %')
            print(f'top-1 before any fine-tuning: {accuracy(tied, data_cfg):.2f} %')
    meta = dict(tied_from=Path(checkpoint).name, way=way, calibrated=calibrate_cfg is not None)
    with written_whole(out) as part:
        torch.save(dict(state_dict=tied.cpu().state_dict(), meta=meta), part)
    print(f'written: {out}')
