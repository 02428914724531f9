"""Parts of a page that a tool writes, between `<!-- begin NAME -->` and `<!-- end NAME -->`; and pages that a tool keeps fresh."""
from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from cfg_course.core import check, writing


def filled(
    page:str, # as it is
    parts:Mapping[str, str], # name of a pair of marks -> what stands between them
    where:str, # what to call the page in an error
)->str: # the page, as it should be
    "Write what stands between the marks; raises `InputError` where a pair is missing or stands twice."
    for name, text in parts.items():
        begin, end = f'<!-- begin {name} -->', f'<!-- end {name} -->'
        check(page.count(begin) == page.count(end) == 1, where, f'not one pair of marks {begin}', 'one')
        before, rest = page.split(begin)
        page = f'{before}{begin}\n{text}\n{end}{rest.split(end)[1]}'
    return page


def renew(
    path:Path, # of a page
    text:str, # as it should be
    only_check:bool, # write nothing, and fail when the page is stale
    mend:str, # the command that writes it
)->None:
    "Write a page whole or not at all; or end the program with whether it is stale."
    old = path.read_text(encoding='utf-8') if path.is_file() else ''
    if only_check:
        sys.exit(0 if text == old else f'{path.name} is stale. To mend: {mend}')
    with writing(path) as tmp:
        tmp.write_text(text, encoding='utf-8')
