# The recipe of mmdet's RetinaNets on PVT, with rates that fall with depth.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_adamw-layer-decay_1x.py',
    '../_base_/coco_runtime.py',
]

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
        final_norm=False,
        drop_path_rate=0.1,
        window_size=14,
        global_attn_layers=(2, 5, 8, 11),
    ),
    neck=[
        dict(_scope_='mmdet', type='halvit_mm.ViTPyramid', in_channels=384),
        dict(
            _scope_='mmdet',
            type='FPN',
            in_channels=[384] * 4,
            out_channels=256,
            start_level=1,
            add_extra_convs='on_input',
            num_outs=5,
        ),
    ],
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
