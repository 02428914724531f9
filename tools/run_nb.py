"""Execute notebooks in place, each in a process of its own, and save the outputs that belong on the page.

Cells that are not run (`#| eval: false`, or a test flag that was not asked for) keep the outputs they have.
Progress bars and the standard error stream are not saved: warnings are shown here instead, for the author to mend.
"""
import argparse, re, subprocess, sys, time
from pathlib import Path

from execnb.nbio import write_nb
from execnb.shell import CaptureShell
from fastcore.xtras import working_directory
from nbdev.config import get_config
from nbdev.process import NBProcessor

BAR = re.compile(r'\d%\|.*\||\[[\d:]+<[\d:?]+,|\d\w* \[[\d:]+, ')  # as tqdm draws them
WIDGET = 'application/vnd.jupyter.widget-view+json'


def is_skipped(
    cell, # notebook cell, with its directives
    skip:set # flags of cells to leave alone
)->bool: # whether the cell is left as it is
    "True for prose, for `eval: false` and for cells that bear a flag in `skip`."
    dirs = getattr(cell, 'directives_', None) or {}
    never = dirs.get('eval:', [''])[0].lower() == 'false' or 'nbdev_export(' in cell.source
    return cell.cell_type != 'code' or never or bool(skip & dirs.keys())


def visible(
    text:str # what a cell printed
)->str: # what a terminal would show of it, without progress bars
    "Apply carriage returns and drop the lines of progress bars."
    lines = [o.rstrip('\r').rpartition('\r')[2] for o in text.split('\n')]
    return '\n'.join(o for o in lines if not BAR.search(o))


def tidy(
    out:dict # one output of a cell, changed in place
)->bool: # whether anything is left to keep
    "Reduce an output to what belongs on the page; show its warnings to the author."
    data = out.get('data', {})
    if 'image/png' in data: data.pop('image/jpeg', None)  # Pillow offers both; pixels are shown without loss
    if out['output_type'] != 'stream': return WIDGET not in data
    text = visible(''.join(out['text']))
    if out['name'] == 'stderr': sys.stderr.write(text)
    out['text'] = text.splitlines(True)
    return out['name'] != 'stderr' and bool(text.strip())


def run_cells(
    fn:Path, # notebook, for its folder and its name in a traceback
    nb, # its parsed contents, changed in place
    skip:set # flags of cells to leave alone
):
    "Run the cells of `nb`; on the first exception print the traceback and exit with status 1."
    shell = CaptureShell(fn)
    try:
        with working_directory(fn.parent): shell.run_all(nb, exc_stop=True, preproc=lambda c: is_skipped(c, skip))
    except Exception: sys.exit(f'{shell.prettytb(fname=fn)}\n{fn.name}: not saved')


def execute(
    fn:Path, # notebook
    flags:str # test flags to run that are normally skipped
)->tuple: # its parsed contents with new outputs, pairs of a cell that ran and the outputs that it had
    "Run the cells of `fn` that no other test flag marks. Nothing is saved."
    skip, nb = set(get_config().tst_flags.split()) - set(flags.split()), NBProcessor(fn, process=True, rm_directives=False).nb
    ran = [(c, c.outputs) for c in nb.cells if not is_skipped(c, skip)]
    for c,_ in ran: c.outputs = []
    run_cells(fn, nb, skip)
    for c,_ in ran: c.outputs = [o for o in c.outputs if tidy(o)]
    return nb, ran


def run_nb(
    fn:Path, # notebook to execute
    flags:str # test flags to run that are normally skipped
):
    "Run the cells of `fn` that no other test flag marks, and save their outputs."
    start = time.time()
    write_nb(execute(fn, flags)[0], fn)
    print(f'{fn.name}: {time.time()-start:.0f} s')


def run_all(
    nbs:list, # notebooks, as given on the command line
    flags:str # test flags to run
):
    "Run each of several notebooks in a process of its own; stop at the first that fails."
    for nb in nbs:
        if code := subprocess.run([sys.executable, __file__, nb, '--flags', flags]).returncode: sys.exit(code)


def main():
    "Parse the command line and run."
    p = argparse.ArgumentParser(description='Execute notebooks in place.')
    p.add_argument('nbs', nargs='+', help='notebooks')
    p.add_argument('--flags', default='', help='test flags to run that are normally skipped, e.g. slow')
    args = p.parse_args()
    if len(args.nbs) > 1: return run_all(args.nbs, args.flags)
    sys.path.insert(0, str(get_config().config_path))
    run_nb(Path(args.nbs[0]).resolve(), args.flags)


if __name__ == '__main__': main()
