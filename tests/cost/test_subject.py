import pytest

from halvit_mm.cost.subject import Settings, Subject
from halvit_mm.errors import UserError


class TestSettings:
    @pytest.mark.parametrize(
        ('wrong', 'message'),
        [
            (dict(device='cuda'), '--device cuda is not a device of this machine; expected cpu'),
            (dict(precisions=('amp-fp16',)), '--precision amp-fp16 is not a precision of a CPU'),
            (dict(batches=(1, 0)), '--batch 0 is not a positive number'),
            (dict(shape=(-224, 224)), '--shape -224 is not a positive number'),
            (dict(rounds=0), '--rounds 0 is not a positive number'),
            (dict(processes=-1), '--processes -1 is not a positive number'),
        ],
    )
    def test_refuses(self, wrong, message, monkeypatch):
        monkeypatch.setattr('torch.cuda.is_available', lambda: False)
        with pytest.raises(UserError, match=message):
            Settings(**wrong)


def test_subject_of_a_package():
    subject = Subject('mmpretrain::deit/deit-small_4xb256_in1k.py')
    assert subject.name == 'deit-small_4xb256_in1k'
    assert subject.config().model.backbone.type == 'VisionTransformer'
    with pytest.raises(UserError, match="'no/such.py' is not a config of mmpretrain; expected one such as "):
        Subject('mmpretrain::no/such.py').config()
