"What the front page and the story may say of the contest, from its tables."
from typing import NamedTuple

from cfg_course.standings import PLACES, Standings, all_standings, better_at, read_finals, title_of
from notebooks import NBS_DIR

WORDS = 'better', 'undecided', 'worse'


class Said(NamedTuple):
    "Phrases of one data set, for prose."
    tables:Standings
    counts:dict # verdict -> techniques and variants, plain guidance aside
    better:list # names, the one whose least favourable judge is kindest first
    samples:int # images of a technique, at most
    judges:int
    finals:dict # evaluations -> what was drawn at them; nothing where the finals are not drawn yet

    def title(self, name): return title_of(name)
    def verdict(self, name): return self.tables.verdict(name), self.tables.verdict(name, 'steps')
    def gain(self, name, rival='evaluations'):
        "From the least favourable judge to the most favourable one."
        return span(self.tables.last_gains(rival).query('candidate == @name').gain)
    def final_gain(self, name, budget=24.):
        "The same in the finals."
        return span(self.finals[budget].gains().query('candidate == @name').gain)
    def passed(self, rival='evaluations'):
        "Who is better in the finals, at each budget."
        return better_at(self.finals, rival)


def span(gains): return ' to '.join(f'{round(v):d}'.replace('-', '−') for v in (gains.min(), gains.max()))


def said_of(model):
    "None where nobody has been compared yet."
    places = {model: place for place, model in PLACES.items()}
    tables = all_standings(NBS_DIR/'results').get(places[model])
    if not tables or not tables.verdicts: return None
    words = tables.words()
    least = tables.last_gains().groupby('candidate').gain.min().reindex(words.index)
    better = [n for n in least.sort_values(ascending=False).index if words[n] == 'better']
    return Said(tables, {w: int((words == w).sum()) for w in WORDS}, better, int(tables.chosen.samples.max()), tables.values().shape[1], read_finals(model, NBS_DIR/'results'))
