_base_ = 'halvit-tiny_8xb128_in1k.py'

train_cfg = dict(max_epochs=600)
