-- After rendering: Quarto loads jQuery and RequireJS from another site for every page with a table. No table here uses them.
local pattern = '<script[^>]*>%s*</script>'

local function strip(html)
  html = html:gsub(pattern, function(tag) return tag:find('/requirejs@') and '' or tag:find('/jquery@') and '' or nil end)
  return (html:gsub("<script[^>]*>define%('jquery'.-</script>", ''))
end

for path in (os.getenv('QUARTO_PROJECT_OUTPUT_FILES') or ''):gmatch('[^\n]+') do
  if path:find('%.html$') then
    local file = assert(io.open(path, 'rb'))
    local html = file:read('a')
    file:close()
    local clean = strip(html)
    if clean ~= html then
      file = assert(io.open(path, 'wb'))
      file:write(clean)
      file:close()
    end
  end
end
