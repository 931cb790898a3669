# DeiT III's schedule (arXiv 2204.07118): LAMB, learning rate 4e-3 for 2048 images, weight decay 0.05, 5 epochs of
# linear warm-up from 1e-6, cosine to 1e-5, 400 epochs. Gradients are clipped within LAMB, to a norm of 1.
_base_ = 'imagenet_bs1024_adamw_deit.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, _scope_='mmpretrain', type='mmpretrain.Lamb', lr=4e-3, weight_decay=0.05, eps=1e-6)
)
param_scheduler = [
    dict(_scope_='mmpretrain', type='LinearLR', start_factor=2.5e-4, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(_scope_='mmpretrain', type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5),
]
train_cfg = dict(max_epochs=400)
auto_scale_lr = dict(base_batch_size=2048)
