# Photographs of solar cells (the package elpv-dataset), as research/prepare_elpv.py lists them, defective or not.
dataset_type = 'CustomDataset'
data_preprocessor = dict(num_classes=2, mean=[143.0] * 3, std=[47.0] * 3, to_rgb=True)

# A cell may be mounted any side up.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=96, crop_ratio_range=(0.7, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=96), dict(type='PackInputs')]

data = dict(_scope_='mmpretrain', type=dataset_type, data_root='data/elpv', classes=['functional', 'defective'])
loader = dict(batch_size=64, num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **loader,
    dataset=dict(**data, ann_file='train.txt', pipeline=train_pipeline),
    sampler=dict(_scope_='mmpretrain', type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    **loader,
    dataset=dict(**data, ann_file='held_out.txt', pipeline=test_pipeline),
    sampler=dict(_scope_='mmpretrain', type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(_scope_='mmpretrain', type='Accuracy', topk=(1,))
test_dataloader = dict(
    **loader,
    dataset=dict(**data, ann_file='test.txt', pipeline=test_pipeline),
    sampler=dict(_scope_='mmpretrain', type='DefaultSampler', shuffle=False),
)
test_evaluator = val_evaluator
