-- The load of `make bench`, for wrk. Arguments: what to ask, how many keys, where to begin.
--
-- All requests are made before the first is sent, so that the load costs little while it is measured. They go round
-- the keys in large steps, so that neighbours in time are none in the table of counters.

local PER_BATCH = 100
local STEP = 7919 -- a prime, so that it visits all keys of any round number

local requests = {}
local count = 0
local at = 0

local function check(key)
  return '{"descriptors":[[{"key":"client_id","value":"' .. key .. '"}]]}'
end

-- One request for the keys that `next_key` gives.
local make = {
  increment = function(next_key)
    return wrk.format("POST", "/rate/increment?client_id=" .. next_key())
  end,
  check = function(next_key)
    return wrk.format("GET", "/rate/check?client_id=" .. next_key())
  end,
  batch = function(next_key)
    local checks = {}
    for i = 1, PER_BATCH do
      checks[i] = check(next_key())
    end
    local body = '{"checks":[' .. table.concat(checks, ",") .. "]}"
    return wrk.format("POST", "/v1/check", { ["Content-Type"] = "application/json" }, body)
  end,
}

function init(arguments)
  local kind, prefix, keys, first = arguments[1], arguments[2], tonumber(arguments[3]), tonumber(arguments[4])
  local key = first % keys
  local function next_key()
    key = (key + STEP) % keys
    return prefix .. key
  end
  -- Every key comes up once before the first comes again.
  count = kind == "batch" and math.ceil(keys / PER_BATCH) or keys
  for i = 1, count do
    requests[i] = make[kind](next_key)
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

-- The one line that the benchmark reads.
function done(summary)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("counted requests=%d microseconds=%d refused=%d failed=%d\n",
    summary.requests, summary.duration, errors.status, failed))
end
