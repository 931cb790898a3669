"""Compare ways of tying, sharing, teaching and starting on Fashion-MNIST: top-1 over seeds, with intervals.

research/seeded_study.py says how. Rates are chosen on 5,000 held-out images of the training list.
"""

from dataclasses import replace
from pathlib import Path

from seeded_study import Design, Variant, run_study
from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import check_integrity

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs/fashion'
HALVIT, RESNET = CONFIGS / 'halvit_1xb128_fashion.py', CONFIGS / 'resnet50-pe_1xb128_fashion.py'
DISTILLED = CONFIGS / 'halvit-distilled_1xb128_fashion.py'
UNTIED, CONTINUED, PLAIN = 'untied', 'untied, 3 epochs more', 'ResNet-50, plain'
STARTS = ('tied, from mean', 'tied, from products')
FINE_TUNED = ('train_cfg.max_epochs=3', 'train_cfg.val_interval=3')


def halvit(width: int = 96, layers: int = 6, epochs: int = 6, **options: object) -> Variant:
    shape = dict(embed_dims=width, feedforward_channels=4 * width, num_layers=layers)
    changed = [f'model.backbone.arch.{key}={value}' for key, value in shape.items()]
    changed += [f'model.backbone.{key}={value}' for key, value in options.items()]
    changed += [f'model.head.in_channels={width}', f'train_cfg.max_epochs={epochs}', f'train_cfg.val_interval={epochs}']
    return Variant(HALVIT, tuple(changed), UNTIED if epochs == 6 else CONTINUED, 'HaLViT', (UNTIED, 'tied'))


def resnet(stages: str) -> Variant:
    return Variant(RESNET, (f'model.backbone.shared_stages={stages}',), PLAIN, 'ResNet', (PLAIN, 'ResNet50-PE1'))


def distilled(tie: str) -> Variant:
    baseline = UNTIED if tie == 'none' else 'untied, distilled'
    rate_by = ('untied, distilled', 'tied, distilled')
    return Variant(DISTILLED, (f'model.backbone.tie={tie}',), baseline, 'HaLViT', rate_by, teacher=PLAIN)


def started(*tied_by: str, rate_by: tuple[str, ...] = STARTS, **options: object) -> Variant:
    changed = (f'model.backbone.{key}={value}' for key, value in options.items())
    return Variant(HALVIT, (*FINE_TUNED, *changed), CONTINUED, 'start', rate_by, start=UNTIED, tied_by=tied_by)


VARIANTS = {
    UNTIED: halvit(tie='none'),
    'tied': halvit(),
    'tied, 9 epochs': halvit(epochs=9),
    'attention tied': halvit(tie='attn'),
    'FFN tied': halvit(tie='ffn'),
    'tied, 135 wide': halvit(width=135),
    'untied, pairs share': halvit(tie='none', share=2),
    'tied, pairs share': halvit(share=2),
    'tied, rank 4': halvit(tie_rank=4),
    'tied, rank 16': halvit(tie_rank=16),
    'tied, pairs share, rank 16': halvit(share=2, tie_rank=16),
    'untied, 3 layers': halvit(layers=3, tie='none'),
    'untied, 66 wide': halvit(width=66, tie='none'),
    PLAIN: resnet('()'),
    'ResNet50-PE1': resnet('(0,1,2,3)'),
    'ResNet50-PE2': resnet('(2,3)'),
    'untied, distilled': distilled('none'),
    'tied, distilled': distilled('both'),
    CONTINUED: started(tie='none', rate_by=(CONTINUED,)),
    'untied, pairs share, from mean': started('--way', 'mean', tie='none', share=2),
    'tied, from mean': started('--way', 'mean'),
    'tied, from products': started('--way', 'products'),
    'tied, from products, fitted': started('--way', 'products', '--calibrate', str(HALVIT)),
    'tied, rank 16, from products': started('--way', 'products', tie_rank=16),
    'attention tied, from mean': started('--way', 'mean', tie='attn'),
    'attention tied, from products': started('--way', 'products', tie='attn'),
}

REPORT = """# What each way of tying costs: a study on Fashion-MNIST

28 x 28 photographs of clothes in 10 classes (Xiao, Rasul, Vollgraf, arXiv 1708.07747). Each model is trained on 30,000
images for 6 epochs and tested on 10,000 others. "From" are starts that `tools/tie_checkpoint.py` makes of the trained
untied model of the same seed, and these are trained for 3 epochs. "3 epochs more" goes on from the trained untied model
itself. "Distilled" has the plain ResNet-50 of the same seed as its teacher. All else but the learning rate is the same
for all models. Each training is one process of one thread. {split}

The learning rate is chosen among {rates} on 5,000 further images of the training list, by trainings of {choice_epochs}
epochs with seed {choice_seed}. Two models choose together, by the mean of their top-1: the untied and the tied one for
all HaLViTs without a teacher, these two with the teacher, the plain ResNet and PE1 for the ResNets, and the starts by
the mean and by products for all starts but the untied model with 3 epochs more. This one is their baseline and chooses
alone, since the first results showed that the rate of the others is not its best. A choice for each model alone would
put the noise of single trainings into the differences. A model whose best rate is another than that of the two is at a
disadvantage, which the study does not see. Where the smallest or the largest rate was chosen, one beyond it may be
better.

"Difference" is that of the mean to the baseline's, and the interval by Student's t that holds it in 95 of 100 cases.
The interval is made of what neither the model nor the seed explains, pooled over all models of a kind, which are the
HaLViTs from random weights, the starts, and the ResNets: starts and ResNets deviate by less. Of two models of two kinds
it is the root mean square of both. Where the interval has 0 in it, the study cannot tell the two apart. Of 20 such
intervals one is expected to miss. The baseline of ResNets is the plain one, of models with 9 epochs in all the untied
one with 3 epochs more, of the tied distilled model the untied distilled one, of all others the untied model. "Before"
is the mean top-1 of the starts before any training, less that of the untied models that they are made of, both on the
held-out images.

{table}

![Means and intervals of the top-1, with the number of parameters](study_fashion.png)

<!-- not run: takes hours on 2 cores; tests/research/test_seeded_study.py runs parts of it -->
```bash
python -c "from torchvision.datasets import FashionMNIST; FashionMNIST('data', download=True)"
python research/study_fashion.py --out docs
```

goes on from `docs/study_fashion.json`, which has the top-1 of each training: of those that choose a rate on the
held-out images, of the others on the images for testing.
"""
PUBLISHED = 'The split is the published one.'
OTHER = 'The images for testing are not the published ones, so that the figures must not be compared with papers.'
DESIGN = Design(
    name='fashion',
    variants=VARIANTS,
    choice_epochs=2,
    test=(
        'val_dataloader.dataset.split=test',
        'val_dataloader.dataset.indices=None',
        'val_dataloader.dataset.test_mode=True',
    ),
    report=REPORT,
)


def is_published(folder: Path) -> bool:
    """Whether a folder has the published list for testing, as torchvision downloads it."""
    name = 't10k-labels-idx1-ubyte.gz'
    return check_integrity(folder / name, dict(FashionMNIST.resources)[name])


def main() -> None:
    split = PUBLISHED if is_published(Path('data/FashionMNIST/raw')) else OTHER
    run_study(replace(DESIGN, report=REPORT.replace('{split}', split)), __doc__)


if __name__ == '__main__':
    main()
