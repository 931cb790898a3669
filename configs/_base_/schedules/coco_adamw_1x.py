# PVT's 1x recipe (arXiv 2102.12122, section 5.2): AdamW, learning rate 2e-4 for 16 images, weight decay 1e-4,
# 12 epochs.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

optim_wrapper = dict(optimizer=dict(_delete_=True, _scope_='mmdet', type='AdamW', lr=2e-4, weight_decay=1e-4))
