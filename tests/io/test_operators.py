import pytest
import torch

from halvit_mm import check_env
from halvit_mm.io.operators import calls_operators, lack_cuda


@pytest.mark.skipif(torch.cuda.is_available(), reason='with a GPU the operators may be compiled for it')
def test_operators_for_the_cpu_beside_a_gpu(monkeypatch):
    """The operators of this environment are compiled for the CPU."""
    assert not lack_cuda()
    assert check_env.check_cuda_operators() is None
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert lack_cuda()
    fault = check_env.check_cuda_operators()
    assert fault.startswith("mmcv's operators are compiled for the CPU only, and detection on the GPU will fail")
    assert 'ready wheels' in fault
    assert fault in check_env.find_faults()


def test_models_that_call_operators():
    assert calls_operators(dict(test_cfg=dict(rcnn=dict(nms=dict(type='nms')))))
    assert calls_operators(dict(roi_head=[dict(bbox_roi_extractor=dict(type='SingleRoIExtractor'))]))
    assert not calls_operators(dict(type='DETR', bbox_head=dict(type='DETRHead'), test_cfg=dict(max_per_img=100)))
    assert not calls_operators(dict(test_cfg=dict(nms=None)))
