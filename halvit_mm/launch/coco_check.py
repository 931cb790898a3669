"""Check a detector's datasets, their COCO files and its heads for faults that mmdet tells late or never."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

from mmengine.config import Config

from halvit_mm.errors import UserError, warn
from halvit_mm.io.datasets import read_classes, shown, type_name, walk_datasets

from .coco_file import CocoFile, written

# The file of COCO's training set has 450 MB, takes many seconds to read, and is known to be whole.
LARGEST_FILE = 64 * 2**20
# Parts of a model whose num_classes is not the number of the dataset's classes
OTHER_CLASSES = ('backbone', 'rpn_head', 'semantic_head', 'data_preprocessor', 'train_cfg', 'test_cfg')
METRICS = ('CocoMetric', 'CocoOccludedSeparatedMetric')


def check_coco(cfg: Config, loaders: Sequence[str]) -> None:
    """Refuse datasets of mmdet that fail late, train on nothing or with shifted labels; warn of what is dropped.

    Annotation files are read if they are on this machine, if mmdet's ``CocoDataset`` or a class that reads as it does
    is to read them, and if they have up to 64 MB. docs/checks.md lists the checks.

    Args:
        cfg (Config): The config.
        loaders (Sequence[str]): Keys of the data loaders that the run uses.

    Raises:
        UserError: If a dataset, its file, one of its images, or a head of the model is at fault.
    """
    # A model that reads names has as many outputs as it has words, and is tested on other names.
    reads_names = 'language_model' in (cfg.get('model') or {})
    heads = {} if reads_names else dict(_walk_heads(cfg.get('model'), 'model'))
    first, loader_of = None, {}
    for loader in loaders:
        trained, paths = [], set()
        for key, dataset in walk_datasets(cfg.get(loader), loader):
            kind = _kind(cfg, dataset)
            if kind is None:
                continue
            classes = _classes(key, dataset, kind)
            file = _open(loader, key, dataset, kind) if classes else None
            taken = file and file.check_order(classes, _advice(file, heads))
            if classes and not reads_names:
                _check_heads(heads, key, classes, kind)
                first = first or (key, classes)
                _check_same(*first, key, classes)
            if file:
                paths |= _check_file(cfg, loader, file, taken, dataset, classes)
            if loader == 'train_dataloader':
                trained.append(file and (file, taken, dataset))
        _check_training(trained)
        if again := [path for path in sorted(paths) if path in loader_of]:
            other = loader_of[again[0]]
            warn(f'{loader}: {len(again)} of its {len(paths)} images are in {other} too, such as {again[0]}')
        loader_of.update(dict.fromkeys(paths, loader))


def _kind(cfg: Config, dataset: Mapping) -> type | None:
    """The class of a dataset, if it is a detector's."""
    kind = dataset['type']
    scopes = (cfg.get('default_scope'), dataset.get('_scope_'), str(kind).partition('.')[0])
    if type_name(dataset) != 'CocoDataset' and 'mmdet' not in scopes:
        return None
    base = _mmdet().BaseDetDataset
    if not isinstance(kind, type):
        from mmdet.registry import DATASETS

        kind = DATASETS.get(kind)
    return kind if isinstance(kind, type) and issubclass(kind, base) else None


def _mmdet() -> ModuleType:
    """mmdet's datasets, without the lines that their import prints about packages that are not installed."""
    with redirect_stdout(io.StringIO()):
        import mmdet.datasets
    return mmdet.datasets


def _reads_as_coco(kind: type) -> bool:
    """Whether a class reads its file by the methods of ``CocoDataset``."""
    coco = _mmdet().CocoDataset
    return issubclass(kind, coco) and all(
        getattr(kind, name) is getattr(coco, name) for name in ('load_data_list', 'parse_data_info')
    )


