optim_wrapper = dict(
    _scope_='mmdet',
    type='OptimWrapper',
    optimizer=dict(_scope_='mmdet', type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(_scope_='mmdet', type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(_scope_='mmdet', type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0, convert_to_iter_based=True),
]
train_cfg = dict(_scope_='mmdet', type='EpochBasedTrainLoop', max_epochs=4, val_interval=2)
val_cfg = dict(_scope_='mmdet', type='ValLoop')
test_cfg = dict(_scope_='mmdet', type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=8)
