from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from halvit_mm.errors import UserError
from halvit_mm.io.configs import load_config
from halvit_mm.io.logits import StoredLogits
from halvit_mm.registry import HOOKS
from halvit_mm.train.augmented import describe_images, describe_teacher, difference
from halvit_mm.train.loops import ResumableEpochTrainLoop
from halvit_mm.train.ranks import from_the_first_rank

from .bad_images import CheckedDataset
from .seeds import IterationSeedHook

# Keys of the description, and what they are to a user
WORDS = {'seed': 'randomness.seed', 'images': 'the number of images', 'list': 'the list of paths and labels'}


@HOOKS.register_module()
class StoredLogitsHook(Hook):
    """Compare stored logits with the training that they teach, before its first step.

    A :class:`~halvit_mm.models.DistilledClassifier` with ``teacher_logits`` trains only after this. Refused
    are logits of another seed, of other images, pipelines, samplers or preprocessors, of another number of classes, of
    fewer epochs, of another teacher than the config names, and logits whose writing was cut. If the images of a batch
    are mixed (Mixup, CutMix), the ranks and their batches must be those of the logits.
    """

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        logits = getattr(model, 'teacher_logits', None)
        if isinstance(logits, StoredLogits):
            from_the_first_rank(_compare, logits, model, runner)
            logits.accepted = True
            teacher = logits.manifest['teacher']
            runner.logger.info(f'Teacher: the {logits.topk} largest logits of {teacher["checkpoint"]}, stored')

    def after_train_epoch(self, runner: Runner) -> None:
        """Look at the images of the whole epoch, before a checkpoint of it is written."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        logits = getattr(model, 'teacher_logits', None)
        if isinstance(logits, StoredLogits):
            logits.look()


def _compare(logits: StoredLogits, model, runner: Runner) -> None:
    def refuse(reason: str) -> None:
        raise UserError(f'model.teacher_logits={str(logits.folder)!r} does not fit this training: {reason}')

    if not isinstance(runner.train_loop, ResumableEpochTrainLoop):
        refuse("its places are those of epochs; expected train_cfg with by_epoch=True and halvit_mm's runner")
    dataset = runner.train_dataloader.dataset
    checked = getattr(dataset, 'dataset', None)
    bad_images = checked.bad_images if isinstance(checked, CheckedDataset) else 'stop'
    now = describe_images(runner.cfg, runner.train_dataloader, model.data_preprocessor, runner.seed, bad_images)
    if (runner.cfg.get('randomness') or {}).get('diff_rank_seed'):
        refuse('randomness.diff_rank_seed=True gives the ranks seeds of their own; expected False')
    if fault := misfit(logits.manifest, now):
        refuse(fault)
    if now['training']['by_batch'] and not any(isinstance(hook, IterationSeedHook) for hook in runner.hooks):
        refuse('default_hooks.seeds=None leaves the mixing of images to chance; expected IterationSeedHook')
    classes = getattr(model.head, 'num_classes', None) or logits.classes
    if logits.classes != classes:
        refuse(f'it has logits of {logits.classes} classes; the head has {classes}')
    if logits.epochs < runner.max_epochs:
        refuse(
            f'it has {logits.epochs} epochs; expected the {runner.max_epochs} of train_cfg.max_epochs, which '
            'tools/save_logits.py adds to the same folder'
        )
    if model.teacher_source is not None:
        config, options, checkpoint = model.teacher_source
        teacher = describe_teacher(load_config(config, options), checkpoint)
        stored = logits.manifest['teacher']
        if teacher['checksum'] is None:  # The weights need not be here.
            teacher['checksum'] = stored['checksum']
        if fault := difference(stored, teacher, 'teacher'):
            refuse(f'{fault}; expected the teacher that was stored, or teacher=None and teacher_checkpoint=None')
    for epoch in range(runner.epoch, runner.max_epochs):
        for rank in range(logits.ranks):
            if logits.missing(epoch, rank):
                refuse(
                    f'it is not whole: what rank {rank} reads in epoch {epoch + 1} is missing; expected '
                    'tools/save_logits.py to have ended; the same command goes on'
                )


def misfit(stored: dict, now: dict) -> str | None:
    """Say why logits are not of the images of a training; None if they are.

    Args:
        stored (dict): The manifest of the logits.
        now (dict): From :func:`~halvit_mm.train.augmented.describe_images`.
    """
    old, new = stored['training'], now['training']
    for key, words in WORDS.items():
        if old[key] != new[key]:
            if key == 'list':
                return f'{words} of the images is another one; expected the files that the teacher was given'
            return f'{words} was {old[key]} and is {new[key]}'
    if fault := difference(old['config'], new['config']):
        return f'{fault}; expected the config that tools/save_logits.py was given'
    before, after = ((one['ranks'], one['batch_size']) for one in (stored, now))
    if new['by_batch'] and before != after:
        before, after = (f'{ranks} ranks x {batch} images' for ranks, batch in (before, after))
        return (
            f'images are mixed within a batch, and batches were {before} and are {after}; expected the same, or '
            'tools/save_logits.py on as many ranks, which may share a GPU'
        )
    places = now['ranks'] * now['rows']
    if places > stored['ranks'] * stored['rows']:
        return (
            f'an epoch has {places} places on {now["ranks"]} ranks, and {stored["ranks"] * stored["rows"]} are stored; '
            f'expected tools/save_logits.py on {now["ranks"]} ranks, which may share a GPU'
        )
    return None
