optim_wrapper = dict(
    optimizer=dict(_scope_='mmpretrain', type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
)
param_scheduler = [
    dict(_scope_='mmpretrain', type='LinearLR', start_factor=1e-2, by_epoch=True, end=3, convert_to_iter_based=True),
    dict(_scope_='mmpretrain', type='CosineAnnealingLR', by_epoch=True, begin=3, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=30, val_interval=10)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
