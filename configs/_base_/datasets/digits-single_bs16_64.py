# One handwritten digit on each cluttered canvas, as tools/prepare_digits_coco.py writes them for backbones.
dataset_type = 'CustomDataset'
data_preprocessor = dict(num_classes=10, mean=[78.0, 78.0, 78.0], std=[72.0, 72.0, 72.0], to_rgb=True)

train_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _scope_='mmpretrain',
        type=dataset_type,
        data_root='data/digits_coco/single',
        data_prefix='train',
        pipeline=train_pipeline,
    ),
    sampler=dict(_scope_='mmpretrain', type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _scope_='mmpretrain',
        type=dataset_type,
        data_root='data/digits_coco/single',
        data_prefix='val',
        pipeline=train_pipeline,
    ),
    sampler=dict(_scope_='mmpretrain', type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(_scope_='mmpretrain', type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
