# scikit-learn's handwritten digits as tools/prepare_digits.py writes them, enlarged from 8 to 32 pixels.
dataset_type = 'CustomDataset'
data_preprocessor = dict(num_classes=10, mean=[78.0, 78.0, 78.0], std=[96.0, 96.0, 96.0], to_rgb=True)

enlarge = dict(type='Resize', scale=32, interpolation='bicubic', backend='pillow')
# Both directions, any strength up to the range's end
uniform = dict(magnitude_std='inf', prob=0.7, pad_val=0, interpolation='bilinear')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    enlarge,
    dict(type='Rotate', magnitude_range=(0.0, 8.0), **uniform),
    dict(type='Shear', magnitude_range=(0.0, 0.12), direction='horizontal', **uniform),
    dict(type='Translate', magnitude_range=(0.0, 0.1), direction='horizontal', **uniform),
    dict(type='Translate', magnitude_range=(0.0, 0.1), direction='vertical', **uniform),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), enlarge, dict(type='PackInputs')]

# The images are tiny: worker processes would cost more than they save.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _scope_='mmpretrain', type=dataset_type, data_root='data/digits', data_prefix='train', pipeline=train_pipeline
    ),
    sampler=dict(_scope_='mmpretrain', type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _scope_='mmpretrain', type=dataset_type, data_root='data/digits', data_prefix='val', pipeline=test_pipeline
    ),
    sampler=dict(_scope_='mmpretrain', type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(_scope_='mmpretrain', type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
