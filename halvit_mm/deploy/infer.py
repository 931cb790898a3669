"""Classify images, detect objects in them, or segment them, with upstream's inferencers."""

import copy
import sys
from contextlib import redirect_stdout
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.structures import PixelData

from halvit_mm._upstream import UPSTREAM
from halvit_mm.errors import UserError
from halvit_mm.io.configs import scope_of
from halvit_mm.io.datasets import class_names, test_pipeline, type_name
from halvit_mm.io.images import read_image
from halvit_mm.io.weights import reading_file, require_filled

# Files that mmdet's inferencer takes from a folder
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')
# A smaller picture has no space for the text.
LEAST_PICTURE = 224


class Classifier:
    """A classifier, loaded by mmpretrain's ``ImageClassificationInferencer``; arguments are those of :func:`infer`.

    Images go through the config's own test pipeline, and so keep the colors and channels that they are tested with.

    Attributes:
        classes (Sequence[str], optional): Names of the classes: the checkpoint's, else those of the config's test
            dataset, which ``metainfo`` or its type gives; None if neither has names.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str) -> None:
        from mmpretrain import ImageClassificationInferencer
        from mmpretrain.visualization import UniversalVisualizer

        inferencer = ImageClassificationInferencer(cfg, pretrained=checkpoint, device=device)
        self.model = inferencer.model
        self.classes = inferencer.classes or class_names(cfg)
        self.pipeline = Compose(test_pipeline(cfg))
        self.visualizer = UniversalVisualizer()

    def __call__(self, path: str, picture: np.ndarray, out_file: str | None = None) -> str:
        """Report the class with the highest score, by name or else by number, and the score.

        Args:
            path (str): The image's file.
            picture (np.ndarray): Its pixels, shape (H, W, 3) in RGB order, to draw on.
            out_file (str, optional): File to draw the result to. Defaults to None.

        Returns:
            str: Such as ``'cat 0.912'``; of a classifier for several labels ``'cat 0.912, dog 0.640'`` or
            ``'no class'``.
        """
        with torch.no_grad():
            [sample] = self.model.test_step(default_collate([self.pipeline(dict(img_path=path))]))
        if out_file is not None:
            resize = LEAST_PICTURE if min(picture.shape[:2]) < LEAST_PICTURE else None
            self.visualizer.visualize_cls(
                picture, sample, classes=self.classes, resize=resize, draw_gt=False, out_file=out_file
            )
        found = [
            f'{self.classes[label] if self.classes else f"class {label}"} {sample.pred_score[label].item():.3f}'
            for label in sample.pred_label.tolist()
        ]
        return ', '.join(found) or 'no class'


class Detector:
    """A detector, loaded by mmdet's ``DetInferencer``; arguments are those of :func:`infer`.

    Images go through the config's own test pipeline.
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str, score_thr: float) -> None:
        from mmdet.apis import DetInferencer

        self.score_thr = score_thr
        inferencer = DetInferencer(cfg, weights=checkpoint, device=device, show_progress=False)
        self.model, self.visualizer = inferencer.model, inferencer.visualizer
        self.pipeline = Compose(test_pipeline(cfg))
        classes = class_names(cfg)
        if classes:
            # mmdet takes COCO's classes if the checkpoint names none.
            self.visualizer.dataset_meta = {**self.model.dataset_meta, 'classes': classes}

    def __call__(self, path: str, picture: np.ndarray, out_file: str | None = None) -> str:
        """Report the number of detections above ``score_thr``; arguments as of :class:`Classifier`."""
        with torch.no_grad():
            [sample] = self.model.test_step(pseudo_collate([self.pipeline(dict(img_path=path, img_id=0))]))
        sample = sample.cpu()
        if out_file is not None:
            self.visualizer.add_datasample(
                path, picture, sample, draw_gt=False, pred_score_thr=self.score_thr, out_file=out_file
            )
        count = int((sample.pred_instances.scores > self.score_thr).sum())
        return f'{count} detection{"" if count == 1 else "s"} above {self.score_thr:g}'


