# A short fine-tuning from the start that tools/tie_checkpoint.py makes of the trained untied model: docs/warm_start.md
_base_ = 'halvit_2xb64_digits.py'

param_scheduler = [
    dict(_scope_='mmpretrain', type='LinearLR', start_factor=1e-2, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(
        _scope_='mmpretrain', type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, convert_to_iter_based=True
    ),
]
train_cfg = dict(max_epochs=20, val_interval=5)
