import json
import re
import shutil

import numpy as np
import pytest
import study_fashion
from compare_untied import interval
from prepare_elpv import split
from seeded_study import Study, half_of_interval
from study_digits import parameters

from halvit_mm.io.checkpoints import load_file
from tests.utils import ROOT, run_tool

SHORT = ('train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'param_scheduler=None')
SHORT += ('train_dataloader.dataset.indices=128', 'val_dataloader.dataset.indices=64')
STARTED = 'tied, rank 16, from products'


@pytest.fixture
def folder(tmp_path):
    """A folder with data/FashionMNIST/raw, images and labels without a relation in the files' own format."""
    folder = tmp_path / 'data/FashionMNIST/raw'
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, number in (('train', 128), ('t10k', 64)):
        for kind, shape in (('images-idx3', (number, 28, 28)), ('labels-idx1', (number,))):
            head = b''.join(n.to_bytes(4, 'big') for n in (2048 + len(shape), *shape))
            values = random.integers(0, 256 if len(shape) > 1 else 10, shape, np.uint8)
            (folder / f'{name}-{kind}-ubyte').write_bytes(head + values.tobytes())
    return tmp_path


@pytest.mark.long
def test_what_is_not_known_is_trained(folder):
    """A start, of a baseline whose weights are trained anew, and a model with a teacher."""
    variants = study_fashion.VARIANTS
    known = {'untied, lr 0.001, seed 0': 80, f'{study_fashion.PLAIN}, lr 0.001, seed 0': 79}
    known[f'{study_fashion.CONTINUED}, lr 0.001, seed 0'] = 78
    for chosen in ('untied', STARTED, study_fashion.CONTINUED, study_fashion.PLAIN, 'tied, distilled'):
        # The second alone would choose another rate than the two together
        for name, held_out in zip(variants[chosen].rate_by, ((80, 84, 78), (80, 81, 82))):
            rates = zip(('0.0005', '0.001', '0.002'), held_out, strict=True)
            known |= {f'{name}, lr {rate}, seed 100': top1 for rate, top1 in rates}
    kept = folder / 'study_fashion.json'
    kept.write_text(json.dumps({', '.join((key, *SHORT)): top1 for key, top1 in known.items()}))
    only = ('--only', 'untied', study_fashion.CONTINUED, STARTED, 'tied, distilled')
    tool = ('research/study_fashion.py', *only, '--seeds', '0', '--out', '.')
    shown = run_tool(*tool, '--jobs', '1', '--cfg-options', *SHORT, cwd=folder).stdout
    top1 = json.loads(kept.read_text())
    # Of images and labels without a relation
    started = ', '.join((f'{STARTED}, lr 0.001, seed 0', *SHORT))
    assert 0 < top1[started] < 40
    assert -40 < top1[f'{started}, before'] < 40
    distilled = top1[', '.join(('tied, distilled, lr 0.001, seed 0', *SHORT))]
    assert 0 < distilled < 40
    page = (folder / 'study_fashion.md').read_text()
    assert study_fashion.OTHER in page
    size = parameters(study_fashion.HALVIT, [])
    for text in (page, shown):
        assert f'| tied, distilled | {size:,} | 0.001 | {distilled:.2f} | {distilled:.2f} |  |  |' in text
        difference, before = top1[started] - 78, top1[f'{started}, before']
        assert f' | 0.001 | {top1[started]:.2f} | {top1[started]:.2f} | {difference:+.2f} | {before:+.2f} |' in text
    assert (folder / 'study_fashion.png').is_file()
    trained = {path.parent.name.partition('_lr')[0] for path in folder.glob('work_dirs/fashion/*/epoch_1.pth')}
    assert trained == {'untied', 'tied_rank-16_from-products', 'ResNet-50_plain', 'tied_distilled'}
    [start] = folder.glob('work_dirs/fashion/*/start.pth')
    slack = [value for key, value in load_file(start)['state_dict'].items() if '.slack.left.' in key]
    assert slack
    assert all(value.shape[1] == 16 and value.abs().max() > 0 for value in slack)


def test_the_interval_is_that_of_pairs_of_two_variants():
    """And of more variants one from what all deviate by."""
    ours, theirs = [80.0, 81.0, 83.0], [79.5, 81.5, 81.0]
    pairs = [a - b for a, b in zip(ours, theirs)]
    assert half_of_interval([ours, theirs]) == pytest.approx(interval(pairs))
    seeds = [[value + seed for seed in (0, 3, 7)] for value in (50, 60, 70)]
    assert half_of_interval(seeds) == pytest.approx(0, abs=1e-9)
    assert half_of_interval([*seeds, ours, theirs]) < interval(pairs)
    assert half_of_interval([ours]) == half_of_interval([[80.0], [81.0]]) == 0


@pytest.mark.parametrize(
    ('seeds', 'told'),
    [
        (['100'], '--seeds 100 is the seed that chooses the rates; expected others'),
        (['0', '1', '0'], '--seeds 0 1 0 has one twice; expected each once'),
    ],
)
def test_seeds_that_are_refused(folder, seeds, told):
    failed = run_tool('research/study_fashion.py', '--seeds', *seeds, '--out', '.', cwd=folder, check=False)
    assert told in failed.stdout


def test_each_training_has_a_folder_of_its_own(tmp_path):
    study = Study(study_fashion.DESIGN, tmp_path / 'none.json', tmp_path)
    folders = {study._folder(study._key(name, 1e-3, 0)) for name in study_fashion.VARIANTS}
    assert len(folders) == len(study_fashion.VARIANTS)


def test_the_published_list_is_told_from_others(folder):
    assert not study_fashion.is_published(folder / 'data/FashionMNIST/raw')


def test_split_of_solar_cells():
    cells = [(f'{number:03}.png', number % 4 / 3, ('mono', 'poly')[number % 8 // 4]) for number in range(160)]
    parts = split(cells)
    assert {name: len(part) for name, part in parts.items()} == dict(train=96, held_out=24, test=40)
    assert sorted(name for part in parts.values() for name, _ in part) == [name for name, _, _ in cells]
    labels = {name: int(probability >= 0.5) for name, probability, _ in cells}
    for part in parts.values():
        assert part == sorted(part)
        assert all(label == labels[name] for name, label in part)
        assert sum(label for _, label in part) == len(part) / 2
    assert split(cells) == parts


@pytest.mark.parametrize('name', ['fashion', 'elpv'])
def test_the_page_is_made_of_the_kept_results(name, tmp_path):
    shutil.copy(ROOT / f'docs/study_{name}.json', tmp_path)
    run_tool(f'research/study_{name}.py', '--out', '.', cwd=tmp_path)
    assert (tmp_path / f'study_{name}.md').read_text() == (ROOT / f'docs/study_{name}.md').read_text()
    assert (tmp_path / f'study_{name}.json').read_text() == (ROOT / f'docs/study_{name}.json').read_text()
    assert not (tmp_path / 'work_dirs').exists()  # nothing was trained


def test_differences_that_other_pages_quote_stand_in_a_study():
    studies = ''.join((ROOT / f'docs/study_{name}.md').read_text() for name in ('fashion', 'elpv'))
    quoted = {
        page.name: re.findall(r'[+-]\d+\.\d\d ± \d+\.\d\d', page.read_text())
        for page in (ROOT / 'docs').glob('*.md')
        if page.name not in ('warm_start_study.md', 'study_digits.md')
    }
    assert quoted['decisions.md']
    for page, differences in quoted.items():
        for difference in differences:
            assert f'| {difference} |' in studies, (page, difference)
