import numpy as np
import pytest
from PIL import Image

from halvit_mm.io.images import find_image_damage, read_image


def test_read_image(images):
    expected = np.asarray(Image.open(images / 'more/b.png'))
    assert np.array_equal(read_image(images / 'more/b.png'), expected)
    for name in ('cut.jpg', 'cut.png', 'text.jpg', 'empty.jpeg'):
        with pytest.raises(ValueError, match='is cut|is not an image|is empty') as told:
            read_image(images / name)
        assert '\n' not in str(told.value)


def test_damage_of_jpeg_and_png_is_seen_without_decoding(images):
    found = {path.name: find_image_damage(path) for path in images.rglob('*.*')}
    assert found == {
        'a.png': None,
        'b.png': None,
        'cut.png': 'is cut: its end is missing',
        'cut.jpg': 'is cut: its end is missing',
        'text.jpg': 'is not an image',
        'empty.jpeg': 'is empty',
        'notes.txt': 'is not an image',
    }
    assert find_image_damage(images / 'absent.png') == 'does not exist'
    assert find_image_damage(images).startswith('cannot be read (')


def test_damage_in_the_middle_is_seen_by_decoding(images):
    whole = (images / 'more/b.png').read_bytes()
    middle = len(whole) // 2
    (images / 'a.png').write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    assert find_image_damage(images / 'a.png') is None
    assert find_image_damage(images / 'a.png', decode=True).startswith('is not a whole image (')


@pytest.mark.parametrize('kind', ['bmp', 'gif', 'webp'])
def test_other_kinds_are_decoded(images, kind):
    path = images / f'c.{kind}'
    Image.open(images / 'more/b.png').save(path)
    assert find_image_damage(path) is None
    path.write_bytes(path.read_bytes()[:-200])
    assert find_image_damage(path).startswith('is not a whole image (')
