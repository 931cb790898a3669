# DeiT's schedule (arXiv 2012.12877, table 9): AdamW, learning rate 5e-4 * total batch / 512, weight decay 0.05,
# 5 epochs of linear warm-up from 1e-6, cosine to 1e-5, 300 epochs, no gradient clipping.
_base_ = 'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py'

# Norms, biases, layer scales (all of one dimension), class token and position embedding do not decay.
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            _delete_=True,
            **{'.cls_token': dict(decay_mult=0.0), '.pos_embed': dict(decay_mult=0.0)},
        )
    )
)

param_scheduler = [
    dict(_scope_='mmpretrain', type='LinearLR', start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(_scope_='mmpretrain', type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5),
]

train_cfg = dict(max_epochs=300)