def _classes(key: str, dataset: Mapping, kind: type) -> Sequence[str] | None:
    """Names of a dataset's classes: the config's, else those of its type."""
    metainfo = dataset.get('metainfo') or {}
    if wrong := next((name for name in metainfo if name != 'classes' and name.lower() == 'classes'), None):
        raise UserError(f'{key}.metainfo.{wrong} is not a key that mmdet reads; expected metainfo=dict(classes=...)')
    if 'classes' in dataset and kind.__init__ is _mmdet().BaseDetDataset.__init__:
        raise UserError(f'{key}.classes is not an argument; expected {key}.metainfo=dict(classes=...)')
    try:
        classes = read_classes(metainfo)
    except UserError as error:
        raise UserError(f'{key}.{error}') from None
    if classes and len({*classes}) < len(classes):
        twice = next(name for name in classes if [*classes].count(name) > 1)
        raise UserError(f'{key}.metainfo.classes has {twice!r} more than once; expected each name once')
    return classes if 'classes' in metainfo else getattr(kind, 'METAINFO', {}).get('classes')


def _open(loader: str, key: str, dataset: Mapping, kind: type) -> CocoFile | None:
    """A dataset's annotation file; None if it is elsewhere, large or of another format."""
    if not _reads_as_coco(kind):
        return None
    root, name = dataset.get('data_root') or '', dataset.get('ann_file')
    prefix = dataset.get('data_prefix')
    own_defaults = kind.__init__ is not _mmdet().BaseDetDataset.__init__
    if own_defaults and not (name and isinstance(prefix, Mapping) and 'img' in prefix):
        return None
    if not name or not isinstance(name, str):
        raise UserError(f'{key}.ann_file={name!r} is not a file; expected one in the format of COCO')
    if not isinstance(prefix, Mapping) or not isinstance(prefix.get('img'), str):
        given = dict(prefix) if isinstance(prefix, Mapping) else prefix
        raise UserError(f"{key}.data_prefix={given!r} has no folder of images; expected dict(img='...')")
    path = Path(root, name)
    if any('://' in part for part in (root, name, prefix['img'])) or dataset.get('backend_args'):
        return None
    if not path.is_file():
        raise UserError(f'{key}.ann_file: {path} is not a file (looked from {Path.cwd()}); expected one as COCO has it')
    if path.stat().st_size > LARGEST_FILE:
        return None
    # The images of an evaluation server (image_info_test-dev2017.json), and those of background only, have no
    # annotations.
    return CocoFile(loader, path, annotated=loader == 'val_dataloader')


def _check_file(
    cfg: Config, loader: str, file: CocoFile, taken: set, dataset: Mapping, classes: Sequence[str]
) -> set[str]:
    """Check the content of a file; the paths of its images."""
    evaluators = cfg.get(loader.replace('dataloader', 'evaluator')) if loader != 'train_dataloader' else None
    evaluators = [
        evaluator
        for evaluator in (evaluators if isinstance(evaluators, (list, tuple)) else [evaluators or {}])
        if type_name(evaluator) in METRICS and evaluator.get('ann_file') and not evaluator.get('backend_args')
    ]
    masks = any('segm' in _metrics(evaluator) for evaluator in evaluators)
    folder = str(Path(dataset.get('data_root') or '', dataset['data_prefix']['img']))
    paths = file.check_images(folder, dataset.get('pipeline'), masks)
    file.check_boxes()
    file.check_masks(taken, _steps(dataset, 'LoadAnnotations'))
    for evaluator in evaluators:
        _check_evaluator(loader.replace('dataloader', 'evaluator'), evaluator, file, classes)
    file.check_categories(taken)
    if loader == 'train_dataloader' and (missing := file.missing(classes)):
        warn(f'{file.where} has no category {", ".join(missing)}, which metainfo.classes names')
    return paths


