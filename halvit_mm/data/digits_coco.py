import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .digits import split_digits

# Height and width of the canvases, in pixels
CANVASES = ((96, 128), (128, 96), (112, 112), (128, 128))
# Height of a glyph, in pixels; the images of the digits are square.
GLYPHS = (28, 56)
# Least visible fraction of an earlier digit; a later digit that would hide more is not placed.
LEAST_VISIBLE = 0.8


@dataclass
class Canvas:
    """A drawn image and the digits on it.

    Attributes:
        image (np.ndarray): Grey levels, shape (H, W), uint8.
        labels (list[int]): Class of each digit.
        masks (list[np.ndarray]): Visible pixels of each digit, shape (H, W), bool.
    """

    image: np.ndarray
    labels: list[int]
    masks: list[np.ndarray]


def draw_clutter(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A background of an uneven shade, straight strokes and noise: grey levels, shape (height, width), uint8."""
    y, x = np.mgrid[:height, :width]
    slope_y, slope_x = rng.uniform(-0.25, 0.25, 2)
    shade = rng.uniform(20, 80) + slope_y * (y - height / 2) + slope_x * (x - width / 2)
    image = Image.fromarray(np.clip(shade, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(3, 9)):
        start = rng.uniform((0, 0), (width, height))
        end = start + rng.uniform(-40, 40, 2)
        draw.line([*start, *end], fill=int(rng.integers(0, 200)), width=int(rng.integers(1, 5)))
    return np.clip(np.asarray(image) + rng.normal(0, 6, (height, width)), 0, 255).astype(np.uint8)


def draw_canvas(
    rng: np.random.Generator, images: np.ndarray, labels: np.ndarray, size: tuple[int, int], number: int
) -> Canvas:
    """Place handwritten digits on a cluttered background; later ones may cover a part of earlier ones.

    Args:
        rng (np.random.Generator): The source of randomness.
        images (np.ndarray): Digits to choose from, grey levels from 0 to 1, shape (N, 8, 8).
        labels (np.ndarray): Classes of the digits, shape (N, ).
        size (tuple[int, int]): Height and width of the canvas, in pixels.
        number (int): Number of digits; fewer are on the canvas if it lacks the room.
    """
    image = draw_clutter(rng, *size).astype(np.float64)
    chosen, masks = [], []
    for _ in range(20 * number):
        if len(chosen) == number:
            break
        index = rng.integers(len(labels))
        side = int(rng.integers(GLYPHS[0], GLYPHS[1] + 1))
        glyph = Image.fromarray((images[index] * 255).astype(np.uint8)).resize((side, side), Image.BICUBIC)
        ink = np.asarray(glyph) / 255
        top, left = (int(rng.integers(0, length - side + 1)) for length in size)
        mask = np.zeros(size, bool)
        mask[top : top + side, left : left + side] = ink > 0.5
        kept = [other & ~mask for other in masks]
        if any(rest.sum() < LEAST_VISIBLE * other.sum() for rest, other in zip(kept, masks)):
            continue
        # White digits that overlap more cannot be told apart by eye.
        if any(overlap(mask, other) > 0.1 for other in masks):
            continue
        area = image[top : top + side, left : left + side]
        area += (rng.uniform(170, 255) - area) * np.clip(1.25 * ink, 0, 1)
        chosen.append(int(labels[index]))
        masks = [*kept, mask]
    return Canvas(np.clip(image, 0, 255).astype(np.uint8), chosen, masks)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, width and height, in pixels, of the smallest box around a mask of shape (H, W)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of the boxes around two masks."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = box_of(a), box_of(b)
    inner = max(0, min(ax + aw, bx + bw) - max(ax, bx)) * max(0, min(ay + ah, by + bh) - max(ay, by))
    return inner / (aw * ah + bw * bh - inner)


def write_digits_coco(root: str | Path, train: int = 2000, val: int = 200) -> dict[str, int]:
    """Write cluttered canvases with handwritten digits, boxes and masks in COCO's layout.

    The digits are those of :func:`~halvit_mm.data.write_digits`, in its split: no digit is in both train and val. A
    canvas has 2 to 6 digits, 28 to 56 pixels high. Files are ``root/{train,val}/NNNNNN.png`` and
    ``root/annotations/instances_{train,val}.json``, with run-length masks. Every call writes the same files.

    Args:
        root (str or Path): Folder to write to.
        train (int): Canvases for training. Defaults to 2000.
        val (int): Canvases for validation. Defaults to 200.

    Returns:
        dict[str, int]: Number of digits on the canvases of ``train`` and of ``val``.
    """
    from pycocotools import mask as coco_mask

    root = Path(root)
    categories = [dict(id=digit + 1, name=str(digit), supercategory='digit') for digit in range(10)]
    counts = {}
    for seed, (split, number) in enumerate((('train', train), ('val', val))):
        rng = np.random.default_rng(seed)
        digits, labels, _ = split_digits()[split]
        (root / split).mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for image_id in range(1, number + 1):
            canvas = draw_canvas(rng, digits, labels, CANVASES[rng.integers(len(CANVASES))], int(rng.integers(2, 7)))
            height, width = canvas.image.shape
            name = f'{image_id:06d}.png'
            Image.fromarray(canvas.image).save(root / split / name)
            images.append(dict(id=image_id, file_name=name, height=height, width=width))
            for label, mask in zip(canvas.labels, canvas.masks):
                rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=image_id,
                        category_id=label + 1,
                        bbox=box_of(mask),
                        area=int(mask.sum()),
                        iscrowd=0,
                        segmentation=dict(size=rle['size'], counts=rle['counts'].decode('ascii')),
                    )
                )
        file = root / 'annotations' / f'instances_{split}.json'
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
        counts[split] = len(annotations)
    return counts


def write_single_digits(root: str | Path, size: int = 64, copies: Sequence[int] = (4, 1)) -> dict[str, int]:
    """Write canvases with one digit each in ImageNet's layout, on which a detector's backbone is pretrained.

    Args:
        root (str or Path): Folder to write to: ``root/{train,val}/{0..9}/NNNN_C.png``, NNNN being the number of the
            digit in its set.
        size (int): Height and width of a canvas, in pixels. Defaults to 64.
        copies (Sequence[int]): Canvases for each digit in train and in val. Defaults to ``(4, 1)``.

    Returns:
        dict[str, int]: Number of canvases in ``train`` and in ``val``.
    """
    counts = {}
    for seed, split in enumerate(('train', 'val')):
        rng = np.random.default_rng(seed)
        counts[split] = 0
        for digit, label, number in zip(*split_digits()[split]):
            folder = Path(root, split, str(label))
            folder.mkdir(parents=True, exist_ok=True)
            for copy in range(copies[seed]):
                canvas = draw_canvas(rng, digit[None], np.array([label]), (size, size), 1)
                Image.fromarray(canvas.image).save(folder / f'{number:04d}_{copy}.png')
                counts[split] += 1
    return counts
