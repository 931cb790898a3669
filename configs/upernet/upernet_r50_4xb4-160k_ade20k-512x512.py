# With torchvision's ResNet-50, whose stem ResNet50-PE has too, where mmseg's own config has ResNetV1c
_base_ = __import__('halvit_mm') and 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'

model = dict(pretrained='torchvision://resnet50', backbone=dict(_scope_='mmseg', type='ResNet'))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
