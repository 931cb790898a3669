"""Child registries of mmengine's roots: ``halvit_mm.X`` is found from any OpenMMLab library."""

from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import LOOPS as ROOT_LOOPS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import RUNNERS as ROOT_RUNNERS
from mmengine.registry import VISBACKENDS as ROOT_VISBACKENDS
from mmengine.registry import VISUALIZERS as ROOT_VISUALIZERS
from mmengine.registry import Registry

MODELS = Registry('model', parent=ROOT_MODELS, scope='halvit_mm', locations=['halvit_mm.models'])
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='halvit_mm', locations=['halvit_mm.train'])
LOOPS = Registry('loop', parent=ROOT_LOOPS, scope='halvit_mm', locations=['halvit_mm.train'])
RUNNERS = Registry('runner', parent=ROOT_RUNNERS, scope='halvit_mm', locations=['halvit_mm.train'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=ROOT_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='halvit_mm',
    locations=['halvit_mm.train'],
)
# Empty: a config that inherits our runtime as 'halvit_mm::...' has its visualizer in this scope.
VISUALIZERS = Registry('visualizer', parent=ROOT_VISUALIZERS, scope='halvit_mm', locations=['halvit_mm.models'])
VISBACKENDS = Registry('vis_backend', parent=ROOT_VISBACKENDS, scope='halvit_mm', locations=['halvit_mm.models'])
