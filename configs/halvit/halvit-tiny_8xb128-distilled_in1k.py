# Mini-DeiT's recipe (MiniViT, CVPR 2022, arXiv 2204.07154) for HaLViT-Tiny: that of DeiT without stochastic depth, with
# the soft labels of a RegNetY-16GF at temperature 1 instead of the true labels (the authors' microsoft/Cream, MiniViT:
# --distillation-type soft --distillation-alpha 1.0 --drop-path 0.0). Departures: the authors divide the loss by the
# number of classes too, which AdamW does not see; their average of weights over time is left out. Not trained here.
# regnety_160.pth: see configs/baselines/regnety-16gf_8xb128_in1k.py. With model.teacher_logits=DIR the logits that
# tools/save_logits.py has stored stand in for the teacher. The untied counterpart: model.backbone.tie=none.
_base_ = 'halvit-tiny_8xb128_in1k.py'

model = dict(
    type='halvit_mm.DistilledClassifier',
    teacher='halvit_mm::baselines/regnety-16gf_8xb128_in1k.py',
    teacher_checkpoint='regnety_160.pth',
    label=0.0,
    soft=1.0,
    temperature=1.0,
    backbone=dict(drop_path_rate=0.0),
)
