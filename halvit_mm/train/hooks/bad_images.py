"""Images that cannot be read: named in one error, or skipped and counted."""

import logging

import mmcv
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from halvit_mm.arguments import Expect, refuse_unknown_arguments
from halvit_mm.errors import RankError
from halvit_mm.io.configs import check_action
from halvit_mm.io.images import find_image_damage
from halvit_mm.registry import HOOKS
from halvit_mm.train.delegate import Delegate


class BadImageError(RankError):
    """An image that cannot be read."""

    def __str__(self) -> str:
        # A loader's worker puts its traceback in front of the message.
        return super().__str__().rstrip().rpartition(f'{type(self).__name__}: ')[2]


class CheckedDataset(Delegate, Dataset):
    """A dataset that names an image that cannot be read, or takes the next one instead.

    Args:
        dataset (dict): Config of the dataset.
        bad_images (str): ``'stop'`` or ``'skip'``. With ``'skip'`` the next image in the dataset replaces one that is
            empty, cut or not an image. The meta information ``skipped_images`` of ``data_samples`` names the replaced
            images; :class:`BadImageHook` counts them. Defaults to ``'stop'``.

    Raises:
        ValueError: If ``bad_images`` is neither.
    """

    delegate = 'dataset'

    def __init__(self, dataset: dict, bad_images: str = 'stop') -> None:
        check_action('bad_images', bad_images)
        self.dataset = DATASETS.build(dataset)
        self.bad_images = bad_images

    def __getitem__(self, index: int):
        skipped = []
        for place in range(index, index + len(self)):
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
        raise BadImageError(f'none of the {len(self)} images can be read; the first: {skipped[0]}')

    def _read(self, index: int):
        info = self.dataset.get_data_info(index) if hasattr(self.dataset, 'get_data_info') else {}
        path = info.get('img_path')
        if path is None or '://' in path:
            return self.dataset[index]
        if damage := find_image_damage(path):
            raise BadImageError(f'{path} {damage}')
        try:
            return self.dataset[index]
        except Exception as error:
            if _decodes(path):
                raise
            raise BadImageError(f'{path} is not an image that OpenCV reads') from error


def _decodes(path: str) -> bool:
    try:
        return mmcv.imread(path) is not None
    except Exception:
        return False


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
