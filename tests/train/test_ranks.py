import pytest
import torch
from mmengine.config import Config

from halvit_mm.errors import UserError
from halvit_mm.train.ranks import init_cpu_ranks


@pytest.mark.skipif(torch.cuda.is_available(), reason='with a GPU the ranks are left to mmengine')
def test_a_wrapper_that_the_user_chose_is_completed(monkeypatch):
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    chosen = dict(type='MMDistributedDataParallel', find_unused_parameters=True)
    cfg = Config(dict(launcher='pytorch', model_wrapper_cfg=chosen))
    init_cpu_ranks(cfg)
    assert cfg.model_wrapper_cfg == dict(**chosen, device_ids=None)
    cfg = Config(dict(launcher='pytorch', find_unused_parameters=True))
    init_cpu_ranks(cfg)
    assert cfg.model_wrapper_cfg.find_unused_parameters
    assert not cfg.model_wrapper_cfg.broadcast_buffers
    cfg = Config(dict(launcher='none'))
    init_cpu_ranks(cfg)
    assert 'model_wrapper_cfg' not in cfg


def test_pytorch_launcher_without_ranks(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(UserError, match='no rank was started by torchrun'):
        init_cpu_ranks(Config(dict(launcher='pytorch')))
