# The same with a teacher's logits, without features: a plain ResNet-50 for the same images.
_base_ = 'halvit_1xb128_fashion.py'

model = dict(
    type='halvit_mm.DistilledClassifier',
    teacher='halvit_mm::fashion/resnet50-pe_1xb128_fashion.py',
    teacher_options={'model.backbone.shared_stages': ()},
    teacher_checkpoint='work_dirs/resnet50_fashion/epoch_6.pth',
    label=0.5,
    soft=0.5,
)
