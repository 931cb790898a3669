"""Logits of a teacher, stored for each image of each epoch of a training.

TinyViT (ECCV 2022, `arXiv 2207.10666 <https://arxiv.org/abs/2207.10666>`_) stores a teacher's largest logits and the
seed of each augmentation. Here augmentations follow from the seed of the training, the epoch and the *place* of an
image in the list that all ranks have in common (:mod:`halvit_mm.train.seeds`). A place is all that names an image.

A folder has ``logits.json``, which tells what the logits are of, and shards: ``epoch_E/R_P.npy`` is part P of what rank
R reads in epoch E. A row of a shard holds the classes of the largest logits, their log-probabilities, the
log-probability of each other class (the rest, evenly), and the means of the two halves of the image, by which another
image is told.
"""

import functools
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from halvit_mm.errors import RankError, UserError

from .checkpoints import written_whole

MANIFEST = 'logits.json'
# Means of halves of images that are the same but for the rounding of half precision and of another library's resizing
ABSOLUTE, RELATIVE = 0.02, 0.002
# Of stored logits, which need no more: half precision is within 0.05 % of a logarithm
LOGS = np.float16
# Images of a shard, at most, and batches between two looks at what the comparison of images has found
SHARD, LOOK = 2**16, 100


class StoredLogits:
    """The logits in a folder.

    Args:
        folder (str or Path): The folder.
        manifest (dict, optional): What the logits are of: ``topk``, ``classes``, ``epochs``, ``ranks``, ``batch_size``,
            ``rows`` (images that a rank reads in an epoch), ``training`` and ``teacher``. Defaults to None, which reads
            that of the folder.

    Raises:
        UserError: If the folder has no readable manifest.
    """

    def __init__(self, folder: str | Path, manifest: dict[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = manifest or read_manifest(self.folder)
        self.topk, self.classes = self.manifest['topk'], self.manifest['classes']
        self.epochs, self.ranks, self.rows = (self.manifest[key] for key in ('epochs', 'ranks', 'rows'))
        batch = self.manifest['batch_size']
        self.part_rows = max(1, SHARD // batch) * batch
        self.parts = -(-self.rows // self.part_rows)
        self.row = np.dtype(
            [
                ('classes', np.min_scalar_type(self.classes - 1), (self.topk,)),
                ('logs', LOGS, (self.topk + 1,)),
                ('halves', np.float16, (2,)),
            ]
        )
        self.accepted = False
        self._open: dict[tuple[int, int, int], np.ndarray] = {}
        self._calls, self._apart, self._epoch = 0, None, 0

    @property
    def bytes(self) -> int:
        """int: Size of all shards."""
        return self.epochs * self.ranks * self.rows * self.row.itemsize

    @property
    def places(self) -> int:
        """int: Places of an epoch that are stored."""
        return self.ranks * self.rows

    def missing(self, epoch: int, rank: int) -> list[int]:
        """Parts of what a rank reads in an epoch that are not stored, or not whole."""
        paths = [self._path(epoch, rank, part) for part in range(self.parts)]
        lengths = [min(self.part_rows, self.rows - part * self.part_rows) for part in range(self.parts)]
        return [
            part
            for part, (path, length) in enumerate(zip(paths, lengths, strict=True))
            if not path.is_file() or path.stat().st_size != self._file_size(length)
        ]

    @functools.cache  # noqa: B019 - there are two lengths, and no more stores than trainings
    def _file_size(self, length: int) -> int:
        stream = io.BytesIO()
        np.save(stream, np.empty(length, self.row))
        return stream.tell()

    def write(self, epoch: int, rank: int, part: int, rows: np.ndarray) -> None:
        """Write a shard, which gets its name once it is whole."""
        path = self._path(epoch, rank, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file, open(file, 'wb') as stream:
            np.save(stream, rows)

    def pack(self, logits: Tensor, images: Tensor) -> np.ndarray:
        """Rows of a shard.

        Args:
            logits (Tensor): Shape (B, classes).
            images (Tensor): What the teacher was given, shape (B, C, H, W).
        """
        logs, order = logits.float().log_softmax(1).sort(1, descending=True)
        rest = logs[:, self.topk :]
        others = rest.logsumexp(1, keepdim=True) - math.log(rest.shape[1]) if rest.shape[1] else logs[:, -1:]
        rows = np.empty(len(logits), self.row)
        rows['classes'] = order[:, : self.topk].cpu().numpy()
        rows['logs'] = torch.cat((logs[:, : self.topk], others), 1).cpu().numpy()
        rows['halves'] = _halves(images).cpu().numpy()
        return rows

    @torch.compiler.disable
    def teach(self, images: Tensor, places: Sequence[tuple[int, int] | None]) -> Tensor:
        """The stored log-probabilities of a batch, which are logits.

        Args:
            images (Tensor): The images that the student is given, shape (B, C, H, W).
            places (Sequence[tuple[int, int]]): Epoch and place of each.

        Returns:
            Tensor: Shape (B, classes). Classes beyond the largest ``topk`` share the rest of the probability evenly.

        Raises:
            UserError: If the folder was not compared with the training.
            RankError: If a place is not stored, if a shard is damaged, or if the teacher was given other images. The
                first batch is compared at once; what the others say is looked at after every 100, and by :meth:`look`.
        """
        if not self.accepted:
            raise UserError(
                f'{self.folder} was not compared with this training; expected the default_hooks of '
                "runner_type='halvit_mm.ResumableRunner', stored_logits among them"
            )
        if None in places:
            raise RankError(
                f'{self.folder} holds logits by the places of images, and these images have none; expected the loader '
                "of runner_type='halvit_mm.ResumableRunner'"
            )
        rows = self.read(places)
        stored = torch.from_numpy(rows['halves'].astype(np.float32)).to(images.device, non_blocking=True)
        apart = ((_halves(images) - stored).abs() - RELATIVE * stored.abs()).max()
        self._apart = apart if self._apart is None else torch.maximum(apart, self._apart)
        self._epoch = places[0][0]
        if self._calls % LOOK == 0:
            self.look()
        self._calls += 1
        logs = torch.from_numpy(rows['logs'].astype(np.float32))
        # Two classes may be as likely in half precision: the likeliest stays the likeliest.
        logs[:, 0] += 1e-6
        order = torch.from_numpy(rows['classes'].astype(np.int64))
        logits = logs[:, self.topk :].expand(-1, self.classes).scatter(1, order, logs[:, : self.topk])
        return logits.to(images.device, non_blocking=True)

    def look(self) -> None:
        """Raise a :class:`RankError` if the teacher of the batches so far was given other images."""
        if self._apart is not None and not self._apart <= ABSOLUTE:
            raise RankError(
                f'{self.folder} holds logits of other images than those of epoch {self._epoch + 1}, though of the same '
                'list and config; expected images and libraries as they were when tools/save_logits.py ran'
            )

    def read(self, places: Sequence[tuple[int, int]]) -> np.ndarray:
        """The rows of places.

        Raises:
            RankError: If a place is not stored, or if its shard is damaged.
        """
        rows = np.empty(len(places), self.row)
        for i, (epoch, place) in enumerate(places):
            index, rank = divmod(place, self.ranks)
            part, row = divmod(index, self.part_rows)
            shard = self._shard(epoch, rank, part)
            if row >= len(shard):
                raise RankError(f'{self.folder} has no logits of place {place} in epoch {epoch + 1}')
            rows[i] = shard[row]
        return rows

    def _shard(self, epoch: int, rank: int, part: int) -> np.ndarray:
        key = epoch, rank, part
        if key not in self._open:
            if any(opened != epoch for opened, *_ in self._open):
                self._open.clear()
            try:
                shard = np.load(self._path(*key), mmap_mode='r').view(np.ndarray)
                fault = self._fault(shard)
            except (OSError, ValueError, EOFError) as error:
                fault = f'{type(error).__name__}: {error}'
            if fault:
                raise RankError(
                    f'{self._path(*key)} is not a shard of these logits ({fault}); expected tools/save_logits.py to '
                    'write it again, once it is deleted'
                )
            self._open[key] = shard
        return self._open[key]

    def _fault(self, shard: np.ndarray) -> str | None:
        """What is wrong with a shard: its rows are distributions over the classes."""
        if shard.dtype != self.row:
            return f'rows of {shard.dtype} instead of {self.row}'
        if shard['classes'].max(initial=0) >= self.classes:
            return f'class {shard["classes"].max()} of {self.classes}'
        shares = np.exp(shard['logs'].astype(np.float64))
        total = shares[:, :-1].sum(1) + (self.classes - self.topk) * shares[:, -1]
        # A row that was not written gives topk or more.
        return None if (abs(total - 1) < 0.1).all() else 'probabilities that do not sum to 1'

    def _path(self, epoch: int, rank: int, part: int) -> Path:
        return self.folder / f'epoch_{epoch + 1}' / f'{rank}_{part}.npy'


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the logits in a folder are of.

    Raises:
        UserError: If the folder has no readable manifest.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        fault = _fault_of(manifest)
    except (OSError, ValueError) as error:
        fault = f'{type(error).__name__}: {error}'
    if fault:
        raise UserError(
            f'{folder} is not a folder of logits ({fault}); expected one that tools/save_logits.py has written'
        )
    return manifest


def _fault_of(manifest: object) -> str | None:
    if not isinstance(manifest, dict):
        return f'{MANIFEST} has a {type(manifest).__name__}'
    for key in ('topk', 'classes', 'epochs', 'ranks', 'batch_size', 'rows'):
        if not (type(manifest.get(key)) is int and manifest[key] > 0):
            return f'{MANIFEST} has {key}={manifest.get(key)!r}'
    for key in ('training', 'teacher'):
        if not isinstance(manifest.get(key), dict):
            return f'{MANIFEST} has {key}={manifest.get(key)!r}'
    return None


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with written_whole(folder / MANIFEST) as file:
        file.write_text(json.dumps(manifest, indent=1) + '\n')


def _halves(images: Tensor) -> Tensor:
    """Means of the left and the right half of images, shape (B, 2)."""
    return F.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), (1, 2)).flatten(1)
