"""Package ``halvit_mm``; its configs and tools go with it, by the links in ``halvit_mm/.mim``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent.resolve()


def read_requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


setup(
    name='halvit_mm',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'halvit_mm' / '__init__.py').read_text()).group(1),
    description='HaLViT and ResNet50-PE for mmpretrain and mmdet: half of the weights',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    classifiers=[
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=find_packages(include=['halvit_mm', 'halvit_mm.*']),
    package_data={'halvit_mm': ['.mim/configs/**/*.*', '.mim/tools/*.*', '.mim/model-index.yml']},
    exclude_package_data={'halvit_mm': ['*.pyc']},
    python_requires='>=3.10',
    install_requires=read_requirements('runtime'),
    extras_require={name: read_requirements(name) for name in ('onedl', 'openmmlab', 'timm', 'baselines', 'export', 'test')},
    zip_safe=False,
)
