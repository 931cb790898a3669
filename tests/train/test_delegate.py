import copy
import pickle

import pytest

from halvit_mm.train.delegate import Delegate


class Wrapper(Delegate):
    delegate = 'inner'

    def __init__(self, inner) -> None:
        self.inner = inner


class Inner(list):
    name, own = 'inner', 1


@pytest.fixture
def wrapper():
    wrapper = Wrapper(Inner('abc'))
    wrapper.own = 2
    return wrapper


def test_what_it_lacks_is_the_inner_object_s(wrapper):
    assert (len(wrapper), wrapper.name, wrapper.own, wrapper.index('b')) == (3, 'inner', 2, 1)
    with pytest.raises(AttributeError, match="'Inner' object has no attribute 'absent'"):
        _ = wrapper.absent
    assert not hasattr(wrapper, 'absent')


def test_wrappers_can_be_wrapped(wrapper):
    assert (len(Wrapper(wrapper)), Wrapper(wrapper).name, Wrapper(wrapper).own) == (3, 'inner', 2)


@pytest.mark.parametrize('copied', [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies(wrapper, copied):
    other = copied(wrapper)
    assert (len(other), other.name, other.own) == (3, 'inner', 2)
