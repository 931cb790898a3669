# mmdet's Mask R-CNN, narrow, for canvases of about 120 pixels with a handful of objects of 30 to 60 pixels. One box and
# one mask per region serve all classes: there are few examples to learn ten of each from.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

model = dict(
    data_preprocessor=dict(mean=[78.0, 78.0, 78.0], std=[72.0, 72.0, 72.0]),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[6], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=64, featmap_strides=[4, 8, 16], roi_layer=dict(output_size=7, sampling_ratio=2)
        ),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=10, reg_class_agnostic=True),
        # Masks of 14 x 14 are finer than the 8 x 8 pixels that the digits were scanned with.
        mask_roi_extractor=dict(
            out_channels=64, featmap_strides=[4, 8, 16], roi_layer=dict(output_size=7, sampling_ratio=2)
        ),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=10, class_agnostic=True),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=64, pos_fraction=0.5), mask_size=14),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=50)),
)
