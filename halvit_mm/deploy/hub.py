"""A trained classifier as a folder, or a repository on the hub of Hugging Face, from which timm builds it."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData
from mmengine.config import Config
from mmengine.fileio import load
from timm.models import save_for_hf
from torch import nn

import halvit_mm.timm
from halvit_mm.cost import count_parameters
from halvit_mm.errors import UserError
from halvit_mm.io.build import load_model
from halvit_mm.io.datasets import class_names, test_pipeline
from halvit_mm.io.weights import fill
from halvit_mm.models import HaLViT
from halvit_mm.names import to_timm
from halvit_mm.timm.hub import PREFIX

from .network import input_shape


def publish_on_hub(
    cfg: Config,
    checkpoint: str | os.PathLike,
    target: str | os.PathLike,
    metrics: str | os.PathLike | None = None,
    license: str = 'apache-2.0',
) -> str:
    """Write ``model.safetensors``, ``config.json`` and a model card.

    Args:
        cfg (Config): The whole config of a classifier with a HaLViT.
        checkpoint (str or PathLike): Its checkpoint; of a training that averaged its weights, the average is taken.
        target (str or PathLike): A folder that does not exist or is empty, or ``'hf-hub:NAME/MODEL'``.
        metrics (str or PathLike, optional): What ``tools/test.py --out FILE --out-item metrics`` wrote; the model card
            gets these figures. Defaults to None.
        license (str): Licence of the weights, by the hub's name for it. Defaults to ``'apache-2.0'``.

    Returns:
        str: The folder, or the address of the repository.

    Raises:
        UserError: If the model is not one that timm's HaLViT can be, or if nothing can be written there.
    """
    target = os.fspath(target)
    remote = target.startswith(PREFIX)
    name = Path(target.removeprefix(PREFIX)).name
    parent = None if remote else Path(target).absolute().parent
    if not remote:
        if os.path.lexists(target) and not _is_empty_folder(Path(target)):
            raise UserError(f'--hub {target} is not empty; expected a new folder, or {PREFIX}NAME/MODEL')
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise UserError(f'--hub {target}: folder {parent} does not exist or cannot be written to')
    figures = {} if metrics is None else _read_figures(metrics)
    ours = as_timm(cfg, load_model(cfg, os.fspath(checkpoint)))
    about: dict[str, Any] = dict(pretrained_cfg=dict(license=license))
    if names := class_names(cfg):
        about['label_names'] = list(names)
    with tempfile.TemporaryDirectory(dir=parent) as temporary:
        folder = Path(temporary, name)
        save_for_hf(ours, folder, model_config=about, safe_serialization=True)
        # safetensors leaves a file that its owner alone reads.
        (folder / 'model.safetensors').chmod((folder / 'config.json').stat().st_mode)
        _card(ours, name, target if remote else name, folder, figures, license).save(folder / 'README.md')
        if remote:
            return _upload(folder, target.removeprefix(PREFIX))
        folder.replace(target)
    return target


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def as_timm(cfg: Config, model: nn.Module) -> nn.Module:
    """The model of timm's with the weights and the outputs of a classifier of mmpretrain's.

    Args:
        cfg (Config): The classifier's whole config.
        model (nn.Module): The classifier, in evaluation mode.

    Returns:
        nn.Module: The model, with the mean, the deviation and the size of the classifier's images.

    Raises:
        UserError: If timm's HaLViT cannot be such a model.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, HaLViT):
        raise UserError(f'{cfg.filename} is not the config of a classifier with halvit_mm.HaLViT; expected one')
    # timm's own; the outputs below may be too close to tell.
    if others := {module.eps for module in backbone.modules() if isinstance(module, nn.LayerNorm)} - {1e-6}:
        raise UserError(
            f"{cfg.filename}: eps={others.pop():g} is not that of the norms of timm's HaLViT; expected 1e-06"
        )
    options, arch = cfg.model.backbone, backbone.arch_settings
    size = input_shape(cfg)
    projection = backbone.patch_embed.projection
    arguments = dict(
        embed_dim=arch['embed_dims'],
        depth=arch['num_layers'],
        num_heads=arch['num_heads'],
        mlp_ratio=_ratio(arch['feedforward_channels'], arch['embed_dims']),
        patch_size=_one_if_equal(projection.kernel_size),
        img_size=_one_if_equal(backbone.img_size),
        in_chans=projection.in_channels,
        num_classes=model.head.num_classes,
        qkv_bias=options.get('qkv_bias', True),
        tie=backbone.tie,
        share=backbone.share,
        tie_rank=options.get('tie_rank', 0),
    )
    if scale := options.get('layer_scale_init_value', 0.0):
        arguments['init_values'] = scale
    named = f'halvit_{options.get("arch", "tiny")}_patch16_224'
    architecture = named if timm.is_model(named) else 'halvit_tiny_patch16_224'
    ours = timm.create_model(architecture, pretrained_cfg_overlay=_data_config(cfg, model, size), **arguments).eval()
    fill(ours, to_timm(model.state_dict()), f'{cfg.filename}: the model')
    images = torch.randn(2, projection.in_channels, *size)
    with torch.no_grad():
        difference = (ours(images) - model(images)).abs().max().item()
    if not difference < 1e-3:
        raise UserError(
            f"{cfg.filename}: the outputs of timm's HaLViT differ by {difference:.2g} from this model's; expected a "
            'model without windows, with GELU, whose head takes the normalized class token of the last layer'
        )
    return ours


