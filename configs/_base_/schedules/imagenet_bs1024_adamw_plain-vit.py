# The schedule of arXiv 2205.01580 (google-research/big_vision, configs/vit_s16_i1k.py): AdamW, learning rate 1e-3 for
# 1024 images, gradients clipped to a norm of 1, 10,000 steps of linear warm-up (8 epochs are 10,008), cosine to 0, 90
# epochs. Its weight decay of 1e-4 is not multiplied with the learning rate, with which torch multiplies: 1e-4 / 1e-3.
# Matrices decay, and nothing else.
_base_ = 'imagenet_bs1024_adamw_deit.py'

optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.1), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(_scope_='mmpretrain', type='LinearLR', start_factor=1e-4, by_epoch=True, end=8, convert_to_iter_based=True),
    dict(
        _scope_='mmpretrain', type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=8, convert_to_iter_based=True
    ),
]
train_cfg = dict(max_epochs=90)
