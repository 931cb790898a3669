import pytest
import torch

from halvit_mm.tying.calibrate import fit_units, output_error
from halvit_mm.tying.checkpoint import tie_weights, units_of
from tests.tying.conftest import images, make_vit
from tests.utils import untie_state_dict


def test_fit_brings_outputs_closer():
    plain, tied = make_vit('none'), make_vit('both')
    layers = [layer.name for layer in tie_weights(plain, tied, 'products')]
    assert units_of(layers) == ['layers.0', 'layers.1', 'layers.2']
    told, batches = {}, [images(16) for _ in range(4)]
    fit_units(plain, tied, units_of(layers), batches, 60, 1e-2, lambda name, *errors: told.update({name: errors}))
    assert [*told] == units_of(layers)
    assert all(after < 0.7 * before for before, after in told.values()), told
    assert not tied.training


@pytest.mark.parametrize('tie_rank', [0, 2])
def test_layers_that_share_are_fitted_together(tie_rank):
    """Three layers, of which two share; their start is the mean of both."""
    plain, tied = make_vit('none'), make_vit('both', share=2, tie_rank=tie_rank)
    layers = [layer.name for layer in tie_weights(plain, tied, 'mean')]
    weights = [layer.ffn.layers[0][0].weight + layer.ffn.layers[1].weight.T for layer in plain.layers[:2]]
    torch.testing.assert_close(tied.layers[0].ffn.weight, sum(weights) / 4)
    told, batches = {}, [images(16) for _ in range(4)]
    fit_units(plain, tied, units_of(layers), batches, 60, 1e-2, lambda name, *errors: told.update({name: errors}))
    assert [*told] == ['layers.0 and layers.1', 'layers.2']
    assert all(after < 0.8 * before for before, after in told.values()), told


@pytest.mark.parametrize('tie', ['attn', 'none'])
def test_untied_parts_that_share_are_fitted(tie):
    plain, tied = make_vit('none'), make_vit(tie, share=2)
    units = units_of([layer.name for layer in tie_weights(plain, tied, 'mean')])
    told, batches = {}, [images(16) for _ in range(4)]
    fit_units(plain, tied, units, batches, 60, 1e-2, lambda name, *errors: told.update({name: errors}))
    assert [*told] == ['layers.0 and layers.1', 'layers.2'][: 2 if tie == 'attn' else 1]
    assert all(after < 0.8 * before for before, after in told.values()), told


def test_slack_of_full_rank_makes_one_layer_the_plain_one():
    """The rest of the mean is in the slack; the way in is the mean itself."""
    plain, tied = make_vit('none'), make_vit('both', tie_rank=24)
    tie_weights(plain, tied, 'mean')
    ffn, reference = tied.layers[1].ffn, plain.layers[1].ffn.layers
    torch.testing.assert_close(ffn.way_out('weight'), reference[1].weight.T)
    torch.testing.assert_close(2 * ffn.matrix('weight'), reference[0][0].weight + reference[1].weight.T)


def test_output_error_leaves_the_shortcut_out():
    plain, tied = make_vit('none'), make_vit('both')
    plain.load_state_dict(untie_state_dict(tied.state_dict()))
    assert output_error(plain, tied, 'layers.1.ffn', [images()]) < 1e-9
    with torch.no_grad():
        tied.layers[1].ffn.gamma2.weight.zero_()
    assert output_error(plain, tied, 'layers.1.ffn', [images()]) == pytest.approx(1)
