import pytest
import torch
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer

from halvit_mm.layers import EncoderLayer, TiedEncoderLayer

SHAPE = dict(embed_dims=24, num_heads=3, feedforward_channels=40)


def make(kind: type = TiedEncoderLayer, **cfg) -> torch.nn.Module:
    torch.manual_seed(0)
    layer = kind(**SHAPE, **cfg).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return layer


@pytest.mark.parametrize('resolution', [(), ((2, 3),)])
def test_untied_is_upstreams(resolution):
    ours, theirs = make(EncoderLayer), make(TransformerEncoderLayer)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    x = torch.randn(2, 7, 24)
    assert torch.equal(ours(x, *resolution), theirs(x))


@pytest.mark.parametrize('kind', [EncoderLayer, TiedEncoderLayer])
def test_a_window_is_an_image_of_its_own(kind):
    x = torch.randn(2, 4, 6, 24)
    whole, cut = make(kind), make(kind, window_size=3)
    assert [*cut.state_dict()] == [*whole.state_dict()]
    out = cut(x.flatten(1, 2), (4, 6)).view_as(x)
    for rows in (slice(0, 2), slice(2, 4)):
        for columns in (slice(0, 3), slice(3, 6)):
            window = x[:, rows, columns]
            torch.testing.assert_close(out[:, rows, columns].flatten(1, 2), whole(window.flatten(1, 2)))


@pytest.mark.parametrize('kind', [EncoderLayer, TiedEncoderLayer])
def test_windows_need_a_resolution(kind):
    with pytest.raises(ValueError, match=r'resolution=None is not a size of a map; window_size=3 expects \(H, W\)'):
        make(kind, window_size=3)(torch.randn(2, 24, 24))
