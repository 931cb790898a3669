import logging
from collections.abc import Iterator, Sequence

import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from halvit_mm.errors import UserError
from halvit_mm.io.datasets import LOADERS, compare_classes, walk_built_datasets
from halvit_mm.registry import HOOKS

REMOVE = 'default_hooks.labels=None skips this check'


@HOOKS.register_module()
class LabelHook(Hook):
    """Refuse labels that do not mean the same everywhere.

    - Labels of a classifier's images, for training, validation and testing, are classes of its head. Images may have
      several labels, or none.
    - Datasets for training and validation name the same classes in the same order; so do a checkpoint that is tested or
      resumed and the dataset. Datasets and checkpoints without names are not compared.

    All of this is looked up in the datasets that wrappers hold. A model for retrieval is not checked.
    """

    def __init__(self) -> None:
        self._of_checkpoint = None

    def before_run(self, runner: Runner) -> None:
        datasets = [(loader, dataset) for loader in LOADERS for dataset in _datasets(runner, loader)]
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if any(base.__name__ == 'BaseRetriever' for base in type(model).__mro__):
            return  # the classes of a retrieval's images are not those that it is trained on
        classes = getattr(getattr(model, 'head', None), 'num_classes', None)
        first = None
        for loader, dataset in datasets:
            if (names := _names(dataset)) is not None:
                first = first or (loader, names)
                if difference := compare_classes(names, first[1]):
                    raise UserError(f'{loader}: its classes are not those of {first[0]}: {difference} ({REMOVE})')
        for loader, dataset in datasets if classes is not None else ():
            _check_labels(loader, dataset, classes)
        if first and classes is not None and len(first[1]) < classes:
            message = f'The head has {classes} classes, and {first[0]} has {len(first[1])}.'
            print_log(message, 'current', logging.WARNING)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self._of_checkpoint = ((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes')

    def before_test(self, runner: Runner) -> None:
        self._compare_with_checkpoint(runner, 'test_dataloader')

    def before_train(self, runner: Runner) -> None:
        # A checkpoint that a training starts from may be of other data.
        if runner._resume:
            self._compare_with_checkpoint(runner, 'train_dataloader')

    def _compare_with_checkpoint(self, runner: Runner, loader: str) -> None:
        for dataset in _datasets(runner, loader) if self._of_checkpoint is not None else ():
            names = _names(dataset)
            if names is not None and (difference := compare_classes(names, [*self._of_checkpoint])):
                raise UserError(f'{loader}: its classes are not those of the checkpoint: {difference} ({REMOVE})')


def _datasets(runner: Runner, loader: str) -> Iterator[object]:
    """The datasets of a data loader that is built, without their wrappers."""
    loop = getattr(runner, f'_{loader.removesuffix("_dataloader")}_loop')
    dataset = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
    if dataset is not None:
        yield from walk_built_datasets(dataset)


def _names(dataset: object) -> list[str] | None:
    names = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    return None if names is None else [*names]


def _check_labels(loader: str, dataset: object, classes: int) -> None:
    folders = getattr(dataset, 'folder_to_idx', None)
    if folders is not None and len(folders) <= classes:
        return
    if not hasattr(dataset, 'get_gt_labels'):
        return
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        labels = info.get('gt_label', ())
        if isinstance(labels, (int, np.integer, Sequence, np.ndarray)):
            for label in np.ravel(labels):
                if not 0 <= label < classes:
                    raise UserError(
                        f'{loader}: image {info.get("img_path", f"number {i}")} has the label {label}; the head has '
                        f'{classes} classes, 0 to {classes - 1}'
                    )
