# Windows of 14 patches are as wide as the images of ImageNet; every third layer looks at the whole image (ViTDet).
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        _scope_='mmdet',
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
    neck=[
        dict(_scope_='mmdet', type='halvit_mm.ViTPyramid', in_channels=384),
        dict(_scope_='mmdet', type='FPN', in_channels=[384] * 4, out_channels=256, num_outs=5),
    ],
)
