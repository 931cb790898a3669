import pytest
import torch

from halvit_mm.layers.windows import fit_windows, join_windows, split_into_windows

# Height, width and largest window: one window, even ones, uneven ones, a single row, windows of one token
CASES = [(5, 6, 8), (8, 12, 4), (7, 10, 4), (1, 9, 2), (3, 2, 1), (13, 13, 12)]


def split_by_loops(x, height, width, largest):
    rows, h = fit_windows(height, largest)
    columns, w = fit_windows(width, largest)
    extra = x.shape[1] - height * width
    out = x.new_zeros(x.shape[0] * rows * columns, extra + h * w, x.shape[2])
    for b in range(x.shape[0]):
        for i in range(rows * columns):
            out[b * rows * columns + i, :extra] = x[b, :extra]
        for y in range(height):
            for z in range(width):
                window = (b * rows + y // h) * columns + z // w
                out[window, extra + y % h * w + z % w] = x[b, extra + y * width + z]
    return out


@pytest.mark.parametrize('extra', [0, 1, 3])
@pytest.mark.parametrize(('height', 'width', 'largest'), CASES)
def test_against_loops_and_back(height, width, largest, extra):
    x = torch.randn(2, extra + height * width, 3, dtype=torch.double)
    windows = split_into_windows(x, (height, width), largest)
    assert torch.equal(windows, split_by_loops(x, height, width, largest))
    back = join_windows(windows, (height, width), largest)
    assert torch.equal(back[:, extra:], x[:, extra:])
    torch.testing.assert_close(back[:, :extra], x[:, :extra], rtol=0, atol=1e-15)


def test_each_image_has_the_mean_of_its_own_extra_tokens():
    x = torch.zeros(2, 1 + 4 * 4, 1)
    windows = split_into_windows(x, (4, 4), 2)
    windows[:, 0, 0] = torch.tensor([1.0, 2, 3, 6, 10, 20, 30, 60])
    assert join_windows(windows, (4, 4), 2)[:, 0, 0].tolist() == [3, 30]


def test_what_is_in_the_filling_is_dropped():
    windows = split_into_windows(torch.randn(1, 5 * 5, 2), (5, 5), 3)
    filling = split_into_windows(torch.ones(1, 5 * 5, 2), (5, 5), 3) == 0
    assert filling.any()
    out = join_windows(windows, (5, 5), 3)
    windows[filling] = float('nan')
    assert torch.equal(join_windows(windows, (5, 5), 3), out)


def test_fit_windows():
    for length in range(1, 70):
        for largest in range(1, 20):
            number, size = fit_windows(length, largest)
            assert size <= largest
            assert length <= number * size < length + number
            assert (number - 1) * largest < length, 'as few windows as possible'
    assert fit_windows(50, 14) == (4, 13)
    assert fit_windows(14, 14) == (1, 14)


@pytest.mark.parametrize('extra', [0, 1])
@pytest.mark.parametrize(('height', 'width', 'largest'), [(3, 2, 4), (5, 3, 2)])
def test_gradients(height, width, largest, extra):
    x = torch.randn(2, extra + height * width, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: split_into_windows(x, (height, width), largest), x)
    windows = split_into_windows(x, (height, width), largest).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: join_windows(x, (height, width), largest), windows)


def test_views_that_are_not_contiguous():
    x = torch.randn(2, 4, 6 * 5).transpose(1, 2)
    windows = split_into_windows(x, (6, 5), 3)
    assert torch.equal(windows, split_into_windows(x.contiguous(), (6, 5), 3))
    view = windows.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(join_windows(view, (6, 5), 3), x)
