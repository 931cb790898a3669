_base_ = 'pvt-v2-b1_8xb128_in1k.py'

model = dict(backbone=dict(num_layers=[3, 6, 40, 3], drop_path_rate=0.3, mlp_ratios=(4, 4, 4, 4)))
