_base_ = __import__('halvit_mm') and 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        _scope_='mmseg',
        type='halvit_mm.SharedStageResNet',
        depth=50,
        shared_stages=(0, 1, 2, 3),
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
custom_hooks = [dict(_scope_='mmseg', type='halvit_mm.PretrainedBackboneHook')]

# As many as a GPU has cores
workers = __import__('halvit_mm').loader_workers()
train_dataloader = dict(num_workers=workers)
val_dataloader = dict(num_workers=workers)
test_dataloader = dict(num_workers=workers)
