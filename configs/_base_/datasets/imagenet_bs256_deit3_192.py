# As imagenet_bs256_deit3_224.py, at the 192 pixels at which DeiT III trains ViT-B and larger.
_base_ = 'imagenet_bs256_deit3_224.py'

resize = dict(backend='pillow', interpolation='bicubic')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=192, **resize),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandomChoice', transforms={{_base_.three_augment}}),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='PackInputs'),
]
train_pipeline = [dict(_scope_='mmpretrain', **step) for step in train_pipeline]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=192, edge='short', **resize),
    dict(type='CenterCrop', crop_size=192),
    dict(type='PackInputs'),
]
test_pipeline = [dict(_scope_='mmpretrain', **step) for step in test_pipeline]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
