"""Fill in what nbs/teach.qmd counts: minutes of reading, seconds to run, all exercises by topic and difficulty.

    python tools/teach.py                      write the page anew; --check only says whether it is stale
    python tools/teach.py --seconds LOG        first take the seconds of chapters from what `nbdev_test --timing` printed
    python tools/teach.py --missing            exercises that tools/exercises.csv lacks, as rows to fill in

A row of tools/exercises.csv belongs to the exercise of that chapter that begins with its words, so that numbers may change.
"""
import argparse, csv, json, re, sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import marks
from cfg_course.core import InputError

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT/'nbs'
PAGE, ROWS, SECONDS = NBS/'teach.qmd', ROOT/'tools'/'exercises.csv', NBS/'results'/'chapter_seconds.csv'
PACE = 200 # words a minute
PAUSE = .5 # minutes for a displayed equation
LEVELS = 'quick', 'an hour', 'project', 'proof'
TOPICS = (
    'Scores and denoisers', 'The formula of guidance', 'What is sampled', 'Gaussians, solved', 'Strong guidance', 'How wrong can it be?',
    'Tokens', 'When a class is decided', 'Worlds of pictures', 'Data, networks, samplers', 'Training', 'Classifiers and energies',
    'Techniques', 'Measuring', 'Reading results', 'Using it elsewhere')
HOUR = 'story', 'play', '04_guidance', '22_mnist', '31_discussion', '32_choice'
DAY = (
    'story', 'play', '02_scores', '03_mixtures', '04_guidance', '05_limits', '06_laws', '07_extremes', '13_denoisers', '14_samplers',
    '15_training', '17_rules', '17d_branches', '19_metrics', '22_mnist', '23_ablations', '24_cifar10', '26_guidance_repairs', '31_discussion',
    '32_choice')
PROOFS = (
    '01_paper', '02_scores', '03_mixtures', '04_guidance', '05_limits', '05a_doob', '05b_means', '05c_flows', '06_laws', '07_extremes',
    '07a_guarantees', '07b_tokens', '07c_decisions', '08_pictures', '08a_picture_decisions', '18b_particles', '18d_jacobians')
BOX = r'(?ms)^:::+ ?\{[^}\n]*collapse[^}\n]*\}.*?^:::+[ \t]*$'
FORMULA = r'(?s)\$\$.*?\$\$'
HEAD = r'(?s)\A---\n.*?\n---\n'


class Exercise(NamedTuple):
    "An exercise of a chapter."
    chapter: str # stem of the notebook
    number: int # in the chapter
    text: str # what it asks, without the solution
    exam: str # number of the examination question, or nothing


class Row(NamedTuple):
    "What a teacher is told of an exercise."
    chapter: str # stem of the notebook
    begins: str # first words of the exercise
    topic: str # one of `TOPICS`
    level: str # one of `LEVELS`
    asks: str # in a few words


def link_of(
    stem:str, # of a page
)->str: # its file
    "The file of a page, as links name it."
    return f'{stem}.ipynb' if stem[0].isdigit() else f'{stem}.qmd'


@cache
def words_of(
    path:Path, # of a notebook or a .qmd
)->str: # Markdown
    "The prose of a page."
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.qmd':
        return text
    prose = [''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'markdown']
    return '\n\n'.join(prose)


def title_of(
    stem:str, # of a page
)->str: # its title
    "What a page is called."
    return re.search(r'(?m)^(?:# |title: )(.+)$', words_of(NBS/link_of(stem)))[1].strip('"')


def number_of(
    stem:str, # of a chapter
)->str: # such as 5a; nothing for other pages
    "The number of a chapter."
    found = re.match(r'0?(\d+[a-z]?)_', stem)
    return found[1] if found else ''


def chapters()->list[str]: # stems
    "All chapters in their order."
    return sorted(p.stem for p in NBS.glob('[0-9]*.ipynb'))


# How long a page takes

def minutes_of(
    stem:str, # of a page
)->int: # minutes, at least 1
    "How long reading takes: words without code and folded boxes, and a pause at each displayed equation."
    text = re.sub(HEAD, '', words_of(NBS/link_of(stem)))
    text = re.sub(BOX, '', text)
    text = re.sub(r'(?ms)^```.*?^```', '', text)
    equations = len(re.findall(FORMULA, text))
    text = re.sub(FORMULA, '', text)
    text = re.sub(r'\$(?:\\.|[^$\\])+\$', ' formula ', text)
    text = re.sub(r'<[^>]+>|\]\([^)]*\)|\{[^}]*\}', '', text)
    words = len(re.findall(r"\w[\w’'-]*", text))
    return max(1, round(words/PACE + equations*PAUSE))


