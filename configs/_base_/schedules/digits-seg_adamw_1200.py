optim_wrapper = dict(
    _scope_='mmseg',
    type='OptimWrapper',
    optimizer=dict(_scope_='mmseg', type='AdamW', lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0, custom_keys={'.pos_embed': dict(decay_mult=0.0)}
    ),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(_scope_='mmseg', type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(_scope_='mmseg', type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=50, end=1200),
]
train_cfg = dict(_scope_='mmseg', type='IterBasedTrainLoop', max_iters=1200, val_interval=600)
val_cfg = dict(_scope_='mmseg', type='ValLoop')
test_cfg = dict(_scope_='mmseg', type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
