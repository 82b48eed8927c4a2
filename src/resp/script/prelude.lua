-- What scripts see: Lua 5.1 without the outside, with tables that nobody can change for the others. Runs once per interpreter, with
-- the true globals; `rust` is what Rust gives. Functions here use their locals only: `setfenv` must not reach anything.
local rust = ...
local error, getmetatable, setmetatable, type, next, pairs = error, getmetatable, setmetatable, type, next, pairs
local pcall, xpcall, rawset, rawget, unpack, select, tonumber = pcall, xpcall, rawset, rawget, unpack, select, tonumber
local getfenv, setfenv = getfenv, setfenv
local find, insert, remove, sort, resume = string.find, table.insert, table.remove, table.sort, coroutine.resume
local globals = _G
local killed, text = rust.killed, rust.text
local READONLY = "Attempt to modify a readonly table"

-- Lua 5.1 has no tables that cannot be written: an empty one stands before each, and what writes past metatables asks first.
local shielded = setmetatable({}, { __mode = "k" })
local function refuse() error(READONLY, 2) end
local function shield(real)
  local front = {}
  shielded[front] = real
  return setmetatable(front, { __index = real, __newindex = refuse, __metatable = false })
end

-- What `getfenv` shows of the functions below.
setfenv(1, shield({}))

-- What was killed stays killed. Errors of Rust are objects, and those of redis.call tables for the script; scripts of before Redis 7 expect texts.
local function caught(ok, e, ...)
  if ok then return true, e, ... end
  if killed() then error(e, 0) end
  if type(e) == "userdata" then e = text(e) end
  if type(e) == "table" then
    local message = rawget(e, "err")
    if type(message) == "string" or type(message) == "number" then e = message end
  end
  return false, e
end
local function failed(ok, e, ...)
  if not ok then
    if killed() then error(e, 0) end
    if type(e) == "userdata" then e = text(e) end
  end
  return ok, e, ...
end

local G = {}
for _, name in pairs({
  "assert", "error", "ipairs", "next", "rawequal", "rawget", "select", "tonumber", "tostring", "type", "_VERSION",
}) do
  G[name] = globals[name]
end
function G.pairs(t)
  local real = shielded[t]
  if not real then return pairs(t) end
  local copy = {}
  for k, v in pairs(real) do copy[k] = v end
  return next, copy, nil
end
function G.pcall(...) return caught(pcall(...)) end
function G.xpcall(f, handler)
  return failed(xpcall(f, function(e)
    if type(e) == "userdata" then e = text(e) end
    return handler(e)
  end))
end
function G.rawset(t, k, v)
  if shielded[t] then error(READONLY, 0) end
  return rawset(t, k, v)
end
function G.setmetatable(t, m)
  if shielded[t] then error(READONLY, 0) end
  return setmetatable(t, m)
end
function G.getmetatable(t)
  -- Shared by all scripts.
  if type(t) ~= "table" then return nil end
  return getmetatable(t)
end
-- 0 is the whole interpreter, which is shared.
function G.setfenv(f, t)
  if type(f) == "number" then
    if f < 1 then error("'setfenv' cannot change environment of given object", 2) end
    f = f + 1
  end
  return setfenv(f, t)
end
function G.getfenv(f)
  if f == nil then f = 1 end
  if type(f) == "number" then f = f < 1 and globals or f + 1 end
  local env = f == globals and globals or getfenv(f)
  return env == globals and G._G or env
end
function G.unpack(t, i, j)
  -- Lua 5.1 subtracts these as 32 bits.
  if i ~= nil or j ~= nil then
    local from, to = tonumber(i == nil and 1 or i), tonumber(j == nil and type(t) == "table" and #t or j)
    if from and to and not (from >= -1e6 and to <= 1e9 and to - from < 1e6) then
      if from > to then return end
      error("too many results to unpack", 2)
    end
  end
  return unpack(t, i, j)
end
function G.gcinfo() return rust.memory() end
function G.collectgarbage(what)
  -- The collector is the server's; only looking and collecting are a script's affair.
  if what == "count" then return rust.memory() end
  if what == nil or what == "collect" or what == "step" then rust.collect() end
  return 0
end
G.load, G.loadstring = rust.load, rust.loadstring

local strings = {}
for name, f in pairs(globals.string) do strings[name] = f end
-- A pattern's items are calls of C inside each other: a long one would end the thread's stack.
local PATTERN_MAX = 2048
for _, name in pairs({ "find", "match", "gmatch", "gfind", "gsub" }) do
  local f = globals.string[name]
  strings[name] = function(s, pattern, ...)
    if type(pattern) == "string" and #pattern > PATTERN_MAX and find(pattern, "[%^%$%*%+%?%.%(%[%%%-]")
      and not (name == "find" and select(2, ...)) then
      error("pattern too complex", 2)
    end
    return f(s, pattern, ...)
  end
end
local tables = {}
for name, f in pairs(globals.table) do tables[name] = f end
for name, f in pairs({ insert = insert, remove = remove, sort = sort }) do
  tables[name] = function(t, ...)
    if shielded[t] then error(READONLY, 2) end
    return f(t, ...)
  end
end
tables.setn = nil
-- While a library is loaded each of them says first what it is about to do: C does not look at the clock.
local careful, spend = {}, rust.spend
for name, f in pairs(strings) do
  careful[name] = function(...) spend(name, ...) return f(...) end
end
local maths = {}
for name, f in pairs(globals.math) do maths[name] = f end
maths.random, maths.randomseed = rust.random, rust.randomseed
local routines = {}
for name, f in pairs(globals.coroutine) do routines[name] = f end
function routines.resume(...) return failed(resume(...)) end

G.string, G.table, G.math, G.coroutine = shield(strings), shield(tables), shield(maths), shield(routines)
G.os = shield({ clock = rust.clock })
G.redis = shield(rust.redis)
G.server = G.redis
G.cjson, G.cmsgpack, G.struct, G.bit = shield(rust.cjson), shield(rust.cmsgpack), shield(rust.struct), shield(rust.bit)
local of_strings = getmetatable("")
of_strings.__index, of_strings.__metatable = strings, false

local function missing(_, name)
  error("Script attempted to access nonexistent global variable '" .. rust.name(name) .. "'", 2)
end
setmetatable(G, { __index = missing })
local front = shield(G)
G._G = front

-- What a library of functions sees while it is loaded: this alone. Its functions see what scripts see, when they run: `behind` is where
-- their globals are looked up, and Rust exchanges it.
local registering = setmetatable({ register_function = rust.register_function }, { __index = missing })
for _, name in pairs({
  "log", "LOG_DEBUG", "LOG_VERBOSE", "LOG_NOTICE", "LOG_WARNING", "REDIS_VERSION", "REDIS_VERSION_NUM",
}) do
  registering[name] = rust.redis[name]
end
local loading = setmetatable({ redis = shield(registering) }, { __index = missing })
loading.server = loading.redis
local behind = { __index = G, __newindex = refuse, __metatable = false }
local library = setmetatable({}, behind)
shielded[library] = G

local on_error = rust.on_error
-- Whatever finds them finds nothing.
for name in pairs(globals) do globals[name] = nil end
return {
  of_strings = of_strings, strings = strings, careful = careful,
  environment = front, globals = G, redis = rust.redis, library = library, loading = loading, behind = behind,
  run = function(f) return xpcall(f, on_error) end,
  call = function(f, keys, args) return xpcall(function() return f(keys, args) end, on_error) end,
}
