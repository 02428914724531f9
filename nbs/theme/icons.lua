-- After rendering: theme/icons.css takes the place of Bootstrap's icons, whose letters alone weigh 180 KB on every page.
local folder = (os.getenv('QUARTO_PROJECT_OUTPUT_DIR') or '') .. '/site_libs/bootstrap/'
local ours, theirs = io.open('theme/icons.css', 'rb'), io.open(folder .. 'bootstrap-icons.css', 'rb')

if ours and theirs then
  theirs:close()
  local style = assert(io.open(folder .. 'bootstrap-icons.css', 'wb'))
  style:write(ours:read('a'))
  style:close()
  os.remove(folder .. 'bootstrap-icons.woff')
end
if ours then ours:close() end
