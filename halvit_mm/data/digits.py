from pathlib import Path

import numpy as np
from PIL import Image

from halvit_mm.errors import UserError


def split_digits(val_fraction: float = 0.2) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Load scikit-learn's handwritten digits and split them.

    The digits are the 1,797 of the UCI set "Optical Recognition of Handwritten Digits": 8 x 8 pixels, grey. The split
    is stratified by class and always the same.

    Args:
        val_fraction (float): Fraction of the images in ``val``. Defaults to 0.2.

    Returns:
        dict[str, tuple]: For ``train`` and ``val`` the images, grey levels from 0 to 1, shape (N, 8, 8); their
        classes, shape (N, ); their numbers in the set, shape (N, ).

    Raises:
        UserError: If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ModuleNotFoundError as error:
        raise UserError(f'the digits come with scikit-learn ({error}): pip install scikit-learn') from None

    digits = load_digits()
    numbers = np.arange(len(digits.target))
    train, val = train_test_split(numbers, test_size=val_fraction, stratify=digits.target, random_state=0)
    # The set has 17 grey levels, 0 to 16.
    return {
        split: (digits.images[chosen] / 16, digits.target[chosen], chosen)
        for split, chosen in (('train', train), ('val', val))
    }


def write_digits(root: str | Path, val_fraction: float = 0.2) -> dict[str, int]:
    """Write scikit-learn's handwritten digits as image files in ImageNet's layout.

    Files are ``root/{train,val}/{0..9}/NNNN.png``, NNNN being the number of the image in the set, of 8 x 8 pixels.

    Args:
        root (str or Path): Folder to write to.
        val_fraction (float): Fraction of the images in ``val``; see :func:`split_digits`. Defaults to 0.2.

    Returns:
        dict[str, int]: Number of images in ``train`` and in ``val``.
    """
    splits = split_digits(val_fraction)
    for split, (images, labels, numbers) in splits.items():
        for image, label, number in zip(images, labels, numbers):
            folder = Path(root, split, str(label))
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(image * 255).astype(np.uint8)).save(folder / f'{number:04d}.png')
    return {split: len(numbers) for split, (_, _, numbers) in splits.items()}