def _data_config(cfg: Config, model: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """How timm has to prepare images, as the config's test pipeline does."""
    if not cfg.get('data_preprocessor', {}).get('to_rgb'):
        raise UserError(
            f'{cfg.filename}: data_preprocessor.to_rgb is not True; timm reads images as RGB, expected True'
        )
    mean, std = ((getattr(model.data_preprocessor, key).flatten() / 255).tolist() for key in ('mean', 'std'))
    found = {transform['type'].rpartition('.')[2]: transform for transform in test_pipeline(cfg)}
    resize = found.get('ResizeEdge', found.get('Resize', {}))
    edge = resize.get('scale')
    return dict(
        input_size=(len(mean), *size),
        mean=tuple(mean),
        std=tuple(std),
        interpolation=resize.get('interpolation', 'bilinear'),
        crop_pct=size[0] / edge if 'ResizeEdge' in found and 'CenterCrop' in found else 1.0,
        crop_mode='squash' if 'Resize' in found else 'center',
        tag=None,
    )


def _ratio(hidden: int, width: int) -> float:
    """The number from which timm computes ``hidden``: it multiplies by the width and rounds downwards."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _one_if_equal(sides: tuple[int, int]) -> int | tuple[int, int]:
    return sides[0] if sides[0] == sides[1] else tuple(sides)


def _read_figures(path: str | os.PathLike) -> dict[str, float]:
    if not Path(path).is_file():
        raise UserError(f'--metrics {path} does not exist; expected what tools/test.py --out-item metrics wrote')
    figures = load(os.fspath(path))
    if not isinstance(figures, Mapping) or not all(isinstance(value, int | float) for value in figures.values()):
        raise UserError(f'--metrics {path} is not a file of figures by name; expected tools/test.py --out-item metrics')
    return dict(figures)


def _card(
    model: nn.Module, name: str, source: str, folder: Path, figures: Mapping[str, float], license: str
) -> ModelCard:
    weights = (folder / 'model.safetensors').stat().st_size / 1e6
    rows = [('parameters', f'{count_parameters(model):,}'), ('model.safetensors', f'{weights:.2f} MB')]
    rows += [(key, f'{value:.4g}') for key, value in figures.items()]
    data = ModelCardData(
        license=license,
        library_name='timm',
        pipeline_tag='image-classification',
        tags=['image-classification', 'timm', 'halvit'],
    )
    table = '\n'.join(f'| {key} | {value} |' for key, value in rows)
    about = '' if figures else '\nThe accuracy was not given when this card was written.\n'
    return ModelCard(f"""---
{data.to_yaml()}
---

# {name}

An image classifier with HaLViT, whose layers apply one matrix on the way in and its transpose on the way out. Papers:
*HaLViT: Half of the Weights are Enough*, CVPR 2024 Workshops, and [arXiv 2401.16438](https://arxiv.org/abs/2401.16438).

| | |
|---|---|
{table}
{about}
Licence of the weights: {license}.

```python
# pip install 'halvit-mm[timm]'
from halvit_mm.timm import from_pretrained

model = from_pretrained('{source}').eval()
```
""")


def _upload(folder: Path, repository: str) -> str:
    api = HfApi(library_name='halvit_mm', library_version=halvit_mm.__version__)
    try:
        url = api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder)
    except Exception as error:  # of the network, the token or the name, by the library's or its HTTP client's classes
        reason = ' '.join(str(error).split())[:200]
        raise UserError(f'--hub {PREFIX}{repository} cannot be written to: {reason}') from error
    return str(url)
