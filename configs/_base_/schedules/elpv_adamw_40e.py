_base_ = './fashion_adamw_20e.py'

train_cfg = dict(max_epochs=40, val_interval=40)
