# ImageNet-1k as the plain ViT of arXiv 2205.01580 is trained on it (google-research/big_vision, vit_s16_i1k.py): an
# inception crop of 5 to 100 % of the area, a flip, two operations of RandAugment at level 10 of 10 that fill with gray,
# pixels from -1 to 1. mmpretrain's list of operations is timm's, which has no cutout.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])

resize = dict(backend='pillow', interpolation='bilinear')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.05, 1.0), **resize),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=10,
        hparams=dict(pad_val=128, interpolation='nearest'),
    ),
    dict(type='PackInputs'),
]
train_pipeline = [dict(_scope_='mmpretrain', **step) for step in train_pipeline]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', **resize),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
test_pipeline = [dict(_scope_='mmpretrain', **step) for step in test_pipeline]

# As many as a GPU has cores
workers = __import__('halvit_mm').loader_workers()
train_dataloader = dict(batch_size=128, num_workers=workers, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=128, num_workers=workers, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=128, num_workers=workers, dataset=dict(pipeline=test_pipeline))
