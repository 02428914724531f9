-- A result file that is named in code, `results/x.csv` or `x.csv`, leads to the file itself, which the site carries; several
-- at once, `results/x_*.csv`, lead to the list of all of them. Within links and headings nothing changes.
local function is_there(name)
  local file = io.open('results/' .. name)
  if file then file:close() end
  return file ~= nil
end

local function Code(code)
  local name = code.text:gsub('^nbs/', ''):gsub('^results/', '')
  if not name:match('^[%w_*-]+%.csv$') then return nil end
  if name:find('*', 1, true) then return pandoc.Link({code}, 'downloads.qmd'), false end
  if is_there(name) then return pandoc.Link({code}, 'results/' .. name), false end
end

local function leave(element) return element, false end

return {{traverse = 'topdown', Code = Code, Link = leave, Header = leave}}