def _check_training(files: Sequence[tuple[CocoFile, set, Mapping] | None]) -> None:
    """Refuse a training on nothing; each dataset has a file, ids of its categories and a config, or None."""
    counts = [file and file[0].count_trained(file[1], _steps(file[2], 'LoadAnnotations')) for file in files]
    # Beside other datasets, one of background is legal.
    if counts and all(count == 0 for count in counts):
        file, *_ = files[0]
        lacking = 'box of its classes' if file.has_annotations else "'annotations'"
        raise UserError(f"{file.where} has no {lacking}; expected 'images', 'annotations' and 'categories'")
    for file, taken, dataset in filter(None, files):
        if not dataset.get('test_mode'):
            file.check_filter(dataset.get('filter_cfg'), taken)


def _check_evaluator(key: str, evaluator: Mapping, file: CocoFile, classes: Sequence[str]) -> None:
    """Refuse an annotation file of ``CocoMetric`` that ends the evaluation, or is not that of the images."""
    path = Path(evaluator['ann_file'])
    if '://' in evaluator['ann_file']:
        return
    if not path.is_file():
        raise UserError(f'{key}.ann_file: {path} is not a file (looked from {Path.cwd()}); expected {file.path}')
    if path.stat().st_size > LARGEST_FILE:
        return
    truth = file if path.samefile(file.path) else CocoFile(key, path, annotated=False)
    taken = truth.check_order(classes)
    if others := [image['file_name'] for i, image in file.images.items() if i not in truth.images]:
        raise UserError(
            f'{key}.ann_file: {path} has not the images of {file.path}, such as {others[0]}; expected the same file'
        )
    if missing := truth.missing(classes):
        raise UserError(
            f'{truth.where} has no category {", ".join(missing)}, and CocoMetric fails at a detection of that class; '
            "expected all names of metainfo.classes in its 'categories', with boxes or without"
        )
    if not evaluator.get('format_only'):
        truth.check_evaluation(taken, _metrics(evaluator))


def _metrics(evaluator: Mapping) -> Sequence[str]:
    metric = evaluator.get('metric', 'bbox')
    return [metric] if isinstance(metric, str) else metric


def _steps(dataset: Mapping, name: str) -> list[Mapping]:
    """The transforms of a dataset that have this name."""
    return [step for step in dataset.get('pipeline') or () if type_name(step) == name]


def _walk_heads(node: object, key: str) -> Iterator[tuple[str, int]]:
    """Key and number of classes of each part of a model that is to have those of the dataset."""
    if isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield from _walk_heads(part, f'{key}.{i}')
    elif isinstance(node, Mapping):
        if 'num_things_classes' in node:
            yield key, node['num_things_classes'] + node.get('num_stuff_classes', 0)
        elif isinstance(node.get('num_classes'), int) and 'type' in node:
            yield key, node['num_classes']
        for name, part in node.items():
            if name not in OTHER_CLASSES:
                yield from _walk_heads(part, f'{key}.{name}')


def _check_heads(heads: Mapping[str, int], key: str, classes: Sequence[str], kind: type) -> None:
    """Refuse heads with another number of classes than a dataset has, as mmdet's ``NumClassCheckHook`` would."""
    if issubclass(kind, _mmdet().CocoPanopticDataset):  # Things are a part of its classes.
        return
    if wrong := {name: number for name, number in heads.items() if number != len(classes)}:
        name, number = next(iter(wrong.items()))
        raise UserError(
            f'{name}.num_classes={number} is not the number of classes of {key}, which has {len(classes)} '
            f'({shown(classes)}); expected num_classes={len(classes)} in {" and ".join(wrong)}'
        )


def _check_same(first: str, expected: Sequence[str], key: str, classes: Sequence[str]) -> None:
    if list(classes) != list(expected):
        raise UserError(
            f'the classes of {key} ({shown(classes)}) are not those of {first} ({shown(expected)}); expected the same '
            'names in the same order in metainfo=dict(classes=...) of both'
        )


def _advice(file: CocoFile, heads: Mapping[str, int]) -> str:
    """What to write if a config is still for other data."""
    names = [category['name'] for category in file.categories]
    advice = f'expected metainfo=dict(classes={written(names)}) in all datasets'
    return f'{advice}, and num_classes={len(names)} in {" and ".join(heads)}' if heads else advice
