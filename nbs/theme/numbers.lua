-- After rendering: chapters cite each other by number, so a chapter bears that of its notebook before its title: in the
-- list of chapters, at the end of the path above it, at its head, and where it is the next one. The parts of the course,
-- whose links lead to their first chapter, have none; nor has what search finds, or the name of a tab.
local SPACE = '&ensp;'

local numbers = {} -- page -> number
for _, file in ipairs(pandoc.system.list_directory('.')) do
  local number, name = file:match('^0?(%d+%a?)_([%w_]+)%.ipynb$')
  if number then numbers[name .. '.html'] = number end
end

local function before(page)
  local number = numbers[page]
  return number and '<span class="chapter-number">' .. number .. '</span>' .. SPACE
end

-- Where a link to a page is followed by its title.
local PLACES = {
  '(<a href="%.?/?([%w_-]+%.html)" class="sidebar%-item%-text[^>]*>%s*<span class="menu%-text">)([^<]*</span>)',
  '(<li class="breadcrumb%-item"><a href="%.?/?([%w_-]+%.html)">)([^<]*</a></li></ol>)',
  '(<a href="%.?/?([%w_-]+%.html)" class="pagination%-link".-<span class="nav%-page%-text">)([^<]*</span>)'}

local function by_ear(start, page, title)
  local number = numbers[page]
  if number and title:sub(1, #number + 1) ~= number .. ' ' then return start .. ' aria-label="' .. number .. ' ' .. title .. '"' end
end

local function name(html, page)
  for _, place in ipairs(PLACES) do
    html = html:gsub(place, function(start, target, rest)
      local number = before(target)
      return number and start .. number .. rest
    end)
  end
  html = html:gsub('(<a href="%.?/?([%w_-]+%.html)" class="pagination%-link") aria%-label="([^"]*)"', by_ear)
  local own = before(page)
  if not own or html:find('<h1 class="title">' .. own, 1, true) then return html end
  return (html:gsub('<h1 class="title">', function(start) return start .. own end, 1))
end

for path in (os.getenv('QUARTO_PROJECT_OUTPUT_FILES') or ''):gmatch('[^\n]+') do
  if path:find('%.html$') then
    local file = assert(io.open(path, 'rb'))
    local html = file:read('a')
    file:close()
    local named = name(html, path:match('([^/]*)$'))
    if named ~= html then
      file = assert(io.open(path, 'wb'))
      file:write(named)
      file:close()
    end
  end
end
