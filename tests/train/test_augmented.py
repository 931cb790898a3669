import numpy as np

from halvit_mm.train.augmented import _checksum, _plain, difference


def test_where_descriptions_differ():
    one, other = dict(a=[dict(type='X', size=(1, 2)), 3], b=None), [dict(type='X', size=(1, 4)), 3]
    assert difference(_plain(one), _plain({**one, 'a': [dict(type='mm.X', size=[1, 2], _scope_='mm'), 3]})) is None
    assert difference(_plain(one), _plain({**one, 'a': other})) == 'a.0.size.1 was 2 and is 4'
    assert difference(_plain(one), _plain({**one, 'a': [3]})).startswith("a was [{'type': 'X', 'size': [1, 2]}, 3] and")
    assert difference(_plain(one), _plain({'a': one['a'], 'b': 5})) == 'b was None and is 5'
    assert difference(_plain(dict(data_root='x')), _plain(dict(data_root='y'))) is None


class Listed:
    def __init__(self, root: str, names: list[str], label: int = 0, image: int | None = None) -> None:
        self.data_root, self.names, self.label = root, names, label
        self.image = {} if image is None else dict(img=np.full((2, 2), image))

    def __len__(self) -> int:
        return len(self.names)

    def get_data_info(self, i: int) -> dict:
        return dict(img_path=f'{self.data_root}/{self.names[i]}', gt_label=self.label, **self.image)


def test_checksum_of_a_list():
    first = _checksum(Listed('there', ['a', 'b']))
    assert first == _checksum(Listed('/and/here', ['a', 'b']))
    others = [Listed('there', ['b', 'a']), Listed('there', ['a']), Listed('there', ['a', 'b'], 1)]
    others += [Listed('there', ['a', 'b'], image=value) for value in (1, 2)]
    assert len({first, *map(_checksum, others)}) == 6
