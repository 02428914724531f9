"Files that a page shows, made part by part: one command line for the tools that make them."
import argparse
import json
from collections.abc import Callable
from pathlib import Path


def make_parts(
    about:str, # the tool's own words
    parts:dict[str, Callable[[], dict]], # name -> what makes its files and says what to note of them
    note:Path, # a .json file beside the files
    indent:int|None=None, # of the note
)->None:
    "Parse the command line and make the parts that it names, all when it names none."
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', metavar='PART', help=f'of {", ".join(parts)}; all when not given')
    asked = parser.parse_args().parts or list(parts)
    unknown = [name for name in asked if name not in parts]
    if unknown:
        parser.error(f'no part {unknown[0]!r}; there are {", ".join(parts)}')
    note.parent.mkdir(exist_ok=True)
    made = json.loads(note.read_text()) if note.exists() else {}
    made |= {name: parts[name]() for name in asked}
    note.write_text(json.dumps({name: made[name] for name in parts if name in made}, indent=indent) + '\n')
