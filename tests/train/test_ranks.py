import pytest
import torch

from halvit_mm.errors import UserError
from halvit_mm.train.ranks import join_ranks, wrapper_for_cpu


def test_a_wrapper_that_the_user_chose_is_completed():
    chosen = dict(type='MMDistributedDataParallel', find_unused_parameters=True)
    assert wrapper_for_cpu(chosen) == dict(**chosen, device_ids=None)
    assert 'device_ids' not in chosen
    default = wrapper_for_cpu(None, find_unused_parameters=True)
    assert default['find_unused_parameters']
    assert not default['broadcast_buffers']


@pytest.mark.skipif(torch.cuda.is_available(), reason='with a GPU the ranks are left to mmengine')
def test_pytorch_launcher_without_ranks(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    join_ranks('none', {})
    with pytest.raises(UserError, match='is not a launcher without torchrun'):
        join_ranks('pytorch', {})
