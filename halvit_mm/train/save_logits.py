"""A teacher's logits of the augmented images of a training, stored before it."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_rank
from mmengine.registry import DefaultScope
from mmengine.runner import set_random_seed
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn
from torch.utils.data import DataLoader

from halvit_mm.errors import RankError, UserError
from halvit_mm.io.build import build_model
from halvit_mm.io.checkpoints import check_writable
from halvit_mm.io.configs import reliability, scope_of
from halvit_mm.io.logits import MANIFEST, StoredLogits, read_manifest, write_manifest
from halvit_mm.models.classifiers.distilled import load_teacher

from .augmented import describe_images, describe_teacher, difference
from .hooks import bad_images_action, default_hooks
from .hooks.stored_logits import misfit
from .loops import _Place
from .ranks import from_the_first_rank, join_ranks
from .runner import ResumableRunner, checked
from .seeds import seed_all, seed_of


def save_logits(
    cfg: Config,
    teacher_cfg: Config,
    checkpoint: str,
    folder: str,
    topk: int = 10,
    launcher: str = 'none',
    say: Callable[[str], None] = print,
) -> None:
    """Run a teacher over the augmented images of a training and store its largest logits.

    What was stored by an earlier call with the same arguments is kept; a call with more epochs adds them.

    Args:
        cfg (Config): Config of the training, which trains by epochs and has a seed.
        teacher_cfg (Config): Config of the teacher.
        checkpoint (str): Weights of the teacher.
        folder (str): Where the logits go; see :mod:`halvit_mm.io.logits`.
        topk (int): Logits of an image. Defaults to 10.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``. Several ranks may share a GPU. Defaults to
            ``'none'``.
        say (Callable[[str], None]): Receives messages on the first rank. Defaults to ``print``.

    Raises:
        UserError: If the training is not one by epochs, has no seed, or has a sampler of batches; if the teacher does
            not fit or has another number of classes; if the folder has other logits, or its disk is too small for
            these.
        RankError: If the teacher's outputs are not finite.
    """
    epochs, seed = (cfg.get('train_cfg') or {}).get('max_epochs'), (cfg.get('randomness') or {}).get('seed')
    if not isinstance(epochs, int) or epochs < 1 or cfg.train_cfg.get('by_epoch') is False:
        raise UserError(
            f'train_cfg={dict(cfg.get("train_cfg") or {})} does not count epochs; expected max_epochs, 1 or more'
        )
    if not isinstance(seed, int) or cfg.randomness.get('diff_rank_seed'):
        raise UserError(
            f'randomness={dict(cfg.get("randomness") or {})} does not give all ranks a seed that a training can have '
            'again; expected --cfg-options randomness.seed=0 here and in the training'
        )
    if not isinstance(cfg.get('train_dataloader'), dict):
        raise UserError(
            f'train_dataloader={cfg.get("train_dataloader")} is not the config of a data loader; expected that of the '
            'training'
        )
    if cfg.train_dataloader.get('batch_sampler') is not None:
        raise UserError('train_dataloader.batch_sampler regroups the places of images; expected None')
    join_ranks(launcher, (cfg.get('env_cfg') or {}).get('dist_cfg') or {}, exchange=False)
    set_multi_processing(**((cfg.get('env_cfg') or {}).get('mp_cfg') or {}))
    set_random_seed(seed)
    student = build_model(cfg)
    preprocessor = student.data_preprocessor
    teacher = load_teacher(teacher_cfg, checkpoint, preprocessor).to(get_device())
    # As the runner of the training builds it
    bad_images = bad_images_action(default_hooks(cfg.get('default_hooks') or {}, reliability(cfg)))
    with DefaultScope.overwrite_default_scope(scope_of(cfg)):
        dataloader = ResumableRunner.build_dataloader(checked(cfg.train_dataloader, bad_images), seed)
    if getattr(dataloader.sampler, 'endless', False):
        raise UserError(
            f'train_dataloader.sampler={dict(cfg.train_dataloader.sampler)} never ends; expected one of epochs'
        )
    images = describe_images(cfg, dataloader, preprocessor, seed, bad_images)
    described = describe_teacher(teacher_cfg, checkpoint)
    preprocessor = preprocessor.to(get_device())
    # One image tells the number of classes.
    sample = dataloader.dataset[0]
    one = preprocessor(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))
    with torch.inference_mode():
        classes = teacher(one['inputs']).shape[1]
    head = getattr(getattr(student, 'head', None), 'num_classes', None) or classes
    if head != classes:
        raise UserError(
            f'{checkpoint} is a teacher of {classes} classes; expected the {head} of model.head.num_classes'
        )
    manifest = dict(topk=min(topk, classes), classes=classes, epochs=epochs, **images, teacher=described)
    logits = StoredLogits(folder, manifest=from_the_first_rank(_begin, Path(folder), manifest, say))
    _store(logits, epochs, dataloader, preprocessor, teacher, seed, say if get_rank() == 0 else lambda message: None)


def _begin(folder: Path, manifest: dict, say: Callable[[str], None]) -> dict:
    """Write the manifest of new logits, or find that those in the folder are the same; return the manifest."""
    check_writable(folder, '--out')
    epochs = manifest['epochs']
    if (folder / MANIFEST).exists():
        stored = read_manifest(folder)
        rest = ('topk', 'classes', 'teacher', 'ranks', 'batch_size', 'rows')
        fault = difference(*({key: one[key] for key in rest} for one in (stored, manifest)))
        if fault := fault or misfit(stored, manifest):
            raise UserError(f'{folder} has other logits: {fault}; expected another --out')
        manifest = {**stored, 'epochs': max(stored['epochs'], epochs)}
    elif any(folder.iterdir()):
        raise UserError(f'{folder} is not empty and has no {MANIFEST}; expected another --out')
    logits = StoredLogits(folder, manifest)
    missing = sum(
        len(logits.missing(epoch, rank)) for epoch in range(manifest['epochs']) for rank in range(logits.ranks)
    )
    left = logits.bytes * missing // (manifest['epochs'] * logits.ranks * logits.parts)
    free = shutil.disk_usage(folder).free
    say(
        f'{manifest["epochs"]} epochs of {logits.places:,} images, the {logits.topk} largest of {logits.classes:,} '
        f'logits: {_size(logits.bytes)} ({logits.row.itemsize} bytes an image), of which {_size(left)} are to be '
        f'written; {folder} has {_size(free)} free'
    )
    if left > free:
        raise UserError(
            f'--out {folder} is not a folder with {_size(left)} free; expected a larger disk, fewer epochs or --topk'
        )
    write_manifest(folder, manifest)
    return manifest


def _size(count: int) -> str:
    return next(
        f'{count / unit:.1f} {name}'
        for unit, name in ((1e9, 'GB'), (1e6, 'MB'), (1e3, 'kB'))
        if count >= unit or unit == 1e3
    )


def _store(
    logits: StoredLogits,
    epochs: int,
    dataloader: DataLoader,
    preprocessor: nn.Module,
    teacher: nn.Module,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Write the shards of this rank that are missing."""
    rank, place, batch_size = get_rank(), _Place(dataloader), logits.manifest['batch_size']
    for epoch in range(epochs):
        missing = logits.missing(epoch, rank)
        if not missing:
            continue
        dataloader.sampler.set_epoch(epoch)
        place.enter(epoch, missing[0] * logits.part_rows * logits.ranks)
        rows, right, start = [], 0, time.monotonic()
        part, count = missing[0], 0
        for number, data in enumerate(dataloader, start=place.begin()):
            # As IterationSeedHook does before the same step of the training
            seed_all(seed_of(seed, epoch * len(dataloader) + number, rank))
            data = preprocessor(data, training=True)
            with torch.inference_mode():
                outputs = teacher(data['inputs'])
            if not outputs.isfinite().all():
                raise RankError(
                    f'the teacher has outputs that are not finite, for batch {number + 1} of epoch {epoch + 1}; '
                    'expected numbers'
                )
            rows.append(logits.pack(outputs, data['inputs']))
            labels = [int(one.gt_label[0]) if len(one.get('gt_label', ())) else -1 for one in data['data_samples']]
            right += int((outputs.argmax(1).cpu() == torch.tensor(labels)).sum())
            count += len(labels)
            if len(rows) * batch_size >= logits.part_rows or number + 1 == len(dataloader):
                logits.write(epoch, rank, part, np.concatenate(rows))
                rows, part = [], part + 1
        speed = count / (time.monotonic() - start)
        say(
            f'epoch {epoch + 1} of {epochs}: the teacher says the label of {100 * right / count:.1f} % of the images '
            f'({speed:,.0f} images/s on this rank)'
        )
