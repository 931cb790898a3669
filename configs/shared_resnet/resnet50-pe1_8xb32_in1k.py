# 8 GPUs x 32 images = the 256 that the learning rate is for; with other numbers use --auto-scale-lr.
_base_ = [
    '../_base_/models/resnet50-pe1.py',
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    '../_base_/schedules/imagenet_bs256_sgd_90e.py',
    '../_base_/default_runtime.py',
]

# As many as a GPU has cores
workers = __import__('halvit_mm').loader_workers()
train_dataloader = dict(num_workers=workers)
val_dataloader = dict(num_workers=workers)
test_dataloader = dict(num_workers=workers)
