# mmseg's recipe for UPerNet on ViT and DeiT (configs/vit): AdamW, learning rate 6e-5 for 16 images, 160,000 iterations.
# Vectors (biases, norms) and the position embedding do not decay.
optim_wrapper = dict(
    _scope_='mmseg',
    type='OptimWrapper',
    optimizer=dict(_scope_='mmseg', type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0, custom_keys={'.pos_embed': dict(decay_mult=0.0)}
    ),
)
param_scheduler = [
    dict(_scope_='mmseg', type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(_scope_='mmseg', type='PolyLR', eta_min=0.0, power=1.0, begin=1500, end=160000, by_epoch=False),
]
train_cfg = dict(_scope_='mmseg', type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(_scope_='mmseg', type='ValLoop')
test_cfg = dict(_scope_='mmseg', type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
