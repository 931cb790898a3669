_base_ = 'mmpretrain::t2t_vit/t2t-vit-t-19_8xb64_in1k.py'
