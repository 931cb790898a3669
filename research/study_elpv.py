"""Compare tied and untied models on photographs of solar cells: top-1 over seeds, with intervals.

research/seeded_study.py says how. research/prepare_elpv.py lists the photographs.
"""

from pathlib import Path

from seeded_study import Design, Variant, run_study

CONFIGS = Path(__file__).resolve().parents[1] / 'configs/elpv'
HALVIT, RESNET = CONFIGS / 'halvit_1xb64_elpv.py', CONFIGS / 'resnet50-pe_1xb64_elpv.py'


def halvit(**options: object) -> Variant:
    changed = tuple(f'model.backbone.{key}={value}' for key, value in options.items())
    return Variant(HALVIT, changed, 'untied', 'HaLViT', rate_by=('untied', 'tied'))


def resnet(stages: str) -> Variant:
    options = (f'model.backbone.shared_stages={stages}',)
    return Variant(RESNET, options, 'ResNet-50, plain', 'ResNet', rate_by=('ResNet-50, plain', 'ResNet50-PE1'))


VARIANTS = {
    'untied': halvit(tie='none'),
    'tied': halvit(),
    'ResNet-50, plain': resnet('()'),
    'ResNet50-PE1': resnet('(0,1,2,3)'),
}

REPORT = """# What each way of tying costs: a study on photographs of solar cells

2,624 photographs by electroluminescence, of cells that are defective or not (Deitsch et al., arXiv 1807.02894, by the
package elpv-dataset): 1,575 to train on, 395 held out, 654 for testing, of which one is 0.15 points. 450 of those for
testing, 68.81 %, count as functional: the probability of a defect is below 0.5. Images are made 96 x 96. Each model is
trained for 40 epochs. The learning rate is chosen among {rates} by trainings of {choice_epochs} epochs, seed
{choice_seed}, on the held-out photographs: for the HaLViTs by the untied and the tied one together, for the ResNets by
both, each time by the mean of the two top-1. Where the smallest or the largest rate was chosen, one beyond it may be
better. All else but the rate is the same for all models. Each training is one process of one thread.

"Difference" is that of the mean to the untied model's, of the ResNet to the plain one's, and the interval by Student's
t that holds it in 95 of 100 cases. The interval is made of what neither the model nor the seed explains, pooled over
both HaLViTs and over both ResNets. Where the interval has 0 in it, the study cannot tell the two apart.

{table}

![Means and intervals of the top-1, with the number of parameters](study_elpv.png)

<!-- not run: takes hours on 2 cores; tests/research/test_seeded_study.py runs parts of it -->
```bash
pip install elpv-dataset
python research/prepare_elpv.py
python research/study_elpv.py --out docs
```

goes on from `docs/study_elpv.json`, which has the top-1 of each training: of those that choose a rate on the held-out
photographs, of the others on those for testing.
"""
DESIGN = Design('elpv', VARIANTS, 10, ('val_dataloader.dataset.ann_file=test.txt',), REPORT)

if __name__ == '__main__':
    run_study(DESIGN, __doc__)
