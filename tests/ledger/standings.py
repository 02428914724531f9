"Chapter 20b: standings."
import math

import pandas as pd

from cfg_course.standings import Standings, same_dose
from ledger import row

NONE = pd.DataFrame(columns=['candidate', 'strength', 'seed', 'judge', 'metric', 'value'])


def rows(*found):
    "Rows of a table, from (candidate, strength, judge, metric, value)."
    return pd.DataFrame(found, columns=['candidate', 'strength', 'judge', 'metric', 'value']).assign(seed=0, samples=1000)


@row('eq-standings-gain', cell='20bc0010', tolerance=1e-10, mutant="a share of the technique's own FID, its ends as if plain guidance's were exact")
def gain(t):
    "100 (F_0 - F)/F_0 per cent, from the table of differences; its ends from the error of log(F/F_0)."
    for judge in 'ab':
        plain, own = t.number('F_0', .5, 20), t.number('F', .5, 20)
        plain_error, own_error = .04*plain, .05*own
        covariance = t.number('correlation', 0, .9)*plain_error*own_error
        error = (plain_error**2 + own_error**2 - 2*covariance)**.5
        chosen = rows(('cfg', 1.5, judge, 'fid', plain), ('new', 1.5, judge, 'fid', own))
        half = 1.96*pd.Series([plain_error, own_error])
        chosen = chosen.assign(low=chosen.value - half, high=chosen.value + half)
        away = pd.DataFrame([dict(candidate='new', judge=judge, metric='fid', difference=own - plain, error=error)])
        found = Standings(chosen, chosen, dict(evaluations=away), {}, NONE).gains().iloc[0]
        yield found.gain, 100*(plain - own)/plain, 100*(plain - own)/own
        spread = ((own_error/own)**2 + (plain_error/plain)**2 - 2*covariance/(own*plain))**.5
        without = error/own # as if the FID of plain guidance were exact
        for end, sign in ((found.low, 1), (found.high, -1)):
            yield end, 100*(1 - own/plain*math.exp(sign*1.96*spread)), 100*(1 - own/plain*math.exp(sign*1.96*without))


@row('eq-standings-dose', cell='20bc0013', tolerance=1e-10, mutant='plain guidance at the nearest scale that was tried')
def dose(t):
    "The score less that of plain guidance of the same mean effective scale, on the straight line between two scales."
    scales = [1.25 + k + .4*t.uniform(1).item() for k in range(t.whole('scales', 3, 6))]
    def scored(name, strength, effective):
        fids = (5*t.uniform(2) + .1).tolist()
        some = rows((name, strength, '', 'effective_scale', effective), *((name, strength, judge, 'fid', fid) for judge, fid in zip('ab', fids)))
        return some, sum(map(math.log, fids))/2
    plain = [scored('cfg', s, s) for s in scales]
    i, share = t.whole('between', 0, len(scales) - 2), t.number('share', .1, .9)
    at = scales[i] + share*(scales[i + 1] - scales[i])
    mine, score = scored('new', t.number('strength', 2, 9), at)
    tables = pd.concat([*(some for some, _ in plain), mine], ignore_index=True)
    found = same_dose(Standings(tables, NONE, {}, {}, NONE)).set_index('candidate').over['new']
    left, right = plain[i][1], plain[i + 1][1]
    yield found, score - ((1 - share)*left + share*right), score - (left if share < .5 else right)
