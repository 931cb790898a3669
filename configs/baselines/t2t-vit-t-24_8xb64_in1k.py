_base_ = 'mmpretrain::t2t_vit/t2t-vit-t-24_8xb64_in1k.py'
