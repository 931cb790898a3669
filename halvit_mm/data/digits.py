from pathlib import Path

import numpy as np
from PIL import Image


def write_digits(root: str | Path, val_fraction: float = 0.2) -> dict[str, int]:
    """Write scikit-learn's handwritten digits as image files in ImageNet's layout.

    The images are the 1,797 of the UCI set "Optical Recognition of Handwritten Digits": 8 x 8 pixels, grey.
    They are written as they are, as ``root/{train,val}/{0..9}/NNNN.png``, NNNN being the number of the image in
    the set. The split is stratified by class and always the same.

    Args:
        root (str or Path): Folder to write to.
        val_fraction (float): Share of the images in ``val``. Defaults to 0.2.

    Returns:
        dict[str, int]: Number of images in ``train`` and in ``val``.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    numbers = np.arange(len(digits.target))
    train, val = train_test_split(numbers, test_size=val_fraction, stratify=digits.target, random_state=0)
    for split, chosen in (('train', train), ('val', val)):
        for number in chosen:
            folder = Path(root, split, str(digits.target[number]))
            folder.mkdir(parents=True, exist_ok=True)
            # The set has 17 grey levels, 0 to 16.
            grey = np.round(digits.images[number] * (255 / 16)).astype(np.uint8)
            Image.fromarray(grey).save(folder / f'{number:04d}.png')
    return dict(train=len(train), val=len(val))
