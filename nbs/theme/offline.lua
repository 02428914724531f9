-- After rendering. Quarto loads jQuery and RequireJS from another site for every page with a table; no table here uses them.
-- Its navigations bear no names, so that one cannot be told from another by ear, and what opens a part of them is called a
-- navigation, or a menu; they get names, and those are buttons. A list of works opens when it is asked for: links to a work,
-- and the box at the pointer, find it closed too. A page shows itself before its programs are there, loads the style of the
-- night at night only, and has the few icons that it needs from its own style (site.scss), in place of a font of 180 kB.
local pattern = '<script[^>]*>%s*</script>'

local function strip(html)
  html = html:gsub(pattern, function(tag) return tag:find('/requirejs@') and '' or tag:find('/jquery@') and '' or nil end)
  return (html:gsub("<script[^>]*>define%('jquery'.-</script>", ''))
end

local NAMES = {
  ['class="navbar '] = 'Parts of the course', ['id="quarto-sidebar"'] = 'Chapters', ['id="TOC"'] = 'On this page',
  ['class="quarto-secondary-nav"'] = 'This chapter', ['class="page-navigation"'] = 'The chapters before and after',
  ['quarto-title-breadcrumbs'] = 'Where this chapter stands'}

local function name(html)
  html = html:gsub('<nav( [^>]*)>', function(rest)
    for mark, words in pairs(NAMES) do
      if rest:find(mark, 1, true) then return '<nav aria-label="' .. words .. '"' .. rest:gsub(' aria%-label="[^"]*"', '') .. '>' end
    end
  end)
  html = html:gsub('<a( [^>]*) role="navigation"([^>]*)>', function(before, after)
    local focus = (before .. after):find('href=', 1, true) and '' or ' tabindex="0"'
    return '<a' .. before .. ' role="button"' .. focus .. after .. '>'
  end)
  return (html:gsub('(<button class="navbar%-toggler"[^>]*) role="menu"', '%1'))
end

local function fold_works(html)
  if html:find('<details class="box works">', 1, true) then return html end
  return (html:gsub('(<div id="refs" class="references.-)(</section>)', function(works, close)
    local _, count = works:gsub('class="csl%-entry"', '')
    local summary = count == 1 and 'One work' or count .. ' works'
    return '<details class="box works"><summary>' .. summary .. '</summary>' .. works .. '</details>' .. close
  end))
end

-- Programs of the head run in their order once the page is read; that of pictures is called before.
local function later(html)
  local head, rest = html:match('^(.-</head>)(.*)$')
  if not head then return html end
  head = head:gsub('<script src="(site_libs/[^"]*)"></script>', function(path)
    if not path:find('glightbox', 1, true) then return '<script src="' .. path .. '" defer></script>' end
  end)
  return head .. rest
end

-- Quarto's own script says `stylesheet` of it when the reader wants the night.
local function night(html)
  return (html:gsub('<link href="([^"]*)" rel="stylesheet"([^>]* class="quarto%-color%-scheme quarto%-color%-alternate")',
    '<link href="%1" rel="disabled-stylesheet" blocking="render"%2'))
end

local function icons(html) return (html:gsub('<link href="[^"]*bootstrap%-icons%.css" rel="stylesheet">%s*', '')) end

-- nbdev links every name of the package, and not every name has a place on a page: such a link leads to the page, and
-- from the page itself to nowhere, so that its words remain.
local function ids(html)
  local found = {}
  for id in html:gmatch('%sid="([^"]+)"') do found[id] = true end
  return found
end

local function read(path)
  local file = io.open(path, 'rb')
  local html = file and file:read('a')
  if file then file:close() end
  return html
end

local known = {}
local function places(path)
  if known[path] == nil then
    local html = read(path)
    known[path] = html and ids(html) or false
  end
  return known[path]
end

local function anchors(html, path)
  local folder, own = path:match('^(.*/)([^/]*)$')
  if not folder then folder, own = '', path end
  return (html:gsub('<a href="%.?/?([%w_-]*%.?h?t?m?l?)#([^"]+)"([^>]*)>(<code>[^<]*</code>)</a>', function(page, id, rest, words)
    local target = page == '' and own or page
    local found = target == own and ids(html) or places(folder .. target)
    if not found or found[id] then return nil end
    return target == own and words or '<a href="' .. target .. '"' .. rest .. '>' .. words .. '</a>'
  end))
end

for path in (os.getenv('QUARTO_PROJECT_OUTPUT_FILES') or ''):gmatch('[^\n]+') do
  if path:find('%.html$') then
    local file = assert(io.open(path, 'rb'))
    local html = file:read('a')
    file:close()
    local clean = anchors(icons(night(later(fold_works(name(strip(html)))))), path)
    if clean ~= html then
      file = assert(io.open(path, 'wb'))
      file:write(clean)
      file:close()
    end
  end
end
