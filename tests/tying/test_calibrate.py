import pytest
import torch

from halvit_mm.tying.calibrate import fit_units, output_error
from halvit_mm.tying.checkpoint import tie_weights, units_of
from tests.tying.conftest import images, make_vit


def test_fit_brings_outputs_closer():
    plain, tied = make_vit('none'), make_vit('both')
    layers = [layer.name for layer in tie_weights(plain, tied, 'products')]
    assert units_of(layers) == ['layers.0', 'layers.1', 'layers.2']
    told, batches = {}, [images(16) for _ in range(4)]
    fit_units(plain, tied, units_of(layers), batches, 60, 1e-2, lambda name, *errors: told.update({name: errors}))
    assert [*told] == units_of(layers)
    assert all(after < 0.7 * before for before, after in told.values()), told
    assert not tied.training


def test_fit_of_an_annealed_model_leaves_it_the_plain_one():
    plain, tied = make_vit('none'), make_vit('both', annealed=True)
    layers = [layer.name for layer in tie_weights(plain, tied, 'mean')]
    before = tied.layers[0].ffn.weight.clone()
    fit_units(plain, tied, units_of(layers), [images(16)], 3)
    assert not torch.equal(tied.layers[0].ffn.weight, before)
    x = images()
    torch.testing.assert_close(tied(x)[0], plain(x)[0], rtol=0, atol=1e-9)


def test_output_error_leaves_the_shortcut_out():
    plain, tied = make_vit('none'), make_vit('both', annealed=True)
    tie_weights(plain, tied, 'mean')
    assert output_error(plain, tied, 'layers.1.ffn', [images()]) < 1e-9
    with torch.no_grad():
        tied.layers[1].ffn.gamma2.weight.zero_()
    assert output_error(plain, tied, 'layers.1.ffn', [images()]) == pytest.approx(1)
