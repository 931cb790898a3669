# mmseg's UPerNet on a plain ViT, with a pyramid without parameters
# Windows are those of the detectors: mask-rcnn_halvit-tiny_fpn.py
_base_ = __import__('halvit_mm') and 'mmseg::_base_/models/upernet_vit-b16_ln_mln.py'

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        _scope_='mmseg',
        type='halvit_mm.HaLViT',
        arch='tiny',
        img_size=224,
        patch_size=16,
        out_type='featmap',
        out_indices=(2, 5, 8, 11),
        with_cls_token=False,
        # It would normalize the last of the four maps only.
        final_norm=False,
        drop_path_rate=0.1,
        window_size=14,
        global_attn_layers=(2, 5, 8, 11),
    ),
    neck=dict(_delete_=True, _scope_='mmseg', type='halvit_mm.ViTPyramid', in_channels=384),
    decode_head=dict(in_channels=[384] * 4, num_classes=150),
    auxiliary_head=dict(in_channels=384, num_classes=150),
)
