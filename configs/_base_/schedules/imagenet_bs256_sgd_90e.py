# The authors' SGD, 0.1 for a total batch of 256, with 5 epochs of linear warm-up, cosine, and torchvision's 90 epochs.
_base_ = 'mmpretrain::_base_/schedules/imagenet_bs256.py'

param_scheduler = [
    dict(_scope_='mmpretrain', type='LinearLR', start_factor=0.01, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(_scope_='mmpretrain', type='CosineAnnealingLR', by_epoch=True, begin=5),
]

train_cfg = dict(max_epochs=90)
