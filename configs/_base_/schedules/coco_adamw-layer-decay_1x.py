# A plain ViT is fine-tuned with rates that fall with depth (ViTDet, arXiv 2203.16527, appendix: 0.7 for ViT-B).
# Vectors (biases, norms) and the position embedding do not decay.
_base_ = 'coco_adamw_1x.py'

optim_wrapper = dict(
    constructor='halvit_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.7, flat_decay_mult=0.0, custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
)
