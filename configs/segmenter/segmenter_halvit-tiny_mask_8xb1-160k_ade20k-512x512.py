_base_ = __import__('halvit_mm') and 'mmseg::segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py'

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        _scope_='mmseg',
        type='halvit_mm.HaLViT',
        arch='tiny',
        img_size=224,
        patch_size=16,
        out_type='featmap',
        with_cls_token=False,
        drop_path_rate=0.1,
    ),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
custom_hooks = [dict(_scope_='mmseg', type='halvit_mm.PretrainedBackboneHook')]

# As many as a GPU has cores
workers = __import__('halvit_mm').loader_workers()
train_dataloader = dict(num_workers=workers)
val_dataloader = dict(num_workers=workers)
test_dataloader = dict(num_workers=workers)
