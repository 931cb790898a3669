"""Images that cannot be read: named in one error, or skipped and counted."""

import itertools
import logging
from collections.abc import Iterator

import mmcv
from mmengine import fileio
from mmengine.dist import all_gather_object
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.errors import RankError
from halvit_mm.io.configs import check_action
from halvit_mm.io.datasets import walk_built_datasets
from halvit_mm.io.images import find_damage, find_image_damage
from halvit_mm.registry import HOOKS
from halvit_mm.train.delegate import Delegate

# As many as mmengine tries before it gives up on a dataset
MOST_SKIPPED = 1000


class BadImageError(RankError):
    """An image that cannot be read."""

    def __str__(self) -> str:
        # A loader's worker puts its traceback in front of the message.
        return super().__str__().rstrip().rpartition(f'{type(self).__name__}: ')[2]


class WholeImageBackend(LocalBackend):
    """mmengine's backend for local files, which refuses an image that is not whole."""

    def get(self, filepath: str) -> bytes:
        if '://' in str(filepath):
            return fileio.get(filepath)
        try:
            content = super().get(filepath)
        except FileNotFoundError:
            raise BadImageError(f'{filepath} does not exist') from None
        except OSError as error:
            raise BadImageError(f'{filepath} cannot be read ({error.strerror})') from None
        if damage := find_damage(content):
            raise BadImageError(f'{filepath} {damage}')
        return content


fileio.register_backend('halvit_mm.whole_images', WholeImageBackend, force=True)


class CheckedDataset(Delegate, Dataset):
    """A dataset that names an image at fault, or takes the next one instead.

    An image is at fault if it is empty, cut or not an image, or if the transforms fail on it and not on others. mmcv's
    ``LoadImageFromFile`` reads through :class:`WholeImageBackend`, which checks the bytes that it reads anyway. If a
    pipeline has no such transform, the file is opened once more.

    Args:
        dataset (dict): Config of the dataset.
        bad_images (str): ``'stop'`` or ``'skip'``. With ``'skip'`` the next image in the dataset replaces one at fault;
            after 1,000 in a row the run stops. The meta information ``skipped_images`` of ``data_samples`` names the
            replaced images; :class:`BadImageHook` counts them. Defaults to ``'stop'``.

    Raises:
        ValueError: If ``bad_images`` is neither.
    """

    delegate = 'dataset'

    def __init__(self, dataset: dict, bad_images: str = 'stop') -> None:
        check_action('bad_images', bad_images)
        self.dataset = DATASETS.build(dataset)
        self.bad_images = bad_images
        pipelines = [[*_find_loaders(getattr(one, 'pipeline', None))] for one in walk_built_datasets(self.dataset)]
        for loader in itertools.chain(*pipelines):
            if loader.backend_args is None:
                loader.backend_args = dict(backend='halvit_mm.whole_images')
        self.opens_again = not all(pipelines)

    def __getitem__(self, index: int):
        skipped = []
        for place in range(index, index + min(len(self), MOST_SKIPPED)):
            try:
                sample = self._read(place % len(self))
            except BadImageError as error:
                if self.bad_images == 'stop':
                    raise
                skipped.append(str(error))
                continue
            if skipped:
                sample['data_samples'].set_metainfo(dict(skipped_images=skipped))
            return sample
        raise BadImageError(f'none of {len(skipped)} images in a row can be read; the first: {skipped[0]}')

    def _read(self, index: int):
        path = self._path(index)
        if path is None or '://' in path:
            return self.dataset[index]
        if self.opens_again and (damage := find_image_damage(path)):
            raise BadImageError(f'{path} {damage}')
        try:
            return self.dataset[index]
        except BadImageError:
            raise
        except Exception as error:
            size = _size(path)
            if size is None:
                raise BadImageError(f'{path} is not an image that OpenCV reads') from error
            if not self._reads_another_than(index):
                raise
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
            raise BadImageError(f'{path}, {size}, is not an image that the pipeline takes; {reason}') from error

    def _path(self, index: int) -> str | None:
        info = self.dataset.get_data_info(index) if hasattr(self.dataset, 'get_data_info') else {}
        return info.get('img_path')

    def _reads_another_than(self, index: int) -> bool:
        """Whether the transforms, which failed on one image, work on one of three others."""
        for other in {(index + len(self) * part // 4) % len(self) for part in (1, 2, 3)} - {index}:
            try:
                self.dataset[other]
            except Exception:
                continue
            return True
        return False


def _find_loaders(transforms: object) -> Iterator[mmcv.LoadImageFromFile]:
    """The transforms that load images, in a pipeline or a list, and those that a transform is made of."""
    if isinstance(transforms, mmcv.LoadImageFromFile):
        yield transforms
    elif isinstance(transforms, (list, tuple)):
        for one in transforms:
            yield from _find_loaders(one)
    elif transforms is not None:
        yield from _find_loaders(getattr(transforms, '__dict__', {}).get('transforms'))


def _size(path: str) -> str | None:
    """Width and height of an image; None if OpenCV does not read it."""
    try:
        height, width = mmcv.imread(path).shape[:2]
    except Exception:
        return None
    return f'{width} x {height} pixels'


@HOOKS.register_module()
class BadImageHook(Hook):
    """Stop a training at an image that cannot be read, or skip such images and log their names.

    ``bad_images`` in the log is the number of different ones on all ranks. In validation and testing such an image
    always stops the run.

    Args:
        action (str): ``'stop'``, or ``'skip'``, which takes the next image; see :class:`CheckedDataset`. Defaults to
            ``'stop'``.
        interval (int): Iterations after which the ranks exchange the names. Defaults to 10.

    Raises:
        ValueError: If ``action`` is neither.
    """

    @refuse_unknown_arguments
    def __init__(self, action: str = 'stop', interval: int = 10) -> None:
        check_action('action', action)
        Expect(self).positive(interval=interval)
        self.action = action
        self.interval = interval
        self._new = set()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict) -> None:
        if self.action == 'stop':
            return
        for sample in data_batch['data_samples']:
            self._new.update(sample.metainfo.get('skipped_images', ()))
        if self.every_n_inner_iters(batch_idx, self.interval) or self.is_last_train_iter(runner):
            self._count(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.action == 'skip':
            self._count(runner)

    def _count(self, runner: Runner) -> None:
        known = set(runner.message_hub.runtime_info.get('bad_images', ()))
        new = set().union(*all_gather_object(sorted(self._new))) - known
        self._new.clear()
        for message in sorted(new):
            print_log(f'{message}, and is skipped', logger='current', level=logging.WARNING)
        runner.message_hub.update_info('bad_images', sorted(known | new))
        runner.message_hub.update_scalar('train/bad_images', len(known | new))