def slow_cells(
    stem:str, # of a chapter
)->int: # how many
    "Cells that train or measure for long, which a test leaves out."
    code = [c for c in json.loads((NBS/link_of(stem)).read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    return sum(bool(re.search(r'(?m)^#\|\s*slow\b', ''.join(c['source']))) for c in code)


def read_seconds()->dict[str, int]: # stem -> seconds
    "How long chapters took."
    with SECONDS.open(newline='', encoding='utf-8') as f:
        return {r['chapter']: int(r['seconds']) for r in csv.DictReader(f)}


def take_seconds(
    log:Path, # what `nbdev_test --timing` printed
)->None:
    "Keep the seconds of a run of all chapters."
    found = re.findall(r'(?m)^(\d\w+)\.ipynb: (\d+) secs', log.read_text(encoding='utf-8'))
    if not found:
        sys.exit(f'{log}: no line such as "00_core.ipynb: 10 secs"; run nbdev_test with --timing')
    with SECONDS.open('w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f, lineterminator='\n')
        writer.writerows([('chapter', 'seconds'), *sorted(found)])


# Exercises

def exercises_of(
    stem:str, # of a chapter
)->list[Exercise]: # in their order
    "The exercises of a chapter."
    part = words_of(NBS/link_of(stem)).partition('\n## Exercises\n')[2]
    part = re.split(r'(?m)^## ', part)[0]
    part = re.sub(BOX, '', part)
    part = re.sub(r'(?ms)^```.*?^```', '', part)
    pieces = re.split(r'(?m)^(?:\*\*(\d+)\.\*\*|(\d+)\.)\s+', part)
    found = []
    for bold, plain, text in zip(pieces[1::3], pieces[2::3], pieces[3::3]):
        exam = re.search(r'\{#exam-(\d+)\}', text)
        found.append(Exercise(stem, int(bold or plain), ' '.join(text.split()), exam[1] if exam else ''))
    return found


def exercises()->list[Exercise]: # of all chapters
    "All exercises of the course."
    return [e for stem in chapters() for e in exercises_of(stem)]


def read_rows()->list[Row]:
    "What tools/exercises.csv says."
    with ROWS.open(newline='', encoding='utf-8') as f:
        return [Row(**r) for r in csv.DictReader(f)]


def fits(
    row:Row, # of the file
    exercise:Exercise, # of a chapter
)->bool: # does it describe it?
    "Whether a row belongs to an exercise."
    same = row.chapter == exercise.chapter
    return same and exercise.text.startswith(row.begins)


def matched(
    rows:list[Row], # of the file
    found:list[Exercise], # of the chapters
)->tuple[list[tuple[Exercise, Row]], list[Exercise], list[Row]]: # pairs; exercises without one row; rows without an exercise
    "Which row belongs to which exercise."
    pairs, missing, used = [], [], set()
    for exercise in found:
        some = [r for r in rows if fits(r, exercise)]
        used |= set(some)
        if len(some) == 1:
            pairs.append((exercise, some[0]))
        else:
            missing.append(exercise)
    lost = [r for r in rows if r not in used]
    return pairs, missing, lost


# The parts of the page

def shown(
    stem:str, # of a page
)->str: # Markdown
    "A page by its number and name."
    name = f'{number_of(stem)} {title_of(stem)}'.strip()
    return f'[{name}]({link_of(stem)})'


def together(
    minutes:int, # of some pages
)->str: # in words
    "Minutes as hours and minutes, to the nearest ten from an hour on."
    if minutes < 60:
        return f'{minutes} minutes'
    hours, rest = divmod(10*round(minutes/10), 60)
    return f'{hours} h {rest} min' if rest else f'{hours} h'


def road(
    stems:tuple[str, ...], # of pages
)->str: # Markdown
    "A way to read, with the minutes of its pages."
    minutes = [minutes_of(s) for s in stems]
    each = [f'- {shown(s)}, {m} min' for s, m in zip(stems, minutes)]
    return '\n'.join([*each, f'- **together {together(sum(minutes))}**'])


def chapter_table()->str: # Markdown
    "All chapters with the minutes to read and the seconds to run."
    seconds = read_seconds()
    head = ['| chapter | minutes to read | seconds to run | slow cells left out |', '|---|---|---|---|']
    def took(stem): return seconds[stem] or 'under 1' if stem in seconds else 'not measured'
    def line(stem): return f'| {shown(stem)} | {minutes_of(stem)} | {took(stem)} | {slow_cells(stem) or ""} |'
    return '\n'.join(head + [line(s) for s in chapters()])


def names_of(
    stems:list[str], # of chapters
)->str: # Markdown
    "Chapters by their numbers."
    return ', '.join(f'[{number_of(s)}]({link_of(s)})' for s in stems)


def longest_of(
    stems:list[str], # of chapters
)->int: # seconds
    "How long the longest of some chapters took."
    seconds = read_seconds()
    return max(seconds[s] for s in stems if s in seconds)


def run_words()->str: # Markdown
    "Which chapters run wholly within a minute, and which leave something out."
    seconds = read_seconds()
    whole = [s for s in chapters() if not slow_cells(s) and s in seconds]
    cut = [s for s in chapters() if slow_cells(s)]
    minutes = sum(seconds.values())/60
    return (
        f'These {len(whole)} chapters have no slow cell, and each took at most {longest_of(whole)} seconds: {names_of(whole)}.\n\n'
        f'These {len(cut)} have slow cells. Without them each took at most {longest_of(cut)} seconds: {names_of(cut)}. '
        f'All {len(seconds)} one after another take {minutes:.0f} minutes, the longest {max(seconds.values())} seconds.')


def exercise_link(
    exercise:Exercise, # of a chapter
)->str: # Markdown
    "Where an exercise stands."
    place = f'exam-{exercise.exam}' if exercise.exam else 'exercises'
    return f'[{number_of(exercise.chapter)}, exercise {exercise.number}]({link_of(exercise.chapter)}#{place})'


def solution_words()->str: # Markdown
    "Where exercises have solutions."
    bare = [s for s in chapters() if 'collapse="true"' not in words_of(NBS/link_of(s)).partition('\n## Exercises\n')[2]]
    names = ', '.join(f'[{number_of(s)}]({link_of(s)})' for s in bare)
    return f'Solutions are folded below the exercises{f", except in {names}, which has none" if bare else ""}.'


def complete_pairs()->list[tuple[Exercise, Row]]:
    "All exercises with their rows; ends with what is missing."
    pairs, missing, lost = matched(read_rows(), exercises())
    faults = [f'no row in tools/exercises.csv, or several: {e.chapter}, {e.text[:60]!r}' for e in missing]
    faults += [f'tools/exercises.csv: {r.chapter} has no exercise that begins {r.begins!r}' for r in lost]
    if faults:
        sys.exit('\n'.join(faults))
    return pairs


def exercise_line(
    exercise:Exercise, # of a chapter
    row:Row, # what it asks
)->str: # Markdown
    "A line of the tables of exercises."
    exam = f', examination {exercise.exam}' if exercise.exam else ''
    return f'| {row.asks} | {row.level} | {exercise_link(exercise)}{exam} |'


def topic_table(
    topic:str, # one of `TOPICS`
    pairs:list[tuple[Exercise, Row]], # of all chapters
)->str: # Markdown
    "The exercises of a topic, the quick ones first."
    some = [p for p in pairs if p[1].topic == topic]
    some.sort(key=lambda p: LEVELS.index(p[1].level))
    head = [f'### {topic}', '', '| what it asks | difficulty | where |', '|---|---|---|']
    return '\n'.join(head + [exercise_line(*p) for p in some])


def exercise_table()->str: # Markdown
    "All exercises, by topic and then by difficulty."
    pairs = complete_pairs()
    levels = [row.level for _, row in pairs]
    counts = ', '.join(f'{levels.count(k)} *{k}*' for k in LEVELS)
    tables = [topic_table(topic, pairs) for topic in TOPICS]
    first = f'{len(pairs)} exercises: {counts}. {solution_words()}'
    return '\n\n'.join([first, *tables])


PARTS = dict(
    hour=lambda: road(HOUR), day=lambda: road(DAY), proofs=lambda: road(PROOFS), chapters=chapter_table, run=run_words,
    exercises=exercise_table)


def filled(
    text:str, # of the page
)->str: # with its parts made anew
    "The page, with everything that is counted."
    return marks.filled(text, {name: make() for name, make in PARTS.items()}, PAGE.name)


def missing_rows()->str: # of a CSV file
    "Exercises that have no row, as the beginnings of rows."
    _, missing, _ = matched(read_rows(), exercises())
    return '\n'.join(f'{e.chapter},"{" ".join(e.text.split()[:6])}",,,' for e in missing)


def main():
    "Write the page, or compare it."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true', help='write nothing; fail when the page is stale')
    p.add_argument('--missing', action='store_true', help='print exercises without a row, and end')
    p.add_argument('--seconds', type=Path, metavar='LOG', help='output of nbdev_test --timing')
    args = p.parse_args()
    if args.missing:
        return print(missing_rows())
    if args.seconds:
        take_seconds(args.seconds)
    try:
        new = filled(PAGE.read_text(encoding='utf-8'))
    except InputError as e:
        sys.exit(f'teach.py: {e}')
    marks.renew(PAGE, new, args.check, 'python tools/teach.py')


if __name__ == '__main__': main()
