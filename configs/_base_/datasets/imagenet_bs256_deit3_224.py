# ImageNet-1k as DeiT III is trained on it (arXiv 2204.07118; the authors' --ThreeAugment): a random resized crop, a
# flip, one of gray, solarization and blur, color jitter of 0.3, repeated augmentation. Tested on the whole short side.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

# Weights of blue, green and red in a gray image, as Pillow has them; mmcv's own are equal.
luma = (0.114, 0.587, 0.299)
three_augment = [
    dict(type='RandomGrayscale', prob=1.0, keep_channels=True, channel_weights=luma),
    dict(type='Solarize', thr=128, prob=1.0),
    # A radius between 0.1 and 2, uniformly
    dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=1.0),
]
three_augment = [[dict(_scope_='mmpretrain', **step)] for step in three_augment]
resize = dict(backend='pillow', interpolation='bicubic')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, **resize),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomChoice', transforms=three_augment),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='PackInputs'),
]
train_pipeline = [dict(_scope_='mmpretrain', **step) for step in train_pipeline]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=224, edge='short', **resize),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
test_pipeline = [dict(_scope_='mmpretrain', **step) for step in test_pipeline]

# As many as a GPU has cores
workers = __import__('halvit_mm').loader_workers()
train_dataloader = dict(
    batch_size=256,
    num_workers=workers,
    dataset=dict(pipeline=train_pipeline),
    sampler=dict(_delete_=True, _scope_='mmpretrain', type='RepeatAugSampler', num_repeats=3),
)
val_dataloader = dict(batch_size=256, num_workers=workers, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=256, num_workers=workers, dataset=dict(pipeline=test_pipeline))
