# Fashion-MNIST (arXiv 1708.07747), as torchvision.datasets.FashionMNIST('data', download=True) leaves it on the disk.
# The first 30,000 images of the training list are trained on, and on 5,000 others of that list schedules are chosen.
dataset_type = 'FashionMNIST'
data_preprocessor = dict(num_classes=10, mean=[72.9], std=[90.0], to_rgb=False)

train_pipeline = [
    dict(type='RandomCrop', crop_size=28, padding=2),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

data = dict(_scope_='mmpretrain', type=dataset_type, data_root='data/FashionMNIST/raw', download=False)
# The images are in memory: worker processes would cost more than they save.
loader = dict(batch_size=128, num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **loader,
    dataset=dict(**data, split='train', indices=30_000, pipeline=train_pipeline),
    sampler=dict(_scope_='mmpretrain', type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    **loader,
    dataset=dict(**data, split='train', indices=list(range(50_000, 55_000)), pipeline=test_pipeline),
    sampler=dict(_scope_='mmpretrain', type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(_scope_='mmpretrain', type='Accuracy', topk=(1,))
test_dataloader = dict(
    **loader,
    dataset=dict(**data, split='test', test_mode=True, pipeline=test_pipeline),
    sampler=dict(_scope_='mmpretrain', type='DefaultSampler', shuffle=False),
)
test_evaluator = val_evaluator
