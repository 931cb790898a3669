from pathlib import Path

import numpy as np
from PIL import Image

from .digits import split_digits
from .digits_coco import draw_canvas

# Height and width of the canvases, in pixels
SIZE = 64, 64


def write_digits_seg(root: str | Path, train: int = 2000, val: int = 200) -> dict[str, int]:
    """Write cluttered canvases with handwritten digits and a class for each pixel, in mmseg's layout.

    The digits are those of :func:`~halvit_mm.data.write_digits`, in its split, drawn as by
    :func:`~halvit_mm.data.write_digits_coco`. A canvas of 64 x 64 pixels has one digit, or two where there is room.
    Files are ``root/{images,annotations}/{train,val}/NNNNNN.png``. A pixel of an annotation is 0 for the background and
    1 to 10 for the digits 0 to 9. Every call writes the same files.

    Args:
        root (str or Path): Folder to write to.
        train (int): Canvases for training. Defaults to 2000.
        val (int): Canvases for validation. Defaults to 200.

    Returns:
        dict[str, int]: Number of digits on the canvases of ``train`` and of ``val``.
    """
    counts = {}
    for seed, (split, number) in enumerate((('train', train), ('val', val))):
        rng = np.random.default_rng(seed)
        digits, labels, _ = split_digits()[split]
        images, annotations = (Path(root, folder, split) for folder in ('images', 'annotations'))
        counts[split] = 0
        for folder in (images, annotations):
            folder.mkdir(parents=True, exist_ok=True)
        for i in range(1, number + 1):
            canvas = draw_canvas(rng, digits, labels, SIZE, 2)
            classes = np.zeros(SIZE, np.uint8)
            for label, mask in zip(canvas.labels, canvas.masks):
                classes[mask] = label + 1
            Image.fromarray(canvas.image).save(images / f'{i:06d}.png')
            Image.fromarray(classes).save(annotations / f'{i:06d}.png')
            counts[split] += len(canvas.labels)
    return counts
