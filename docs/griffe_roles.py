"""Sphinx's roles in docstrings as links of mkdocstrings, for the API pages."""

import re

import griffe

ROLE = re.compile(r':(class|func|meth|mod|data):`(~?)([\w.]+)`')
LINK = re.compile(r'`([^`<]+) <(https?://[^>]+)>`_')


class Roles(griffe.Extension):
    """Turn a role such as ``:func:`~halvit_mm.tie_model``` into a link, and a name that is not documented into code."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring:
            text = LINK.sub(r'[\1](\2)', obj.docstring.value).replace('``', '`')
            obj.docstring.value = ROLE.sub(lambda found: _link(obj, *found.groups()), text)


def _link(obj: griffe.Object, role: str, short: str, name: str) -> str:
    shown = name.rpartition('.')[2] if short else name
    if not name.startswith('halvit_mm.'):
        first, _, rest = name.partition('.')
        owner = obj.parent if obj.parent is not None and first in obj.parent.members else obj.module
        if first not in owner.members:
            return f'`{shown}`'
        member = owner.members[first]
        path = member.target_path if member.is_alias else member.path
        name = f'{path}.{rest}' if rest else path
    linked = name.startswith('halvit_mm.') and role != 'data'
    return f'[`{shown}`][{name}]' if linked else f'`{shown}`'
