# The recommended fine-tuning: the untied model teaches, not the labels. Checkpoints to start from: docs/warm_start.md
_base_ = 'halvit-warm_2xb64_digits.py'

model = dict(
    type='halvit_mm.DistilledClassifier',
    teacher='halvit_mm::digits/halvit_2xb64_digits.py',
    teacher_options={'model.backbone.tie': 'none'},
    teacher_checkpoint='work_dirs/untied/epoch_100.pth',
    label=0.0,
    soft=1.0,
    temperature=2.0,
    feature=1.0,
    feature_layers=[f'backbone.layers.{i}' for i in range(6)],
)
load_from = 'work_dirs/tied.pth'