class Segmentor:
    """A segmentor, loaded by mmseg's ``MMSegInferencer``; arguments are those of :func:`infer`.

    Images go through the config's own test pipeline, but for the transforms that load masks.

    Attributes:
        classes (list[str]): Names of the classes: those of the config's test dataset (``metainfo``), else the
            checkpoint's, else ``'class 0'``, ``'class 1'``, ...
    """

    def __init__(self, cfg: Config, checkpoint: str, device: str) -> None:
        from mmseg.apis import MMSegInferencer

        # The inferencer takes transforms out of the config that it is given.
        inferencer = MMSegInferencer(copy.deepcopy(cfg), weights=checkpoint, device=device)
        self.model, self.visualizer = inferencer.model, inferencer.visualizer
        # mmseg takes the classes of Cityscapes if the checkpoint names none.
        known = self.model.dataset_meta
        names = [*(class_names(cfg) or known['classes'] or ())]
        number = self.model.num_classes
        self.classes = names if len(names) == number else [f'class {i}' for i in range(number)]
        same = known['palette'] and self.classes == [*(known['classes'] or ())]
        self.visualizer.set_dataset_meta(self.classes, known['palette'] if same else _palette(number))
        self.visualizer.alpha = 0.5
        self.pipeline = Compose([step for step in test_pipeline(cfg) if 'Annotation' not in type_name(step)])

    def __call__(self, path: str, picture: np.ndarray, out_file: str | None = None) -> str:
        """Report the classes with the most pixels; arguments as of :class:`Classifier`.

        With ``out_file`` the classes are drawn over the picture. The grey levels of ``NAME_mask.png`` beside it are the
        classes of the pixels.

        Returns:
            str: Such as ``'road 61.0 %, sky 24.2 %'``, at most five classes.
        """
        with torch.no_grad():
            [sample] = self.model.test_step(pseudo_collate([self.pipeline(dict(img_path=path))]))
        mask = sample.pred_sem_seg.data.cpu()
        if out_file is not None:
            self._draw(picture, mask, out_file)
        number, pixels = mask.unique(return_counts=True)
        largest = pixels.argsort(descending=True)[:5]
        return ', '.join(f'{self.classes[number[i]]} {100 * pixels[i] / mask.numel():.1f} %' for i in largest)

    def _draw(self, picture: np.ndarray, mask: torch.Tensor, out_file: str) -> None:
        from mmseg.structures import SegDataSample

        # A smaller picture has no space for the names.
        times = -(-LEAST_PICTURE // min(picture.shape[:2]))
        drawn = mask.repeat_interleave(times, 1).repeat_interleave(times, 2)
        sample = SegDataSample(pred_sem_seg=PixelData(data=drawn))
        picture = picture.repeat(times, 0).repeat(times, 1)
        self.visualizer.add_datasample(out_file, picture, sample, draw_gt=False, out_file=out_file)
        target = Path(out_file)
        mmcv.imwrite(mask[0].numpy().astype(np.uint8), str(target.with_name(f'{target.stem}_mask.png')))


def _palette(number: int) -> list[list[int]]:
    """Colors of classes, always the same."""
    return np.random.default_rng(0).integers(0, 255, (number, 3)).tolist()


def infer(
    cfg: Config,
    checkpoint: str,
    source: str,
    out: str | None = None,
    score_thr: float = 0.3,
    device: str | None = None,
) -> list[str]:
    """Print a line for each image: its class, the number of detections, or its largest classes; and draw the results.

    An image that cannot be read, or that the model or its test pipeline fails on, is named on the standard error and
    skipped.

    Args:
        cfg (Config): A config of mmpretrain, mmdet or mmseg; its ``default_scope`` names which.
        checkpoint (str): Path or URL of its weights.
        source (str): An image, or a folder with images at any depth.
        out (str, optional): Folder for drawn images, which keep their names, and for a segmentor's masks. Defaults to
            None.
        score_thr (float): Score above which a detection is counted and drawn. Defaults to 0.3.
        device (str, optional): Device of the model. Defaults to the accelerator, if there is one, else the CPU.

    Returns:
        list[str]: The images that were skipped.

    Raises:
        UserError: If there is no image or no such checkpoint, if the weights cannot be loaded, if the images would be
            drawn over, or if the config is of another package.
    """
    scope = scope_of(cfg)
    if scope not in UPSTREAM:
        raise UserError(
            f'default_scope={scope!r} is not a package that infers; expected {" or ".join(map(repr, UPSTREAM))}'
        )
    if '://' not in checkpoint and not Path(checkpoint).is_file():
        raise UserError(f'checkpoint {checkpoint} does not exist')
    paths = find_images(source)
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    if out is not None and Path(out).resolve() == folder.resolve():
        raise UserError(f'--out {out} is where the images are, which would be drawn over; name another folder')
    device = device or get_device()

    skipped = []
    # The inferencers would leave their scope behind, which hides the modules of the other package.
    with DefaultScope.overwrite_default_scope(scope):
        try:
            # Only results go to the standard output.
            with redirect_stdout(sys.stderr), reading_file():
                if scope == 'mmpretrain':
                    run = Classifier(cfg, checkpoint, device)
                elif scope == 'mmdet':
                    run = Detector(cfg, checkpoint, device, score_thr)
                else:
                    run = Segmentor(cfg, checkpoint, device)
            content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
            require_filled(run.model, content.get('state_dict', content), checkpoint)
        except UserError:
            raise
        except Exception as error:
            reason = f'{type(error).__name__}: {" ".join(str(error).split())}'
            raise UserError(f'{checkpoint} cannot be loaded into the model of {cfg.filename}: {reason}') from error
        for path in paths:
            try:
                picture = read_image(path)
            except ValueError as error:
                print(f'skipped: {error}', file=sys.stderr, flush=True)
                skipped.append(str(path))
                continue
            out_file = None if out is None else str(Path(out, path.relative_to(folder)))
            try:
                with redirect_stdout(sys.stderr):
                    result = run(str(path), picture, out_file)
            except Exception as error:
                height, width = picture.shape[:2]
                reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
                print(f'skipped: {path}, {width} x {height} pixels: {reason}', file=sys.stderr, flush=True)
                skipped.append(str(path))
                continue
            print(f'{path}: {result}', flush=True)
    return skipped


def find_images(source: str) -> list[Path]:
    """A file, whatever its name, or the images of a folder at any depth in the order of their names.

    Raises:
        UserError: If the path does not exist, or if the folder has no image.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f'image or folder {source} does not exist')
    paths = sorted(file for file in path.rglob('*') if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not paths:
        raise UserError(f'folder {source} holds no image; looked for {", ".join(IMAGE_SUFFIXES)}')
    return paths
